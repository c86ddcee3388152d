"""Measure the error of tuning estimation on albums detuned by known amounts.

    python benchmarks/tuning.py AUDIO [--n 200]

AUDIO is the output of `make_audio.py jazz/metadata.csv`. Each piano has its own tuning,
so the median error of each piano is subtracted first.
"""

import argparse
import json
import time
from pathlib import Path

import librosa
import numpy as np
import pandas as pd

from cqt2img import TileSpec, load_wave
from cqt2img.tiles.cqt import estimate_tuning


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("audio", type=Path)
    parser.add_argument("--n", type=int, default=200)
    a = parser.parse_args()
    table = pd.read_csv(a.audio / "recordings.csv").sample(a.n, random_state=1)
    spec, rows = TileSpec(), []
    for path, channel in zip(table["path"], table["channel"], strict=True):
        wave, facts = load_wave(a.audio / path, spec.sample_rate), json.loads(channel)
        row = {"piano": facts["piano"], "cents": facts["cents"]}
        for name, measure in (
            ("cqt2img", lambda wave: estimate_tuning(wave, spec)),
            (
                "librosa",
                lambda wave: (
                    100 * float(librosa.estimate_tuning(y=wave, sr=spec.sample_rate))
                ),
            ),
        ):
            start = time.perf_counter()
            row[name] = measure(wave)
            row[f"{name} ms"] = 1000 * (time.perf_counter() - start)
        rows.append(row)
    frame = pd.DataFrame(rows)
    for name in ("cqt2img", "librosa"):
        error = frame[name] - frame["cents"]
        error = np.abs(
            (error - error.groupby(frame["piano"]).transform("median") + 50) % 100 - 50
        )
        print(
            f"{name}: median error {error.median():.1f} cents, "
            f"90 % within {error.quantile(0.9):.1f}, all within {error.max():.1f}; "
            f"{frame[f'{name} ms'].median():.0f} ms per recording"
        )


if __name__ == "__main__":
    main()
