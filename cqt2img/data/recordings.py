"""What the user gives, in any of its forms, as one table with a row per recording."""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cqt2img._utils.tables import PATH_ERRORS, make_table
from cqt2img.audio.decode import AUDIO_SUFFIXES
from cqt2img.errors import AudioError, InputError

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
_SUFFIXES = AUDIO_SUFFIXES | {".npy"}
_GROUP_COLUMNS = ("group", "album", "session", "concert")
SPEC_FILE, RECORDINGS_FILE, TILES_FILE = "spec.json", "recordings.csv", "tiles.csv"


def list_recordings(
    X: Any,
    y: Sequence[Any] | None = None,
    groups: Sequence[Any] | None = None,
    group_by: str | None = None,
) -> "pd.DataFrame":
    """Turn whatever stands for recordings into one table.

    Parameters
    ----------
    X : str, Path, DataFrame, TileSet, or sequence of str, Path or ndarray
        A folder of recordings (label = the folder below it, group = the folder below that), a
        folder of tiles made by `render`, a csv file or data frame with the column `path` and
        perhaps `label`, one recording, or a sequence of these, or CQT arrays of shape
        (n_bins, n_frames) in memory or as `.npy` files.
    y : sequence, optional
        One label per recording; comes before what the folders or the table say.
    groups : sequence, optional
        One group per recording: what was recorded together; None is a group of its own.
    group_by : str, optional
        The column that names the group. By default the first of `group`, `album`, `session` and
        `concert` that is there; without any, every recording is its own group, called by its
        absolute path.

    Returns
    -------
    DataFrame
        Columns `path` (str), `label` (str or None), `group` (str), `name` (the path below the
        folder or table it came from), `item` (a Path, a CQT array, or the AudioError that
        rendering it met), `tiles` (folder of its tiles, or None), and the other columns.

    Raises
    ------
    InputError
        If nothing is found, lengths differ, a column is missing, or a file has two labels.
    """
    import pandas as pd

    if hasattr(X, "recordings"):  # a TileSet
        table = _from_frame(X.recordings, X.path, str(X.path), group_by)
    elif isinstance(X, pd.DataFrame):
        table = _from_frame(X, Path(), "X", group_by)
    elif isinstance(X, (str, os.PathLike)):
        table = _from_path(Path(X), group_by)
    elif isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind != "O":
        raise InputError(
            f"list_recordings: X must be a sequence of recordings, got one array of shape {X.shape}. Write [cqt]."
        )
    elif isinstance(X, (Sequence, np.ndarray, pd.Series, pd.Index)):
        parts = [_from_item(item, n, group_by) for n, item in enumerate(X)]
        table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    else:
        advice = "Write list(X)." if isinstance(X, Iterator) else "See its docstring."
        raise InputError(
            f"list_recordings: X must be paths, a table or CQT arrays, got {type(X).__name__}. {advice}"
        )
    if table.empty:
        raise InputError(
            f"list_recordings: X must hold recordings, got none in {_short(X)}. {_SUFFIX_HINT}"
        )
    if y is not None:
        table["label"] = pd.Series(_one_each("y", y, len(table)), dtype=object)
    places = [
        _place(item, tiles)
        for item, tiles in zip(table["item"], table["tiles"], strict=True)
    ]
    if groups is not None:
        given = pd.Series(_one_each("groups", groups, len(table)), dtype=object)
        own = [place or path for place, path in zip(places, table["path"], strict=True)]
        table["group"] = given.where(
            given.notna() & (given != ""), pd.Series(own, dtype=object)
        )
    table["label"] = table["label"].astype(object).where(table["label"].notna(), None)
    _refuse_two_labels(places, table["label"])
    return table.reset_index(drop=True)


