import copy

import numpy as np
import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from cqt2img.errors import InputError
from cqt2img.models.architecture import TimmInterface
from cqt2img.models.factory import build_network
from cqt2img.tiles.png import palette
from tests.conftest import raises_with


class SmallNet(nn.Module):
    """A module that returns eight features."""

    def __init__(self, in_chans=3):
        super().__init__()
        self.convolution = nn.Conv2d(in_chans, 8, 5, stride=4)
        self.norm = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout()

    def forward(self, images):
        maps = torch.relu(self.norm(self.convolution(images)))
        return self.dropout(maps.mean(dim=(2, 3)))


class Returns(nn.Module):
    """A module that returns a function of its input."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, images):
        return self.function(images)


@pytest.fixture
def module():
    torch.manual_seed(0)
    return SmallNet()


@pytest.fixture
def timm_module():
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=7)


@pytest.fixture(params=["module", "timm_module"])
def any_module(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def tiles(small):
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (4, *small.size), dtype=np.uint8))


def test_a_linear_head_is_added_to_features(module, small, tiles):
    network = build_network(module, 5, small).eval()
    (head,) = network.heads
    assert (head.in_features, head.out_features) == (8, 5)
    with torch.no_grad():
        images = network._make_input(tiles)
        features = network.embed(tiles)
        torch.testing.assert_close(features, module.eval()(images))
        torch.testing.assert_close(network(tiles), head(features))


def test_the_head_of_a_timm_model_is_replaced(timm_module, small, tiles):
    network = build_network(timm_module, 5, small).eval()
    (head,) = network.heads
    assert head.out_features == 5
    with torch.no_grad():
        images = network._make_input(tiles)
        expected = timm_module.eval().forward_features(images)
        torch.testing.assert_close(
            network.backbone.forward_features(images), expected, atol=1e-5, rtol=1e-4
        )
        torch.testing.assert_close(network(tiles), head(network.embed(tiles)))


def test_both_heads_of_a_distilled_timm_model_are_replaced(small):
    options = {"img_size": small.size, "num_classes": 7}
    module = timm.create_model("deit_tiny_distilled_patch16_224", **options)
    network = build_network(module, 5, small)
    assert [head.out_features for head in network.heads] == [5, 5]


def test_the_module_is_not_changed(any_module, small, tiles):
    any_module.eval().requires_grad_(False)
    before = copy.deepcopy(any_module.state_dict())
    network = build_network(any_module, 5, small).train()
    network(tiles).sum().backward()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert not any_module.training
    after = any_module.state_dict()
    assert after.keys() == before.keys()
    for name in before:
        assert torch.equal(after[name], before[name]), name


def test_building_a_network_does_not_change_batch_statistics(module, small):
    network = build_network(module, 5, small)
    assert network.training
    assert network.backbone.module.norm.num_batches_tracked == 0
    assert not network.backbone.module.norm.running_mean.any()


def test_every_parameter_has_a_gradient(any_module, small, tiles):
    network = build_network(any_module, 4, small).train()
    loss = nn.functional.cross_entropy(network(tiles), torch.arange(4))
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name


def test_a_new_head_gives_all_classes_about_the_same_probability(
    any_module, small, tiles
):
    network = build_network(any_module, 10, small).eval()
    with torch.no_grad():
        log_proba = torch.log_softmax(network(tiles), dim=1)
    assert log_proba.mean().item() == pytest.approx(-np.log(10), abs=0.2)


def test_a_state_loads_into_a_network_of_the_same_module(any_module, small, tiles):
    network = build_network(any_module, 5, small, "imagenet").eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01)
    other = copy.deepcopy(any_module)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    again = build_network(other, 5, small, weights=None).eval()
    again.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert torch.equal(again(tiles), network(tiles))


@pytest.mark.parametrize(
    ("weights", "is_pretrained"), [("imagenet", True), (None, False), ("none", False)]
)
def test_none_declares_a_random_module(any_module, small, weights, is_pretrained):
    network = build_network(any_module, 5, small, weights)
    assert network.is_pretrained == is_pretrained


def test_only_a_network_of_a_module_is_custom(module, small):
    assert build_network(module, 5, small).is_custom
    assert not build_network("test_resnet", 5, small).is_custom


def test_the_backbone_has_the_interface_of_timm(module, small):
    backbone = build_network(module, 5, small).backbone
    assert isinstance(backbone, TimmInterface)
    backbone.reset_classifier(6)
    assert backbone.get_classifier().out_features == 6


def test_colours_from_0_to_1_are_normalised_with_a_half(module, small, tiles):
    network = build_network(module, 5, small)
    images = network._make_input(tiles).permute(0, 2, 3, 1)
    colours = palette(small.colour_map)[tiles.numpy()] / 255
    np.testing.assert_allclose(images, (colours - 0.5) / 0.5, atol=1e-5)


def test_levels_from_0_to_1_are_normalised_with_a_half(small, tiles):
    network = build_network(SmallNet(in_chans=1), 5, small, in_chans=1)
    images = network._make_input(tiles)
    assert images.shape == (4, 1, *small.size)
    np.testing.assert_allclose(images[:, 0], tiles / 127.5 - 1, atol=1e-5)


def test_the_statistics_of_the_module_are_used(module, small, tiles):
    module.pretrained_cfg = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    network = build_network(module, 5, small)
    images = network._make_input(tiles).permute(0, 2, 3, 1)
    colours = palette(small.colour_map)[tiles.numpy()] / 255
    expected = (colours - [0.1, 0.2, 0.3]) / [0.4, 0.5, 0.6]
    np.testing.assert_allclose(images, expected, atol=1e-5)


def test_learning_rates_can_decay_from_layer_to_layer(small):
    """The head has the full rate; groups of twelve parameters have lower rates."""
    layers = [nn.Linear(3, 3) for _ in range(8)]
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *layers)
    backbone = build_network(module, 5, small).backbone
    groups = param_groups_layer_decay(backbone, layer_decay=0.5)
    scales = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    assert scales[id(backbone.head.weight)] == 1
    assert scales[id(backbone.module[-1].weight)] == 0.5
    assert scales[id(backbone.module[2].weight)] == 0.25


def test_parameters_of_any_precision_are_converted(module, small, tiles):
    network = build_network(module.double(), 5, small)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert network(tiles).dtype == torch.float32


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (lambda images: images, "(2, 3, 64, 32)"),
        (lambda images: images.mean(dim=(1, 2, 3)), "(2,)"),
        (lambda images: images.mean(dim=(0, 2, 3))[None], "(1, 3)"),
        (lambda images: images.flatten(1)[:, :0], "(2, 0)"),
        (lambda images: (images,), "tuple"),
        (lambda images: None, "NoneType"),
    ],
)
def test_an_output_of_a_wrong_shape_is_an_input_error(small, function, found):
    parts = ["fit: backbone Returns", "(2, n_features)", found]
    with raises_with(InputError, *parts):
        build_network(Returns(function), 5, small)


def test_an_error_in_forward_is_an_input_error(small):
    parts = ["fit: backbone Returns", "ZeroDivisionError", "(2, 3, 64, 32)"]
    with raises_with(InputError, *parts):
        build_network(Returns(lambda images: 1 / 0), 5, small)


def test_a_module_for_other_channels_is_an_input_error(module, small):
    parts = ["fit: backbone SmallNet", "(2, 1, 64, 32)", "in_chans"]
    with raises_with(InputError, *parts):
        build_network(module, 5, small, in_chans=1)


def test_a_timm_model_for_another_size_is_an_input_error(small):
    module = timm.create_model("vit_tiny_patch16_224")
    parts = ["fit: backbone VisionTransformer", "(2, 3, 64, 32)"]
    with raises_with(InputError, *parts):
        build_network(module, 5, small)


def test_a_timm_model_that_ignores_the_number_of_classes_is_an_input_error(
    timm_module, small
):
    timm_module.reset_classifier = lambda num_classes: None
    parts = ["fit: backbone ResNet", "(2, 5)", "(2, 7)"]
    with raises_with(InputError, *parts):
        build_network(timm_module, 5, small)


def test_a_module_that_cannot_be_copied_is_an_input_error(module, small):
    module.lines = (line for line in ())
    with raises_with(InputError, "fit: backbone SmallNet", "generator"):
        build_network(module, 5, small)


def test_a_file_of_weights_is_an_input_error(module, small, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.touch()
    with raises_with(InputError, f"fit: weights={str(path)!r}", "SmallNet"):
        build_network(module, 5, small, path)


@pytest.mark.parametrize("in_chans", [2, "3"])
def test_other_channels_than_one_and_three_are_an_input_error(module, small, in_chans):
    with raises_with(InputError, "fit: in_chans", repr(in_chans)):
        build_network(module, 5, small, in_chans=in_chans)
