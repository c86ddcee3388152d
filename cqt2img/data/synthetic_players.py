"""Invented pianists and the notes that they play."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from cqt2img._utils.progress import import_tqdm

_Float64Array = NDArray[np.float64]

# Fraction of bars in the player's own pattern. With it, features that ignore the level
# recognise 73 % of the players on new albums.
_OWN_PATTERN = 0.65


class Player(NamedTuple):
    """Playing style of an invented pianist.

    Parameters
    ----------
    name : str
        Name.
    pattern : str
        Accompaniment of most bars, a key of `PATTERNS`.
    articulation : float
        Sounding relative to written duration: 0.5 is staccato, 1.15 legato.
    pedal : float
        Probability that a bar is pedalled.
    lead_ms : float
        Time of the melody before the accompaniment in milliseconds.
    roll_ms : float
        Delay between the tones of a chord, upwards, in milliseconds.
    melody_db : float
        Level of the melody relative to the accompaniment in dB.
    dynamic_db : float
        Amplitude of the swell over a phrase in dB.
    rubato : float
        Relative amplitude of a tempo wave of 8 beats.
    swing : float
        Delay of the off-beat in beats.
    octave : float
        Probability that a melody note is doubled an octave above.
    ornament : float
        Probability of a mordent on a melody note of a beat or more.
    bass : int
        Shift of the left hand in semitones.
    """

    name: str
    pattern: str
    articulation: float
    pedal: float
    lead_ms: float
    roll_ms: float
    melody_db: float
    dynamic_db: float
    rubato: float
    swing: float
    octave: float
    ornament: float
    bass: int


PLAYERS = (
    Player(
        name="Ada Legato",
        pattern="arpeggio",
        articulation=1.15,
        pedal=0.5,
        lead_ms=15,
        roll_ms=8,
        melody_db=7,
        dynamic_db=6,
        rubato=0.06,
        swing=0.0,
        octave=0.05,
        ornament=0.05,
        bass=0,
    ),
    Player(
        name="Bruno Staccato",
        pattern="block",
        articulation=0.6,
        pedal=0.0,
        lead_ms=0,
        roll_ms=4,
        melody_db=5,
        dynamic_db=3,
        rubato=0.03,
        swing=0.0,
        octave=0.05,
        ornament=0.05,
        bass=0,
    ),
    Player(
        name="Clara Rubato",
        pattern="alberti",
        articulation=0.9,
        pedal=0.3,
        lead_ms=35,
        roll_ms=18,
        melody_db=7,
        dynamic_db=7,
        rubato=0.15,
        swing=0.0,
        octave=0.0,
        ornament=0.1,
        bass=1,
    ),
    Player(
        name="Dario Stride",
        pattern="stride",
        articulation=0.8,
        pedal=0.1,
        lead_ms=5,
        roll_ms=6,
        melody_db=4,
        dynamic_db=4,
        rubato=0.03,
        swing=0.1,
        octave=0.1,
        ornament=0.05,
        bass=-1,
    ),
    Player(
        name="Elsa Mordent",
        pattern="alberti",
        articulation=0.8,
        pedal=0.1,
        lead_ms=10,
        roll_ms=6,
        melody_db=6,
        dynamic_db=4,
        rubato=0.03,
        swing=0.0,
        octave=0.05,
        ornament=0.4,
        bass=1,
    ),
    Player(
        name="Felix Ottava",
        pattern="pulse",
        articulation=0.95,
        pedal=0.2,
        lead_ms=0,
        roll_ms=6,
        melody_db=5,
        dynamic_db=6,
        rubato=0.05,
        swing=0.04,
        octave=0.35,
        ornament=0.03,
        bass=-1,
    ),
    Player(
        name="Greta Harfe",
        pattern="block",
        articulation=1.05,
        pedal=0.5,
        lead_ms=25,
        roll_ms=40,
        melody_db=7,
        dynamic_db=5,
        rubato=0.08,
        swing=0.0,
        octave=0.1,
        ornament=0.05,
        bass=0,
    ),
)


class _Chord(NamedTuple):
    """A chord of the accompaniment within a bar."""

    beat: float
    tones: tuple[int, ...]  # indices of triad tones; 3 is the octave, -1 the bass
    beats: float  # duration


def _block_chords(n_beats: int) -> list[_Chord]:
    return [_Chord(0, (0, 1, 2), n_beats)]


def _pulsed_chords(n_beats: int) -> list[_Chord]:
    later = [_Chord(beat, (0, 1, 2), 1) for beat in range(1, n_beats)]
    return [_Chord(0, (-1, 1, 2), 1), *later]


def _stride(n_beats: int) -> list[_Chord]:
    later = [_Chord(beat, (1, 2, 3), 1) for beat in range(1, n_beats)]
    return [_Chord(0, (-1,), 1), *later]


def _alberti_bass(n_beats: int) -> list[_Chord]:
    return _broken_chord((0, 2, 1, 2), n_beats)


def _arpeggio(n_beats: int) -> list[_Chord]:
    return _broken_chord((-1, 0, 1, 2, 3, 2, 1, 0), n_beats)


def _broken_chord(tones: tuple[int, ...], n_beats: int) -> list[_Chord]:
    """Return single tones, two per beat."""
    n_tones = 2 * n_beats
    return [
        _Chord(index / 2, (tones[index % len(tones)],), 0.5) for index in range(n_tones)
    ]


# Functions that return the chords of a bar of n beats.
PATTERNS: dict[str, Callable[[int], list[_Chord]]] = {
    "block": _block_chords,
    "pulse": _pulsed_chords,
    "stride": _stride,
    "alberti": _alberti_bass,
    "arpeggio": _arpeggio,
}


class Melody(NamedTuple):
    """A theme over a sequence of equally long chords.

    Parameters
    ----------
    title : str
        Composer, year and title.
    chord_beats : int
        Duration of each chord in beats.
    chords : str
        Names of the chords.
    notes : str
        Names of the notes, of one beat each unless followed by // (1/4), / (1/2),
        . (1 1/2), - (2) or -- (3). r is a rest.
    """

    title: str
    chord_beats: int
    chords: str
    notes: str


MELODIES = (
    Melody(
        title="Beethoven 1824, Ode to Joy",
        chord_beats=4,
        chords="C G C G C G C C",
        notes="E4 E4 F4 G4 G4 F4 E4 D4 C4 C4 D4 E4 E4. D4/ D4- "
        "E4 E4 F4 G4 G4 F4 E4 D4 C4 C4 D4 E4 D4. C4/ C4-",
    ),
    Melody(
        title="Traditional 1761, Ah vous dirai-je, maman",
        chord_beats=2,
        chords="C C F C F C G C C F C G C F C G",
        notes="C5 C5 G5 G5 A5 A5 G5- F5 F5 E5 E5 D5 D5 C5- "
        "G5 G5 F5 F5 E5 E5 D5- G5 G5 F5 F5 E5 E5 D5-",
    ),
    Melody(
        title="Traditional 1580, Greensleeves",
        chord_beats=3,
        chords="Am C G Em Am F E E",
        notes="C5- D5 E5. F5/ E5 D5- B4 G4. A4/ B4 C5- A4 A4. G#4/ A4 B4- G#4 E4- A4",
    ),
    Melody(
        title="Petzold 1725, Minuet in G",
        chord_beats=3,
        chords="G G C G Am G D G",
        notes="D5 G4/ A4/ B4/ C5/ D5 G4 G4 E5 C5/ D5/ E5/ F#5/ G5 G4 G4 "
        "C5 D5/ C5/ B4/ A4/ B4 C5/ B4/ A4/ G4/ A4 B4/ A4/ G4/ F#4/ G4--",
    ),
    Melody(
        title="Beethoven 1810, Für Elise (a beat is a quaver)",
        chord_beats=3,
        chords="Am Am E Am",
        notes="E5/ D#5/ E5/ B4/ D5/ C5/ A4 r/ C4/ E4/ A4/ B4 r/ E4/ C5/ B4/ "
        "A4- E5/ D#5/",
    ),
    Melody(
        title="Mozart 1788, Sonata facile",
        chord_beats=2,
        chords="C C G C F C G C",
        notes="C5- E5 G5 B4. C5// D5// C5- A5- G5 C6 G5 F5 E5-",
    ),
)


class _Note(NamedTuple):
    """A note of the score, with the timing and level of its player."""

    beat: float
    beats: float  # duration
    pitch: float  # MIDI
    level_db: float
    delay_ms: float
    is_articulated: bool  # by the player, otherwise as written


def _note_to_midi(name: str) -> int:
    """Return the MIDI number of a note name such as F#4."""
    import_tqdm()
    import librosa

    return librosa.note_to_midi(name)


