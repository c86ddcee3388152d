"""What people look at: tables, plots with note names and seconds, one page that holds everything."""

import base64
import csv
import html
import io
import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cqt2img.disk import check_folder, write_whole
from cqt2img.errors import InputError
from cqt2img.evaluate import Evaluation

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TABLE_SUFFIXES = (".csv", ".jsonl", ".parquet")
_INK, _GREY, _BLUE = "#222222", "#b8b8b8", "#3b6ea5"


def check_table_name(path: Path) -> None:
    """Refuse a table in a format that cannot be written, before any work is done.

    Parameters
    ----------
    path : Path
        Where a table is to go.

    Raises
    ------
    InputError
        If it does not end in .csv, .jsonl or .parquet, is a folder, or its folder cannot be written.
    """
    if path.suffix.lower() not in TABLE_SUFFIXES or path.is_dir():
        raise InputError(
            f"write_table: path must be a file that ends in {', '.join(TABLE_SUFFIXES)}, got {str(path)!r}. Rename it."
        )
    check_folder(path.parent)


def write_table(frame: "pd.DataFrame", path: Path) -> None:
    """Write a table as csv, JSON lines or parquet, whole or not at all.

    Parameters
    ----------
    frame : DataFrame
        The table.
    path : Path
        Its ending says the format.

    Raises
    ------
    InputError
        If the ending is another one.
    """
    check_table_name(path)
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(part: Path) -> None:
        if path.suffix.lower() == ".csv":
            frame.to_csv(part, index=False, encoding="utf-8", errors="surrogateescape")
        elif path.suffix.lower() == ".jsonl":
            rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
            part.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="ascii")
        else:
            legible = frame.map(lambda v: v.encode(errors="backslashreplace").decode() if isinstance(v, str) else v)
            legible.to_parquet(part, index=False)  # Arrow has no text that is not UTF-8, such as some names of files

    write_whole(path, write)


def write_audacity(frame: "pd.DataFrame", folder: Path) -> list[Path]:
    """Write label tracks that Audacity imports: who plays when, one file per recording.

    Parameters
    ----------
    frame : DataFrame
        What `Classifier.predict_tiles` gives.
    folder : Path
        Made if it is not there.

    Returns
    -------
    list of Path
        The files; neighbouring tiles of one name are one label.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    good = frame[frame["status"] == "ok"]
    by_path: dict[str, list[Any]] = {}
    for row in good.itertuples():
        by_path.setdefault(str(row.path), []).append(row)
    for path, tiles in by_path.items():
        lines: list[list[Any]] = []
        for row in tiles:
            if lines and lines[-1][2] == row.label:
                lines[-1][1] = row.end_seconds
                lines[-1][3].append(row.probability)
            else:
                lines.append([row.start_seconds, row.end_seconds, row.label, [row.probability]])
        text = "".join(f"{a:.3f}\t{b:.3f}\t{' '.join(str(name).split())} {np.mean(p):.2f}\n" for a, b, name, p in lines)
        target, n = folder / f"{Path(path).name}.txt", 1
        while target in written:  # two folders may hold files of one name
            n += 1
            target = folder / f"{Path(path).name}~{n}.txt"
        write_whole(target, partial(Path.write_text, data=text, encoding="utf-8", errors="surrogateescape"))
        written.append(target)
    return written


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
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=9)
    low, high = scores.accuracy_interval_groups or scores.accuracy_interval
    axes.set_title(f"{scores.accuracy:.0%} right ({low:.0%} to {high:.0%}), chance {scores.chance:.0%}", fontsize=10)
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
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.8 + 0.75 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    for row, one in enumerate(scores):
        low, high = one.accuracy_interval_groups or one.accuracy_interval
        axes.barh(row, one.accuracy, color=_GREY if row == 0 else _BLUE, height=0.6)
        axes.plot([low, high], [row, row], color=_INK, linewidth=2)
        axes.text(1.02, row, f"{one.accuracy:.0%}", va="center", fontsize=12, color=_INK)
    axes.axvline(scores[0].chance, color="#c0392b", linestyle="--", linewidth=1)
    axes.text(scores[0].chance, -0.62, " chance", color="#c0392b", fontsize=9, va="bottom")
    axes.set_yticks(range(len(names)), list(names))
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def plot_history(history: Sequence[Mapping[str, Any]] | str | os.PathLike[str]) -> "Figure":
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
            ring = {"s": 90, "facecolor": "none", "edgecolor": _INK, "linewidth": 1.5, "zorder": 3, "clip_on": False}
            axes.scatter(epochs[best], curve[best], label=f"kept: epoch {epochs[best]:.0f}", **ring)
        right.set_title(f"{accuracy[best]:.0%} of the validation recordings at epoch {epochs[best]:.0f}", fontsize=10)
    left.set_ylim(bottom=0)
    left.legend(frameon=False, fontsize=9)
    return figure


def _draw_curve(
    axes: "Axes", epochs: NDArray[np.float64], curve: NDArray[np.float64], colour: str, label: str = ""
) -> None:
    """Draw one value per epoch, with whole epochs below."""
    from matplotlib.ticker import MaxNLocator

    marker = "o" if len(epochs) <= 40 else ""
    axes.plot(epochs, curve, color=colour, marker=marker, markersize=4, linewidth=1.6, label=label or None)
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
                rows = [{name: value or None for name, value in row.items()} for row in csv.DictReader(file)]
        held = [[row.get("valid_loss"), row.get("valid_accuracy")] for row in rows]
        curves = np.array([[row["epoch"], row["loss"], *two] for row, two in zip(rows, held, strict=True)], float)
    except (AttributeError, LookupError, OSError, TypeError, ValueError, csv.Error) as err:
        raise InputError(f"{rule}, got {shown}. Pass model.history_.") from err
    if not len(curves):
        raise InputError("plot_history: history must have one epoch or more, got none. Fit, or wait for the first.")
    if not np.isfinite(curves[:, :2]).all():
        raise InputError(f"{rule}, got {shown}. Pass model.history_.")
    return curves


def to_png(figure: "Figure", dpi: int = 110) -> bytes:
    """Draw a figure as a PNG.

    Parameters
    ----------
    figure : matplotlib Figure
        The figure.
    dpi : int
        Pixels per inch.

    Returns
    -------
    bytes
        The file.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def write_page(path: Path, title: str, blocks: Sequence[str | bytes]) -> None:
    """Write one HTML page that holds everything it shows and asks the network for nothing.

    Parameters
    ----------
    path : Path
        Where to.
    title : str
        Its heading, plain text.
    blocks : sequence of str or bytes
        Paragraphs as HTML, and pictures as PNG, from top to bottom.
    """
    parts = []
    for block in blocks:
        if isinstance(block, bytes):
            parts.append(f'<img alt="" src="data:image/png;base64,{base64.b64encode(block).decode()}">')
        else:
            parts.append(block if block.startswith("<") else f"<p>{block}</p>")
    body = "\n".join(parts)
    text = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(title)}</title><style>
body {{ font: 17px/1.55 Georgia, serif; color: {_INK}; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }}
h1, h2 {{ font-weight: normal; line-height: 1.2; }} img {{ max-width: 100%; }}
table {{ border-collapse: collapse; }}
td, th {{ padding: .25rem .8rem; text-align: left; border-bottom: 1px solid #ddd; }}
audio {{ width: 100%; }}
</style></head><body><h1>{html.escape(title)}</h1>
{body}
</body></html>
"""
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))
