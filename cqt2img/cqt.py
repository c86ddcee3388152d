"""From a wave to constant-Q magnitudes in dB against one reference for the whole recording."""

import warnings

import numpy as np
from numpy.typing import NDArray

from cqt2img.errors import AudioError, InputError
from cqt2img.spec import TileSpec

_TUNING_SECONDS = 60  # a minute from the middle is enough to hear how a piano is tuned


def estimate_tuning(wave: NDArray[np.float32], spec: TileSpec) -> float:
    """Measure how far a recording is tuned from A4 = 440 Hz, in cents.

    Parameters
    ----------
    wave : ndarray of float32, shape (n_samples,)
        Mono audio at `spec.sample_rate`.
    spec : TileSpec
        Says the sample rate.

    Returns
    -------
    float
        Cents from -50 to 50; 0 where no pitch is found.
    """
    import librosa

    size = _TUNING_SECONDS * spec.sample_rate
    start = max(0, (len(wave) - size) // 2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Trying to estimate tuning from empty frequency set")
        warnings.filterwarnings("ignore", message="n_fft=.* is too large")
        warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm, when librosa is first used
        return 100 * float(librosa.estimate_tuning(y=wave[start : start + size], sr=spec.sample_rate))


def compute_cqt(wave: NDArray[np.float32], spec: TileSpec, tuning_cents: float | None = None) -> NDArray[np.float32]:
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
    import librosa

    wave = np.asarray(wave, dtype=np.float32)
    if wave.ndim != 1:
        raise InputError(f"compute_cqt: wave must be mono, got shape {wave.shape}. Average its channels first.")
    if not np.isfinite(wave).all():
        raise AudioError("non_finite", "compute_cqt: wave must be finite, got NaN or infinity. Repair the recording.")
    if not wave.any():
        raise AudioError("silent", "compute_cqt: wave must hold sound, got silence. Leave the recording out.")
    if tuning_cents is None:
        tuning_cents = estimate_tuning(wave, spec) if spec.tuning == "remove" else 0.0
    with warnings.catch_warnings():
        # a recording shorter than the longest window is padded with silence, which is what it is
        warnings.filterwarnings("ignore", message="n_fft=.* is too large")
        warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm, when librosa is first used
        cqt = librosa.vqt(
            wave,
            sr=spec.sample_rate,
            hop_length=spec.hop_length,
            fmin=spec.f_min,
            n_bins=spec.n_bins,
            bins_per_octave=spec.bins_per_octave,
            gamma=spec.gamma,
            tuning=tuning_cents / 100 * spec.bins_per_octave / 12,
        )
    return to_db(cqt, spec)


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
        raise InputError(f"to_db: cqt must be an array of numbers, got {type(cqt).__name__}. Use numpy.asarray.")
    if cqt.ndim != 2 or cqt.shape[0] != spec.n_bins:
        raise InputError(
            f"to_db: cqt must have {spec.n_bins} rows, got shape {cqt.shape}. Compute it with the same spec."
        )
    if not cqt.size:
        raise AudioError("too_short", "to_db: cqt must have one frame or more, got none. Leave the recording out.")
    if not np.isfinite(cqt).all():
        raise AudioError("non_finite", "to_db: cqt must be finite, got NaN or infinity. Repair the recording.")
    values = np.abs(cqt) if cqt.dtype.kind == "c" else cqt
    if cqt.dtype.kind == "c" or values.min() >= 0:
        # -200 dB keeps the logarithm away from zero and lies below every floor
        least = np.maximum(values, 1e-10, dtype=np.result_type(values, np.float32))  # float16 has no 1e-10
        values = 20 * np.log10(least, dtype=np.float32)
        if values.max() <= -199:
            raise AudioError("silent", "to_db: cqt must hold sound, got silence. Leave the recording out.")
    elif values.max() == values.min():
        raise AudioError("silent", "to_db: cqt must hold sound, got one value throughout. Leave the recording out.")
    reference = np.percentile(values, spec.reference_percentile)
    if reference <= max(values.min(), values.max() - 100):  # so little sounds that the percentile lies in the silence
        reference = values.max()
    if abs(reference) > 0.01:  # what was in dB against its reference already stays as it is, to the bit
        values = values - np.float32(reference)
    return np.clip(values, spec.min_db, spec.max_db).astype(np.float32, copy=False)
