"""Recordings of the same take, whatever they are called and however they sound."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cqt2img._utils.parallel import run_parallel
from cqt2img._utils.progress import Progress
from cqt2img._utils.tables import make_table
from cqt2img.auditing.landmarks import Landmarks, compute_landmarks
from cqt2img.auditing.matching import TakePair, match_takes
from cqt2img.data.extraction import extract_recording, without_columns
from cqt2img.data.recordings import Recording, RecordingsLike, list_recordings
from cqt2img.data.specs import resolve_spec
from cqt2img.errors import AudioError
from cqt2img.tiles.extract import RecordingInfo
from cqt2img.tiles.spec import TileSpec

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
COLUMNS = ("path", "other_path", "match", "offset_seconds", "speed", "semitones")


def find_duplicates(
    X: RecordingsLike,
    spec: TileSpec | str | None = None,
    n_jobs: int = 1,
    progress: Progress | None = None,
) -> "pd.DataFrame":
    """Find recordings that contain the same take.

    Parameters
    ----------
    X : folder, table, TileSet, or sequence of paths or CQT arrays
        The recordings, as for `Classifier.fit`; labels are not needed.
    spec : TileSpec or str, optional
        The tiles to compare; by default those of a tile folder, or the preset "fast".
    n_jobs : int
        Number of processes, as in joblib.
    progress : callable, optional
        Called with an iterator, its length and a title; returns the iterator.

    Returns
    -------
    DataFrame
        One row per pair, best match first: `path`, `other_path`, `match` (correlation
        where the recordings overlap, up to 1; equal tiles have 1), `offset_seconds`
        (position of the start of the first recording in the second), `speed` and
        `semitones` (of the second recording relative to the first).

    Raises
    ------
    InputError
        If no recordings are found, or tiles have another spec.

    Notes
    -----
    Finds copies of another codec, level, tone, speed, tuning, room or noise, and parts
    of a take, but not another performance of the same piece. A recording that cannot be
    read is logged and left out.
    """
    spec = resolve_spec(spec, X, "find_duplicates", "fast")
    recordings = list_recordings(X, caller="find_duplicates")
    results = run_parallel(
        extract_landmarks,
        ((recording, spec) for recording in without_columns(recordings)),
        len(recordings),
        n_jobs=n_jobs,
        progress=progress,
        title="onsets",
    )
    takes: list[Landmarks] = []
    paths: list[str] = []
    fingerprints: list[str] = []
    for recording, (landmarks, info) in zip(recordings, results, strict=True):
        if landmarks is None:
            log.warning("find_duplicates: left out %s", info.message)
            continue
        takes.append(landmarks)
        paths.append(recording.path)
        fingerprints.append(info.fingerprint)
    pairs = match_takes(takes, fingerprints, progress=progress)
    return tabulate_pairs(pairs, paths)


def extract_landmarks(
    recording: Recording | AudioError, spec: TileSpec
) -> tuple[Landmarks | None, RecordingInfo]:
    """Compute the landmarks of a recording, or report why it cannot be read.

    This is the job that worker processes run.

    Parameters
    ----------
    recording : Recording or AudioError
        The recording, or the error that replaces it if its worker process died.
    spec : TileSpec
        The tiles to compute them from.

    Returns
    -------
    landmarks : Landmarks or None
        None if the recording cannot be read.
    info : RecordingInfo
        Status and measurements.
    """
    tiles, info = extract_recording(recording, spec)
    if tiles is None:
        return None, info
    return compute_landmarks(tiles, spec), info


def tabulate_pairs(pairs: Sequence[TakePair], paths: Sequence[str]) -> "pd.DataFrame":
    """Return pairs of recordings as a table.

    Parameters
    ----------
    pairs : sequence of TakePair
        The pairs.
    paths : sequence of str
        Path of each recording.

    Returns
    -------
    DataFrame
        One row per pair; see `find_duplicates`.
    """
    rows = []
    for first, second, *values in pairs:
        row = (paths[first], paths[second], *values)
        rows.append(dict(zip(COLUMNS, row, strict=True)))
    return make_table(rows, COLUMNS)
