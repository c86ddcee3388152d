"""Matching of landmarks: which recordings contain the same take."""

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.array_types import (
    BoolArray,
    Float32Array,
    Float64Array,
    IntArray,
)
from cqt2img._utils.progress import Progress
from cqt2img.auditing.landmarks import Landmarks

if TYPE_CHECKING:
    from scipy.sparse import csr_array

# Chosen on jazz `train`, `synth` with seed 1 and the singers, tested on others:
# benchmarks/RESULTS.md.
_MIN_GAP_SECONDS = 0.12  # between two onsets of a triplet
_MAX_SPAN_SECONDS = 2.0  # from the first to the last onset of a triplet
_N_NEIGHBOURS = 9  # onsets that follow the first and may complete a triplet
_MAX_INTERVAL = 24  # semitones
_N_INTERVALS = 2 * _MAX_INTERVAL + 1
_RATIO_STEPS = 8
_SPAN_STEPS = 16
_HASHES_PER_SEMITONE = 1 << 20  # distance of the hashes of a transposed triplet
# number of triplet kinds if all were equally likely: two takes with n and m triplets
# have n * m / 1e6 in common by chance
_N_KINDS = 1e6
# semitones: 3 % of speed or 50 cents, after tunings are removed; at 2, two takes of one
# piece matched
_MAX_SHIFT = 1
_MANY_HASHES = 20_000_000
_MANY_RECORDINGS = 100  # triplets of more recordings are ignored
_BLOCK_ROWS = 256  # of the sparse product, to bound its memory
_SPEEDS = (0.955, 1.045)
_N_TRIALS = 500  # random lines, and triplets that they are tested on
_TOLERANCE_SECONDS = 0.05
_TOLERANCE_SEMITONES = 0.9
_MIN_COMMON = 8  # onsets or triplets
# disguised copies have .85 and more, once .76; two synthetic takes of one melody up to
# .81 (planted.py)
_MIN_MATCH = 0.82
_MIN_COMMON_SHARE = 0.45  # of the onsets; disguised copies have .56 and more
# singers who repeat a line of 2 s reach .96: the shorter, the more similar it must be
_SHORT_MATCH = 1.05
_SHORT_MATCH_PER_SECOND = 0.04


Hashes: TypeAlias = NDArray[np.int32]


class TakePair(NamedTuple):
    """Two recordings of the same take.

    Parameters
    ----------
    first, second : int
        Indices of the recordings.
    match : float
        Correlation of their coarse spectrograms where they overlap, up to 1.
    offset_seconds : float
        Position of the start of the first recording in the second.
    speed : float
        Speed of the second recording relative to the first.
    semitones : int
        Transposition of the second recording relative to the first.
    """

    first: int
    second: int
    match: float
    offset_seconds: float = 0.0
    speed: float = 1.0
    semitones: int = 0

    def swap(self) -> "TakePair":
        """Return the same pair with first and second exchanged.

        Returns
        -------
        TakePair
            With the inverse offset, speed and transposition.
        """
        return TakePair(
            self.second,
            self.first,
            self.match,
            -self.offset_seconds * self.speed,
            1 / self.speed,
            -self.semitones,
        )


class _Triplets(NamedTuple):
    """Hashes of three onsets each, and the time of the first; ordered by hash."""

    hashes: Hashes
    seconds: Float32Array


class _Candidate(NamedTuple):
    """Two recordings that may contain the same take, `shift` semitones apart."""

    first: int
    second: int
    shift: int


class _Line(NamedTuple):
    """A linear map from the time of one recording to that of another."""

    slope: float
    offset: float

    def at(self, seconds: Float32Array | Float64Array) -> Float64Array:
        """Map seconds of the first recording to seconds of the second."""
        return self.slope * seconds.astype(np.float64) + self.offset

    def inverse(self) -> "_Line":
        """Return the map in the other direction."""
        slope = 1 / self.slope
        return _Line(slope, -self.offset * slope)


