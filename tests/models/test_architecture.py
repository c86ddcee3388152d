"""What timm is asked for; models of a folder in the form of the hub."""

import pytest
import timm
import torch

from cqt2img.errors import InputError
from cqt2img.models.architecture import create, resolve_architecture
from cqt2img.models.factory import build_network
from tests.conftest import raises_exactly


@pytest.mark.parametrize(
    "name", ["resnet18", "convnext_atto", "yamnet", "efficientat_mn04"]
)
def test_convolutions_take_tiles_as_they_are(name):
    blueprint = resolve_architecture(name, 1, (67, 45))
    assert blueprint.options == {"in_chans": 1}
    assert blueprint.size == (67, 45)


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("vit_tiny_patch16_224", (80, 48)),
        ("vit_small_patch32_224", (96, 64)),
        ("mixer_s16_224", (80, 48)),
        ("swin_tiny_patch4_window7_224", (68, 48)),
        ("vit_small_patch14_dinov2", (70, 56)),
        ("ast_tiny_s10", (76, 46)),
    ],
)
def test_patches_cover_the_tile(name, seen):
    blueprint = resolve_architecture(name, 3, (67, 45))
    assert blueprint.options == {"in_chans": 3, "img_size": seen}
    assert blueprint.size == seen


def test_time_first_turns_the_size():
    blueprint = resolve_architecture("audiomae", 1, (67, 45))
    assert blueprint.options["img_size"] == (48, 80)
    assert blueprint.size == (80, 48)


def test_names_that_are_near(small):
    message = "Classifier: backbone must be a model of timm, got 'yamnett'. Did you mean yamnet"
    with pytest.raises(InputError) as caught:
        build_network("yamnett", 3, small)
    assert str(caught.value).startswith(message)


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory):
    """A network for spectrograms of 64 x 16 patches, in the form of timm's hub."""
    from timm.models import save_for_hf

    torch.manual_seed(0)
    options = {"img_size": (256, 64), "in_chans": 1, "num_classes": 9}
    network = timm.create_model("test_vit", **options)
    folder = tmp_path_factory.mktemp("hub") / "spectrograms"
    save_for_hf(network, folder, model_args=options)
    return folder, network.state_dict()


@pytest.mark.parametrize("weights", [None, "imagenet"])
def test_a_folder_in_the_form_of_the_hub(small, hub_folder, weights):
    folder, state = hub_folder
    network = build_network(f"local-dir:{folder}", 3, small, weights, in_chans=1).eval()
    assert network.backbone.patch_embed.grid_size == (4, 2)
    mine = network.backbone.state_dict()
    same = torch.equal(
        mine["blocks.0.attn.qkv.weight"], state["blocks.0.attn.qkv.weight"]
    )
    assert same == (weights == "imagenet")
    assert network(torch.zeros((2, *small.size), dtype=torch.uint8)).shape == (2, 3)


def test_a_folder_that_is_not_there(small, tmp_path):
    name = f"local-dir:{tmp_path / 'gone'}"
    with pytest.raises(InputError) as caught:
        build_network(name, 3, small)
    assert str(caught.value).startswith(
        f"Classifier: backbone must build for these tiles, got {name!r}: "
    )
    assert str(caught.value).endswith(". Try another backbone.")


def test_create_names_the_cause():
    message = (
        "Classifier: weights must fit 'resnet18', got 'somewhere': ResNet.__init__() got an unexpected keyword "
        "argument 'nonsense'. Connect to the network once so that timm can fetch them, give a local file of weights, "
        "or start at random with weights=None (--weights none)."
    )
    with raises_exactly(InputError, message):
        create(resolve_architecture("resnet18", 3, (64, 64)), "somewhere", nonsense=1)
