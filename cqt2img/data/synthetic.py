"""Synthetic recordings: invented pianists on invented albums.

They show the album effect without any data. The sound of a file depends only on its
path, its length and a seed.
"""

import zlib
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from cqt2img._utils.files import write_atomic
from cqt2img.data.synthetic_players import MELODIES, PLAYERS, perform
from cqt2img.errors import InputError

FloatArray = NDArray[np.float32]

SAMPLE_RATE = 22050  # Hz
_KNOCK_LENGTH = 512  # samples


class Album(NamedTuple):
    """Sound of an album: piano, tuning, room, equaliser, noise and level.

    Parameters
    ----------
    inharmonicity : float
        B at C4, in f_p = p f sqrt(1 + B p^2).
    tilt_db : float
        Slope of the partials in dB per octave.
    decay_seconds : float
        Time constant of the decay at C4 in seconds.
    hammer : float
        Amplitude of the hammer noise relative to the tone.
    rt60_seconds : float
        Reverberation time in seconds.
    wet : float
        Energy of the reverberation relative to the direct sound.
    eq_tilt_db : float
        Slope of the equaliser in dB per octave, 0 dB at 700 Hz.
    lowpass_hz : float
        Cutoff frequency in Hz.
    hiss_db : float
        Level of the noise relative to full scale in dB.
    level_db : float
        Peak level relative to full scale in dB.
    cents : float
        Tuning relative to A4 = 440 Hz in cents.
    peaks : tuple of (float, float)
        Peaks of the equaliser, 0.35 octaves wide: frequency in Hz and gain in dB.
    """

    # These names, in this order, are part of the seeds of hammer noise and
    # reverberation, which use the representation of an album.
    inharmonicity: float
    tilt_db: float
    decay_seconds: float
    hammer: float
    rt60_seconds: float
    wet: float
    eq_tilt_db: float
    lowpass_hz: float
    hiss_db: float
    level_db: float
    cents: float
    peaks: tuple[tuple[float, float], ...]


# Ranges of all fields of an album but the last two, from real albums.
_ALBUM_RANGES = {
    "inharmonicity": (1e-4, 1e-3),
    "tilt_db": (-9, -4),
    "decay_seconds": (0.8, 1.8),
    "hammer": (0.01, 0.10),
    "rt60_seconds": (0.3, 1.8),
    "wet": (0.02, 0.40),
    "eq_tilt_db": (-3, 3),
    "lowpass_hz": (2500, 10000),
    "hiss_db": (-70, -40),
    "level_db": (-12, -1),
}


def _make_rng(*key: object) -> Generator:
    """Return a generator that depends only on the key."""
    seeds = [zlib.crc32(repr(part).encode()) for part in key]
    return np.random.default_rng(seeds)


def make_album(*key: object) -> Album:
    """Return a random album.

    Parameters
    ----------
    *key : object
        Anything with a `repr`; the same key gives the same album.

    Returns
    -------
    Album
        Parameters of its sound, in ranges of real albums.
    """
    rng = _make_rng("album", *key)
    peaks = []
    for octave in range(8):
        hz = 55 * 2**octave * rng.uniform(0.7, 1.4)
        gain = rng.uniform(4, 10)
        sign = (-1) ** int(rng.integers(2))
        peaks.append((hz, gain * sign))
    low, high = zip(*_ALBUM_RANGES.values(), strict=True)
    values = rng.uniform(low, high).tolist()
    fields = dict(zip(_ALBUM_RANGES, values, strict=True))
    return Album(**fields, cents=rng.normal(0, 8), peaks=tuple(peaks))


