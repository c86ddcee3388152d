"""How many copies of a take are found in each disguise, how many pairs are found that are none, and in what time.

    python benchmarks/duplicates.py FOLDER [FOLDER ...] [--takes 100] [--seconds S] [--preset fast] [--made 10000]

A folder holds recordings, and perhaps a recordings.csv of them; `--split test,valid` takes some of its rows. Pairs
found among the recordings as they are count as false, unless one wave is the other (their correlation is above .9).
Seconds are of the processor, so run it with OMP_NUM_THREADS=1.
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
from cqt2img.auditing.duplicates import Landmarks, landmarks, match_takes
from cqt2img.data.recordings import list_recordings
from cqt2img.tiles.extract import try_extract
from cqt2img.tiles.spec import TileSpec

RATE = 22050
BLOCK_SECONDS = 4.0


def limits(n: int, of: int) -> tuple[float, float]:
    """Give the 95 % interval of a proportion (Clopper & Pearson 1934)."""
    low = beta.ppf(0.025, n, of - n + 1) if n else 0.0
    return float(low), float(beta.ppf(0.975, n + 1, of - n) if n < of else 1.0)


def read(path: Path, seconds: float | None) -> np.ndarray:
    """Give the beginning of a recording."""
    wave = load_wave(path, RATE)
    return wave if seconds is None else wave[: round(seconds * RATE)]


def describe(wave: np.ndarray, spec: TileSpec) -> Landmarks:
    """Write a wave as 16 bit and give its landmarks; one that clips is made softer."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        soundfile.write(
            file.name, wave / max(1, np.abs(wave).max()), RATE, subtype="PCM_16"
        )
        tiles, info = try_extract(Path(file.name), spec)
    if tiles is None:
        raise SystemExit(info.message)
    return landmarks(tiles, spec)


def is_same_wave(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether a wave is the other, moved in time."""
    found = np.abs(correlate(one, other, method="fft")).max()
    return bool(found > 0.9 * np.linalg.norm(one) * np.linalg.norm(other))


def measure_disguises(
    paths: list[Path], plain: list[Landmarks], spec: TileSpec, seconds: float | None
) -> None:
    """Print the part of the copies that is found, disguise by disguise."""
    n = len(paths)
    copies: dict[str, list[Landmarks]] = {name: [] for name in EFFECTS}
    for number, path in enumerate(paths):
        wave = read(path, seconds)
        for name, change in EFFECTS.items():
            rng = np.random.default_rng([zlib.crc32(name.encode()), number])
            copies[name].append(describe(change(wave, RATE, rng), spec))
    for name, disguised in copies.items():
        pairs = match_takes(plain + disguised)
        own = pairs[pairs["second"] == pairs["first"] + n]
        low, high = limits(len(own), n)
        least = own["match"].min() if len(own) else np.nan
        print(
            f"{name:30s} found {len(own):4d} of {n}  ({100 * low:.1f} to {100 * high:.1f} %)  least match {least:.2f}"
        )


def measure_false(
    paths: list[Path], takes: list[Landmarks], seconds: float | None
) -> None:
    """Print what is found among recordings as they are, and how much of it is no copy."""
    start = time.process_time()
    pairs = match_takes(takes)
    took = time.process_time() - start
    false = [
        row
        for row in pairs.itertuples()
        if not is_same_wave(
            read(paths[row.first], seconds), read(paths[row.second], seconds)
        )
    ]
    n_pairs = len(takes) * (len(takes) - 1) // 2
    rate = limits(len(false), n_pairs)[1]
    print(
        f"{len(takes)} recordings, {n_pairs} pairs, {took:.1f} s: {len(pairs) - len(false)} pairs are the same wave"
    )
    print(
        f"false pairs: {len(false)}; per 10,000 recordings at most {rate * 10_000 * 9_999 / 2:.0f} (95 %)"
    )
    for row in false:
        print(
            f"  {row.match:.2f} x{row.speed:.3f} {row.semitones:+d}  {paths[row.first]}  {paths[row.second]}"
        )


def splice(takes: list[Landmarks], rng: np.random.Generator) -> Landmarks:
    """Make a take that is none of the others: blocks of 4 s from anywhere, each played anew in another key."""
    frame = takes[0].frame_seconds
    n = round(BLOCK_SECONDS / frame)
    onsets, sketches = [], []
    for place in range(len(takes[rng.integers(len(takes))].sketch[0]) // n):
        source = takes[rng.integers(len(takes))]
        start, shift = (
            int(rng.integers(max(1, source.sketch.shape[1] - n))),
            int(rng.integers(-5, 7)),
        )
        inside = (source.onsets[:, 0] >= start * frame) & (
            source.onsets[:, 0] < (start + n) * frame
        )
        moved = source.onsets[inside] + [(place * n - start) * frame, shift]
        moved[:, 0] += rng.normal(0, 0.1, len(moved))
        onsets.append(moved[np.argsort(moved[:, 0])].astype(np.float32))
        part = source.sketch[:, start : start + n]
        sketches.append(
            np.pad(np.roll(part, shift, axis=0), ((0, 0), (0, n - part.shape[1])))
        )
    joined = np.concatenate(onsets)
    joined = joined[np.argsort(joined[:, 0])]
    return Landmarks(joined[joined[:, 1] >= 0], np.concatenate(sketches, axis=1), frame)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="+", type=Path)
    parser.add_argument(
        "--takes", type=int, default=100, help="recordings to disguise; 0 leaves it out"
    )
    parser.add_argument("--seconds", type=float, help="of the beginning of each")
    parser.add_argument(
        "--split", help="values of the column split, with commas between"
    )
    parser.add_argument("--preset", default="fast")
    parser.add_argument(
        "--made",
        type=int,
        default=10_000,
        help="takes to splice for the time; 0 leaves it out",
    )
    words = parser.parse_args()
    spec = TileSpec.preset(words.preset)
    lists = [folder / "recordings.csv" for folder in words.folder]
    tables = [
        list_recordings(x if x.is_file() else folder).to_frame()
        for x, folder in zip(lists, words.folder, strict=True)
    ]
    if words.split:
        tables = [
            t[t["split"].isin(words.split.split(","))] if "split" in t else t
            for t in tables
        ]
    paths = [Path(item) for item in pd.concat(tables)["item"]]
    paths = [paths[n] for n in np.random.default_rng(0).permutation(len(paths))]
    start = time.process_time()
    takes = [describe(read(path, words.seconds), spec) for path in paths]
    kilobytes = (
        np.mean([take.onsets.nbytes + take.sketch.nbytes for take in takes]) / 1000
    )
    print(
        f"{words.preset}: {len(paths)} recordings drawn in {time.process_time() - start:.0f} s, {kilobytes:.0f} kB each"
    )
    measure_false(paths, takes, words.seconds)
    known = {
        n
        for pair in match_takes(takes)[["first", "second"]].to_numpy().tolist()
        for n in pair
    }
    chosen = [n for n in range(len(paths)) if n not in known][: words.takes]
    if chosen:
        measure_disguises(
            [paths[n] for n in chosen], [takes[n] for n in chosen], spec, words.seconds
        )
    if words.made:
        rng = np.random.default_rng(0)
        made = [splice(takes, rng) for _ in range(words.made)]
        start = time.process_time()
        pairs = match_takes(made)
        print(
            f"{words.made} takes spliced from these: {time.process_time() - start:.0f} s, {len(pairs)} pairs found"
        )


if __name__ == "__main__":
    main()
