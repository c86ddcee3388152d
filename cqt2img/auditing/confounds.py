"""Confounds: measurable properties of a recording that are not the player."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cqt2img._utils.array_types import Float64Array, Tiles
from cqt2img.auditing.tile_statistics import compute_semitone_levels
from cqt2img.data.tile_arrays import TileArrays
from cqt2img.tiles.spec import TileSpec

QUALITIES = ("tuning_cents", "loudness_dbfs", "peak_dbfs", "bandwidth_hz", "seconds")
CHANNEL = ("mean spectrum", "noise floor")  # together, the channel of a recording
# Hz; above most of the music, so that quiet moments contain noise only
_NOISE_BANDS = ((3000, 6000), (6000, 9000))
_NOISE_SECONDS = 30
_QUIET_PERCENTILE = 5
_MAX_CATEGORIES = 200


class Confound(NamedTuple):
    """How a confound is described and assessed.

    Parameters
    ----------
    phrase : str
        Its name in a sentence.
    advice : str
        What to do if it is a shortcut.
    min_gain : float
        The part of the way from chance to an accuracy of 1 from which on it is a
        shortcut. Higher where the player influences what is measured: on clean
        collections (benchmarks/planted.py --seed 0) the register of the players reached
        a third.
    jitter : float
        Standard deviation of the noise added before scoring: differences below are no
        property of the recording.
    is_categorical : bool
        Whether the values are zeros and ones.
    """

    phrase: str
    advice: str
    min_gain: float = 0.5
    jitter: float = 0.0
    is_categorical: bool = False


CONFOUNDS = {
    "tuning": Confound(
        "tuning",
        "Render with tuning='remove', or vary the pitch in training.",
        min_gain=0.25,
        # 2 cents, in radians: in one room, the notes that are played change the
        # measured tuning by so much
        jitter=2 * np.pi * 2 / 100,
    ),
    "level": Confound(
        "level",
        "Bring all recordings to the same level before rendering.",
    ),
    "bandwidth": Confound(
        "bandwidth",
        "Low-pass all recordings alike, or render fewer bins.",
    ),
    "noise floor": Confound(
        "noise floor",
        "Add recordings of each class from several sources.",
    ),
    "mean spectrum": Confound(
        "mean spectrum (room, equaliser or register)",
        "Train with augment='album', which varies the equaliser, and check whether all "
        "recordings of a class have the same tone.",
    ),
    "duration": Confound(
        "duration",
        "Cut all recordings to a similar length, and check that no class comes from a "
        "source of its own.",
        min_gain=0.25,
    ),
    "file format": Confound(
        "file format",
        "Add recordings of each class in every format, or take all from one source.",
        min_gain=0.25,
        is_categorical=True,
    ),
    "piece": Confound(
        "piece",
        "Hold out pieces as well as albums, or balance the pieces among the classes.",
        min_gain=0.25,
        is_categorical=True,
    ),
    "channel": Confound(
        "channel (tone and hiss, as if all albums of a class had the same room or "
        "mastering)",
        "Add recordings of each class from several sources, or test on recordings with "
        "another channel.",
    ),
}


def measure_confounds(
    arrays: TileArrays,
    files: Sequence[Path],
    qualities: Mapping[str, Float64Array],
    pieces: Sequence[object] | None = None,
) -> dict[str, Float64Array]:
    """Measure the confounds of recordings.

    Parameters
    ----------
    arrays : TileArrays
        Tiles of the recordings.
    files : sequence of Path
        Their files; a file that cannot be opened has no noise floor.
    qualities : mapping of str to ndarray of float64, shape (n_recordings,)
        What is known of `QUALITIES`; NaN where it is unknown.
    pieces : sequence, optional
        The piece of each recording.

    Returns
    -------
    dict of str to ndarray of float64, shape (n_recordings, n_values)
        Float64Array of each confound in `CONFOUNDS`; NaN where they are unknown.
    """
    n = len(arrays)
    known = {name: np.full(n, np.nan) for name in QUALITIES}
    known.update(qualities)
    # a circle, as -50 and 50 cents are the same tuning
    angle = 2 * np.pi * known["tuning_cents"] / 100
    bandwidth_hz = np.maximum(known["bandwidth_hz"], 1)
    seconds = np.maximum(known["seconds"], 0.1)
    confounds = {
        "tuning": np.stack([np.cos(angle), np.sin(angle)], axis=1),
        "level": np.stack([known["loudness_dbfs"], known["peak_dbfs"]], axis=1),
        "bandwidth": np.log2(bandwidth_hz)[:, None],
        "noise floor": np.stack([_measure_noise_floor(file) for file in files]),
        "mean spectrum": _measure_mean_spectra(arrays),
        "duration": np.log2(seconds)[:, None],
        "file format": _to_indicators([_read_format(file) for file in files]),
    }
    if pieces is not None:
        confounds["piece"] = _to_indicators([str(piece) for piece in pieces])
    channel = [confounds[name] for name in CHANNEL]
    confounds["channel"] = np.concatenate(channel, axis=1)
    return confounds


def _measure_mean_spectra(arrays: TileArrays) -> Float64Array:
    """Return the mean level of every half octave relative to the mean, in dB."""
    spectra = []
    for index, n_frames in enumerate(arrays.n_frames.tolist()):
        spectrum = _mean_spectrum(arrays.tiles(index), arrays.spec, n_frames)
        spectra.append(spectrum)
    return np.stack(spectra)


def _mean_spectrum(tiles: Tiles, spec: TileSpec, n_frames: int) -> Float64Array:
    levels_of_tiles = compute_semitone_levels(tiles, spec)
    levels = np.concatenate(list(levels_of_tiles), axis=1)
    semitone_means = levels[:, :n_frames].mean(axis=1)
    n_bands = max(1, len(levels) // 6)
    parts = np.array_split(semitone_means, n_bands)
    bands = np.array([part.mean() for part in parts])
    return bands - bands.mean()


def _measure_noise_floor(file: Path) -> Float64Array:
    """Return the level of quiet moments in the noise bands, in dBFS; NaN if unknown."""
    import soundfile
    from scipy.fft import rfft  # single precision, unlike NumPy's

    unknown = np.full(len(_NOISE_BANDS), np.nan)
    try:
        with soundfile.SoundFile(os.fspath(file)) as sound:
            rate = sound.samplerate
            n_samples = round(_NOISE_SECONDS * rate)
            channels = sound.read(n_samples, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError, TypeError):
        return unknown  # rendered elsewhere, or not an audio file
    wave = channels.mean(axis=1)
    window_length = 2 ** round(np.log2(rate / 20))  # 46 ms at 22,050 and 44,100 Hz
    n_windows = len(wave) // window_length
    if n_windows < 2:
        return unknown
    windows = wave[: n_windows * window_length].reshape(n_windows, window_length)
    taper = np.hanning(window_length).astype(np.float32)
    power = np.square(np.abs(rfft(windows * taper)))
    frequency = np.fft.rfftfreq(window_length, 1 / rate)
    floor = []
    for low, high in _NOISE_BANDS:
        is_inside = (frequency >= low) & (frequency < high)
        band_power = power[:, is_inside].sum(axis=1)
        quiet = np.percentile(band_power / window_length**2, _QUIET_PERCENTILE)
        floor.append(10 * np.log10(quiet + 1e-12))
    return np.asarray(floor, dtype=np.float64)


def _read_format(file: Path) -> str:
    """Return suffix, sample rate, channels and encoding, as far as they are known."""
    import soundfile

    suffix = file.suffix.lower()
    try:
        info = soundfile.info(os.fspath(file))
    except (OSError, soundfile.LibsndfileError, TypeError):
        return suffix
    return f"{suffix} {info.samplerate} {info.channels} {info.subtype}"


def _to_indicators(names: Sequence[str]) -> Float64Array:
    """Return one column of zeros and ones for each of the most frequent names."""
    categories, counts = np.unique(names, return_counts=True)
    by_frequency = np.argsort(-counts, kind="stable")
    kept = categories[by_frequency[:_MAX_CATEGORIES]]
    return (np.asarray(names)[:, None] == kept).astype(float)
