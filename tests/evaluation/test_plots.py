import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cqt2img.errors import InputError
from cqt2img.evaluation.evaluation import evaluate_proba
from cqt2img.evaluation.page import to_png
from cqt2img.evaluation.plots import (
    plot_classes,
    plot_confusion,
    plot_history,
    plot_reliability,
    plot_risk_coverage,
    plot_scores,
    plot_seconds,
)
from cqt2img.training.callbacks import default_callbacks
from tests.conftest import raises_exactly

PROBA = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]], np.float32)
CODES = np.array([0, 1, 1, 1])


@pytest.fixture
def scores():
    """Evans once, Monk three times; one Monk is taken for Evans."""
    return evaluate_proba(PROBA, CODES, ["Evans", "Monk"])


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


def points(axes):
    return [
        [[float(value) for value in axis] for axis in line.get_data()]
        for line in axes.lines
    ]


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
    figure = plot_confusion(replace(scores, codes=np.array([1, 1, 1, 1])))
    np.testing.assert_allclose(
        figure.axes[0].images[0].get_array(), [[0, 0], [0.5, 0.5]]
    )
    to_png(figure)


@pytest.mark.parametrize("names", [("$x_", "a$b$"), ("$", "\\")])
def test_names_that_a_plot_could_take_for_formulas(scores, names):
    for plot in (plot_confusion, plot_classes):
        to_png(plot(replace(scores, classes=names)))


def test_plot_scores(scores):
    figure = plot_scores(
        ["loose", "strict"], [scores, replace(scores, codes=np.array([0, 1, 1, 0]))]
    )
    axes = figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.75, 0.5]
    assert {"75%", "50%", " chance"} <= set(texts(axes))
    assert [t.get_text() for t in axes.get_yticklabels()] == ["loose", "strict"]
    assert points(axes)[0] == [list(scores.accuracy_interval), [0, 0]]
    to_png(figure)


def test_plot_classes(scores):
    axes = plot_classes(scores).axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["Evans", "Monk"]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([100, 200 / 3])
    assert texts(axes) == ["1 of 1", "2 of 3, else Evans", " chance"]
    low, high = scores.class_table().loc[1, ["low", "high"]]
    assert points(axes)[1] == [[100 * low, 100 * high], [1, 1]]


def test_plot_classes_leaves_out_who_never_plays(scores):
    axes = plot_classes(replace(scores, codes=np.array([1, 1, 1, 1]))).axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["Monk"]


def calibrated(n=400, too_sure=0.0):
    """Answers of 60 to 90 %, right as often as they say, or less."""
    rng = np.random.default_rng(0)
    trust = rng.uniform(0.6, 0.9, n)
    right = rng.random(n) < trust - too_sure
    proba = np.column_stack([trust, 1 - trust])
    return evaluate_proba(
        proba.astype(np.float32), np.where(right, 0, 1), ["Evans", "Monk"]
    )


def test_plot_reliability():
    scores = calibrated(too_sure=0.2)
    axes = plot_reliability(scores).axes[0]
    diagonal, curve = points(axes)
    assert diagonal == [[0, 100], [0, 100]]
    table = scores.reliability_table()
    np.testing.assert_allclose(
        curve, [100 * table["probability"], 100 * table["accuracy"]]
    )
    assert all(right < sure for sure, right in zip(*curve, strict=True))
    bars = [100 * table["low"].to_numpy(), 100 * table["high"].to_numpy()]
    np.testing.assert_allclose(
        [[s[0, 1], s[1, 1]] for s in axes.collections[0].get_segments()],
        np.transpose(bars),
    )
    assert axes.get_title().startswith(
        f"off by {100 * scores.calibration_error:.0f} points on average"
    )
    assert texts(axes) == ["too sure", "not sure enough"]
    assert (
        axes.texts[0].get_position()[0] > axes.texts[0].get_position()[1]
    )  # where right falls short of sure


