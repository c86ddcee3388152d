import math

import pytest
import torch

from cqt2img.training.optimization import make_optimizer, make_scheduler, mix_tiles
from tests.training.conftest import CPU, make_network, make_settings


def test_mixup_mixes_levels_and_targets_by_the_same_share():
    levels = torch.tensor([0, 100, 200, 255], dtype=torch.uint8).reshape(4, 1, 1)
    targets = torch.eye(4)
    mixed, mixed_targets = mix_tiles(levels, targets, 0.5, [0, 1, 2])
    assert mixed.dtype == torch.uint8
    assert torch.equal(mixed_targets.sum(dim=1), torch.ones(4))
    expected = (mixed_targets @ levels.reshape(4).float()).round()
    assert torch.equal(mixed.reshape(4).float(), expected)
    assert not torch.equal(mixed, levels)


def test_mixup_of_zero_changes_nothing():
    levels = torch.zeros(4, 1, 1)
    targets = torch.eye(4)
    assert mix_tiles(levels, targets, 0.0, [0]) == (levels, targets)


@pytest.mark.parametrize(("decay", "is_lower"), [(1.0, False), (0.5, True)])
def test_layer_decay_lowers_the_rate_of_lower_layers(small, decay, is_lower):
    network = make_network(small)
    settings = make_settings(layer_decay=decay).resolve(network)
    optimizer = make_optimizer(network.backbone, settings, CPU)
    rates = {
        id(parameter): settings.learning_rate * group.get("lr_scale", 1.0)
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    parameters = list(network.backbone.parameters())
    first = rates[id(parameters[0])]
    assert rates[id(parameters[-1])] == settings.learning_rate
    assert (first < settings.learning_rate) == is_lower


def test_norms_and_biases_have_no_weight_decay(small):
    network = make_network(small)
    settings = make_settings(weight_decay=0.1).resolve(network)
    optimizer = make_optimizer(network.backbone, settings, CPU)
    for group in optimizer.param_groups:
        is_decayed = {parameter.ndim > 1 for parameter in group["params"]}
        assert is_decayed == {group["weight_decay"] == 0.1}


def test_the_schedule_is_a_linear_warm_up_and_a_cosine():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=1.0)
    scheduler = make_scheduler(optimizer, 1.0, 100)
    rates = []
    for step in range(100):
        scheduler.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    for step in range(15):
        assert rates[step] == pytest.approx(0.04 + 0.96 * step / 15)
    for step in range(15, 100):
        cosine = 0.5 * (1 + math.cos(math.pi * step / 100))
        assert rates[step] == pytest.approx(0.001 + 0.999 * cosine)
