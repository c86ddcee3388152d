"""Measure how many disguised copies of takes are found, the false pairs, and the time.

    python benchmarks/duplicates.py FOLDER [FOLDER ...] [--takes 100] [--seconds S]
        [--preset fast] [--split NAMES] [--made 10000]

A folder contains recordings and optionally a recordings.csv; `--split test,valid`
selects rows of it. A pair found among the unchanged recordings is false, unless both
have the same waveform (their correlation is above .9). Times are CPU seconds, so run
it with OMP_NUM_THREADS=1.
"""

import argparse
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
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


def proportion_interval(n: int, of: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion (Clopper & Pearson 1934)."""
    low = beta.ppf(0.025, n, of - n + 1) if n else 0.0
    return float(low), float(beta.ppf(0.975, n + 1, of - n) if n < of else 1.0)


def read(path: Path, seconds: float | None) -> np.ndarray:
    """Return the beginning of a recording."""
    wave = load_wave(path, RATE)
    return wave if seconds is None else wave[: round(seconds * RATE)]


def describe(wave: np.ndarray, spec: TileSpec) -> Landmarks:
    """Compute the landmarks of a wave stored as 16 bit, attenuated if it would clip."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        soundfile.write(
            file.name, wave / max(1, np.abs(wave).max()), RATE, subtype="PCM_16"
        )
        tiles, info = try_extract(Path(file.name), spec)
    if tiles is None:
        raise SystemExit(info.message)
    return compute_landmarks(tiles, spec)


def is_same_wave(one: np.ndarray, other: np.ndarray) -> bool:
    """Check whether two waves are equal but for a shift in time."""
    found = np.abs(correlate(one, other, method="fft")).max()
    return bool(found > 0.9 * np.linalg.norm(one) * np.linalg.norm(other))


def measure_disguises(
    paths: list[Path], plain: list[Landmarks], spec: TileSpec, seconds: float | None
) -> None:
    """Print the fraction of copies that is found, for each disguise."""
    n = len(paths)
    copies: dict[str, list[Landmarks]] = {name: [] for name in EFFECTS}
    for number, path in enumerate(paths):
        wave = read(path, seconds)
        for name, change in EFFECTS.items():
            rng = np.random.default_rng([zlib.crc32(name.encode()), number])
            copies[name].append(describe(change(wave, RATE, rng), spec))
    for name, disguised in copies.items():
        pairs = match_takes(plain + disguised)
        matches = [pair.match for pair in pairs if pair.second == pair.first + n]
        n_found = len(matches)
        low, high = proportion_interval(n_found, n)
        lowest = min(matches, default=np.nan)
        print(
            f"{name:30s} found {n_found:4d} of {n}  "
            f"({100 * low:.1f} to {100 * high:.1f} %)  lowest match {lowest:.2f}"
        )


def measure_false(
    paths: list[Path], takes: list[Landmarks], seconds: float | None
) -> None:
    """Print the pairs found among unchanged recordings, and how many are false."""
    start = time.process_time()
    pairs = match_takes(takes)
    took = time.process_time() - start
    false = [
        pair
        for pair in pairs
        if not is_same_wave(
            read(paths[pair.first], seconds), read(paths[pair.second], seconds)
        )
    ]
    n_pairs = len(takes) * (len(takes) - 1) // 2
    rate = proportion_interval(len(false), n_pairs)[1]
    print(
        f"{len(takes)} recordings, {n_pairs} pairs, {took:.1f} s: "
        f"{len(pairs) - len(false)} pairs have the same waveform"
    )
    print(
        f"false pairs: {len(false)}; per 10,000 recordings at most "
        f"{rate * 10_000 * 9_999 / 2:.0f} (95 %)"
    )
    for pair in false:
        print(
            f"  {pair.match:.2f} x{pair.speed:.3f} {pair.semitones:+d}  "
            f"{paths[pair.first]}  {paths[pair.second]}"
        )


def splice(takes: list[Landmarks], rng: np.random.Generator) -> Landmarks:
    """Splice a new take from random blocks of 4 s, transposed, with shifted onsets."""
    frame = takes[0].frame_seconds
    n = round(BLOCK_SECONDS / frame)
    onsets = []
    spectrograms = []
    n_blocks = takes[rng.integers(len(takes))].spectrogram.shape[1] // n
    for block in range(n_blocks):
        source = takes[rng.integers(len(takes))]
        start = int(rng.integers(max(1, source.spectrogram.shape[1] - n)))
        shift = int(rng.integers(-5, 7))
        inside = (source.onsets[:, 0] >= start * frame) & (
            source.onsets[:, 0] < (start + n) * frame
        )
        moved = source.onsets[inside] + [(block * n - start) * frame, shift]
        moved[:, 0] += rng.normal(0, 0.1, len(moved))
        onsets.append(moved[np.argsort(moved[:, 0])].astype(np.float32))
        part = source.spectrogram[:, start : start + n]
        spectrograms.append(
            np.pad(np.roll(part, shift, axis=0), ((0, 0), (0, n - part.shape[1])))
        )
    joined = np.concatenate(onsets)
    joined = joined[np.argsort(joined[:, 0])]
    spectrogram = np.concatenate(spectrograms, axis=1)
    return Landmarks(joined[joined[:, 1] >= 0], spectrogram, frame)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="+", type=Path)
    parser.add_argument(
        "--takes", type=int, default=100, help="recordings to disguise; 0 to skip"
    )
    parser.add_argument("--seconds", type=float, help="use only the beginning of each")
    parser.add_argument("--split", help="comma-separated values of the column split")
    parser.add_argument("--preset", default="fast")
    parser.add_argument(
        "--made",
        type=int,
        default=10_000,
        help="takes to splice for the timing; 0 to skip",
    )
    options = parser.parse_args()
    spec = TileSpec.preset(options.preset)
    lists = [folder / "recordings.csv" for folder in options.folder]
    tables = [
        list_recordings(x if x.is_file() else folder).to_frame()
        for x, folder in zip(lists, options.folder, strict=True)
    ]
    if options.split:
        tables = [
            t[t["split"].isin(options.split.split(","))] if "split" in t else t
            for t in tables
        ]
    paths = [Path(item) for item in pd.concat(tables)["item"]]
    paths = [paths[n] for n in np.random.default_rng(0).permutation(len(paths))]
    start = time.process_time()
    takes = [describe(read(path, options.seconds), spec) for path in paths]
    sizes = [take.onsets.nbytes + take.spectrogram.nbytes for take in takes]
    kilobytes = np.mean(sizes) / 1000
    print(
        f"{options.preset}: {len(paths)} recordings rendered in "
        f"{time.process_time() - start:.0f} s, {kilobytes:.0f} kB each"
    )
    measure_false(paths, takes, options.seconds)
    repeated = {n for pair in match_takes(takes) for n in (pair.first, pair.second)}
    chosen = [n for n in range(len(paths)) if n not in repeated][: options.takes]
    if chosen:
        measure_disguises(
            [paths[n] for n in chosen],
            [takes[n] for n in chosen],
            spec,
            options.seconds,
        )
    if options.made:
        rng = np.random.default_rng(0)
        made = [splice(takes, rng) for _ in range(options.made)]
        start = time.process_time()
        pairs = match_takes(made)
        print(
            f"{options.made} takes spliced from these: "
            f"{time.process_time() - start:.0f} s, {len(pairs)} pairs found"
        )


if __name__ == "__main__":
    main()
