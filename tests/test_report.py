import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import refused

from cqt2img.drawing import plot_tiles
from cqt2img.errors import InputError
from cqt2img.evaluate import evaluate_proba
from cqt2img.report import (
    check_folder,
    check_table_name,
    plot_confusion,
    plot_history,
    plot_scores,
    to_png,
    write_audacity,
    write_page,
    write_table,
)
from cqt2img.watch import look_on

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
def scores():
    proba = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]], np.float32)
    return evaluate_proba(proba, np.array([0, 1, 1, 1]), ["Evans", "Monk"])


@pytest.fixture
def tiles(small):
    return np.random.default_rng(0).integers(0, 256, (4, *small.size), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _no_pyplot_state():
    """What draws leaves no open figure and no changed setting behind."""
    import matplotlib as mpl
    from matplotlib import _pylab_helpers

    before, figures = dict(mpl.rcParams), len(_pylab_helpers.Gcf.figs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    assert dict(mpl.rcParams) == before
    assert len(_pylab_helpers.Gcf.figs) == figures


def texts(axes):
    return [text.get_text() for text in axes.texts]


def refusal(path):
    return f"check_folder: path must be a folder that can be written, got {str(path)!r}. Choose another place."


def test_folder_that_cannot_be_made(tmp_path):
    file = tmp_path / "file"
    file.touch()
    for path in (file, file / "below" / "that"):
        with refused(InputError, refusal(path)):
            check_folder(path)
    with refused(InputError, refusal(file)):
        check_table_name(file / "answers.csv")
    check_folder(tmp_path / "new" / "newer")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_folder_that_may_not_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    with refused(InputError, refusal(tmp_path / "new")):
        check_folder(tmp_path / "new")


# tables


@pytest.mark.parametrize("suffix", READ)
def test_table_reads_back(tmp_path, suffix):
    path = tmp_path / "new" / f"answers{suffix}"
    write_table(FRAME, path)
    read = READ[suffix](path).astype(object)
    pd.testing.assert_frame_equal(read.where(read.notna(), None), FRAME.astype(object).where(FRAME.notna(), None))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".CSV", ".JsonL", ".PARQUET"])
def test_ending_in_capitals(tmp_path, suffix):
    write_table(FRAME, tmp_path / f"answers{suffix}")
    assert len(READ[suffix.lower()](tmp_path / f"answers{suffix}")) == 3


@pytest.mark.parametrize("suffix", READ)
def test_name_of_a_file_that_is_not_unicode(tmp_path, suffix):
    """As Linux gives it for a file from an old disk."""
    frame = FRAME.assign(path=pd.Series(["old\udce9.wav", "b.wav", "c.wav"], dtype=object))
    write_table(frame, tmp_path / f"answers{suffix}")
    data = (tmp_path / f"answers{suffix}").read_bytes()
    assert {".csv": b"old\xe9.wav", ".jsonl": b"old\\udce9.wav", ".parquet": b"old\\udce9.wav"}[suffix] in data


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
        with refused(InputError, message):
            call()
    assert list(tmp_path.iterdir()) == []


def test_table_in_place_of_a_folder(tmp_path):
    path = tmp_path / "folder.csv"
    path.mkdir()
    message = f"write_table: path must be a file that ends in .csv, .jsonl, .parquet, got {str(path)!r}. Rename it."
    with refused(InputError, message):
        check_table_name(path)


# Audacity


def tile_rows(path, *labels, seconds=2.0):
    return [
        {"path": path, "start_seconds": n * seconds, "end_seconds": (n + 1) * seconds, "label": label,
         "probability": 0.5 + 0.1 * n, "status": "ok"} for n, label in enumerate(labels)
    ]  # fmt: skip


def test_neighbours_of_one_name_are_one_label(tmp_path):
    frame = pd.DataFrame(tile_rows("x/take 1.wav", "Evans", "Evans", "Monk", "Evans"))
    written = write_audacity(frame, tmp_path / "labels")
    assert written == [tmp_path / "labels" / "take 1.wav.txt"]
    assert written[0].read_text(encoding="utf-8") == (
        "0.000\t4.000\tEvans 0.55\n4.000\t6.000\tMonk 0.70\n6.000\t8.000\tEvans 0.80\n"
    )


