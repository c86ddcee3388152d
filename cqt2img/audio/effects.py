"""Changes of a recording that leave the player the same.

Equaliser, codec, pitch, tempo, room, noise, level and cuts: benchmarks apply them to
measure what a score owes to the player, and what to the recording.
"""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.progress import import_tqdm

if TYPE_CHECKING:
    from numpy.random import Generator

Wave = NDArray[np.float32]
Effect = Callable[[Wave, int, "Generator"], Wave]

_MP3_RATE = 44_100  # Hz; most MP3 files have it, whatever the rate of the wave
_MIN_KBPS = 32  # libsndfile takes the bitrate as a number from 1 to 0 between these
_MAX_KBPS = 320
_OCTAVES = np.arange(-1, 12)  # above 20 Hz
_BASE_HZ = 20
_MIN_HZ = 10
_MAX_HZ = 40_000


def equalise(
    wave: Wave, sample_rate: int, rng: "Generator", depth_db: float = 6.0
) -> Wave:
    """Filter a wave by a random smooth gain over pitch.

    Parameters
    ----------
    wave : ndarray of float32, shape (n_samples,)
        Audio.
    sample_rate : int
        Its rate in Hz.
    rng : Generator
        Draws the gain of every octave.
    depth_db : float, default 6.0
        Largest gain and attenuation in dB.

    Returns
    -------
    ndarray of float32, shape (n_samples,)
        The filtered wave, without delay.
    """
    # Between its points, this interpolation stays between their values.
    from scipy.interpolate import PchipInterpolator

    octave_gains = rng.uniform(-depth_db, depth_db, len(_OCTAVES))
    gain_at = PchipInterpolator(_OCTAVES, octave_gains)
    n_fft = 2 * len(wave)  # ringing behind the end must not wrap to the start
    frequencies = np.fft.rfftfreq(n_fft, 1 / sample_rate)
    octaves = np.log2(np.clip(frequencies, _MIN_HZ, _MAX_HZ) / _BASE_HZ)
    gain = 10 ** (gain_at(octaves) / 20)
    filtered = np.fft.irfft(np.fft.rfft(wave, n_fft) * gain, n_fft)
    return filtered[: len(wave)].astype(np.float32)


def encode_mp3(wave: Wave, sample_rate: int, kbps: int = 64) -> bytes:
    """Encode a wave as a mono MP3 of 44.1 kHz at a constant bitrate.

    Parameters
    ----------
    wave : ndarray of float32, shape (n_samples,)
        Audio.
    sample_rate : int
        Its rate in Hz.
    kbps : int, default 64
        Bitrate in kbit/s, one of those of the format from 40 to 320.

    Returns
    -------
    bytes
        The file.
    """
    import soundfile
    import soxr

    file = io.BytesIO()
    level = (_MAX_KBPS - kbps) / (_MAX_KBPS - _MIN_KBPS)
    soundfile.write(
        file,
        soxr.resample(wave, sample_rate, _MP3_RATE),
        _MP3_RATE,
        format="MP3",
        bitrate_mode="CONSTANT",
        compression_level=level,
    )
    return file.getvalue()


def reencode(wave: Wave, sample_rate: int, kbps: int = 64) -> Wave:
    """Encode a wave as an MP3, and decode it again.

    Parameters
    ----------
    wave, sample_rate, kbps
        As for `encode_mp3`.

    Returns
    -------
    ndarray of float32, shape (n_samples,)
        The decoded wave at its original rate; its length may differ by rounding.
    """
    import soundfile
    import soxr

    file = io.BytesIO(encode_mp3(wave, sample_rate, kbps))
    decoded, rate = soundfile.read(file, dtype="float32")
    return soxr.resample(decoded, rate, sample_rate)


def transpose(wave: Wave, sample_rate: int, cents: float) -> Wave:
    """Change the pitch, and keep the tempo.

    Parameters
    ----------
    wave : ndarray of float32, shape (n_samples,)
        Audio.
    sample_rate : int
        Its rate in Hz.
    cents : float
        Hundredths of a semitone, positive upwards.

    Returns
    -------
    ndarray of float32, shape (n_samples,)
        The transposed wave.
    """
    import_tqdm()
    from librosa.effects import pitch_shift

    return pitch_shift(wave, sr=sample_rate, n_steps=cents / 100)


def change_tempo(wave: Wave, factor: float) -> Wave:
    """Change the tempo, and keep the pitch.

    Parameters
    ----------
    wave : ndarray of float32, shape (n_samples,)
        Audio.
    factor : float
        Tempo relative to the original, above 0.

    Returns
    -------
    ndarray of float32, shape (n_samples / factor,)
        The stretched wave.
    """
    import_tqdm()
    from librosa.effects import time_stretch

    return time_stretch(wave, rate=factor)


def change_speed(wave: Wave, factor: float) -> Wave:
    """Change tempo and pitch together, as the speed of a tape does.

    Parameters
    ----------
    wave : ndarray of float32, shape (n_samples,)
        Audio.
    factor : float
        Speed relative to the original, above 0.

    Returns
    -------
    ndarray of float32, shape (n_samples / factor,)
        The resampled wave.
    """
    import soxr

    return soxr.resample(wave, factor, 1)


