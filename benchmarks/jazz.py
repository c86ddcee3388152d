"""Ten jazz pianists: what holds on albums that training never met, and what a random split of tiles promises.

    python benchmarks/jazz.py SHARED AUDIO WORK [--preset fast] [--epochs 8] [--only pretrained random loose]

SHARED holds `data/jazz/metadata.csv`, `data/make_audio.py` and `weights/`; AUDIO is where its recordings are, or are
made; WORK gets tiles, models and `results.jsonl`. The epoch is chosen on validation albums; the test albums are looked
at once, at the end.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cqt2img import Classifier, render
from cqt2img.audit import score_tiles
from cqt2img.backbone import build_network
from cqt2img.corpus import load_strips
from cqt2img.evaluate import Evaluation
from cqt2img.recipe import Recipe
from cqt2img.source import list_recordings
from cqt2img.watch import Watch

BACKBONE = "mobilenetv2_100"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("audio", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--only", nargs="+", default=["pretrained", "random", "loose"])
    a = parser.parse_args()
    if not (a.audio / "recordings.csv").is_file():
        make = [sys.executable, a.shared / "data/make_audio.py", a.shared / "data/jazz/metadata.csv", a.audio]
        subprocess.run([str(word) for word in make], check=True)
    tiles = render(a.audio / "recordings.csv", a.work / f"tiles-{a.preset}", a.preset, n_jobs=2)
    table = list_recordings(tiles)
    weights = a.shared / "weights" / f"{BACKBONE}.safetensors"
    for name in a.only:
        start = time.perf_counter()
        scores, facts = loose(table, tiles.spec, weights, a) if name == "loose" else strict(table, name, weights, a)
        row = {"name": name, "preset": a.preset, "spec": tiles.spec.key, "epochs": a.epochs, "seed": a.seed,
               "learning_rate": a.learning_rate, "minutes": (time.perf_counter() - start) / 60,
               "threads": torch.get_num_threads(), **facts, **scores.to_dict()}  # fmt: skip
        print(name, f"{row['minutes']:.1f} min\n{scores}", flush=True)
        with (a.work / "results.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")


def strict(table: pd.DataFrame, name: str, weights: Path, a: argparse.Namespace) -> tuple[Evaluation, dict]:
    """Fit on training albums, choose on validation albums, score on test albums."""
    side = {split: table[table["split"] == split] for split in ("train", "valid", "test")}
    start = weights if name == "pretrained" else None
    model = Classifier(BACKBONE, weights=start, spec=a.preset, epochs=a.epochs, learning_rate=a.learning_rate,
                       random_state=a.seed, verbose=False)  # fmt: skip
    model.fit(side["train"], validation=side["valid"])
    model.save(a.work / f"model-{name}-{a.preset}-{a.seed}")
    model.identify(side["test"], top_k=10).to_csv(a.work / f"answers-{name}-{a.preset}-{a.seed}.csv", index=False)
    return model.evaluate(side["test"]), {"temperature": model.temperature_, "history": model.history_}


def loose(table: pd.DataFrame, spec: object, weights: Path, a: argparse.Namespace) -> tuple[Evaluation, dict]:
    """Split all tiles at random, three quarters for training, and change nothing about them."""
    strips, _ = load_strips(table, spec)
    torch.manual_seed(a.seed)
    network = build_network(BACKBONE, table["label"].nunique(), spec, weights)
    history: list[dict] = []
    watch = Watch()
    watch.epoch = history.append  # type: ignore[method-assign]
    recipe = Recipe(a.epochs, 32, a.learning_rate, 0.05, "none", "auto", a.seed)
    return score_tiles(strips, table, 0.25, network, recipe, watch), {"history": history}


if __name__ == "__main__":
    np.set_printoptions(precision=3)
    main()
