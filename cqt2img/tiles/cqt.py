"""Constant-Q magnitudes in dB, relative to one reference per recording."""

import os

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.buffer import DiskBuffer
from cqt2img.errors import AudioError, InputError
from cqt2img.tiles.cqt_kernels import FloatArray, Samples, transform
from cqt2img.tiles.spec import TileSpec

# Analysis of the tuning and the bandwidth of a recording.
_WINDOW_LENGTH = 4096  # samples
_N_WINDOWS = 128  # spread evenly over the recording
_LOWEST_PEAK = 150.0  # Hz
_HIGHEST_PEAK = 4000.0  # Hz
_BANDWIDTH_DB = -80.0  # relative to the strongest frequency
# Peaks below these powers are ignored, in natural logarithms: 40 dB below the strongest
# peak of the same window, 50 dB below the strongest peak of the recording.
_PEAK_FLOOR_OF_WINDOW = np.log(1e-4)
_PEAK_FLOOR_OF_RECORDING = np.log(1e-5)

# Lower limits of the logarithm. Both are -200 dB, below every floor of a tile.
_LEAST_POWER = np.float32(1e-20)
_LEAST_MAGNITUDE = np.float32(1e-10)
_SILENCE_DB = -199  # everything up to here is digital silence


def estimate_tuning(wave: Samples, spec: TileSpec) -> float:
    """Estimate the deviation of a recording from A4 = 440 Hz, in cents.

    Parameters
    ----------
    wave : ndarray of float32 or DiskBuffer, shape (n_samples,)
        Mono audio at `spec.sample_rate`.
    spec : TileSpec
        Defines the sampling rate.

    Returns
    -------
    float
        Deviation in cents, -50 to 50; 0 if no pitch is found.

    Notes
    -----
    The circular mean of the deviations of spectral peaks from the nearest semitone,
    weighted by magnitude, over 128 windows from the whole recording. More accurate than
    `librosa.estimate_tuning` and eight times as fast (`benchmarks/tuning.py`).

    References
    ----------
    Karin Dressler and Sebastian Streich, "Tuning frequency estimation using circular
    statistics", 2007.
    """
    tuning_cents, _ = measure_spectrum(wave, spec)
    return tuning_cents


def measure_spectrum(wave: Samples, spec: TileSpec) -> tuple[float, float]:
    """Estimate the tuning and the bandwidth of a recording.

    Parameters
    ----------
    wave : ndarray of float32 or DiskBuffer, shape (n_samples,)
        Mono audio at `spec.sample_rate`.
    spec : TileSpec
        Defines the sampling rate.

    Returns
    -------
    tuning_cents : float
        See `estimate_tuning`.
    bandwidth_hz : float
        Highest frequency in Hz whose mean power is less than 80 dB below the maximum;
        0 for digital silence.
    """
    power = _compute_power(wave)
    mean_power = power.mean(axis=0)
    if not mean_power.any():
        return 0.0, 0.0
    hz_per_bin = spec.sample_rate / _WINDOW_LENGTH
    threshold = mean_power.max() * 10 ** (_BANDWIDTH_DB / 10)
    highest_bin = np.flatnonzero(mean_power > threshold)[-1]
    bandwidth_hz = float(highest_bin * hz_per_bin)
    first_bin = round(_LOWEST_PEAK / hz_per_bin)
    last_bin = round(_HIGHEST_PEAK / hz_per_bin)
    peak_bins, magnitudes = _find_peaks(power, first_bin, last_bin)
    if not len(peak_bins):
        return 0.0, bandwidth_hz
    octaves = np.log2(peak_bins * hz_per_bin / 440)
    angles = 2 * np.pi * 12 * octaves  # one turn of the circle is one semitone
    resultants = magnitudes * np.exp(1j * angles)
    mean_angle = np.angle(resultants.sum())
    tuning_cents = 100 * mean_angle / (2 * np.pi)
    return float(tuning_cents), bandwidth_hz


