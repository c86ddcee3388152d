"""Tests on the real recordings and weights beside the project, if they are there."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cqt2img import Classifier, TileSpec, load
from cqt2img.models.factory import build_network

SHARED = Path(os.environ.get("CQT2IMG_SHARED", Path(__file__).parents[2] / "shared"))
WEIGHTS = SHARED / "weights" / "mobilenetv2_100.safetensors"
SINGERS = SHARED / "data" / "singers" / "metadata.csv"

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(
        not (WEIGHTS.is_file() and SINGERS.is_file()),
        reason="no shared recordings and weights here",
    ),
]


@pytest.mark.parametrize("in_chans", [1, 3])
def test_real_weights_are_the_ones_in_the_file(in_chans):
    from safetensors.torch import load_file

    network = build_network(
        "mobilenetv2_100", 10, TileSpec.preset("fast"), WEIGHTS, in_chans
    )
    state, stored = network.backbone.state_dict(), load_file(WEIGHTS)
    trunk = [
        name for name in stored if not name.startswith(("classifier", "conv_stem"))
    ]
    assert len(trunk) > 200
    assert all(torch.equal(state[name], stored[name]) for name in trunk)
    stem = stored["conv_stem.weight"]
    torch.testing.assert_close(
        state["conv_stem.weight"],
        stem if in_chans == 3 else stem.sum(dim=1, keepdim=True),
    )


def test_real_singers_from_python(tmp_path):
    """Two singers: train on one song, evaluate on the other, save the model."""
    table = pd.read_csv(SINGERS, dtype=str)
    table = table[table["label"].isin(sorted(table["label"].unique())[:2])]
    table["path"] = [str(SINGERS.parent / path) for path in table["path"]]
    songs = [
        table[table["piece"] == piece].groupby("label").head(6)
        for piece in sorted(table["piece"].unique())
    ]
    model = Classifier(
        "mobilenetv2_100",
        weights=WEIGHTS,
        spec="fast",
        epochs=4,
        batch_size=8,
        verbose=False,
    )
    model.fit(songs[0], validation=songs[1].groupby("label").head(2))
    scores = model.evaluate(songs[1].groupby("label").tail(4))
    assert scores.n_recordings == 8
    assert scores.n_failed == 0
    model.save(tmp_path / "model")
    paths = songs[1]["path"].tolist()
    assert np.array_equal(
        load(tmp_path / "model").predict_proba(paths), model.predict_proba(paths)
    )