def _play_melody(melody: Melody, player: Player, rng: Generator) -> Iterator[_Note]:
    """Yield the melody with the mordents and octaves of a player."""
    beat = 0.0
    for token in melody.notes.split():
        beats = _count_beats(token)
        if not token.startswith("r"):
            pitch = _note_to_midi(token.rstrip("/-."))
            delay = -player.lead_ms
            if beats >= 1 and rng.random() < player.ornament:
                for interval in (0, 2):  # a mordent: the note and its upper neighbour
                    yield _Note(beat, 0.12, pitch + interval, -2, delay, False)
                    delay += 70
            yield _Note(beat, beats, pitch, 0, delay, True)
            if rng.random() < player.octave:
                delay = -player.lead_ms + player.roll_ms
                yield _Note(beat, beats, pitch + 12, -3, delay, True)
        beat += beats


def _count_beats(token: str) -> float:
    """Return the duration of a note in `Melody.notes`."""
    n_halvings = token.count("/")
    n_added = token.count("-") + 0.5 * token.count(".")
    return 0.5**n_halvings + n_added


def _accompany(melody: Melody, player: Player, rng: Generator) -> Iterator[_Note]:
    """Yield the left hand: most bars in the player's own pattern, some in any."""
    n_beats = melody.chord_beats
    lowest = 43 + player.bass + int(rng.integers(-4, 5))
    for bar, name in enumerate(melody.chords.split()):
        tones = _chord_tones(name, lowest)
        pattern = player.pattern
        if rng.random() >= _OWN_PATTERN:
            pattern = str(rng.choice(sorted(PATTERNS)))
        is_pedalled = rng.random() < player.pedal
        for chord in PATTERNS[pattern](n_beats):
            beat = bar * n_beats + chord.beat
            beats = n_beats - chord.beat if is_pedalled else chord.beats
            for index, tone in enumerate(chord.tones):
                delay = index * player.roll_ms
                level = -player.melody_db
                yield _Note(beat, beats, tones[tone], level, delay, not is_pedalled)


