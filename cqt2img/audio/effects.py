"""What happens to a recording that is not the player: equaliser, codec, pitch, tempo, room, noise, level, cuts."""

import io
from collections.abc import Callable

import numpy as np

_MP3_RATE = 44_100  # Hz; where most mp3 files are, whatever the rate of the wave
_MP3_KBPS = (32, 320)  # libsndfile takes the bitrate as a place between these, 1 to 0


def equalise(
    wave: np.ndarray, sample_rate: int, rng: np.random.Generator, depth_db: float = 6.0
) -> np.ndarray:
    """Change the tone by a smooth random curve of decibels over pitch.

    Parameters
    ----------
    wave : ndarray of float32, shape (n_samples,)
        Sound.
    sample_rate : int
        Its rate in Hz.
    rng : Generator
        Draws the level of every octave.
    depth_db : float
        Furthest that the curve goes up and down.

    Returns
    -------
    ndarray of float32, shape (n_samples,)
        The sound, without delay.
    """
    from scipy.interpolate import (
        PchipInterpolator,
    )  # between its points it stays between their values

    octaves = np.arange(-1, 12)  # above 20 Hz
    curve = PchipInterpolator(octaves, rng.uniform(-depth_db, depth_db, len(octaves)))
    n = 2 * len(wave)  # what rings over the end must not come back at the start
    hz = np.fft.rfftfreq(n, 1 / sample_rate)
    gain_db = curve(np.log2(np.clip(hz, 10, 40_000) / 20))
    return np.fft.irfft(np.fft.rfft(wave, n) * 10 ** (gain_db / 20), n)[
        : len(wave)
    ].astype(np.float32)


def encode_mp3(wave: np.ndarray, sample_rate: int, kbps: int = 64) -> bytes:
    """Encode a wave as an mp3 of 44.1 kHz, mono, at a constant bitrate.

    Parameters
    ----------
    wave : ndarray of float32, shape (n_samples,)
        Sound.
    sample_rate : int
        Its rate in Hz.
    kbps : int
        Thousands of bits a second, one of those that the format has between 40 and 320.

    Returns
    -------
    bytes
        The file.
    """
    import soundfile
    import soxr

    low, high = _MP3_KBPS
    file = io.BytesIO()
    how = {
        "compression_level": (high - kbps) / (high - low),
        "bitrate_mode": "CONSTANT",
    }
    soundfile.write(
        file,
        soxr.resample(wave, sample_rate, _MP3_RATE),
        _MP3_RATE,
        format="MP3",
        **how,
    )
    return file.getvalue()


def reencode(wave: np.ndarray, sample_rate: int, kbps: int = 64) -> np.ndarray:
    """Give what is left of a wave after an mp3.

    Parameters
    ----------
    wave, sample_rate, kbps
        As for `encode_mp3`.

    Returns
    -------
    ndarray of float32, shape (n_samples,)
        The sound at its own rate; its length may differ by rounding.
    """
    import soundfile
    import soxr

    decoded, rate = soundfile.read(
        io.BytesIO(encode_mp3(wave, sample_rate, kbps)), dtype="float32"
    )
    return soxr.resample(decoded, rate, sample_rate)


def transpose(wave: np.ndarray, sample_rate: int, cents: float) -> np.ndarray:
    """Move the pitch and leave the time.

    Parameters
    ----------
    wave : ndarray of float32, shape (n_samples,)
        Sound.
    sample_rate : int
        Its rate in Hz.
    cents : float
        Hundredths of a semitone, upwards.

    Returns
    -------
    ndarray of float32, shape (n_samples,)
        The sound.
    """
    from librosa.effects import pitch_shift

    return pitch_shift(wave, sr=sample_rate, n_steps=cents / 100)


def change_tempo(wave: np.ndarray, factor: float) -> np.ndarray:
    """Play faster and leave the pitch.

    Parameters
    ----------
    wave : ndarray of float32, shape (n_samples,)
        Sound.
    factor : float
        Times as fast, above 0.

    Returns
    -------
    ndarray of float32, shape (n_samples / factor,)
        The sound.
    """
    from librosa.effects import time_stretch

    return time_stretch(wave, rate=factor)


def change_speed(wave: np.ndarray, factor: float) -> np.ndarray:
    """Play faster and higher, as a tape or a record does.

    Parameters
    ----------
    wave : ndarray of float32, shape (n_samples,)
        Sound.
    factor : float
        Times as fast, above 0.

    Returns
    -------
    ndarray of float32, shape (n_samples / factor,)
        The sound.
    """
    import soxr

    return soxr.resample(wave, factor, 1)


