"""A small synthetic corpus: invented pianists on invented albums, to show the album effect without data."""

import os
import zlib
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cqt2img.errors import InputError

SAMPLE_RATE = 22050  # Hz


class Player(NamedTuple):
    """How an invented pianist plays."""

    name: str
    pattern: str  # accompaniment in about 3 of 4 bars, a key of PATTERNS
    articulation: (
        float  # sounding / written duration: 0.5 staccato, 1.15 legato overlap
    )
    pedal: float  # probability that a bar is pedalled
    lead_ms: float  # melody before accompaniment
    roll_ms: float  # delay from chord tone to chord tone, upwards
    melody_db: float  # melody over accompaniment
    dynamic_db: float  # depth of the swell over a phrase
    rubato: float  # relative depth of a tempo wave of 8 beats
    swing: float  # delay of the off-beat, in beats
    octave: float  # probability that a melody note is doubled above
    ornament: float  # probability of a mordent on a melody note of a beat or more
    bass: int  # semitones by which the left hand is moved


PLAYERS = (
    Player("Ada Legato", "arpeggio", 1.15, 0.5, 15, 8, 7, 6, 0.06, 0.0, 0.05, 0.05, 0),
    Player("Bruno Staccato", "block", 0.60, 0.0, 0, 4, 5, 3, 0.03, 0.0, 0.05, 0.05, 0),
    Player("Clara Rubato", "alberti", 0.90, 0.3, 35, 18, 7, 7, 0.15, 0.0, 0.0, 0.10, 1),
    Player("Dario Stride", "stride", 0.80, 0.1, 5, 6, 4, 4, 0.03, 0.10, 0.10, 0.05, -1),
    Player("Elsa Mordent", "alberti", 0.80, 0.1, 10, 6, 6, 4, 0.03, 0.0, 0.05, 0.40, 1),
    Player("Felix Ottava", "pulse", 0.95, 0.2, 0, 6, 5, 6, 0.05, 0.04, 0.35, 0.03, -1),
    Player("Greta Harfe", "block", 1.05, 0.5, 25, 40, 7, 5, 0.08, 0.0, 0.1, 0.05, 0),
)

HABIT = 0.65  # part of the bars in the player's own pattern; level-free features then find 73 % on new albums
# (beat, chord tones, beats held) in a bar of n beats; tone 3 is the octave of the root, -1 the octave below it.
PATTERNS: dict[str, Callable[[int], list[tuple[float, tuple[int, ...], float]]]] = {
    "block": lambda n: [(0, (0, 1, 2), n)],
    "pulse": lambda n: [(b, (0, 1, 2) if b else (-1, 1, 2), 1) for b in range(n)],
    "stride": lambda n: [(b, (1, 2, 3) if b else (-1,), 1) for b in range(n)],
    "alberti": lambda n: [(b / 2, ((0, 2, 1, 2)[b % 4],), 0.5) for b in range(2 * n)],
    "arpeggio": lambda n: [
        (b / 2, ((-1, 0, 1, 2, 3, 2, 1, 0)[b % 8],), 0.5) for b in range(2 * n)
    ],
}


class Album(NamedTuple):
    """How an album sounds: its piano, room, equaliser and noise."""

    inharmonicity: float  # B at C4, in f_p = p f sqrt(1 + B p^2)
    tilt_db: float  # partials, dB per octave
    decay_seconds: float  # time constant at C4
    hammer: float  # knock / tone amplitude
    rt60_seconds: float  # reverberation time of the room
    wet: float  # reverberant / direct energy
    eq_tilt_db: float  # dB per octave about 700 Hz
    lowpass_hz: float
    hiss_db: float  # against full scale
    level_db: float  # peak, against full scale
    cents: float  # tuning against A4 = 440 Hz
    peaks: tuple[tuple[float, float], ...]  # Hz, dB; bells of 0.35 octaves


class Melody(NamedTuple):
    """A theme: notes of a beat (// a quarter, / half, . 1.5, - 2, -- 3 beats; r rests) over equally long chords."""

    title: str
    chord_beats: str
    chords: str
    notes: str


