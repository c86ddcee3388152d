"""Rendering of recordings to a folder of tiles with a manifest."""

import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from cqt2img._utils.files import disk_full_error, folder_lock, write_atomic
from cqt2img._utils.hashing import hash_bytes
from cqt2img._utils.messages import start_errors_with
from cqt2img._utils.parallel import run_parallel
from cqt2img._utils.progress import Progress
from cqt2img._utils.tables import PATH_ERRORS, make_table
from cqt2img.data.extraction import without_columns
from cqt2img.data.manifest import RECORDINGS_FILE, SPEC_FILE, TILES_FILE, read_csv
from cqt2img.data.recordings import (
    Recording,
    Recordings,
    RecordingsLike,
    list_recordings,
)
from cqt2img.data.specs import as_spec
from cqt2img.data.tile_folder import TileSet, convert_numbers
from cqt2img.errors import AudioError, InputError
from cqt2img.tiles.extract import (
    RECORD_FILE,
    RecordingInfo,
    TileBlocks,
    try_extract,
)
from cqt2img.tiles.png import write_tile
from cqt2img.tiles.spec import TileSpec

if TYPE_CHECKING:
    import pandas as pd

_TILE_COLUMNS = (
    "tile",
    "path",
    "label",
    "group",
    "index",
    "start_seconds",
    "valid_width",
)
Row: TypeAlias = Mapping[str, object]


class _Rendered(NamedTuple):
    """A finished recording: its columns in the manifest, and a row for each tile."""

    info: Row
    tiles: Sequence[Row]


def render(
    X: RecordingsLike,
    out: str | os.PathLike[str],
    spec: TileSpec | str = "piano",
    n_jobs: int = 1,
    group_by: str | None = None,
    progress: Progress | None = None,
    timeout: float = 600.0,
) -> TileSet:
    """Render recordings to tiles, one PNG per few seconds, with a manifest.

    Recordings that are finished in `out` and unchanged since are not rendered again.

    Parameters
    ----------
    X : folder, csv file, DataFrame, or sequence of paths or CQT arrays
        See `cqt2img.data.recordings.list_recordings`.
    out : str or Path
        Folder for the tiles; created if it does not exist.
    spec : TileSpec or str
        The meaning of a pixel, or the name of a preset.
    n_jobs : int
        Number of processes, as in joblib; -1 uses every core.
    group_by : str, optional
        Column of a table with the group (album, session, concert).
    progress : callable, optional
        Called with an iterator, its length and a title; returns the iterator.
    timeout : float
        Seconds that one recording may take, above 0. Ignored with `n_jobs=1`, which
        runs in this process.

    Returns
    -------
    TileSet
        The folder, with one row per recording, whether it could be rendered or not.

    Raises
    ------
    InputError
        If no recording is found, `out` contains tiles of another spec, or the disk is
        full.
    KeyboardInterrupt
        After Ctrl-C, when the recordings in progress are finished; after a second
        Ctrl-C, at once.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> spec = TileSpec.preset("fast")
    >>> cqt = np.random.default_rng(0).random((96, 300))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tiles = render([cqt, cqt[:, :0]], folder, spec)
    >>> tiles.recordings[["status", "reason", "n_tiles"]].values.tolist()
    [['ok', '', 3], ['error', 'too_short', 0]]
    """
    out = Path(out)
    with start_errors_with("render"), disk_full_error("render", out):
        spec = as_spec(spec)
        recordings = list_recordings(X, group_by=group_by, caller="render")
        _check_folder(out, spec)
        _check_nothing_is_dropped(out, recordings.paths)
        out.mkdir(parents=True, exist_ok=True)
        with folder_lock(out):
            # within the lock, or a concurrent run would remove the unfinished file
            _write_spec(out, spec)
            names = _name_folders(recordings.names)
            results = run_parallel(
                _render_one,
                _list_jobs(recordings, names, spec, out),
                len(recordings),
                n_jobs=n_jobs,
                progress=progress,
                title="rendering",
                timeout=timeout,
            )
            rendered = list(results)
            table = _make_recording_table(recordings, names, rendered)
            tile_table = _make_tile_table(recordings, names, rendered)
            _write_table(out / RECORDINGS_FILE, table)
            _write_table(out / TILES_FILE, tile_table)
            return TileSet(out, spec, table, tile_table)


def _list_jobs(
    recordings: Recordings, names: Sequence[str], spec: TileSpec, out: Path
) -> Iterator[tuple[Recording, TileSpec, Path, str]]:
    for recording, name in zip(without_columns(recordings), names, strict=True):
        yield recording, spec, out, name


