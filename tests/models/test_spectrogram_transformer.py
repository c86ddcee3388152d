from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from cqt2img import Classifier
from cqt2img.errors import InputError
from cqt2img.models.architecture import create_backbone, resolve_architecture
from cqt2img.models.factory import build_network
from cqt2img.models.spectrogram_transformer import make_spectrogram_transformer
from cqt2img.tiles.spec import PRESETS, TileSpec
from tests.conftest import raises_with
from tests.models.position_embeddings import check_positions, make_positions

# height, width and grid: more rows and columns than ImageNet's 14 x 14, fewer, and as
# many patches in 7 x 28 and 28 x 7, at both strides
GRIDS = [
    ("ast", 192, 256, (12, 16)),
    ("ast", 320, 336, (20, 21)),
    ("ast", 112, 448, (7, 28)),
    ("ast", 448, 112, (28, 7)),
    ("ast_tiny_s10", 96, 136, (9, 13)),
    ("ast_tiny_s10", 76, 286, (7, 28)),
]


@pytest.fixture(scope="module")
def deit(tmp_path_factory):
    """A file of DeiT as timm has it, with known position embeddings."""
    torch.manual_seed(1)
    state = timm.create_model("deit_tiny_distilled_patch16_224").state_dict()
    state["pos_embed"] = make_positions()
    path = tmp_path_factory.mktemp("deit") / "deit.safetensors"
    save_file(state, path)
    return path, state


@pytest.mark.parametrize(("name", "height", "width", "grid"), GRIDS)
def test_positions_from_a_file_are_resampled(deit, name, height, width, grid):
    spec = TileSpec(height=height, width=width, n_bins=60)
    network = build_network(name, 3, spec, deit[0])
    assert network.backbone.patch_embed.grid_size == grid
    check_positions(network.backbone.pos_embed, grid)


@pytest.mark.parametrize(("name", "height", "width", "grid"), GRIDS)
def test_positions_are_resampled_by_timm(deit, name, height, width, grid):
    """With weights="imagenet"; timm before 1.0.31 failed for grids of equal size."""
    network = create_backbone(
        resolve_architecture(name, 3, (height, width)),
        "file",
        num_classes=3,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(deit[0])},
    )
    check_positions(network.pos_embed, grid)


@pytest.mark.parametrize("in_chans", [1, 3])
def test_all_other_weights_are_those_of_the_file(deit, in_chans):
    path, stored = deit
    spec = TileSpec.preset("fast")
    network = build_network("ast_tiny_s10", 3, spec, path, in_chans)
    loaded = network.backbone.state_dict()
    assert set(loaded) == set(stored)
    kernel = stored["patch_embed.proj.weight"]
    if in_chans == 1:
        kernel = kernel.sum(dim=1, keepdim=True)
    torch.testing.assert_close(loaded["patch_embed.proj.weight"], kernel)
    changed = ("pos_embed", "patch_embed.proj.weight", "head")
    for name in stored:
        if not name.startswith(changed):
            assert torch.equal(loaded[name], stored[name]), name


def test_both_heads_are_initialised(small):
    network = build_network("ast", 10, small)
    assert len(network.heads) == 2
    for head in network.heads:
        assert head.weight.std().item() == pytest.approx(0.01, abs=0.002)
        assert not head.bias.any()


def test_logits_are_the_mean_of_both_heads(small):
    network = build_network("ast", 3, small, in_chans=1).eval()
    tile = torch.zeros((1, *small.size), dtype=torch.uint8)
    with torch.no_grad():
        for head in network.heads:
            before = network(tile)
            head.bias += 1
            change = network(tile) - before
            torch.testing.assert_close(change, torch.full((1, 3), 0.5))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    ("name", "stride"), [("ast", 16), ("ast_tiny_s10", 10), ("ast_small", 16)]
)
def test_whole_patches_cover_the_tiles_of_every_preset(preset, name, stride):
    size = TileSpec.preset(preset).size
    architecture = resolve_architecture(name, 3, size)
    network = create_backbone(architecture, "random", num_classes=3, device="meta")
    grid = network.patch_embed.grid_size
    for n_patches, side, padded in zip(grid, size, architecture.size, strict=True):
        assert padded == 16 + stride * (n_patches - 1)
        assert side <= padded < side + stride
    images = torch.zeros(1, 3, *architecture.size, device="meta")
    n_tokens = network.patch_embed(images).shape[1]
    assert n_tokens == grid[0] * grid[1] == network.pos_embed.shape[1] - 2


@pytest.mark.parametrize(("name", "n_patches"), [("ast_tiny_s10", 2), ("ast", 1)])
def test_patches_overlap_with_a_stride_of_ten(small, name, n_patches):
    """A pixel in row 12 lies in the patches from row 0 and from row 10."""
    spec = replace(small, height=96, width=16)
    network = build_network(name, 3, spec, in_chans=1)
    embedding = network.backbone.patch_embed
    dark = torch.zeros(1, 1, *embedding.img_size)
    light = dark.clone()
    light[0, 0, 12, 3] = 1
    with torch.no_grad():
        is_changed = (embedding(light) != embedding(dark)).any(dim=2)
    assert is_changed.sum() == n_patches


@pytest.mark.parametrize(
    ("name", "n_features"), [("ast", 192), ("ast_tiny", 192), ("ast_base384_s10", 768)]
)
def test_names_select_the_size(name, n_features):
    network = make_spectrogram_transformer(name, num_classes=3, device="meta")
    assert network.embed_dim == n_features
    assert network.num_prefix_tokens == 2


def test_base384_is_made_for_384_pixels():
    network = make_spectrogram_transformer("ast_base384_s10", device="meta")
    assert network.patch_embed.grid_size == (37, 37)


@pytest.mark.parametrize("name", ["ast_huge", "ast_s12", "ast_", "ast_tiny_s10_"])
def test_unknown_sizes_are_an_input_error(small, name):
    with raises_with(InputError, f"fit: backbone {name!r}", "base384"):
        build_network(name, 3, small)


def test_a_classifier_can_be_fitted_with_it():
    X = list(np.random.default_rng(0).random((4, 96, 130)))
    model = Classifier(
        "ast",
        weights=None,
        spec="fast",
        epochs=1,
        augment="none",
        device="cpu",
        verbose=False,
    )
    proba = model.fit(X, ["a", "b"] * 2).predict_proba(X)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)
