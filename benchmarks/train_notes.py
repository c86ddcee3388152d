"""Train the network that transcribes notes on generated and simulated recordings.

    python benchmarks/train_notes.py make WORK [--n 311] [--soundfonts FILE ...]
    python benchmarks/train_notes.py train WORK OUT.safetensors [--steps 2200]
        [--rate 2.5e-3] [--start FILE]
    python benchmarks/train_notes.py evaluate WORK OUT.safetensors

Requires fluidsynth, pretty_midi and, by default, the soundfonts of Debian's packages
fluid-soundfont-gm, timgm6mb-soundfont and musescore-general-soundfont. The training
data contain no performance of a pianist and none of the pianos of the benchmarks.

The weights in the package are from two runs: 2,600 steps at a maximum rate of 4e-3,
while recordings were still being added, and from there 2,200 steps at 2.5e-3 with 299
recordings, each in two simulated channels. 12 more are held out; the printed numbers
are theirs. Duration: 50 minutes on one core.
"""

import argparse
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from scipy.signal import butter, fftconvolve, resample_poly, sosfilt

from cqt2img.models.device import retain_freed_memory
from cqt2img.models.notes import NoteTranscriber, decode_notes
from cqt2img.tiles.cqt import compute_cqt
from cqt2img.tiles.spec import TileSpec

SPEC = TileSpec.preset("notes")
RATE = SPEC.sample_rate
SECONDS = 24
LOWEST_PITCH = 21  # MIDI number of the lowest row
N_SEMITONES = 96
N_HELD_OUT = 12
WIDTH = 192
BATCH_SIZE = 8
# files and the program numbers of their pianos
SOUNDFONTS = [
    ("/usr/share/sounds/sf2/FluidR3_GM.sf2", 0),
    ("/usr/share/sounds/sf2/FluidR3_GM.sf2", 1),
    ("/usr/share/sounds/sf3/MuseScore_General_Full.sf3", 0),
    ("/usr/share/sounds/sf3/MuseScore_General_Full.sf3", 1),
    ("/usr/share/sounds/sf2/TimGM6mb.sf2", 0),
]
# semitones above the root; repeated entries are more probable
CHORDS = [
    [0, 4, 7],
    [0, 3, 7],
    [0, 4, 7, 10],
    [0, 3, 7, 10],
    [0, 4, 7, 11],
    [0, 3, 6, 9],
    [0, 5, 10],
    [0, 7],
    [0, 12],
    [0, 4, 10, 14],
    [0, 3, 10, 14],
    [0, 7, 16],
    [0, 1],
    [0, 2, 7],
    [4, 10, 14, 21],
    [0, 4, 9, 14],
]
SCALES = [
    [0, 2, 4, 5, 7, 9, 11],
    [0, 2, 4, 5, 7, 9, 11],
    [0, 2, 3, 5, 7, 8, 10],
    list(range(12)),
]


class Tone(NamedTuple):
    """A tone before the rules of a keyboard are applied; sorted by its start."""

    start: float
    pitch: int
    seconds: float
    velocity: float


class Note(NamedTuple):
    """A note of the score: start and end in seconds, MIDI number and velocity."""

    start: float
    end: float
    pitch: int
    velocity: int


@dataclass(frozen=True)
class Section:
    """A few seconds of music; times are in seconds."""

    start: float
    end: float
    beat: float
    velocity: float
    onset_deviation: float


class Example(NamedTuple):
    """Levels (192, n_frames) and targets (96, n_frames), the highest row first."""

    levels: NDArray[np.uint8]
    onsets: NDArray[np.float32]
    frames: NDArray[np.float32]


def generate_music(rng: np.random.Generator) -> list[Note]:
    """Generate piano music for both hands."""
    tones: list[Tone] = []
    start = 0.0
    while start < SECONDS:
        section = Section(
            start=start,
            end=min(SECONDS, start + rng.uniform(3, 9)),
            beat=rng.uniform(0.22, 0.9),
            velocity=rng.uniform(45, 100),
            onset_deviation=rng.uniform(0, 0.02),
        )
        tones += generate_section(rng, section)
        has_pause = rng.random() < 0.3
        start = section.end + (rng.uniform(0, 0.8) if has_pause else 0)
    return play_on_keyboard(tones)


