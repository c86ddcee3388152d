"""Weights from files: saved models of other sizes, and files that do not say what they were trained on."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from cqt2img.errors import InputError
from cqt2img.inference.model import FittedModel
from cqt2img.inference.model_io import save_model
from cqt2img.models.factory import build_network
from cqt2img.models.weights import training_provenance
from tests.conftest import raises_exactly
from tests.models.test_audio_nets import check_ramp, ramp

WAYS = (
    "Connect to the network once so that timm can fetch them, give a local file of weights, "
    "or start at random with weights=None (--weights none)."
)
NAMES = np.array(["a", "b", "c", "d"])


@pytest.fixture
def wide(small):
    """Tiles of 4 x 9 patches of 16 pixels: as many as a square of 6 x 6."""
    return replace(small, width=144)


def saved(tmp_path, name, spec, in_chans=3, change=None):
    network = build_network(name, len(NAMES), spec, in_chans=in_chans)
    if change is not None:
        change(network.backbone)
    fitted = FittedModel(network.eval(), name, in_chans, spec, NAMES)
    save_model(tmp_path / "model", fitted, {})
    return tmp_path / "model", network.backbone.state_dict()


@pytest.mark.parametrize("what", ["folder", "file"])
@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "ast_tiny_s10"])
def test_a_saved_model_is_a_start(tmp_path, small, name, what, caplog):
    folder, theirs = saved(tmp_path, name, small)
    path = folder if what == "folder" else folder / "model.safetensors"
    mine = build_network(name, 3, small, path).backbone.state_dict()
    trunk = [key for key in theirs if theirs[key].shape == mine[key].shape]
    assert len(trunk) >= len(theirs) - 4
    assert all(torch.equal(mine[key], theirs[key]) for key in trunk)
    assert caplog.records == []


@pytest.mark.parametrize("in_chans", [(3, 1), (1, 1), (1, 3)])
def test_a_saved_model_with_other_channels(tmp_path, small, in_chans):
    folder, theirs = saved(tmp_path, "test_resnet", small, in_chans[0])
    key = next(k for k, v in theirs.items() if v.ndim == 4)
    mine = build_network(
        "test_resnet", 3, small, folder, in_chans[1]
    ).backbone.state_dict()
    torch.testing.assert_close(mine[key].sum(dim=1), theirs[key].sum(dim=1))


def test_a_saved_model_of_other_tiles_says_so(tmp_path, small, wide, caplog):
    """4 x 9 patches to 6 x 6: as many, and the rows stay rows."""

    def change(backbone):
        with torch.no_grad():
            backbone.pos_embed.copy_(ramp(4, 9))

    folder, _ = saved(tmp_path, "ast", wide, change=change)
    square = replace(small, height=96, width=96)
    with caplog.at_level(logging.WARNING):
        network = build_network("ast", 3, square, folder)
    assert network.backbone.patch_embed.grid_size == (6, 6)
    check_ramp(network.backbone.pos_embed, (6, 6), old=(4, 9))
    said = f"weights: {folder} was trained on tiles of 64 x 144 pixels, not 96 x 96; positions are resampled"
    assert [record.getMessage() for record in caplog.records] == [said]


def test_overlapping_patches_of_other_tiles(tmp_path, small):
    """12 x 5 overlapping patches, which is no square, to 9 x 13."""

    def change(backbone):
        with torch.no_grad():
            backbone.pos_embed.copy_(ramp(12, 5))

    folder, _ = saved(
        tmp_path, "ast_tiny_s10", replace(small, height=126, width=56), change=change
    )
    network = build_network(
        "ast_tiny_s10", 3, replace(small, height=96, width=136), folder
    )
    assert network.backbone.patch_embed.grid_size == (9, 13)
    found = network.backbone.pos_embed[0, 2:].reshape(9, 13, 192)
    assert (found[1:, :, 0] > found[:-1, :, 0]).all()
    assert (found[:, 1:, 1] > found[:, :-1, 1]).all()


def test_a_file_whose_grid_nobody_knows(tmp_path, small, wide):
    torch.manual_seed(0)
    path = tmp_path / "bare.safetensors"
    state = build_network("ast", 3, replace(wide, width=80)).backbone.state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, path)
    message = (
        f"Classifier: weights must have positions of a square grid, got 20 of them in {str(path)!r}. "
        "Give the folder of a saved model, which names its grid, or weights trained on squares."
    )
    with raises_exactly(InputError, message):
        build_network("ast", 3, small, path)


def test_a_saved_model_whose_description_was_changed(tmp_path, small, wide):
    folder, _ = saved(tmp_path, "ast", wide)
    about = json.loads((folder / "model.json").read_text())
    about["spec"]["width"] = 32
    (folder / "model.json").write_text(json.dumps(about))
    message = (
        f"Classifier: weights must have positions of a grid of 4 x 2, got 36 of them in {str(folder)!r}. "
        "Give the folder of a saved model, which names its grid, or weights trained on squares."
    )
    with raises_exactly(InputError, message):
        build_network("ast", 3, small, folder)


def test_a_file_for_larger_pictures(tmp_path, small):
    """Positions of 24 x 24 patches, for the name of the network with 14 x 14."""
    state = timm.create_model(
        "deit_tiny_distilled_patch16_224", img_size=384
    ).state_dict()
    path = tmp_path / "large.safetensors"
    save_file({**state, "pos_embed": ramp(24, 24)}, path)
    network = build_network("ast", 3, replace(small, height=192, width=256), path)
    check_ramp(network.backbone.pos_embed, (12, 16), old=(24, 24))


def test_a_saved_model_of_another_backbone(tmp_path, small):
    folder, _ = saved(tmp_path, "test_resnet", small)
    message = (
        f"Classifier: weights must be of 'test_vit', got {str(folder)!r} of 'test_resnet'. "
        "Set backbone='test_resnet' (--backbone test_resnet)."
    )
    with raises_exactly(InputError, message):
        build_network("test_vit", 3, small, folder)


def test_a_damaged_saved_model(tmp_path, small):
    folder, _ = saved(tmp_path, "test_resnet", small)
    (folder / "model.json").write_text(json.dumps({"made_by": "cqt2img"}))
    message = f"Classifier: weights must be an undamaged model, got {str(folder)!r}. Copy it again."
    with raises_exactly(InputError, message):
        build_network("test_resnet", 3, small, folder)


def test_a_folder_that_is_no_model(tmp_path, small):
    message = f"Classifier: weights must be a saved model where they are a folder, got {str(tmp_path)!r}. {WAYS}"
    with raises_exactly(InputError, message):
        build_network("test_resnet", 3, small, tmp_path)


def test_a_file_named_like_that_of_a_saved_model(tmp_path, small):
    """model.safetensors of the hub lies in a folder of its own, with another model.json or none."""
    state = timm.create_model("test_resnet", num_classes=9).state_dict()
    save_file(state, tmp_path / "model.safetensors")
    mine = build_network(
        "test_resnet", 3, small, tmp_path / "model.safetensors"
    ).backbone.state_dict()
    assert torch.equal(
        mine["layer1.0.conv1.weight"],
        load_file(tmp_path / "model.safetensors")["layer1.0.conv1.weight"],
    )


@pytest.mark.parametrize("word", [None, "none", "imagenet", "None"])
def test_words_have_met_nobody(word):
    assert training_provenance(word) == ([], [])


def test_a_saved_model_tells_whom_it_met(tmp_path):
    about = {"made_by": "cqt2img", "training_groups": ["a/1"], "fingerprints": ["f"]}
    (tmp_path / "model.json").write_text(json.dumps(about))
    assert training_provenance(tmp_path) == (["a/1"], ["f"])
    del about["fingerprints"]
    (tmp_path / "model.json").write_text(json.dumps(about))
    message = f"Classifier: weights must be an undamaged model, got {str(tmp_path)!r}. Copy it again."
    with raises_exactly(InputError, message):
        training_provenance(tmp_path)
