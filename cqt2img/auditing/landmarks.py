"""Landmarks of a recording: what equaliser, codec, room and noise leave unchanged."""

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.array_types import (
    BoolArray,
    Float32Array,
    Float64Array,
    IntArray,
    Tiles,
)
from cqt2img.tiles.spec import TileSpec

# Chosen on jazz `train`, `synth` with seed 1 and the singers, tested on others:
# benchmarks/RESULTS.md.
_SMOOTHING_SECONDS = 0.08  # makes the time of an onset independent of the frame grid
_FLOOR_DB = -30.0  # below, room and noise dominate
_MIN_RISE_DB = 6.0
_BLOCK_SECONDS = 3.0
_ONSETS_PER_BLOCK = 24
_LOWEST_SEMITONE = 9  # above f_min; below, windows are too long to locate an onset
_PEAK_SECONDS = 0.07  # an onset is the steepest rise within this distance
_FRAME_SECONDS = 0.1  # of the coarse spectrogram
_COARSE_SEMITONES = (12, 72)  # its range above f_min: five octaves


Levels: TypeAlias = NDArray[np.uint8]  # of the rows of a CQT, lowest first


class Landmarks(NamedTuple):
    """A compact description of a recording: a few hundred bytes per second.

    Parameters
    ----------
    onsets : ndarray of float32, shape (n_onsets, 2)
        Seconds, and semitones above `f_min`; ordered by time. At most 8 per second.
    spectrogram : ndarray of uint8, shape (n_semitones, n_frames)
        Levels above a floor of -30 dB; low pitch first.
    frame_seconds : float
        Hop between frames of the spectrogram.
    """

    onsets: Float32Array
    spectrogram: Levels
    frame_seconds: float


def compute_landmarks(tiles: Tiles, spec: TileSpec) -> Landmarks:
    """Compute the onsets and a coarse spectrogram of one recording.

    Parameters
    ----------
    tiles : ndarray of uint8, shape (n_tiles, height, width)
        Levels of one recording, in order.
    spec : TileSpec
        The meaning of a pixel.

    Returns
    -------
    Landmarks
        Onsets and coarse spectrogram.

    Notes
    -----
    An onset is a peak of the smoothed rise of the level in one row. Its time between
    columns is that of the vertex of a parabola through the peak and its neighbours.

    Examples
    --------
    Silence has no onsets; a note that begins after 2 s has one in its row:

    >>> spec = TileSpec.preset("fast")
    >>> tiles = np.zeros((1, *spec.size), np.uint8)
    >>> compute_landmarks(tiles, spec).onsets.shape
    (0, 2)
    >>> tiles[0, spec.row_of_note(69), round(2 / spec.frame_seconds) :] = 230
    >>> compute_landmarks(tiles, spec).onsets.round(1).tolist()
    [[2.0, 48.0]]
    """
    levels = _levels_above_floor(tiles, spec)
    spectrogram, frame_seconds = _coarse_spectrogram(levels, spec)
    return Landmarks(_find_onsets(levels, spec), spectrogram, frame_seconds)


def _levels_above_floor(tiles: Tiles, spec: TileSpec) -> Levels:
    """Join tiles in time: shape (n_bins, n_tiles * width), low pitch first."""
    rows = tiles.swapaxes(0, 1)
    joined = rows.reshape(spec.height, -1)
    levels = joined[::-1][: spec.n_bins]
    floor_level = (_FLOOR_DB - spec.min_db) / spec.step_db
    floor = np.uint8(np.clip(floor_level, 0, 255))
    return np.maximum(levels, floor) - floor


def _find_onsets(levels: Levels, spec: TileSpec) -> Float32Array:
    """Return seconds and semitones of the steepest onsets, ordered by time."""
    bins_per_semitone = spec.bins_per_octave // 12
    rise = _compute_rise(levels, spec)
    row, column = np.nonzero(_find_peaks(rise, spec))
    before = rise[row, column - 1]
    peak = rise[row, column]
    after = rise[row, column + 1]
    curvature = 2 * peak - before - after
    shift = 0.5 * (after - before) / np.maximum(curvature, 1e-3)
    seconds = (column + shift) * spec.frame_seconds
    kept = _select_steepest(seconds, peak)
    semitones = row / bins_per_semitone
    onsets = np.stack([seconds, semitones], axis=1)
    onsets = onsets[kept].astype(np.float32)
    by_time = np.lexsort(onsets.T[::-1])
    return onsets[by_time]


def _compute_rise(levels: Levels, spec: TileSpec) -> Float32Array:
    """Return the smoothed rise of every row, in dB of a step in level."""
    from scipy.ndimage import gaussian_filter1d

    sigma = _SMOOTHING_SECONDS / spec.frame_seconds
    decibels = levels.astype(np.float32) * np.float32(spec.step_db)
    slope = gaussian_filter1d(decibels, sigma, axis=1, order=1, truncate=3)
    rise = slope * np.float32(2.5 * sigma)
    n_low = _LOWEST_SEMITONE * spec.bins_per_octave // 12
    rise[:n_low] = 0
    return rise


def _find_peaks(rise: Float32Array, spec: TileSpec) -> BoolArray:
    """Mark the rises that are the largest within a semitone and 0.07 s."""
    from scipy.ndimage import maximum_filter

    bins_per_semitone = spec.bins_per_octave // 12
    n_columns = max(1, round(_PEAK_SECONDS / spec.frame_seconds))
    neighbourhood = (2 * bins_per_semitone + 1, 2 * n_columns + 1)
    is_peak = rise == maximum_filter(rise, neighbourhood)
    is_peak &= rise > _MIN_RISE_DB
    is_above_last = rise[:, 1:] > rise[:, :-1]
    is_peak[:, 1:] &= is_above_last  # the first of equal columns
    is_peak[:, [0, -1]] = False
    return is_peak


def _select_steepest(seconds: Float64Array, rise: Float32Array) -> IntArray:
    """Return the indices of the steepest onsets of every block of 3 s."""
    block = seconds // _BLOCK_SECONDS
    order = np.lexsort((-rise, block))
    ordered_block = block[order]
    first_of_block = np.searchsorted(ordered_block, ordered_block)
    rank = np.arange(len(order)) - first_of_block
    return order[rank < _ONSETS_PER_BLOCK]


def _coarse_spectrogram(levels: Levels, spec: TileSpec) -> tuple[Levels, float]:
    """Return the loudest row of every semitone in frames of about 0.1 s."""
    bins_per_semitone = spec.bins_per_octave // 12
    columns_per_frame = max(1, round(_FRAME_SECONDS / spec.frame_seconds))
    n_frames = levels.shape[1] // columns_per_frame
    n_columns = n_frames * columns_per_frame
    lowest, highest = _COARSE_SEMITONES
    first_row = lowest * bins_per_semitone
    n_semitones = min(highest, len(levels) // bins_per_semitone) - lowest
    end_row = first_row + n_semitones * bins_per_semitone
    rows = levels[first_row:end_row, :n_columns]
    bins = rows.reshape(n_semitones, bins_per_semitone, n_columns)
    semitones = bins.max(axis=1)
    frames = semitones.reshape(n_semitones, n_frames, columns_per_frame)
    means = frames.mean(axis=2)
    frame_seconds = columns_per_frame * spec.frame_seconds
    return means.astype(np.uint8), frame_seconds
