"""From a wave to constant-Q magnitudes in dB against one reference for the whole recording."""

import os

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.buffer import DiskBuffer
from cqt2img.errors import AudioError, InputError
from cqt2img.tiles.cqt_kernels import transform
from cqt2img.tiles.spec import TileSpec

_WINDOW, _N_WINDOWS = (
    4096,
    128,
)  # samples, and how many windows are spread over a recording
_PITCHES = 150.0, 4000.0  # Hz between which partials tell the tuning
_BAND_DB = (
    -80.0
)  # what lies lower than this below the strongest frequency does not count as sound


def estimate_tuning(wave: NDArray[np.float32] | DiskBuffer, spec: TileSpec) -> float:
    """Measure how far a recording is tuned from A4 = 440 Hz, in cents.

    Parameters
    ----------
    wave : ndarray of float32 or DiskBuffer, shape (n_samples,)
        Mono audio at `spec.sample_rate`.
    spec : TileSpec
        Says the sample rate.

    Returns
    -------
    float
        Cents from -50 to 50; 0 where no pitch is found.

    Notes
    -----
    The circular mean of the deviations of all spectral peaks from the nearest semitone, weighted by their magnitude,
    over 128 windows from the first to the last second.

    References
    ----------
    Karin Dressler and Sebastian Streich, "Tuning frequency estimation using circular statistics", 2007.
    """
    return measure_spectrum(wave, spec)[0]