def _make_recording_table(
    recordings: Recordings, names: Sequence[str], rendered: Sequence[_Rendered]
) -> "pd.DataFrame":
    """Make the manifest: the columns that were passed, then what was measured."""
    rows = []
    for recording, name, one in zip(recordings, names, rendered, strict=True):
        given: dict[str, object] = {**recording.columns, **_describe(recording)}
        row: dict[str, object] = {}
        for column in recordings.column_names:
            row[column] = given.get(column, np.nan)
        row.update(one.info)
        row["tiles"] = _folder_of_tiles(name) if one.tiles else ""
        rows.append(row)
    table = make_table(rows)
    convert_numbers(table)
    return table


def _make_tile_table(
    recordings: Recordings, names: Sequence[str], rendered: Sequence[_Rendered]
) -> "pd.DataFrame":
    """Make the table of tiles."""
    rows = []
    for recording, name, one in zip(recordings, names, rendered, strict=True):
        for tile in one.tiles:
            row = {**_describe(recording), **tile}
            row["tile"] = f"{_folder_of_tiles(name)}/{tile['file']}"
            rows.append(row)
    table = make_table(rows, columns=_TILE_COLUMNS)
    convert_numbers(table)
    return table


def _describe(recording: Recording) -> dict[str, object]:
    return {
        "path": recording.path,
        "label": recording.label,
        "group": recording.group,
    }


def _folder_of_tiles(name: str) -> str:
    """Return the folder of the tiles of a recording, relative to the tile folder."""
    return f"tiles/{name}"


def _write_table(path: Path, table: "pd.DataFrame") -> None:
    write = partial(table.to_csv, index=False, errors=PATH_ERRORS)
    write_atomic(path, write)


def _check_folder(out: Path, spec: TileSpec) -> None:
    """Check that the folder is new, empty, or a tile folder of the same spec."""
    if out.exists() and not out.is_dir():
        raise InputError(
            f"out must be a folder, got the file {str(out)!r}. Choose another name."
        )
    spec_file = out / SPEC_FILE
    others = []
    if out.is_dir():
        others = [path for path in out.iterdir() if not path.name.startswith(".")]
    # after the list of others, which a concurrent run creates after the spec file
    if spec_file.is_file():
        found = TileSpec.preset(spec_file)
        if found.key != spec.key:
            raise InputError(
                f"out must hold tiles of spec {spec.key}, got {str(out)!r} of "
                f"spec {found.key}. Choose another folder, or the same preset."
            )
        return
    if others:
        raise InputError(
            f"out must be new, empty or a tile folder, got {str(out)!r}. "
            "Choose another folder."
        )


def _write_spec(out: Path, spec: TileSpec) -> None:
    """Mark the folder as a tile folder before anything else is written to it."""
    _check_folder(out, spec)  # a concurrent run may have been faster
    spec_file = out / SPEC_FILE
    if not spec_file.is_file():
        text = spec.to_json()
        write_atomic(spec_file, lambda part: part.write_text(text, encoding="utf-8"))
    (out / "tiles").mkdir(exist_ok=True)


def _check_nothing_is_dropped(out: Path, paths: Sequence[str]) -> None:
    """Check that the manifest would not lose recordings that still exist."""
    if not (out / RECORDINGS_FILE).is_file():
        return
    known = set(paths)
    before = read_csv(out / RECORDINGS_FILE)["path"]
    dropped = [path for path in before if path not in known and os.path.exists(path)]
    if dropped:
        raise InputError(
            f"X must hold all recordings of the tile folder {str(out)!r}, got "
            f"none of {len(dropped)} such as {dropped[0]!r}. Choose another folder, or "
            "pass all recordings at once."
        )


def _name_folders(names: Sequence[str]) -> list[str]:
    """Return a unique folder below `tiles` for each recording, named after it."""
    chosen: list[str] = []
    seen: set[str] = set()
    # a folder of tiles must not contain another one: it is replaced as a whole
    parents: set[str] = set()
    for name in names:
        path = Path(name)
        parts = [p for p in path.parts if p not in (path.anchor, "..", ".", "")]
        top, *rest = parts or ["_"]
        # a file name may have 255 bytes already
        short = os.fsencode(top)[:240].decode(errors="ignore")
        for n in itertools.count(1):
            unique = "/".join([top if n == 1 else f"{short}~{n}", *rest])
            above = {str(folder) for folder in Path(unique).parents}
            if unique not in seen and unique not in parents and not above & seen:
                break
        seen.add(unique)
        parents |= above
        chosen.append(unique)
    return chosen


