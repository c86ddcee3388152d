"""Recordings, labels and groups: everything users pass as X, y and groups, as one type."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cqt2img._utils.tables import is_missing, make_table
from cqt2img.audio.decode import AUDIO_SUFFIXES
from cqt2img.data.manifest import (
    RECORDINGS_FILE,
    SPEC_FILE,
    read_csv,
    resolve_tile_folder,
)
from cqt2img.data.tile_folder import TileSet
from cqt2img.errors import AudioError, InputError

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

Label: TypeAlias = str | int | float | bool
RecordingsLike: TypeAlias = (
    "str | os.PathLike[str] | pd.DataFrame | TileSet | Recordings | Sequence[object]"
    " | NDArray[np.generic] | pd.Series | pd.Index"
)

_SUFFIXES = AUDIO_SUFFIXES | {".npy"}
_SUFFIX_HINT = f"Supported are {', '.join(sorted(AUDIO_SUFFIXES))} and .npy."
_GROUP_COLUMNS = ("group", "album", "session", "concert")
_SEGMENT_COLUMNS = ("start", "end", "start_time", "end_time")
# columns of Recordings.to_frame
_PUBLIC_COLUMNS = ("path", "label", "group")
_FRAME_COLUMNS = ("name", "item", "tiles")


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
    """

    items: tuple[Recording, ...]
    column_names: tuple[str, ...] = _PUBLIC_COLUMNS

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        return f"<Recordings: {len(self)}, columns {', '.join(map(str, self.column_names))}>"

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
        names = dict.fromkeys((*self.column_names, *other.column_names))
        return Recordings((*self.items, *other.items), tuple(names))

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
            raise InputError(
                f"no such column: {name!r}. Choose one of {_join(self.column_names)}."
            )
        if name in _PUBLIC_COLUMNS:
            return [getattr(recording, name) for recording in self.items]
        return [recording.columns.get(name) for recording in self.items]

    def select(self, indices: ArrayLike) -> "Recordings":
        """Select recordings.

        Parameters
        ----------
        indices : array-like of int or bool
            Positions of the recordings, or a mask with one entry per recording.

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
            row: dict[str, object] = dict(recording.columns)
            row["path"] = recording.path
            row["label"] = recording.label
            row["group"] = recording.group
            row["name"] = recording.name
            row["item"] = recording.error or recording.source
            row["tiles"] = None if recording.tiles is None else str(recording.tiles)
            rows.append(row)
        return make_table(rows, (*self.column_names, *_FRAME_COLUMNS))


def list_recordings(
    X: RecordingsLike,
    y: Iterable[Label] | None = None,
    groups: Iterable[object] | None = None,
    group_by: str | None = None,
    *,
    caller: str | None = None,
) -> Recordings:
    """List the recordings that `X` contains.

    Parameters
    ----------
    X : str, Path, DataFrame, TileSet, Recordings, or sequence of str, Path or ndarray
        A folder of recordings (label = the folder below it, group = the folder below
        that), a tile folder made by `render`, a csv file or DataFrame with the column
        `path` and optionally `label`, one recording, or a sequence of these, or CQT
        arrays of shape (n_bins, n_frames) in memory or as `.npy` files.
    y : sequence, optional
        One label per recording; replaces the labels of folders and tables.
    groups : sequence, optional
        One group per recording (album, session, concert); None makes the recording a
        group of its own. Replaces the groups of folders and tables.
    group_by : str, optional
        The column with the group. By default the first of `group`, `album`, `session`
        and `concert` that exists; if none exists, every recording is a group of its
        own, named by its absolute path.
    caller : str, optional
        Public method or command that error messages start with.

    Returns
    -------
    Recordings
        The recordings, in the order of `X`.

    Raises
    ------
    InputError
        If nothing is found, lengths differ, a column is missing, a table defines
        segments, or a file has two labels.
    """
    with start_errors_with(caller, argument="X"):
        recordings = _read(X, group_by)
        if not recordings:
            raise InputError(f"no recordings in {_describe(X)}. {_SUFFIX_HINT}")
    with start_errors_with(caller):
        if y is not None:
            labels = _check_length("y", y, len(recordings))
            recordings = _with_labels(recordings, labels)
        if groups is not None:
            given = _check_length("groups", groups, len(recordings))
            recordings = _with_groups(recordings, given)
        _check_one_label_each(recordings)
    return recordings


def join_labels(
    X: RecordingsLike,
    labels: Path,
    group_by: str | None = None,
    *,
    caller: str | None = None,
) -> Recordings:
    """List recordings with the labels and further columns of a csv file.

    Parameters
    ----------
    X : folder, csv file, or sequence of paths
        The recordings.
    labels : Path
        A csv file with the columns `path` and `label`. Its paths may be written as `X`
        lists them, or relative to the folder of `X`, to the folder of the recordings
        that were rendered to it, or to the folder of the csv file.
    group_by : str, optional
        The column with the group.
    caller : str, optional
        Public method or command that error messages start with.

    Returns
    -------
    Recordings
        The recordings that the csv file lists, in its order.

    Raises
    ------
    InputError
        If the csv file lacks a column, or lists a recording that `X` does not contain.
    """
    listed = list_recordings(X, caller=caller)
    with start_errors_with(caller, argument="labels"):
        frame = _read_user_csv(labels, group_by)
        if "label" not in frame.columns:
            raise InputError(
                f"no column 'label' in {str(labels)!r}, only {_join(frame.columns)}. "
                "Rename the column with the labels to label."
            )
        rows = _from_frame(frame, labels.parent, str(labels), group_by)
        indices = _find_rows(rows, listed, labels, _describe(X))
    if len(indices) < len(listed):
        log.warning(
            "left out %d of %d recordings that %s does not list",
            len(listed) - len(indices),
            len(listed),
            labels,
        )
    # without a group column in the csv file the groups of the folders are kept
    has_groups = group_by is not None or bool(set(_GROUP_COLUMNS) & set(frame.columns))
    found = listed.select(indices)
    joined = [
        replace(
            recording,
            label=row.label,
            group=row.group if has_groups else recording.group,
            columns={**recording.columns, **row.columns},
        )
        for recording, row in zip(found, rows, strict=True)
    ]
    names = dict.fromkeys((*listed.column_names, *rows.column_names))
    return Recordings(tuple(joined), tuple(names))


@contextmanager
def start_errors_with(caller: str | None, argument: str = "") -> Iterator[None]:
    """Start the messages of input errors with the public method that was called.

    Parameters
    ----------
    caller : str or None
        The method or command, such as "fit".
    argument : str, optional
        The argument that messages start with if there is no caller.
    """
    try:
        yield
    except InputError as error:
        message = str(error)
        if caller is not None:
            error.args = (f"{caller}: {message}",)
        elif not message.startswith(argument):
            error.args = (f"{argument}: {message}",)
        raise


def _find_rows(
    rows: Recordings, listed: Recordings, labels: Path, where: str
) -> list[int]:
    """Return the index in `listed` of each row of a csv file."""
    indices: dict[str, int] = {}
    for index, recording in enumerate(listed):
        keys = [recording.path, recording.name]
        if recording.error is None and isinstance(recording.source, Path):
            keys.append(os.path.abspath(recording.source))
        for key in keys:
            indices.setdefault(key, index)
    found = []
    for row in rows:
        file = os.path.abspath(str(row.source))
        key = row.path if row.path in indices else file
        if key not in indices:
            raise InputError(
                f"no such recording in {where}: {row.path!r} of {str(labels)!r}. "
                "Write the paths relative to that folder."
            )
        found.append(indices[key])
    return found


def _join(names: Iterable[object]) -> str:
    return ", ".join(map(str, names))


def _describe(X: object) -> str:
    if isinstance(X, (str, os.PathLike)):
        return repr(os.fspath(X))
    return f"a {type(X).__name__}"


def _check_length(argument: str, values: Iterable[object], n: int) -> list[object]:
    """Check that an argument is a flat sequence with one entry per recording."""
    is_flat = isinstance(values, Iterable)
    is_flat = is_flat and not isinstance(values, (str, bytes, dict, set))
    is_flat = is_flat and getattr(values, "ndim", 1) == 1
    listed = list(values) if is_flat else []
    # a group may be a tuple, such as (player, album)
    nested = (list, np.ndarray, tuple) if argument == "y" else (list, np.ndarray)
    is_nested = any(isinstance(value, nested) for value in listed)
    if not is_flat or is_nested:
        kind = type(values).__name__
        got = f"{kind} with several values per entry" if is_nested else kind
        raise InputError(
            f"{argument} must be a sequence with one entry per recording, got {got}. "
            "Pass a flat list."
        )
    if len(listed) != n:
        raise InputError(
            f"{argument} must have one entry per recording, got {len(listed)} for {n} "
            "recordings. Compare it with X."
        )
    return listed


def _with_labels(recordings: Recordings, labels: Sequence[object]) -> Recordings:
    items = []
    for recording, label in zip(recordings, labels, strict=True):
        items.append(replace(recording, label=_to_label(label)))
    return replace(recordings, items=tuple(items))


def _with_groups(recordings: Recordings, groups: Sequence[object]) -> Recordings:
    items = []
    for recording, group in zip(recordings, groups, strict=True):
        name = str(group)
        if is_missing(group):
            name = recording.location or recording.path
        items.append(replace(recording, group=name))
    return replace(recordings, items=tuple(items))


def _to_label(value: object) -> Label | None:
    if is_missing(value) and value != "":
        return None
    return value  # type: ignore[return-value]


def _check_one_label_each(recordings: Recordings) -> None:
    known: dict[str, Label] = {}
    for recording in recordings:
        location = recording.location
        if location is None or recording.label is None:
            continue
        label = known.setdefault(location, recording.label)
        if label != recording.label:
            raise InputError(
                f"a recording must have one label, got {label!s} and "
                f"{recording.label!s} for {location!r}. Remove one of them."
            )


def _read(X: RecordingsLike, group_by: str | None) -> Recordings:
    import pandas as pd

    if isinstance(X, Recordings):
        return X if group_by is None else _group_by_column(X, group_by)
    if isinstance(X, TileSet):
        return _from_frame(X.recordings, X.path, str(X.path), group_by)
    if isinstance(X, pd.DataFrame):
        return _from_frame(X, Path(), "X", group_by)
    if isinstance(X, (str, os.PathLike)):
        return _from_path(Path(X), group_by)
    if isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind != "O":
        raise InputError(
            "X must be a sequence of recordings, got one array of shape "
            f"{X.shape}. Write [cqt]."
        )
    if isinstance(X, (Sequence, np.ndarray, pd.Series, pd.Index)):
        recordings = Recordings(())
        parts = [_from_entry(entry, n, group_by) for n, entry in enumerate(X)]
        return _concatenate(parts) if parts else recordings
    advice = "Write list(X)." if isinstance(X, Iterator) else "See list_recordings."
    raise InputError(
        f"X must be paths, a table or CQT arrays, got {type(X).__name__}. {advice}"
    )


def _concatenate(parts: Sequence[Recordings]) -> Recordings:
    items = [recording for part in parts for recording in part]
    names = dict.fromkeys(name for part in parts for name in part.column_names)
    return Recordings(tuple(items), tuple(names))


def _from_entry(entry: object, index: int, group_by: str | None) -> Recordings:
    """Read one entry of a sequence: a recording, or something that contains several."""
    if isinstance(entry, Recording):
        one = Recordings(
            (entry,), tuple(dict.fromkeys((*_PUBLIC_COLUMNS, *entry.columns)))
        )
        return one if group_by is None else _group_by_column(one, group_by)
    if isinstance(entry, np.ndarray):
        name = f"array {index}"
        return Recordings((Recording(name, entry, None, name, name),))
    if not isinstance(entry, (str, os.PathLike)):
        raise InputError(
            f"X must contain paths or CQT arrays, got {type(entry).__name__}. "
            "Convert its entries."
        )
    path = Path(entry)
    if path.is_dir() or path.suffix.lower() == ".csv":
        return _from_path(path, group_by)
    return _from_file(path, str(entry))  # a missing file is reported when it is read


def _from_file(path: Path, written: str) -> Recordings:
    group = os.path.abspath(path)
    return Recordings((Recording(written, path, None, group, path.name),))


def _from_path(path: Path, group_by: str | None) -> Recordings:
    """Read a folder of recordings or of tiles, a csv file, or one recording."""
    path = resolve_tile_folder(path)
    if path.is_dir():
        is_tile_folder = (path / SPEC_FILE).is_file()
        if is_tile_folder and (path / RECORDINGS_FILE).is_file():
            frame = read_csv(path / RECORDINGS_FILE)
            return _from_frame(frame, path, str(path), group_by)
        if is_tile_folder and (path / "tiles").is_dir():
            raise InputError(
                f"unfinished tile folder: {str(path)!r} has no {RECORDINGS_FILE}. "
                "Run render again; finished recordings are kept."
            )
        return _from_folder(path, group_by)
    if not path.exists() and path.suffix.lower() not in _SUFFIXES:
        raise InputError(f"no such file or folder: {str(path)!r}. Check the spelling.")
    if path.suffix.lower() == ".csv":
        frame = _read_user_csv(path, group_by)
        return _from_frame(frame, path.parent, str(path), group_by)
    return _from_file(path, str(path))


def _from_folder(root: Path, group_by: str | None) -> Recordings:
    """List the recordings below a folder; folders are labels, folders in them groups."""
    items = []
    for path in _walk(root):
        name = path.relative_to(root)
        label = name.parts[0] if len(name.parts) > 1 else None
        group = os.path.abspath(path)
        if len(name.parts) > 2:
            group = "/".join(name.parts[:2])
        items.append(Recording(str(path), path, label, group, str(name)))
    if not items:
        raise InputError(f"no recordings in {str(root)!r}. {_SUFFIX_HINT}")
    if group_by is not None:
        raise InputError(
            f"group_by must name a column of a table, got {group_by!r} for the folder "
            f"{str(root)!r}. Pass a csv file with the columns path, label and "
            f"{group_by}."
        )
    return Recordings(tuple(items))


def _walk(root: Path) -> Iterator[Path]:
    """Yield the recordings below a folder in sorted order; symbolic links are followed."""
    for folder, folders, names in os.walk(root, followlinks=True):
        visible = [name for name in folders if not name.startswith(".")]
        folders[:] = sorted(n for n in visible if not _is_cycle(Path(folder, n)))
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix.lower() in _SUFFIXES and not name.startswith("."):
                yield path


def _is_cycle(path: Path) -> bool:
    """Check whether a folder is a symbolic link to one of its parents."""
    if not path.is_symlink():
        return False
    parents = Path(os.path.abspath(path)).parents
    return any(path.samefile(parent) for parent in parents)


def _read_user_csv(path: Path, group_by: str | None) -> "pd.DataFrame":
    """Read a csv file written by hand: strip names, and check that they are UTF-8."""
    import pandas as pd

    frame = read_csv(path)
    header = str(frame.columns[0])
    if len(frame.columns) == 1 and any(mark in header for mark in ";\t"):
        raise InputError(
            f"a csv file must have commas between its columns, got the header "
            f"{header!r} in {str(path)!r}. Save it with commas."
        )
    names = [str(name).strip() for name in frame.columns]
    if len(set(names)) == len(names):
        frame.columns = pd.Index(names)
    for name in {"label", group_by, *_GROUP_COLUMNS} & set(frame.columns):
        values = [value.strip() for value in frame[name]]
        unreadable = next((value for value in values if not _is_utf8(value)), None)
        if unreadable is not None:
            raise InputError(
                f"the column {name} of {str(path)!r} must be UTF-8, got "
                f"{unreadable!r}. Save the csv file as UTF-8."
            )
        frame[name] = pd.Series(values, index=frame.index, dtype=object)
    return frame


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= mark <= "\udfff" for mark in text)


def _from_frame(
    frame: "pd.DataFrame", base: Path, name: str, group_by: str | None
) -> Recordings:
    """Read a table with the column path; relative paths start at `base`."""
    columns = list(frame.columns)
    if "path" not in columns:
        raise InputError(
            f"no column 'path' in {name!r}, only {_join(columns)}. Rename the column "
            "with the files to path."
        )
    if group_by is not None and group_by not in columns:
        raise InputError(
            f"group_by must name a column, got {group_by!r} for {name!r}. Choose one "
            f"of {_join(columns)}."
        )
    is_manifest = {"tiles", "status", "reason", "message"} <= set(columns)
    is_manifest = is_manifest and (base / SPEC_FILE).is_file()
    if not is_manifest:
        _check_no_segments(frame, name)
    rows = frame.to_dict("records")
    kept = [column for column in columns if column not in _FRAME_COLUMNS]
    names = tuple(dict.fromkeys((*kept, *_PUBLIC_COLUMNS)))
    if {*_PUBLIC_COLUMNS, *_FRAME_COLUMNS} <= set(columns):
        items = [_from_listed_row(row) for row in rows]
        listed = Recordings(tuple(items), names)
        return listed if group_by is None else _group_by_column(listed, group_by)
    column = group_by or next((c for c in _GROUP_COLUMNS if c in columns), None)
    items = [_from_row(row, base, column) for row in rows]
    if is_manifest:
        items = _add_manifest(items, rows, base)
    return Recordings(tuple(items), names)


def _check_no_segments(frame: "pd.DataFrame", name: str) -> None:
    for column in _SEGMENT_COLUMNS:
        if column not in frame.columns:
            continue
        values = [value for value in frame[column] if not is_missing(value)]
        if values:
            raise InputError(
                f"segments of recordings are not supported yet, got the column "
                f"{column!r} with the value {values[0]!r} in {name!r}. Remove the "
                "column to use whole recordings."
            )


def _further_columns(row: Mapping[str, object]) -> dict[str, object]:
    own = (*_PUBLIC_COLUMNS, *_FRAME_COLUMNS)
    return {name: value for name, value in row.items() if name not in own}


def _from_row(
    row: Mapping[str, object], base: Path, group_column: str | None
) -> Recording:
    path = str(row["path"])
    label = row.get("label")
    group = os.path.abspath(base / path)
    if group_column is not None and not is_missing(row[group_column]):
        group = str(row[group_column])
        if group_column != "group" and "label" in row:
            group = _name_group(label, group)
    return Recording(
        path=path,
        source=base / path,
        label=None if is_missing(label) else _to_label(label),
        group=group,
        name=path,
        columns=_further_columns(row),
    )


def _name_group(label: object, album: str) -> str:
    """Name an album; two labels may have albums of the same name."""
    return f"{label}/{album}"


def _group_by_column(recordings: Recordings, group_by: str) -> Recordings:
    if group_by not in recordings.column_names:
        raise InputError(
            f"group_by must name a column, got {group_by!r}. Choose one of "
            f"{_join(recordings.column_names)}."
        )
    values = recordings.column(group_by)
    groups: list[object] = []
    for recording, value in zip(recordings, values, strict=True):
        if group_by == "group" or is_missing(value):
            groups.append(value)
        else:
            groups.append(_name_group(recording.label, str(value)))
    return _with_groups(recordings, groups)


def _from_listed_row(row: Mapping[str, object]) -> Recording:
    """Read a row of `Recordings.to_frame`."""
    item = row["item"]
    tiles = row["tiles"]
    path = str(row["path"])
    return Recording(
        path=path,
        source=item if isinstance(item, (Path, np.ndarray)) else Path(path),
        label=_to_label(row["label"]),
        group=str(row["group"]),
        name=str(row["name"]),
        tiles=None if is_missing(tiles) else Path(str(tiles)),
        error=item if isinstance(item, AudioError) else None,
        columns=_further_columns(row),
    )


def _add_manifest(
    items: Sequence[Recording], rows: Sequence[Mapping[str, object]], base: Path
) -> list[Recording]:
    """Add what the manifest of a tile folder contains: tiles, errors and names."""
    folders = [str(row["tiles"] or "") for row in rows]
    names = [folder.removeprefix("tiles/") for folder in folders]
    # failed recordings have no tiles: their names are relative to the same root
    root = ""
    for recording, name in zip(items, names, strict=True):
        if name and recording.path.endswith(f"/{name}"):
            root = recording.path.removesuffix(name)
            break
    found = []
    for recording, row, folder, name in zip(items, rows, folders, names, strict=True):
        error = None
        if row["status"] == "error":
            error = AudioError(str(row["reason"]), str(row["message"]))
        found.append(
            replace(
                recording,
                name=name or recording.path.removeprefix(root),
                tiles=base / folder if folder else None,
                error=error,
            )
        )
    return found