def add_room(
    wave: np.ndarray,
    sample_rate: int,
    rng: np.random.Generator,
    rt60_seconds: float = 1.0,
    wet: float = 0.4,
) -> np.ndarray:
    """Play in a room: noise that decays exponentially follows the direct sound.

    Parameters
    ----------
    wave : ndarray of float32, shape (n_samples,)
        Sound.
    sample_rate : int
        Its rate in Hz.
    rng : Generator
        Draws the reflections.
    rt60_seconds : float
        Time in which the room dies away by 60 dB, above 0.
    wet : float
        Energy of the reflections / energy of the direct sound.

    Returns
    -------
    ndarray of float32, shape (n_samples,)
        The sound, without the tail after its end.
    """
    from scipy.signal import fftconvolve

    n = round(rt60_seconds * sample_rate)
    tail = rng.standard_normal(n) * 10 ** (-3 * np.arange(n) / n)
    response = np.r_[1, tail * np.sqrt(wet / np.sum(tail**2))]
    return fftconvolve(wave, response)[: len(wave)].astype(np.float32)


def add_noise(
    wave: np.ndarray, rng: np.random.Generator, snr_db: float = 20.0
) -> np.ndarray:
    """Add white noise.

    Parameters
    ----------
    wave : ndarray of float32, shape (n_samples,)
        Sound.
    rng : Generator
        Draws the noise.
    snr_db : float
        Power of the sound over power of the noise, in dB.

    Returns
    -------
    ndarray of float32, shape (n_samples,)
        Both.
    """
    noise = rng.standard_normal(len(wave), dtype=np.float32)
    return wave + noise * np.float32(
        np.sqrt(np.mean(np.square(wave)) * 10 ** (-snr_db / 10))
    )


def change_gain(wave: np.ndarray, gain_db: float) -> np.ndarray:
    """Play louder or softer.

    Parameters
    ----------
    wave : ndarray of float32, shape (n_samples,)
        Sound.
    gain_db : float
        Decibels, upwards.

    Returns
    -------
    ndarray of float32, shape (n_samples,)
        The sound; nothing is clipped.
    """
    return wave * np.float32(10 ** (gain_db / 20))


def trim(
    wave: np.ndarray, sample_rate: int, start_seconds: float, end_seconds: float
) -> np.ndarray:
    """Cut off both ends.

    Parameters
    ----------
    wave : ndarray of float32, shape (n_samples,)
        Sound.
    sample_rate : int
        Its rate in Hz.
    start_seconds, end_seconds : float
        How much goes.

    Returns
    -------
    ndarray of float32
        The rest.
    """
    return wave[
        round(start_seconds * sample_rate) : len(wave)
        - round(end_seconds * sample_rate)
    ]


def _sign(rng: np.random.Generator) -> int:
    return 2 * int(rng.integers(2)) - 1


def _trimmed(
    wave: np.ndarray, sample_rate: int, rng: np.random.Generator
) -> np.ndarray:
    """Lose up to a sixth at either end, 3 s at most."""
    start, end = rng.uniform(0.3, 1, 2) * min(3.0, len(wave) / sample_rate / 6)
    return trim(wave, sample_rate, start, end)


def _worn(wave: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Be copied from a record that turns too fast or too slowly, in a room."""
    spun = change_speed(_trimmed(wave, sample_rate, rng), 1 + 0.03 * _sign(rng))
    return add_noise(add_room(spun, sample_rate, rng), rng)


# Each is wave, sample rate, generator -> wave; where a change has two directions, the generator draws one.
EFFECTS: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "equaliser 6 dB": equalise,
    "mp3 64 kbit/s": lambda wave, rate, rng: reencode(wave, rate),
    "gain 12 dB": lambda wave, rate, rng: change_gain(wave, 12 * _sign(rng)),
    "trimmed": _trimmed,
    "speed 3 %": lambda wave, rate, rng: change_speed(wave, 1 + 0.03 * _sign(rng)),
    "tempo 3 %": lambda wave, rate, rng: change_tempo(wave, 1 + 0.03 * _sign(rng)),
    "20 cents": lambda wave, rate, rng: transpose(wave, rate, 20 * _sign(rng)),
    "50 cents": lambda wave, rate, rng: transpose(wave, rate, 50 * _sign(rng)),
    "room": add_room,
    "noise": lambda wave, rate, rng: add_noise(wave, rng),
    "mp3, trimmed, gain": lambda wave, rate, rng: change_gain(
        reencode(_trimmed(wave, rate, rng), rate), -6 * rng.random()
    ),
    "speed, trimmed, room, noise": _worn,
}