THEMES = """Beethoven 1824, Ode to Joy | 4 | C G C G C G C C
E4 E4 F4 G4 G4 F4 E4 D4 C4 C4 D4 E4 E4. D4/ D4- E4 E4 F4 G4 G4 F4 E4 D4 C4 C4 D4 E4 D4. C4/ C4-
# Traditional 1761, Ah vous dirai-je, maman | 2 | C C F C F C G C C F C G C F C G
C5 C5 G5 G5 A5 A5 G5- F5 F5 E5 E5 D5 D5 C5- G5 G5 F5 F5 E5 E5 D5- G5 G5 F5 F5 E5 E5 D5-
# Traditional 1580, Greensleeves | 3 | Am C G Em Am F E E
C5- D5 E5. F5/ E5 D5- B4 G4. A4/ B4 C5- A4 A4. G#4/ A4 B4- G#4 E4- A4
# Petzold 1725, Minuet in G | 3 | G G C G Am G D G
D5 G4/ A4/ B4/ C5/ D5 G4 G4 E5 C5/ D5/ E5/ F#5/ G5 G4 G4 C5 D5/ C5/ B4/ A4/ B4 C5/ B4/ A4/ G4/ A4 B4/ A4/ G4/ F#4/ G4--
# Beethoven 1810, Für Elise (a beat is a quaver) | 3 | Am Am E Am
E5/ D#5/ E5/ B4/ D5/ C5/ A4 r/ C4/ E4/ A4/ B4 r/ E4/ C5/ B4/ A4- E5/ D#5/
# Mozart 1788, Sonata facile | 2 | C C G C F C G C
C5- E5 G5 B4. C5// D5// C5- A5- G5 C6 G5 F5 E5-"""
MELODIES = [
    Melody(*theme.replace("\n", " | ", 1).split(" | "))
    for theme in THEMES.split("\n# ")
]


def _rng(*key: object) -> np.random.Generator:
    """Return a generator that depends on the key alone, whatever was drawn before."""
    return np.random.default_rng([zlib.crc32(repr(part).encode()) for part in key])


def _midi(name: str) -> int:
    """Return the MIDI number of a note name such as F#4."""
    return "C D EF G A B".index(name[0]) + name.count("#") + 12 * (int(name[-1]) + 1)


def make_album(*key: object) -> Album:
    """Return the sound that belongs to a key, drawn from what real albums have."""
    rng = _rng("album", *key)
    low = (1e-4, -9, 0.8, 0.01, 0.3, 0.02, -3, 2500, -70, -12)
    high = (1e-3, -4, 1.8, 0.10, 1.8, 0.40, 3, 10000, -40, -1)
    peaks = [
        (
            55 * 2**i * rng.uniform(0.7, 1.4),
            rng.uniform(4, 10) * (-1) ** int(rng.integers(2)),
        )
        for i in range(8)
    ]
    return Album._make(
        [*rng.uniform(low, high).tolist(), rng.normal(0, 8), tuple(peaks)]
    )


_Raw = list[
    tuple[float, ...]
]  # beat, beats held, pitch, dB, ms late, articulated (else held as written)


def _lead(melody: Melody, player: Player, rng: np.random.Generator) -> _Raw:
    """Return the melody with the player's mordents and octaves."""
    raw: _Raw = []
    beat, late = 0.0, -player.lead_ms
    for token in melody.notes.split():
        held = 0.5 ** token.count("/") + token.count("-") + 0.5 * token.count(".")
        if token[0] != "r":
            pitch = _midi(token.rstrip("/-."))
            n_grace = 2 if held >= 1 and rng.random() < player.ornament else 0
            raw += [
                (beat, 0.12, pitch + 2 * i, -2, late + 70 * i, 0)
                for i in range(n_grace)
            ]
            raw.append((beat, held, pitch, 0, late + 70 * n_grace, 1))
            if rng.random() < player.octave:
                raw.append((beat, held, pitch + 12, -3, late + player.roll_ms, 1))
        beat += held
    return raw


