import socket
from dataclasses import replace

import pytest
import timm
import torch
from huggingface_hub import constants

from cqt2img.errors import InputError
from cqt2img.models.architecture import (
    WEIGHT_SOURCES,
    TimmInterface,
    create_backbone,
    resolve_architecture,
)
from cqt2img.models.factory import build_network
from tests.conftest import raises_with

PROXIES = ["http_proxy", "https_proxy", "all_proxy"]


@pytest.mark.parametrize(
    "name", ["resnet18", "convnext_atto", "yamnet", "efficientat_mn04"]
)
def test_convolutional_networks_take_tiles_of_any_size(name):
    architecture = resolve_architecture(name, 1, (67, 45))
    assert architecture.in_chans == 1
    assert architecture.size == (67, 45)
    assert architecture.img_size is None


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vit_tiny_patch16_224", (80, 48)),
        ("vit_small_patch32_224", (96, 64)),
        ("mixer_s16_224", (80, 48)),
        ("swin_tiny_patch4_window7_224", (68, 48)),
        ("vit_small_patch14_dinov2", (70, 56)),
        ("ast_tiny_s10", (76, 46)),
    ],
)
def test_tiles_are_padded_to_whole_patches(name, size):
    architecture = resolve_architecture(name, 3, (67, 45))
    assert architecture.size == size
    assert architecture.img_size == size


def test_the_input_is_transposed_if_time_comes_first():
    architecture = resolve_architecture("audiomae", 1, (67, 45))
    assert architecture.size == (80, 48)
    assert architecture.img_size == (48, 80)


@pytest.mark.parametrize("name", ["notes", "test_resnet", "test_vit", "yamnet"])
def test_backbones_have_the_interface_of_timm(name):
    in_chans = 3 if name.startswith("test") else 1
    architecture = resolve_architecture(name, in_chans, (192, 640))
    network = create_backbone(architecture, "random", num_classes=3)
    assert isinstance(network, TimmInterface)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("yamnett", "'yamnet'"), ("resnet81", "'resnet18'"), ("note", "'notes'")],
)
def test_an_unknown_name_has_suggestions(small, name, suggestion):
    with raises_with(InputError, f"fit: backbone {name!r}", "did you mean", suggestion):
        build_network(name, 3, small)


@pytest.mark.parametrize("name", ["0", ""])
def test_a_name_unlike_any_other_has_no_suggestion(small, name):
    with raises_with(InputError, f"fit: backbone {name!r}", "timm.list_models()"):
        build_network(name, 3, small)


@pytest.mark.parametrize("in_chans", [2, 0, "3", None])
def test_other_channels_than_one_and_three_are_an_input_error(small, in_chans):
    with raises_with(InputError, "fit: in_chans", repr(in_chans)):
        build_network("test_resnet", 3, small, in_chans=in_chans)


def test_a_backbone_that_cannot_be_built_is_an_input_error(small):
    spec = replace(small, width=1)
    parts = ["fit: backbone 'gcvit_xxtiny'", "64 x 1", "division by zero"]
    with raises_with(InputError, *parts):
        build_network("gcvit_xxtiny", 3, spec)


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory):
    """A network for images of 256 x 64 pixels as the hub stores it, and its state."""
    from timm.models import save_for_hf

    torch.manual_seed(0)
    options = {"img_size": (256, 64), "in_chans": 1, "num_classes": 9}
    network = timm.create_model("test_vit", **options)
    folder = tmp_path_factory.mktemp("hub") / "spectrograms"
    save_for_hf(network, folder, model_args=options)
    return folder, network.state_dict()


@pytest.mark.parametrize("weights", [None, "imagenet"])
def test_a_folder_of_the_hub_is_a_backbone(small, hub_folder, weights):
    folder, stored = hub_folder
    network = build_network(f"local-dir:{folder}", 3, small, weights, in_chans=1)
    backbone = network.eval().backbone
    assert backbone.patch_embed.grid_size == (4, 2)
    name = "blocks.0.attn.qkv.weight"
    is_loaded = torch.equal(backbone.state_dict()[name], stored[name])
    assert is_loaded == (weights == "imagenet")
    assert network(torch.zeros((2, *small.size), dtype=torch.uint8)).shape == (2, 3)


def test_a_missing_folder_is_an_input_error(small, tmp_path):
    name = f"local-dir:{tmp_path / 'gone'}"
    with raises_with(InputError, f"fit: backbone {name!r}", "Choose another backbone"):
        build_network(name, 3, small)


def test_the_error_of_a_constructor_is_part_of_the_message():
    architecture = resolve_architecture("resnet18", 3, (64, 64))
    parts = ["fit: weights='a file'", "'resnet18'", "'nonsense'", WEIGHT_SOURCES]
    with raises_with(InputError, *parts):
        create_backbone(architecture, "a file", nonsense=1)


def test_weights_that_timm_does_not_have_are_an_input_error(small):
    """timm only warns and returns a random network."""
    name = next(
        name
        for name in timm.list_models("resnet*")
        if timm.get_pretrained_cfg(name)
        and not timm.get_pretrained_cfg(name).has_weights
    )
    with raises_with(InputError, "fit: weights='imagenet'", repr(name)):
        build_network(name, 3, small, "imagenet")


def test_the_hub_is_not_asked_for_weights_if_it_is_unreachable(
    small, monkeypatch, tmp_path
):
    """Its client would try to connect for a minute."""
    attempts = []

    def fail_to_connect(*args, **kwargs):
        attempts.append(args)
        raise OSError("no connection")

    monkeypatch.setattr(socket, "create_connection", fail_to_connect)
    monkeypatch.setattr(socket.socket, "connect", fail_to_connect)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    before = constants.HF_HUB_OFFLINE
    parts = ["fit: weights='imagenet'", "'test_resnet'", WEIGHT_SOURCES]
    with raises_with(InputError, *parts):
        build_network("test_resnet", 3, small, "imagenet")
    assert len(attempts) == 1
    assert before == constants.HF_HUB_OFFLINE