def join_labels(X: Any, labels: Path, group_by: str | None = None) -> "pd.DataFrame":
    """List recordings with the labels and other columns of a csv file.

    Parameters
    ----------
    X : folder, csv file, or sequence of paths
        The recordings.
    labels : Path
        A csv with the columns `path` and `label`. Its paths may be as `X` lists them, below the
        folder of `X` or of the recordings that were rendered to it, or below the folder of the csv.
    group_by : str, optional
        Column that names the group.

    Returns
    -------
    DataFrame
        The recordings that the csv names, as `list_recordings` gives them.

    Raises
    ------
    InputError
        If the csv lacks a column, or names a recording that is not among those of `X`.
    """
    import pandas as pd

    table = list_recordings(X)
    frame = _read_list(labels, group_by)
    if "label" not in frame.columns:
        raise InputError(
            f"join_labels: labels must have the column label, got {', '.join(frame.columns)} in {str(labels)!r}. "
            "Name the column that holds the labels label."
        )
    given = _from_frame(frame, labels.parent, str(labels), group_by)
    places: dict[str, int] = {}
    for row, (path, name, item) in enumerate(
        zip(table["path"], table["name"], table["item"], strict=True)
    ):
        for key in (
            path,
            name,
            os.path.abspath(item) if isinstance(item, Path) else path,
        ):
            places.setdefault(str(key), row)
    rows = []
    for path, item in zip(given["path"], given["item"], strict=True):
        found = places.get(path, places.get(os.path.abspath(item)))
        if found is None:
            raise InputError(
                f"join_labels: labels must name recordings of {_short(X)}, got {path!r} in {str(labels)!r}. "
                "Write the paths as they are below that folder."
            )
        rows.append(found)
    if len(rows) < len(table):
        log.warning(
            "left out %d of %d recordings that %s does not name",
            len(table) - len(rows),
            len(table),
            labels,
        )
    where = table.iloc[rows].reset_index(drop=True)
    known = ["path", "name", "item", "tiles"]
    if group_by is None and not set(_GROUP_COLUMNS) & set(frame.columns):
        known.append(
            "group"
        )  # the csv says nothing of groups, and what the folders say stays
    own = [c for c in given.columns if c not in known]
    return pd.concat(
        [where.drop(columns=[c for c in own if c in where]), given[own]], axis=1
    )


_SUFFIX_HINT = f"Give files that end in {', '.join(sorted(AUDIO_SUFFIXES))} or .npy."


def _short(X: Any) -> str:
    return (
        repr(str(X)) if isinstance(X, (str, os.PathLike)) else f"a {type(X).__name__}"
    )


def _place(item: Any, tiles: Any) -> str | None:
    """Say where a recording lies, whichever way its path is spelled."""
    if isinstance(tiles, str):
        return tiles  # a tile folder does not know where relative paths started
    return os.path.abspath(item) if isinstance(item, Path) else None


def _one_each(word: str, values: Any, n: int) -> list[Any]:
    """Check what stands for every recording: a flat sequence as long as the table."""
    flat = isinstance(values, Iterable) and not isinstance(
        values, (str, bytes, dict, set)
    )
    flat = flat and getattr(values, "ndim", 1) == 1
    listed = list(values) if flat else []
    nested = (list, np.ndarray, tuple) if word == "y" else (list, np.ndarray)
    if not flat or any(isinstance(value, nested) for value in listed):
        raise InputError(
            f"list_recordings: {word} must be a sequence with one entry per recording, "
            f"got {type(values).__name__}{' of several per entry' if flat else ''}. Write a flat list."
        )
    if len(listed) != n:
        raise InputError(
            f"list_recordings: {word} must have one entry per recording, got {len(listed)} for {n}. "
            "Count the recordings of X."
        )
    return listed


def _refuse_two_labels(places: Sequence[str | None], labels: Iterable[Any]) -> None:
    known: dict[str, Any] = {}
    for place, label in zip(places, labels, strict=True):
        if (
            place is not None
            and label is not None
            and known.setdefault(place, label) != label
        ):
            raise InputError(
                f"list_recordings: X must give a recording one label, got {known[place]!s} and {label!s} "
                f"for {place!r}. Keep one of them."
            )


def _row(
    path: str, item: Any, name: str, label: str | None = None, group: str | None = None
) -> dict[str, Any]:
    group = group or _place(item, None) or path
    return {
        "path": path,
        "label": label,
        "group": group,
        "name": name,
        "item": item,
        "tiles": None,
    }


