"""Plots of tiles with a keyboard, note names, seconds and dB."""

from collections.abc import Sequence
from math import ceil, floor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.progress import import_tqdm
from cqt2img.tiles.png import Tiles, colour_tiles
from cqt2img.tiles.spec import TileSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLACK = "#222222"
_WHITE = "#fbf7ee"
_BLACK_KEY_LENGTH = 0.62  # relative to a white key
_FONT_SIZE = 8
# Size of a tile and of the colour bar in a figure, in inches.
_TILE_WIDTH = 3.9
_TILE_HEIGHT = 2.7
_BAR_WIDTH = 0.6


def plot_tile(
    axes: "Axes",
    tile: Tiles,
    spec: TileSpec,
    *,
    title: str = "",
    start_seconds: float = 0,
) -> None:
    """Plot a tile with a keyboard, note names and seconds.

    Parameters
    ----------
    axes : matplotlib Axes
        Axes to plot on.
    tile : ndarray of uint8, shape (height, width)
        Levels.
    spec : TileSpec
        Spec of the tile.
    title : str
        Title above the tile.
    start_seconds : float
        Time of the first column in seconds.
    """
    axes.imshow(colour_tiles(tile, spec), aspect="auto", interpolation="nearest")
    axes.set_yticks([])
    _plot_keyboard(axes, spec)
    end_seconds = start_seconds + spec.tile_seconds
    seconds = np.arange(ceil(start_seconds), end_seconds)
    columns = (seconds - start_seconds) / spec.frame_seconds
    axes.set_xticks(columns, [f"{second:.0f}" for second in seconds])
    axes.tick_params(axis="x", labelsize=_FONT_SIZE)
    axes.set_title(title, fontsize=10, color=_BLACK, parse_math=False)


def _list_notes(spec: TileSpec) -> dict[int, str]:
    """Return the names of the notes within the bins by their MIDI numbers."""
    import_tqdm()
    import librosa

    tolerance = 0.01  # semitones; bins are centred on notes up to rounding errors
    lowest = librosa.hz_to_midi(spec.f_min)
    highest = lowest + 12 * (spec.n_bins - 1) / spec.bins_per_octave
    notes = range(ceil(lowest - tolerance), floor(highest + tolerance) + 1)
    return {midi: librosa.midi_to_note(midi, unicode=False) for midi in notes}


def _plot_keyboard(axes: "Axes", spec: TileSpec) -> None:
    """Plot piano keys to the left of a tile, each at its rows."""
    keys = axes.inset_axes((-0.045, 0, 0.038, 1))
    keys.set(ylim=axes.get_ylim(), xlim=(0, 1), xticks=[], facecolor=_WHITE)
    semitone = spec.bins_per_octave / 12  # rows
    tick_rows = []
    tick_names = []
    for midi, name in _list_notes(spec).items():
        row = spec.row_of_note(midi)
        pitch_class = name.rstrip("-0123456789")
        if pitch_class.endswith("#"):
            keys.barh(row, _BLACK_KEY_LENGTH, semitone * 0.9, color=_BLACK)
        if pitch_class in ("C", "F"):  # no black key below
            keys.axhline(row + semitone / 2, color=_BLACK, linewidth=0.4)
        if pitch_class == "C":
            tick_rows.append(row)
            tick_names.append(name)
    keys.set_yticks(tick_rows, tick_names, fontsize=_FONT_SIZE)
    keys.tick_params(axis="y", length=0, pad=2)
    for spine in keys.spines.values():
        spine.set_linewidth(0.5)


def plot_tiles(
    tiles: Sequence[Tiles | None] | NDArray[np.uint8],
    spec: TileSpec,
    titles: Sequence[str],
    *,
    n_columns: int = 3,
    start_seconds: Sequence[float] | None = None,
) -> "Figure":
    """Plot tiles side by side, with keyboards, note names, seconds and dB.

    Parameters
    ----------
    tiles : ndarray of uint8, shape (n_tiles, height, width)
        Levels. A sequence may contain None, which leaves a cell empty.
    spec : TileSpec
        Spec of the tiles.
    titles : sequence of str
        One title per tile.
    n_columns : int
        Number of tiles per row, 1 or more.
    start_seconds : sequence of float, optional
        Time of the first column of each tile in seconds. By default 0.

    Returns
    -------
    matplotlib Figure
        The figure.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    n_rows = ceil(len(tiles) / n_columns)
    width = _TILE_WIDTH * n_columns + _BAR_WIDTH
    height = _TILE_HEIGHT * n_rows
    figure = Figure(figsize=(width, height), layout="constrained")
    if start_seconds is None:
        start_seconds = [0.0] * len(tiles)
    all_axes = []
    cells = zip(tiles, titles, start_seconds, strict=True)
    for index, (tile, title, start) in enumerate(cells):
        if tile is None:
            continue
        axes = figure.add_subplot(n_rows, n_columns, index + 1)
        plot_tile(axes, tile, spec, title=title, start_seconds=start)
        is_lowest = index >= len(tiles) - n_columns
        if is_lowest:
            axes.set_xlabel("seconds", fontsize=_FONT_SIZE)
        all_axes.append(axes)
    scale = ScalarMappable(Normalize(spec.min_db, spec.max_db), spec.colour_map)
    bar = figure.colorbar(scale, ax=all_axes, aspect=40, pad=0.01, fraction=0.02)
    bar.set_label("dB relative to the reference level", fontsize=_FONT_SIZE)
    bar.ax.tick_params(labelsize=_FONT_SIZE)
    return figure
