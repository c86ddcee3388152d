"""Recordings, labels and groups: everything users pass as X, y and groups."""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.messages import start_errors_with
from cqt2img.audio.decode import AUDIO_SUFFIXES
from cqt2img.data.manifest import (
    RECORDINGS_FILE,
    SPEC_FILE,
    read_csv,
    resolve_tile_folder,
)
from cqt2img.data.recording_tables import (
    GROUP_COLUMNS,
    group_by_column,
    read_frame,
    read_user_csv,
    with_groups,
    with_labels,
)
from cqt2img.data.recording_types import (
    PUBLIC_COLUMNS,
    Label,
    Recording,
    Recordings,
    join_recordings,
)
from cqt2img.data.tile_folder import TileSet
from cqt2img.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Label",
    "Recording",
    "Recordings",
    "RecordingsLike",
    "join_labels",
    "list_recordings",
]

log = logging.getLogger(__name__)

RecordingsLike: TypeAlias = (
    "str | os.PathLike[str] | pd.DataFrame | TileSet | Recordings | Sequence[object]"
    " | NDArray[np.generic] | pd.Series | pd.Index"
)

_SUFFIXES = AUDIO_SUFFIXES | {".npy"}
_SUFFIX_HINT = f"Supported are {', '.join(sorted(AUDIO_SUFFIXES))} and .npy."


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
            recordings = with_labels(recordings, labels)
        if groups is not None:
            given = _check_length("groups", groups, len(recordings))
            recordings = with_groups(recordings, given)
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
        frame = read_user_csv(labels, group_by)
        if "label" not in frame.columns:
            known = ", ".join(frame.columns)
            raise InputError(
                f"no column 'label' in {str(labels)!r}, only {known}. Rename the "
                "column with the labels to label."
            )
        rows = read_frame(frame, labels.parent, str(labels), group_by)
        indices = _find_rows(rows, listed, labels, _describe(X))
    if len(indices) < len(listed):
        log.warning(
            "left out %d of %d recordings that %s does not list",
            len(listed) - len(indices),
            len(listed),
            labels,
        )
    # without a group column in the csv file the groups of the folders are kept
    has_groups = group_by is not None or _has_groups(frame)
    joined = []
    for recording, row in zip(listed.select(indices), rows, strict=True):
        complete = replace(
            recording,
            label=row.label,
            group=row.group if has_groups else recording.group,
            columns={**recording.columns, **row.columns},
        )
        joined.append(complete)
    names = dict.fromkeys((*listed.column_names, *rows.column_names))
    return Recordings(tuple(joined), tuple(names))


def _has_groups(frame: "pd.DataFrame") -> bool:
    return any(name in frame.columns for name in GROUP_COLUMNS)


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
        return X if group_by is None else group_by_column(X, group_by)
    if isinstance(X, TileSet):
        return read_frame(X.recordings, X.path, str(X.path), group_by)
    if isinstance(X, pd.DataFrame):
        return read_frame(X, Path(), "X", group_by)
    if isinstance(X, (str, os.PathLike)):
        return _from_path(Path(X), group_by)
    if isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind != "O":
        raise InputError(
            "X must be a sequence of recordings, got one array of shape "
            f"{X.shape}. Write [cqt]."
        )
    if isinstance(X, (Sequence, np.ndarray, pd.Series, pd.Index)):
        parts = [_from_entry(entry, n, group_by) for n, entry in enumerate(X)]
        return join_recordings(parts)
    advice = "Write list(X)." if isinstance(X, Iterator) else "See list_recordings."
    raise InputError(
        f"X must be paths, a table or CQT arrays, got {type(X).__name__}. {advice}"
    )


def _from_entry(entry: object, index: int, group_by: str | None) -> Recordings:
    """Read one entry of a sequence: a recording, or something that contains several."""
    if isinstance(entry, Recording):
        names = dict.fromkeys((*PUBLIC_COLUMNS, *entry.columns))
        one = Recordings((entry,), tuple(names))
        return one if group_by is None else group_by_column(one, group_by)
    if isinstance(entry, np.ndarray):
        name = f"array {index}"
        array = Recording(
            path=name,
            source=entry,
            label=None,
            group=name,
            name=name,
        )
        return Recordings((array,))
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
    recording = Recording(
        path=written,
        source=path,
        label=None,
        group=os.path.abspath(path),
        name=path.name,
    )
    return Recordings((recording,))


def _from_path(path: Path, group_by: str | None) -> Recordings:
    """Read a folder of recordings or of tiles, a csv file, or one recording."""
    path = resolve_tile_folder(path)
    if path.is_dir():
        is_tile_folder = (path / SPEC_FILE).is_file()
        if is_tile_folder and (path / RECORDINGS_FILE).is_file():
            frame = read_csv(path / RECORDINGS_FILE)
            return read_frame(frame, path, str(path), group_by)
        if is_tile_folder and (path / "tiles").is_dir():
            raise InputError(
                f"unfinished tile folder: {str(path)!r} has no {RECORDINGS_FILE}. "
                "Run render again; finished recordings are kept."
            )
        return _from_folder(path, group_by)
    if not path.exists() and path.suffix.lower() not in _SUFFIXES:
        raise InputError(f"no such file or folder: {str(path)!r}. Check the spelling.")
    if path.suffix.lower() == ".csv":
        frame = read_user_csv(path, group_by)
        return read_frame(frame, path.parent, str(path), group_by)
    return _from_file(path, str(path))


def _from_folder(root: Path, group_by: str | None) -> Recordings:
    """List the recordings in a folder; subfolders are labels, the next ones groups."""
    items = []
    for path in _walk(root):
        name = path.relative_to(root)
        *folders, _ = name.parts
        group = os.path.abspath(path)
        if len(folders) > 1:
            group = "/".join(folders[:2])
        recording = Recording(
            path=str(path),
            source=path,
            label=folders[0] if folders else None,
            group=group,
            name=str(name),
        )
        items.append(recording)
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
    """Yield the recordings below a folder in sorted order, following links."""
    for folder, folders, names in os.walk(root, followlinks=True):
        followed = []
        for name in sorted(folders):
            if not name.startswith(".") and not _is_cycle(Path(folder, name)):
                followed.append(name)
        folders[:] = followed
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