def _compute_power(wave: Samples) -> FloatArray:
    """Return power spectra of windows of a wave, shape (n_windows, n_frequencies)."""
    from scipy.fft import rfft

    last_start = max(0, len(wave) - _WINDOW_LENGTH)
    hop = max(_WINDOW_LENGTH // 2, last_start // (_N_WINDOWS - 1))
    starts = range(0, last_start + 1, hop)
    windows = np.zeros((len(starts), _WINDOW_LENGTH), np.float32)
    for index, start in enumerate(starts):
        samples = wave[start : start + _WINDOW_LENGTH]
        windows[index, : len(samples)] = samples
    hann = np.hanning(_WINDOW_LENGTH)
    windows *= hann.astype(np.float32)
    spectrum = rfft(windows, overwrite_x=True)  # stays in single precision
    return spectrum.real**2 + spectrum.imag**2


def _find_peaks(
    power: FloatArray, first_bin: int, last_bin: int
) -> tuple[NDArray[np.float64], FloatArray]:
    """Return fractional frequency bins and magnitudes of the peaks of all windows."""
    band = power[:, first_bin - 1 : last_bin + 2]
    log_power = np.log(band + _LEAST_POWER)
    left = log_power[:, :-2]
    middle = log_power[:, 1:-1]
    right = log_power[:, 2:]
    window_maximum = middle.max(axis=1, keepdims=True)
    is_peak = middle > left
    is_peak &= middle >= right
    is_peak &= middle > window_maximum + _PEAK_FLOOR_OF_WINDOW
    is_peak &= middle > middle.max() + _PEAK_FLOOR_OF_RECORDING
    peaks = np.nonzero(is_peak)
    below = left[peaks]
    at = middle[peaks]
    above = right[peaks]
    # The vertex of the parabola through the three values.
    slope = 0.5 * (below - above)
    curvature = below - 2 * at + above
    _, columns = peaks
    peak_bins = columns + first_bin + slope / curvature
    magnitudes = np.exp(at / 2)
    return peak_bins, magnitudes


def compute_cqt(
    wave: FloatArray, spec: TileSpec, tuning_cents: float | None = None
) -> FloatArray:
    """Compute the constant-Q transform of a recording, in dB.

    Parameters
    ----------
    wave : ndarray of float32, shape (n_samples,)
        Mono audio at `spec.sample_rate`.
    spec : TileSpec
        Defines bins and frames.
    tuning_cents : float, optional
        Shift of the bins from A4 = 440 Hz, in cents. By default the estimated tuning if
        `spec.tuning` is "remove", and 0 if it is "keep".

    Returns
    -------
    ndarray of float32, shape (n_bins, n_frames)
        Levels in dB relative to the reference of the recording, from `spec.min_db` to
        `spec.max_db`. Row 0 is the lowest bin; frame t is centred on sample
        `t * spec.hop_length`.

    Raises
    ------
    InputError
        If `wave` is not mono.
    AudioError
        If `wave` is empty, silent or not finite.

    Notes
    -----
    Within 0.1 dB of `librosa.vqt(..., sparsity=0)` above -60 dB. The default of
    librosa, `sparsity=0.01`, drops a hundredth of every kernel, which changes quiet
    pixels by up to 20 dB (`benchmarks/RESULTS.md`).

    References
    ----------
    Judith C. Brown, "Calculation of a constant Q spectral transform", 1991.
    Christian Schörkhuber et al., "A Matlab toolbox for efficient perfect reconstruction
    time-frequency transforms with log-frequency resolution", 2014.

    Examples
    --------
    >>> import numpy as np
    >>> spec = TileSpec.preset("piano")
    >>> tone = np.sin(2 * np.pi * 440 * np.arange(44100) / 22050).astype("float32")
    >>> cqt = compute_cqt(tone, spec)
    >>> spec.height - 1 - int(cqt[:, 40].argmax()) == spec.row_of_note(69)
    True
    """
    wave = np.asarray(wave, dtype=np.float32)
    if wave.ndim != 1:
        raise InputError(
            "compute_cqt: wave must be mono, shape (n_samples,), got shape "
            f"{wave.shape}. Average the channels first."
        )
    if not np.isfinite(wave).all():
        raise AudioError(
            "non_finite",
            "compute_cqt: wave must be finite, got NaN or infinity. "
            "Repair the recording.",
        )
    if not wave.any():
        raise AudioError(
            "silent",
            "compute_cqt: wave must not be silent, got only zeros. "
            "Remove the recording.",
        )
    if tuning_cents is None:
        keeps_tuning = spec.tuning == "keep"
        tuning_cents = 0.0 if keeps_tuning else estimate_tuning(wave, spec)
    rows, reference = measure_cqt(wave, spec, tuning_cents)
    with rows:
        levels = rows[:].T - reference
    return np.clip(levels, spec.min_db, spec.max_db)


def measure_cqt(
    wave: Samples,
    spec: TileSpec,
    tuning_cents: float,
    folder: str | os.PathLike[str] | None = None,
) -> tuple[DiskBuffer, np.float32]:
    """Compute the constant-Q transform of a recording of any length in bounded memory.

    Parameters
    ----------
    wave : ndarray of float32 or DiskBuffer, shape (n_samples,)
        Finite mono audio at `spec.sample_rate`.
    spec : TileSpec
        Defines bins and frames.
    tuning_cents : float
        Shift of the bins from A4 = 440 Hz, in cents.
    folder : str or Path, optional
        Folder for the temporary file of the result.

    Returns
    -------
    rows : DiskBuffer of float32, shape (n_frames, n_bins)
        Levels in dB without a reference. The caller must close the buffer.
    reference : float32
        Level that is 0 dB in the tiles: `spec.reference_percentile` of all levels.
    """
    rows = DiskBuffer(spec.n_bins, folder)
    n_frames = 1 + len(wave) // spec.hop_length
    n_values = n_frames * spec.n_bins
    percentile = _StreamingPercentile(n_values, spec.reference_percentile)
    for power in transform(wave, spec, tuning_cents):
        levels = _to_decibels(power, _LEAST_POWER, 10)
        percentile.add(levels)
        rows.append(levels)
    return rows, percentile.reference()


def _to_decibels(values: NDArray, least: np.float32, factor: float) -> FloatArray:
    """Return `factor` times the logarithm of values that are limited from below."""
    limited = np.maximum(values, least)
    result = np.log10(limited, dtype=np.float32)
    result *= np.float32(factor)
    return result


class _StreamingPercentile:
    """A high percentile of values that arrive in blocks; only the highest are kept.

    Parameters
    ----------
    n_values : int
        Number of values of all blocks.
    percentile : float
        Percentile from 50 to 100.
    """

    def __init__(self, n_values: int, percentile: float) -> None:
        position = (n_values - 1) * percentile / 100
        n_below, self.fraction = divmod(position, 1)
        self.n_kept = n_values - int(n_below)
        self.blocks: list[FloatArray] = []
        self.n_stored = 0
        self.threshold = -np.inf
        self.minimum = np.inf

    def add(self, block: FloatArray) -> None:
        """Add a block of values."""
        minimum = float(block.min())
        self.minimum = min(self.minimum, minimum)
        candidates = block[block > self.threshold]
        self.blocks.append(candidates)
        self.n_stored += len(candidates)
        if self.n_stored > 2 * self.n_kept + block.size:
            self._prune()

    def _prune(self) -> FloatArray:
        """Drop all but the `n_kept` highest values and return these."""
        values = np.concatenate(self.blocks)
        n_dropped = len(values) - self.n_kept
        values = np.partition(values, n_dropped)[n_dropped:]
        self.blocks = [values]
        self.n_stored = len(values)
        self.threshold = float(values[0])
        return values

    def reference(self) -> np.float32:
        """Return the percentile, or the maximum if the percentile is silence.

        The percentile is silence if less than `100 - percentile` percent of the values
        sound: a single note in a long pause.
        """
        values = np.sort(self._prune())
        maximum = values[-1]
        lower = values[0]
        upper = values[min(1, len(values) - 1)]
        step = (upper - lower) * np.float32(self.fraction)
        percentile = np.float32(lower + step)
        silence = max(self.minimum, maximum - 100)
        return maximum if percentile <= silence else percentile


def to_db(cqt: NDArray, spec: TileSpec) -> FloatArray:
    """Convert a CQT to dB relative to its own reference.

    Parameters
    ----------
    cqt : ndarray, shape (n_bins, n_frames)
        Complex values, magnitudes (if no value is negative), or dB relative to any
        reference (if some are).
    spec : TileSpec
        Defines the number of bins, the reference percentile and the range in dB.

    Returns
    -------
    ndarray of float32, shape (n_bins, n_frames)
        Levels from `spec.min_db` to `spec.max_db`; `spec.reference_percentile` of all
        values is 0 dB.

    Raises
    ------
    InputError
        If `cqt` is not a numeric array of shape `(spec.n_bins, n_frames)`.
    AudioError
        If `cqt` is empty, silent or not finite.
    """
    _check_cqt(cqt, spec)
    is_complex = cqt.dtype.kind == "c"
    values = np.abs(cqt) if is_complex else cqt
    if is_complex or values.min() >= 0:
        values = _to_decibels(values, _LEAST_MAGNITUDE, 20)
        is_silent = values.max() <= _SILENCE_DB
    else:
        is_silent = values.max() == values.min()
    if is_silent:
        raise AudioError(
            "silent", "cqt must not be silent, got one level. Remove the recording."
        )
    percentile = _StreamingPercentile(values.size, spec.reference_percentile)
    percentile.add(values.astype(np.float32, copy=False))
    reference = percentile.reference()
    # Levels that already have this reference stay exactly the same.
    if abs(reference) > 0.01:
        values = values - reference
    levels = np.clip(values, spec.min_db, spec.max_db)
    return levels.astype(np.float32, copy=False)


def _check_cqt(cqt: object, spec: TileSpec) -> None:
    """Raise an error if a CQT has the wrong type, shape or values."""
    if not isinstance(cqt, np.ndarray):
        raise InputError(
            f"cqt must be an array, got {type(cqt).__name__}. Use numpy.asarray."
        )
    if cqt.dtype.kind not in "fciu":
        raise InputError(f"cqt must be numeric, got dtype {cqt.dtype}.")
    if cqt.ndim != 2 or cqt.shape[0] != spec.n_bins:
        raise InputError(
            f"cqt must have {spec.n_bins} rows (n_bins), got shape {cqt.shape}. "
            "Compute it with the bins of the spec."
        )
    if not cqt.size:
        raise AudioError(
            "too_short", "cqt must have 1 frame or more, got 0. Remove the recording."
        )
    if not np.isfinite(cqt).all():
        raise AudioError(
            "non_finite",
            "cqt must be finite, got NaN or infinity. Repair the recording.",
        )
