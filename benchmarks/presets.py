"""Compare tile specs by the accuracy of a plain pipeline on albums held out.

    python benchmarks/presets.py SHARED AUDIO WORK [--group album] [--limit N]
        [--seconds S] [--only NAME ...]

The pipeline: tiles, frozen ImageNet MobileNetV2, logistic regression, mean
log-probability per recording, by five-fold cross-validation over whole groups of the
training and validation recordings; the test recordings are not opened. Prints accuracy,
the mean reciprocal rank of the correct label (which has less variance than accuracy),
and its difference from the first candidate on the same recordings, each with an
interval over groups; the same with recordings split at random; and the milliseconds of
one thread per minute of audio for tuning, transform and tiles.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cqt2img.audio.decode import load_wave
from cqt2img.models.factory import build_network
from cqt2img.tiles.cqt import compute_cqt, estimate_tuning
from cqt2img.tiles.png import cut_tiles
from cqt2img.tiles.spec import TileSpec

CANDIDATES: dict[str, dict] = {
    "24 bins, hop 512, gamma 4": {},
    "12 bins, hop 1024": {
        "bins_per_octave": 12,
        "n_bins": 96,
        "height": 96,
        "hop_length": 1024,
        "width": 128,
    },
    "12 bins, hop 512": {"bins_per_octave": 12, "n_bins": 96, "height": 96},
    "36 bins": {"bins_per_octave": 36, "n_bins": 264, "height": 264},
    "gamma 0": {"gamma": 0.0},
    "gamma 10": {"gamma": 10.0},
    "gamma 20": {"gamma": 20.0},
    "hop 256": {"hop_length": 256, "width": 512},
    "hop 384": {"hop_length": 384, "width": 342},
    "hop 1024": {"hop_length": 1024, "width": 128},
    "tiles of 3 s": {"width": 128},
    "tiles of 10 s": {"width": 432},
    "floor -40 dB": {"min_db": -40.0},
    "floor -80 dB": {"min_db": -80.0},
    "reference: 99 %": {"reference_percentile": 99.0, "max_db": 12.0},
    "tuning kept": {"tuning": "keep"},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shared", type=Path)
    parser.add_argument("audio", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--group", default="album", help="column of the groups")
    parser.add_argument(
        "--limit", type=int, help="use only the first N recordings of each group"
    )
    parser.add_argument("--seconds", type=int, default=60, help="of every recording")
    parser.add_argument("--only", nargs="+", default=list(CANDIDATES))
    a = parser.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    table = pd.read_csv(a.audio / "recordings.csv")
    table = table[table["split"] != "test"]
    table = (
        table.groupby(["label", a.group])
        .head(a.limit or len(table))
        .reset_index(drop=True)
    )
    specs = {name: TileSpec(**CANDIDATES[name]) for name in a.only}
    names, features, milliseconds = embed(table, specs, a)
    groups = (table["label"] + "/" + table[a.group]).to_numpy()
    base: dict[str, np.ndarray] = {}
    for name in names:
        found = reciprocal_ranks(features[name], table, a.group)
        base = base or found
        row: dict = {
            "candidate": name,
            "spec": specs[name].key,
            "ms_per_minute": round(milliseconds[name], 1),
        }
        for split, values in found.items():
            row[f"{split}_accuracy"] = interval((values == 1).astype(float), groups)
            row[f"{split}_rank"] = interval(values, groups)
            row[f"{split}_rank_more_than_first"] = interval(
                values - base[split], groups
            )
        print(json.dumps(row), flush=True)
        with (a.work / "presets.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")


def embed(
    table: pd.DataFrame, specs: dict[str, TileSpec], a: argparse.Namespace
) -> tuple:
    """Compute the embeddings of all tiles for each candidate, and the time."""
    weights = a.shared / "weights/mobilenetv2_100.safetensors"
    networks = {
        name: build_network("mobilenetv2_100", 2, spec, weights).eval()
        for name, spec in specs.items()
    }
    features: dict[str, list] = {name: [] for name in specs}
    seconds, sound = dict.fromkeys(specs, 0.0), 0.0
    for n, path in enumerate(table["path"]):
        wave = load_wave(a.audio / path, 22_050)[: a.seconds * 22_050]
        cents = estimate_tuning(wave, TileSpec())
        sound += len(wave) / 22_050
        for name, spec in specs.items():
            start = time.perf_counter()
            tiles = cut_tiles(
                compute_cqt(wave, spec, cents if spec.tuning == "remove" else 0.0), spec
            )
            seconds[name] += time.perf_counter() - start
            net = networks[name]
            with torch.inference_mode():
                image = net.table[torch.from_numpy(tiles).int()].permute(0, 3, 1, 2)
                maps = net.backbone.forward_features(image)
                features[name].append(
                    net.backbone.forward_head(maps, pre_logits=True).numpy()
                )
        if n % 20 == 0:
            print(n, len(table), flush=True)
    return (
        list(specs),
        features,
        {name: 60_000 * s / sound for name, s in seconds.items()},
    )


def reciprocal_ranks(
    features: list, table: pd.DataFrame, group: str
) -> dict[str, np.ndarray]:
    """Return the reciprocal rank of each label, by groups held out and at random."""
    y, groups = (
        table["label"].to_numpy(),
        (table["label"] + "/" + table[group]).to_numpy(),
    )
    found = {}
    for name, splitter in (
        ("held_out", StratifiedGroupKFold(5, shuffle=True, random_state=0)),
        ("at_random", StratifiedKFold(5, shuffle=True, random_state=0)),
    ):
        found[name] = np.zeros(len(y))
        for train, test in splitter.split(y, y, groups):
            model = make_pipeline(
                StandardScaler(),
                LogisticRegression(C=1e-3, class_weight="balanced", max_iter=300),
            )
            model.fit(
                np.concatenate([features[i] for i in train]),
                np.repeat(y[train], [len(features[i]) for i in train]),
            )
            for i in test:
                proba = model.predict_log_proba(features[i]).mean(axis=0)
                found[name][i] = 1 / (1 + (proba > proba[model.classes_ == y[i]]).sum())
    return found


def interval(values: np.ndarray, groups: np.ndarray) -> list[float]:
    """Return the mean and its 95 % interval by a bootstrap over groups, 5000 samples."""
    sums = pd.Series(values).groupby(groups).agg(["sum", "count"]).to_numpy()
    drawn = sums[
        np.random.default_rng(0).integers(len(sums), size=(5000, len(sums)))
    ].sum(axis=1)
    return [
        round(float(v), 3)
        for v in (values.mean(), *np.percentile(drawn[:, 0] / drawn[:, 1], [2.5, 97.5]))
    ]


if __name__ == "__main__":
    main()