def _make_tone(
    duration: float, pitch: float, velocity: float, piano: Album
) -> FloatArray:
    """Return one note of a string that is struck at 1/8 of its length.

    A product of two matrices of phasors replaces a sine per sample and partial. The
    stretching of the partials follows Harvey Fletcher et al., "Quality of piano tones",
    1962.
    """
    n_samples = round((duration + 0.25) * SAMPLE_RATE)
    partials = np.arange(1, 13)
    semitones = pitch - 60  # from C4
    stiffness = piano.inharmonicity * 2 ** (semitones / 8)
    stretch = np.sqrt((1 + stiffness * partials**2) / (1 + stiffness))
    semitones_from_a4 = pitch - 69 + piano.cents / 100
    fundamental = 440 * 2 ** (semitones_from_a4 / 12)
    hz = fundamental * partials * stretch
    is_audible = hz < 0.45 * SAMPLE_RATE
    partials = partials[is_audible]
    hz = hz[is_audible]
    tilt = piano.tilt_db / 6 + velocity - 1
    mode_shape = np.sin(np.pi * partials / 8)
    comb = 0.05 + np.abs(mode_shape)
    amplitude = velocity**1.3 * partials**tilt * comb
    damping = 0.85 + 0.15 * partials
    decay = damping * 2 ** (semitones / 18) / piano.decay_seconds
    exponents = (2j * np.pi * hz - decay) / SAMPLE_RATE
    wave = _sum_partials(amplitude, exponents, n_samples)
    wave[:64] *= np.linspace(0, 1, 64, dtype=np.float32)
    damped = wave[round(duration * SAMPLE_RATE) :]
    damping_time = np.linspace(0, 6, len(damped), dtype=np.float32)
    damped *= np.exp(-damping_time)
    return wave


def _sum_partials(
    amplitude: NDArray[np.float64], exponents: NDArray[np.complex128], n_samples: int
) -> FloatArray:
    """Return the sum of decaying sines, from phasors of blocks and within a block."""
    block_length = 256
    block_starts = np.arange(0, n_samples, block_length)
    starts = amplitude * np.exp(np.outer(block_starts, exponents))
    starts = starts.astype(np.complex64)
    steps = np.exp(np.outer(exponents, np.arange(block_length)))
    steps = steps.astype(np.complex64)
    blocks = starts.imag @ steps.real + starts.real @ steps.imag
    return blocks.ravel()[:n_samples]


def play(notes: NDArray[np.float64], piano: Album, seconds: float = 12) -> FloatArray:
    """Return the sound of notes on the piano of an album.

    Parameters
    ----------
    notes : ndarray of float64, shape (n_notes, 4)
        Notes from `perform`.
    piano : Album
        Piano and tuning.
    seconds : float
        Length in seconds.

    Returns
    -------
    ndarray of float32, shape (n_samples,)
        Wave at 22050 Hz, not normalised.
    """
    n_samples = round(seconds * SAMPLE_RATE)
    wave = np.zeros(n_samples, np.float32)
    rng = _make_rng("knock", piano)
    noise = rng.normal(0, piano.hammer, _KNOCK_LENGTH)
    decay = 0.98 ** np.arange(_KNOCK_LENGTH)
    knock = (noise * decay).astype(np.float32)
    for onset, duration, pitch, velocity in notes:
        tone = _make_tone(duration, pitch, velocity, piano)
        tone[: len(knock)] += knock * velocity**2
        start = round(onset * SAMPLE_RATE)
        end = min(start + len(tone), n_samples)
        wave[start:end] += tone[: end - start]
    return wave


def record(wave: FloatArray, album: Album, rng: Generator) -> FloatArray:
    """Return a wave as recorded for an album.

    Parameters
    ----------
    wave : ndarray of float32, shape (n_samples,)
        Wave from `play`.
    album : Album
        Room, equaliser, low-pass filter, noise and level.
    rng : Generator
        Draws the noise.

    Returns
    -------
    ndarray of float32, shape (n_samples,)
        Wave at 22050 Hz, with the peak level of the album.
    """
    from scipy.fft import irfft, next_fast_len, rfft

    room = _make_room(album)
    n_samples = len(wave) + len(room) - 1
    n_fft = next_fast_len(n_samples, real=True)
    equaliser_db = _equaliser_db(album, n_fft)
    spectrum = rfft(wave, n_fft) * rfft(room, n_fft)
    spectrum = spectrum * 10 ** (equaliser_db / 20)
    recorded = irfft(spectrum, n_fft)[: len(wave)]
    peak = float(np.abs(recorded).max(initial=0))
    level = 10 ** (album.level_db / 20)
    recorded *= level / max(peak, 1e-9)
    noise = rng.standard_normal(len(wave))
    noise *= 10 ** (album.hiss_db / 20)
    return np.asarray(recorded + noise, np.float32)


