"""A small data set and helpers, shared by the tests of training."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from cqt2img.data.dataset import TrainingData
from cqt2img.data.labels import one_hot
from cqt2img.data.tile_arrays import TileArrays
from cqt2img.models.factory import build_network
from cqt2img.training.callbacks import Callback
from cqt2img.training.config import TrainingConfig, TrainingSettings
from cqt2img.training.trainer import train

CPU = torch.device("cpu")
CLASS_INDICES = np.array([0, 1] * 6)
TRAINING = np.arange(8)
VALIDATION = np.arange(8, 12)
N_TRAINING_TILES = 16
DEFAULTS = {
    "epochs": 2,
    "batch_size": 8,
    "learning_rate": 3e-3,
    "augment": "none",
    "precision": "fp32",
}


def make_tile_arrays(spec, rows, n_tiles):
    """Levels of recordings: noise, and one loud row each; row 0 is the lowest pitch."""
    rng = np.random.default_rng(0)
    arrays = []
    for row, n in zip(rows, n_tiles, strict=True):
        levels = rng.integers(0, 60, (spec.height, n * spec.width), dtype=np.uint8)
        levels[spec.height - 1 - row] = 255
        arrays.append(levels)
    n_frames = np.array([levels.shape[1] for levels in arrays])
    return TileArrays(spec, arrays, n_frames)


@pytest.fixture(scope="session")
def tile_arrays(small):
    """Twelve recordings of two tiles, by turns with a low and with a high loud row."""
    rows = [(10, 45)[n % 2] + n % 3 for n in range(12)]
    return make_tile_arrays(small, rows, [2] * 12)


def make_data(
    tile_arrays,
    training=TRAINING,
    validation=VALIDATION,
    class_indices=CLASS_INDICES,
    n_classes=2,
):
    targets = one_hot(class_indices, n_classes)
    groups = np.arange(len(class_indices)) // 4
    return TrainingData(tile_arrays, targets, groups, training, validation)


def make_network(spec, name="test_resnet", n_classes=2):
    """The same network at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_network(name, n_classes, spec)


def make_settings(**changes):
    """Settings by name, whether they are fields of the settings or of their config."""
    values = {**DEFAULTS, **changes}
    own = {one.name for one in fields(TrainingSettings)}
    config = {name: value for name, value in values.items() if name not in own}
    flat = {name: value for name, value in values.items() if name in own}
    return TrainingSettings(**flat, config=TrainingConfig(**config))


class Recorder(Callback):
    """Record what the hooks are called with."""

    def __init__(self):
        self.begun = None
        self.losses = []
        self.entries = []

    def on_train_begin(self, *args):
        self.begun = args

    def on_step_end(self, loss):
        self.losses.append(loss)

    def on_epoch_end(self, entry):
        self.entries.append(entry)


class Interrupter(Recorder):
    """Interrupt training after a number of steps."""

    def __init__(self, n_steps):
        super().__init__()
        self.n_steps = n_steps

    def on_step_end(self, loss):
        super().on_step_end(loss)
        if len(self.losses) == self.n_steps:
            raise KeyboardInterrupt


def fit(
    tile_arrays,
    *,
    name="test_resnet",
    data=None,
    callback=None,
    checkpoint=None,
    resume=False,
    dropout=0.0,
    **changes,
):
    """Train a tiny network; return it and the result."""
    network = make_network(tile_arrays.spec, name)
    if dropout:
        network.backbone.head_drop.p = dropout
    result = train(
        network,
        make_data(tile_arrays) if data is None else data,
        make_settings(**changes),
        device="cpu",
        callback=callback,
        checkpoint=checkpoint,
        resume=resume,
    )
    return network, result


def without_seconds(history):
    return [{k: v for k, v in entry.items() if k != "seconds"} for entry in history]


def is_same(one, other):
    """Whether two results are equal to the bit, but for the wall time."""
    return (
        without_seconds(one.history) == without_seconds(other.history)
        and one.state.keys() == other.state.keys()
        and all(torch.equal(v, other.state[k]) for k, v in one.state.items())
        and np.array_equal(one.validation, other.validation)
    )
