"""One recording, whatever it came from, as tiles or as the reason why not."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cqt2img.audio import load_wave
from cqt2img.cqt import compute_cqt, estimate_tuning
from cqt2img.errors import AudioError, InputError
from cqt2img.spec import TileSpec
from cqt2img.tile import cut_tiles, read_tile

RECORD_FILE = "recording.json"  # lies beside the tiles of a recording that is finished


def make_tiles(item: Any, spec: TileSpec, folder: str | None = None) -> tuple[NDArray[np.uint8], dict[str, Any]]:
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
        `seconds` (float), `tuning_cents` (float, or None where there is no wave) and `n_frames`.

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
    tuning = None
    if isinstance(item, np.ndarray):
        cqt = item
    elif item.suffix.lower() == ".npy":
        cqt = _load_npy(item)
    else:
        wave = load_wave(item, spec.sample_rate)
        tuning = round(estimate_tuning(wave, spec), 1)
        cqt = compute_cqt(wave, spec, tuning if spec.tuning == "remove" else 0.0)
    tiles = cut_tiles(cqt, spec)
    n_frames = int(cqt.shape[1])
    info = {"seconds": round(n_frames * spec.frame_seconds, 3), "tuning_cents": tuning, "n_frames": n_frames}
    return tiles, info


def attempt(item: Any, spec: TileSpec, folder: str | None = None) -> tuple[NDArray[np.uint8] | None, dict[str, Any]]:
    """Make the tiles of one recording, or say why not.

    Parameters
    ----------
    item : Path or ndarray
        As for `make_tiles`.
    spec : TileSpec
        What a pixel means.
    folder : str, optional
        As for `make_tiles`.

    Returns
    -------
    tiles : ndarray of uint8, shape (n_tiles, height, width), or None
        None if it failed.
    info : dict
        `status` ("ok" or "error"), `reason` and `message` (both empty where ok), what `make_tiles`
        says, and a `fingerprint` of the tiles.
    """
    try:
        tiles, info = make_tiles(item, spec, folder)
    except AudioError as err:
        return None, _failed(err.reason, err.message)
    except InputError as err:
        return None, _failed("wrong_input", str(err))
    return tiles, {"status": "ok", "reason": "", "message": "", **info, "fingerprint": _fingerprint(tiles)}


def _fingerprint(tiles: NDArray[np.uint8]) -> str:
    """Name the picture of a recording: the same sound has the same one, whatever its file is called."""
    return hashlib.sha256(tiles.tobytes()).hexdigest()[:16]


def refuse_bad(caller: str, paths: Iterable[str], infos: Sequence[dict[str, Any]], way_out: str) -> None:
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
    bad = [(path, info) for path, info in zip(paths, infos, strict=True) if info["status"] != "ok"]
    if bad:
        path, info = bad[0]
        count = f"{len(bad)} of {len(infos)} that cannot be read, first" if len(bad) > 1 else "one that cannot be read:"
        raise AudioError(
            info["reason"],
            f"{caller}: X must hold readable recordings, got {count} {path!r} ({info['message']}) {way_out}",
        )


def _failed(reason: str, message: str) -> dict[str, Any]:
    return {"status": "error", "reason": reason, "message": message, "seconds": None, "tuning_cents": None}


def _load_npy(path: Path) -> NDArray:
    """Read a CQT; never a pickle."""
    try:
        cqt = np.load(path, allow_pickle=False)
        if not isinstance(cqt, np.ndarray):
            cqt.close()
            raise ValueError("it is an archive of arrays")
        return cqt
    except FileNotFoundError as err:
        raise AudioError("vanished", f"make_tiles: item must exist, got {str(path)!r}. Check the path.") from err
    except (OSError, ValueError, EOFError) as err:
        raise AudioError(
            "unsupported_or_corrupt",
            f"make_tiles: item must be a CQT saved by numpy.save, got {str(path)!r}: {err}. Save it anew.",
        ) from err


def _read_tiles(folder: Path, spec: TileSpec) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """Read the tiles of one recording that were rendered before."""
    try:
        rows = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))["tiles"]
        names = [row["file"] for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        rows, names = [], []
    found = sorted(path.name for path in folder.glob("*.png"))
    read = [read_tile(folder / name, spec) for name in names] if found == names else []
    starts = [info["start_seconds"] for _, info in read]
    if not read or starts != [row["start_seconds"] for row in rows] or len({info["source"] for _, info in read}) > 1:
        raise AudioError(
            "vanished",
            f"make_tiles: folder must hold the tiles that were rendered, got {str(folder)!r}, changed since. "
            "Render it again.",
        )
    n_frames = sum(info["valid_width"] for _, info in read)
    tiles = np.stack([tile for tile, _ in read])
    seconds = round(n_frames * spec.frame_seconds, 3)
    return tiles, {"seconds": seconds, "tuning_cents": read[0][1]["tuning_cents"], "n_frames": n_frames}