def _from_item(item: Any, n: int, group_by: str | None) -> "pd.DataFrame":
    """Read one entry of a sequence: a CQT array, a file, or something that holds several recordings."""
    if isinstance(item, np.ndarray):
        return make_table([_row(f"array {n}", item, f"array {n}")])
    if not isinstance(item, (str, os.PathLike)):
        raise InputError(
            f"list_recordings: X must hold paths or CQT arrays, got {type(item).__name__}. Convert its entries."
        )
    path = Path(item)
    if path.is_dir() or path.suffix.lower() == ".csv":
        return _from_path(path, group_by)
    return make_table(
        [_row(str(item), path, path.name)]
    )  # a missing file is one row with a reason, later


def _from_path(path: Path, group_by: str | None) -> "pd.DataFrame":
    """Read a folder of recordings or of tiles, a csv file, or one recording."""
    path = tile_folder(path)
    if path.is_dir():
        rendered = (path / SPEC_FILE).is_file()
        if rendered and (path / RECORDINGS_FILE).is_file():
            return _from_frame(
                read_csv(path / RECORDINGS_FILE), path, str(path), group_by
            )
        if rendered and (path / "tiles").is_dir():
            raise InputError(
                f"list_recordings: X must be a finished folder of tiles, got {str(path)!r} without {RECORDINGS_FILE}. "
                "Run render again; what is finished is not done again."
            )
        return _from_folder(path, group_by)
    if (
        not path.exists() and path.suffix.lower() not in _SUFFIXES
    ):  # a missing file is one row with a reason, later
        raise InputError(
            f"list_recordings: X must exist, got {str(path)!r}. Check the spelling of the path."
        )
    if path.suffix.lower() == ".csv":
        return _from_frame(_read_list(path, group_by), path.parent, str(path), group_by)
    return make_table([_row(str(path), path, path.name)])


def tile_folder(path: Path) -> Path:
    """Give the folder of tiles that a manifest belongs to.

    Parameters
    ----------
    path : Path
        Any path.

    Returns
    -------
    Path
        The folder, if the path is the `recordings.csv` of one, else the path itself.
    """
    return (
        path.parent
        if path.name == RECORDINGS_FILE and (path.parent / SPEC_FILE).is_file()
        else path
    )


def _is_loop(path: Path) -> bool:
    """Whether a folder is a link to one that holds it."""
    return path.is_symlink() and any(
        path.samefile(above) for above in Path(os.path.abspath(path)).parents
    )


def _from_folder(root: Path, group_by: str | None) -> "pd.DataFrame":
    """Label is the folder below the root, group is the folder below that."""
    rows = []
    for folder, folders, names in os.walk(root, followlinks=True):
        folders[:] = sorted(
            n
            for n in folders
            if not n.startswith(".") and not _is_loop(Path(folder, n))
        )
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix.lower() in _SUFFIXES and not name.startswith("."):
                parts = path.relative_to(root).parts
                label = parts[0] if len(parts) > 1 else None
                group = "/".join(parts[:2]) if len(parts) > 2 else None
                rows.append(
                    _row(str(path), path, str(path.relative_to(root)), label, group)
                )
    if not rows:
        raise InputError(
            f"list_recordings: X must hold recordings, got none below {str(root)!r}. {_SUFFIX_HINT}"
        )
    if group_by is not None:
        raise InputError(
            f"list_recordings: group_by must name a column of a table, got {group_by!r} for a folder. "
            "Give a csv with the columns path, label and that one."
        )
    return make_table(rows)


