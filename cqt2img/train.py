"""Fine-tuning: tiles in, the best epoch on validation recordings out."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cqt2img.augment import STRENGTHS
from cqt2img.backbone import TileNet, steady_memory
from cqt2img.dataset import Strips, TrainingTiles
from cqt2img.errors import Cqt2imgError, InputError
from cqt2img.jobs import make_bar
from cqt2img.predict import log_loss, pool, tile_log_proba, to_proba

_PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True)
class Recipe:
    """How a backbone is fine-tuned.

    Parameters
    ----------
    epochs : int
        1 or more.
    batch_size : int
        Tiles in a step.
    learning_rate : float
        Highest rate of AdamW; one cycle with a warm-up and a cosine.
    weight_decay : float
        Of AdamW; norms and biases are spared.
    augment : str
        See `make_augment`.
    precision : {"fp32", "bf16", "auto"}
        "auto" is bf16 on a GPU that has it, else fp32.
    seed : int
        Of every draw, 0 or more.

    Raises
    ------
    InputError
        If one of them cannot be used.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    augment: str
    precision: str
    seed: int

    def __post_init__(self) -> None:
        for name, value, low in (
            ("epochs", self.epochs, 1),
            ("batch_size", self.batch_size, 1),
            ("seed", self.seed, 0),
        ):
            whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
            if not whole or not low <= value < 2**32:
                name = "random_state" if name == "seed" else name
                raise InputError(f"fit: {name} must be a whole number from {low}, got {value!r}. Choose another.")
        for name, rule, good in (
            ("learning_rate", "be above 0", _finite(self.learning_rate) and self.learning_rate > 0),
            ("weight_decay", "be 0 or more", _finite(self.weight_decay) and self.weight_decay >= 0),
            ("augment", f"be one of {', '.join(STRENGTHS)}", self.augment in STRENGTHS),
            ("precision", f"be one of {', '.join(_PRECISIONS)}", self.precision in _PRECISIONS),
        ):
            if not good:
                raise InputError(f"fit: {name} must {rule}, got {getattr(self, name)!r}. Choose another.")


@dataclass(frozen=True)
class Trained:
    """What training gives.

    Parameters
    ----------
    state : dict
        Weights of the best epoch, on the CPU.
    history : list of dict
        One entry per epoch.
    validation : ndarray of float32, shape (n_validation, n_classes)
        Log-probabilities of the validation recordings at the best epoch.
    """

    state: dict[str, torch.Tensor]
    history: list[dict[str, Any]]
    validation: NDArray[np.float32]


class TrainingError(Cqt2imgError, RuntimeError):
    """Training cannot go on: the loss is no longer a number."""