def match_takes(
    takes: Sequence[Landmarks],
    fingerprints: Sequence[str] = (),
    min_match: float = _MIN_MATCH,
    progress: Progress | None = None,
) -> list[TakePair]:
    """Find the pairs of recordings that contain the same take.

    Parameters
    ----------
    takes : sequence of Landmarks
        Landmarks of each recording.
    fingerprints : sequence of str, optional
        Hash of the tiles of each recording. Equal tiles are one take, even if they
        have no onsets.
    min_match : float
        Minimum `match` of a pair, 0 to 1. If the common sound is shorter than 7 s, more
        is required, up to .97 for 2 s.
    progress : callable, optional
        Called with an iterator, its length and a title; returns the iterator.

    Returns
    -------
    list of TakePair
        Best match first; `first` is lower than `second`.

    Notes
    -----
    A sparse product finds the pairs with many triplets of onsets in common. Random
    pairs of these triplets propose a line from the time of one recording to that of the
    other. The correlation of the spectrograms along this line decides: other
    performances of a piece have onsets in common, but not what sounds between them. The
    time of the sparse product grows with the square of the number of recordings.

    References
    ----------
    Avery Wang, "An industrial-strength audio search algorithm", 2003.
    Joren Six and Marc Leman, "Panako: a scalable acoustic fingerprinting system
    handling time-scale and pitch modification", 2014.
    """
    best: dict[tuple[int, int], TakePair] = {}
    for pair in _align_candidates(takes, min_match, progress):
        if pair.first > pair.second:
            pair = pair.swap()
        key = pair.first, pair.second
        known = best.get(key)
        if known is None or pair.match >= known.match:
            best[key] = pair
    for pair in _pair_equal(fingerprints):
        best[pair.first, pair.second] = pair
    return sorted(best.values(), key=lambda pair: -pair.match)


def _align_candidates(
    takes: Sequence[Landmarks], min_match: float, progress: Progress | None
) -> Iterator[TakePair]:
    """Yield the candidates that are the same take."""

    @functools.lru_cache(maxsize=4096)
    def triplets(index: int) -> _Triplets:
        return _compute_triplets(takes[index].onsets)

    candidates = list(_find_candidates(takes))
    steps = iter(candidates)
    if progress is not None:
        steps = progress(steps, len(candidates), "comparing takes")
    for candidate in steps:
        first, second, shift = candidate
        times = _match_triplets(triplets(first), triplets(second), shift)
        pair = _align(takes, candidate, *times, min_match)
        if pair is not None:
            yield pair


def _pair_equal(fingerprints: Sequence[str]) -> Iterator[TakePair]:
    """Yield the pairs of recordings with equal fingerprints."""
    earlier: dict[str, list[int]] = {}
    for fingerprint in fingerprints:
        earlier.setdefault(fingerprint, [])
    for index, fingerprint in enumerate(fingerprints):
        earlier[fingerprint].append(index)
    for indices in earlier.values():
        for position, second in enumerate(indices):
            for first in indices[:position]:
                yield TakePair(first, second, 1.0)


def _compute_triplets(onsets: Float32Array) -> _Triplets:
    """Hash every onset with two of the onsets that follow it."""
    seconds = onsets[:, 0].astype(np.float64)
    semitones = np.round(onsets[:, 1])
    pitches = semitones.astype(np.int64)
    start = np.searchsorted(seconds, seconds + _MIN_GAP_SECONDS)
    end = np.searchsorted(seconds, seconds + _MAX_SPAN_SECONDS)
    hashes = [np.zeros(0, np.int64)]
    times = [np.zeros(0)]
    for far in range(_N_NEIGHBOURS):
        first = np.flatnonzero(start + far < end)
        third = start[first] + far
        for near in range(far):
            second = start[first] + near
            found, is_valid = _hash_triplets(seconds, pitches, first, second, third)
            hashes.append(found[is_valid])
            times.append(seconds[first][is_valid])
    all_hashes = np.concatenate(hashes).astype(np.int32)
    all_times = np.concatenate(times).astype(np.float32)
    order = np.argsort(all_hashes, kind="stable")
    return _Triplets(all_hashes[order], all_times[order])