def test_plot_seconds(scores):
    tile = np.log(PROBA)
    tiles = tuple(np.repeat(tile[[n]], k, axis=0) for n, k in enumerate((1, 2, 2, 3)))
    axes = plot_seconds(replace(scores, tiles=tiles, tile_seconds=2.5)).axes[0]
    # a third tile is in one of four recordings: too few for a point
    np.testing.assert_allclose(points(axes)[0], [[2.5, 5.0], [75, 200 / 3]])
    assert [t.get_text() for t in axes.get_xticklabels()] == ["2 s\n4", "5 s\n3"]
    assert "chance" in texts(axes)


def test_plot_seconds_of_one_tile_each(scores):
    axes = plot_seconds(
        replace(scores, tiles=tuple(np.log(PROBA)[:, None]), tile_seconds=2.0)
    ).axes[0]
    assert points(axes)[0] == [[2.0], [75.0]]
    assert (
        len(axes.collections[0].get_segments()) == 1
    )  # no band, but a line that can be seen


def test_plot_seconds_without_tiles(scores):
    message = "plot_seconds: scores must know the tiles, got none. Pass what Classifier.evaluate gives."
    with raises_exactly(InputError, message):
        plot_seconds(scores)


def test_plot_risk_coverage(scores):
    axes = plot_risk_coverage(scores).axes[0]
    # surest first: .9 right, .8 right, .7 right, .6 wrong
    assert points(axes)[0] == [[25, 50, 75, 100], [100, 100, 100, 75]]
    assert axes.get_title() == "all answered: 75% right; the surer half: 100%"


@pytest.mark.parametrize(
    "plot",
    [plot_classes, plot_confusion, plot_reliability, plot_risk_coverage, plot_seconds],
)
def test_every_plot_of_one_recording_is_a_picture(plot):
    one = evaluate_proba(PROBA[:1], CODES[:1], ["Evans", "Monk"])
    assert to_png(
        plot(replace(one, tiles=(np.log(PROBA[:1]),), tile_seconds=2.0))
    ).startswith(b"\x89PNG")


def entry(epoch, loss, valid_loss=None, valid_accuracy=None):
    return {
        "epoch": epoch,
        "loss": loss,
        "valid_accuracy": valid_accuracy,
        "valid_loss": valid_loss,
        "learning_rate": 1e-3,
        "seconds": 2.0,
    }


HISTORY = [
    entry(1, 2.0, 1.5, 0.25),
    entry(2, 1.0, 0.75, 0.75),
    entry(3, 0.5, 1.25, 1.0),
]


def rings(axes):
    return [
        tuple(map(float, place))
        for ring in axes.collections
        for place in ring.get_offsets()
    ]


def whole_epochs(figure):
    """Epochs below the left panel, as they are drawn."""
    to_png(figure)
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    return [
        t.get_text()
        for x, t in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
        if low <= x <= high
    ]


def test_plot_history():
    figure = plot_history(HISTORY)
    left, right = figure.axes
    assert points(left) == [
        [[1, 2, 3], [2.0, 1.0, 0.5]],
        [[1, 2, 3], [1.5, 0.75, 1.25]],
    ]
    assert points(right) == [[[1, 2, 3], [25, 75, 100]]]
    # the second epoch has the lowest validation loss; the third has more recordings right
    assert rings(left) == [(2, 0.75)]
    assert rings(right) == [(2, 75)]
    legend = [text.get_text() for text in left.get_legend().get_texts()]
    assert legend == [
        "training, tile by tile",
        "validation, per recording",
        "kept: epoch 2",
    ]
    assert right.get_title() == "75% of the validation recordings at epoch 2"
    assert [axes.get_xlabel() for axes in figure.axes] == ["epoch", "epoch"]
    assert (left.get_ylabel(), right.get_ylabel()) == (
        "loss (lower is better)",
        "recordings named right in %",
    )
    assert whole_epochs(figure) == ["1", "2", "3"]


def test_of_two_epochs_that_are_as_good_the_first_is_kept():
    figure = plot_history([entry(1, 2.0, 0.5, 0.5), entry(2, 1.0, 0.5, 1.0)])
    assert [rings(axes) for axes in figure.axes] == [[(1, 0.5)], [(1, 50)]]


