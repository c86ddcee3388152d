"""A folder of tiles and its manifest: opened, looked at, taken in parts."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cqt2img.data.manifest import (
    RECORDINGS_FILE,
    SPEC_FILE,
    TILES_FILE,
    read_csv,
)
from cqt2img.errors import InputError
from cqt2img.tiles.display import plot_tiles
from cqt2img.tiles.extract import QUALITY
from cqt2img.tiles.png import read_tile
from cqt2img.tiles.spec import TileSpec

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_NUMBERS = {"seconds", *QUALITY, "n_tiles", "index", "start_seconds", "valid_width"}


@dataclass(frozen=True)
class TileSet:
    """A folder of tiles and its manifest.

    Parameters
    ----------
    path : Path
        The folder.
    spec : TileSpec
        What its pixels mean.
    recordings : DataFrame
        One row per recording: `path`, `label`, `group`, `status`, `reason`, `message`, `seconds`,
        `tuning_cents`, `n_tiles`, `tiles` (its folder, relative to `path`), and what the table
        that was rendered held beside.
    tiles : DataFrame
        One row per tile: `tile` (file, relative to `path`), `path`, `label`, `group`, `index`,
        `start_seconds`, `valid_width`.
    """

    path: Path
    spec: TileSpec
    recordings: "pd.DataFrame"
    tiles: "pd.DataFrame"

    def select(self, rows: Any) -> "TileSet":
        """Take some of the recordings, with their tiles; no file is touched.

        Parameters
        ----------
        rows : Series or ndarray of bool, or list of index labels
            Rows of `recordings`, as pandas takes them: `tiles.select(tiles.recordings["label"] == "Monk")`.

        Returns
        -------
        TileSet
            Of the same folder. `fit`, `predict` and `evaluate` take it.

        Raises
        ------
        InputError
            If the rows are not of `recordings`, or one comes twice.
        """
        recordings = self.recordings.loc[_known_rows(self.recordings, rows)]
        return replace(
            self,
            recordings=recordings,
            tiles=self.tiles[self.tiles["path"].isin(recordings["path"])],
        )

    def show(self, n_recordings: int = 4, n_tiles: int = 3) -> "Figure":
        """Draw the first tiles of some recordings as a contact sheet, one recording a row.

        Parameters
        ----------
        n_recordings : int, default 4
            How many recordings, 1 or more; of every label in turn.
        n_tiles : int, default 3
            How many tiles of each, 1 or more.

        Returns
        -------
        matplotlib Figure
            With a keyboard, note names, seconds and dB. A notebook shows it.

        Raises
        ------
        InputError
            If no recording could be rendered, or a number is below 1.
        """
        if min(n_recordings, n_tiles) < 1:
            raise InputError(
                f"TileSet.show: n_recordings and n_tiles must be 1 or more, got {n_recordings} and {n_tiles}. "
                "Leave them out for a sheet of 4 recordings."
            )
        whole = self.recordings[self.recordings["n_tiles"] > 0]
        if whole.empty:
            raise InputError(
                "TileSet.show: it must hold tiles, got none. See the reasons in recordings['message']."
            )
        turn = whole.groupby(whole["label"].fillna("")).cumcount()
        chosen = whole.loc[
            turn.sort_values(kind="stable").index[:n_recordings],
            ["path", "label", "n_tiles"],
        ]
        pictures: list[Any] = []
        titles: list[str] = []
        starts: list[float] = []
        n_columns = min(n_tiles, int(chosen["n_tiles"].max()))
        for path, label in zip(chosen["path"], chosen["label"], strict=True):
            rows = self.tiles[self.tiles["path"] == path].head(n_columns)
            pictures += [
                read_tile(self.path / name, self.spec)[0] for name in rows["tile"]
            ]
            words = [
                label if isinstance(label, str) else "",
                Path(path).parent.name,
                Path(path).name,
            ]
            title = " · ".join(word for word in dict.fromkeys(words) if word)
            titles += [title.encode(errors="replace").decode(), *[""] * (len(rows) - 1)]
            starts += rows["start_seconds"].tolist()
            short = n_columns - len(
                rows
            )  # a shorter recording has empty places at its end
            pictures += [None] * short
            titles += [""] * short
            starts += [0.0] * short
        return plot_tiles(
            pictures, self.spec, titles, n_columns=n_columns, start_seconds=starts
        )


def _known_rows(table: "pd.DataFrame", rows: Any) -> list[Any]:
    """Give the labels of rows that pandas would take from somewhere: masks of other tables, too."""
    import pandas as pd

    way = 'Give a mask of it, such as tiles.recordings["label"] == "Monk", or labels of its index.'
    if (
        not isinstance(rows, (pd.Series, pd.Index, np.ndarray, list, tuple))
        or np.ndim(rows) != 1
    ):
        raise InputError(
            f"TileSet.select: rows must be a mask or a list of rows, got {type(rows).__name__}. {way}"
        )
    if len(rows) and all(isinstance(row, (bool, np.bool_)) for row in rows):
        same = not isinstance(rows, pd.Series) or rows.index.equals(table.index)
        if not same or len(rows) != len(table):
            raise InputError(
                f"TileSet.select: rows must be a mask of recordings, which has {len(table)} rows, got {len(rows)} of "
                f"another table. {way}"
            )
        return table.index[np.asarray(rows, dtype=bool)].tolist()
    found = list(rows)
    unknown = [row for row in found if row not in table.index]
    if unknown or len(set(found)) < len(found):
        what = f"{unknown[0]!r}" if unknown else "one of them twice"
        raise InputError(
            f"TileSet.select: rows must be of recordings, each once, got {what}. {way}"
        )
    return found


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
    missing = [
        n for n in (SPEC_FILE, RECORDINGS_FILE, TILES_FILE) if not (path / n).is_file()
    ]
    if missing:
        raise InputError(
            f"open_tiles: path must be a folder made by render, got {str(path)!r} without {missing[0]}. "
            "Render the recordings first."
        )
    read = [read_csv(path / n) for n in (RECORDINGS_FILE, TILES_FILE)]
    for table in read:  # all else is text, such as the label 007
        to_numbers(table)
        table["label"] = table["label"].where(table["label"] != "", None)
    return TileSet(path, TileSpec.preset(path / SPEC_FILE), *read)


def to_numbers(table: "pd.DataFrame") -> None:
    """Make numbers of the columns that hold some, where there is none in any row, too.

    Parameters
    ----------
    table : DataFrame
        Of recordings or of tiles; it is changed.
    """
    import pandas as pd

    for name in _NUMBERS & set(table.columns):
        table[name] = pd.to_numeric(table[name])
