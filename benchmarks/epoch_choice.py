"""Compare rules for the epoch to keep.

    python benchmarks/epoch_choice.py WORK SEED [SEED ...]

The rules: the highest validation accuracy, the lowest validation log-loss, the
lowest log-loss at the best temperature, and the last epoch. One synthetic data set
per seed has 5 players with 6 albums of 5 takes each. Four albums are for training
and validation, two for the test.

The test is scored after every epoch, which is only allowed to compare rules: none of
these numbers is the score of a model.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cqt2img import TileSpec, render
from cqt2img.data.dataset import TrainingData
from cqt2img.data.labels import encode, find_classes, one_hot
from cqt2img.data.recordings import list_recordings
from cqt2img.data.splits import validation_split
from cqt2img.data.synthetic import make_corpus
from cqt2img.data.tile_arrays import load_tile_arrays
from cqt2img.inference.calibration import fit_temperature, log_loss, pool, to_proba
from cqt2img.inference.predict import tile_log_proba
from cqt2img.models.factory import TileNet, build_network
from cqt2img.training.callbacks import Callback, EpochMetrics
from cqt2img.training.config import TrainingSettings
from cqt2img.training.trainer import train

PRESET = "fast"
BACKBONE = "test_resnet"
SETTINGS = TrainingSettings(epochs=40, learning_rate=3e-3)
N_TRAINING_ALBUMS = 4
SMOOTHING = 0.1
CPU = torch.device("cpu")


class Epoch(NamedTuple):
    """Scores after one epoch."""

    valid_accuracy: float
    valid_loss: float
    calibrated_loss: float
    test_accuracy: float


class EpochScores(Callback):
    """Score validation and test recordings after every epoch."""

    def __init__(
        self, network: TileNet, data: TrainingData, test: NDArray[np.int64]
    ) -> None:
        self.network = network
        self.data = data
        self.test = test
        self.epochs: list[Epoch] = []

    def on_epoch_end(self, entry: EpochMetrics) -> None:
        """Add the scores of an epoch."""
        log_proba, wanted = self._predict(self.data.validation_index)
        temperature = fit_temperature(log_proba, wanted)
        test_log_proba, test_wanted = self._predict(self.test)
        self.epochs.append(
            Epoch(
                accuracy(log_proba, wanted),
                log_loss(to_proba(log_proba), wanted),
                log_loss(to_proba(log_proba, temperature), wanted),
                accuracy(test_log_proba, test_wanted),
            )
        )

    def _predict(
        self, recordings: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Log-probabilities and classes of recordings."""
        rows = []
        for recording in recordings.tolist():
            tiles = self.data.arrays.tiles(recording)
            rows.append(pool(tile_log_proba(self.network, tiles, CPU)))
        return np.stack(rows), self.data.targets[recordings].argmax(axis=1)


def accuracy(log_proba: NDArray[np.float32], wanted: NDArray[np.int64]) -> float:
    """Part of the recordings that are predicted right."""
    return float((log_proba.argmax(axis=1) == wanted).mean())


def load_data(work: Path, seed: int) -> tuple[TrainingData, NDArray[np.int64]]:
    """Make and render one data set; also return the test recordings."""
    make_corpus(work / "recordings", 5, 6, 5, 12, seed)
    recordings = list_recordings(render(work / "recordings", work / "tiles", PRESET))
    arrays, _ = load_tile_arrays(recordings, TileSpec.preset(PRESET))
    groups = recordings.groups
    classes = find_classes(recordings.labels)
    class_indices = encode(recordings.labels, classes)
    album = np.array([int(group[-1]) for group in groups])
    test = np.flatnonzero(album > N_TRAINING_ALBUMS)
    known = np.flatnonzero(album <= N_TRAINING_ALBUMS)
    known_groups = [groups[n] for n in known]
    training, validation = validation_split(class_indices[known], known_groups, 0.2, 0)
    data = TrainingData(
        arrays,
        one_hot(class_indices, len(classes), SMOOTHING),
        np.array(groups),
        known[training],
        known[validation],
    )
    return data, test


def compare(work: Path, seed: int) -> dict[str, float]:
    """Test accuracy of the epoch that each rule keeps."""
    data, test = load_data(work / str(seed), seed)
    torch.manual_seed(0)
    network = build_network(BACKBONE, data.targets.shape[1], TileSpec.preset(PRESET))
    scores = EpochScores(network, data, test)
    train(network, data, SETTINGS, device="cpu", callback=scores)
    epochs = scores.epochs
    kept = {
        "accuracy": max(epochs, key=lambda e: (e.valid_accuracy, -e.valid_loss)),
        "log-loss": min(epochs, key=lambda e: e.valid_loss),
        "calibrated": min(epochs, key=lambda e: e.calibrated_loss),
        "last": epochs[-1],
    }
    return {rule: round(epoch.test_accuracy, 2) for rule, epoch in kept.items()}


def main() -> None:
    work = Path(sys.argv[1])
    for seed in map(int, sys.argv[2:]):
        print(f"seed {seed}", compare(work, seed), flush=True)


if __name__ == "__main__":
    main()
