import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cqt2img._utils.files import check_folder
from cqt2img.errors import InputError
from cqt2img.evaluation.evaluation import evaluate_proba
from cqt2img.evaluation.report import (
    check_table_name,
    to_png,
    write_audacity,
    write_page,
    write_scores,
    write_table,
)
from cqt2img.tiles.display import plot_tiles
from tests.conftest import raises_exactly

FRAME = pd.DataFrame(
    {
        "path": ["Björk, live.wav", 'a "quoted"\nname.wav', "gone.wav"],
        "label": ["Evans", "007", None],
        "probability": [0.75, 0.5, None],
        "status": ["ok", "ok", "error"],
    }
)
READ = {
    ".csv": lambda path: pd.read_csv(path, dtype={"label": str}),
    ".jsonl": lambda path: pd.read_json(path, lines=True, dtype={"label": object}),
    ".parquet": pd.read_parquet,
}


@pytest.fixture
def tiles(small):
    return np.random.default_rng(0).integers(0, 256, (4, *small.size), dtype=np.uint8)


def refusal(path):
    return f"{str(path)!r} is not a folder that can be written. Choose another one."


def test_folder_that_cannot_be_made(tmp_path):
    file = tmp_path / "file"
    file.touch()
    for path in (file, file / "below" / "that"):
        with raises_exactly(InputError, refusal(path)):
            check_folder(path)
    with raises_exactly(InputError, refusal(file)):
        check_table_name(file / "answers.csv")
    check_folder(tmp_path / "new" / "newer")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_folder_that_may_not_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    with raises_exactly(InputError, refusal(tmp_path / "new")):
        check_folder(tmp_path / "new")


# tables


@pytest.mark.parametrize("suffix", READ)
def test_table_reads_back(tmp_path, suffix):
    path = tmp_path / "new" / f"answers{suffix}"
    write_table(FRAME, path)
    read = READ[suffix](path).astype(object)
    pd.testing.assert_frame_equal(
        read.where(read.notna(), None), FRAME.astype(object).where(FRAME.notna(), None)
    )
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".CSV", ".JsonL", ".PARQUET"])
def test_ending_in_capitals(tmp_path, suffix):
    write_table(FRAME, tmp_path / f"answers{suffix}")
    assert len(READ[suffix.lower()](tmp_path / f"answers{suffix}")) == 3


@pytest.mark.parametrize("suffix", READ)
def test_name_of_a_file_that_is_not_unicode(tmp_path, suffix):
    """As Linux gives it for a file from an old disk."""
    frame = FRAME.assign(
        path=pd.Series(["old\udce9.wav", "b.wav", "c.wav"], dtype=object)
    )
    write_table(frame, tmp_path / f"answers{suffix}")
    data = (tmp_path / f"answers{suffix}").read_bytes()
    assert {
        ".csv": b"old\xe9.wav",
        ".jsonl": b"old\\udce9.wav",
        ".parquet": b"old\\udce9.wav",
    }[suffix] in data


@pytest.mark.parametrize("suffix", READ)
def test_older_table_is_replaced(tmp_path, suffix):
    for frame in (FRAME, FRAME[:1]):
        write_table(frame, tmp_path / f"a{suffix}")
    assert len(READ[suffix](tmp_path / f"a{suffix}")) == 1


