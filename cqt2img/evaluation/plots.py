"""Plots of scores and of training."""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cqt2img._utils.array_types import Float64Array
from cqt2img.errors import InputError
from cqt2img.evaluation.evaluation import Evaluation

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLACK = "#222222"
_GREY = "#b8b8b8"
_DARK_GREY = "#8a8a8a"
_LIGHT_GREY = "#e6e6e6"
_BLUE = "#3b6ea5"
_RED = "#c0392b"

# raised where a history is of another kind or its file cannot be read
_HISTORY_ERRORS = (
    AttributeError,
    LookupError,
    OSError,
    TypeError,
    ValueError,
    csv.Error,
)

_MAX_LARGE_BARS = 6
_MAX_MARKERS = 40
_MIN_TICK_DISTANCE = 0.12  # of the axis, so that labels do not overlap


def plot_confusion(scores: Evaluation) -> "Figure":
    """Plot the confusion matrix.

    Parameters
    ----------
    scores : Evaluation
        The scores.

    Returns
    -------
    matplotlib Figure
        True classes in rows, predicted classes in columns. Cells show counts; their
        colour is the share of the row.
    """
    from matplotlib.figure import Figure

    counts = np.asarray(scores.confusion)
    row_sums = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(row_sums, 1)
    names = list(scores.classes)
    ticks = range(len(names))

    size = 2.5 + 0.45 * len(names)
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(ticks, names, rotation=40, ha="right", parse_math=False)
    axes.set_yticks(ticks, names, parse_math=False)
    axes.set(xlabel="predicted class", ylabel="true class")
    for row, column in np.argwhere(counts > 0):
        axes.text(
            column,
            row,
            str(counts[row, column]),
            ha="center",
            va="center",
            color="white" if shares[row, column] > 0.5 else _BLACK,
            fontsize=9,
        )
    low, high = scores.accuracy_interval
    axes.set_title(
        f"accuracy {scores.accuracy:.0%} ({low:.0%} to {high:.0%}), "
        f"chance {scores.chance:.0%}",
        fontsize=10,
    )
    return figure


def plot_scores(names: Sequence[str], scores: Sequence[Evaluation]) -> "Figure":
    """Plot accuracies as bars, with intervals and the chance level.

    Parameters
    ----------
    names : sequence of str
        Label of each bar.
    scores : sequence of Evaluation
        Scores of each bar. The chance level is that of the first.

    Returns
    -------
    matplotlib Figure
        One bar per score; the first is grey, as the reference.
    """
    bars = [
        (name, one.accuracy, *one.accuracy_interval)
        for name, one in zip(names, scores, strict=True)
    ]
    return plot_shares(bars, chance=scores[0].chance, n_grey=1)


