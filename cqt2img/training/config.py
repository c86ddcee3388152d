"""The settings of training: their ranges, their defaults, and what suits a backbone."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Self

from cqt2img.errors import InputError
from cqt2img.training.field_checks import FieldChecker

if TYPE_CHECKING:
    from cqt2img.data.augment import Augment
    from cqt2img.models.factory import TileNet

_MAX_SEED = 2**32 - 1  # the largest that NumPy and scikit-learn accept


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The settings of training that are rarely changed.

    Parameters
    ----------
    in_chans : {3, 1}
        Input channels of the backbone. 3: tiles in the colours of the spec.
        1: levels. The backbone "notes" always reads levels.
    weight_decay : float
        Weight decay of AdamW, 0 or more. Norms and biases are not decayed.
    label_smoothing : float
        Part of a one-hot target that is shared among all classes, 0 to below 1.
    layer_decay : float, optional
        Factor of the learning rate from one layer to the layer below it, above 0
        and at most 1. By default 0.75 for pretrained backbones without batch
        norms, and 1 for all others.
    head_first : bool
        Whether the head is fitted to the features of the pretrained backbone
        before all layers train.
    mixup : float
        Parameter of the distribution Beta(mixup, mixup) by which pairs of tiles are
        mixed, in dB. 0 or more; 0 does not mix.
    ema_decay : float
        Decay of the moving average of the weights, 0 to below 1. The average is
        validated and kept instead of the weights. 0 disables it.
    patience : int, optional
        Number of epochs without a lower validation log-loss after which training
        stops, 1 or more. By default all epochs are trained.
    accumulation_steps : int
        Number of parts in which a batch goes through the network, 1 or more. More
        parts need less memory.
    balance : {"class", "group"}
        What is drawn equally often: the classes, or the classes and the groups
        within each class.
    num_workers : int, optional
        Number of processes that augment tiles; 0 augments in the training process.
        By default 0 on a CPU, where augmentation takes a fiftieth of a step, and up
        to 8 with a GPU.
    validation_fraction : float
        Part of the recordings of each class that is held out, in whole groups, to
        choose the epoch and to calibrate the probabilities, 0 to below 1. It has no
        effect where `fit` is given validation recordings.
    precision : {"auto", "fp32", "bf16"}
        Precision of the network in training. "auto" is bf16 on a GPU that supports
        it, else fp32.
    cache_dir : str or Path, optional
        Folder in which a linear probe keeps the embeddings of tiles, so that later
        fits with the same backbone and tiles do not compute them again.

    Raises
    ------
    InputError
        If a value is outside its range.

    References
    ----------
    Ilya Loshchilov and Frank Hutter, "Decoupled Weight Decay Regularization", 2019.
    Hongyi Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018.

    Examples
    --------
    >>> config = TrainingConfig(mixup=0.2)
    >>> config.mixup, config.balance
    (0.2, 'class')
    >>> TrainingConfig.from_dict({"mixup": 0.2}) == config
    True
    """

    in_chans: int = 3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    layer_decay: float | None = None
    head_first: bool = False
    mixup: float = 0.0
    ema_decay: float = 0.0
    patience: int | None = None
    accumulation_steps: int = 1
    balance: str = "class"
    num_workers: int | None = None
    validation_fraction: float = 0.2
    precision: str = "auto"
    cache_dir: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        check = FieldChecker(self, "config")
        check.choice("in_chans", (3, 1))
        check.number("weight_decay", "a number of 0 or more")
        check.number("label_smoothing", "a number from 0 to below 1", high=1)
        check.number(
            "layer_decay",
            "a number above 0 and at most 1",
            high=1,
            include_low=False,
            include_high=True,
            optional=True,
        )
        check.boolean("head_first")
        check.number("mixup", "a number of 0 or more")
        check.number("ema_decay", "a number from 0 to below 1", high=1)
        check.integer("patience", 1, optional=True)
        check.integer("accumulation_steps", 1)
        check.choice("balance", ("class", "group"))
        check.integer("num_workers", 0, optional=True)
        check.number("validation_fraction", "a number from 0 to below 1", high=1)
        check.choice("precision", ("auto", "fp32", "bf16"))
        check.path("cache_dir")

    def to_dict(self) -> dict[str, object]:
        """Return the settings as values that JSON can hold.

        Returns
        -------
        dict
            One entry per setting; `cache_dir` as text.
        """
        values = asdict(self)
        if self.cache_dir is not None:
            values["cache_dir"] = os.fspath(self.cache_dir)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Create the settings from a dictionary, such as one read from JSON.

        Parameters
        ----------
        values : mapping of str to value
            Settings by name; those left out have their defaults.

        Returns
        -------
        TrainingConfig
            The settings.

        Raises
        ------
        InputError
            If a name is unknown, or a value is outside its range.
        """
        known = [one.name for one in fields(cls)]
        for name in values:
            if name not in known:
                raise InputError(_unknown_setting(name, known))
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """All that the trainer needs besides the network and the data.

    Parameters
    ----------
    finetune : {"all", "head"}
        "all" trains every layer. "head" leaves the backbone unchanged and fits the
        head to its embeddings by logistic regression.
    epochs : int
        Number of epochs, 1 or more.
    batch_size : int
        Number of tiles in a step, over all processes, 1 or more.
    learning_rate : float, optional
        Highest learning rate of AdamW, above 0; a linear warm-up leads to it and a
        cosine away from it. By default 1e-3 for backbones with batch norms, and
        1e-4 for all others.
    augment : str, callable or albumentations transform
        Augmentation of training tiles, see `make_augment`.
    seed : int
        Seed of every random draw, 0 to 4294967295; `random_state` of `Classifier`.
    config : TrainingConfig
        The other settings.

    Raises
    ------
    InputError
        If a value is outside its range.
    """

    finetune: str = "all"
    epochs: int = 12
    batch_size: int = 32
    learning_rate: float | None = None
    augment: "Augment" = "album"
    seed: int = 0
    config: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        check = FieldChecker(self, "fit", {"seed": "random_state"})
        check.choice("finetune", ("all", "head"))
        check.integer("epochs", 1)
        check.integer("batch_size", 1)
        check.number(
            "learning_rate", "a number above 0", include_low=False, optional=True
        )
        check.integer("seed", 0, _MAX_SEED)
        if not isinstance(self.config, TrainingConfig):
            check.fail("config", "a TrainingConfig")
        self._check_augment(check)

    def _check_augment(self, check: FieldChecker) -> None:
        from cqt2img.data.augment import STRENGTHS

        is_named = isinstance(self.augment, str) and self.augment in STRENGTHS
        if not is_named and not callable(self.augment):
            names = ", ".join(map(repr, STRENGTHS))
            rule = f"one of {names}, an albumentations transform or a callable"
            check.fail("augment", rule)

    def resolve(self, network: "TileNet") -> "TrainingSettings":
        """Fill in the settings whose default depends on the backbone.

        Parameters
        ----------
        network : TileNet
            The network that is to be trained.

        Returns
        -------
        TrainingSettings
            The same settings, with a learning rate and a layer decay.

        Notes
        -----
        Backbones with batch norms: a rate of 1e-3 and no decay, as measured with
        MobileNetV2 (`benchmarks/RESULTS.md`). Others, such as transformers and
        ConvNeXt: 1e-4, and for pretrained ones a decay of 0.75 from layer to
        layer, after the paper below.

        References
        ----------
        Kaiming He et al., "Masked Autoencoders Are Scalable Vision Learners", 2022,
        table 9.
        """
        from torch.nn.modules.batchnorm import _BatchNorm

        has_batch_norms = any(
            isinstance(module, _BatchNorm) for module in network.modules()
        )
        learning_rate = self.learning_rate
        if learning_rate is None:
            learning_rate = 1e-3 if has_batch_norms else 1e-4
        layer_decay = self.config.layer_decay
        if layer_decay is None:
            is_decayed = network.is_pretrained and not has_batch_norms
            layer_decay = 0.75 if is_decayed else 1.0
        config = replace(self.config, layer_decay=layer_decay)
        return replace(self, learning_rate=learning_rate, config=config)


# a linear probe uses none of these; `batch_size` is left out, since prediction uses it
SETTINGS_OF_FULL_TRAINING: tuple[str, ...] = (
    "epochs",
    "learning_rate",
    "augment",
    "weight_decay",
    "label_smoothing",
    "layer_decay",
    "head_first",
    "mixup",
    "ema_decay",
    "patience",
    "accumulation_steps",
    "balance",
    "num_workers",
    "precision",
)
SETTINGS_OF_LINEAR_PROBE: tuple[str, ...] = ("cache_dir",)


def unused_settings(
    settings: TrainingSettings, defaults: TrainingSettings | None = None
) -> list[str]:
    """List settings that were changed but have no effect.

    Parameters
    ----------
    settings : TrainingSettings
        The settings; `finetune` is "head" for a linear probe, which includes every
        fit of the backbone "notes".
    defaults : TrainingSettings, optional
        The settings that nobody changed; by default those of `TrainingSettings`.

    Returns
    -------
    list of str
        Names of the settings, those of `config` without a prefix.

    Examples
    --------
    >>> config = TrainingConfig(mixup=0.2)
    >>> unused_settings(TrainingSettings(finetune="head", epochs=40, config=config))
    ['epochs', 'mixup']
    """
    if defaults is None:
        defaults = TrainingSettings()
    if settings.finetune == "head":
        candidates = SETTINGS_OF_FULL_TRAINING
    else:
        candidates = SETTINGS_OF_LINEAR_PROBE
    return [
        name for name in candidates if _value(settings, name) != _value(defaults, name)
    ]


def _value(settings: TrainingSettings, name: str) -> object:
    owner = settings if hasattr(settings, name) else settings.config
    return getattr(owner, name)


def _unknown_setting(name: object, known: list[str]) -> str:
    """Return the error message for an unknown name, with the most similar known one."""
    similar = get_close_matches(str(name), known, n=1)
    if similar:
        advice = f"Did you mean {similar[0]!r}?"
    else:
        advice = f"Choose from {', '.join(known)}."
    return f"config: unknown setting {name!r}. {advice}"