def train(
    network: TileNet,
    strips: Strips,
    targets: NDArray[np.float32],
    sides: tuple[NDArray[np.int64], NDArray[np.int64]],
    recipe: Recipe,
    device: str | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> Trained:
    """Fine-tune a network, and keep the epoch that is best on validation recordings.

    Parameters
    ----------
    network : TileNet
        What `build_network` gives; it is changed.
    strips : Strips
        Pictures of the recordings.
    targets : ndarray of float32, shape (n_recordings, n_classes)
        One-hot, perhaps smoothed.
    sides : tuple of two ndarray of int64
        Places of the recordings to train on, and of those to validate on. Without the latter
        the last epoch is kept.
    recipe : Recipe
        How.
    device : str, optional
        "cpu" keeps off the GPU.
    on_epoch : callable, optional
        Gets every entry of the history as it is made.

    Returns
    -------
    Trained
        The best epoch.

    Raises
    ------
    TrainingError
        If the loss or what the network gives is no longer a number.

    References
    ----------
    Ilya Loshchilov and Frank Hutter, "Decoupled Weight Decay Regularization", 2019.
    Leslie N. Smith and Nicholay Topin, "Super-Convergence: Very Fast Training of Neural Networks
    Using Large Learning Rates", 2018.
    """
    from timm.optim import create_optimizer_v2

    accelerator = _accelerator(recipe.precision, device)
    data = TrainingTiles(strips, sides[0], targets, recipe.augment, recipe.seed)
    loader = torch.utils.data.DataLoader(data, recipe.batch_size, drop_last=len(data) > recipe.batch_size)
    network.to(memory_format=torch.channels_last)  # as tiles are painted
    optimizer = create_optimizer_v2(
        network, opt="adamw", lr=recipe.learning_rate, weight_decay=recipe.weight_decay, filter_bias_and_bn=True
    )
    n_steps = recipe.epochs * len(loader)
    network, optimizer, loader = accelerator.prepare(network, optimizer, loader)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer.optimizer, recipe.learning_rate, total_steps=max(2, n_steps + 1), pct_start=0.15
    )
    norms = [(m, m.momentum) for m in network.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    settle = partial(_settle_norms, norms)
    best: Trained | None = None
    history: list[dict[str, Any]] = []
    with torch.random.fork_rng(), steady_memory():
        torch.manual_seed(recipe.seed)
        for epoch in range(recipe.epochs):
            start = time.perf_counter()
            data.set_epoch(epoch)
            loss = _one_epoch(network, loader, settle, optimizer, schedule, accelerator)
            plain = accelerator.unwrap_model(network, keep_fp32_wrapper=False)
            log_proba = _validate(plain, strips, sides[1], accelerator.device)
            entry = {"epoch": epoch + 1, "loss": loss, **_scores(log_proba, targets[sides[1]]),
                     "seconds": round(time.perf_counter() - start, 3)}  # fmt: skip
            history.append(entry)
            heard = log_proba if len(log_proba) else _validate(plain, strips, sides[0][:1], accelerator.device)
            if not np.isfinite(heard).all():
                raise TrainingError(
                    f"fit: the network must give finite numbers, got NaN after epoch {epoch + 1}. "
                    "Lower learning_rate, or set precision='fp32'."
                )
            if on_epoch is not None and accelerator.is_main_process:
                on_epoch(entry)
            # by log-loss: the accuracy of a few recordings is a lottery (five demo corpora: .73 against .66)
            if best is None or not len(sides[1]) or entry["valid_loss"] < best.history[-1]["valid_loss"]:
                state = {k: v.detach().cpu().clone() for k, v in plain.state_dict().items()}
                best = Trained(state, [entry], log_proba)
    assert best is not None
    return Trained(best.state, history, best.validation)


@contextmanager
def epoch_bar(n_epochs: int, visible: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Show the epochs as they pass, where somebody can see it.

    Parameters
    ----------
    n_epochs : int
        How many there will be.
    visible : bool
        Whether to show anything.

    Yields
    ------
    callable
        Call it with every entry of the history.
    """
    with make_bar(n_epochs, "epochs", **({} if visible else {"disable": True})) as bar:

        def on_epoch(entry: dict[str, Any]) -> None:
            shown = {"loss": f"{entry['loss']:.3f}"}
            if entry["valid_accuracy"] is not None:
                shown["validation accuracy"] = f"{entry['valid_accuracy']:.3f}"
            bar.set_postfix(shown)
            bar.update()

        yield on_epoch


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and bool(np.isfinite(value))


def _accelerator(precision: str, device: str | None) -> Any:
    """Set Accelerate up; it keeps its precision in a state of the process, which a second fit must not meet."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    if precision == "auto":
        gpu = device != "cpu" and torch.cuda.is_available()
        precision = "bf16" if gpu and torch.cuda.is_bf16_supported() else "fp32"
    return Accelerator(cpu=device == "cpu", mixed_precision="no" if precision == "fp32" else precision)


def _settle_norms(norms: list[tuple[Any, float | None]], n_steps: int) -> None:
    """Let batch norms average over all steps so far until their own memory is as long.

    Else they still hold what they started with, ImageNet or nothing, when a small corpus has had its
    few steps: the loss is low, and every answer is the same name.
    """
    for norm, momentum in norms:
        if momentum is not None:  # None averages over all steps anyway
            norm.momentum = max(momentum, 1 / (n_steps + 1))


def _one_epoch(network: Any, loader: Any, settle: Any, optimizer: Any, schedule: Any, accelerator: Any) -> float:
    """Take every step of an epoch; the mean loss."""
    from timm.loss import SoftTargetCrossEntropy

    criterion = SoftTargetCrossEntropy()
    network.train()
    total = torch.zeros((), device=accelerator.device)
    for step, (levels, target) in enumerate(loader, start=1):
        settle(schedule.last_epoch)
        loss = criterion(network(levels), target)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"fit: loss must stay a number, got {loss.item()} at step {step}. "
                "Lower learning_rate, or set precision='fp32'."
            )
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        total += loss.detach()
    return float(total) / max(1, len(loader))


def _validate(network: Any, strips: Strips, places: NDArray[np.int64], device: torch.device) -> NDArray[np.float32]:
    """Log-probabilities of the validation recordings."""
    with np.errstate(invalid="ignore"):  # a network that has gone astray is told of by who called
        rows = [pool(tile_log_proba(network, strips.tiles(place), device)) for place in places]
    return np.stack(rows) if rows else np.zeros((0, 0), np.float32)


def _scores(log_proba: NDArray[np.float32], targets: NDArray[np.float32]) -> dict[str, float | None]:
    """Accuracy and log-loss per recording, or None where nothing was held out."""
    if not len(log_proba):
        return {"valid_accuracy": None, "valid_loss": None}
    codes = targets.argmax(axis=1)
    accuracy = float((log_proba.argmax(axis=1) == codes).mean())
    return {"valid_accuracy": accuracy, "valid_loss": log_loss(to_proba(log_proba), codes)}
