"""A fitted model whose embeddings are known, made without any training.

The backbone `row_levels` computes the mean level of every row of a tile. A recording
with one bright row therefore has a known embedding, and a head with one band of rows
per class separates the classes by a wide margin on every machine.
"""

import copy

import numpy as np
import pytest
import torch
from timm.models import register_model
from torch import nn

from cqt2img.inference.model import FittedModel, TrainingProvenance
from cqt2img.inference.model_io import save_model
from cqt2img.inference.open_set import OpenSetDetector
from cqt2img.inference.predict import predict_recordings
from cqt2img.inference.references import ReferenceSet
from cqt2img.models.factory import build_network
from cqt2img.tiles.extract import try_extract
from tests.conftest import make_cqt

CPU = torch.device("cpu")
N_ROWS = 64
ROWS = {"a": 5, "b": 20, "c": 35, "d": 50}  # the lowest bright row of each class
NEW_ROW = 12  # of a player that is not among them
PARAMS = {"spec": None, "device": "cpu", "verbose": False}


class RowLevels(nn.Module):
    """Mean level of every row, and a linear head."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(N_ROWS, num_classes)
        self.pretrained_cfg = {"mean": [0.0], "std": [1.0], "classifier": "head"}
        self.num_classes = num_classes
        self.num_features = N_ROWS

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(1, 3))

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        return x if pre_logits else self.head(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Linear:
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        self.head = nn.Linear(N_ROWS, num_classes)


@register_model
def row_levels(pretrained=False, num_classes=2, **kwargs):
    return RowLevels(num_classes)


def known_cqts():
    """Eight recordings of each of the four classes, a, b, c, d, a, b, ..."""
    lowest = list(ROWS.values())
    return [make_cqt(lowest[n % 4] + n // 4 % 3, 60 + n, seed=n) for n in range(32)]


def new_cqts(n, seed=99):
    """Recordings of a player that is absent from training."""
    return [make_cqt(NEW_ROW, 60 + k, seed=seed + k) for k in range(n)]


SILENCE = np.zeros((60, 40))  # cannot be read
LABELS = [*"abcd"] * 8
ALBUMS = [f"{label}-{n // 4 % 4}" for n, label in enumerate(LABELS)]


def run(model, cqts):
    """Predict CQTs with their embeddings."""
    extracted = (try_extract(cqt, model.spec) for cqt in cqts)
    outputs = predict_recordings(model.network, extracted, CPU, with_embeddings=True)
    return list(outputs)


def predict(model, cqts):
    """Return the label of each CQT."""
    proba = model.predict_proba(run(model, cqts))
    return model.classes[proba.argmax(axis=1)].tolist()


@pytest.fixture(scope="session")
def _fitted(small):
    """Known players; the recordings of the last album of each are for validation."""
    network = build_network("row_levels", len(ROWS), small, weights=None, in_chans=1)
    band = torch.zeros(len(ROWS), N_ROWS)
    for index, row in enumerate(ROWS.values()):
        top = N_ROWS - 1 - row  # row 0 of a tile is the highest frequency
        band[index, top - 4 : top + 3] = 10.0
    network.backbone.head.weight.data = band
    network.backbone.head.bias.data = torch.zeros(len(ROWS))
    model = FittedModel(network.eval(), "row_levels", 1, small, np.array([*ROWS]))
    outputs = run(model, known_cqts())
    references = ReferenceSet(
        np.stack([output.embedding for output in outputs]),
        np.arange(32) % 4,
        np.array([album.endswith("3") for album in ALBUMS]),
    )
    provenance = TrainingProvenance(
        groups=tuple(sorted(set(ALBUMS))),
        fingerprints=tuple(sorted(output.info.fingerprint for output in outputs)),
        history=({"epoch": 1, "loss": 0.5, "valid_accuracy": None},),
    )
    return FittedModel(
        network,
        "row_levels",
        1,
        small,
        model.classes,
        temperature=1.25,
        references=references,
        open_set=OpenSetDetector("neighbours", 0.1, {"neighbours": 1.0}),
        provenance=provenance,
    )


@pytest.fixture
def fitted(_fitted):
    """A model of the players a, b, c and d; every test has a copy of its own."""
    return copy.deepcopy(_fitted)


@pytest.fixture(scope="session")
def saved_fitted(_fitted, tmp_path_factory):
    """The same model as a folder. Copy it before changing it."""
    path = tmp_path_factory.mktemp("fitted") / "model"
    save_model(path, _fitted, PARAMS)
    return path