def read_csv(path: Path) -> "pd.DataFrame":
    """Read a table as text, so that a player called 007 keeps the name.

    Parameters
    ----------
    path : Path
        A csv with a header, in UTF-8.

    Returns
    -------
    DataFrame
        Python strings; what is empty is an empty one.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    import pandas as pd

    try:
        return pd.read_csv(
            path,
            dtype=object,
            keep_default_na=False,
            encoding="utf-8-sig",
            encoding_errors=PATH_ERRORS,
        )
    except (ValueError, OSError) as err:
        raise InputError(
            f"list_recordings: X must be a readable csv, got {str(path)!r}: {err}. Save it anew."
        ) from err


def _read_list(path: Path, group_by: str | None) -> "pd.DataFrame":
    """Read a table that people wrote: spaces around names are not part of them, and names must be legible."""
    import pandas as pd

    frame = read_csv(path)
    if len(frame.columns) == 1 and any(mark in frame.columns[0] for mark in ";\t"):
        raise InputError(
            f"list_recordings: X must be a csv with commas, got the header {frame.columns[0]!r} in {str(path)!r}. "
            "Separate the columns with commas."
        )
    names = [str(name).strip() for name in frame.columns]
    if len(set(names)) == len(names):
        frame.columns = pd.Index(names)
    for name in [c for c in frame.columns if c in {"label", group_by, *_GROUP_COLUMNS}]:
        values = [v.strip() if isinstance(v, str) else v for v in frame[name]]
        strange = next(
            (v for v in values if isinstance(v, str) and not _is_legible(v)), None
        )
        if strange is not None:
            raise InputError(
                f"list_recordings: {name} must be UTF-8, got {strange!r} in {str(path)!r}. Save the csv as UTF-8."
            )
        frame[name] = pd.Series(values, index=frame.index, dtype=object)
    return frame


def _is_legible(text: str) -> bool:
    return not any("\ud800" <= mark <= "\udfff" for mark in text)


def _from_frame(
    frame: "pd.DataFrame", base: Path, name: str, group_by: str | None
) -> "pd.DataFrame":
    """Read a table with the column path; relative paths start at its folder."""
    import pandas as pd

    if "path" not in frame.columns:
        raise InputError(
            f"list_recordings: X must have the column path, got {', '.join(map(str, frame.columns))} in {name!r}. "
            "Name the column that holds the files path."
        )
    if group_by is not None and group_by not in frame.columns:
        raise InputError(
            f"list_recordings: group_by must be a column, got {group_by!r} in {name!r}. "
            f"Choose one of {', '.join(map(str, frame.columns))}."
        )
    table = frame.copy().reset_index(drop=True)
    if {"item", "tiles", "name", "group", "label"} <= set(
        table.columns
    ):  # listed before
        return table
    paths = pd.Series([str(p) for p in table["path"]], dtype=object)
    group_by = group_by or next((c for c in _GROUP_COLUMNS if c in table.columns), None)
    label = table["label"].astype(object) if "label" in table.columns else None
    own = pd.Series([os.path.abspath(base / p) for p in paths], dtype=object)
    group = table[group_by].astype(object) if group_by else own
    known = group.notna() & (group != "")
    # albums of two players may share a name, and are not one session for it
    if label is not None and group_by and group_by != "group":
        names = [f"{who}/{what}" for who, what in zip(label, group, strict=True)]
    else:
        names = [str(what) for what in group]
    table["path"] = paths
    table["label"] = (
        label.where(label.notna() & (label != ""), None) if label is not None else None
    )
    table["group"] = pd.Series(names, dtype=object).where(known, own)
    table["name"] = paths
    table["item"] = [base / p for p in paths]
    if {"tiles", "status", "reason", "message"} <= set(table.columns) and (
        base / SPEC_FILE
    ).is_file():
        return _with_tiles(table, base)
    table["tiles"] = pd.Series([None] * len(table), dtype=object)
    return table


def _with_tiles(table: "pd.DataFrame", base: Path) -> "pd.DataFrame":
    """Read what only the manifest of a tile folder says: where the tiles are, and what failed."""
    import pandas as pd

    failed = table["status"] == "error"
    errors = [
        AudioError(*words)
        for words in table.loc[failed, ["reason", "message"]].itertuples(index=False)
    ]
    table.loc[failed, "item"] = pd.Series(
        errors, index=table.index[failed], dtype=object
    )
    below = [str(tiles or "").removeprefix("tiles/") for tiles in table["tiles"]]
    pairs = list(zip(table["path"], below, strict=True))
    roots = [
        path.removesuffix(name)
        for path, name in pairs
        if name and path.endswith(f"/{name}")
    ]
    root = (
        roots[0] if roots else ""
    )  # the recordings folder; what failed has no tiles, and is named below it, too
    table["name"] = pd.Series(
        [name or path.removeprefix(root) for path, name in pairs], dtype=object
    )
    table["tiles"] = pd.Series(
        [str(base / t) if t else None for t in table["tiles"]], dtype=object
    )
    return table
