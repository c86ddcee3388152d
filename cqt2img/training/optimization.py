"""The optimizer, the learning rate schedule and mixup."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from cqt2img.training.config import TrainingSettings

if TYPE_CHECKING:
    from timm.scheduler import CosineLRScheduler

_WARM_UP = 0.15  # part of all steps
_FIRST_RATE = 0.04  # parts of the highest rate, at the first and the last step
_LAST_RATE = 1e-3


def make_optimizer(
    network: nn.Module, settings: TrainingSettings, device: torch.device
) -> torch.optim.Optimizer:
    """Create the optimizer: AdamW with a learning rate per layer.

    Parameters
    ----------
    network : Module
        A backbone with its head.
    settings : TrainingSettings
        Resolved settings.
    device : torch.device
        Device on which the network trains.

    Returns
    -------
    Optimizer
        The optimizer.

    References
    ----------
    Ilya Loshchilov and Frank Hutter, "Decoupled Weight Decay Regularization", 2019.
    Kevin Clark et al., "ELECTRA: Pre-training Text Encoders as Discriminators Rather
    Than Generators", 2020, for the decay of the learning rate from layer to layer.
    """
    from timm.optim import create_optimizer_v2

    layer_decay = settings.config.layer_decay
    return create_optimizer_v2(
        network,
        opt="adamw",
        lr=settings.learning_rate,
        weight_decay=settings.config.weight_decay,
        filter_bias_and_bn=True,
        layer_decay=None if layer_decay == 1 else layer_decay,
        fused=device.type in ("cpu", "cuda"),
    )


def make_scheduler(
    optimizer: torch.optim.Optimizer, learning_rate: float, n_steps: int
) -> "CosineLRScheduler":
    """Create the schedule of the learning rate: a linear warm-up, then a cosine.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer.
    learning_rate : float
        Highest rate.
    n_steps : int
        Number of steps of all epochs.

    Returns
    -------
    CosineLRScheduler
        The schedule; it counts steps.
    """
    from timm.scheduler import CosineLRScheduler

    return CosineLRScheduler(
        optimizer,
        t_initial=n_steps,
        lr_min=learning_rate * _LAST_RATE,
        t_in_epochs=False,
        warmup_t=round(_WARM_UP * n_steps),
        warmup_lr_init=learning_rate * _FIRST_RATE,
        warmup_prefix=False,
    )


def mix_tiles(
    levels: torch.Tensor,
    targets: torch.Tensor,
    alpha: float,
    entropy: Sequence[int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix every tile with another of its batch, in dB, and their targets alike.

    Parameters
    ----------
    levels : Tensor of uint8, shape (n, height, width)
        Tiles.
    targets : Tensor of float32, shape (n, n_classes)
        Their targets.
    alpha : float
        Parameter of the distribution Beta(alpha, alpha) of the share of the first
        tile; 0 does not mix.
    entropy : sequence of int
        Seed of the draws.

    Returns
    -------
    levels : Tensor of uint8, shape (n, height, width)
        Mixed tiles.
    targets : Tensor of float32, shape (n, n_classes)
        Their targets.

    References
    ----------
    Hongyi Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018.
    """
    if alpha == 0:
        return levels, targets
    rng = np.random.default_rng(list(entropy))
    share = float(rng.beta(alpha, alpha))
    partner = torch.from_numpy(rng.permutation(len(levels))).to(levels.device)
    mixed = share * levels.float() + (1 - share) * levels[partner].float()
    mixed_targets = share * targets + (1 - share) * targets[partner]
    return mixed.round().to(levels.dtype), mixed_targets
