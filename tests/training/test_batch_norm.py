import numpy as np
import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from cqt2img.data.tile_dataset import TrainingTiles
from cqt2img.training.batch_norm import BatchNormWarmup, recompute_batch_norms
from tests.training.conftest import CPU, make_data, make_network


@pytest.fixture
def network(small):
    return make_network(small)


@pytest.fixture
def data(tile_arrays):
    """Seventeen recordings' worth of tiles would not fit one batch of 32; 34 do not."""
    return make_data(tile_arrays, np.arange(12), np.arange(0))


def inputs_of_norms(network, batches):
    """Inputs of every batch norm in training mode, one per batch."""
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm)]
    found = {norm: [] for norm in norms}
    hooks = [
        norm.register_forward_pre_hook(lambda m, args: found[m].append(args[0]))
        for norm in norms
    ]
    with torch.no_grad():
        network.train()
        for batch in batches:
            network(batch)
    for hook in hooks:
        hook.remove()
    return found


def test_statistics_become_the_means_over_batches(network, data, monkeypatch):
    monkeypatch.setattr("cqt2img.training.batch_norm._BATCH_SIZE", 10)
    tiles = TrainingTiles(data, "none", "group", 3)
    levels = torch.stack([tiles[n][0] for n in range(len(tiles))])
    assert len(levels) == 24
    recompute_batch_norms(network, data, CPU, seed=3)
    # statistics do not change what a network computes in training mode
    found = inputs_of_norms(make_network(data.arrays.spec), levels.split(10))
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm)]
    assert norms
    for norm, inputs in zip(norms, found.values(), strict=True):
        assert len(inputs) == 3
        means = torch.stack([x.mean(dim=(0, 2, 3)) for x in inputs])
        variances = torch.stack([x.var(dim=(0, 2, 3)) for x in inputs])
        torch.testing.assert_close(norm.running_mean, means.mean(dim=0))
        torch.testing.assert_close(norm.running_var, variances.mean(dim=0))


def test_weights_and_momenta_do_not_change(network, data):
    weights = {k: v.clone() for k, v in network.named_parameters()}
    recompute_batch_norms(network, data, CPU, seed=0)
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm)]
    assert {norm.momentum for norm in norms} == {0.1}
    assert all(torch.equal(v, weights[k]) for k, v in network.named_parameters())


@pytest.mark.parametrize(("n_batches", "n_seen"), [(1, 10), (2, 20), (20, 24)])
def test_the_number_of_batches_is_limited(
    network, data, monkeypatch, n_batches, n_seen
):
    monkeypatch.setattr("cqt2img.training.batch_norm._BATCH_SIZE", 10)
    sizes = []
    network.register_forward_pre_hook(lambda m, args: sizes.append(len(args[0])))
    recompute_batch_norms(network, data, CPU, seed=0, n_batches=n_batches)
    assert sum(sizes) == n_seen


def test_no_random_number_of_torch_is_drawn(network, data):
    before = torch.get_rng_state()
    recompute_batch_norms(network, data, CPU, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_norms_average_all_steps_until_their_own_memory_is_as_long():
    """The mean of the first three batches, of the levels 1, 2 and 3, is 2."""
    norm = torch.nn.BatchNorm2d(1)
    warmup = BatchNormWarmup(norm)
    for step, level in enumerate((1.0, 2.0, 3.0)):
        warmup.set_momentum(step)
        norm(torch.full((2, 1, 4, 4), level))
    assert norm.running_mean.item() == pytest.approx(2)
    warmup.set_momentum(100)
    assert norm.momentum == 0.1
