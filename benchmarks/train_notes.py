"""How the network that reads notes was trained: invented music, sampled pianos, invented rooms and records.

    python benchmarks/train_notes.py make WORK [--n 311] [--soundfonts FILE ...]
    python benchmarks/train_notes.py train WORK OUT.safetensors [--steps 2200] [--start FILE]

Needs fluidsynth and, by default, the soundfonts of Debian's fluid-soundfont-gm, timgm6mb-soundfont and
musescore-general-soundfont; `pip install pretty_midi`. No performance of anybody takes part, and neither do the pianos
of the benchmarks. The weights in the package are from two runs: 2,600 steps at a highest rate of 4e-3, with recordings
coming in while it ran, and from there 2,200 steps at 2.5e-3 with 299 recordings, each through two channels. 12 more
are held out; the figures printed are of these. One core, 50 minutes.
"""

import argparse
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from joblib import Parallel, delayed
from safetensors.torch import load_file, save_file
from scipy.signal import butter, fftconvolve, resample_poly, sosfilt

from cqt2img.models.device import retain_freed_memory
from cqt2img.models.notes import NoteReader, find_notes
from cqt2img.tiles.cqt import compute_cqt
from cqt2img.tiles.spec import TileSpec

SPEC = TileSpec.preset("notes")
RATE, SECONDS = SPEC.sample_rate, 24
FONTS = [
    ("/usr/share/sounds/sf2/FluidR3_GM.sf2", 0),
    ("/usr/share/sounds/sf2/FluidR3_GM.sf2", 1),
    ("/usr/share/sounds/sf3/MuseScore_General_Full.sf3", 0),
    ("/usr/share/sounds/sf3/MuseScore_General_Full.sf3", 1),
    ("/usr/share/sounds/sf2/TimGM6mb.sf2", 0),
]
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
WIDTH, BATCH = 192, 8


def invent(rng: np.random.Generator) -> list[tuple[float, float, int, int]]:
    """Make up piano music: beginning and end in seconds, MIDI number, velocity."""
    notes: list[tuple[float, int, float, float]] = []
    start = 0.0
    while start < SECONDS:
        end = min(SECONDS, start + rng.uniform(3, 9))
        beat, loud, late = (
            rng.uniform(0.22, 0.9),
            rng.uniform(45, 100),
            rng.uniform(0, 0.02),
        )
        part: list[tuple[float, int, float, float]] = []
        if rng.random() < 0.9:
            part += right_hand(rng, start, end, beat, loud, late)
        if rng.random() < 0.85:
            part += left_hand(rng, start, end, beat, loud, late)
        if rng.random() < 0.35:  # pedal: everything sounds until it is changed
            period = rng.uniform(0.6, 2.5)
            part = [
                (at, p, max(d, period - (at - start) % period), v)
                for at, p, d, v in part
            ]
        notes += part
        start = end + (rng.uniform(0, 0.8) if rng.random() < 0.3 else 0)
    played: dict[int, list[tuple[float, float, int]]] = {}
    for at, p, d, v in sorted(notes):
        if at < 0 or not 24 <= p <= 105 or at > SECONDS - 0.1:
            continue
        mine = played.setdefault(int(p), [])
        if (
            mine and at < mine[-1][1] + 0.03
        ):  # a key must come up before it goes down again
            if at - mine[-1][0] < 0.05:
                continue
            mine[-1] = (mine[-1][0], max(at - 0.02, mine[-1][0] + 0.02), mine[-1][2])
        mine.append((at, at + max(d, 0.04), int(np.clip(v, 10, 127))))
    return sorted((at, end, p, v) for p, mine in played.items() for at, end, v in mine)


