from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import precision_recall_fscore_support

from cqt2img.evaluation.evaluation import evaluate_proba
from cqt2img.inference.calibration import pool
from tests.evaluation.examples import (
    class_names,
    draw_predictions,
    draw_scores,
    few_scores,
)


@pytest.fixture
def few():
    return few_scores()


def test_answers_have_one_row_per_recording(few):
    table = few.answer_table()
    assert table["path"].tolist() == ["a", "b", "c", "d"]
    assert table["group"].tolist() == ["7", "7", "8", "9"]
    assert table["label"].tolist() == ["Evans", "Evans", "Monk", "Monk"]
    assert table["predicted"].tolist() == ["Evans", "Monk", "Monk", "Evans"]
    assert table["probability"].tolist() == pytest.approx([0.9, 0.6, 0.7, 0.8])
    assert table["label_probability"].tolist() == pytest.approx([0.9, 0.3, 0.7, 0.2])
    assert table["rank"].tolist() == [1, 2, 1, 2]


def test_classes_have_counts_and_their_most_frequent_confusion(few):
    table = few.class_table().set_index("label")
    assert table["n_recordings"].tolist() == [2, 2, 0]
    assert table["n_groups"].tolist() == [1, 2, 0]
    assert table["confused_with"].tolist()[:2] == ["Monk", "Evans"]


def test_the_interval_of_a_class_is_over_its_groups(few):
    table = few.class_table().set_index("label")
    exact = binomtest(1, 2).proportion_ci()
    interval = tuple(table.loc["Monk", ["low", "high"]])
    assert interval == pytest.approx((exact.low, exact.high))
    # both recordings are of one group
    assert table.loc["Evans", "high"] - table.loc["Evans", "low"] > 0.98


def test_scores_of_a_class_that_does_not_occur_are_missing(few):
    row = few.class_table().set_index("label").loc["Tatum"]
    missing = ["recall", "low", "high", "precision", "f1", "confused_with"]
    assert row[missing].isna().all()


def test_scores_of_classes_agree_with_scikit_learn():
    proba, class_indices = draw_predictions(120, 4)
    table = evaluate_proba(proba, class_indices, class_names(4)).class_table()
    precision, recall, f1, n = precision_recall_fscore_support(
        class_indices, proba.argmax(axis=1), labels=range(4)
    )
    np.testing.assert_allclose(table["precision"], precision)
    np.testing.assert_allclose(table["recall"], recall)
    np.testing.assert_allclose(table["f1"], f1)
    assert table["n_recordings"].tolist() == n.tolist()
    assert (table["low"] < table["recall"]).all()
    assert (table["recall"] < table["high"]).all()


def test_groups_have_counts_and_their_most_frequent_classes(few):
    assert few.group_table().to_dict("list") == {
        "group": ["7", "8", "9"],
        "label": ["Evans", "Monk", "Monk"],
        "n_recordings": [2, 1, 1],
        "n_correct": [1, 1, 0],
        "predicted": ["Evans", "Monk", "Evans"],
    }


def test_gaps_of_the_reliability_table_add_up_to_the_calibration_error():
    scores = draw_scores(150, 4)
    table = scores.reliability_table()
    assert len(table) > 1
    assert table["n_recordings"].sum() == 150
    gaps = (table["confidence"] - table["accuracy"]).abs()
    error = (gaps * table["n_recordings"]).sum() / 150
    assert error == pytest.approx(scores.calibration_error)
    assert table["accuracy"].is_monotonic_increasing
    assert (table["low"] <= table["accuracy"]).all()
    assert (table["accuracy"] <= table["high"]).all()


def test_the_risk_table_starts_with_the_most_confident_predictions(few):
    table = few.risk_table()
    assert table["coverage"].tolist() == [0.25, 0.5, 0.75, 1]
    assert table["n_recordings"].tolist() == [1, 2, 3, 4]
    assert table["accuracy"].tolist() == pytest.approx([1, 1 / 2, 2 / 3, 1 / 2])
    assert table["threshold"].tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6])


def test_the_risk_table_has_twenty_steps_and_ends_with_all_recordings():
    scores = draw_scores(200)
    table = scores.risk_table()
    assert table["coverage"].tolist() == pytest.approx(np.arange(1, 21) / 20)
    last = table.iloc[-1]
    assert last["accuracy"] == scores.accuracy
    assert (last["low"], last["high"]) == scores.accuracy_interval


def test_predictions_from_the_first_seconds_pool_the_first_tiles(few):
    rng, lengths = np.random.default_rng(0), (4, 1, 3, 2)
    tiles = tuple(
        np.log(rng.dirichlet(np.ones(3), n)).astype(np.float32) for n in lengths
    )
    table = replace(few, tile_log_proba=tiles, tile_seconds=2.5).seconds_table()
    assert table["seconds"].tolist() == [2.5, 5.0, 7.5, 10.0]
    assert table["n_recordings"].tolist() == [4, 3, 2, 1]
    for n_used, accuracy in enumerate(table["accuracy"], start=1):
        is_correct = [
            pool(tiles[n][:n_used]).argmax() == few.class_indices[n]
            for n in range(4)
            if lengths[n] >= n_used
        ]
        assert accuracy == np.mean(is_correct)


def test_a_confident_tile_outweighs_an_uncertain_one(few):
    both = np.log([[0.4, 0.6, 1e-6], [0.9, 0.1, 1e-6]])
    mirrored = both[:, [1, 0, 2]]
    tiles = (both, both, mirrored, mirrored)
    table = replace(few, tile_log_proba=tiles, tile_seconds=1.0).seconds_table()
    assert table["accuracy"].tolist() == [0, 1]


def test_long_recordings_have_about_a_dozen_durations(few):
    tiles = tuple(np.zeros((500, 3), np.float32) for _ in range(4))
    table = replace(few, tile_log_proba=tiles, tile_seconds=6.0).seconds_table()
    assert 8 <= len(table) <= 12
    assert table["seconds"].iloc[[0, -1]].tolist() == [6.0, 3000.0]


def test_the_seconds_table_is_empty_without_predictions_for_tiles(few):
    table = few.seconds_table()
    assert len(table) == 0
    assert list(table) == ["seconds", "accuracy", "low", "high", "n_recordings"]
