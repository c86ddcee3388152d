from dataclasses import replace

import numpy as np
import pytest

from cqt2img.inference.calibration import to_proba
from cqt2img.inference.tables import (
    label_columns,
    rank_labels,
    recording_table,
    tile_table,
)
from tests.inference.conftest import SILENCE, known_cqts, new_cqts, run

NAMES = np.array(["Evans", "Monk", "Tatum"])


@pytest.fixture(scope="module")
def cqts():
    return [known_cqts()[2], SILENCE, *new_cqts(1)]


@pytest.fixture(scope="module")
def outputs(_fitted, cqts):
    return run(_fitted, cqts)


PATHS = ["c.wav", "silent.wav", "new.wav"]


def test_a_recording_has_one_row_with_its_labels_in_order(fitted, outputs):
    table = recording_table(PATHS, outputs, fitted, top_k=2)
    assert list(table) == [
        "path",
        "label",
        "probability",
        "label_2",
        "probability_2",
        "status",
        "reason",
        "message",
    ]
    assert table["path"].tolist() == PATHS
    proba = to_proba(outputs[0].log_proba, fitted.temperature)
    order = np.argsort(-proba)
    assert table["label"][0] == "c"
    assert table["label_2"][0] == fitted.classes[order[1]]
    assert table["probability"][0] == pytest.approx(proba.max(), abs=1e-6)


def test_an_unreadable_recording_has_a_row_without_labels(fitted, outputs):
    row = recording_table(PATHS, outputs, fitted, top_k=1).iloc[1]
    assert row[["label", "probability"]].isna().all()
    assert row[["status", "reason"]].tolist() == ["error", "silent"]
    assert row["message"]


def test_open_set_columns_stand_before_the_status(fitted, outputs):
    plain = recording_table(PATHS, outputs, fitted)
    table = recording_table(PATHS, outputs, fitted, with_open_set=True)
    assert list(table)[-5:] == ["known", "is_unknown", "status", "reason", "message"]
    assert table.drop(columns=["known", "is_unknown"]).equals(plain)
    assert table["is_unknown"].tolist() == [False, None, True]
    expected = fitted.open_set_p_values(outputs).round(4)
    np.testing.assert_array_equal(table["known"].to_numpy(float), expected)


def test_open_set_columns_of_unreadable_recordings_are_empty(fitted, outputs):
    table = recording_table(PATHS[1:2], outputs[1:2], fitted, with_open_set=True)
    assert table[["known", "is_unknown"]].isna().all(axis=None)


def test_a_tile_has_one_row_with_its_times(fitted, outputs):
    table = tile_table(PATHS, outputs, fitted, top_k=1)
    assert list(table)[:3] == ["path", "start_seconds", "end_seconds"]
    first = table[table["path"] == "c.wav"]
    n_tiles = len(outputs[0].tile_log_proba)
    seconds = fitted.spec.tile_seconds
    starts = [n * seconds for n in range(n_tiles)]
    ends = [*starts[1:], outputs[0].info.seconds]
    assert n_tiles == 2
    assert first["start_seconds"].tolist() == pytest.approx(starts, abs=1e-3)
    assert first["end_seconds"].tolist() == pytest.approx(ends, abs=1e-3)
    proba = to_proba(outputs[0].tile_log_proba, fitted.temperature).max(axis=1)
    assert first["probability"].tolist() == pytest.approx(proba.tolist(), abs=1e-5)
    assert first["label"].tolist() == ["c", "c"]


def test_an_unreadable_recording_has_one_tile_row_without_times(fitted, outputs):
    table = tile_table(PATHS, outputs, fitted)
    row = table[table["path"] == "silent.wav"]
    empty = ["start_seconds", "end_seconds", "label", "probability"]
    assert row[empty].isna().all(axis=None)
    assert row["reason"].tolist() == ["silent"]


def test_equal_probabilities_keep_the_order_of_the_classes(fitted, outputs):
    even = replace(outputs[0], log_proba=np.log(np.full(4, 0.25, np.float32)))
    row = recording_table(["x"], [even], fitted, top_k=3).iloc[0]
    assert row[["label", "label_2", "label_3"]].tolist() == ["a", "b", "c"]


def test_labels_of_integers_are_plain_integers():
    proba = np.array([0.2, 0.5, 0.3], np.float32)
    columns = label_columns(rank_labels(proba, np.array([7, 8, 9]), 9))
    assert columns == {
        "label": 8,
        "probability": 0.5,
        "label_2": 9,
        "probability_2": 0.3,
        "label_3": 7,
        "probability_3": 0.2,
    }
    assert type(columns["label"]) is int


def test_labels_without_probabilities_are_none():
    assert label_columns(rank_labels(None, NAMES, 2)) == {
        "label": None,
        "probability": None,
        "label_2": None,
        "probability_2": None,
    }