def plot_shares(
    bars: Sequence[tuple[str, float, float, float]], chance: float, n_grey: int
) -> "Figure":
    """Plot shares of recordings as bars, with intervals and the chance level.

    Parameters
    ----------
    bars : sequence of (str, float, float, float)
        Label, share from 0 to 1, and its 95 % interval.
    chance : float
        Chance level, 0 to 1.
    n_grey : int
        Number of bars, from the first, that are grey instead of blue.

    Returns
    -------
    matplotlib Figure
        Horizontal bars, from top to bottom.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    is_large = len(bars) <= _MAX_LARGE_BARS
    bar_height = 0.75 if is_large else 0.42
    figure = Figure(figsize=(8, 1.1 + bar_height * len(bars)), layout="constrained")
    axes = figure.add_subplot()
    for index, (_, share, low, high) in enumerate(bars):
        colour = _GREY if index < n_grey else _BLUE
        axes.barh(index, share, color=colour, height=0.6)
        axes.plot([low, high], [index, index], color=_BLACK, linewidth=2)
        axes.text(
            1.02,
            index,
            f"{share:.0%}",
            va="center",
            fontsize=12 if is_large else 10,
            color=_BLACK,
        )
    axes.set_yticks(range(len(bars)), [name for name, *_ in bars], parse_math=False)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xticks=[0, 0.25, 0.5, 0.75, 1], xlabel="accuracy (%)")
    axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    _draw_vertical_chance(axes, chance)
    _hide_spines(axes)
    return figure


def plot_classes(scores: Evaluation) -> "Figure":
    """Plot the recall of each class.

    Parameters
    ----------
    scores : Evaluation
        The scores.

    Returns
    -------
    matplotlib Figure
        One bar for each class that occurs, by decreasing recall, with its 95 % interval
        over groups, counts, and the most frequent wrong prediction.
    """
    from matplotlib.figure import Figure

    table = scores.class_table().query("n_recordings > 0")
    table = table.sort_values("recall", kind="stable", ascending=False)
    figure = Figure(figsize=(8, 1.2 + 0.34 * len(table)), layout="constrained")
    axes = figure.add_subplot()
    for index, row in enumerate(table.itertuples()):
        interval = [100 * row.low, 100 * row.high]
        axes.barh(index, 100 * row.recall, color=_BLUE, height=0.6)
        axes.plot(interval, [index, index], color=_BLACK, linewidth=1.6)
        label = f"{round(row.recall * row.n_recordings)} of {row.n_recordings}"
        if row.confused_with:
            label += f", errors mostly {row.confused_with}"
        axes.text(
            102,
            index,
            label,
            va="center",
            fontsize=9,
            color=_BLACK,
            parse_math=False,
        )
    axes.set_yticks(range(len(table)), table["label"].tolist(), parse_math=False)
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="recall (% of the recordings of a class)")
    _draw_vertical_chance(axes, 100 * scores.chance)
    _hide_spines(axes)
    return figure


def plot_reliability(scores: Evaluation) -> "Figure":
    """Plot the reliability diagram: accuracy against confidence.

    Parameters
    ----------
    scores : Evaluation
        The scores.

    Returns
    -------
    matplotlib Figure
        One point per calibration bin, with its 95 % interval over groups. Points below
        the diagonal show overconfidence.

    References
    ----------
    Morris H. DeGroot and Stephen E. Fienberg, "The Comparison and Evaluation of
    Forecasters", 1983.
    """
    table = scores.reliability_table()
    figure, axes = _make_percent_axes("confidence (%)", "accuracy (%)", (4.8, 4.6))
    axes.plot([0, 100], [0, 100], color=_GREY, linewidth=1.2)
    for x, y, text in ((70, 20, "overconfident"), (25, 80, "underconfident")):
        axes.text(
            x, y, text, color=_DARK_GREY, ha="center", fontsize=11, style="italic"
        )
    confidence = 100 * table["confidence"]
    _draw_error_bars(axes, confidence, table)
    _draw_accuracy(axes, confidence, table)
    low, high = scores.calibrated_range
    axes.set_title(
        f"calibration error {scores.calibration_error:.1%}\n"
        f"(calibrated models: {low:.1%} to {high:.1%})",
        fontsize=10,
    )
    axes.set_aspect("equal")
    return figure


def plot_seconds(scores: Evaluation) -> "Figure":
    """Plot the accuracy of predictions from the first seconds of recordings.

    Parameters
    ----------
    scores : Evaluation
        Result of `Classifier.evaluate`, which keeps the predictions for tiles.

    Returns
    -------
    matplotlib Figure
        Accuracy with its 95 % interval over groups, up to the duration that half of the
        recordings reach. Tick labels show the number of recordings.

    Raises
    ------
    InputError
        If the scores have no predictions for tiles.
    """
    table = scores.seconds_table()
    if not len(table):
        raise InputError(
            "plot_seconds: scores must contain predictions for tiles, got none. Pass "
            "the result of Classifier.evaluate."
        )
    # a few long recordings are not comparable with all
    table = table[table["n_recordings"] >= scores.n_recordings / 2]
    figure, axes = _make_percent_axes(
        "duration used, and number of recordings of that duration or longer",
        "accuracy (%)",
        (6.4, 4),
    )
    _draw_band(axes, table["seconds"], table)
    _draw_accuracy(axes, table["seconds"], table)
    _draw_horizontal_chance(axes, 100 * scores.chance)
    longest = table["seconds"].max()
    axes.set_xlim(0, 1.04 * longest)
    ticks = _select_ticks(table, _MIN_TICK_DISTANCE * longest)
    labels = [f"{row.seconds:.0f} s\n{row.n_recordings}" for row in ticks.itertuples()]
    axes.set_xticks(ticks["seconds"], labels)
    return figure


def _select_ticks(table: "pd.DataFrame", distance: float) -> "pd.DataFrame":
    """Select rows of `seconds_table` at least `distance` apart, from the last."""
    selected = [len(table) - 1]
    seconds = table["seconds"].to_numpy()
    for row in reversed(range(len(table))):
        if seconds[selected[-1]] - seconds[row] >= distance:
            selected.append(row)
    return table.iloc[selected[::-1]]


def plot_risk_coverage(scores: Evaluation) -> "Figure":
    """Plot the accuracy of the most confident predictions against coverage.

    Parameters
    ----------
    scores : Evaluation
        The scores.

    Returns
    -------
    matplotlib Figure
        Accuracy with its 95 % interval over groups, against the share of recordings
        whose prediction is kept.

    References
    ----------
    Ran El-Yaniv and Yair Wiener, "On the Foundations of Noise-free Selective
    Classification", 2010.
    """
    table = scores.risk_table()
    figure, axes = _make_percent_axes(
        "coverage (% of the recordings, most confident first)",
        "accuracy (%)",
        (6.4, 4),
    )
    coverage = 100 * table["coverage"]
    _draw_band(axes, coverage, table)
    _draw_accuracy(axes, coverage, table)
    _draw_horizontal_chance(axes, 100 * scores.chance)
    distance_from_half = (table["coverage"] - 0.5).abs()
    half = table.loc[distance_from_half.idxmin()]
    axes.set_title(
        f"accuracy {scores.accuracy:.0%} of all recordings, "
        f"{half['accuracy']:.0%} of the most confident half",
        fontsize=10,
    )
    return figure


def _make_percent_axes(
    x_label: str, y_label: str, size: tuple[float, float]
) -> tuple["Figure", "Axes"]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel=x_label, ylabel=y_label, xlim=(0, 102), ylim=(0, 102))
    axes.grid(color=_LIGHT_GREY, linewidth=0.8)
    axes.set_axisbelow(True)
    _hide_spines(axes)
    return figure, axes


def _hide_spines(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _draw_accuracy(axes: "Axes", x: "pd.Series", table: "pd.DataFrame") -> None:
    axes.plot(
        x,
        100 * table["accuracy"],
        color=_BLUE,
        marker="o",
        markersize=4,
        linewidth=1.6,
    )


def _draw_band(axes: "Axes", x: "pd.Series", table: "pd.DataFrame") -> None:
    """Draw intervals as a band, or as a line where there is one point."""
    if len(table) == 1:
        _draw_error_bars(axes, x, table)
        return
    low = 100 * table["low"]
    high = 100 * table["high"]
    axes.fill_between(x, low, high, color=_BLUE, alpha=0.18, linewidth=0)


def _draw_error_bars(axes: "Axes", x: "pd.Series", table: "pd.DataFrame") -> None:
    low = 100 * table["low"]
    high = 100 * table["high"]
    axes.vlines(x, low, high, color=_BLUE, alpha=0.5, linewidth=2)


def _draw_vertical_chance(axes: "Axes", chance: float) -> None:
    axes.axvline(chance, color=_RED, linestyle="--", linewidth=1)
    axes.text(
        chance,
        1.0,
        " chance",
        color=_RED,
        fontsize=9,
        va="bottom",
        transform=axes.get_xaxis_transform(),
    )


def _draw_horizontal_chance(axes: "Axes", chance: float) -> None:
    axes.axhline(chance, color=_RED, linestyle="--", linewidth=1)
    axes.text(
        1.01,
        chance,
        "chance",
        color=_RED,
        fontsize=9,
        va="center",
        transform=axes.get_yaxis_transform(),
    )


def plot_history(
    history: Sequence[Mapping[str, object]] | str | os.PathLike[str],
) -> "Figure":
    """Plot loss and validation accuracy against the training epoch.

    Parameters
    ----------
    history : sequence of mapping, or path
        `history_` of a fitted `Classifier`, or the `history.csv` of a checkpoint,
        finished or not.

    Returns
    -------
    matplotlib Figure
        Loss in nats on the left, validation accuracy in percent on the right; one panel
        without validation recordings. Circles mark the selected epoch, that of the
        lowest validation loss.

    Raises
    ------
    InputError
        If `history` is of another kind, cannot be read, or has no epoch.

    Notes
    -----
    The two losses are not comparable: the training loss is that of single, augmented
    tiles, with mixup and label smoothing where `fit` uses them, and can exceed the
    validation loss, which is that of whole recordings.
    """
    from matplotlib.figure import Figure

    epochs, loss, valid_loss, valid_accuracy = _read_history(history).T
    has_validation = bool(np.isfinite(valid_loss).any())
    width = 9 if has_validation else 4.8
    figure = Figure(figsize=(width, 3.6), layout="constrained")
    n_panels = 2 if has_validation else 1
    panels = figure.subplots(1, n_panels, squeeze=False)[0]

    loss_axes = panels[0]
    _draw_curve(loss_axes, epochs, loss, _DARK_GREY, "training (augmented tiles)")
    if has_validation:
        best = int(np.nanargmin(valid_loss))
        selected = f"selected: epoch {epochs[best]:.0f}"
        _draw_curve(loss_axes, epochs, valid_loss, _BLUE, "validation (recordings)")
        _draw_circle(loss_axes, epochs[best], valid_loss[best], selected)
        accuracy = 100 * valid_accuracy
        accuracy_axes = panels[1]
        _draw_curve(accuracy_axes, epochs, accuracy, _BLUE)
        _draw_circle(accuracy_axes, epochs[best], accuracy[best], selected)
        accuracy_axes.set(ylabel="validation accuracy (%)", ylim=(-3, 103))
        title = f"accuracy {accuracy[best]:.0f}% at epoch {epochs[best]:.0f}"
        accuracy_axes.set_title(title, fontsize=10)
    loss_axes.set_ylabel("loss (nats)")
    loss_axes.set_ylim(bottom=0)
    loss_axes.legend(frameon=False, fontsize=9)
    return figure


def _draw_curve(
    axes: "Axes",
    epochs: Float64Array,
    values: Float64Array,
    colour: str,
    label: str | None = None,
) -> None:
    """Draw one value per epoch, with ticks at integers."""
    from matplotlib.ticker import MaxNLocator

    marker = "o" if len(epochs) <= _MAX_MARKERS else ""
    axes.plot(
        epochs,
        values,
        color=colour,
        marker=marker,
        markersize=4,
        linewidth=1.6,
        label=label,
    )
    axes.set(xlabel="epoch", xlim=(epochs.min() - 0.5, epochs.max() + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(axis="y", color=_LIGHT_GREY, linewidth=0.8)
    axes.set_axisbelow(True)
    _hide_spines(axes)


def _draw_circle(axes: "Axes", x: float, y: float, label: str) -> None:
    axes.scatter(
        x,
        y,
        s=90,
        facecolor="none",
        edgecolor=_BLACK,
        linewidth=1.5,
        zorder=3,
        clip_on=False,
        label=label,
    )


def _read_history(
    history: Sequence[Mapping[str, object]] | str | os.PathLike[str],
) -> Float64Array:
    """Return epoch, loss, validation loss and accuracy per row; NaN if not measured."""
    try:
        rows = history
        if isinstance(rows, str | os.PathLike):
            rows = _read_history_file(Path(rows))
        values = [
            [
                row["epoch"],
                row["loss"],
                row.get("valid_loss"),
                row.get("valid_accuracy"),
            ]
            for row in rows
        ]
        curves = np.array(values, dtype=float)
    except _HISTORY_ERRORS as err:
        raise _make_history_error(history) from err
    if not len(curves):
        raise InputError(
            "plot_history: history must contain an epoch, got 0 epochs. Fit a model, "
            "or wait for the first epoch."
        )
    if not np.isfinite(curves[:, :2]).all():
        raise _make_history_error(history)
    return curves


def _read_history_file(path: Path) -> list[dict[str, object]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {name: value or None for name, value in row.items()}
            for row in csv.DictReader(file)
        ]


def _make_history_error(history: object) -> InputError:
    shown = type(history).__name__
    if isinstance(history, str | os.PathLike):
        shown = repr(os.fspath(history))
    return InputError(
        "plot_history: history must be the history_ of a fitted Classifier or the path "
        f"of its history.csv, got {shown}. Pass model.history_."
    )