def generate_section(rng: np.random.Generator, section: Section) -> list[Tone]:
    tones: list[Tone] = []
    if rng.random() < 0.9:
        tones += generate_right_hand(rng, section)
    if rng.random() < 0.85:
        tones += generate_left_hand(rng, section)
    if rng.random() < 0.35:  # pedal: all tones sound until it is changed
        period = rng.uniform(0.6, 2.5)
        tones = [hold_until_change(tone, section.start, period) for tone in tones]
    return tones


def hold_until_change(tone: Tone, start: float, period: float) -> Tone:
    until_change = period - (tone.start - start) % period
    return tone._replace(seconds=max(tone.seconds, until_change))


def play_on_keyboard(tones: list[Tone]) -> list[Note]:
    """Drop tones out of range, and release each key before it is struck again."""
    notes_of: dict[int, list[Note]] = {}
    for tone in sorted(tones):
        is_in_range = 24 <= tone.pitch <= 105
        if tone.start < 0 or not is_in_range or tone.start > SECONDS - 0.1:
            continue
        pitch = int(tone.pitch)
        notes = notes_of.setdefault(pitch, [])
        if notes and tone.start < notes[-1].end + 0.03:
            previous = notes[-1]
            if tone.start - previous.start < 0.05:
                continue
            released = max(tone.start - 0.02, previous.start + 0.02)
            notes[-1] = previous._replace(end=released)
        end = tone.start + max(tone.seconds, 0.04)
        velocity = int(np.clip(tone.velocity, 10, 127))
        notes.append(Note(tone.start, end, pitch, velocity))
    return sorted(note for notes in notes_of.values() for note in notes)


def generate_right_hand(rng: np.random.Generator, section: Section) -> list[Tone]:
    """Generate a melody of random steps, with up to three lower voices."""
    scale = SCALES[rng.integers(4)]
    key = int(rng.integers(12))
    pitch = rng.uniform(58, 86)
    notes_per_beat = rng.choice([1, 2, 2, 3, 4, 4])
    length = rng.uniform(0.4, 1.25)
    n_voices = rng.choice([1, 1, 1, 2, 3, 4])
    tones: list[Tone] = []
    start = section.start
    while start < section.end:
        n_notes = rng.choice([1, 1, 1, 1, 2, 3])
        gap = max(0.055, section.beat / notes_per_beat * n_notes)
        if rng.random() < 0.85:
            direction = rng.choice([-1, 1])
            max_step = rng.choice([3, 3, 5, 13])
            pitch = np.clip(pitch + direction * rng.integers(0, max_step), 50, 100)
            top = next(p for p in range(int(pitch), 128) if (p - key) % 12 in scale)
            seconds = gap * length * rng.uniform(0.8, 1.2)
            velocity = section.velocity + rng.normal(5, 10)
            onset = start + rng.normal(0, section.onset_deviation)
            tones.append(Tone(onset, top, seconds, velocity))
            for n in range(n_voices - 1):
                interval = int(rng.choice([3, 4, 5, 7, 8, 9, 12]))
                interval += n * int(rng.integers(2, 6))
                onset = start + abs(rng.normal(0, section.onset_deviation))
                softer = velocity - rng.uniform(0, 15)
                tones.append(Tone(onset, top - interval, seconds, softer))
        start += gap
    return tones


