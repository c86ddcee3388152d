"""Batch norms whose statistics are of other pictures, or of none."""

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from cqt2img.data.dataset import TrainingData
from cqt2img.data.tile_dataset import TrainingTiles

_BATCH_SIZE = 32


def recompute_batch_norms(
    network: nn.Module,
    data: TrainingData,
    device: torch.device,
    *,
    seed: int,
    n_batches: int = 20,
) -> None:
    """Recompute the statistics of batch norms from training tiles.

    Parameters
    ----------
    network : Module
        A network on `device`. The statistics of its batch norms change, its weights
        do not.
    data : TrainingData
        The recordings; only those of the training side are used.
    device : torch.device
        Device of the network.
    seed : int
        Seed by which tiles are drawn.
    n_batches : int
        Number of batches of 32 tiles, at most.

    References
    ----------
    Yanghao Li et al., "Revisiting Batch Normalization For Practical Domain
    Adaptation", 2016.
    """
    if any(isinstance(module, _BatchNorm) for module in network.modules()):
        tiles = TrainingTiles(data, "none", "group", seed)
        update_bn(_batches(tiles, n_batches), network, device)


def _batches(tiles: TrainingTiles, n_batches: int) -> Iterator[torch.Tensor]:
    """Yield batches of levels without a DataLoader, which would draw random numbers."""
    n_tiles = min(len(tiles), _BATCH_SIZE * n_batches)
    for start in range(0, n_tiles, _BATCH_SIZE):
        stop = min(start + _BATCH_SIZE, n_tiles)
        if stop - start > 1:  # a batch norm cannot average a single tile
            yield torch.stack([tiles[n][0] for n in range(start, stop)])


class BatchNormWarmup:
    """Let batch norms average all steps so far, until their own memory is as long.

    With their usual momentum they still hold the statistics that they started with,
    of ImageNet or of nothing, after the few steps that a small data set has. The
    training loss is then low, and every recording is predicted as the same class.

    Parameters
    ----------
    network : Module
        The network.
    """

    def __init__(self, network: nn.Module) -> None:
        self._momenta: list[tuple[_BatchNorm, float]] = []
        for module in network.modules():
            # with a momentum of None a batch norm averages all steps anyway
            if isinstance(module, _BatchNorm) and module.momentum is not None:
                self._momenta.append((module, module.momentum))

    def set_momentum(self, n_steps: int) -> None:
        """Set the momentum for the next step.

        Parameters
        ----------
        n_steps : int
            Number of batches averaged so far.
        """
        for module, momentum in self._momenta:
            module.momentum = max(momentum, 1 / (n_steps + 1))