def test_every_recording_has_a_file_of_its_own(tmp_path):
    rows = [row for path in ("a/1.wav", "b/1.wav", "b/2.wav") for row in tile_rows(path, path)]
    bad = {"path": "c/3.wav", "start_seconds": None, "end_seconds": None, "label": None, "probability": None,
           "status": "error"}  # fmt: skip
    written = write_audacity(pd.DataFrame([*rows, bad]), tmp_path)
    assert [path.name for path in written] == ["1.wav.txt", "1.wav~2.txt", "2.wav.txt"]
    assert "b/1.wav" in written[1].read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in written)


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
    (file,) = write_audacity(pd.DataFrame(tile_rows("old\udce9.wav", "Andr\udce9"), dtype=object), tmp_path)
    assert file.name == "old\udce9.wav.txt"
    assert b"\tAndr\xe9 " in file.read_bytes()


# plots


def test_plot_confusion(scores):
    figure = plot_confusion(scores)
    axes = figure.axes[0]
    assert texts(axes) == ["1", "1", "2"]  # zeros are left out
    assert [t.get_text() for t in axes.get_xticklabels()] == ["Evans", "Monk"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("was named", "played")
    np.testing.assert_allclose(axes.images[0].get_array(), [[1, 0], [1 / 3, 2 / 3]])
    assert axes.get_title().startswith("75% right (")
    assert axes.get_title().endswith("), chance 50%")
    to_png(figure)


def test_plot_confusion_of_a_player_who_never_plays(scores):
    figure = plot_confusion(replace(scores, classes=("A", "B"), confusion=((0, 0), (1, 3))))
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), [[0, 0], [0.25, 0.75]])
    to_png(figure)


def test_names_that_a_plot_could_take_for_formulas(scores):
    to_png(plot_confusion(replace(scores, classes=("$x_", "a$b$"))))


def test_plot_scores(scores):
    figure = plot_scores(["loose", "strict"], [scores, replace(scores, accuracy=0.5)])
    axes = figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.75, 0.5]
    assert {"75%", "50%", " chance"} <= set(texts(axes))
    assert [t.get_text() for t in axes.get_yticklabels()] == ["loose", "strict"]
    to_png(figure)


def entry(epoch, loss, valid_loss=None, valid_accuracy=None):
    return {"epoch": epoch, "loss": loss, "valid_accuracy": valid_accuracy, "valid_loss": valid_loss,
            "learning_rate": 1e-3, "seconds": 2.0}  # fmt: skip


HISTORY = [entry(1, 2.0, 1.5, 0.25), entry(2, 1.0, 0.75, 0.75), entry(3, 0.5, 1.25, 1.0)]


def points(axes):
    return [[[float(value) for value in axis] for axis in line.get_data()] for line in axes.lines]


def rings(axes):
    return [tuple(map(float, place)) for ring in axes.collections for place in ring.get_offsets()]


def whole_epochs(figure):
    """Epochs below the left panel, as they are drawn."""
    to_png(figure)
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    return [t.get_text() for x, t in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True) if low <= x <= high]


def test_plot_history():
    figure = plot_history(HISTORY)
    left, right = figure.axes
    assert points(left) == [[[1, 2, 3], [2.0, 1.0, 0.5]], [[1, 2, 3], [1.5, 0.75, 1.25]]]
    assert points(right) == [[[1, 2, 3], [25, 75, 100]]]
    # the second epoch has the lowest validation loss; the third has more recordings right
    assert rings(left) == [(2, 0.75)]
    assert rings(right) == [(2, 75)]
    legend = [text.get_text() for text in left.get_legend().get_texts()]
    assert legend == ["training, tile by tile", "validation, per recording", "kept: epoch 2"]
    assert right.get_title() == "75% of the validation recordings at epoch 2"
    assert [axes.get_xlabel() for axes in figure.axes] == ["epoch", "epoch"]
    assert (left.get_ylabel(), right.get_ylabel()) == ("loss (lower is better)", "recordings named right in %")
    assert whole_epochs(figure) == ["1", "2", "3"]


def test_of_two_epochs_that_are_as_good_the_first_is_kept():
    figure = plot_history([entry(1, 2.0, 0.5, 0.5), entry(2, 1.0, 0.5, 1.0)])
    assert [rings(axes) for axes in figure.axes] == [[(1, 0.5)], [(1, 50)]]


def test_plot_history_of_one_epoch():
    figure = plot_history(HISTORY[:1])
    assert [points(axes) for axes in figure.axes] == [[[[1], [2.0]], [[1], [1.5]]], [[[1], [25]]]]
    assert all(line.get_marker() == "o" for axes in figure.axes for line in axes.lines)  # else nothing is seen
    assert whole_epochs(figure) == ["1"]