def generate_left_hand(rng: np.random.Generator, section: Section) -> list[Tone]:
    """Generate an accompaniment: bass, chords, stride or broken chords."""
    kind = rng.integers(5)
    root = int(rng.integers(33, 56))
    tones: list[Tone] = []
    start = section.start
    while start < section.end:
        if rng.random() < 0.3:
            step = rng.choice([-7, -5, -2, -1, 1, 2, 5, 7])
            root = int(np.clip(root + step, 26, 60))
        gap = section.beat * rng.choice([0.5, 1, 1, 2, 4])
        chord = CHORDS[rng.integers(len(CHORDS))]
        spread = rng.choice([0, 0, 0.01, 0.03, 0.06])
        length = rng.uniform(0.3, 1.1)
        if kind == 4:  # broken chords
            note = int(rng.choice(chord))
            pitches = [root + note + 12 * int(rng.integers(2))]
            gap = max(0.09, section.beat / rng.integers(2, 5))
        elif kind == 3 and rng.random() < 0.5:  # stride
            pitches = [root - 12]
        elif kind == 0:
            pitches = [root]
        else:
            transposition = {1: 12, 2: 0, 3: 7}[int(kind)]
            pitches = [root + transposition + note for note in chord]
        for n, pitch in enumerate(pitches):
            onset = start + n * spread + rng.normal(0, section.onset_deviation)
            velocity = section.velocity + rng.normal(-5, 11)
            tones.append(Tone(onset, pitch, gap * length, velocity))
        start += gap
    return tones


def simulate_recording(
    wave: NDArray[np.float32], rng: np.random.Generator
) -> tuple[NDArray[np.float32], float]:
    """Apply tuning, room, equaliser, bandwidth, saturation and noise to a wave.

    Returns the wave and the factor by which it is faster.
    """
    speed = 2 ** (rng.normal(0, 10) / 1200)
    wave = resample_poly(wave, 10_000, round(10_000 * speed)).astype(np.float32)
    if rng.random() < 0.7:
        wave = add_reverberation(wave, rng)
    hz = np.maximum(np.fft.rfftfreq(len(wave), 1 / RATE), 20)
    gain_db = draw_equaliser(hz, rng)
    spectrum = np.fft.rfft(wave) * 10 ** (gain_db / 20)
    wave = np.fft.irfft(spectrum, len(wave))
    if rng.random() < 0.5:
        low_pass = butter(4, rng.uniform(3000, 10_000), fs=RATE, output="sos")
        wave = sosfilt(low_pass, wave)
    wave = wave / np.abs(wave).max()
    if rng.random() < 0.3:
        drive = rng.uniform(1, 4)
        wave = np.tanh(drive * wave) / np.tanh(drive)
    noise = rng.standard_normal(len(wave))
    noise_level = 10 ** (rng.uniform(-80, -42) / 20)
    return (0.5 * wave + noise * noise_level).astype(np.float32), speed


