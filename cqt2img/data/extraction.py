"""Extraction of the tiles of recordings, in one process or in many."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.parallel import run_parallel
from cqt2img._utils.progress import Progress
from cqt2img.data.recordings import Recording, Recordings
from cqt2img.errors import AudioError
from cqt2img.tiles.extract import RecordingInfo, try_extract
from cqt2img.tiles.spec import TileSpec

Result = TypeVar("Result")


@overload
def extract_recording(
    recording: Recording | AudioError, spec: TileSpec
) -> tuple[NDArray[np.uint8] | None, RecordingInfo]: ...


@overload
def extract_recording(
    recording: Recording | AudioError,
    spec: TileSpec,
    consume: Callable[[Iterator[NDArray[np.uint8]], RecordingInfo], Result],
) -> tuple[Result | None, RecordingInfo]: ...


def extract_recording(
    recording: Recording | AudioError,
    spec: TileSpec,
    consume: Callable[[Iterator[NDArray[np.uint8]], RecordingInfo], Result]
    | None = None,
) -> tuple[NDArray[np.uint8] | Result | None, RecordingInfo]:
    """Extract the tiles of a recording, or report why it cannot be read.

    This is the job that worker processes run.

    Parameters
    ----------
    recording : Recording or AudioError
        The recording, or the error that replaces it if its worker process died.
    spec : TileSpec
        The meaning of a pixel.
    consume : callable, optional
        As for `try_extract`.

    Returns
    -------
    tiles : ndarray of uint8, shape (n_tiles, height, width), or result of `consume`
        None if the recording cannot be read.
    info : RecordingInfo
        Status and measurements.
    """
    error = recording if isinstance(recording, AudioError) else recording.error
    if error is not None:
        return None, RecordingInfo.from_error(error)
    assert isinstance(recording, Recording)
    if consume is None:
        return try_extract(recording.source, spec, recording.tiles)
    return try_extract(recording.source, spec, recording.tiles, consume)


def extract_recordings(
    recordings: Recordings,
    spec: TileSpec,
    n_jobs: int = 1,
    progress: Progress | None = None,
    title: str = "tiles",
) -> Iterator[tuple[NDArray[np.uint8] | None, RecordingInfo]]:
    """Extract the tiles of recordings, one after the other.

    Parameters
    ----------
    recordings : Recordings
        The recordings.
    spec : TileSpec
        The meaning of a pixel.
    n_jobs : int
        Number of processes, as in joblib.
    progress : callable, optional
        Called with an iterator, its length and a title; returns the iterator.
    title : str
        Title of the progress bar.

    Returns
    -------
    iterator of tuple
        The result of `extract_recording` for each recording, in order.
    """
    jobs = ((recording, spec) for recording in without_columns(recordings))
    return run_parallel(
        extract_recording,
        jobs,
        len(recordings),
        n_jobs=n_jobs,
        progress=progress,
        title=title,
    )


def without_columns(recordings: Recordings) -> Iterator[Recording]:
    """Yield recordings without further columns, which workers do not need.

    Parameters
    ----------
    recordings : Recordings
        The recordings.

    Yields
    ------
    Recording
        Each recording, smaller when pickled.
    """
    for recording in recordings:
        yield replace(recording, columns={})