def _accompany(melody: Melody, player: Player, rng: np.random.Generator) -> _Raw:
    """Return the left hand: most bars in the player's own pattern, some in any."""
    raw: _Raw = []
    n, lowest = int(melody.chord_beats), 43 + player.bass + int(rng.integers(-4, 5))
    for bar, chord in enumerate(melody.chords.split()):
        root = lowest + (_midi(chord[0] + "3") - lowest) % 12
        tones = (root, root + 3 + ("m" not in chord), root + 7, root + 12, root - 12)
        pattern = (
            player.pattern
            if rng.random() < HABIT
            else str(rng.choice(sorted(PATTERNS)))
        )
        pedal = rng.random() < player.pedal
        for beat, chosen, held in PATTERNS[pattern](n):
            note = (bar * n + beat, n - beat if pedal else held)
            raw += [
                (*note, tones[t], -player.melody_db, i * player.roll_ms, not pedal)
                for i, t in enumerate(chosen)
            ]
    return raw


def perform(
    melody: Melody, player: Player, rng: np.random.Generator, seconds: float = 12
) -> np.ndarray:
    """Return a player's notes: float64 rows of onset and duration in s, MIDI pitch, velocity in (0, 1]; by onset.

    The melody returns until `seconds`. Key, tempo and first phrase are drawn: they say nothing about the player.
    """
    raw = np.array(_lead(melody, player, rng) + _accompany(melody, player, rng), float)
    key, tempo, phase = (
        rng.integers(-5, 7),
        rng.uniform(90, 130) / 60,
        rng.uniform(0, 2 * np.pi),
    )
    touch, swell, sway = np.exp(rng.normal(0, 0.12, 3)) * (
        player.articulation,
        player.dynamic_db,
        player.rubato,
    )
    n_chords, n = len(melody.chords.split()), int(melody.chord_beats)
    rounds = np.arange(np.ceil(seconds * tempo * 1.3 / (n_chords * n)) + 1)
    beat, held, pitch, decibel, late, articulated = np.tile(raw, (len(rounds), 1)).T
    beat = (beat - rng.integers(4) * n_chords // 4 * n) % (n_chords * n) + np.repeat(
        rounds, len(raw)
    ) * n_chords * n
    decibel += swell * np.sin(np.pi / 2 * beat / n + phase) + rng.normal(
        0, 1, len(beat)
    )
    beats = np.stack([beat, beat + held])
    beats = np.floor(beats) + np.interp(
        beats % 1, (0, 0.5, 1), (0, 0.5 + player.swing, 1)
    )
    start, end = (
        beats + sway * 4 / np.pi * (np.sin(np.pi / 4 * beats + phase) - np.sin(phase))
    ) / tempo
    onset = start + 0.2 + late / 1000 + rng.normal(0, 0.006, len(beat))
    ratio = np.where(articulated, touch, 1) * np.exp(rng.normal(0, 0.12, len(beat)))
    duration, velocity = (
        np.maximum((end - start) * ratio, 0.05),
        np.clip(0.5 * 10 ** (decibel / 20), 0.05, 1),
    )
    notes = np.stack([onset, duration, pitch + key, velocity], axis=1)[
        (onset >= 0) & (onset < seconds)
    ]
    return notes[np.argsort(notes[:, 0], kind="stable")]


def _tone(duration: float, pitch: float, velocity: float, piano: Album) -> np.ndarray:
    """Return one note, struck at 1/8 of the string; a matrix product of short phasors replaces a sine per sample."""
    p, n, block = np.arange(1, 13), round((duration + 0.25) * SAMPLE_RATE), 256
    stiff = piano.inharmonicity * 2 ** (
        (pitch - 60) / 8
    )  # Fletcher et al., Quality of piano tones, 1962
    hz = (
        440
        * 2 ** ((pitch - 69 + piano.cents / 100) / 12)
        * p
        * np.sqrt((1 + stiff * p**2) / (1 + stiff))
    )
    p, hz = p[hz < 0.45 * SAMPLE_RATE], hz[hz < 0.45 * SAMPLE_RATE]
    amplitude = (
        velocity**1.3
        * p ** (piano.tilt_db / 6 + velocity - 1)
        * (0.05 + np.abs(np.sin(np.pi * p / 8)))
    )
    z = (
        2j * np.pi * hz
        - (0.85 + 0.15 * p) * 2 ** ((pitch - 60) / 18) / piano.decay_seconds
    ) / SAMPLE_RATE
    left = (amplitude * np.exp(np.outer(np.arange(0, n, block), z))).astype(
        np.complex64
    )
    right = np.exp(np.outer(z, np.arange(block))).astype(np.complex64)
    wave = (left.imag @ right.real + left.real @ right.imag).ravel()[:n]
    wave[:64] *= np.linspace(0, 1, 64, dtype=np.float32)
    damped = wave[round(duration * SAMPLE_RATE) :]
    damped *= np.exp(-np.linspace(0, 6, len(damped), dtype=np.float32))
    return wave