def add_room(
    wave: Wave,
    sample_rate: int,
    rng: "Generator",
    rt60_seconds: float = 1.0,
    wet: float = 0.4,
) -> Wave:
    """Add the reverberation of a room, as noise that decays exponentially.

    Parameters
    ----------
    wave : ndarray of float32, shape (n_samples,)
        Audio.
    sample_rate : int
        Its rate in Hz.
    rng : Generator
        Draws the reflections.
    rt60_seconds : float, default 1.0
        Time in which the reverberation decays by 60 dB, above 0.
    wet : float, default 0.4
        Energy of the reflections relative to the direct sound.

    Returns
    -------
    ndarray of float32, shape (n_samples,)
        The wave with reverberation, cut at its original end.
    """
    from scipy.signal import fftconvolve

    n = round(rt60_seconds * sample_rate)
    decay = 10 ** (-3 * np.arange(n) / n)
    reflections = rng.standard_normal(n) * decay
    reflections *= np.sqrt(wet / np.sum(reflections**2))
    response = np.concatenate([[1.0], reflections])
    reverberant = fftconvolve(wave, response)
    return reverberant[: len(wave)].astype(np.float32)


def add_noise(wave: Wave, rng: "Generator", snr_db: float = 20.0) -> Wave:
    """Add white noise.

    Parameters
    ----------
    wave : ndarray of float32, shape (n_samples,)
        Audio.
    rng : Generator
        Draws the noise.
    snr_db : float, default 20.0
        Signal-to-noise ratio in dB.

    Returns
    -------
    ndarray of float32, shape (n_samples,)
        The noisy wave.
    """
    noise = rng.standard_normal(len(wave), dtype=np.float32)
    noise_power = np.mean(np.square(wave)) * 10 ** (-snr_db / 10)
    return wave + noise * np.float32(np.sqrt(noise_power))


def change_gain(wave: Wave, gain_db: float) -> Wave:
    """Change the level.

    Parameters
    ----------
    wave : ndarray of float32, shape (n_samples,)
        Audio.
    gain_db : float
        Gain in dB.

    Returns
    -------
    ndarray of float32, shape (n_samples,)
        The scaled wave; nothing is clipped.
    """
    return wave * np.float32(10 ** (gain_db / 20))


def trim(
    wave: Wave, sample_rate: int, start_seconds: float, end_seconds: float
) -> Wave:
    """Cut both ends.

    Parameters
    ----------
    wave : ndarray of float32, shape (n_samples,)
        Audio.
    sample_rate : int
        Its rate in Hz.
    start_seconds, end_seconds : float
        Length to remove at either end.

    Returns
    -------
    ndarray of float32
        The rest, a view of `wave`.
    """
    start = round(start_seconds * sample_rate)
    stop = len(wave) - round(end_seconds * sample_rate)
    return wave[start:stop]


def _draw_sign(rng: "Generator") -> int:
    return 2 * int(rng.integers(2)) - 1


def _trim_randomly(wave: Wave, sample_rate: int, rng: "Generator") -> Wave:
    """Cut up to a sixth at either end, 3 s at most."""
    longest = min(3.0, len(wave) / sample_rate / 6)
    start, end = rng.uniform(0.3, 1, 2) * longest
    return trim(wave, sample_rate, start, end)


def _change_speed_randomly(wave: Wave, rng: "Generator") -> Wave:
    return change_speed(wave, 1 + 0.03 * _draw_sign(rng))


def _reencode_trimmed(wave: Wave, sample_rate: int, rng: "Generator") -> Wave:
    """Imitate a lossy copy of a part."""
    trimmed = _trim_randomly(wave, sample_rate, rng)
    encoded = reencode(trimmed, sample_rate)
    return change_gain(encoded, -6 * rng.random())


def _copy_record(wave: Wave, sample_rate: int, rng: "Generator") -> Wave:
    """Imitate a copy of a record that turns too fast or too slowly, in a room."""
    trimmed = _trim_randomly(wave, sample_rate, rng)
    played = _change_speed_randomly(trimmed, rng)
    return add_noise(add_room(played, sample_rate, rng), rng)


# Where an effect has two directions, the generator draws one.
EFFECTS: dict[str, Effect] = {
    "equaliser 6 dB": equalise,
    "mp3 64 kbit/s": lambda wave, rate, rng: reencode(wave, rate),
    "gain 12 dB": lambda wave, rate, rng: change_gain(wave, 12 * _draw_sign(rng)),
    "trimmed": _trim_randomly,
    "speed 3 %": lambda wave, rate, rng: _change_speed_randomly(wave, rng),
    "tempo 3 %": lambda wave, rate, rng: change_tempo(wave, 1 + 0.03 * _draw_sign(rng)),
    "20 cents": lambda wave, rate, rng: transpose(wave, rate, 20 * _draw_sign(rng)),
    "50 cents": lambda wave, rate, rng: transpose(wave, rate, 50 * _draw_sign(rng)),
    "room": add_room,
    "noise": lambda wave, rate, rng: add_noise(wave, rng),
    "mp3, trimmed, gain": _reencode_trimmed,
    "speed, trimmed, room, noise": _copy_record,
}
