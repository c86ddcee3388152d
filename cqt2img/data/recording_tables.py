"""Reading of recordings from DataFrames and csv files."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.tables import is_missing
from cqt2img.data.manifest import SPEC_FILE, read_csv
from cqt2img.data.recording_types import (
    EXTRA_COLUMNS,
    PUBLIC_COLUMNS,
    Label,
    Recording,
    Recordings,
)
from cqt2img.errors import AudioError, InputError

if TYPE_CHECKING:
    import pandas as pd

Row: TypeAlias = Mapping[str, object]

# the first of these is the default group
GROUP_COLUMNS = ("group", "album", "session", "concert")
_SEGMENT_COLUMNS = ("start", "end", "start_time", "end_time")
_MANIFEST_COLUMNS = {"tiles", "status", "reason", "message"}
_OWN_COLUMNS = {*PUBLIC_COLUMNS, *EXTRA_COLUMNS}


def read_user_csv(path: Path, group_by: str | None) -> "pd.DataFrame":
    """Read a csv file written by hand: strip its names, check that they are UTF-8.

    Parameters
    ----------
    path : Path
        A csv file with a header.
    group_by : str or None
        The column with the group.

    Returns
    -------
    DataFrame
        Text.

    Raises
    ------
    InputError
        If the file cannot be read, has no commas, or has labels or groups in another
        encoding.
    """
    import pandas as pd

    frame = read_csv(path)
    header = str(frame.columns[0])
    if len(frame.columns) == 1 and (";" in header or "\t" in header):
        raise InputError(
            "a csv file must have commas between its columns, got the header "
            f"{header!r} in {str(path)!r}. Save it with commas."
        )
    names = [str(name).strip() for name in frame.columns]
    if len(set(names)) == len(names):
        frame.columns = pd.Index(names)
    name_columns = {"label", group_by, *GROUP_COLUMNS}
    for name in name_columns & set(frame.columns):
        values = [value.strip() for value in frame[name]]
        for value in values:
            if not _is_utf8(value):
                raise InputError(
                    f"the column {name} of {str(path)!r} must be UTF-8, got {value!r}. "
                    "Save the csv file as UTF-8."
                )
        frame[name] = pd.Series(values, index=frame.index, dtype=object)
    return frame


def _is_utf8(text: str) -> bool:
    """Check that no byte of a text failed to decode."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def read_frame(
    frame: "pd.DataFrame", base: Path, name: str, group_by: str | None
) -> Recordings:
    """Read the recordings of a table with the column path.

    Parameters
    ----------
    frame : DataFrame
        A table by the user, the manifest of a tile folder, or the result of
        `Recordings.to_frame`.
    base : Path
        Folder that relative paths start from.
    name : str
        What to call the table in messages.
    group_by : str or None
        The column with the group.

    Returns
    -------
    Recordings
        One for each row.

    Raises
    ------
    InputError
        If a column is missing, or the table defines segments.
    """
    columns = list(frame.columns)
    _check_columns(columns, name, group_by)
    has_spec = (base / SPEC_FILE).is_file()
    is_manifest = has_spec and _MANIFEST_COLUMNS.issubset(columns)
    if not is_manifest:
        _check_no_segments(frame, name)
    rows = frame.to_dict("records")
    kept = [column for column in columns if column not in EXTRA_COLUMNS]
    names = tuple(dict.fromkeys((*kept, *PUBLIC_COLUMNS)))
    if _OWN_COLUMNS.issubset(columns):
        items = [_read_listed_row(row) for row in rows]
        listed = Recordings(tuple(items), names)
        return listed if group_by is None else group_by_column(listed, group_by)
    group_column = group_by or _find_group_column(columns)
    items = [_read_row(row, base, group_column) for row in rows]
    if is_manifest:
        items = _add_manifest(items, rows, base)
    return Recordings(tuple(items), names)


def _check_columns(columns: Sequence[str], name: str, group_by: str | None) -> None:
    known = ", ".join(map(str, columns))
    if "path" not in columns:
        raise InputError(
            f"no column 'path' in {name!r}, only {known}. Rename the column with the "
            "files to path."
        )
    if group_by is not None and group_by not in columns:
        raise InputError(
            f"group_by must name a column, got {group_by!r} for {name!r}. Choose one "
            f"of {known}."
        )


def _check_no_segments(frame: "pd.DataFrame", name: str) -> None:
    for column in _SEGMENT_COLUMNS:
        if column not in frame.columns:
            continue
        for value in frame[column]:
            if not is_missing(value):
                raise InputError(
                    "segments of recordings are not supported yet, got the column "
                    f"{column!r} with the value {value!r} in {name!r}. Remove the "
                    "column to use whole recordings."
                )


