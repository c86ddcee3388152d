"""From a tree of recordings to a folder of tiles with its manifest."""

import hashlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cqt2img._utils.files import disk_full_error, folder_lock, write_atomic
from cqt2img._utils.parallel import run_parallel
from cqt2img._utils.progress import Progress
from cqt2img._utils.tables import make_table
from cqt2img.data.recordings import (
    RECORDINGS_FILE,
    SPEC_FILE,
    TILES_FILE,
    list_recordings,
    read_csv,
)
from cqt2img.data.tile_folder import TileSet, as_spec, to_numbers
from cqt2img.errors import InputError
from cqt2img.tiles.extract import RECORD_FILE, try_extract
from cqt2img.tiles.png import write_tile
from cqt2img.tiles.spec import TileSpec

if TYPE_CHECKING:
    import pandas as pd

_TILE_COLUMNS = [
    "tile",
    "path",
    "label",
    "group",
    "index",
    "start_seconds",
    "valid_width",
]
_Rendered = tuple[dict[str, Any], list[dict[str, Any]]]


def render(
    X: Any,
    out: str | os.PathLike[str],
    spec: TileSpec | str = "piano",
    n_jobs: int = 1,
    group_by: str | None = None,
    progress: Progress | None = None,
    timeout: float = 600.0,
) -> TileSet:
    """Render recordings to tiles, one PNG per few seconds, with a manifest.

    What is finished in `out` already, and has not changed since, is not rendered again.

    Parameters
    ----------
    X : folder, csv file, data frame, or sequence of paths or CQT arrays
        See `cqt2img.data.recordings.list_recordings`.
    out : str or Path
        Folder for the tiles; made if it is not there.
    spec : TileSpec or str
        What a pixel means, or the name of a preset.
    n_jobs : int
        Processes, as joblib counts them; -1 takes every core.
    group_by : str, optional
        Column of a table that names what was recorded together.
    progress : callable, optional
        Gets an iterator, its length and a title, and gives the iterator back.
    timeout : float
        Seconds that one recording may take, above 0. With `n_jobs=1` all runs in this process, which
        no file can be kept from stopping.

    Returns
    -------
    TileSet
        The folder with one row per recording, whether it could be rendered or not.

    Raises
    ------
    InputError
        If no recording is found, `out` holds tiles of another spec, or the disk is full.
    KeyboardInterrupt
        After Ctrl-C, when the recordings in hand are finished; after a second one, at once.

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
    spec = as_spec(spec)
    table = list_recordings(X, group_by=group_by)
    out = Path(out)
    folders = _folders(table)
    columns = zip(table["item"], folders, table["tiles"], strict=True)
    jobs = ((item, spec, out, name, tiles) for item, name, tiles in columns)
    with disk_full_error("render", out):
        _claim(out, spec)
        _refuse_others(out, table["path"].tolist())
        with folder_lock(out):
            done = list(
                run_parallel(
                    _render_one,
                    jobs,
                    len(table),
                    n_jobs=n_jobs,
                    progress=progress,
                    title="rendering",
                    timeout=timeout,
                )
            )
            return TileSet(out, spec, *_write_manifest(out, table, folders, done))


def _write_manifest(
    out: Path, table: "pd.DataFrame", folders: list[str], done: list[_Rendered]
) -> list["pd.DataFrame"]:
    """Write one table with a row per recording, and one with a row per tile."""
    rows, tile_rows = [], []
    given = table.drop(columns=["item", "tiles", "name"]).to_dict("records")
    for row, name, (info, tiles) in zip(given, folders, done, strict=True):
        folder = f"tiles/{name}" if info["status"] == "ok" else ""
        rows.append({**row, **info, "tiles": folder})
        same = {k: row[k] for k in ("path", "label", "group")}
        tile_rows += [
            {
                "tile": f"{folder}/{t['file']}",
                **same,
                **{k: v for k, v in t.items() if k != "file"},
            }
            for t in tiles
        ]
    frames = [make_table(rows), make_table(tile_rows, columns=_TILE_COLUMNS)]
    for frame in frames:
        to_numbers(frame)
    for frame, name in zip(frames, (RECORDINGS_FILE, TILES_FILE), strict=True):
        write_atomic(
            out / name, partial(frame.to_csv, index=False, errors="surrogateescape")
        )
    return frames


def _claim(out: Path, spec: TileSpec) -> None:
    """Make the folder, or check that what is there has the same spec."""
    if out.exists() and not out.is_dir():
        raise InputError(
            f"render: out must be a folder, got the file {str(out)!r}. Choose another name."
        )
    mark = out / SPEC_FILE
    others = (
        [p for p in out.iterdir() if not p.match(f".{SPEC_FILE}.*.part")]
        if out.is_dir()
        else []
    )
    if mark.is_file():  # looked for after the others, which another run makes after it
        found = TileSpec.preset(mark)
        if found.key != spec.key:
            raise InputError(
                f"render: out must hold tiles of spec {spec.key}, got {str(out)!r} of spec {found.key}. "
                "Choose another folder, or the same preset."
            )
        return
    if others:
        raise InputError(
            f"render: out must be new, empty or a tile folder, got {str(out)!r}. Choose another folder."
        )
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(
        mark, lambda part: part.write_text(spec.to_json(), encoding="utf-8")
    )  # first: a run that ends here
    (out / "tiles").mkdir(
        exist_ok=True
    )  # leaves a folder that is known to be one of tiles


def _refuse_others(out: Path, paths: list[str]) -> None:
    """Refuse to drop recordings from the manifest that are still there, and were not given this time."""
    if not (out / RECORDINGS_FILE).is_file():
        return
    before = read_csv(out / RECORDINGS_FILE)["path"]
    others = [
        path for path in before if path not in set(paths) and os.path.exists(path)
    ]
    if others:
        raise InputError(
            f"render: X must hold all recordings of the tile folder {str(out)!r}, got none of {len(others)} such as "
            f"{others[0]!r}. Choose another folder, or give all recordings at once."
        )


def _folders(table: "pd.DataFrame") -> list[str]:
    """Give every recording a folder of its own below `tiles`, named after it."""
    names: list[str] = []
    seen: set[str] = set()
    above: set[str] = (
        set()
    )  # a folder of tiles holds no other, for it is replaced as a whole
    for given in table["name"]:
        parts = [
            p for p in Path(given).parts if p not in (Path(given).anchor, "..", ".", "")
        ]
        top, *rest = parts or ["_"]
        short = os.fsencode(top)[:240].decode(
            errors="ignore"
        )  # a name may have 255 bytes already
        for n in itertools.count(1):
            unique = "/".join([top if n == 1 else f"{short}~{n}", *rest])
            outer = {str(folder) for folder in Path(unique).parents}
            if unique not in seen and unique not in above and not outer & seen:
                break
        seen.add(unique)
        above |= outer
        names.append(unique)
    return names


def _stamp(item: Any, folder: str | None, spec: TileSpec) -> list[Any]:
    """Note what must be unchanged for a finished recording to stay finished."""
    if isinstance(item, np.ndarray):
        return [
            spec.key,
            "array",
            hashlib.sha256(np.ascontiguousarray(item).tobytes()).hexdigest(),
        ]
    path = Path(folder, RECORD_FILE) if folder else item
    try:
        stat = os.stat(path)
    except (OSError, TypeError, ValueError):
        return []
    return [spec.key, os.fspath(path), stat.st_size, stat.st_mtime_ns]


def _render_one(
    item: Any, spec: TileSpec, out: Path, name: str, folder: str | None
) -> _Rendered:
    """Render one recording into its folder, whole or not at all."""
    target, stamp = out / "tiles" / name, _stamp(item, folder, spec)
    known = _finished(target, stamp)
    if known is not None:
        return known
    (out / "tiles").mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=out / "tiles"))
    try:
        source = os.fspath(item) if isinstance(item, (str, os.PathLike)) else "array"
        write = partial(_write_tiles, part, spec, source)
        rows, info = try_extract(item, spec, folder, take=write, scratch=part)
        for word in ("n_frames", "fingerprint"):
            info.pop(word, None)
        info["n_tiles"] = len(rows or [])
        _put_away(target, out / "tiles")  # tiles of an earlier state of this recording
        if rows is None:
            return info, []
        text = json.dumps({"stamp": stamp, "info": info, "tiles": rows})
        (part / RECORD_FILE).write_text(text, encoding="utf-8")
        part.chmod(0o755)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(part, target)
        except OSError:  # another run into the same folder was faster
            known = _finished(target, stamp)
            if known is None:
                raise
            return known
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return info, rows


def _put_away(target: Path, folder: Path) -> None:
    """Remove a folder of tiles in one step, so that nobody finds half of it."""
    if target.is_dir():
        aside = tempfile.mkdtemp(prefix=".part-", dir=folder)
        with suppress(FileNotFoundError):  # another run was faster
            os.rename(target, Path(aside, "tiles"))
        shutil.rmtree(aside, ignore_errors=True)


def _write_tiles(
    part: Path, spec: TileSpec, source: str, blocks: Iterator[Any], info: dict[str, Any]
) -> list[dict[str, Any]]:
    """Write the tiles of one recording as they come, and say what they are."""
    rows: list[dict[str, Any]] = []
    for tile in itertools.chain.from_iterable(blocks):
        n = len(rows)
        start, valid = (
            round(n * spec.tile_seconds, 6),
            min(spec.width, info["n_frames"] - n * spec.width),
        )
        rows.append(
            {
                "file": f"{n:05d}.png",
                "index": n,
                "start_seconds": start,
                "valid_width": valid,
            }
        )
        chunks = {
            "source": source,
            "tuning_cents": info["tuning_cents"],
            "start_seconds": start,
            "valid_width": valid,
        }
        write_tile(part / rows[-1]["file"], tile, spec, chunks)
    return rows


def _finished(target: Path, stamp: list[Any]) -> _Rendered | None:
    """Give what an earlier run wrote, if nothing has changed since."""
    try:
        known = json.loads((target / RECORD_FILE).read_text(encoding="utf-8"))
        whole = all((target / tile["file"]).is_file() for tile in known["tiles"])
        return (
            (known["info"], known["tiles"])
            if whole and stamp and known["stamp"] == stamp
            else None
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None  # nothing there, or a damaged record, whose tiles cannot be trusted
