"""Measure which copies of a take are found, false pairs, and time.

    python benchmarks/duplicates.py FOLDER [FOLDER ...] [--takes 100] [--seconds S]
        [--preset fast] [--made 10000]

A folder contains recordings, and optionally a recordings.csv; `--split test,valid`
selects some of its rows. A pair found among the unchanged recordings is false, unless
one wave is the other, shifted in time (their correlation is above .9). Times are of the
processor, so run it with OMP_NUM_THREADS=1.
"""

import argparse
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
import soundfile
from numpy.random import Generator
from scipy.signal import correlate
from scipy.stats import beta

from cqt2img.audio.decode import load_wave
from cqt2img.audio.effects import EFFECTS
from cqt2img.auditing.landmarks import Landmarks, compute_landmarks
from cqt2img.auditing.matching import match_takes
from cqt2img.data.recordings import list_recordings
from cqt2img.tiles.extract import try_extract
from cqt2img.tiles.spec import TileSpec

RATE = 22050
BLOCK_SECONDS = 4.0


def share_interval(n: int, n_all: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion (Clopper & Pearson 1934)."""
    low = beta.ppf(0.025, n, n_all - n + 1) if n else 0.0
    high = beta.ppf(0.975, n + 1, n_all - n) if n < n_all else 1.0
    return float(low), float(high)


def read_wave(path: Path, seconds: float | None) -> np.ndarray:
    """Read the beginning of a recording."""
    wave = load_wave(path, RATE)
    return wave if seconds is None else wave[: round(seconds * RATE)]


def landmarks_of(wave: np.ndarray, spec: TileSpec) -> Landmarks:
    """Compute the landmarks of a wave as a 16-bit file that does not clip."""
    scaled = wave / max(1, np.abs(wave).max())
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        soundfile.write(file.name, scaled, RATE, subtype="PCM_16")
        tiles, info = try_extract(Path(file.name), spec)
    if tiles is None:
        raise SystemExit(info.message)
    return compute_landmarks(tiles, spec)


def is_same_wave(first: np.ndarray, second: np.ndarray) -> bool:
    """Check whether one wave is the other, shifted in time."""
    peak = np.abs(correlate(first, second, method="fft")).max()
    return bool(peak > 0.9 * np.linalg.norm(first) * np.linalg.norm(second))


def measure_effects(
    paths: list[Path], plain: list[Landmarks], spec: TileSpec, seconds: float | None
) -> None:
    """Print which part of the copies is found, effect by effect."""
    n = len(paths)
    copies: dict[str, list[Landmarks]] = {name: [] for name in EFFECTS}
    for index, path in enumerate(paths):
        wave = read_wave(path, seconds)
        for name, effect in EFFECTS.items():
            rng = np.random.default_rng([zlib.crc32(name.encode()), index])
            copies[name].append(landmarks_of(effect(wave, RATE, rng), spec))
    for name, changed in copies.items():
        pairs = match_takes(plain + changed)
        matches = [pair.match for pair in pairs if pair.second == pair.first + n]
        low, high = share_interval(len(matches), n)
        print(
            f"{name:30s} found {len(matches):4d} of {n}  "
            f"({100 * low:.1f} to {100 * high:.1f} %)  "
            f"lowest match {min(matches, default=np.nan):.2f}"
        )


def measure_false_pairs(
    paths: list[Path], takes: list[Landmarks], seconds: float | None
) -> set[int]:
    """Print the false pairs among unchanged recordings.

    Returns the indices of all recordings that are in a pair, false or not.
    """
    start = time.process_time()
    pairs = match_takes(takes)
    cpu_seconds = time.process_time() - start
    false = []
    for pair in pairs:
        first = read_wave(paths[pair.first], seconds)
        second = read_wave(paths[pair.second], seconds)
        if not is_same_wave(first, second):
            false.append(pair)
    n_pairs = len(takes) * (len(takes) - 1) // 2
    _, high = share_interval(len(false), n_pairs)
    print(
        f"{len(takes)} recordings, {n_pairs} pairs, {cpu_seconds:.1f} s: "
        f"{len(pairs) - len(false)} pairs are the same wave"
    )
    print(
        f"false pairs: {len(false)}; per 10,000 recordings at most "
        f"{high * 10_000 * 9_999 / 2:.0f} (95 %)"
    )
    for pair in false:
        print(
            f"  {pair.match:.2f} x{pair.speed:.3f} {pair.semitones:+d}  "
            f"{paths[pair.first]}  {paths[pair.second]}"
        )
    return {index for pair in pairs for index in (pair.first, pair.second)}


def splice(takes: list[Landmarks], rng: Generator) -> Landmarks:
    """Make a new take from blocks of 4 s of others, each played anew in another key."""
    frame_seconds = takes[0].frame_seconds
    n_frames = round(BLOCK_SECONDS / frame_seconds)
    length = takes[rng.integers(len(takes))].spectrogram.shape[1]
    onsets = []
    spectrograms = []
    for block in range(length // n_frames):
        source = takes[rng.integers(len(takes))]
        last = max(1, source.spectrogram.shape[1] - n_frames)
        start = int(rng.integers(last))
        shift = int(rng.integers(-5, 7))
        seconds = source.onsets[:, 0]
        is_inside = seconds >= start * frame_seconds
        is_inside &= seconds < (start + n_frames) * frame_seconds
        delay = (block * n_frames - start) * frame_seconds
        moved = source.onsets[is_inside] + [delay, shift]
        moved[:, 0] += rng.normal(0, 0.1, len(moved))
        onsets.append(sort_by_time(moved.astype(np.float32)))
        part = source.spectrogram[:, start : start + n_frames]
        missing = n_frames - part.shape[1]
        transposed = np.roll(part, shift, axis=0)
        spectrograms.append(np.pad(transposed, ((0, 0), (0, missing))))
    joined = sort_by_time(np.concatenate(onsets))
    is_audible = joined[:, 1] >= 0
    spectrogram = np.concatenate(spectrograms, axis=1)
    return Landmarks(joined[is_audible], spectrogram, frame_seconds)


def sort_by_time(onsets: np.ndarray) -> np.ndarray:
    """Sort onsets by time."""
    return onsets[np.argsort(onsets[:, 0])]


def list_files(folder: Path, splits: list[str]) -> list[Path]:
    """List the recordings of a folder, or those on some sides of its split."""
    table = folder / "recordings.csv"
    recordings = list_recordings(table if table.is_file() else folder)
    if splits and "split" in recordings.column_names:
        sides = recordings.column("split")
        recordings = recordings.select([side in splits for side in sides])
    return [Path(str(recording.source)) for recording in recordings]


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="+", type=Path)
    parser.add_argument("--takes", type=int, default=100, help="recordings to copy")
    parser.add_argument("--seconds", type=float, help="length used of each recording")
    parser.add_argument("--split", default="", help="sides of the split, with commas")
    parser.add_argument("--preset", default="fast")
    parser.add_argument(
        "--made",
        type=int,
        default=10_000,
        help="spliced takes to measure the time with",
    )
    return parser.parse_args()


def main() -> None:
    """Print the results."""
    options = parse_options()
    spec = TileSpec.preset(options.preset)
    splits = [side for side in options.split.split(",") if side]
    files = [file for folder in options.folder for file in list_files(folder, splits)]
    order = np.random.default_rng(0).permutation(len(files))
    paths = [files[index] for index in order]
    start = time.process_time()
    takes = [landmarks_of(read_wave(path, options.seconds), spec) for path in paths]
    cpu_seconds = time.process_time() - start
    n_bytes = np.mean([take.onsets.nbytes + take.spectrogram.nbytes for take in takes])
    print(
        f"{options.preset}: landmarks of {len(paths)} recordings in "
        f"{cpu_seconds:.0f} s, {n_bytes / 1000:.0f} kB each"
    )
    paired = measure_false_pairs(paths, takes, options.seconds)
    chosen = [index for index in range(len(paths)) if index not in paired]
    chosen = chosen[: options.takes]
    if chosen:
        chosen_paths = [paths[index] for index in chosen]
        chosen_takes = [takes[index] for index in chosen]
        measure_effects(chosen_paths, chosen_takes, spec, options.seconds)
    if options.made:
        rng = np.random.default_rng(0)
        made = [splice(takes, rng) for _ in range(options.made)]
        start = time.process_time()
        pairs = match_takes(made)
        cpu_seconds = time.process_time() - start
        print(f"{options.made} spliced takes: {cpu_seconds:.0f} s, {len(pairs)} pairs")


if __name__ == "__main__":
    main()