def test_plot_history_of_one_epoch():
    figure = plot_history(HISTORY[:1])
    assert [points(axes) for axes in figure.axes] == [
        [[[1], [2.0]], [[1], [1.5]]],
        [[[1], [25]]],
    ]
    assert all(
        line.get_marker() == "o" for axes in figure.axes for line in axes.lines
    )  # else nothing is seen
    assert whole_epochs(figure) == ["1"]


@pytest.mark.parametrize("n", [1, 3])
def test_plot_history_without_validation(n):
    figure = plot_history([entry(epoch, 1 / epoch) for epoch in range(1, n + 1)])
    (axes,) = figure.axes
    assert points(axes) == [
        [[*range(1, n + 1)], [1 / epoch for epoch in range(1, n + 1)]]
    ]
    assert rings(axes) == []
    assert whole_epochs(figure) == [str(epoch) for epoch in range(1, n + 1)]


def test_plot_history_of_a_model(model):
    left, right = plot_history(model.history_).axes
    assert points(left)[0] == [
        [e["epoch"] for e in model.history_],
        [e["loss"] for e in model.history_],
    ]
    best = min(model.history_, key=lambda e: e["valid_loss"])
    assert rings(right) == [(best["epoch"], 100 * best["valid_accuracy"])]


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize(
    "history", [HISTORY, [entry(1, 2.0), entry(2, 1.0)]], ids=["validation", "none"]
)
def test_plot_history_of_a_table(tmp_path, kind, history):
    with default_callbacks(False, tmp_path) as watch:
        for one in history:
            watch.epoch(one)
    of_table, of_list = (
        plot_history(kind(tmp_path / "history.csv")),
        plot_history(history),
    )
    assert [points(axes) for axes in of_table.axes] == [
        points(axes) for axes in of_list.axes
    ]
    assert to_png(of_table) == to_png(of_list)


def test_plot_history_leaves_what_it_is_given():
    history = [dict(one) for one in HISTORY]
    plot_history(history)
    assert history == HISTORY


def test_history_of_nothing(tmp_path):
    (tmp_path / "history.csv").write_text("epoch,loss\n")
    message = "plot_history: history must have one epoch or more, got none. Fit, or wait for the first."
    for history in ([], (), tmp_path / "history.csv"):
        with raises_exactly(InputError, message):
            plot_history(history)


def not_a_history(shown):
    rule = "plot_history: history must be the history_ of a fitted Classifier or the path of its history.csv"
    return f"{rule}, got {shown}. Pass model.history_."


@pytest.mark.parametrize(
    ("history", "shown"),
    [
        (7, "int"),
        (None, "NoneType"),
        (HISTORY[0], "dict"),
        (pd.DataFrame(HISTORY), "DataFrame"),
        ([1, 2], "list"),
        ([{"epoch": 1}], "list"),
        ([{"epoch": 1, "loss": None}], "list"),
        ([{"epoch": 1, "loss": "low"}], "list"),
        ([[1, 2]], "list"),
        (np.ones((2, 2)), "ndarray"),
    ],
)
def test_what_is_no_history(history, shown):
    with raises_exactly(InputError, not_a_history(shown)):
        plot_history(history)


@pytest.mark.parametrize(
    "text",
    [None, "path,label\na.wav,Evans\n", "epoch,loss\n1,low\n", "epoch,loss\n1\n"],
)
def test_file_that_is_no_history(tmp_path, text):
    path = tmp_path / "history.csv"
    if text is not None:
        path.write_text(text)
    with raises_exactly(InputError, not_a_history(repr(str(path)))):
        plot_history(path)


def test_bytes_that_are_no_history(tmp_path):
    path = tmp_path / "last.pt"
    path.write_bytes(bytes(range(256)))
    for place in (path, tmp_path):
        with raises_exactly(InputError, not_a_history(repr(str(place)))):
            plot_history(place)