def right_hand(
    rng: np.random.Generator,
    start: float,
    end: float,
    beat: float,
    loud: float,
    late: float,
) -> list:
    scale, key, pitch = (
        SCALES[rng.integers(4)],
        int(rng.integers(12)),
        rng.uniform(58, 86),
    )
    parts, length, n_voices = (
        rng.choice([1, 2, 2, 3, 4, 4]),
        rng.uniform(0.4, 1.25),
        rng.choice([1, 1, 1, 2, 3, 4]),
    )
    notes, at = [], start
    while at < end:
        gap = max(0.055, beat / parts * rng.choice([1, 1, 1, 1, 2, 3]))
        if rng.random() < 0.85:
            pitch = np.clip(
                pitch
                + rng.choice([-1, 1]) * rng.integers(0, rng.choice([3, 3, 5, 13])),
                50,
                100,
            )
            tone = next(p for p in range(int(pitch), 128) if (p - key) % 12 in scale)
            held, v = gap * length * rng.uniform(0.8, 1.2), loud + rng.normal(5, 10)
            notes.append((at + rng.normal(0, late), tone, held, v))
            for n in range(n_voices - 1):
                below = int(rng.choice([3, 4, 5, 7, 8, 9, 12])) + n * int(
                    rng.integers(2, 6)
                )
                notes.append(
                    (
                        at + abs(rng.normal(0, late)),
                        tone - below,
                        held,
                        v - rng.uniform(0, 15),
                    )
                )
        at += gap
    return notes


def left_hand(
    rng: np.random.Generator,
    start: float,
    end: float,
    beat: float,
    loud: float,
    late: float,
) -> list:
    kind, root, notes, at = rng.integers(5), int(rng.integers(33, 56)), [], start
    while at < end:
        if rng.random() < 0.3:
            root = int(np.clip(root + rng.choice([-7, -5, -2, -1, 1, 2, 5, 7]), 26, 60))
        gap, chord = (
            beat * rng.choice([0.5, 1, 1, 2, 4]),
            CHORDS[rng.integers(len(CHORDS))],
        )
        spread, length = rng.choice([0, 0, 0.01, 0.03, 0.06]), rng.uniform(0.3, 1.1)
        if kind == 4:  # one note after the other
            tones, gap = (
                [root + int(rng.choice(chord)) + 12 * int(rng.integers(2))],
                max(0.09, beat / rng.integers(2, 5)),
            )
        elif kind == 3 and rng.random() < 0.5:  # stride
            tones = [root - 12]
        else:
            tones = [
                [root],
                [root + 12 + x for x in chord],
                [root + x for x in chord],
                [root + 7 + x for x in chord],
            ][kind]
        for n, tone in enumerate(tones):
            notes.append(
                (
                    at + n * spread + rng.normal(0, late),
                    tone,
                    gap * length,
                    loud + rng.normal(-5, 11),
                )
            )
        at += gap
    return notes