def add_reverberation(
    wave: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Convolve a wave with decaying noise, which falls by 60 dB in .2 to 2.5 s."""
    n = int(rng.uniform(0.2, 2.5) * RATE)
    tail = rng.standard_normal(n) * 10 ** (-3 * np.arange(n) / n)
    if rng.random() < 0.5:
        low_pass = butter(1, rng.uniform(1500, 8000), fs=RATE, output="sos")
        tail = sosfilt(low_pass, tail)
    wet = rng.uniform(0.05, 0.55)
    impulse_response = tail / np.sqrt((tail**2).sum())
    reverberation = fftconvolve(wave, impulse_response)[: len(wave)]
    return (1 - wet) * wave + wet * reverberation


def draw_equaliser(
    hz: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return gains in dB: a slope and four bells."""
    gain_db = rng.normal(0, 1.2) * np.log2(hz / 800)
    for _ in range(4):
        centre = np.exp(rng.uniform(np.log(60), np.log(8000)))
        bell_db = rng.normal(0, 4)
        octaves = np.log2(hz / centre) / rng.uniform(0.15, 0.8)
        gain_db = gain_db + bell_db * np.exp(-0.5 * octaves**2)
    return gain_db


def make_recording(index: int, out: Path, soundfonts: list[tuple[str, int]]) -> None:
    """Generate one recording and write its levels in two simulated channels."""
    if out.exists():
        return
    rng = np.random.default_rng([7, index])
    notes = generate_music(rng)
    soundfont, program = soundfonts[rng.integers(len(soundfonts))]
    dry = synthesize(notes, soundfont, program)
    arrays = {"notes": np.array(notes, np.float32)}
    for channel in range(2):
        wave, speed = simulate_recording(dry, rng)
        levels = (compute_cqt(wave, SPEC) - SPEC.min_db) / SPEC.step_db
        arrays[f"levels_{channel}"] = np.round(levels[::-1]).astype(np.uint8)
        arrays[f"faster_{channel}"] = np.array(speed)
    part_file = out.with_suffix(".part.npz")
    np.savez_compressed(part_file, **arrays)
    part_file.rename(out)


def synthesize(notes: list[Note], soundfont: str, program: int) -> NDArray[np.float64]:
    """Render notes with fluidsynth, without its own reverberation and chorus."""
    import pretty_midi

    midi = pretty_midi.PrettyMIDI(resolution=960)
    instrument = pretty_midi.Instrument(program)
    for note in notes:
        midi_note = pretty_midi.Note(note.velocity, note.pitch, note.start, note.end)
        instrument.notes.append(midi_note)
    midi.instruments.append(instrument)
    with tempfile.TemporaryDirectory() as folder:
        midi_file = f"{folder}/a.mid"
        wave_file = f"{folder}/a.wav"
        midi.write(midi_file)
        options = ["-ni", "-q", "-R", "0", "-C", "0", "-g", "0.6", "-r", str(RATE)]
        command = ["fluidsynth", *options, "-F", wave_file, soundfont, midi_file]
        subprocess.run(command, check=True, capture_output=True)
        channels, _ = soundfile.read(wave_file, always_2d=True)
    return channels.mean(axis=1)[: (SECONDS + 1) * RATE]


def load_examples(files: list[Path]) -> list[Example]:
    """Load both channels of recordings, with targets."""
    return [example for file in files for example in load_channels(file)]


def load_channels(file: Path) -> Iterator[Example]:
    data = np.load(file)
    for channel in range(2):
        levels = np.ascontiguousarray(data[f"levels_{channel}"])
        n_frames = levels.shape[1]
        onsets, frames = np.zeros((2, N_SEMITONES, n_frames), np.float32)
        speed = data[f"faster_{channel}"]
        for start, end, pitch, _ in data["notes"]:
            first = round(float(start / speed / SPEC.frame_seconds))
            last = round(float(end / speed / SPEC.frame_seconds))
            if first >= n_frames:
                continue
            row = N_SEMITONES - 1 - (int(pitch) - LOWEST_PITCH)
            frames[row, first : max(first + 1, last)] = 1
            onsets[row, first] = 1
            around = slice(max(0, first - 1), first + 2)
            onsets[row, around] = np.maximum(onsets[row, around], 0.4)
        yield Example(levels, onsets, frames)


def sample_batch(
    examples: list[Example], rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample tiles at random positions, in transposed keys and with other timbres."""
    tiles = []
    targets = []
    for _ in range(BATCH_SIZE):
        example = examples[rng.integers(len(examples))]
        first = int(rng.integers(0, example.levels.shape[1] - WIDTH))
        semitones = int(rng.integers(-7, 8))
        columns = slice(first, first + WIDTH)
        curve = draw_level_curve(rng)
        levels = example.levels[:, columns] + curve[:, None]
        tile = np.clip(levels, 0, 255).astype(np.uint8)
        tiles.append(shift_rows(tile, 2 * semitones))
        onsets = shift_rows(example.onsets[:, columns], semitones)
        frames = shift_rows(example.frames[:, columns], semitones)
        targets.append(np.stack([onsets, frames]))
    return scale_levels(np.stack(tiles)), torch.from_numpy(np.stack(targets))


def draw_level_curve(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a change of level for each of the 192 rows: an equaliser in levels."""
    offset = rng.normal(0, 12)
    knots = rng.normal(0, 12, 7)
    return offset + np.interp(np.arange(192), np.linspace(0, 191, 7), knots)


def scale_levels(tiles: NDArray[np.uint8]) -> torch.Tensor:
    """Return levels from -1 to 1, (n, 1, height, width)."""
    return torch.from_numpy(tiles[:, None].astype(np.float32)) / 127.5 - 1


def shift_rows(image: NDArray, n_up: int) -> NDArray:
    """Shift an image up by some rows; new rows are 0."""
    n = len(image)
    shifted = np.zeros_like(image)
    source = image[max(0, n_up) : n - max(0, -n_up)]
    shifted[max(0, -n_up) : n - max(0, n_up)] = source
    return shifted


def train(
    folder: Path, out: Path, *, n_steps: int, start: Path | None, rate: float
) -> None:
    """Train the network and write its weights."""
    files = list_recordings(folder)
    held_out = load_examples(files[:N_HELD_OUT])
    examples = load_examples(files[N_HELD_OUT:])
    network = NoteTranscriber().to(memory_format=torch.channels_last)
    rng = np.random.default_rng(0)
    begin = time.time()
    if start is not None:
        network.load_state_dict(load_file(start))
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=n_steps, pct_start=0.1
    )
    # further weight of onsets and frames that are not 0
    positive_weight = torch.tensor([5.0, 1.0])[None, :, None, None]
    for step in range(1, n_steps + 1):
        tiles, targets = sample_batch(examples, rng)
        losses = torch.nn.functional.binary_cross_entropy_with_logits(
            network(tiles), targets, reduction="none"
        )
        loss = (losses * (1 + positive_weight * (targets > 0))).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            seconds = time.time() - begin
            print(f"step {step}, loss {loss.item():.4f}, {seconds:.0f} s", flush=True)
        if step % 500 == 0 or step == n_steps:
            print(evaluate(network, held_out), flush=True)
            save_weights(network, out)


def save_weights(network: NoteTranscriber, out: Path) -> None:
    state = network.state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, out)


