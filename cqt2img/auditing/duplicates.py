"""The same take under two names: found by the times and pitches of its onsets, whatever was done to its sound."""

import functools
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.parallel import run_parallel
from cqt2img._utils.progress import Progress
from cqt2img._utils.tables import make_table
from cqt2img.data.extraction import extract_recording, without_columns
from cqt2img.data.recordings import list_recordings
from cqt2img.data.specs import resolve_spec
from cqt2img.tiles.extract import RecordingInfo
from cqt2img.tiles.spec import TileSpec

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_array

log = logging.getLogger(__name__)

# Chosen on jazz `train`, `synth` with seed 1 and the singers, tested on others: benchmarks/RESULTS.md.
_SMOOTH_SECONDS = 0.08  # an onset that falls between two columns must give the same time as one that does not
_FLOOR_DB = -30.0  # below, room and noise decide
_RISE_DB = 6.0
_BLOCK_SECONDS, _STEEPEST = 3.0, 24  # in every block so many onsets
_LOWEST = 9  # semitones above f_min; below, windows are too long for a time
_FRAME_SECONDS = 0.1  # of the sketch
_NEAR, _FAR, _FAN = (
    0.12,
    2.0,
    9,
)  # seconds from onset to onset in a triplet, and how many onsets are tried
_INTERVAL = 24  # largest, in semitones
_PITCH = 1 << 20  # step of a hash from semitone to semitone
_KINDS = 1e6  # of triplets, if all were equally likely: two takes of n and m have n * m / 1e6 in common
_SHIFT = 1  # semitones: 3 % of speed or 50 cents, after tunings are removed; two takes of one piece met at 2
_MANY_HASHES = 20_000_000
_SPEEDS = (0.955, 1.045)
_TOLERANCE = 0.05  # seconds
_SAME_PITCH = 0.9  # semitones
_FEWEST = 8  # onsets or triplets in common
_LEAST_MATCH = 0.82  # in disguise .85 and more, once .76; two synthetic takes of one melody up to .81 (planted.py)
_COMMON = 0.45  # part of the onsets that must be common; in disguise .56 and more
_SHORT_MATCH, _PER_SECOND = (
    1.05,
    0.04,
)  # singers who repeat a line of 2 s come to .96: the shorter, the more alike
COLUMNS = ("match", "offset_seconds", "speed", "semitones")
_PAIR = ("first", "second", *COLUMNS)


class Landmarks(NamedTuple):
    """What is left of a recording to know it again by: a few hundred bytes for each second.

    Parameters
    ----------
    onsets : ndarray of float32, shape (n_onsets, 2)
        Seconds, and semitones above `f_min`; by time. At most 8 a second.
    sketch : ndarray of uint8, shape (n_semitones, n_frames)
        Levels above a floor of -30 dB; low pitch first.
    frame_seconds : float
        From frame to frame of the sketch.
    """

    onsets: NDArray[np.float32]
    sketch: NDArray[np.uint8]
    frame_seconds: float


