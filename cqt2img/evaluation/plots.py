"""What people look at: scores as pictures."""

import csv
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cqt2img.errors import InputError
from cqt2img.evaluation.evaluation import Evaluation

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _GREY, _BLUE, _RED, _PALE = "#222222", "#b8b8b8", "#3b6ea5", "#c0392b", "#e6e6e6"


def plot_confusion(scores: Evaluation) -> "Figure":
    """Draw who was taken for whom.

    Parameters
    ----------
    scores : Evaluation
        The scores.

    Returns
    -------
    matplotlib Figure
        Rows: who played. Columns: who was named.
    """
    from matplotlib.figure import Figure

    counts = np.asarray(scores.confusion)
    size = 2.5 + 0.45 * len(scores.classes)
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.add_subplot()
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    places = range(len(scores.classes))
    axes.set_xticks(places, list(scores.classes), rotation=40, ha="right")
    axes.set_yticks(places, list(scores.classes))
    axes.set_xlabel("was named")
    axes.set_ylabel("played")
    for row, column in np.argwhere(counts > 0):
        colour = "white" if shares[row, column] > 0.5 else _INK
        axes.text(
            column,
            row,
            str(counts[row, column]),
            ha="center",
            va="center",
            color=colour,
            fontsize=9,
        )
    low, high = scores.accuracy_interval
    axes.set_title(
        f"{scores.accuracy:.0%} right ({low:.0%} to {high:.0%}), chance {scores.chance:.0%}",
        fontsize=10,
    )
    return figure


def plot_scores(names: Sequence[str], scores: Sequence[Evaluation]) -> "Figure":
    """Draw accuracies side by side, with their intervals, beside chance.

    Parameters
    ----------
    names : sequence of str
        What each score is of.
    scores : sequence of Evaluation
        The scores.

    Returns
    -------
    matplotlib Figure
        One bar each.
    """
    return plot_shares(
        [
            (name, one.accuracy, *one.accuracy_interval)
            for name, one in zip(names, scores, strict=True)
        ],
        scores[0].chance,
        1,
    )


