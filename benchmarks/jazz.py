"""Score ten jazz pianists on unseen albums, and on a random split of tiles.

    python benchmarks/jazz.py SHARED AUDIO WORK ROW [ROW ...] [--seed 0]

SHARED contains `data/jazz/metadata.csv`, `data/make_audio.py` and `weights/`; AUDIO
contains its recordings, which are made if they are missing; WORK gets tiles, models,
predictions and `results.jsonl`. ROW is one of `ROWS` below, or `loose`, the random
split of tiles. The epoch is chosen on validation albums; the test albums are used once
a row, at the end. Minutes are of the processor, so run it with OMP_NUM_THREADS=1.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from cqt2img import Classifier, TrainingConfig, render
from cqt2img.auditing.leakage import score_tiles
from cqt2img.data.recordings import Recordings, list_recordings
from cqt2img.data.tile_arrays import load_tile_arrays
from cqt2img.evaluation.evaluation import Evaluation
from cqt2img.models.factory import build_network
from cqt2img.tiles.spec import TileSpec
from cqt2img.training.callbacks import Callback, EpochMetrics
from cqt2img.training.config import TrainingSettings

MOBILE = "mobilenetv2_100"
ONE_CHANNEL = TrainingConfig(in_chans=1)


@dataclass(frozen=True)
class Row:
    """A backbone, its file of weights, and what departs from the defaults."""

    backbone: str
    weights: str | None = None
    options: Mapping[str, object] = field(default_factory=lambda: {"epochs": 8})


ROWS = {
    "baseline": Row(MOBILE, MOBILE),  # no other configuration was better
    "head": Row(MOBILE, MOBILE, {"finetune": "head"}),
    "random": Row(MOBILE, None, {"epochs": 25}),
    "efficientat": Row(
        "efficientat_mn04",
        "mobilenetv3_large_040_audioset",
        {"config": ONE_CHANNEL, "epochs": 8},
    ),
    "yamnet": Row(
        "yamnet",
        "mobilenetv1_100",
        {"config": ONE_CHANNEL, "epochs": 8},
    ),
    "resnet18": Row("resnet18"),
    "efficientnet_b0": Row("efficientnet_b0"),
    "convnext_atto": Row("convnext_atto"),
    "ast_tiny": Row("ast_tiny"),
}


@dataclass(frozen=True)
class Result:
    """The scores of a row, and facts about its training."""

    scores: Evaluation
    facts: Mapping[str, object]


def main() -> None:
    arguments = parse_arguments()
    if not (arguments.audio / "recordings.csv").is_file():
        make_audio(arguments.shared / "data", arguments.audio)
    preset = arguments.preset
    tiles = render(
        arguments.audio / "recordings.csv",
        arguments.work / f"tiles-{preset}",
        preset,
        n_jobs=2,
    )
    recordings = list_recordings(tiles)
    for name in arguments.rows:
        start = time.process_time()
        if name == "loose":
            result = score_loosely(recordings, tiles.spec, arguments)
        else:
            result = score_strictly(recordings, name, arguments)
        row = {
            "name": name,
            "preset": preset,
            "spec": tiles.spec.key,
            "seed": arguments.seed,
            "minutes": (time.process_time() - start) / 60,
            **result.facts,
            **result.scores.to_dict(),
        }
        print(name, f"{row['minutes']:.1f} min\n{result.scores}", flush=True)
        with (arguments.work / "results.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shared", type=Path)
    parser.add_argument("audio", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("rows", nargs="+", choices=[*ROWS, "loose"])
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def make_audio(data: Path, audio: Path) -> None:
    script = data / "make_audio.py"
    metadata = data / "jazz" / "metadata.csv"
    subprocess.run([sys.executable, script, metadata, audio], check=True)


def score_strictly(
    recordings: Recordings, name: str, arguments: argparse.Namespace
) -> Result:
    """Fit on training albums, choose on validation albums, score on test albums."""
    split = np.array(recordings.column("split"))
    training = recordings.select(split == "train")
    validation = recordings.select(split == "valid")
    test = recordings.select(split == "test")
    row = ROWS[name]
    weights = None
    if row.weights is not None:
        weights = arguments.shared / "weights" / f"{row.weights}.safetensors"
    model = Classifier(
        row.backbone,
        weights=weights,
        spec=arguments.preset,
        random_state=arguments.seed,
        verbose=False,
        **row.options,
    )
    model.fit(training, validation=validation)
    run = f"{name}-{arguments.preset}-{arguments.seed}"
    model.save(arguments.work / f"model-{run}")
    predictions = model.identify(test, top_k=10)
    predictions.to_csv(arguments.work / f"answers-{run}.csv", index=False)
    fitted = model.model_
    facts = {
        "parameters": sum(p.numel() for p in fitted.network.parameters()),
        "temperature": fitted.temperature,
        "history": list(fitted.provenance.history),
    }
    return Result(model.evaluate(test), facts)


class History(Callback):
    """Keeps the metrics of every epoch."""

    def __init__(self) -> None:
        self.epochs: list[EpochMetrics] = []

    def on_epoch_end(self, entry: EpochMetrics) -> None:
        """Append the metrics of an epoch."""
        self.epochs.append(entry)


def score_loosely(
    recordings: Recordings, spec: TileSpec, arguments: argparse.Namespace
) -> Result:
    """Split all tiles at random, three quarters for training, without augmentation."""
    arrays, _ = load_tile_arrays(recordings, spec)
    torch.manual_seed(arguments.seed)
    n_classes = len(set(recordings.labels))
    weights = arguments.shared / "weights" / f"{MOBILE}.safetensors"
    history = History()
    scores = score_tiles(
        arrays,
        recordings.labels,
        recordings.groups,
        0.25,
        build_network(MOBILE, n_classes, spec, weights),
        TrainingSettings(epochs=8, augment="none", seed=arguments.seed),
        callback=history,
    )
    return Result(scores, {"history": history.epochs})


if __name__ == "__main__":
    main()
