"""One recording, whatever it came from, as tiles or as the reason why not."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.buffer import DiskBuffer
from cqt2img.audio.decode import read_wave
from cqt2img.audio.levels import Meter
from cqt2img.errors import AudioError, InputError
from cqt2img.tiles.cqt import measure_cqt, measure_spectrum, to_db
from cqt2img.tiles.png import read_tile, stream_tiles
from cqt2img.tiles.spec import TileSpec

RECORD_FILE = "recording.json"  # lies beside the tiles of a recording that is finished
# what is measured of a wave; see measure_spectrum and Meter.report
QUALITY = (
    "tuning_cents",
    "bandwidth_hz",
    "peak_dbfs",
    "loudness_dbfs",
    "clipped",
    "silence",
    "dc",
    "mono_loss_db",
)


def make_tiles(
    item: Any, spec: TileSpec, folder: str | None = None
) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """Give the tiles of one recording, wherever they come from.

    Parameters
    ----------
    item : Path, ndarray or AudioError
        A recording, a `.npy` file with a CQT, a CQT, or why rendering it failed before.
    spec : TileSpec
        What a pixel means.
    folder : str, optional
        Folder with the tiles of this recording, rendered before.

    Returns
    -------
    tiles : ndarray of uint8, shape (n_tiles, height, width)
        Levels.
    info : dict
        As of `stream_recording`.

    Raises
    ------
    AudioError
        If the recording cannot be read, or holds no sound.
    InputError
        If a CQT or a tile does not fit the spec.
    """
    tiles, info = stream_recording(item, spec, folder)
    return np.concatenate(list(tiles)), info


def stream_recording(
    item: Any,
    spec: TileSpec,
    folder: str | None = None,
    scratch: str | os.PathLike[str] | None = None,
) -> tuple[Iterator[NDArray[np.uint8]], dict[str, Any]]:
    """Give the tiles of a recording of any length, some at a time, in little memory.

    Parameters
    ----------
    item, spec, folder
        As for `make_tiles`.
    scratch : str or Path, optional
        Where what does not fit into memory is kept until the last tile.

    Returns
    -------
    tiles : iterator of ndarray of uint8, shape (n_tiles, height, width)
        Levels.
    info : dict
        `seconds` (float), `n_frames`, and `QUALITY`, which is None where there is no wave to measure.

    Raises
    ------
    AudioError
        If the recording cannot be read, or holds no sound.
    InputError
        If a CQT or a tile does not fit the spec.
    """
    if isinstance(item, AudioError):
        raise item
    if folder is not None:
        return _read_tiles(Path(folder), spec)
    measured: dict[str, Any] = dict.fromkeys(QUALITY)
    rows: DiskBuffer | NDArray[np.float32]
    if isinstance(item, np.ndarray) or item.suffix.lower() == ".npy":
        cqt = item if isinstance(item, np.ndarray) else _load_npy(item)
        rows, reference = to_db(cqt, spec).T, np.float32(0)
    else:
        meter = Meter()
        with DiskBuffer(folder=scratch) as wave:
            for block in read_wave(item, spec.sample_rate, meter=meter):
                wave.append(block)
            tuning, bandwidth = measure_spectrum(wave, spec)
            measured |= {
                "tuning_cents": round(tuning, 1),
                "bandwidth_hz": round(bandwidth),
                **meter.report(),
            }
            cents = measured["tuning_cents"] if spec.tuning == "remove" else 0.0
            rows, reference = measure_cqt(wave, spec, cents, scratch)
    seconds = round(len(rows) * spec.frame_seconds, 3)
    return _cut(rows, reference, spec), {
        "seconds": seconds,
        "n_frames": len(rows),
        **measured,
    }


def _cut(
    rows: DiskBuffer | NDArray[np.float32], reference: np.float32, spec: TileSpec
) -> Iterator[NDArray[np.uint8]]:
    try:
        yield from stream_tiles(rows, reference, spec)
    finally:
        if isinstance(rows, DiskBuffer):
            rows.close()


def try_extract(
    item: Any,
    spec: TileSpec,
    folder: str | None = None,
    take: Callable[[Iterator[NDArray[np.uint8]], dict[str, Any]], Any] | None = None,
    scratch: str | os.PathLike[str] | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Make the tiles of one recording, or say why not.

    Parameters
    ----------
    item, spec, folder
        As for `stream_recording`.
    take : callable, optional
        Gets the iterator of tiles and what `stream_recording` says; by default the tiles are put together.
    scratch : str or Path, optional
        As for `stream_recording`.

    Returns
    -------
    result : ndarray of uint8, shape (n_tiles, height, width), or what `take` gives
        None if it failed.
    info : dict
        `status` ("ok" or "error"), `reason` and `message` (both empty where ok), what `stream_recording`
        says, and a `fingerprint` of the tiles.
    """
    digest = hashlib.sha256()

    def seen(blocks: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        for block in blocks:
            digest.update(block.data)
            yield block

    try:
        tiles, info = stream_recording(item, spec, folder, scratch)
        result = (
            take(seen(tiles), info)
            if take is not None
            else np.concatenate(list(seen(tiles)))
        )
    except AudioError as err:
        return None, _failed(err.reason, err.message)
    except InputError as err:
        return None, _failed("wrong_input", str(err))
    # the same sound has the same picture, whatever its file is called
    return result, {
        "status": "ok",
        "reason": "",
        "message": "",
        **info,
        "fingerprint": digest.hexdigest()[:16],
    }


def raise_on_failures(
    caller: str, paths: Iterable[str], infos: Sequence[dict[str, Any]], way_out: str
) -> None:
    """Stop if a recording could not be read, and name the first one.

    Parameters
    ----------
    caller : str
        Name of the function that needs them all.
    paths : iterable of str
        The recordings.
    infos : sequence of dict
        What `attempt` says of each.
    way_out : str
        What to do next.

    Raises
    ------
    AudioError
        If the status of a recording is not "ok".
    """
    bad = [
        (path, info)
        for path, info in zip(paths, infos, strict=True)
        if info["status"] != "ok"
    ]
    if bad:
        path, info = bad[0]
        count = (
            f"{len(bad)} of {len(infos)} that cannot be read, first"
            if len(bad) > 1
            else "one that cannot be read:"
        )
        raise AudioError(
            info["reason"],
            f"{caller}: X must hold readable recordings, got {count} {path!r} ({info['message']}) {way_out}",
        )


def _failed(reason: str, message: str) -> dict[str, Any]:
    return {
        "status": "error",
        "reason": reason,
        "message": message,
        "seconds": None,
        **dict.fromkeys(QUALITY),
    }


def _load_npy(path: Path) -> NDArray:
    """Read a CQT; never a pickle."""
    try:
        cqt = np.load(path, allow_pickle=False)
        if not isinstance(cqt, np.ndarray):
            cqt.close()
            raise ValueError("it is an archive of arrays")
        return cqt
    except FileNotFoundError as err:
        raise AudioError(
            "vanished",
            f"make_tiles: item must exist, got {str(path)!r}. Check the path.",
        ) from err
    except (OSError, ValueError, EOFError) as err:
        raise AudioError(
            "unsupported_or_corrupt",
            f"make_tiles: item must be a CQT saved by numpy.save, got {str(path)!r}: {err}. Save it anew.",
        ) from err


def _read_tiles(
    folder: Path, spec: TileSpec
) -> tuple[Iterator[NDArray[np.uint8]], dict[str, Any]]:
    """Read the tiles of one recording that were rendered before."""
    try:
        rows = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))["tiles"]
        names = [row["file"] for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        rows, names = [], []
    found = sorted(path.name for path in folder.glob("*.png"))
    read = [read_tile(folder / name, spec) for name in names] if found == names else []
    starts = [info["start_seconds"] for _, info in read]
    if (
        not read
        or starts != [row["start_seconds"] for row in rows]
        or len({info["source"] for _, info in read}) > 1
    ):
        raise AudioError(
            "vanished",
            f"make_tiles: folder must hold the tiles that were rendered, got {str(folder)!r}, changed since. "
            "Render it again.",
        )
    n_frames = sum(info["valid_width"] for _, info in read)
    seconds = round(n_frames * spec.frame_seconds, 3)
    measured = {**dict.fromkeys(QUALITY), "tuning_cents": read[0][1]["tuning_cents"]}
    return iter([np.stack([tile for tile, _ in read])]), {
        "seconds": seconds,
        "n_frames": n_frames,
        **measured,
    }