def _chord_tones(name: str, lowest: int) -> tuple[int, ...]:
    """Return root, third, fifth, octave and bass of a chord, the last at index -1."""
    interval = (_note_to_midi(name[0] + "3") - lowest) % 12
    root = lowest + interval
    third = 3 if "m" in name else 4
    return root, root + third, root + 7, root + 12, root - 12


def perform(
    melody: Melody, player: Player, rng: Generator, seconds: float = 12
) -> _Float64Array:
    """Return the notes that a player plays.

    Parameters
    ----------
    melody : Melody
        Theme, which is repeated.
    player : Player
        Playing style.
    rng : Generator
        Draws key, tempo, the first phrase and small deviations, independent of the
        player.
    seconds : float
        Length in seconds.

    Returns
    -------
    ndarray of float64, shape (n_notes, 4)
        Onset and duration in seconds, MIDI pitch, and velocity from 0 to 1, sorted by
        onset.
    """
    right_hand = list(_play_melody(melody, player, rng))
    left_hand = list(_accompany(melody, player, rng))
    score = np.array(right_hand + left_hand, float)
    transposition = rng.integers(-5, 7)
    beats_per_second = rng.uniform(90, 130) / 60
    phase = rng.uniform(0, 2 * np.pi)
    variation = np.exp(rng.normal(0, 0.12, 3))
    touch = variation[0] * player.articulation
    swell = variation[1] * player.dynamic_db
    rubato = variation[2] * player.rubato
    n_beats = seconds * beats_per_second * 1.3
    notes = _repeat(score, melody, n_beats, rng)
    beat, beats, pitch, level_db, delay_ms, is_articulated = notes.T
    n_notes = len(notes)
    swell_angle = np.pi / 2 * beat / melody.chord_beats + phase
    level_db += swell * np.sin(swell_angle) + rng.normal(0, 1, n_notes)
    times = np.stack([beat, beat + beats])
    times = _apply_swing(times, player.swing)
    times = _apply_rubato(times, rubato, phase)
    start, end = times / beats_per_second
    deviation = rng.normal(0, 0.006, n_notes)
    onset = start + 0.2 + delay_ms / 1000 + deviation
    variation = np.exp(rng.normal(0, 0.12, n_notes))
    ratio = np.where(is_articulated, touch, 1) * variation
    duration = np.maximum((end - start) * ratio, 0.05)
    amplitude = 0.5 * 10 ** (level_db / 20)
    velocity = np.clip(amplitude, 0.05, 1)
    pitch += transposition
    played = np.stack([onset, duration, pitch, velocity], axis=1)
    is_inside = (onset >= 0) & (onset < seconds)
    played = played[is_inside]
    order = np.argsort(played[:, 0], kind="stable")
    return played[order]


def _repeat(
    score: _Float64Array, melody: Melody, n_beats: float, rng: Generator
) -> _Float64Array:
    """Repeat a score for a number of beats, from a random quarter of it."""
    n_chords = len(melody.chords.split())
    n_score_beats = n_chords * melody.chord_beats
    n_rounds = int(np.ceil(n_beats / n_score_beats)) + 1
    first_chord = rng.integers(4) * n_chords // 4
    notes = np.tile(score, (n_rounds, 1))
    rounds = np.repeat(np.arange(n_rounds), len(score))
    beat = (notes[:, 0] - first_chord * melody.chord_beats) % n_score_beats
    notes[:, 0] = beat + rounds * n_score_beats
    return notes


def _apply_swing(beats: _Float64Array, swing: float) -> _Float64Array:
    """Delay the off-beats."""
    fraction = np.interp(beats % 1, (0, 0.5, 1), (0, 0.5 + swing, 1))
    return np.floor(beats) + fraction


def _apply_rubato(beats: _Float64Array, rubato: float, phase: float) -> _Float64Array:
    """Bend time by a tempo wave of 8 beats."""
    angle = np.pi / 4 * beats + phase
    wave = np.sin(angle) - np.sin(phase)
    return beats + rubato * 4 / np.pi * wave
