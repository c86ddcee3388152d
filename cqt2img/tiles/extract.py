"""Extraction of tiles: from one recording, CQT or folder of rendered tiles."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.buffer import DiskBuffer
from cqt2img.audio.decode import read_wave
from cqt2img.audio.levels import Meter
from cqt2img.errors import AudioError, InputError
from cqt2img.tiles.cqt import measure_cqt, measure_spectrum, to_db
from cqt2img.tiles.png import read_tile, stream_tiles
from cqt2img.tiles.spec import TileSpec

RECORD_FILE = "recording.json"  # written beside the tiles of a finished recording
# measurements of the waveform; see measure_spectrum and Meter.report
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

Source: TypeAlias = Path | NDArray[np.generic]
TileBlocks: TypeAlias = Iterator[NDArray[np.uint8]]
Result = TypeVar("Result")


@dataclass(frozen=True)
class RecordingInfo:
    """Whether a recording could be read, and what was measured of it.

    Parameters
    ----------
    status : {"ok", "error"}
        Whether the tiles could be extracted.
    reason : str
        Short token of the error, such as "silent"; empty if there is none.
    message : str
        The error message; empty if there is none.
    seconds : float, optional
        Duration.
    n_frames : int, optional
        Number of CQT frames.
    tuning_cents, bandwidth_hz : float, optional
        See `cqt2img.tiles.cqt.measure_spectrum`. These and the following are None if
        there is no waveform to measure.
    peak_dbfs, loudness_dbfs, clipped, silence, dc, mono_loss_db : float, optional
        See `cqt2img.audio.levels.Meter.report`.
    fingerprint : str
        Hash of the tiles, independent of the name of the file; empty after an error.
    """

    status: Literal["ok", "error"] = "ok"
    reason: str = ""
    message: str = ""
    seconds: float | None = None
    n_frames: int | None = None
    tuning_cents: float | None = None
    bandwidth_hz: float | None = None
    peak_dbfs: float | None = None
    loudness_dbfs: float | None = None
    clipped: float | None = None
    silence: float | None = None
    dc: float | None = None
    mono_loss_db: float | None = None
    fingerprint: str = ""

    @classmethod
    def from_error(cls, error: AudioError | InputError) -> "RecordingInfo":
        """Describe a recording that cannot be read.

        Parameters
        ----------
        error : AudioError or InputError
            Why it cannot be read.

        Returns
        -------
        RecordingInfo
            With the status "error".
        """
        reason = error.reason if isinstance(error, AudioError) else "wrong_input"
        return cls("error", reason, str(error))

    @property
    def is_ok(self) -> bool:
        """Whether the tiles could be extracted."""
        return self.status == "ok"

    def to_dict(self) -> dict[str, str | float | None]:
        """Return all fields by name, for a row of a table.

        Returns
        -------
        dict
            The fields, in their order.
        """
        return asdict(self)


def make_tiles(
    source: Source, spec: TileSpec, folder: Path | None = None
) -> tuple[NDArray[np.uint8], RecordingInfo]:
    """Compute or read the tiles of one recording.

    Parameters
    ----------
    source : Path or ndarray of shape (n_bins, n_frames)
        An audio file, a `.npy` file with a CQT, or a CQT.
    spec : TileSpec
        The meaning of a pixel.
    folder : Path, optional
        Folder with rendered tiles of this recording, which are read instead.

    Returns
    -------
    tiles : ndarray of uint8, shape (n_tiles, height, width)
        Levels.
    info : RecordingInfo
        Measurements.

    Raises
    ------
    AudioError
        If the recording cannot be read, or is silent.
    InputError
        If a CQT or a tile does not fit the spec.
    """
    blocks, info = stream_recording(source, spec, folder)
    return np.concatenate(list(blocks)), info


def stream_recording(
    source: Source,
    spec: TileSpec,
    folder: Path | None = None,
    scratch: str | os.PathLike[str] | None = None,
) -> tuple[TileBlocks, RecordingInfo]:
    """Compute the tiles of a recording of any length in blocks, in little memory.

    Parameters
    ----------
    source, spec, folder
        As for `make_tiles`.
    scratch : str or Path, optional
        Folder for temporary files, which are needed until the last block.

    Returns
    -------
    blocks : iterator of ndarray of uint8, shape (n_tiles, height, width)
        Levels.
    info : RecordingInfo
        Measurements.

    Raises
    ------
    AudioError
        If the recording cannot be read, or is silent.
    InputError
        If a CQT or a tile does not fit the spec.
    """
    if folder is not None:
        return _read_tiles(folder, spec)
    if isinstance(source, np.ndarray):
        return _stream_cqt(source, spec)
    if source.suffix.lower() == ".npy":
        return _stream_cqt(_load_npy(source), spec)
    return _stream_audio(source, spec, scratch)


def _stream_cqt(
    cqt: NDArray[np.generic], spec: TileSpec
) -> tuple[TileBlocks, RecordingInfo]:
    rows = to_db(cqt, spec).T
    info = RecordingInfo(seconds=_seconds(len(rows), spec), n_frames=len(rows))
    return stream_tiles(rows, np.float32(0), spec), info


def _stream_audio(
    path: Path, spec: TileSpec, scratch: str | os.PathLike[str] | None
) -> tuple[TileBlocks, RecordingInfo]:
    meter = Meter()
    with DiskBuffer(folder=scratch) as wave:
        for block in read_wave(path, spec.sample_rate, meter=meter):
            wave.append(block)
        tuning, bandwidth = measure_spectrum(wave, spec)
        tuning_cents = round(tuning, 1)
        correction = tuning_cents if spec.tuning == "remove" else 0.0
        rows, reference = measure_cqt(wave, spec, correction, scratch)
    info = RecordingInfo(
        seconds=_seconds(len(rows), spec),
        n_frames=len(rows),
        tuning_cents=tuning_cents,
        bandwidth_hz=round(bandwidth),
        **meter.report(),
    )
    return _stream_and_close(rows, reference, spec), info


def _stream_and_close(
    rows: DiskBuffer, reference: np.float32, spec: TileSpec
) -> TileBlocks:
    try:
        yield from stream_tiles(rows, reference, spec)
    finally:
        rows.close()


def _seconds(n_frames: int, spec: TileSpec) -> float:
    return round(n_frames * spec.frame_seconds, 3)


@overload
def try_extract(
    source: Source, spec: TileSpec, folder: Path | None = None
) -> tuple[NDArray[np.uint8] | None, RecordingInfo]: ...


@overload
def try_extract(
    source: Source,
    spec: TileSpec,
    folder: Path | None,
    consume: Callable[[TileBlocks, RecordingInfo], Result],
    scratch: str | os.PathLike[str] | None = None,
) -> tuple[Result | None, RecordingInfo]: ...


def try_extract(
    source: Source,
    spec: TileSpec,
    folder: Path | None = None,
    consume: Callable[[TileBlocks, RecordingInfo], Result] | None = None,
    scratch: str | os.PathLike[str] | None = None,
) -> tuple[NDArray[np.uint8] | Result | None, RecordingInfo]:
    """Compute the tiles of one recording, or report why it cannot be read.

    Parameters
    ----------
    source, spec, folder
        As for `stream_recording`.
    consume : callable, optional
        Called with the iterator of blocks and the info of `stream_recording`. By
        default the blocks are concatenated.
    scratch : str or Path, optional
        As for `stream_recording`.

    Returns
    -------
    tiles : ndarray of uint8, shape (n_tiles, height, width), or result of `consume`
        None if the recording cannot be read.
    info : RecordingInfo
        Status, measurements and the fingerprint of the tiles.
    """
    digest = hashlib.sha256()

    def update_digest(blocks: TileBlocks) -> TileBlocks:
        for block in blocks:
            digest.update(block.data)
            yield block

    try:
        blocks, info = stream_recording(source, spec, folder, scratch)
        blocks = update_digest(blocks)
        result: NDArray[np.uint8] | Result
        if consume is None:
            result = np.concatenate(list(blocks))
        else:
            result = consume(blocks, info)
    except (AudioError, InputError) as error:
        return None, RecordingInfo.from_error(error)
    return result, replace(info, fingerprint=digest.hexdigest()[:16])


def raise_on_failures(
    caller: str, paths: Iterable[str], infos: Sequence[RecordingInfo], advice: str
) -> None:
    """Raise an error if a recording could not be read.

    Parameters
    ----------
    caller : str
        Public method or command that the message starts with.
    paths : iterable of str
        The recordings.
    infos : sequence of RecordingInfo
        The result of `try_extract` for each.
    advice : str
        What to do next.

    Raises
    ------
    AudioError
        If the status of a recording is not "ok"; it names the first one.
    """
    failures = [
        (path, info) for path, info in zip(paths, infos, strict=True) if not info.is_ok
    ]
    if not failures:
        return
    path, info = failures[0]
    count = "one that cannot be read:"
    if len(failures) > 1:
        count = f"{len(failures)} of {len(infos)} that cannot be read, first"
    raise AudioError(
        info.reason,
        f"{caller}: X must hold readable recordings, got {count} {path!r} "
        f"({info.message}) {advice}",
    )


def _load_npy(path: Path) -> NDArray[np.generic]:
    """Load a CQT; pickled objects are not loaded."""
    try:
        cqt = np.load(path, allow_pickle=False)
        if not isinstance(cqt, np.ndarray):
            cqt.close()
            raise ValueError("it is an archive of arrays")
        return cqt
    except FileNotFoundError as error:
        raise AudioError(
            "vanished", f"no such file: {str(path)!r}. Check the path."
        ) from error
    except (OSError, ValueError, EOFError) as error:
        raise AudioError(
            "unsupported_or_corrupt",
            f"{str(path)!r} is not a CQT saved by numpy.save: {error}. Save it again.",
        ) from error


def _read_tiles(folder: Path, spec: TileSpec) -> tuple[TileBlocks, RecordingInfo]:
    """Read the rendered tiles of one recording."""
    names, starts = _read_record(folder)
    found = sorted(path.name for path in folder.glob("*.png"))
    tiles = []
    headers = []
    if found == names:
        for name in names:
            tile, header = read_tile(folder / name, spec)
            tiles.append(tile)
            headers.append(header)
    sources = {header["source"] for header in headers}
    is_unchanged = starts == [header["start_seconds"] for header in headers]
    if not tiles or not is_unchanged or len(sources) > 1:
        raise AudioError(
            "vanished",
            f"the tiles in {str(folder)!r} were changed after rendering. Render the "
            "recording again.",
        )
    n_frames = sum(header["valid_width"] for header in headers)
    info = RecordingInfo(
        seconds=_seconds(n_frames, spec),
        n_frames=n_frames,
        tuning_cents=headers[0]["tuning_cents"],
    )
    return iter([np.stack(tiles)]), info


def _read_record(folder: Path) -> tuple[list[str], list[float]]:
    """Read the names and the starts in seconds of the tiles that were rendered."""
    try:
        record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
        names = [row["file"] for row in record["tiles"]]
        starts = [row["start_seconds"] for row in record["tiles"]]
    except (OSError, ValueError, KeyError, TypeError):
        return [], []
    return names, starts
