from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cqt2img.errors import InputError
from cqt2img.evaluation.report import (
    TABLE_WRITERS,
    check_table_name,
    write_audacity,
    write_scores,
    write_table,
)
from tests.conftest import raises_with
from tests.evaluation.examples import few_scores

FRAME = pd.DataFrame(
    {
        "path": ["Björk, live.wav", 'a "quoted"\nname.wav', "gone.wav"],
        "label": ["Evans", "007", None],
        "probability": [0.75, 0.5, None],
        "status": ["ok", "ok", "error"],
    }
)
READERS = {
    ".csv": lambda path: pd.read_csv(path, dtype={"label": str}),
    ".jsonl": lambda path: pd.read_json(path, lines=True, dtype={"label": object}),
    ".parquet": pd.read_parquet,
}


def test_every_format_is_read_back():
    assert READERS.keys() == TABLE_WRITERS.keys()


# tables


@pytest.mark.parametrize("suffix", READERS)
def test_a_written_table_reads_back_unchanged(tmp_path, suffix):
    path = tmp_path / "new" / f"answers{suffix}"
    write_table(FRAME, path)
    frame = READERS[suffix](path).astype(object)
    expected = FRAME.astype(object).where(FRAME.notna(), None)
    pd.testing.assert_frame_equal(frame.where(frame.notna(), None), expected)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".CSV", ".JsonL", ".PARQUET"])
def test_the_suffix_may_be_in_capitals(tmp_path, suffix):
    path = tmp_path / f"answers{suffix}"
    write_table(FRAME, path)
    assert len(READERS[suffix.lower()](path)) == 3


@pytest.mark.parametrize(
    ("suffix", "expected"),
    [
        (".csv", b"old\xe9.wav"),
        (".jsonl", b"old\\udce9.wav"),
        (".parquet", b"old\\udce9.wav"),
    ],
)
def test_file_names_that_are_not_unicode_can_be_written(tmp_path, suffix, expected):
    """Python maps such bytes of a Linux file name to surrogates."""
    paths = pd.Series(["old\udce9.wav", "b.wav", "c.wav"], dtype=object)
    path = tmp_path / f"answers{suffix}"
    write_table(FRAME.assign(path=paths), path)
    assert expected in path.read_bytes()


@pytest.mark.parametrize("suffix", READERS)
def test_a_table_replaces_an_older_one(tmp_path, suffix):
    path = tmp_path / f"answers{suffix}"
    write_table(FRAME, path)
    write_table(FRAME[:1], path)
    assert len(READERS[suffix](path)) == 1