def plot_shares(
    rows: Sequence[tuple[str, float, float, float]], chance: float, n_grey: int
) -> "Figure":
    """Draw shares side by side, with their intervals, beside chance.

    Parameters
    ----------
    rows : sequence of (str, float, float, float)
        What each is of, and the share with its 95 % interval, 0 to 1.
    chance : float
        0 to 1.
    n_grey : int
        How many of the first are drawn in grey: those that are not to be believed.

    Returns
    -------
    matplotlib Figure
        One bar each.
    """
    from matplotlib.figure import Figure

    thin = len(rows) > 6
    figure = Figure(
        figsize=(8, 0.8 + (0.42 if thin else 0.75) * len(rows)), layout="constrained"
    )
    axes = figure.add_subplot()
    for place, (_, share, low, high) in enumerate(rows):
        axes.barh(place, share, color=_GREY if place < n_grey else _BLUE, height=0.6)
        axes.plot([low, high], [place, place], color=_INK, linewidth=2)
        axes.text(
            1.02,
            place,
            f"{share:.0%}",
            va="center",
            fontsize=10 if thin else 12,
            color=_INK,
        )
    axes.axvline(chance, color="#c0392b", linestyle="--", linewidth=1)
    axes.text(chance, -0.62, " chance", color="#c0392b", fontsize=9, va="bottom")
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def plot_classes(scores: Evaluation) -> "Figure":
    """Draw how many recordings of every class are named right.

    Parameters
    ----------
    scores : Evaluation
        The scores.

    Returns
    -------
    matplotlib Figure
        One bar for each class that occurs, the best known on top, with its 95 % interval over groups.
    """
    from matplotlib.figure import Figure

    table = (
        scores.class_table()
        .query("n_recordings > 0")
        .sort_values("recall", kind="stable", ascending=False)
    )
    figure = Figure(figsize=(8, 1.2 + 0.34 * len(table)), layout="constrained")
    axes = figure.add_subplot()
    for row, one in enumerate(table.itertuples()):
        axes.barh(row, 100 * one.recall, color=_BLUE, height=0.6)
        axes.plot(
            [100 * one.low, 100 * one.high], [row, row], color=_INK, linewidth=1.6
        )
        instead = f", else {one.taken_for}" if one.taken_for else ""
        axes.text(
            102,
            row,
            f"{round(one.recall * one.n_recordings)} of {one.n_recordings}{instead}",
            va="center",
            fontsize=9,
            color=_INK,
            parse_math=False,
        )
    axes.set_yticks(range(len(table)), table["label"].tolist(), parse_math=False)
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="recordings named right in %")
    _add_chance(axes, scores, upright=True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def plot_reliability(scores: Evaluation) -> "Figure":
    """Draw whether answers are as sure as they should be.

    Parameters
    ----------
    scores : Evaluation
        The scores.

    Returns
    -------
    matplotlib Figure
        Right: how sure. Up: how many of such answers are right, with 95 % intervals over groups. On the
        line a model means what it says; below it is too sure.

    References
    ----------
    Morris H. DeGroot and Stephen E. Fienberg, "The Comparison and Evaluation of Forecasters", 1983.
    """
    table = scores.reliability_table()
    figure, axes = _percent_axes(
        "how sure the answers are, in %", "answers that are right, in %", (4.8, 4.6)
    )
    axes.plot([0, 100], [0, 100], color=_GREY, linewidth=1.2)
    axes.text(
        60, 20, "too sure", color="#8a8a8a", ha="center", fontsize=11, style="italic"
    )
    axes.text(
        25,
        75,
        "not sure enough",
        color="#8a8a8a",
        ha="center",
        fontsize=11,
        style="italic",
    )
    _draw_band(axes, 100 * table["probability"], table, is_curve=False)
    low, high = scores.calibrated_range
    axes.set_title(
        f"off by {100 * scores.calibration_error:.0f} points on average\n(if the model means what it says: "
        f"{100 * low:.0f} to {100 * high:.0f})",
        fontsize=10,
    )
    axes.set_aspect("equal")
    return figure


def plot_seconds(scores: Evaluation) -> "Figure":
    """Draw how many recordings are named right after the first seconds.

    Parameters
    ----------
    scores : Evaluation
        What `Classifier.evaluate` gives: it knows the tiles.

    Returns
    -------
    matplotlib Figure
        Accuracy with its 95 % interval over groups, as long as half of the recordings last; below, how many.

    Raises
    ------
    InputError
        If the tiles are not known.
    """
    table = scores.seconds_table()
    if not len(table):
        raise InputError(
            "plot_seconds: scores must know the tiles, got none. Pass what Classifier.evaluate gives."
        )
    table = table[
        table["n_recordings"] >= scores.n_recordings / 2
    ]  # a few long ones are another question
    figure, axes = _percent_axes(
        "seconds listened to, and recordings that are that long",
        "named right, in %",
        (6.4, 4),
    )
    _draw_band(axes, table["seconds"], table)
    _add_chance(axes, scores)
    axes.set_xlim(0, 1.04 * table["seconds"].max())
    shown = table.iloc[np.unique(np.linspace(0, len(table) - 1, 6).round().astype(int))]
    axes.set_xticks(
        shown["seconds"],
        [
            f"{s:.0f} s\n{n}"
            for s, n in zip(shown["seconds"], shown["n_recordings"], strict=True)
        ],
    )
    return figure


def plot_risk_coverage(scores: Evaluation) -> "Figure":
    """Draw how many answers are right if only the surest are given.

    Parameters
    ----------
    scores : Evaluation
        The scores.

    Returns
    -------
    matplotlib Figure
        Right: the part of the recordings that gets an answer. Up: the part of these answers that is
        right, with its 95 % interval over groups.

    References
    ----------
    Ran El-Yaniv and Yair Wiener, "On the Foundations of Noise-free Selective Classification", 2010.
    """
    table = scores.risk_table()
    across = "recordings that get an answer, the surest first, in %"
    figure, axes = _percent_axes(across, "answers that are right, in %", (6.4, 4))
    _draw_band(axes, 100 * table["answered"], table)
    _add_chance(axes, scores)
    half = table.iloc[int((table["answered"] - 0.5).abs().argmin())]
    axes.set_title(
        f"all answered: {scores.accuracy:.0%} right; the surer half: {half['accuracy']:.0%}",
        fontsize=10,
    )
    return figure


def _percent_axes(x: str, y: str, size: tuple[float, float]) -> tuple["Figure", "Axes"]:
    """Give axes of percentages."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel=x, ylabel=y, xlim=(0, 102), ylim=(0, 102))
    axes.grid(color=_PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _draw_band(
    axes: "Axes", x: "pd.Series", table: "pd.DataFrame", is_curve: bool = True
) -> None:
    """Draw accuracies with their intervals."""
    low, mean, high = (
        100 * table[name].to_numpy() for name in ("low", "accuracy", "high")
    )
    if is_curve and len(table) > 1:
        axes.fill_between(x, low, high, color=_BLUE, alpha=0.18, linewidth=0)
    else:
        axes.vlines(x, low, high, color=_BLUE, alpha=0.5, linewidth=2)
    axes.plot(x, mean, color=_BLUE, marker="o", markersize=4, linewidth=1.6)


def _add_chance(axes: "Axes", scores: Evaluation, upright: bool = False) -> None:
    """Mark where one stands who guesses."""
    at = 100 * scores.chance
    if upright:
        axes.axvline(at, color=_RED, linestyle="--", linewidth=1)
        axes.text(
            at,
            1.0,
            " chance",
            color=_RED,
            fontsize=9,
            va="bottom",
            transform=axes.get_xaxis_transform(),
        )
    else:
        axes.axhline(at, color=_RED, linestyle="--", linewidth=1)
        axes.text(
            1.01,
            at,
            "chance",
            color=_RED,
            fontsize=9,
            va="center",
            transform=axes.get_yaxis_transform(),
        )


def plot_history(
    history: Sequence[Mapping[str, Any]] | str | os.PathLike[str],
) -> "Figure":
    """Draw how training went: the loss and the validation accuracy of every epoch.

    Parameters
    ----------
    history : sequence of dict, or path
        `history_` of a fitted `Classifier`, or the `history.csv` of a checkpoint, also while it grows.

    Returns
    -------
    matplotlib Figure
        Left the loss in nats, right the validation recordings named right in percent; one panel only
        where no recordings were held out. Rings mark the epoch that is kept: the lowest validation loss.

    Raises
    ------
    InputError
        If it is something else, cannot be read, or has no epoch yet.

    Notes
    -----
    The two losses are not of one kind: training is measured on single tiles, altered, mixed and with
    softened labels as `fit` was told, and can stay above the validation, which is of whole recordings.
    """
    from matplotlib.figure import Figure

    epochs, loss, held, accuracy = _read_history(history).T
    is_held = bool(np.isfinite(held).any())
    figure = Figure(figsize=(9 if is_held else 4.8, 3.6), layout="constrained")
    left, *others = figure.subplots(1, 1 + is_held, squeeze=False)[0]
    _draw_curve(left, epochs, loss, "#8a8a8a", "training, tile by tile")
    left.set_ylabel("loss (lower is better)")
    if is_held:
        right, best = others[0], int(np.nanargmin(held))
        _draw_curve(left, epochs, held, _BLUE, "validation, per recording")
        _draw_curve(right, epochs, 100 * accuracy, _BLUE)
        right.set(ylabel="recordings named right in %", ylim=(-3, 103))
        for axes, curve in ((left, held), (right, 100 * accuracy)):
            ring = {
                "s": 90,
                "facecolor": "none",
                "edgecolor": _INK,
                "linewidth": 1.5,
                "zorder": 3,
                "clip_on": False,
            }
            axes.scatter(
                epochs[best],
                curve[best],
                label=f"kept: epoch {epochs[best]:.0f}",
                **ring,
            )
        right.set_title(
            f"{accuracy[best]:.0%} of the validation recordings at epoch {epochs[best]:.0f}",
            fontsize=10,
        )
    left.set_ylim(bottom=0)
    left.legend(frameon=False, fontsize=9)
    return figure


def _draw_curve(
    axes: "Axes",
    epochs: NDArray[np.float64],
    curve: NDArray[np.float64],
    colour: str,
    label: str = "",
) -> None:
    """Draw one value per epoch, with whole epochs below."""
    from matplotlib.ticker import MaxNLocator

    marker = "o" if len(epochs) <= 40 else ""
    axes.plot(
        epochs,
        curve,
        color=colour,
        marker=marker,
        markersize=4,
        linewidth=1.6,
        label=label or None,
    )
    axes.set(xlabel="epoch", xlim=(epochs.min() - 0.5, epochs.max() + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _read_history(history: Any) -> NDArray[np.float64]:
    """Give one row per epoch, NaN where nothing was measured."""
    shown, rows = type(history).__name__, history
    rule = "plot_history: history must be the history_ of a fitted Classifier or the path of its history.csv"
    try:
        if isinstance(history, str | os.PathLike):
            shown = repr(os.fspath(history))
            with open(history, newline="", encoding="utf-8") as file:
                rows = [
                    {name: value or None for name, value in row.items()}
                    for row in csv.DictReader(file)
                ]
        held = [[row.get("valid_loss"), row.get("valid_accuracy")] for row in rows]
        curves = np.array(
            [
                [row["epoch"], row["loss"], *two]
                for row, two in zip(rows, held, strict=True)
            ],
            float,
        )
    except (
        AttributeError,
        LookupError,
        OSError,
        TypeError,
        ValueError,
        csv.Error,
    ) as err:
        raise InputError(f"{rule}, got {shown}. Pass model.history_.") from err
    if not len(curves):
        raise InputError(
            "plot_history: history must have one epoch or more, got none. Fit, or wait for the first."
        )
    if not np.isfinite(curves[:, :2]).all():
        raise InputError(f"{rule}, got {shown}. Pass model.history_.")
    return curves