def _make_room(album: Album) -> FloatArray:
    """Return the impulse response of the room: direct sound and decaying noise."""
    n_samples = round(album.rt60_seconds * SAMPLE_RATE)
    decay = 10 ** (-3 * np.arange(n_samples) / n_samples)
    rng = _make_rng("room", album)
    tail = rng.normal(0, 1, n_samples) * decay
    energy = np.sum(tail**2)
    tail *= np.sqrt(album.wet / energy)
    return np.r_[1, tail].astype(np.float32)


def _equaliser_db(album: Album, n_fft: int) -> NDArray[np.float64]:
    """Return the frequency response of the album in dB."""
    hz = np.fft.rfftfreq(n_fft, 1 / SAMPLE_RATE)
    hz = np.maximum(hz, 20)
    tilt_db = album.eq_tilt_db * np.log2(hz / 700)
    lowpass_db = -10 * np.log10(1 + (hz / album.lowpass_hz) ** 8)
    gain_db = tilt_db + lowpass_db
    for centre_hz, peak_db in album.peaks:
        octaves = np.log2(hz / centre_hz)
        gain_db += peak_db * np.exp(-0.5 * (octaves / 0.35) ** 2)
    return gain_db


def make_corpus(
    out: str | Path,
    n_players: int = 5,
    n_albums: int = 6,
    n_takes: int = 3,
    seconds: float = 12,
    random_state: int = 0,
) -> list[Path]:
    """Write synthetic recordings as FLAC files: mono, 22050 Hz, 16 bit.

    Parameters
    ----------
    out : str or Path
        Folder for the files ``<player>/<player>-<album>/take-<take>.flac``.
    n_players : int
        Number of players, 2 to 7.
    n_albums : int
        Number of albums per player, 2 to 99.
    n_takes : int
        Number of takes per album, 1 to 99.
    seconds : float
        Length of a take in seconds, 2 to 600.
    random_state : int
        Seed. A file depends only on its path, `seconds` and the seed, so that more
        albums or takes leave the other files unchanged.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    InputError
        If a number is out of range.
    """
    _check_range("n_players", n_players, 2, len(PLAYERS))
    _check_range("n_albums", n_albums, 2, 99)
    _check_range("n_takes", n_takes, 1, 99)
    _check_range("seconds", seconds, 2, 600)
    players = PLAYERS[:n_players]
    albums = range(1, n_albums + 1)
    takes = range(1, n_takes + 1)
    files = []
    for player, number, take in product(players, albums, takes):
        slug = player.name.lower().replace(" ", "-")
        album = make_album(random_state, slug, number)
        rng = _make_rng("take", random_state, slug, number, take)
        melody = MELODIES[rng.integers(len(MELODIES))]
        notes = perform(melody, player, rng, seconds)
        wave = record(play(notes, album, seconds), album, rng)
        path = Path(out, slug, f"{slug}-{number}", f"take-{take}.flac")
        _write_flac(path, wave)
        files.append(path)
    return files


def _check_range(name: str, value: float, low: int, high: int) -> None:
    """Raise an InputError if an argument of `make_corpus` is out of range."""
    if not low <= value <= high:
        raise InputError(
            f"make_corpus: {name} must be from {low} to {high}, got {value}."
        )


def _write_flac(path: Path, wave: FloatArray) -> None:
    import soundfile

    def write(part: Path) -> None:
        soundfile.write(part, wave, SAMPLE_RATE, subtype="PCM_16", format="FLAC")

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, write)