def play(notes: np.ndarray, piano: Album, seconds: float = 12) -> np.ndarray:
    """Return notes, as `perform` gives them, on the piano of an album: float32, 22050 Hz, not scaled."""
    out = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    knock = (
        _rng("knock", piano).normal(0, piano.hammer, 512) * 0.98 ** np.arange(512)
    ).astype(np.float32)
    for onset, duration, pitch, velocity in notes:
        here = out[round(onset * SAMPLE_RATE) :]
        tone = _tone(duration, pitch, velocity, piano)
        tone[: len(knock)] += knock * velocity**2
        here[: len(tone)] += tone[: len(here)]
    return out


def record(wave: np.ndarray, album: Album, rng: np.random.Generator) -> np.ndarray:
    """Return a wave as heard on an album: in its room, through its equaliser and low-pass, with hiss, at its level."""
    from scipy.fft import irfft, next_fast_len, rfft

    n_tail = round(album.rt60_seconds * SAMPLE_RATE)
    tail = _rng("room", album).normal(0, 1, n_tail) * 10 ** (
        -3 * np.arange(n_tail) / n_tail
    )
    room = np.r_[1, tail * np.sqrt(album.wet / np.sum(tail**2))].astype(np.float32)
    n_fft = next_fast_len(len(wave) + n_tail, real=True)
    hz = np.maximum(np.fft.rfftfreq(n_fft, 1 / SAMPLE_RATE), 20)
    gain_db = album.eq_tilt_db * np.log2(hz / 700) - 10 * np.log10(
        1 + (hz / album.lowpass_hz) ** 8
    )
    for centre, peak_db in album.peaks:
        gain_db += peak_db * np.exp(-0.5 * (np.log2(hz / centre) / 0.35) ** 2)
    out = irfft(rfft(wave, n_fft) * rfft(room, n_fft) * 10 ** (gain_db / 20), n_fft)[
        : len(wave)
    ]
    out *= 10 ** (album.level_db / 20) / max(float(np.abs(out).max(initial=0)), 1e-9)
    return np.asarray(
        out + rng.standard_normal(len(wave)) * 10 ** (album.hiss_db / 20), np.float32
    )


def make_corpus(
    out: str | Path,
    n_players: int = 5,
    n_albums: int = 6,
    n_takes: int = 3,
    seconds: float = 12,
    random_state: int = 0,
) -> list[Path]:
    """Write ``<player>/<player>-<album>/take-<take>.flac`` (mono, 22050 Hz, 16 bit) and return the paths.

    A file depends on its path, `seconds` and `random_state` alone, so a larger corpus contains the smaller one.

    Raises
    ------
    InputError
        If a number is out of range: 2 to 7 players, 2 to 99 albums, 1 to 99 takes, 2 to 600 seconds.
    """
    import soundfile

    ranges = {
        "n_players": (n_players, 2, len(PLAYERS)),
        "n_albums": (n_albums, 2, 99),
        "n_takes": (n_takes, 1, 99),
    }
    for name, (value, low, high) in {**ranges, "seconds": (seconds, 2, 600)}.items():
        if not low <= value <= high:
            raise InputError(
                f"make_corpus: {name} must be from {low} to {high}, got {value}. Choose within the range."
            )
    files = []
    for player, number, take in product(
        PLAYERS[:n_players], range(1, n_albums + 1), range(1, n_takes + 1)
    ):
        slug = player.name.lower().replace(" ", "-")
        files.append(Path(out, slug, f"{slug}-{number}", f"take-{take}.flac"))
        album, rng = (
            make_album(random_state, slug, number),
            _rng("take", random_state, slug, number, take),
        )
        notes = perform(MELODIES[rng.integers(len(MELODIES))], player, rng, seconds)
        wave = record(play(notes, album, seconds), album, rng)
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        temporary = files[-1].with_suffix(f".part{os.getpid()}")
        soundfile.write(temporary, wave, SAMPLE_RATE, subtype="PCM_16", format="FLAC")
        os.replace(temporary, files[-1])
    return files