@pytest.mark.parametrize("n", [1, 3])
def test_plot_history_without_validation(n):
    figure = plot_history([entry(epoch, 1 / epoch) for epoch in range(1, n + 1)])
    (axes,) = figure.axes
    assert points(axes) == [[[*range(1, n + 1)], [1 / epoch for epoch in range(1, n + 1)]]]
    assert rings(axes) == []
    assert whole_epochs(figure) == [str(epoch) for epoch in range(1, n + 1)]


def test_plot_history_of_a_model(model):
    left, right = plot_history(model.history_).axes
    assert points(left)[0] == [[e["epoch"] for e in model.history_], [e["loss"] for e in model.history_]]
    best = min(model.history_, key=lambda e: e["valid_loss"])
    assert rings(right) == [(best["epoch"], 100 * best["valid_accuracy"])]


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize("history", [HISTORY, [entry(1, 2.0), entry(2, 1.0)]], ids=["validation", "none"])
def test_plot_history_of_a_table(tmp_path, kind, history):
    with look_on(False, tmp_path) as watch:
        for one in history:
            watch.epoch(one)
    of_table, of_list = plot_history(kind(tmp_path / "history.csv")), plot_history(history)
    assert [points(axes) for axes in of_table.axes] == [points(axes) for axes in of_list.axes]
    assert to_png(of_table) == to_png(of_list)


def test_plot_history_leaves_what_it_is_given():
    history = [dict(one) for one in HISTORY]
    plot_history(history)
    assert history == HISTORY


def test_history_of_nothing(tmp_path):
    (tmp_path / "history.csv").write_text("epoch,loss\n")
    message = "plot_history: history must have one epoch or more, got none. Fit, or wait for the first."
    for history in ([], (), tmp_path / "history.csv"):
        with refused(InputError, message):
            plot_history(history)


def not_a_history(shown):
    rule = "plot_history: history must be the history_ of a fitted Classifier or the path of its history.csv"
    return f"{rule}, got {shown}. Pass model.history_."


@pytest.mark.parametrize(
    ("history", "shown"),
    [(7, "int"), (None, "NoneType"), (HISTORY[0], "dict"), (pd.DataFrame(HISTORY), "DataFrame"), ([1, 2], "list"),
     ([{"epoch": 1}], "list"), ([{"epoch": 1, "loss": None}], "list"), ([{"epoch": 1, "loss": "low"}], "list"),
     ([[1, 2]], "list"), (np.ones((2, 2)), "ndarray")],
)  # fmt: skip
def test_what_is_no_history(history, shown):
    with refused(InputError, not_a_history(shown)):
        plot_history(history)


@pytest.mark.parametrize("text", [None, "path,label\na.wav,Evans\n", "epoch,loss\n1,low\n", "epoch,loss\n1\n"])
def test_file_that_is_no_history(tmp_path, text):
    path = tmp_path / "history.csv"
    if text is not None:
        path.write_text(text)
    with refused(InputError, not_a_history(repr(str(path)))):
        plot_history(path)


def test_bytes_that_are_no_history(tmp_path):
    path = tmp_path / "last.pt"
    path.write_bytes(bytes(range(256)))
    for place in (path, tmp_path):
        with refused(InputError, not_a_history(repr(str(place)))):
            plot_history(place)


def test_to_png_is_a_picture(tiles, small):
    import io

    from PIL import Image

    with Image.open(io.BytesIO(to_png(plot_tiles(tiles[:1], small, ["a"]), dpi=50))) as image:
        assert image.format == "PNG"
        assert image.size == (615, 135)


# the page


def test_page_holds_all_it_shows(tmp_path, scores):
    import base64

    picture = to_png(plot_confusion(scores), dpi=40)
    path = tmp_path / "page.html"
    write_page(path, "Who <is> it & why?", ["A paragraph.", "<h2>More</h2>", picture])
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert text.count("Who &lt;is&gt; it &amp; why?") == 2
    assert "<p>A paragraph.</p>" in text
    assert "\n<h2>More</h2>\n" in text
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert [base64.b64decode(one) for one in found] == [picture]
    assert not re.search(r"https?:|//[a-z]|<script|<link|@import|url\(", text.replace(found[0], ""))
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]