def _make_stamp(recording: Recording, spec: TileSpec) -> list[str | int]:
    """Return what must be unchanged for a finished recording to stay finished."""
    source = recording.source
    if recording.tiles is not None:
        source = recording.tiles / RECORD_FILE
    elif recording.error is not None:
        return []
    if isinstance(source, np.ndarray):
        data = np.ascontiguousarray(source).tobytes()
        return [spec.key, "array", hash_bytes([data])]
    try:
        stat = os.stat(source)
    except (OSError, ValueError):
        return []
    return [spec.key, os.fspath(source), stat.st_size, stat.st_mtime_ns]


def _render_one(
    recording: Recording | AudioError, spec: TileSpec, out: Path, name: str
) -> _Rendered:
    """Render one recording into its folder, completely or not at all."""
    target = out / "tiles" / name
    if isinstance(recording, AudioError):  # its worker process died
        _remove_folder(target, out / "tiles")
        return _Rendered(_manifest_columns(RecordingInfo.from_error(recording), 0), [])
    stamp = _make_stamp(recording, spec)
    finished = _read_finished(target, stamp)
    if finished is not None:
        return finished
    (out / "tiles").mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=out / "tiles"))
    try:
        rendered = _write_recording(recording, spec, part)
        # tiles of an earlier state of this recording
        _remove_folder(target, out / "tiles")
        if rendered.info["status"] != "ok":
            return rendered
        record = {"stamp": stamp, "info": rendered.info, "tiles": rendered.tiles}
        (part / RECORD_FILE).write_text(json.dumps(record), encoding="utf-8")
        part.chmod(0o755)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(part, target)
        except OSError:  # a concurrent run into the same folder was faster
            finished = _read_finished(target, stamp)
            if finished is None:
                raise
            return finished
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return rendered


def _write_recording(recording: Recording, spec: TileSpec, part: Path) -> _Rendered:
    """Write the tiles of one recording into a temporary folder."""
    if recording.error is not None:
        info = RecordingInfo.from_error(recording.error)
        return _Rendered(_manifest_columns(info, 0), [])
    source = "array"
    if isinstance(recording.source, Path):
        source = os.fspath(recording.source)

    def write(blocks: TileBlocks, info: RecordingInfo) -> list[Row]:
        return _write_tiles(part, spec, source, blocks, info)

    rows, info = try_extract(
        recording.source, spec, recording.tiles, write, scratch=part
    )
    tiles = rows or []
    return _Rendered(_manifest_columns(info, len(tiles)), tiles)


def _manifest_columns(info: RecordingInfo, n_tiles: int) -> Row:
    columns: dict[str, object] = dict(info.to_dict())
    del columns["n_frames"]
    del columns["fingerprint"]
    return {**columns, "n_tiles": n_tiles}


def _remove_folder(target: Path, folder: Path) -> None:
    """Remove a folder of tiles in one step, so that it is never seen half removed."""
    if target.is_dir():
        aside = tempfile.mkdtemp(prefix=".part-", dir=folder)
        with suppress(FileNotFoundError):  # a concurrent run was faster
            os.rename(target, Path(aside, "tiles"))
        shutil.rmtree(aside, ignore_errors=True)


def _write_tiles(
    part: Path, spec: TileSpec, source: str, blocks: TileBlocks, info: RecordingInfo
) -> list[Row]:
    """Write the tiles of one recording, and return a row for each."""
    assert info.n_frames is not None
    rows: list[Row] = []
    tiles: Iterator[np.ndarray] = itertools.chain.from_iterable(blocks)
    for n, tile in enumerate(tiles):
        start_seconds = round(n * spec.tile_seconds, 6)
        valid_width = min(spec.width, info.n_frames - n * spec.width)
        file = f"{n:05d}.png"
        header = {
            "source": source,
            "tuning_cents": info.tuning_cents,
            "start_seconds": start_seconds,
            "valid_width": valid_width,
        }
        write_tile(part / file, tile, spec, header)
        rows.append(
            {
                "file": file,
                "index": n,
                "start_seconds": start_seconds,
                "valid_width": valid_width,
            }
        )
    return rows


def _read_finished(target: Path, stamp: list[str | int]) -> _Rendered | None:
    """Read what an earlier run wrote, if nothing has changed since."""
    if not stamp:
        return None
    try:
        record = json.loads((target / RECORD_FILE).read_text(encoding="utf-8"))
        files = [target / tile["file"] for tile in record["tiles"]]
        is_complete = all(file.is_file() for file in files)
        if not is_complete or record["stamp"] != stamp:
            return None
        return _Rendered(record["info"], record["tiles"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no record, or a damaged one, whose tiles are not trustworthy
