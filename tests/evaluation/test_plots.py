import csv
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import _pylab_helpers

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
    plot_shares,
)
from tests.conftest import raises_with

PROBA = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]], np.float32)
CLASS_INDICES = np.array([0, 1, 1, 1])


@pytest.fixture
def scores():
    """Evans once and Monk three times; Monk is confused once with Evans."""
    return evaluate_proba(PROBA, CLASS_INDICES, ["Evans", "Monk"])


@pytest.fixture(autouse=True)
def _no_pyplot_state():
    """A plot leaves no open figure and no changed setting."""
    settings, n_figures = dict(mpl.rcParams), len(_pylab_helpers.Gcf.figs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    assert dict(mpl.rcParams) == settings
    assert len(_pylab_helpers.Gcf.figs) == n_figures


def texts(axes):
    return [text.get_text() for text in axes.texts]


def tick_labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def lines(axes):
    """Coordinates of all lines as [x, y]."""
    return [np.array(line.get_data(), float).tolist() for line in axes.lines]


def circles(axes):
    offsets = [collection.get_offsets() for collection in axes.collections]
    return [tuple(map(float, point)) for points in offsets for point in points]


# scores


def test_the_confusion_matrix_has_true_classes_in_rows(scores):
    figure = plot_confusion(scores)
    (axes,) = figure.axes
    assert texts(axes) == ["1", "1", "2"]  # zeros are left out
    assert tick_labels(axes.xaxis) == tick_labels(axes.yaxis) == ["Evans", "Monk"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    np.testing.assert_allclose(axes.images[0].get_array(), [[1, 0], [1 / 3, 2 / 3]])
    assert axes.get_title().startswith("accuracy 75% (")
    assert axes.get_title().endswith("), chance 50%")


def test_the_confusion_matrix_of_a_class_that_does_not_occur_has_an_empty_row(scores):
    figure = plot_confusion(replace(scores, class_indices=np.array([1, 1, 1, 1])))
    image = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(image, [[0, 0], [0.5, 0.5]])


@pytest.mark.parametrize("names", [("$x_", "a$b$"), ("$", "\\")])
def test_class_names_are_not_parsed_as_formulas(scores, names):
    named = replace(scores, classes=names)
    bars = [(name, 0.5, 0.4, 0.6) for name in names]
    for figure in (
        plot_confusion(named),
        plot_classes(named),
        plot_shares(bars, 0.5, 0),
    ):
        to_png(figure)
        assert tick_labels(figure.axes[0].yaxis) == list(names)


def test_scores_are_bars_with_intervals_and_the_chance_level(scores):
    other = replace(scores, class_indices=np.array([0, 1, 1, 0]))
    (axes,) = plot_scores(["loose", "strict"], [scores, other]).axes
    assert [bar.get_width() for bar in axes.patches] == [0.75, 0.5]
    assert {"75%", "50%", " chance"} <= set(texts(axes))
    assert tick_labels(axes.yaxis) == ["loose", "strict"]
    assert lines(axes)[0] == [list(scores.accuracy_interval), [0, 0]]
    assert lines(axes)[-1][0] == [0.5, 0.5]
    assert axes.get_xlabel() == "accuracy (%)"


def test_the_first_bars_are_grey():
    bars = [(f"model {n}", 0.1 * n, 0.0, 1.0) for n in range(9)]
    (axes,) = plot_shares(bars, chance=0.2, n_grey=2).axes
    colours = [bar.get_facecolor() for bar in axes.patches]
    assert len(set(colours[:2])) == len(set(colours[2:])) == 1
    assert colours[0] != colours[2]


def test_recalls_of_classes_are_bars_with_counts_and_confusions(scores):
    (axes,) = plot_classes(scores).axes
    assert tick_labels(axes.yaxis) == ["Evans", "Monk"]
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == pytest.approx([100, 200 / 3])
    assert texts(axes) == ["1 of 1", "2 of 3, errors mostly Evans", " chance"]
    low, high = scores.class_table().loc[1, ["low", "high"]]
    assert lines(axes)[1] == [[100 * low, 100 * high], [1, 1]]


def test_recalls_leave_out_classes_that_do_not_occur(scores):
    only_monk = replace(scores, class_indices=np.array([1, 1, 1, 1]))
    (axes,) = plot_classes(only_monk).axes
    assert tick_labels(axes.yaxis) == ["Monk"]


@pytest.fixture(scope="module")
def overconfident_scores():
    """Predictions of 60 to 90 % confidence of which 20 points less are correct."""
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.6, 0.9, 400)
    is_correct = rng.random(400) < confidence - 0.2
    proba = np.column_stack([confidence, 1 - confidence]).astype(np.float32)
    return evaluate_proba(proba, np.where(is_correct, 0, 1), ["Evans", "Monk"])


def test_the_reliability_curve_of_an_overconfident_model_is_below_the_diagonal(
    overconfident_scores,
):
    (axes,) = plot_reliability(overconfident_scores).axes
    diagonal, (confidence, accuracy) = lines(axes)
    table = overconfident_scores.reliability_table()
    assert diagonal == [[0, 100], [0, 100]]
    np.testing.assert_allclose(confidence, 100 * table["confidence"])
    np.testing.assert_allclose(accuracy, 100 * table["accuracy"])
    assert np.all(np.less(accuracy, confidence))
    (x, y) = axes.texts[0].get_position()
    assert axes.texts[0].get_text() == "overconfident"
    assert x > y


def test_the_reliability_diagram_shows_intervals_and_the_calibration_error(
    overconfident_scores,
):
    (axes,) = plot_reliability(overconfident_scores).axes
    table = overconfident_scores.reliability_table()
    ends = [segment[:, 1] for segment in axes.collections[0].get_segments()]
    np.testing.assert_allclose(ends, 100 * table[["low", "high"]])
    error = overconfident_scores.calibration_error
    assert axes.get_title().startswith(f"calibration error {error:.1%}")


def test_accuracy_by_duration_stops_where_few_recordings_are_left(scores):
    tiles = tuple(
        np.log(np.repeat(PROBA[[n]], n_tiles, axis=0))
        for n, n_tiles in enumerate((1, 2, 2, 3))
    )
    long = replace(scores, tile_log_proba=tiles, tile_seconds=2.5)
    (axes,) = plot_seconds(long).axes
    # one of four recordings has a third tile
    np.testing.assert_allclose(lines(axes)[0], [[2.5, 5.0], [75, 200 / 3]])
    assert tick_labels(axes.xaxis) == ["2 s\n4", "5 s\n3"]
    assert "chance" in texts(axes)


def test_tick_labels_of_durations_do_not_overlap(scores):
    tiles = (np.log(PROBA).repeat(50, axis=0),) * 4
    long = replace(scores, tile_log_proba=tiles, tile_seconds=2.0)
    figure = plot_seconds(long)
    to_png(figure)
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert len(boxes) > 2
    for left, right in pairwise(boxes):
        assert left.x1 < right.x0


def test_accuracy_at_a_single_duration_has_an_error_bar(scores):
    tiles = tuple(np.log(PROBA)[:, None])
    short = replace(scores, tile_log_proba=tiles, tile_seconds=2.0)
    (axes,) = plot_seconds(short).axes
    assert lines(axes)[0] == [[2.0], [75.0]]
    assert len(axes.collections[0].get_segments()) == 1


def test_accuracy_by_duration_needs_predictions_for_tiles(scores):
    with raises_with(InputError, "plot_seconds", "scores", "none"):
        plot_seconds(scores)


def test_accuracy_by_coverage_starts_with_the_most_confident(scores):
    (axes,) = plot_risk_coverage(scores).axes
    # confidence .9, .8 and .7 correct, .6 wrong
    assert lines(axes)[0] == [[25, 50, 75, 100], [100, 100, 100, 75]]
    assert axes.get_title() == (
        "accuracy 75% of all recordings, 100% of the most confident half"
    )


@pytest.mark.parametrize(
    "plot",
    [plot_classes, plot_confusion, plot_reliability, plot_risk_coverage, plot_seconds],
)
def test_scores_of_one_recording_can_be_plotted(plot):
    one = evaluate_proba(PROBA[:1], CLASS_INDICES[:1], ["Evans", "Monk"])
    one = replace(one, tile_log_proba=(np.log(PROBA[:1]),), tile_seconds=2.0)
    assert to_png(plot(one)).startswith(b"\x89PNG")


# training


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
WITHOUT_VALIDATION = [entry(1, 2.0), entry(2, 1.0)]


def drawn_epochs(figure):
    """Labels of the epoch axis as drawn."""
    to_png(figure)
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    ticks = zip(axes.get_xticks(), tick_labels(axes.xaxis), strict=True)
    return [label for x, label in ticks if low <= x <= high]


def test_history_shows_loss_and_validation_accuracy():
    figure = plot_history(HISTORY)
    loss_axes, accuracy_axes = figure.axes
    training, validation = lines(loss_axes)
    assert training == [[1, 2, 3], [2.0, 1.0, 0.5]]
    assert validation == [[1, 2, 3], [1.5, 0.75, 1.25]]
    assert lines(accuracy_axes) == [[[1, 2, 3], [25, 75, 100]]]
    assert loss_axes.get_ylabel() == "loss (nats)"
    assert accuracy_axes.get_ylabel() == "validation accuracy (%)"
    assert loss_axes.get_xlabel() == accuracy_axes.get_xlabel() == "epoch"
    assert drawn_epochs(figure) == ["1", "2", "3"]


def test_history_marks_the_epoch_of_the_lowest_validation_loss():
    loss_axes, accuracy_axes = plot_history(HISTORY).axes
    legend = [text.get_text() for text in loss_axes.get_legend().get_texts()]
    assert circles(loss_axes) == [(2, 0.75)]
    assert circles(accuracy_axes) == [(2, 75)]
    assert legend[-1] == "selected: epoch 2"
    assert accuracy_axes.get_title() == "accuracy 75% at epoch 2"


def test_history_marks_the_first_of_two_epochs_with_equal_loss():
    figure = plot_history([entry(1, 2.0, 0.5, 0.5), entry(2, 1.0, 0.5, 1.0)])
    assert [circles(axes) for axes in figure.axes] == [[(1, 0.5)], [(1, 50)]]


def test_history_of_one_epoch_has_visible_points():
    figure = plot_history(HISTORY[:1])
    loss_axes, accuracy_axes = figure.axes
    assert lines(loss_axes) == [[[1], [2.0]], [[1], [1.5]]]
    assert lines(accuracy_axes) == [[[1], [25]]]
    drawn = [*loss_axes.lines, *accuracy_axes.lines]
    assert {line.get_marker() for line in drawn} == {"o"}
    assert drawn_epochs(figure) == ["1"]


@pytest.mark.parametrize("n", [1, 3])
def test_history_without_validation_has_one_panel(n):
    epochs = [*range(1, n + 1)]
    figure = plot_history([entry(epoch, 1 / epoch) for epoch in epochs])
    (axes,) = figure.axes
    assert lines(axes) == [[epochs, [1 / epoch for epoch in epochs]]]
    assert circles(axes) == []
    assert drawn_epochs(figure) == [str(epoch) for epoch in epochs]


def test_history_of_a_fitted_model_can_be_plotted(model):
    loss_axes, accuracy_axes = plot_history(model.history_).axes
    assert lines(loss_axes)[0] == [
        [one["epoch"] for one in model.history_],
        [one["loss"] for one in model.history_],
    ]
    best = min(model.history_, key=lambda one: one["valid_loss"])
    assert circles(accuracy_axes) == [(best["epoch"], 100 * best["valid_accuracy"])]


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize("history", [HISTORY, WITHOUT_VALIDATION])
def test_a_history_file_gives_the_same_plot_as_the_history(tmp_path, kind, history):
    path = tmp_path / "history.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, history[0])
        writer.writeheader()
        writer.writerows(history)
    assert to_png(plot_history(kind(path))) == to_png(plot_history(history))


def test_history_is_not_changed():
    history = [dict(one) for one in HISTORY]
    plot_history(history)
    assert history == HISTORY


def test_a_history_without_an_epoch_is_an_error(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("epoch,loss\n")
    for history in ([], (), path):
        with raises_with(InputError, "plot_history", "history", "0 epochs"):
            plot_history(history)


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
def test_an_object_that_is_no_history_is_an_error(history, shown):
    with raises_with(InputError, "plot_history", "history", f"got {shown}"):
        plot_history(history)


@pytest.mark.parametrize(
    "content",
    [
        b"path,label\na.wav,Evans\n",
        b"epoch,loss\n1,low\n",
        b"epoch,loss\n1\n",
        bytes(range(256)),
    ],
    ids=["other columns", "text", "missing value", "binary"],
)
def test_a_file_that_is_no_history_is_an_error(tmp_path, content):
    path = tmp_path / "history.csv"
    path.write_bytes(content)
    with raises_with(InputError, "plot_history", "history", repr(str(path))):
        plot_history(path)


def test_a_history_path_that_cannot_be_read_is_an_error(tmp_path):
    for path in (tmp_path, tmp_path / "missing.csv"):
        with raises_with(InputError, "plot_history", "history", repr(str(path))):
            plot_history(path)
