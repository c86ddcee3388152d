from dataclasses import replace

import numpy as np
import pytest
import torch

from cqt2img.errors import InputError
from cqt2img.models.architecture import WEIGHT_SOURCES
from cqt2img.models.factory import build_network
from cqt2img.tiles.png import palette
from tests.conftest import raises_with

LIGHT = [
    "resnet18",
    "efficientnet_b0",
    "tf_efficientnetv2_b0",
    "convnext_atto",
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "mobilenetv4_conv_small",
    "vit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "ast",
    "ast_tiny_s10",
    "yamnet",
    "efficientat_mn04",
    "test_resnet",
    "test_vit",
    "test_efficientnet",
    "test_convnext",
]
HEAVY = [
    "resnet50",
    "convnext_tiny",
    "vit_small_patch16_224",
    "efficientnetv2_rw_t",
    "ast_small_s10",
    "audiomae",
]
NAMES = LIGHT + [pytest.param(name, marks=pytest.mark.slow) for name in HEAVY]
ONE_CHANNEL_ONLY = ["yamnet", "efficientat_mn04", "audiomae"]
FAMILIES = ["test_resnet", "test_vit", "test_efficientnet", "test_convnext"]


def make_tiles(spec, n=2, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (n, *spec.size), dtype=np.uint8))


@pytest.fixture
def odd(small):
    """Tiles whose sides no patch divides."""
    return replace(small, height=67, width=45)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("in_chans", [1, 3])
def test_every_parameter_has_a_gradient_on_tiles_of_odd_size(odd, name, in_chans):
    if in_chans == 3 and name in ONE_CHANNEL_ONLY:
        return
    torch.manual_seed(0)
    network = build_network(name, 3, odd, in_chans=in_chans).train()
    logits = network(make_tiles(odd, 4))
    assert logits.shape == (4, 3)
    assert logits.dtype == torch.float32
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name
    assert all(head.out_features == 3 for head in network.heads)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_loads_into_a_new_network_with_the_same_outputs(odd, name):
    network = build_network(name, 3, odd, in_chans=1).eval()
    again = build_network(name, 3, odd, in_chans=1).eval()
    again.load_state_dict(network.state_dict())
    tiles = make_tiles(odd)
    with torch.no_grad():
        assert torch.equal(again(tiles), network(tiles))


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_the_head_of_the_embedding(small, name):
    network = build_network(name, 3, small).eval()
    tiles = make_tiles(small)
    (head,) = network.heads
    with torch.no_grad():
        embedding = network.embed(tiles)
        torch.testing.assert_close(head(embedding), network(tiles))
    assert embedding.shape == (2, network.backbone.num_features)


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "ast_tiny_s10", "yamnet", "test_vit"]
)
@pytest.mark.parametrize("row", [0, -1])
@pytest.mark.parametrize("column", [0, -1])
def test_every_corner_of_a_tile_changes_the_features(odd, name, row, column):
    """timm drops rows and columns that fill no whole patch: the lowest notes."""
    torch.manual_seed(0)
    network = build_network(name, 3, odd, in_chans=1).eval()
    silence = torch.zeros((1, *odd.size), dtype=torch.uint8)
    click = silence.clone()
    click[0, row, column] = 255
    with torch.no_grad():
        before, after = (
            network.backbone.forward_features(network._make_input(tile))
            for tile in (silence, click)
        )
    assert not torch.equal(before, after)


def test_padding_is_silence_above_and_after_the_tile(odd):
    network = build_network("test_vit", 3, odd, in_chans=1)
    tiles = torch.full((1, *odd.size), 200, dtype=torch.uint8)
    image = network._make_input(tiles)[0, 0]
    expected = network.table[0, 0].repeat(80, 48)
    expected[13:, :45] = network.table[200, 0]
    assert torch.equal(image, expected)


def test_patches_of_a_vision_transformer_cover_the_tile(small):
    network = build_network("test_vit", 3, small)
    assert small.size == (64, 32)
    assert network.backbone.patch_embed.grid_size == (4, 2)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_new_head_gives_all_classes_about_the_same_probability(small, name):
    torch.manual_seed(0)
    network = build_network(name, 10, small).eval()
    with torch.no_grad():
        log_proba = torch.log_softmax(network(make_tiles(small, 4)), dim=1)
    assert log_proba.mean().item() == pytest.approx(-np.log(10), abs=0.2)


@pytest.mark.parametrize("name", FAMILIES)
def test_three_channels_are_coloured_and_normalised(small, name):
    network = build_network(name, 3, small)
    config = network.backbone.pretrained_cfg
    tiles = make_tiles(small)
    colours = palette(small.colour_map)[tiles.numpy()] / 255
    expected = (colours - np.array(config["mean"])) / np.array(config["std"])
    images = network._make_input(tiles).permute(0, 2, 3, 1)
    np.testing.assert_allclose(images, expected, atol=1e-5)


def test_one_channel_is_the_normalised_level(small):
    network = build_network("test_resnet", 3, small, in_chans=1)
    config = network.backbone.pretrained_cfg
    tiles = make_tiles(small)
    mean, std = np.mean(config["mean"]), np.mean(config["std"])
    expected = (tiles.numpy() / 255 - mean) / std
    np.testing.assert_allclose(network._make_input(tiles)[:, 0], expected, atol=1e-5)


def test_the_input_table_is_not_part_of_the_state(small):
    assert "table" not in build_network("test_resnet", 3, small).state_dict()


@pytest.mark.parametrize("word", [None, "none", "None"])
def test_none_is_a_random_start(small, word):
    torch.manual_seed(1)
    first = build_network("test_resnet", 3, small, word)
    torch.manual_seed(1)
    same = build_network("test_resnet", 3, small, word)
    other = build_network("test_resnet", 3, small, word)
    weight = first.heads[0].weight
    assert torch.equal(weight, same.heads[0].weight)
    assert not torch.equal(weight, other.heads[0].weight)
    assert not first.is_pretrained


@pytest.mark.parametrize("weights", [5, True, ["imagenet"], {}])
def test_weights_of_another_type_are_an_input_error(small, weights):
    with raises_with(InputError, f"fit: weights={weights!r}", WEIGHT_SOURCES):
        build_network("test_resnet", 3, small, weights)
