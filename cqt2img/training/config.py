"""How a backbone is fine-tuned: every number of it, and what suits which backbone."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch.nn.modules.batchnorm import _BatchNorm

from cqt2img.data.augment import STRENGTHS
from cqt2img.errors import InputError
from cqt2img.models.factory import TileNet

_PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True)
class TrainingConfig:
    """How a backbone is fine-tuned.

    Parameters
    ----------
    epochs : int
        1 or more.
    batch_size : int
        Tiles in a step, over all processes.
    learning_rate : float, optional
        Highest rate of AdamW; a linear warm-up, then a cosine. None is what `suit` says.
    weight_decay : float
        Of AdamW; norms and biases are spared.
    augment : str
        See `make_augment`.
    precision : {"fp32", "bf16", "auto"}
        "auto" is bf16 on a GPU that has it, else fp32.
    seed : int
        Of every draw, 0 or more.
    layer_decay : float, optional
        What the learning rate is multiplied by from one layer to the one below it, above 0 to 1. None is what
        `suit` says.
    head_first : bool
        Whether the head is fitted to the features of the body as it is, before all layers train.
    mixup : float
        Tiles are mixed in dB by Beta(mixup, mixup); 0 does not mix.
    ema : float
        Decay of the moving average of the weights, which is what is validated and kept; 0 keeps the weights
        themselves.
    patience : int, optional
        Epochs without a lower validation log-loss after which training stops; None trains to the end.
    accumulate : int
        Parts in which a batch goes through the network, for want of memory.
    balance : {"group", "class"}
        What is drawn equally often: every class, or every group within it, too.
    workers : int, optional
        Processes that augment tiles; 0 does it in this one. None is 0 on a CPU, where they do not pay, and
        up to 8 beside a GPU.
    finetune : {"all", "head"}
        "all": every layer. "head": the body stays as it is, and logistic regression fits the head to it;
        of all above only the seed has a say.

    Raises
    ------
    InputError
        If one of them cannot be used.
    """

    epochs: int = 12
    batch_size: int = 32
    learning_rate: float | None = None
    weight_decay: float = 0.05
    augment: str = "album"
    precision: str = "auto"
    seed: int = 0
    layer_decay: float | None = None
    head_first: bool = False
    mixup: float = 0.0
    ema: float = 0.0
    patience: int | None = None
    accumulate: int = 1
    balance: str = "class"
    workers: int | None = None
    finetune: str = "all"

    def __post_init__(self) -> None:
        for name, low in (
            ("epochs", 1),
            ("batch_size", 1),
            ("seed", 0),
            ("accumulate", 1),
            ("workers", 0),
            ("patience", 1),
        ):
            value = getattr(self, name)
            whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
            if not (name in ("patience", "workers") and value is None) and (
                not whole or not low <= value < 2**32
            ):
                name = "random_state" if name == "seed" else name
                raise InputError(
                    f"fit: {name} must be a whole number from {low}, got {value!r}. Choose another."
                )
        for name, rule, good in (
            ("finetune", "be 'all' or 'head'", self.finetune in ("all", "head")),
            ("learning_rate", "be above 0", _is_rate(self.learning_rate)),
            (
                "weight_decay",
                "be 0 or more",
                _finite(self.weight_decay) and self.weight_decay >= 0,
            ),
            ("augment", f"be one of {', '.join(STRENGTHS)}", self.augment in STRENGTHS),
            (
                "precision",
                f"be one of {', '.join(_PRECISIONS)}",
                self.precision in _PRECISIONS,
            ),
            (
                "layer_decay",
                "be above 0, to 1",
                _is_rate(self.layer_decay) and (self.layer_decay or 0) <= 1,
            ),
            ("mixup", "be 0 or more", _finite(self.mixup) and self.mixup >= 0),
            ("ema", "be from 0 to below 1", _finite(self.ema) and 0 <= self.ema < 1),
            ("balance", "be 'class' or 'group'", self.balance in ("class", "group")),
        ):
            if not good:
                raise InputError(
                    f"fit: {name} must {rule}, got {getattr(self, name)!r}. Choose another."
                )


def check_fractions(**parts: Any) -> None:
    """Refuse what is no part of a whole.

    Parameters
    ----------
    **parts : Any
        Numbers from 0 to below 1, by their names.

    Raises
    ------
    InputError
        If one of them is something else.
    """
    for name, part in parts.items():
        if not isinstance(part, (int, float, np.number)) or not 0 <= part < 1:
            raise InputError(
                f"fit: {name} must be a number from 0 to below 1, got {part!r}. Choose another."
            )


def resolve_config(recipe: TrainingConfig, network: TileNet) -> TrainingConfig:
    """Fill in what a recipe leaves to the backbone.

    Parameters
    ----------
    recipe : TrainingConfig
        Perhaps without learning rate or layer decay.
    network : TileNet
        What `build_network` gives.

    Returns
    -------
    TrainingConfig
        With both. Backbones with batch norms: 1e-3 and no decay, as measured with MobileNetV2 in
        `benchmarks/RESULTS.md`. Others, such as transformers and ConvNeXt: 1e-4, and where they are
        pretrained a decay of 0.75 from layer to layer, after the paper below.

    References
    ----------
    Kaiming He et al., "Masked Autoencoders Are Scalable Vision Learners", 2022, table 9.
    """
    has_norms = any(isinstance(module, _BatchNorm) for module in network.modules())
    rate, decay = (
        (1e-3, 1.0) if has_norms else (1e-4, 0.75 if network.is_pretrained else 1.0)
    )
    return replace(
        recipe,
        learning_rate=rate if recipe.learning_rate is None else recipe.learning_rate,
        layer_decay=decay if recipe.layer_decay is None else recipe.layer_decay,
    )


def _is_rate(value: Any) -> bool:
    return value is None or (_finite(value) and value > 0)


def _finite(value: Any) -> bool:
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    return number and bool(np.isfinite(value))