def _hash_triplets(
    seconds: Float64Array,
    pitches: IntArray,
    first: IntArray,
    second: IntArray,
    third: IntArray,
) -> tuple[IntArray, BoolArray]:
    """Return a hash for each triplet of onset indices, and whether it is valid.

    The hash holds the pitch of the first onset, the two intervals from it, the ratio of
    the two time spans, which does not depend on speed, and the coarse longer span.
    """
    interval = pitches[second] - pitches[first]
    wide_interval = pitches[third] - pitches[first]
    part = seconds[second] - seconds[first]
    span = seconds[third] - seconds[first]
    is_valid = span - part > _MIN_GAP_SECONDS
    is_valid &= np.abs(interval) <= _MAX_INTERVAL
    is_valid &= np.abs(wide_interval) <= _MAX_INTERVAL
    is_valid &= (interval != 0) | (wide_interval != 0)  # all music has repeated notes
    intervals = (interval + _MAX_INTERVAL) * _N_INTERVALS
    intervals += wide_interval + _MAX_INTERVAL
    ratio = np.floor(_RATIO_STEPS * part / span)
    coarse_span = np.floor(5 * np.log(span / 0.1))
    kind = intervals * _RATIO_STEPS + ratio
    kind = kind * _SPAN_STEPS + coarse_span
    hashes = pitches[first] * _HASHES_PER_SEMITONE
    return hashes + kind.astype(np.int64), is_valid


