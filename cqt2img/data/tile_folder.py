"""A folder of rendered tiles and its manifest."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.messages import start_errors_with
from cqt2img.data.manifest import (
    RECORDINGS_FILE,
    SPEC_FILE,
    TILES_FILE,
    read_csv,
)
from cqt2img.errors import InputError
from cqt2img.tiles.display import plot_tiles
from cqt2img.tiles.extract import QUALITY
from cqt2img.tiles.png import Tiles, read_tile
from cqt2img.tiles.spec import TileSpec

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# rows of a DataFrame: a mask, or labels of its index
Rows: TypeAlias = "pd.Series | pd.Index | NDArray[np.generic] | Sequence[object]"

_NUMBER_COLUMNS = (
    "seconds",
    *QUALITY,
    "n_tiles",
    "index",
    "start_seconds",
    "valid_width",
)


@dataclass(frozen=True)
class TileSet:
    """A folder of tiles and its manifest.

    Parameters
    ----------
    path : Path
        The folder.
    spec : TileSpec
        Spec of the tiles.
    recordings : DataFrame
        One row per recording: `path`, `label`, `group`, `status`, `reason`, `message`,
        `seconds`, `tuning_cents` and the other measurements, `n_tiles`, `tiles` (its
        folder, relative to `path`), and further columns of the table that was rendered.
    tiles : DataFrame
        One row per tile: `tile` (file, relative to `path`), `path`, `label`, `group`,
        `index`, `start_seconds`, `valid_width`.
    """

    path: Path
    spec: TileSpec
    recordings: "pd.DataFrame"
    tiles: "pd.DataFrame"

    def select(self, rows: Rows) -> "TileSet":
        """Select recordings with their tiles; no file is changed.

        Parameters
        ----------
        rows : Series or ndarray of bool, or list of index labels
            Rows of `recordings`, such as a mask computed from its columns.

        Returns
        -------
        TileSet
            The same folder with fewer recordings.

        Raises
        ------
        InputError
            If the rows are not of `recordings`, or one is repeated.

        Examples
        --------
        >>> import tempfile
        >>> from cqt2img import render
        >>> cqts = np.random.default_rng(0).random((2, 96, 300))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tiles = render(cqts, folder, "fast")
        >>> is_second = tiles.recordings["path"] == "array 1"
        >>> tiles.select(is_second).recordings["path"].tolist()
        ['array 1']
        """
        with start_errors_with("TileSet.select"):
            labels = _check_rows(self.recordings, rows)
        recordings = self.recordings.loc[labels]
        is_selected = self.tiles["path"].isin(recordings["path"])
        return replace(self, recordings=recordings, tiles=self.tiles[is_selected])

    def show(self, n_recordings: int = 4, n_tiles: int = 3) -> "Figure":
        """Plot the first tiles of some recordings, one recording per row.

        Parameters
        ----------
        n_recordings : int, default 4
            Number of recordings, 1 or more; they are taken from each label in turn.
        n_tiles : int, default 3
            Number of tiles of each, 1 or more.

        Returns
        -------
        matplotlib Figure
            With a keyboard, note names, seconds and dB.

        Raises
        ------
        InputError
            If no recording has tiles, or a number is below 1.
        """
        for name, value in (("n_recordings", n_recordings), ("n_tiles", n_tiles)):
            if value < 1:
                raise InputError(
                    f"TileSet.show: {name} must be 1 or more, got {value}. Omit it for "
                    "the default."
                )
        rendered = self.recordings[self.recordings["n_tiles"] > 0]
        if rendered.empty:
            raise InputError(
                "TileSet.show: none of the recordings has tiles. See the reasons in "
                "recordings['message']."
            )
        rank = rendered.groupby(rendered["label"].fillna("")).cumcount()
        order = rank.sort_values(kind="stable").index
        shown = rendered.loc[order[:n_recordings]]
        n_columns = min(n_tiles, int(shown["n_tiles"].max()))
        sheet = _ContactSheet(n_columns)
        for path, label in zip(shown["path"], shown["label"], strict=True):
            rows = self.tiles[self.tiles["path"] == path]
            self._add_row(sheet, _make_title(path, label), rows.head(n_columns))
        return plot_tiles(
            sheet.tiles,
            self.spec,
            sheet.titles,
            n_columns=n_columns,
            start_seconds=sheet.start_seconds,
        )

    def _add_row(
        self, sheet: "_ContactSheet", title: str, rows: "pd.DataFrame"
    ) -> None:
        starts = rows["start_seconds"].tolist()
        for name, start in zip(rows["tile"], starts, strict=True):
            tile, _ = read_tile(self.path / name, self.spec)
            sheet.add(tile, title, start)
            title = ""  # only the first tile of a recording has one
        sheet.fill_row()


@dataclass(frozen=True)
class _ContactSheet:
    """Tiles, titles and start times of the cells of a plot, row by row."""

    n_columns: int
    tiles: list[Tiles | None] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    start_seconds: list[float] = field(default_factory=list)

    def add(self, tile: Tiles | None, title: str, start_seconds: float) -> None:
        self.tiles.append(tile)
        self.titles.append(title)
        self.start_seconds.append(start_seconds)

    def fill_row(self) -> None:
        """Leave the rest of a row empty, after a short recording."""
        while len(self.tiles) % self.n_columns:
            self.add(None, "", 0.0)


def _make_title(path: str, label: object) -> str:
    """Return label, folder and file of a recording."""
    file = Path(path)
    parts = [str(label) if label else "", file.parent.name, file.name]
    unique = [part for part in dict.fromkeys(parts) if part]
    title = " · ".join(unique)
    return title.encode(errors="replace").decode()  # names need not be UTF-8


def _check_rows(table: "pd.DataFrame", rows: Rows) -> list[object]:
    """Return rows as labels of the index.

    pandas would accept masks of other tables and repeated rows without an error.
    """
    import pandas as pd

    advice = (
        "Pass a mask such as tiles.recordings['label'] == 'Monk', or labels of its "
        "index."
    )
    kinds = (pd.Series, pd.Index, np.ndarray, list, tuple)
    if not isinstance(rows, kinds) or np.ndim(rows) != 1:
        kind = type(rows).__name__
        raise InputError(f"rows must be a mask or a list of rows, got {kind}. {advice}")
    if len(rows) and all(isinstance(row, (bool, np.bool_)) for row in rows):
        is_aligned = not isinstance(rows, pd.Series) or rows.index.equals(table.index)
        if not is_aligned or len(rows) != len(table):
            raise InputError(
                f"rows must be a mask of the {len(table)} recordings, got {len(rows)} "
                f"entries of another table. {advice}"
            )
        return table.index[np.asarray(rows, dtype=bool)].tolist()
    labels = list(rows)
    for label in labels:
        if label not in table.index:
            raise InputError(f"rows must be of recordings, got {label!r}. {advice}")
    if len(set(labels)) < len(labels):
        raise InputError(f"rows must be different, got one of them twice. {advice}")
    return labels


def open_tiles(path: str | os.PathLike[str]) -> TileSet:
    """Open a folder that `render` wrote.

    Parameters
    ----------
    path : str or Path
        The folder.

    Returns
    -------
    TileSet
        The folder and its manifest.

    Raises
    ------
    InputError
        If it is not such a folder.
    """
    path = Path(path)
    for name in (SPEC_FILE, RECORDINGS_FILE, TILES_FILE):
        if not (path / name).is_file():
            raise InputError(
                f"open_tiles: not a tile folder: {str(path)!r} has no {name}. Render "
                "the recordings first."
            )
    spec = TileSpec.preset(path / SPEC_FILE)
    with start_errors_with("open_tiles"):
        recordings = _read_manifest(path / RECORDINGS_FILE)
        tiles = _read_manifest(path / TILES_FILE)
    return TileSet(path, spec, recordings, tiles)


def _read_manifest(path: Path) -> "pd.DataFrame":
    """Read a table; all but the measurements is text, such as the label 007."""
    table = read_csv(path)
    convert_numbers(table)
    table["label"] = table["label"].where(table["label"] != "", None)
    return table


def convert_numbers(table: "pd.DataFrame") -> None:
    """Convert the columns with measurements to numbers, also if all are missing.

    Parameters
    ----------
    table : DataFrame
        Recordings or tiles; it is changed in place.
    """
    import pandas as pd

    for name in _NUMBER_COLUMNS:
        if name in table.columns:
            table[name] = pd.to_numeric(table[name])
