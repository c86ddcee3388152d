"""Accuracy on ten jazz pianists with albums held out, and with tiles split at random.

    python benchmarks/jazz.py SHARED AUDIO WORK ROW [ROW ...] [--seed 0]

SHARED contains `data/jazz/metadata.csv`, `data/make_audio.py` and `weights/`. AUDIO is
the folder of the recordings, which are synthesised if it has none. WORK receives tiles,
models, predictions and `results.jsonl`. ROW is one of `ROWS`, or `loose`, the random
split of tiles. The epoch is chosen on validation albums; the test albums are evaluated
once per row, at the end. Minutes are CPU time, so run it with OMP_NUM_THREADS=1.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cqt2img import Classifier, TrainingConfig, render
from cqt2img.auditing.leakage import score_tiles
from cqt2img.data.recordings import list_recordings
from cqt2img.data.tile_arrays import load_tile_arrays
from cqt2img.evaluation.evaluation import Evaluation
from cqt2img.models.factory import build_network
from cqt2img.tiles.spec import TileSpec
from cqt2img.training.callbacks import Callback
from cqt2img.training.config import TrainingSettings

MOBILE = "mobilenetv2_100"
# name: backbone, file of weights, and other arguments of Classifier
ROWS: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    # the other settings are the defaults: no other configuration was better
    "baseline": (MOBILE, MOBILE, {"epochs": 8}),
    "head": (MOBILE, MOBILE, {"finetune": "head"}),
    "random": (MOBILE, None, {"epochs": 25}),
    "efficientat": (
        "efficientat_mn04",
        "mobilenetv3_large_040_audioset",
        {"config": TrainingConfig(in_chans=1), "epochs": 8},
    ),
    "yamnet": (
        "yamnet",
        "mobilenetv1_100",
        {"config": TrainingConfig(in_chans=1), "epochs": 8},
    ),
    "resnet18": ("resnet18", None, {"epochs": 8}),
    "efficientnet_b0": ("efficientnet_b0", None, {"epochs": 8}),
    "convnext_atto": ("convnext_atto", None, {"epochs": 8}),
    "ast_tiny": ("ast_tiny", None, {"epochs": 8}),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shared", type=Path)
    parser.add_argument("audio", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("rows", nargs="+", choices=[*ROWS, "loose"])
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    if not (a.audio / "recordings.csv").is_file():
        make = [
            sys.executable,
            a.shared / "data/make_audio.py",
            a.shared / "data/jazz/metadata.csv",
            a.audio,
        ]
        subprocess.run([str(word) for word in make], check=True)
    tiles = render(
        a.audio / "recordings.csv", a.work / f"tiles-{a.preset}", a.preset, n_jobs=2
    )
    table = list_recordings(tiles).to_frame()
    for name in a.rows:
        start = time.process_time()
        scores, facts = (
            loose(table, tiles.spec, a) if name == "loose" else strict(table, name, a)
        )
        row = {
            "name": name,
            "preset": a.preset,
            "spec": tiles.spec.key,
            "seed": a.seed,
            "minutes": (time.process_time() - start) / 60,
            **facts,
            **scores.to_dict(),
        }
        print(name, f"{row['minutes']:.1f} min\n{scores}", flush=True)
        with (a.work / "results.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")


def strict(
    table: pd.DataFrame, name: str, a: argparse.Namespace
) -> tuple[Evaluation, dict]:
    """Train on training albums, choose on validation albums, score on test albums."""
    side = {
        split: table[table["split"] == split] for split in ("train", "valid", "test")
    }
    backbone, file, arguments = ROWS[name]
    weights = None if file is None else a.shared / "weights" / f"{file}.safetensors"
    model = Classifier(
        backbone,
        weights=weights,
        spec=a.preset,
        random_state=a.seed,
        verbose=False,
        **arguments,
    )
    model.fit(side["train"], validation=side["valid"])
    model.save(a.work / f"model-{name}-{a.preset}-{a.seed}")
    model.identify(side["test"], top_k=10).to_csv(
        a.work / f"answers-{name}-{a.preset}-{a.seed}.csv", index=False
    )
    facts = {
        "parameters": sum(p.numel() for p in model.network_.parameters()),
        "temperature": model.temperature_,
        "history": model.history_,
    }
    return model.evaluate(side["test"]), facts


def loose(
    table: pd.DataFrame, spec: TileSpec, a: argparse.Namespace
) -> tuple[Evaluation, dict]:
    """Split all tiles at random, three quarters for training, without augmentation."""
    recordings = list_recordings(table)
    arrays, _ = load_tile_arrays(recordings, spec)
    torch.manual_seed(a.seed)
    network = build_network(
        MOBILE,
        table["label"].nunique(),
        spec,
        a.shared / "weights" / f"{MOBILE}.safetensors",
    )
    history: list[dict] = []
    callback = Callback()
    callback.on_epoch_end = history.append  # type: ignore[method-assign]
    return score_tiles(
        arrays,
        recordings.labels,
        recordings.groups,
        0.25,
        network,
        TrainingSettings(epochs=8, augment="none", seed=a.seed),
        callback=callback,
    ), {"history": history}


if __name__ == "__main__":
    np.set_printoptions(precision=3)
    main()