def measure_spectrum(
    wave: NDArray[np.float32] | DiskBuffer, spec: TileSpec
) -> tuple[float, float]:
    """Measure the tuning of a recording, and up to which frequency it has sound.

    Parameters
    ----------
    wave : ndarray of float32 or DiskBuffer, shape (n_samples,)
        Mono audio at `spec.sample_rate`.
    spec : TileSpec
        Says the sample rate.

    Returns
    -------
    tuning_cents : float
        As of `estimate_tuning`.
    bandwidth_hz : float
        The highest frequency whose mean power is less than 80 dB below that of the strongest one.
    """
    from scipy.fft import rfft

    hop = max(_WINDOW // 2, (len(wave) - _WINDOW) // (_N_WINDOWS - 1))
    starts = range(0, max(1, len(wave) - _WINDOW + 1), hop)
    windows = np.zeros((len(starts), _WINDOW), np.float32)
    for window, start in zip(windows, starts, strict=True):
        part = wave[start : start + _WINDOW]
        window[: len(part)] = part
    spectrum = rfft(
        windows * np.hanning(_WINDOW).astype(np.float32), overwrite_x=True
    )  # stays in single precision
    power = spectrum.real**2 + spectrum.imag**2
    mean = power.mean(axis=0)
    if not mean.any():
        return 0.0, 0.0
    hz = spec.sample_rate / _WINDOW
    bandwidth = float(
        np.flatnonzero(mean > mean.max() * 10 ** (_BAND_DB / 10))[-1] * hz
    )
    low, high = (round(pitch / hz) for pitch in _PITCHES)
    band = np.log(power[:, low - 1 : min(high + 2, power.shape[1])] + np.float32(1e-20))
    middle = band[:, 1:-1]
    peaks = (middle > band[:, :-2]) & (middle >= band[:, 2:])
    # 40 dB below the loudest partial of its window, 50 dB below that of the recording
    peaks &= (middle > middle.max(axis=1, keepdims=True) + np.log(1e-4)) & (
        middle > middle.max() + np.log(1e-5)
    )
    row, column = np.nonzero(peaks)
    below, at, above = band[row, column], band[row, column + 1], band[row, column + 2]
    place = column + low + 0.5 * (below - above) / (below - 2 * at + above)
    angles = 2 * np.pi * 12 * np.log2(place * hz / 440)
    mean_angle = (
        np.angle((np.exp(at / 2) * np.exp(1j * angles)).sum()) if len(row) else 0.0
    )
    return float(100 * mean_angle / (2 * np.pi)), bandwidth


def compute_cqt(
    wave: NDArray[np.float32], spec: TileSpec, tuning_cents: float | None = None
) -> NDArray[np.float32]:
    """Transform a whole recording, in dB relative to its own reference.

    Parameters
    ----------
    wave : ndarray of float32, shape (n_samples,)
        Mono audio at `spec.sample_rate`.
    spec : TileSpec
        Says which bins and frames.
    tuning_cents : float, optional
        How far the bins move from A4 = 440 Hz, in cents. By default it is measured where
        `spec.tuning` is "remove", and 0 where it is "keep".

    Returns
    -------
    ndarray of float32, shape (n_bins, n_frames)
        dB from `spec.min_db` to `spec.max_db`. Row 0 is the lowest bin; frame t is centred on
        sample `t * spec.hop_length`.

    Raises
    ------
    InputError
        If `wave` is not mono.
    AudioError
        If `wave` is empty, silent, or holds a NaN or an infinity.

    Notes
    -----
    Within 0.1 dB of `librosa.vqt(..., sparsity=0)` above -60 dB. What librosa gives by default is rounded: it drops a
    hundredth of every kernel, which moves quiet pixels by up to 20 dB (`benchmarks/RESULTS.md`).

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
            f"compute_cqt: wave must be mono, got shape {wave.shape}. Average its channels first."
        )
    if not np.isfinite(wave).all():
        raise AudioError(
            "non_finite",
            "compute_cqt: wave must be finite, got NaN or infinity. Repair the recording.",
        )
    if not wave.any():
        raise AudioError(
            "silent",
            "compute_cqt: wave must hold sound, got silence. Leave the recording out.",
        )
    if tuning_cents is None:
        tuning_cents = estimate_tuning(wave, spec) if spec.tuning == "remove" else 0.0
    rows, reference = measure_cqt(wave, spec, tuning_cents)
    with rows:
        return np.clip(rows[:].T - reference, spec.min_db, spec.max_db)


def measure_cqt(
    wave: NDArray[np.float32] | DiskBuffer,
    spec: TileSpec,
    tuning_cents: float,
    folder: str | os.PathLike[str] | None = None,
) -> tuple[DiskBuffer, np.float32]:
    """Transform a recording of any length in little memory.

    Parameters
    ----------
    wave : ndarray of float32 or DiskBuffer, shape (n_samples,)
        Finite mono audio at `spec.sample_rate`.
    spec : TileSpec
        Says which bins and frames.
    tuning_cents : float
        How far the bins move from A4 = 440 Hz, in cents.
    folder : str or Path, optional
        Where what does not fit into memory is kept until the DiskBuffer is closed.

    Returns
    -------
    rows : DiskBuffer of float32, shape (n_frames, n_bins)
        dB.
    reference : float32
        What is to be 0 dB: `spec.reference_percentile` of all values.
    """
    rows = DiskBuffer(spec.n_bins, folder)
    highest = _Highest(
        (1 + len(wave) // spec.hop_length) * spec.n_bins, spec.reference_percentile
    )
    for block in transform(wave, spec, tuning_cents):
        decibels = _decibels(block, np.float32(1e-20), 10)
        highest.add(decibels)
        rows.append(decibels)
    return rows, highest.reference()


def _decibels(values: NDArray, least: np.float32, factor: float) -> NDArray[np.float32]:
    """Take the logarithm, kept away from zero at -200 dB, which lies below every floor."""
    result = np.log10(np.maximum(values, least), dtype=np.float32)
    result *= np.float32(factor)
    return result


class _Highest:
    """A high percentile of many values that pass in blocks: only those above it are kept."""

    def __init__(self, n_values: int, percentile: float) -> None:
        below, self.part = divmod((n_values - 1) * percentile / 100, 1)
        self.n_kept = n_values - int(below)
        self.parts: list[NDArray[np.float32]] = []
        self.n_held = 0
        self.floor, self.least = -np.inf, np.inf

    def add(self, block: NDArray[np.float32]) -> None:
        self.least = min(self.least, float(block.min()))
        self.parts.append(block[block > self.floor])
        self.n_held += len(self.parts[-1])
        if self.n_held > 2 * self.n_kept + block.size:
            self._forget()

    def _forget(self) -> NDArray[np.float32]:
        values = np.concatenate(self.parts)
        values = np.partition(values, len(values) - self.n_kept)[-self.n_kept :]
        self.parts, self.n_held, self.floor = [values], len(values), float(values[0])
        return values

    def reference(self) -> np.float32:
        """Give the percentile, or the highest value where so little sounds that it lies in the silence."""
        values = np.sort(self._forget())
        above = values[min(1, len(values) - 1)]
        reference = np.float32(values[0] + (above - values[0]) * np.float32(self.part))
        return (
            values[-1] if reference <= max(self.least, values[-1] - 100) else reference
        )


def to_db(cqt: NDArray, spec: TileSpec) -> NDArray[np.float32]:
    """Bring a CQT in any usual form to dB relative to its own reference.

    Parameters
    ----------
    cqt : ndarray, shape (n_bins, n_frames)
        Complex values, magnitudes (nothing negative), or dB (something negative) against any
        reference.
    spec : TileSpec
        Says the number of bins, the reference percentile and the range in dB.

    Returns
    -------
    ndarray of float32, shape (n_bins, n_frames)
        dB from `spec.min_db` to `spec.max_db`; `spec.reference_percentile` of all values is 0 dB.

    Raises
    ------
    InputError
        If the shape is not `(spec.n_bins, n_frames)` or the values are not numbers.
    AudioError
        If the array is empty, silent, or holds a NaN or an infinity.
    """
    if not isinstance(cqt, np.ndarray) or cqt.dtype.kind not in "fciu":
        raise InputError(
            f"to_db: cqt must be an array of numbers, got {type(cqt).__name__}. Use numpy.asarray."
        )
    if cqt.ndim != 2 or cqt.shape[0] != spec.n_bins:
        raise InputError(
            f"to_db: cqt must have {spec.n_bins} rows, got shape {cqt.shape}. Compute it with the same spec."
        )
    if not cqt.size:
        raise AudioError(
            "too_short",
            "to_db: cqt must have one frame or more, got none. Leave the recording out.",
        )
    if not np.isfinite(cqt).all():
        raise AudioError(
            "non_finite",
            "to_db: cqt must be finite, got NaN or infinity. Repair the recording.",
        )
    values = np.abs(cqt) if cqt.dtype.kind == "c" else cqt
    if cqt.dtype.kind == "c" or values.min() >= 0:
        values = _decibels(values, np.float32(1e-10), 20)
        if values.max() <= -199:
            raise AudioError(
                "silent",
                "to_db: cqt must hold sound, got silence. Leave the recording out.",
            )
    elif values.max() == values.min():
        raise AudioError(
            "silent",
            "to_db: cqt must hold sound, got one value throughout. Leave the recording out.",
        )
    highest = _Highest(values.size, spec.reference_percentile)
    highest.add(values.astype(np.float32, copy=False))
    reference = highest.reference()
    if (
        abs(reference) > 0.01
    ):  # what was in dB against its reference already stays as it is, to the bit
        values = values - reference
    return np.clip(values, spec.min_db, spec.max_db).astype(np.float32, copy=False)
