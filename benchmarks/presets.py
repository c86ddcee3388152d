"""Compare tile specs by how well a plain pipeline names players on unseen albums.

    python benchmarks/presets.py SHARED AUDIO WORK [--group album] [--limit N]
        [--seconds S] [--only NAME ...]

Tiles -> frozen ImageNet MobileNetV2 -> logistic regression -> mean log-probability per
recording, by five-fold cross-validation over whole groups of the training and
validation recordings. The test recordings are not used.

Prints for each candidate the accuracy; the mean reciprocal rank of the right name,
which separates candidates better than accuracy; and how much that is above the first
candidate on the same recordings; each with its interval over groups. The same with
recordings split at random. Also the milliseconds of one thread per minute of audio for
tuning, transform and tiles.
"""

import argparse
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cqt2img.audio.decode import load_wave
from cqt2img.models.factory import build_network
from cqt2img.tiles.cqt import compute_cqt, estimate_tuning
from cqt2img.tiles.png import cut_tiles
from cqt2img.tiles.spec import TileSpec

SAMPLE_RATE = 22_050
BACKBONE = "mobilenetv2_100"
N_RESAMPLES = 5000
CANDIDATES: dict[str, TileSpec] = {
    "24 bins, hop 512, gamma 4": TileSpec(),
    "12 bins, hop 1024": TileSpec(
        bins_per_octave=12, n_bins=96, height=96, hop_length=1024, width=128
    ),
    "12 bins, hop 512": TileSpec(bins_per_octave=12, n_bins=96, height=96),
    "36 bins": TileSpec(bins_per_octave=36, n_bins=264, height=264),
    "gamma 0": TileSpec(gamma=0.0),
    "gamma 10": TileSpec(gamma=10.0),
    "gamma 20": TileSpec(gamma=20.0),
    "hop 256": TileSpec(hop_length=256, width=512),
    "hop 384": TileSpec(hop_length=384, width=342),
    "hop 1024": TileSpec(hop_length=1024, width=128),
    "tiles of 3 s": TileSpec(width=128),
    "tiles of 10 s": TileSpec(width=432),
    "floor -40 dB": TileSpec(min_db=-40.0),
    "floor -80 dB": TileSpec(min_db=-80.0),
    "reference: 99 %": TileSpec(reference_percentile=99.0, max_db=12.0),
    "tuning kept": TileSpec(tuning="keep"),
}


@dataclass
class Candidate:
    """A spec, the embeddings of each recording, and the time that its tiles took."""

    name: str
    spec: TileSpec
    weights: Path
    embeddings: list[NDArray[np.float32]] = field(default_factory=list)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        network = build_network(BACKBONE, 2, self.spec, self.weights)
        self.network = network.eval()

    def add(self, wave: NDArray[np.float32], tuning_cents: float) -> None:
        """Render a recording and embed its tiles."""
        start = time.perf_counter()
        correction = tuning_cents if self.spec.tuning == "remove" else 0.0
        cqt = compute_cqt(wave, self.spec, correction)
        tiles = cut_tiles(cqt, self.spec)
        self.seconds += time.perf_counter() - start
        with torch.inference_mode():
            embeddings = self.network.embed(torch.from_numpy(tiles))
        self.embeddings.append(embeddings.numpy())


def main() -> None:
    arguments = parse_arguments()
    arguments.work.mkdir(parents=True, exist_ok=True)
    table = pd.read_csv(arguments.audio / "recordings.csv")
    table = table[table["split"] != "test"]
    by_group = table.groupby(["label", arguments.group])
    table = by_group.head(arguments.limit or len(table)).reset_index(drop=True)
    weights = arguments.shared / "weights" / f"{BACKBONE}.safetensors"
    candidates = []
    for name in arguments.only:
        candidates.append(Candidate(name, CANDIDATES[name], weights))
    paths = [arguments.audio / path for path in table["path"]]
    minutes = embed_all(paths, candidates, arguments.seconds)
    labels = table["label"].to_numpy()
    groups = (table["label"] + "/" + table[arguments.group]).to_numpy()
    first: dict[str, NDArray[np.float64]] = {}
    for candidate in candidates:
        row: dict[str, object] = {
            "candidate": candidate.name,
            "spec": candidate.spec.key,
            "ms_per_minute": round(1000 * candidate.seconds / minutes, 1),
        }
        ranks = compute_ranks(candidate.embeddings, labels, groups)
        first = first or ranks
        for split, values in ranks.items():
            is_right = (values == 1).astype(float)
            row[f"{split}_accuracy"] = compute_interval(is_right, groups)
            row[f"{split}_rank"] = compute_interval(values, groups)
            row[f"{split}_rank_more_than_first"] = compute_interval(
                values - first[split], groups
            )
        print(json.dumps(row), flush=True)
        with (arguments.work / "presets.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shared", type=Path)
    parser.add_argument("audio", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument(
        "--group", default="album", help="column with what must not be split"
    )
    parser.add_argument("--limit", type=int, help="use the first N recordings of each")
    parser.add_argument("--seconds", type=int, default=60, help="of every recording")
    parser.add_argument("--only", nargs="+", default=list(CANDIDATES))
    return parser.parse_args()


def embed_all(paths: list[Path], candidates: list[Candidate], seconds: int) -> float:
    """Embed the tiles of every candidate; return the minutes of audio."""
    n_samples = 0
    for n, path in enumerate(paths):
        wave = load_wave(path, SAMPLE_RATE)[: seconds * SAMPLE_RATE]
        n_samples += len(wave)
        tuning_cents = estimate_tuning(wave, TileSpec())
        for candidate in candidates:
            candidate.add(wave, tuning_cents)
        if n % 20 == 0:
            print(n, len(paths), flush=True)
    return n_samples / SAMPLE_RATE / 60


def compute_ranks(
    embeddings: list[NDArray[np.float32]],
    labels: NDArray[np.object_],
    groups: NDArray[np.object_],
) -> dict[str, NDArray[np.float64]]:
    """Return the reciprocal rank of the right name, by group folds and random folds."""
    by_group = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    at_random = StratifiedKFold(5, shuffle=True, random_state=0)
    folds = {
        "held_out": by_group.split(labels, labels, groups),
        "at_random": at_random.split(labels, labels),
    }
    ranks = {}
    for name, splits in folds.items():
        ranks[name] = np.zeros(len(labels))
        for training, test in splits:
            model = make_pipeline(
                StandardScaler(),
                LogisticRegression(C=1e-3, class_weight="balanced", max_iter=300),
            )
            n_tiles = [len(embeddings[index]) for index in training]
            tiles = np.concatenate([embeddings[index] for index in training])
            model.fit(tiles, np.repeat(labels[training], n_tiles))
            for index in test:
                log_proba = model.predict_log_proba(embeddings[index]).mean(axis=0)
                right = log_proba[model.classes_ == labels[index]]
                ranks[name][index] = 1 / (1 + (log_proba > right).sum())
    return ranks


def compute_interval(
    values: NDArray[np.float64], groups: NDArray[np.object_]
) -> list[float]:
    """Return the mean and its 95 % bootstrap interval over groups."""
    by_group = pd.Series(values).groupby(groups)
    sums = by_group.agg(["sum", "count"]).to_numpy()
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(sums), size=(N_RESAMPLES, len(sums)))
    totals = sums[drawn].sum(axis=1)
    low, high = np.percentile(totals[:, 0] / totals[:, 1], [2.5, 97.5])
    return [round(float(value), 3) for value in (values.mean(), low, high)]


if __name__ == "__main__":
    main()