def record(wave: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Send a wave through a tuning, a room, an equaliser, a microphone, tape and noise; and how much faster it is."""
    faster = 2 ** (rng.normal(0, 10) / 1200)
    wave = resample_poly(wave, 10_000, round(10_000 * faster)).astype(np.float32)
    if rng.random() < 0.7:
        n = int(rng.uniform(0.2, 2.5) * RATE)
        tail = rng.standard_normal(n) * 10 ** (-3 * np.arange(n) / n)
        if rng.random() < 0.5:
            tail = sosfilt(
                butter(1, rng.uniform(1500, 8000), fs=RATE, output="sos"), tail
            )
        wet = rng.uniform(0.05, 0.55)
        wave = (1 - wet) * wave + wet * fftconvolve(
            wave, tail / np.sqrt((tail**2).sum())
        )[: len(wave)]
    hz = np.maximum(np.fft.rfftfreq(len(wave), 1 / RATE), 20)
    gain = rng.normal(0, 1.2) * np.log2(hz / 800)
    for _ in range(4):
        centre = np.exp(rng.uniform(np.log(60), np.log(8000)))
        gain = gain + rng.normal(0, 4) * np.exp(
            -0.5 * (np.log2(hz / centre) / rng.uniform(0.15, 0.8)) ** 2
        )
    wave = np.fft.irfft(np.fft.rfft(wave) * 10 ** (gain / 20), len(wave))
    if rng.random() < 0.5:
        wave = sosfilt(
            butter(4, rng.uniform(3000, 10_000), fs=RATE, output="sos"), wave
        )
    wave = wave / np.abs(wave).max()
    if rng.random() < 0.3:
        drive = rng.uniform(1, 4)
        wave = np.tanh(drive * wave) / np.tanh(drive)
    noise = rng.standard_normal(len(wave)) * 10 ** (rng.uniform(-80, -42) / 20)
    return (0.5 * wave + noise).astype(np.float32), faster


def make(n: int, out: Path, fonts: list[tuple[str, int]]) -> None:
    """Make one recording, through two channels."""
    import pretty_midi

    if out.exists():
        return
    rng = np.random.default_rng([7, n])
    notes = invent(rng)
    font, program = fonts[rng.integers(len(fonts))]
    midi, part = pretty_midi.PrettyMIDI(resolution=960), pretty_midi.Instrument(program)
    part.notes = [pretty_midi.Note(v, p, at, end) for at, end, p, v in notes]
    midi.instruments.append(part)
    with tempfile.TemporaryDirectory() as folder:
        midi.write(f"{folder}/a.mid")
        words = [
            "fluidsynth",
            "-ni",
            "-q",
            "-R",
            "0",
            "-C",
            "0",
            "-g",
            "0.6",
            "-r",
            RATE,
            "-F",
            f"{folder}/a.wav",
            font,
            f"{folder}/a.mid",
        ]
        subprocess.run([str(word) for word in words], check=True, capture_output=True)
        dry = soundfile.read(f"{folder}/a.wav", always_2d=True)[0].mean(axis=1)[
            : (SECONDS + 1) * RATE
        ]
    kept = {"notes": np.array(notes, np.float32)}
    for channel in range(2):
        wave, faster = record(dry, rng)
        levels = (compute_cqt(wave, SPEC) - SPEC.min_db) / SPEC.step_db
        kept |= {
            f"levels_{channel}": np.round(levels[::-1]).astype(np.uint8),
            f"faster_{channel}": np.array(faster),
        }
    part_file = out.with_suffix(".part.npz")
    np.savez_compressed(part_file, **kept)
    part_file.rename(out)


def read(file: Path) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Give levels, beginnings and sounding of both channels; the highest row first."""
    data, pairs = np.load(file), []
    for channel in range(2):
        levels = data[f"levels_{channel}"]
        begins, sounds = np.zeros((2, 96, levels.shape[1]), np.float32)
        for start, end, pitch, _ in data["notes"]:
            at, stop = (
                round(float(t / data[f"faster_{channel}"] / SPEC.frame_seconds))
                for t in (start, end)
            )
            if at < levels.shape[1]:
                row = 95 - (int(pitch) - 21)
                sounds[row, at : max(at + 1, stop)] = begins[row, at] = 1
                around = slice(max(0, at - 1), at + 2)
                begins[row, around] = np.maximum(begins[row, around], 0.4)
        pairs.append((np.ascontiguousarray(levels), begins, sounds))
    return pairs


def draw(pairs: list, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a batch: any place, any key nearby, any tone."""
    batch = []
    for _ in range(BATCH):
        levels, *truth = pairs[rng.integers(len(pairs))]
        at, up = int(rng.integers(0, levels.shape[1] - WIDTH)), int(rng.integers(-7, 8))
        curve = rng.normal(0, 12) + np.interp(
            np.arange(192), np.linspace(0, 191, 7), rng.normal(0, 12, 7)
        )
        tile = np.clip(levels[:, at : at + WIDTH] + curve[:, None], 0, 255).astype(
            np.uint8
        )
        batch.append(
            [move(tile, 2 * up), *(move(one[:, at : at + WIDTH], up) for one in truth)]
        )
    tiles = (
        torch.from_numpy(
            np.stack([one[0] for one in batch])[:, None].astype(np.float32)
        )
        / 127.5
        - 1
    )
    return tiles, torch.from_numpy(np.stack([np.stack(one[1:]) for one in batch]))


def move(picture: np.ndarray, up: int) -> np.ndarray:
    moved = np.zeros_like(picture)
    n = len(picture)
    moved[max(0, -up) : n - max(0, up)] = picture[max(0, up) : n - max(0, -up)]
    return moved


def train(folder: Path, out: Path, steps: int, start: Path | None, rate: float) -> None:
    files = sorted(folder.glob("[0-9]*.npz"))
    held, pairs = (
        [pair for file in some for pair in read(file)]
        for some in (files[:12], files[12:])
    )
    network, rng, begun = (
        NoteReader().to(memory_format=torch.channels_last),
        np.random.default_rng(0),
        time.time(),
    )
    if start is not None:
        network.load_state_dict(load_file(start))
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=0.1
    )
    more = torch.tensor([5.0, 1.0])[
        None, :, None, None
    ]  # how much more a note weighs than none
    for step in range(1, steps + 1):
        tiles, truth = draw(pairs, rng)
        each = torch.nn.functional.binary_cross_entropy_with_logits(
            network(tiles), truth, reduction="none"
        )
        loss = (each * (1 + more * (truth > 0))).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(
                f"step {step}, loss {loss.item():.4f}, {time.time() - begun:.0f} s",
                flush=True,
            )
        if step % 500 == 0 or step == steps:
            print(judge(network, held), flush=True)
            save_file(
                {
                    name: value.contiguous()
                    for name, value in network.state_dict().items()
                },
                out,
            )


def judge(network: NoteReader, held: list) -> str:
    """Count notes that are found within two columns."""
    network.eval()
    right = n_found = n_true = 0
    for levels, begins, _ in held:
        with torch.inference_mode():
            tiles = torch.from_numpy(levels[None, None].astype(np.float32)) / 127.5 - 1
            found = find_notes(*torch.sigmoid(network(tiles))[0].numpy())
        truth = {
            (95 + 21 - row, column)
            for row, column in zip(*np.nonzero(begins == 1), strict=True)
        }
        n_found, n_true = n_found + len(found), n_true + len(truth)
        for start, pitch, _ in found:
            column = round(start / SPEC.frame_seconds)
            near = {(int(pitch), column + by) for by in range(-2, 3)} & truth
            truth -= {min(near)} if near else set()
            right += bool(near)
    network.train()
    return f"notes held out: {right / n_found:.3f} of those found are there, {right / n_true:.3f} of those there are found"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["make", "train", "judge"])
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=Path("notes.safetensors"))
    parser.add_argument("--n", type=int, default=311)
    parser.add_argument(
        "--soundfonts", nargs="+", help="files whose program 0 is a piano"
    )
    parser.add_argument("--steps", type=int, default=2200)
    parser.add_argument("--rate", type=float, default=2.5e-3)
    parser.add_argument("--start", type=Path)
    a = parser.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    if a.what == "make":
        fonts = [(font, 0) for font in a.soundfonts] if a.soundfonts else FONTS
        Parallel(2, verbose=5)(
            delayed(make)(n, a.work / f"{n:05d}.npz", fonts) for n in range(a.n)
        )
    elif a.what == "train":
        with retain_freed_memory():
            train(a.work, a.out, a.steps, a.start, a.rate)
    else:
        network = NoteReader()
        network.load_state_dict(load_file(a.out))
        print(
            judge(
                network,
                [
                    pair
                    for file in sorted(a.work.glob("[0-9]*.npz"))[:12]
                    for pair in read(file)
                ],
            )
        )


if __name__ == "__main__":
    main()