def landmarks(tiles: NDArray[np.uint8], spec: TileSpec) -> Landmarks:
    """Find what equaliser, codec, room and noise leave of a recording: its onsets, and a sketch of its loud notes.

    Parameters
    ----------
    tiles : ndarray of uint8, shape (n_tiles, height, width)
        Levels of one recording, in order.
    spec : TileSpec
        What they mean.

    Returns
    -------
    Landmarks
        Onsets and sketch.

    Notes
    -----
    An onset is a peak of the smoothed rise of the level in one row. Its time is found between columns by a parabola.

    Examples
    --------
    Silence has no onsets, and a note that begins after 2 s has one in its row:

    >>> spec = TileSpec.preset("fast")
    >>> tiles = np.zeros((1, *spec.size), np.uint8)
    >>> landmarks(tiles, spec).onsets.shape
    (0, 2)
    >>> tiles[0, spec.row_of_note(69), round(2 / spec.frame_seconds) :] = 230
    >>> landmarks(tiles, spec).onsets.round(1).tolist()
    [[2.0, 48.0]]
    """
    from scipy.ndimage import gaussian_filter1d, maximum_filter

    each, step = spec.bins_per_octave // 12, spec.frame_seconds
    rows = tiles.swapaxes(0, 1).reshape(spec.height, -1)[::-1][: spec.n_bins]
    floor = np.uint8(np.clip((_FLOOR_DB - spec.min_db) / spec.step_db, 0, 255))
    rows = np.maximum(rows, floor) - floor
    sigma = _SMOOTH_SECONDS / step
    level = rows.astype(np.float32) * np.float32(spec.step_db)
    rise = gaussian_filter1d(level, sigma, axis=1, order=1, truncate=3) * np.float32(
        2.5 * sigma
    )  # dB of a step
    rise[: _LOWEST * each] = 0
    peak = rise == maximum_filter(
        rise, (2 * each + 1, 2 * max(1, round(0.07 / step)) + 1)
    )
    peak &= rise > _RISE_DB
    peak[:, 1:] &= rise[:, 1:] > rise[:, :-1]  # of two equal columns, one
    peak[:, [0, -1]] = False
    row, column = np.nonzero(peak)
    before, here, after = (rise[row, column + n] for n in (-1, 0, 1))
    seconds = (
        column + 0.5 * (after - before) / np.maximum(2 * here - before - after, 1e-3)
    ) * step
    order = np.lexsort(
        (-here, seconds // _BLOCK_SECONDS)
    )  # within each block, the steepest first
    block = (seconds // _BLOCK_SECONDS)[order]
    order = order[np.arange(len(order)) - np.searchsorted(block, block) < _STEEPEST]
    onsets = np.stack([seconds[order], row[order] / each], axis=1).astype(np.float32)
    sketch, frame_seconds = _sketch(rows, each, step)
    return Landmarks(
        onsets[np.lexsort((onsets[:, 1], onsets[:, 0]))], sketch, frame_seconds
    )


def _sketch(
    rows: NDArray[np.uint8], each: int, step: float
) -> tuple[NDArray[np.uint8], float]:
    """Draw the loudest row of every semitone of five octaves, in frames of about 0.1 s."""
    n = max(1, round(_FRAME_SECONDS / step))
    rows = rows[12 * each : 72 * each, : rows.shape[1] // n * n]
    rows = rows[: len(rows) // each * each].reshape(-1, each, rows.shape[1]).max(axis=1)
    return rows.reshape(len(rows), -1, n).mean(axis=2).astype(np.uint8), n * step


class _Triplets(NamedTuple):
    """Three onsets each: what they look like at any speed, and the time of the first."""

    hashes: NDArray[np.int32]
    seconds: NDArray[np.float32]


def _triplets(onsets: NDArray[np.float32]) -> _Triplets:
    """Describe neighbouring onsets by their intervals, the ratio of their distances, and a rough distance."""
    seconds, pitch = (
        onsets[:, 0].astype(np.float64),
        np.round(onsets[:, 1]).astype(np.int64),
    )
    start, end = np.searchsorted(seconds, [seconds + _NEAR, seconds + _FAR])
    hashes, times = [np.zeros(0, np.int64)], [np.zeros(0)]
    for near, far in ((a, b) for b in range(_FAN) for a in range(b)):
        first = np.flatnonzero(start + far < end)
        second, third = start[first] + near, start[first] + far
        low, high = pitch[second] - pitch[first], pitch[third] - pitch[first]
        whole, part = seconds[third] - seconds[first], seconds[second] - seconds[first]
        good = (
            (whole - part > _NEAR)
            & (np.abs(low) <= _INTERVAL)
            & (np.abs(high) <= _INTERVAL)
        )
        good &= (low != 0) | (high != 0)  # a repeated note is in all music
        n = 2 * _INTERVAL + 1
        shape = (low + _INTERVAL) * n + high + _INTERVAL
        code = (shape * 8 + np.floor(8 * part / whole)) * 16 + np.floor(
            5 * np.log(whole / 0.1)
        )
        hashes.append((pitch[first] * _PITCH + code.astype(np.int64))[good])
        times.append(seconds[first][good])
    found = np.concatenate(hashes).astype(np.int32)
    order = np.argsort(found, kind="stable")
    return _Triplets(found[order], np.concatenate(times)[order].astype(np.float32))


def match_takes(
    takes: Sequence[Landmarks],
    fingerprints: Sequence[str] = (),
    least: float = _LEAST_MATCH,
    progress: Progress | None = None,
) -> "pd.DataFrame":
    """Find the pairs of recordings that hold the same take.

    Parameters
    ----------
    takes : sequence of Landmarks
        What `landmarks` gives of each recording.
    fingerprints : sequence of str, optional
        What `attempt` says of each; equal pictures are one take, even if nothing happens in them.
    least : float
        Least `match` of a pair, 0 to 1; from 7 s downwards of common sound more is asked for, at 2 s .97.
    progress : callable, optional
        Gets an iterator, its length and a title, and gives the iterator back.

    Returns
    -------
    DataFrame
        One row per pair, surest first: `first` and `second` (places, the lower first), `match` (correlation of
        their sketches where they overlap, up to 1), `offset_seconds`
        (where the start of the first lies in the second), `speed` (of the second, times as fast as the first) and
        `semitones` (how much higher the second is drawn).

    Notes
    -----
    Pairs with many triplets of onsets in common come from a sparse product, random samples of these give the line from
    time to time, and the correlation of level over time, row by row, decides: other performances have onsets in common,
    but not what sounds between them. The time of that product grows with the square of the number of recordings.

    References
    ----------
    Avery Wang, "An industrial-strength audio search algorithm", 2003.
    Joren Six and Marc Leman, "Panako: a scalable acoustic fingerprinting system handling time-scale and pitch
    modification", 2014.
    """
    best: dict[tuple[int, int], tuple[float, ...]] = {}
    lookup = functools.lru_cache(maxsize=4096)(lambda n: _triplets(takes[n].onsets))
    candidates = list(_candidates(takes))
    steps = (
        iter(candidates)
        if progress is None
        else progress(iter(candidates), len(candidates), "comparing takes")
    )
    for one, other, shift in steps:
        found = _align(
            takes[one],
            takes[other],
            shift,
            _shared(lookup(one), lookup(other), shift),
            least,
        )
        if one > other:  # tell the same from the other side
            match, offset, speed, semitones = found
            found = match, -offset * speed, 1 / speed, -semitones
        pair = min(one, other), max(one, other)
        if found[0] > 0 and found[0] >= best.get(pair, found)[0]:
            best[pair] = found
    alike: dict[str, list[int]] = {}
    for place, mark in enumerate(fingerprints):
        alike.setdefault(mark, []).append(place)
    best |= {
        (a, b): (1.0, 0.0, 1.0, 0)
        for same in alike.values()
        for n, b in enumerate(same)
        for a in same[:n]
    }
    rows = sorted(
        ((*pair, *found) for pair, found in best.items()), key=lambda row: -row[2]
    )
    return make_table([dict(zip(_PAIR, row, strict=True)) for row in rows], _PAIR)


def _candidates(takes: Sequence[Landmarks]) -> Iterator[tuple[int, int, int]]:
    """Give pairs with more triplets in common than chance would have, and by how many semitones they are shifted."""
    kept: list[NDArray[np.int32]] = []
    n_expected = sum(len(marks.onsets) for marks in takes) * _FAN * (_FAN - 1) // 2
    step = (
        1 + n_expected // _MANY_HASHES
    )  # of many, a part will do, but the same at every pitch
    for marks in takes:
        hashes = np.unique(_triplets(marks.onsets).hashes)
        kept.append(
            hashes[hashes.astype(np.int64) % _PITCH * 2654435761 % 65521 % step == 0]
        )
    count = np.array([len(hashes) for hashes in kept])
    if count.sum() == 0:
        return
    everything = np.concatenate(kept)
    known, column, n_having = np.unique(
        everything, return_inverse=True, return_counts=True
    )
    usual = n_having > max(100, len(takes) // 100)
    row = np.repeat(np.arange(len(takes)), count)
    table = _sparse(row, column, usual, len(takes))
    for shift in range(_SHIFT + 1):
        moved = everything + np.int32(shift * _PITCH)
        place = np.minimum(np.searchsorted(known, moved), len(known) - 1)
        there = known[place] == moved
        yield from _crowded(
            _sparse(row[there], place[there], usual, len(takes)),
            table,
            count,
            step / _KINDS,
            shift,
        )


def _sparse(
    row: NDArray[Any], column: NDArray[Any], usual: NDArray[np.bool_], n: int
) -> "csr_array":
    """Make a matrix of recordings by hashes, without those that too many have."""
    from scipy.sparse import csr_array

    good = ~usual[column]
    return csr_array(
        (np.ones(good.sum(), np.int32), (row[good], column[good])),
        shape=(n, len(usual)),
    )


def _crowded(
    moved: "csr_array",
    table: "csr_array",
    count: NDArray[np.int64],
    chance: float,
    shift: int,
) -> Iterator[tuple[int, int, int]]:
    """Give the pairs of two matrices whose rows have much in common, block by block."""
    across = table.T.tocsr()
    for start in range(0, moved.shape[0], 256):
        common = (moved[start : start + 256] @ across).tocoo()
        one, other, n = common.row + start, common.col, common.data
        expected = count[one] * count[other] * chance
        good = n >= np.maximum(
            _FEWEST, 0.02 * np.minimum(count[one], count[other]) + 1.5 * expected
        )
        good &= one < other if shift == 0 else one != other
        yield from (
            (int(a), int(b), shift) for a, b in zip(one[good], other[good], strict=True)
        )


def _shared(
    one: _Triplets, other: _Triplets, shift: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Give the times, here and there, of triplets that look the same."""
    wanted = one.hashes + np.int32(shift * _PITCH)
    low, high = (
        np.searchsorted(other.hashes, wanted),
        np.searchsorted(other.hashes, wanted, "right"),
    )
    n = np.minimum(high - low, 4)  # of what is repeated, some will do
    place = np.repeat(low, n) + np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
    return np.repeat(one.seconds, n), other.seconds[place]


def _align(
    one: Landmarks,
    other: Landmarks,
    shift: int,
    shared: tuple[NDArray[np.float32], NDArray[np.float32]],
    least: float,
) -> tuple[float, float, float, int]:
    """Fit a line from time to time, and compare along it: match, offset, speed, shift."""
    nothing = 0.0, 0.0, 1.0, shift
    x, y = (np.asarray(side, np.float64) for side in shared)
    if len(x) < _FEWEST:
        return nothing
    rng = np.random.default_rng(0)
    a, b = rng.integers(len(x), size=(2, 500))
    a, b = a[np.abs(x[a] - x[b]) > 1], b[np.abs(x[a] - x[b]) > 1]
    slope = (y[a] - y[b]) / (x[a] - x[b])
    likely = (slope > _SPEEDS[0]) & (slope < _SPEEDS[1])
    slope, start = slope[likely], (y[a] - slope * x[a])[likely]
    if not len(slope):
        return nothing
    some = rng.permutation(len(x))[:500]
    best = (
        (np.abs(np.outer(slope, x[some]) + start[:, None] - y[some]) < 2 * _TOLERANCE)
        .sum(axis=1)
        .argmax()
    )
    line = np.array([slope[best], start[best]])
    for tolerance in (3 * _TOLERANCE, 2 * _TOLERANCE, _TOLERANCE):
        here, there = _partners(one.onsets, other.onsets, shift, line, tolerance)
        if len(here) < _FEWEST or np.ptp(here) < 1:
            return nothing
        line = np.polyfit(here, there, 1)
    if not _SPEEDS[0] < line[0] < _SPEEDS[1]:
        return nothing
    match = _correlate(one, other, shift, line)
    enough = match >= max(least, _SHORT_MATCH - _PER_SECOND * np.ptp(here))
    enough &= len(here) >= _COMMON * min(
        _n_inside(one, other, line), _n_inside(other, one, [1, -line[1]] / line[0])
    )
    return (match, float(line[1]), float(1 / line[0]), shift) if enough else nothing


def _partners(
    one: NDArray[np.float32],
    other: NDArray[np.float32],
    shift: int,
    line: NDArray[np.float64],
    tolerance: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the times of the onsets of one take that have one near them in the other, and of those."""
    from scipy.spatial import KDTree

    scale = np.array([tolerance, _SAME_PITCH])
    moved = np.stack([np.polyval(line, one[:, 0]), one[:, 1] + shift], axis=1)
    distance, partner = KDTree(other / scale).query(
        moved / scale, p=np.inf, distance_upper_bound=1
    )
    good = np.isfinite(distance)
    return one[good, 0].astype(np.float64), other[partner[good], 0].astype(np.float64)


def _n_inside(one: Landmarks, other: Landmarks, line: NDArray[np.float64]) -> int:
    """Count the onsets of one take where the other plays."""
    moved = np.polyval(line, one.onsets[:, 0])
    return int(np.sum((moved >= other.onsets[0, 0]) & (moved <= other.onsets[-1, 0])))


def _correlate(
    one: Landmarks, other: Landmarks, shift: int, line: NDArray[np.float64]
) -> float:
    """Correlate two sketches over time, along a line; rows count by how much happens in them."""
    step = one.frame_seconds
    place = (
        np.polyval(line, np.arange(one.sketch.shape[1], dtype=np.float64) * step) / step
    )  # in frames of the other
    inside = (place >= 0) & (place <= other.sketch.shape[1] - 1)
    if inside.sum() < min(one.sketch.shape[1], other.sketch.shape[1]) / 2:
        return 0.0
    n = len(one.sketch)
    rows = one.sketch[max(0, -shift) : n - max(0, shift), inside].astype(np.float32)
    place, part = np.divmod(place[inside], 1)
    low, high = (
        place.astype(int),
        np.minimum(place.astype(int) + 1, other.sketch.shape[1] - 1),
    )
    moved = other.sketch[max(0, shift) : n - max(0, -shift)].astype(np.float32)
    moved = moved[:, low] * (1 - part) + moved[:, high] * part
    rows, moved = (side - side.mean(axis=1, keepdims=True) for side in (rows, moved))
    return float(
        np.sum(rows * moved) / max(1e-9, np.sqrt(np.sum(rows**2) * np.sum(moved**2)))
    )


def _take(
    blocks: Iterator[NDArray[np.uint8]], info: RecordingInfo, spec: TileSpec
) -> Landmarks:
    return landmarks(np.concatenate(list(blocks)), spec)


def find_duplicates(
    X: Any,
    spec: TileSpec | str | None = None,
    n_jobs: int = 1,
    progress: Progress | None = None,
) -> "pd.DataFrame":
    """Find recordings that hold the same take, whatever they are called and whatever was done to their sound.

    Parameters
    ----------
    X : folder, table, TileSet, or sequence of paths or CQT arrays
        As for `list_recordings`.
    spec : TileSpec or str, optional
        What a pixel means; by default that of the tiles, or "fast" for recordings.
    n_jobs : int
        Processes that draw recordings, as joblib counts them.
    progress : callable, optional
        Gets an iterator, its length and a title, and gives the iterator back.

    Returns
    -------
    DataFrame
        One row per pair, surest first: `path`, `other path`, and as in `match_takes` `match`, `offset_seconds`, `speed`
        and `semitones`. Equal pictures match to 1.

    Notes
    -----
    Found are copies of another codec, level, tone, speed, tuning, room or noise, and parts of a take, not another
    performance of the same piece, whoever plays. A recording that cannot be read is named in the log and left out.
    """
    spec = resolve_spec(spec, X, "find_duplicates", "fast")
    recordings = list_recordings(X, caller="find_duplicates")
    take = functools.partial(_take, spec=spec)
    jobs = ((recording, spec, take) for recording in without_columns(recordings))
    takes: list[Landmarks] = []
    paths: list[str] = []
    fingerprints: list[str] = []
    n = len(recordings)
    results = run_parallel(
        extract_recording, jobs, n, n_jobs=n_jobs, progress=progress, title="onsets"
    )
    for path, (marks, info) in zip(recordings.paths, results, strict=True):
        if marks is None:
            log.warning("find_duplicates: left out %s", info.message)
            continue
        takes.append(cast(Landmarks, marks))
        paths.append(path)
        fingerprints.append(info.fingerprint)
    found = match_takes(takes, fingerprints, progress=progress).itertuples(
        index=False, name=None
    )
    named = [(paths[a], paths[b], *words) for a, b, *words in found]
    columns = ("path", "other path", *COLUMNS)
    return make_table([dict(zip(columns, row, strict=True)) for row in named], columns)