def evaluate(network: NoteTranscriber, examples: list[Example]) -> str:
    """Return precision and recall of onsets, with a tolerance of two columns."""
    network.eval()
    n_correct = 0
    n_decoded = 0
    n_true = 0
    for example in examples:
        with torch.inference_mode():
            proba = torch.sigmoid(network(scale_levels(example.levels[None])))
        notes = decode_notes(*proba[0].numpy())
        remaining = true_onsets(example)
        n_decoded += len(notes)
        n_true += len(remaining)
        for start, pitch, _ in notes:
            column = round(start / SPEC.frame_seconds)
            candidates = {(int(pitch), column + shift) for shift in range(-2, 3)}
            matches = candidates & remaining
            if matches:
                remaining.remove(min(matches))
                n_correct += 1
    network.train()
    precision = n_correct / max(1, n_decoded)
    recall = n_correct / max(1, n_true)
    return f"held-out notes: precision {precision:.3f}, recall {recall:.3f}"


def true_onsets(example: Example) -> set[tuple[int, int]]:
    """Return pitches and columns of the onsets."""
    rows, columns = np.nonzero(example.onsets == 1)
    pitches = N_SEMITONES - 1 + LOWEST_PITCH - rows
    return set(zip(pitches.tolist(), columns.tolist(), strict=True))


def list_recordings(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*.npz"))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=["make", "train", "evaluate"])
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=Path("notes.safetensors"))
    parser.add_argument("--n", type=int, default=311)
    parser.add_argument(
        "--soundfonts", nargs="+", help="files whose program 0 is a piano"
    )
    parser.add_argument("--steps", type=int, default=2200)
    parser.add_argument("--rate", type=float, default=2.5e-3)
    parser.add_argument("--start", type=Path)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    work = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    if arguments.task == "make":
        soundfonts = SOUNDFONTS
        if arguments.soundfonts:
            soundfonts = [(file, 0) for file in arguments.soundfonts]
        make = delayed(make_recording)
        tasks = (make(n, work / f"{n:05d}.npz", soundfonts) for n in range(arguments.n))
        Parallel(2, verbose=5)(tasks)
    elif arguments.task == "train":
        with retain_freed_memory():
            train(
                work,
                arguments.out,
                n_steps=arguments.steps,
                start=arguments.start,
                rate=arguments.rate,
            )
    else:
        network = NoteTranscriber()
        network.load_state_dict(load_file(arguments.out))
        print(evaluate(network, load_examples(list_recordings(work)[:N_HELD_OUT])))


if __name__ == "__main__":
    main()
