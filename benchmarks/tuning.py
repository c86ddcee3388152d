"""Measure how well the tuning of a recording is estimated.

    python benchmarks/tuning.py AUDIO [--n 200]

AUDIO is what `make_audio.py jazz/metadata.csv` wrote; it detuned each album by known
cents, which are the reference. The pianos have a tuning of their own, so the median
error of each piano is subtracted first.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cqt2img import TileSpec, load_wave
from cqt2img.tiles.cqt import estimate_tuning

SPEC = TileSpec()


def estimate_by_cqt2img(wave: NDArray[np.float32]) -> float:
    return estimate_tuning(wave, SPEC)


def estimate_by_librosa(wave: NDArray[np.float32]) -> float:
    bins = librosa.estimate_tuning(y=wave, sr=SPEC.sample_rate)
    return 100 * float(bins)


METHODS: dict[str, Callable[[NDArray[np.float32]], float]] = {
    "cqt2img": estimate_by_cqt2img,
    "librosa": estimate_by_librosa,
}


def measure(path: Path, channel: str) -> dict[str, float | str]:
    """Return the true cents, and the estimate and the time of each method."""
    wave = load_wave(path, SPEC.sample_rate)
    facts = json.loads(channel)
    row = {"piano": facts["piano"], "cents": facts["cents"]}
    for name, estimate in METHODS.items():
        start = time.perf_counter()
        row[name] = estimate(wave)
        row[f"{name} ms"] = 1000 * (time.perf_counter() - start)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("audio", type=Path)
    parser.add_argument("--n", type=int, default=200)
    arguments = parser.parse_args()
    table = pd.read_csv(arguments.audio / "recordings.csv")
    table = table.sample(arguments.n, random_state=1)
    rows = []
    for path, channel in zip(table["path"], table["channel"], strict=True):
        rows.append(measure(arguments.audio / path, channel))
    frame = pd.DataFrame(rows)
    for name in METHODS:
        error = frame[name] - frame["cents"]
        error -= error.groupby(frame["piano"]).transform("median")
        error = ((error + 50) % 100 - 50).abs()  # cents are modulo a semitone
        milliseconds = frame[f"{name} ms"].median()
        print(
            f"{name}: median error {error.median():.1f} cents, "
            f"90 % within {error.quantile(0.9):.1f}, all within {error.max():.1f}; "
            f"{milliseconds:.0f} ms a recording"
        )


if __name__ == "__main__":
    main()
