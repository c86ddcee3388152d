"""Is one model better than another on the same recordings? The difference of accuracies with paired intervals.

    python benchmarks/paired.py ANSWERS OTHER_ANSWERS RECORDINGS

ANSWERS are tables with `path` and `label`, as `cqt2img predict` writes them; RECORDINGS holds `path`, `label`, `album`.
"""

import sys

import numpy as np
import pandas as pd


def main(first: str, second: str, recordings: str) -> None:
    truth = pd.read_csv(recordings, dtype=str).set_index("path")
    answers = [pd.read_csv(name, dtype=str).set_index("path")["label"] for name in (first, second)]
    truth = truth.loc[answers[0].index]
    right = [(a.loc[truth.index] == truth["label"]).to_numpy(float) for a in answers]
    difference = right[0] - right[1]
    rng = np.random.default_rng(0)
    draws = difference[rng.integers(len(difference), size=(10_000, len(difference)))].mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    print(f"{right[0].mean():.3f} - {right[1].mean():.3f} = {difference.mean():+.3f} on {len(truth)} recordings")
    print(f"95 % interval {low:+.3f} to {high:+.3f} over recordings")
    album, member = np.unique(truth["label"] + "/" + truth["album"], return_inverse=True)
    hits, sizes = np.bincount(member, weights=difference), np.bincount(member)
    chosen = rng.integers(len(album), size=(10_000, len(album)))
    low, high = np.percentile(hits[chosen].sum(axis=1) / sizes[chosen].sum(axis=1), [2.5, 97.5])
    print(f"95 % interval {low:+.3f} to {high:+.3f} over {len(album)} albums")


if __name__ == "__main__":
    main(*sys.argv[1:])