def test_a_failed_write_leaves_the_older_table(tmp_path):
    path = tmp_path / "answers.parquet"
    write_table(FRAME, path)
    before = path.read_bytes()
    mixed = pd.DataFrame({"mixed": [1, "a", object()]})
    with pytest.raises(Exception):  # noqa: B017, PT011  (an error class of pyarrow)
        write_table(mixed, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["answers.parquet"]


@pytest.mark.parametrize("name", ["answers.xlsx", "answers", "answers.csv.gz", "csv"])
def test_an_unknown_suffix_is_an_error(tmp_path, name):
    path = tmp_path / name
    with raises_with(InputError, "predict: --out", repr(str(path)), *TABLE_WRITERS):
        check_table_name(path, "predict: --out")
    with raises_with(InputError, "path", repr(str(path))):
        write_table(FRAME, path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_place_of_a_table_is_an_error(tmp_path):
    path = tmp_path / "folder.csv"
    path.mkdir()
    with raises_with(InputError, "path", repr(str(path))):
        check_table_name(path)


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path):
    file = tmp_path / "file"
    file.touch()
    for folder in (file, file / "below" / "that"):
        with raises_with(InputError, repr(str(folder))):
            check_table_name(folder / "answers.csv")


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    with raises_with(InputError, repr(str(tmp_path / "new"))):
        check_table_name(tmp_path / "new" / "answers.csv")


def test_checking_a_name_creates_no_folder(tmp_path):
    check_table_name(tmp_path / "new" / "newer" / "answers.csv")
    assert list(tmp_path.iterdir()) == []


# Audacity


def tile_rows(path, *labels):
    return [
        {
            "path": path,
            "start_seconds": 2.0 * n,
            "end_seconds": 2.0 * (n + 1),
            "label": label,
            "probability": 0.5 + 0.1 * n,
            "status": "ok",
        }
        for n, label in enumerate(labels)
    ]


def test_consecutive_tiles_with_the_same_prediction_share_a_label(tmp_path):
    frame = pd.DataFrame(tile_rows("x/take 1.wav", "Evans", "Evans", "Monk", "Evans"))
    written = write_audacity(frame, tmp_path / "labels")
    assert written == [tmp_path / "labels" / "take 1.wav.txt"]
    assert written[0].read_text(encoding="utf-8") == (
        "0.000\t4.000\tEvans 0.55\n4.000\t6.000\tMonk 0.70\n6.000\t8.000\tEvans 0.80\n"
    )


def test_recordings_with_the_same_name_have_separate_tracks(tmp_path):
    paths = ("a/1.wav", "b/1.wav", "b/2.wav")
    rows = [row for path in paths for row in tile_rows(path, path)]
    written = write_audacity(pd.DataFrame(rows), tmp_path)
    assert [path.name for path in written] == ["1.wav.txt", "1.wav~2.txt", "2.wav.txt"]
    assert "b/1.wav" in written[1].read_text()
    assert {path.name for path in tmp_path.iterdir()} == {p.name for p in written}


def test_recordings_that_cannot_be_read_have_no_track(tmp_path):
    (good,) = tile_rows("a.wav", "Evans")
    empty = dict.fromkeys(good) | {"path": "b.wav", "status": "error"}
    assert len(write_audacity(pd.DataFrame([good, empty]), tmp_path)) == 1
    assert write_audacity(pd.DataFrame([empty]), tmp_path / "none") == []


@pytest.mark.parametrize("label", ["Björk", 7, "a\tb\nc"])
def test_every_label_is_one_line_of_three_fields(tmp_path, label):
    (file,) = write_audacity(pd.DataFrame(tile_rows("a.wav", label)), tmp_path)
    (line,) = file.read_text(encoding="utf-8").splitlines()
    assert len(line.split("\t")) == 3


def test_label_tracks_keep_the_bytes_of_names_that_are_not_unicode(tmp_path):
    rows = tile_rows("old\udce9.wav", "Andr\udce9")
    (file,) = write_audacity(pd.DataFrame(rows, dtype=object), tmp_path)
    assert file.name == "old\udce9.wav.txt"
    assert b"\tAndr\xe9 " in file.read_bytes()


# scores


@pytest.fixture
def scores():
    scores = few_scores()
    tiles = tuple(np.log(np.maximum(scores.proba[:, None], 1e-6)))
    return replace(scores, tile_log_proba=tiles, tile_seconds=2.0)


def test_scores_are_written_as_tables_and_plots(tmp_path, scores):
    folder = tmp_path / "new"
    write_scores(folder, scores)
    plots = "classes", "confusion", "reliability", "risk-coverage", "seconds"
    tables = "answers", "classes", "confusion", "groups"
    expected = {f"{name}.png" for name in plots} | {f"{name}.csv" for name in tables}
    assert {path.name for path in folder.iterdir()} == expected | {"evaluation.json"}
    for name in plots:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_scores_of_two_models_are_written_as_a_comparison(tmp_path, scores):
    other = replace(scores, proba=scores.proba[:, [1, 0, 2]])
    write_scores(tmp_path, scores, other)
    frame = pd.read_csv(tmp_path / "comparison.csv")
    assert frame["first"].tolist() == ["Evans", "Monk", "Monk", "Evans"]
    assert frame["second"].tolist() == ["Monk", "Evans", "Evans", "Monk"]
