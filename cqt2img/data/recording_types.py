"""Declared types for recordings, their labels and their groups."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cqt2img._utils.tables import make_table
from cqt2img.errors import AudioError, InputError

if TYPE_CHECKING:
    import pandas as pd

Label: TypeAlias = str | int | float | bool

# columns of Recordings.to_frame
PUBLIC_COLUMNS = ("path", "label", "group")
EXTRA_COLUMNS = ("name", "item", "tiles")


@dataclass(frozen=True, eq=False)
class Recording:
    """One recording: an audio file, or a CQT in a file or in memory.

    Parameters
    ----------
    path : str
        The path as the user or the table wrote it; "array 3" for an array in memory.
    source : Path or ndarray of shape (n_bins, n_frames)
        The file to read, or the CQT.
    label : str, int, float or bool, optional
        The class, such as the name of the player.
    group : str
        What was recorded together (album, session, concert).
    name : str
        Path relative to the folder or table that the recording was listed from.
    tiles : Path, optional
        Folder of the rendered tiles of this recording.
    error : AudioError, optional
        Why the recording could not be rendered, if that is known from a tile folder.
    start, end : float, optional
        Limits in seconds of the segment to use. Reserved: not supported yet.
    columns : mapping, optional
        Further columns of the table.
    """

    path: str
    source: Path | NDArray[np.generic]
    label: Label | None
    group: str
    name: str
    tiles: Path | None = None
    error: AudioError | None = None
    start: float | None = None
    end: float | None = None
    columns: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the path."""
        return self.path

    @property
    def location(self) -> str | None:
        """Where the recording is stored, however its path is spelled.

        The folder of the tiles, else the absolute path of the file. None for arrays,
        and for recordings that a tile folder lists as failed: a tile folder does not
        store the directory that relative paths started from.
        """
        if self.tiles is not None:
            return str(self.tiles)
        if self.error is not None or not isinstance(self.source, Path):
            return None
        return os.path.abspath(self.source)


@dataclass(frozen=True, eq=False, repr=False)
class Recordings(Sequence[Recording]):
    """A sequence of recordings.

    Parameters
    ----------
    items : tuple of Recording
        The recordings.
    column_names : tuple of str
        `path`, `label`, `group` and the further columns, in the order of the table
        that the recordings were read from.

    Examples
    --------
    >>> from cqt2img.data.recordings import list_recordings
    >>> recordings = list_recordings(["a.wav", "b.wav"], y=["Monk", "Evans"])
    >>> recordings.select([1]).labels
    ['Evans']
    """

    items: tuple[Recording, ...]
    column_names: tuple[str, ...] = PUBLIC_COLUMNS

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        names = ", ".join(map(str, self.column_names))
        return f"<Recordings: {len(self)}, columns {names}>"

    @overload
    def __getitem__(self, index: int) -> Recording: ...

    @overload
    def __getitem__(self, index: slice) -> "Recordings": ...

    def __getitem__(self, index: int | slice) -> "Recording | Recordings":
        if isinstance(index, slice):
            return replace(self, items=self.items[index])
        return self.items[index]

    def __add__(self, other: "Recordings") -> "Recordings":
        """Join two sequences of recordings."""
        return join_recordings([self, other])

    @property
    def paths(self) -> list[str]:
        """The path of each recording."""
        return [recording.path for recording in self.items]

    @property
    def labels(self) -> list[Label | None]:
        """The label of each recording, or None."""
        return [recording.label for recording in self.items]

    @property
    def groups(self) -> list[str]:
        """The group of each recording."""
        return [recording.group for recording in self.items]

    @property
    def names(self) -> list[str]:
        """The name of each recording."""
        return [recording.name for recording in self.items]

    def column(self, name: str) -> list[object]:
        """Return one column.

        Parameters
        ----------
        name : str
            One of `column_names`.

        Returns
        -------
        list
            One value per recording; None where its table has no such column.

        Raises
        ------
        InputError
            If no recording has such a column.
        """
        if name not in self.column_names:
            known = ", ".join(map(str, self.column_names))
            raise InputError(f"no such column: {name!r}. Choose one of {known}.")
        if name in PUBLIC_COLUMNS:
            return [getattr(recording, name) for recording in self.items]
        return [recording.columns.get(name) for recording in self.items]

    def select(self, indices: ArrayLike) -> "Recordings":
        """Select recordings.

        Parameters
        ----------
        indices : array-like of int or bool
            Indices of the recordings, or a mask with one entry per recording.

        Returns
        -------
        Recordings
            The selected recordings, in the order of `indices`.

        Raises
        ------
        InputError
            If a mask has another length.
        """
        chosen = np.asarray(indices)
        if chosen.dtype == np.bool_:
            if chosen.shape != (len(self),):
                raise InputError(
                    f"indices: a mask must have {len(self)} entries, got shape "
                    f"{chosen.shape}. Compute it from these recordings."
                )
            chosen = np.flatnonzero(chosen)
        items = tuple(self.items[int(index)] for index in chosen)
        return replace(self, items=items)

    def to_frame(self) -> "pd.DataFrame":
        """Return a table with one row per recording.

        Returns
        -------
        DataFrame
            `path`, `label`, `group` and the further columns in the order of the table
            that was read; then `name`, `item` (the file, the CQT, or the AudioError of
            a failed rendering) and `tiles` (folder of the rendered tiles, or None).
            `list_recordings` accepts this table, any selection of its rows, and
            further columns.
        """
        rows: list[dict[str, object]] = []
        for recording in self.items:
            tiles = recording.tiles
            rows.append(
                {
                    **recording.columns,
                    "path": recording.path,
                    "label": recording.label,
                    "group": recording.group,
                    "name": recording.name,
                    "item": recording.error or recording.source,
                    "tiles": None if tiles is None else str(tiles),
                }
            )
        return make_table(rows, (*self.column_names, *EXTRA_COLUMNS))


def join_recordings(parts: Sequence[Recordings]) -> Recordings:
    """Join sequences of recordings.

    Parameters
    ----------
    parts : sequence of Recordings
        The sequences, which may have different columns.

    Returns
    -------
    Recordings
        All recordings, in order.
    """
    items: list[Recording] = []
    names: dict[str, None] = {}
    for part in parts:
        items.extend(part.items)
        names.update(dict.fromkeys(part.column_names))
    return Recordings(tuple(items), tuple(names) or PUBLIC_COLUMNS)
