"""Real recordings and weights, which are stored beside the project.

These tests are skipped where the data and weights are missing.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from cqt2img import Classifier, TileSpec, load
from cqt2img.models.factory import build_network

SHARED = Path(os.environ.get("CQT2IMG_SHARED", Path(__file__).parents[2] / "shared"))
WEIGHTS = SHARED / "weights" / "mobilenetv2_100.safetensors"
SINGERS = SHARED / "data" / "singers" / "metadata.csv"
HAS_DATA = WEIGHTS.is_file() and SINGERS.is_file()

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not HAS_DATA, reason="no shared recordings and weights"),
]


@pytest.mark.parametrize("in_chans", [1, 3])
def test_the_weights_of_a_network_are_those_of_the_file(in_chans):
    spec = TileSpec.preset("fast")
    network = build_network("mobilenetv2_100", 10, spec, WEIGHTS, in_chans)
    state = network.backbone.state_dict()
    stored = load_file(WEIGHTS)
    changed = ("classifier", "conv_stem")  # the head and the input layer
    names = [name for name in stored if not name.startswith(changed)]
    assert len(names) > 200
    for name in names:
        assert torch.equal(state[name], stored[name]), name
    stem = stored["conv_stem.weight"]
    if in_chans == 1:
        stem = stem.sum(dim=1, keepdim=True)
    torch.testing.assert_close(state["conv_stem.weight"], stem)


def list_songs():
    """List two singers by song, with six takes of each singer."""
    table = pd.read_csv(SINGERS, dtype=str)
    singers = sorted(table["label"].unique())[:2]
    table = table[table["label"].isin(singers)]
    table["path"] = [str(SINGERS.parent / path) for path in table["path"]]
    songs = []
    for _, takes in table.groupby("piece"):
        songs.append(takes.groupby("label").head(6))
    return songs


def test_a_model_of_singers_is_fitted_evaluated_and_saved(tmp_path):
    first, second, *_ = list_songs()
    classifier = Classifier(
        "mobilenetv2_100",
        weights=WEIGHTS,
        spec="fast",
        epochs=2,
        batch_size=8,
        verbose=False,
    )
    classifier.fit(first, validation=second.groupby("label").head(2))
    scores = classifier.evaluate(second.groupby("label").tail(4))
    assert scores.n_recordings == 8
    assert scores.n_failed == 0
    classifier.save(tmp_path / "model")
    paths = second["path"].tolist()
    expected = classifier.predict_proba(paths)
    loaded = load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(paths), expected)