def test_table_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "answers.parquet"
    write_table(FRAME, path)
    before = path.read_bytes()
    with pytest.raises(Exception):  # noqa: B017, PT011  (pyarrow has an error of its own)
        write_table(pd.DataFrame({"mixed": [1, "a", object()]}), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["answers.parquet"]


@pytest.mark.parametrize("name", ["answers.xlsx", "answers", "answers.csv.gz", "csv"])
def test_ending_that_is_not_known(tmp_path, name):
    path = tmp_path / name
    message = f"write_table: path must be a file that ends in .csv, .jsonl, .parquet, got {str(path)!r}. Rename it."
    for call in (lambda: check_table_name(path), lambda: write_table(FRAME, path)):
        with raises_exactly(InputError, message):
            call()
    assert list(tmp_path.iterdir()) == []


def test_table_in_place_of_a_folder(tmp_path):
    path = tmp_path / "folder.csv"
    path.mkdir()
    message = f"write_table: path must be a file that ends in .csv, .jsonl, .parquet, got {str(path)!r}. Rename it."
    with raises_exactly(InputError, message):
        check_table_name(path)


# Audacity


def tile_rows(path, *labels, seconds=2.0):
    return [
        {
            "path": path,
            "start_seconds": n * seconds,
            "end_seconds": (n + 1) * seconds,
            "label": label,
            "probability": 0.5 + 0.1 * n,
            "status": "ok",
        }
        for n, label in enumerate(labels)
    ]


def test_neighbours_of_one_name_are_one_label(tmp_path):
    frame = pd.DataFrame(tile_rows("x/take 1.wav", "Evans", "Evans", "Monk", "Evans"))
    written = write_audacity(frame, tmp_path / "labels")
    assert written == [tmp_path / "labels" / "take 1.wav.txt"]
    assert written[0].read_text(encoding="utf-8") == (
        "0.000\t4.000\tEvans 0.55\n4.000\t6.000\tMonk 0.70\n6.000\t8.000\tEvans 0.80\n"
    )


def test_every_recording_has_a_file_of_its_own(tmp_path):
    rows = [
        row
        for path in ("a/1.wav", "b/1.wav", "b/2.wav")
        for row in tile_rows(path, path)
    ]
    bad = {
        "path": "c/3.wav",
        "start_seconds": None,
        "end_seconds": None,
        "label": None,
        "probability": None,
        "status": "error",
    }
    written = write_audacity(pd.DataFrame([*rows, bad]), tmp_path)
    assert [path.name for path in written] == ["1.wav.txt", "1.wav~2.txt", "2.wav.txt"]
    assert "b/1.wav" in written[1].read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        path.name for path in written
    )


def test_nothing_that_could_be_read(tmp_path):
    frame = pd.DataFrame([{**tile_rows("a.wav", None)[0], "status": "error"}])
    assert write_audacity(frame, tmp_path / "labels") == []


@pytest.mark.parametrize("label", ["Björk", 7, "a\tb\nc"])
def test_one_line_per_label_whatever_the_name(tmp_path, label):
    (file,) = write_audacity(pd.DataFrame(tile_rows("a.wav", label)), tmp_path)
    lines = file.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1
    assert len(lines[0].split("\t")) == 3


def test_label_track_of_names_that_are_not_unicode(tmp_path):
    (file,) = write_audacity(
        pd.DataFrame(tile_rows("old\udce9.wav", "Andr\udce9"), dtype=object), tmp_path
    )
    assert file.name == "old\udce9.wav.txt"
    assert b"\tAndr\xe9 " in file.read_bytes()


# pictures


def test_to_png_is_a_picture(tiles, small):
    import io

    from PIL import Image

    with Image.open(
        io.BytesIO(to_png(plot_tiles(tiles[:1], small, ["a"]), dpi=50))
    ) as image:
        assert image.format == "PNG"
        assert image.size == (615, 135)


def test_scores_as_tables_and_pictures(tmp_path):
    proba = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], np.float32)
    scores = evaluate_proba(proba, np.array([0, 1, 1]), ["Evans", "Monk"])
    scores = replace(scores, tiles=tuple(np.log(proba[:, None])), tile_seconds=2.0)
    write_scores(tmp_path / "new", scores)
    tables = {
        "answers.csv",
        "classes.csv",
        "confusion.csv",
        "groups.csv",
        "evaluation.json",
    }
    plots = {
        f"{name}.png"
        for name in ("classes", "confusion", "reliability", "risk-coverage", "seconds")
    }
    assert {path.name for path in (tmp_path / "new").iterdir()} == tables | plots
    assert all(
        (tmp_path / "new" / name).read_bytes().startswith(b"\x89PNG") for name in plots
    )
    write_scores(tmp_path / "new", scores, replace(scores, proba=proba[:, ::-1]))
    frame = pd.read_csv(tmp_path / "new" / "comparison.csv")
    assert frame["first"].tolist() == ["Evans", "Monk", "Evans"]
    assert frame["second"].tolist() == ["Monk", "Evans", "Monk"]


# the page


def test_page_holds_all_it_shows(tmp_path, tiles, small):
    import base64

    picture = to_png(plot_tiles(tiles[:1], small, ["a"]), dpi=40)
    path = tmp_path / "page.html"
    write_page(path, "Who <is> it & why?", ["A paragraph.", "<h2>More</h2>", picture])
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert text.count("Who &lt;is&gt; it &amp; why?") == 2
    assert "<p>A paragraph.</p>" in text
    assert "\n<h2>More</h2>\n" in text
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert [base64.b64decode(one) for one in found] == [picture]
    assert not re.search(
        r"https?:|//[a-z]|<script|<link|@import|url\(", text.replace(found[0], "")
    )
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]