def _find_group_column(columns: Iterable[str]) -> str | None:
    for name in GROUP_COLUMNS:
        if name in columns:
            return name
    return None


def _read_row(row: Row, base: Path, group_column: str | None) -> Recording:
    """Read a row of a table by the user, or of a manifest."""
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
        label=None if is_missing(label) else to_label(label),
        group=group,
        name=path,
        columns=_further_columns(row),
    )


def _name_group(label: object, album: str) -> str:
    """Name an album; two labels may have albums of the same name."""
    return f"{label}/{album}"


def _further_columns(row: Row) -> dict[str, object]:
    further = {}
    for name, value in row.items():
        if name not in _OWN_COLUMNS:
            further[name] = value
    return further


def _read_listed_row(row: Row) -> Recording:
    """Read a row of `Recordings.to_frame`."""
    item = row["item"]
    tiles = row["tiles"]
    path = str(row["path"])
    source: Path | NDArray[np.generic] = Path(path)
    if isinstance(item, (Path, np.ndarray)):
        source = item
    return Recording(
        path=path,
        source=source,
        label=to_label(row["label"]),
        group=str(row["group"]),
        name=str(row["name"]),
        tiles=None if is_missing(tiles) else Path(str(tiles)),
        error=item if isinstance(item, AudioError) else None,
        columns=_further_columns(row),
    )


def _add_manifest(
    items: Sequence[Recording], rows: Sequence[Row], base: Path
) -> list[Recording]:
    """Add what the manifest of a tile folder contains: tiles, errors and names."""
    root = _find_root(items, rows)
    found = []
    for recording, row in zip(items, rows, strict=True):
        tiles = str(row["tiles"] or "")
        name = _name_in_manifest(row)
        error = None
        if row["status"] == "error":
            error = AudioError(str(row["reason"]), str(row["message"]))
        complete = replace(
            recording,
            name=name or recording.path.removeprefix(root),
            tiles=base / tiles if tiles else None,
            error=error,
        )
        found.append(complete)
    return found


def _name_in_manifest(row: Row) -> str:
    """Return the folder of the tiles below `tiles`; empty for failed recordings."""
    return str(row["tiles"] or "").removeprefix("tiles/")


def _find_root(items: Sequence[Recording], rows: Sequence[Row]) -> str:
    """Return the folder that was rendered, from the paths and names of recordings."""
    for recording, row in zip(items, rows, strict=True):
        name = _name_in_manifest(row)
        if name and recording.path.endswith(f"/{name}"):
            return recording.path.removesuffix(name)
    return ""


def group_by_column(recordings: Recordings, group_by: str) -> Recordings:
    """Take the groups from a column.

    Parameters
    ----------
    recordings : Recordings
        The recordings.
    group_by : str
        The column.

    Returns
    -------
    Recordings
        With the groups that reading the table with `group_by` results in.

    Raises
    ------
    InputError
        If there is no such column.
    """
    if group_by not in recordings.column_names:
        known = ", ".join(map(str, recordings.column_names))
        raise InputError(
            f"group_by must name a column, got {group_by!r}. Choose one of {known}."
        )
    groups: list[object] = []
    values = recordings.column(group_by)
    for recording, value in zip(recordings, values, strict=True):
        if group_by == "group" or is_missing(value):
            groups.append(value)
        else:
            groups.append(_name_group(recording.label, str(value)))
    return with_groups(recordings, groups)


def with_groups(recordings: Recordings, groups: Sequence[object]) -> Recordings:
    """Replace the groups.

    Parameters
    ----------
    recordings : Recordings
        The recordings.
    groups : sequence
        One group per recording; one that is missing makes the recording a group of
        its own.

    Returns
    -------
    Recordings
        With these groups, as text.
    """
    items = []
    for recording, group in zip(recordings, groups, strict=True):
        name = str(group)
        if is_missing(group):
            name = recording.location or recording.path
        items.append(replace(recording, group=name))
    return replace(recordings, items=tuple(items))


def with_labels(recordings: Recordings, labels: Sequence[object]) -> Recordings:
    """Replace the labels.

    Parameters
    ----------
    recordings : Recordings
        The recordings.
    labels : sequence
        One label per recording, or None.

    Returns
    -------
    Recordings
        With these labels.
    """
    items = []
    for recording, label in zip(recordings, labels, strict=True):
        items.append(replace(recording, label=to_label(label)))
    return replace(recordings, items=tuple(items))


def to_label(value: object) -> Label | None:
    """Return a value of a table as a label.

    Parameters
    ----------
    value : object
        The value.

    Returns
    -------
    str, int, float, bool or None
        None for None, NaN, NaT and `pandas.NA`.
    """
    if is_missing(value) and value != "":
        return None
    return value  # type: ignore[return-value]