def _find_candidates(takes: Sequence[Landmarks]) -> Iterator[_Candidate]:
    """Yield the pairs with more triplets in common than chance explains."""
    thinning = _choose_thinning(takes)
    kept = [_select_hashes(take, thinning) for take in takes]
    counts = np.array([len(hashes) for hashes in kept])
    if counts.sum() == 0:
        return
    hashes = np.concatenate(kept)
    known, column, n_having = np.unique(hashes, return_inverse=True, return_counts=True)
    is_common = n_having > max(_MANY_RECORDINGS, len(takes) // 100)
    row = np.repeat(np.arange(len(takes)), counts)
    table = _occurrences(row, column, is_common, len(takes))
    chance = thinning / _N_KINDS
    for shift in range(_MAX_SHIFT + 1):
        transposed = hashes + np.int32(shift * _HASHES_PER_SEMITONE)
        position = np.searchsorted(known, transposed)
        position = np.minimum(position, len(known) - 1)
        exists = known[position] == transposed
        shifted = _occurrences(row[exists], position[exists], is_common, len(takes))
        yield from _find_similar_rows(shifted, table, counts, chance, shift)


def _choose_thinning(takes: Sequence[Landmarks]) -> int:
    """Return n such that every n-th hash is enough; 1 for few recordings."""
    triplets_per_onset = _N_NEIGHBOURS * (_N_NEIGHBOURS - 1) // 2
    n_hashes = sum(len(take.onsets) for take in takes) * triplets_per_onset
    return 1 + n_hashes // _MANY_HASHES


def _select_hashes(take: Landmarks, thinning: int) -> Hashes:
    """Return the distinct hashes of a recording; the same part at every pitch."""
    hashes = np.unique(_compute_triplets(take.onsets).hashes)
    kind = hashes.astype(np.int64) % _HASHES_PER_SEMITONE
    scrambled = kind * 2654435761 % 65521
    return hashes[scrambled % thinning == 0]


def _occurrences(
    row: IntArray,
    column: IntArray,
    is_common: BoolArray,
    n_rows: int,
) -> "csr_array":
    """Return the matrix of recordings by hashes, without the common hashes."""
    from scipy.sparse import csr_array

    kept = ~is_common[column]
    ones = np.ones(kept.sum(), np.int32)
    positions = (row[kept], column[kept])
    shape = (n_rows, len(is_common))
    return csr_array((ones, positions), shape=shape)


def _find_similar_rows(
    shifted: "csr_array",
    table: "csr_array",
    counts: IntArray,
    chance: float,
    shift: int,
) -> Iterator[_Candidate]:
    """Yield the pairs of rows with many hashes in common, block by block."""
    transposed_table = table.T.tocsr()
    for start in range(0, shifted.shape[0], _BLOCK_ROWS):
        block = shifted[start : start + _BLOCK_ROWS]
        common = (block @ transposed_table).tocoo()
        first = common.row + start
        second = common.col
        expected = counts[first] * counts[second] * chance
        smaller = np.minimum(counts[first], counts[second])
        required = np.maximum(_MIN_COMMON, 0.02 * smaller + 1.5 * expected)
        is_candidate = common.data >= required
        is_candidate &= first < second if shift == 0 else first != second
        candidates = np.stack([first, second], axis=1)[is_candidate]
        for row, column in candidates.tolist():
            yield _Candidate(row, column, shift)


def _match_triplets(
    first: _Triplets, second: _Triplets, shift: int
) -> tuple[Float64Array, Float64Array]:
    """Return the times of equal triplets in both recordings."""
    wanted = first.hashes + np.int32(shift * _HASHES_PER_SEMITONE)
    low = np.searchsorted(second.hashes, wanted)
    high = np.searchsorted(second.hashes, wanted, "right")
    n_equal = np.minimum(high - low, 4)  # of what is repeated, a few are enough
    n_before = np.cumsum(n_equal) - n_equal
    rank = np.arange(n_equal.sum()) - np.repeat(n_before, n_equal)
    index = np.repeat(low, n_equal) + rank
    first_times = np.repeat(first.seconds, n_equal)
    second_times = second.seconds[index]
    return first_times.astype(np.float64), second_times.astype(np.float64)


def _align(
    takes: Sequence[Landmarks],
    candidate: _Candidate,
    first_times: Float64Array,
    second_times: Float64Array,
    min_match: float,
) -> TakePair | None:
    """Fit a line through equal triplets, and compare two recordings along it."""
    first = takes[candidate.first]
    second = takes[candidate.second]
    line = _propose_line(first_times, second_times)
    if line is None:
        return None
    refined = _refine_line(first, second, candidate.shift, line)
    if refined is None:
        return None
    line, common_times = refined
    match = _correlate(first, second, candidate.shift, line)
    seconds = np.ptp(common_times)
    required = _SHORT_MATCH - _SHORT_MATCH_PER_SECOND * seconds
    if match < max(min_match, required):
        return None
    n_first = _count_onsets_inside(first, second, line)
    n_second = _count_onsets_inside(second, first, line.inverse())
    if len(common_times) < _MIN_COMMON_SHARE * min(n_first, n_second):
        return None
    return TakePair(
        first=candidate.first,
        second=candidate.second,
        match=match,
        offset_seconds=line.offset,
        speed=1 / line.slope,
        semitones=candidate.shift,
    )


def _propose_line(x: Float64Array, y: Float64Array) -> _Line | None:
    """Return the line through two triplets that most triplets agree with."""
    if len(x) < _MIN_COMMON:
        return None
    rng = np.random.default_rng(0)
    one, other = rng.integers(len(x), size=(2, _N_TRIALS))
    run = x[one] - x[other]
    is_apart = np.abs(run) > 1
    one = one[is_apart]
    other = other[is_apart]
    rise = y[one] - y[other]
    slopes = rise / run[is_apart]
    offsets = y[one] - slopes * x[one]
    slowest, fastest = _SPEEDS
    is_likely = (slopes > slowest) & (slopes < fastest)
    if not is_likely.any():
        return None
    slopes = slopes[is_likely]
    offsets = offsets[is_likely]
    tested = rng.permutation(len(x))[:_N_TRIALS]
    predicted = np.outer(slopes, x[tested]) + offsets[:, None]
    error = np.abs(predicted - y[tested])
    n_close = np.sum(error < 2 * _TOLERANCE_SECONDS, axis=1)
    best = n_close.argmax()
    return _Line(float(slopes[best]), float(offsets[best]))


def _refine_line(
    first: Landmarks, second: Landmarks, shift: int, line: _Line
) -> tuple[_Line, Float64Array] | None:
    """Fit the line to common onsets, with less and less tolerance.

    Returns the line and the times of the common onsets in the first recording.
    """
    for factor in (3, 2, 1):
        tolerance = factor * _TOLERANCE_SECONDS
        here, there = _match_onsets(first, second, shift, line, tolerance)
        if len(here) < _MIN_COMMON or np.ptp(here) < 1:
            return None
        slope, offset = np.polyfit(here, there, 1)
        line = _Line(float(slope), float(offset))
    if not _SPEEDS[0] < line.slope < _SPEEDS[1]:
        return None
    return line, here


def _match_onsets(
    first: Landmarks, second: Landmarks, shift: int, line: _Line, tolerance: float
) -> tuple[Float64Array, Float64Array]:
    """Return the times of common onsets, in the first recording and in the second."""
    from scipy.spatial import KDTree

    scale = np.array([tolerance, _TOLERANCE_SEMITONES])
    seconds, semitones = first.onsets.T
    moved = np.stack([line.at(seconds), semitones + shift], axis=1)
    tree = KDTree(second.onsets / scale)
    distance, nearest = tree.query(moved / scale, p=np.inf, distance_upper_bound=1)
    is_common = np.isfinite(distance)
    here = seconds[is_common]
    there = second.onsets[nearest[is_common], 0]
    return here.astype(np.float64), there.astype(np.float64)


def _count_onsets_inside(first: Landmarks, second: Landmarks, line: _Line) -> int:
    """Count the onsets of the first recording during those of the second."""
    moved = line.at(first.onsets[:, 0])
    start = second.onsets[0, 0]
    end = second.onsets[-1, 0]
    is_inside = (moved >= start) & (moved <= end)
    return int(is_inside.sum())


def _correlate(first: Landmarks, second: Landmarks, shift: int, line: _Line) -> float:
    """Correlate two spectrograms along a line in time.

    Semitones count by their variance. Returns 0 if less than half of the shorter
    recording overlaps.
    """
    n_semitones, n_first = first.spectrogram.shape
    n_second = second.spectrogram.shape[1]
    step = first.frame_seconds
    seconds = step * np.arange(n_first, dtype=np.float64)
    position = line.at(seconds) / step  # in frames of the second recording
    is_inside = (position >= 0) & (position <= n_second - 1)
    if is_inside.sum() < min(n_first, n_second) / 2:
        return 0.0
    lowest = max(0, -shift)
    highest = n_semitones - max(0, shift)
    rows = first.spectrogram[lowest:highest, is_inside]
    ours = rows.astype(np.float32)
    rows = second.spectrogram[lowest + shift : highest + shift]
    theirs = _interpolate_frames(rows.astype(np.float32), position[is_inside])
    ours = ours - ours.mean(axis=1, keepdims=True)
    theirs = theirs - theirs.mean(axis=1, keepdims=True)
    covariance = np.sum(ours * theirs)
    energy = np.sum(ours**2) * np.sum(theirs**2)
    return float(covariance / max(1e-9, np.sqrt(energy)))


def _interpolate_frames(frames: Float32Array, position: Float64Array) -> Float64Array:
    """Interpolate linearly between frames at fractional positions."""
    whole, fraction = np.divmod(position, 1)
    last = frames.shape[1] - 1
    before = whole.astype(int)
    after = np.minimum(before + 1, last)
    left = frames[:, before] * (1 - fraction)
    right = frames[:, after] * fraction
    return left + right
