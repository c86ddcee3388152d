"""Tiles as a musician reads them: a keyboard beside them, note names, seconds and dB."""

from collections.abc import Sequence
from math import ceil, log2
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cqt2img.tiles.png import colour_tiles
from cqt2img.tiles.spec import TileSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _IVORY = "#222222", "#fbf7ee"
_BLACK_KEYS = {1, 3, 6, 8, 10}


def plot_tile(
    axes: "Axes",
    tile: NDArray[np.uint8],
    spec: TileSpec,
    title: str = "",
    start_seconds: float = 0,
) -> None:
    """Draw one tile with a keyboard, note names and seconds.

    Parameters
    ----------
    axes : matplotlib Axes
        Where to.
    tile : ndarray of uint8, shape (height, width)
        Levels.
    spec : TileSpec
        Says what a pixel means.
    title : str
        Above the picture.
    start_seconds : float
        Time of the first column in s.
    """
    axes.imshow(colour_tiles(tile, spec), aspect="auto", interpolation="nearest")
    lowest = 69 + 12 * log2(spec.f_min / 440)
    notes = range(
        ceil(lowest - 0.01),
        int(lowest + 12 * (spec.n_bins - 1) / spec.bins_per_octave) + 1,
    )
    rows = {midi: spec.row_of_note(midi) for midi in notes}
    axes.set_yticks([])
    _draw_keys(axes, rows, spec)
    axes.tick_params(axis="x", labelsize=8)
    seconds = np.arange(ceil(start_seconds), start_seconds + spec.tile_seconds)
    axes.set_xticks(
        (seconds - start_seconds) / spec.frame_seconds, [f"{s:.0f}" for s in seconds]
    )
    axes.set_title(title, fontsize=10, color=_INK, parse_math=False)


def _draw_keys(axes: "Axes", rows: dict[int, int], spec: TileSpec) -> None:
    """Draw the keys of a piano to the left of a tile, each at its rows."""
    keys = axes.inset_axes((-0.045, 0, 0.038, 1))
    keys.set(ylim=axes.get_ylim(), xlim=(0, 1), xticks=[], facecolor=_IVORY)
    names = [midi for midi in rows if midi % 12 == 0]
    keys.set_yticks(
        [rows[midi] for midi in names],
        [f"C{midi // 12 - 1}" for midi in names],
        fontsize=8,
    )
    keys.tick_params(axis="y", length=0, pad=2)
    semitone = spec.bins_per_octave / 12
    for midi, row in rows.items():
        if midi % 12 in _BLACK_KEYS:
            keys.barh(row, 0.62, semitone * 0.9, color=_INK)
        if midi % 12 in (0, 5):  # the white keys that touch: B and C, E and F
            keys.axhline(row + semitone / 2, color=_INK, linewidth=0.4)
    for spine in keys.spines.values():
        spine.set_linewidth(0.5)


def plot_tiles(
    tiles: Sequence[NDArray[np.uint8] | None] | NDArray[np.uint8],
    spec: TileSpec,
    titles: Sequence[str],
    n_columns: int = 3,
    start_seconds: Sequence[float] | None = None,
) -> "Figure":
    """Draw tiles side by side, with a keyboard, note names, seconds and dB.

    Parameters
    ----------
    tiles : ndarray of uint8, shape (n, height, width)
        Levels; None in a sequence leaves a place empty.
    spec : TileSpec
        Says what a pixel means.
    titles : sequence of str
        One for each.
    n_columns : int
        Tiles in a row.
    start_seconds : sequence of float, optional
        Time of the first column of each in s; by default 0.

    Returns
    -------
    matplotlib Figure
        Ready to show or save.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    n_rows = ceil(len(tiles) / n_columns)
    figure = Figure(figsize=(3.9 * n_columns + 0.6, 2.7 * n_rows), layout="constrained")
    starts = start_seconds if start_seconds is not None else [0.0] * len(tiles)
    all_axes = []
    for n, (tile, title, start) in enumerate(zip(tiles, titles, starts, strict=True)):
        if tile is None:
            continue
        axes = figure.add_subplot(n_rows, n_columns, n + 1)
        plot_tile(axes, tile, spec, title, start)
        if n >= len(tiles) - n_columns:
            axes.set_xlabel("seconds", fontsize=8)
        all_axes.append(axes)
    scale = ScalarMappable(Normalize(spec.min_db, spec.max_db), spec.colour_map)
    bar = figure.colorbar(scale, ax=all_axes, aspect=40, pad=0.01, fraction=0.02)
    bar.set_label("dB against the loudest of the recording", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return figure
