"""Fine-tuning: tiles in, the best epoch on validation recordings out; stopped, it goes on where it was."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cqt2img._utils.files import disk_full_error, folder_lock
from cqt2img._utils.progress import Progress
from cqt2img.data.dataset import TrainingData
from cqt2img.data.tile_dataset import TrainingTiles
from cqt2img.errors import TrainingError
from cqt2img.inference.calibration import log_loss, pool, to_proba
from cqt2img.inference.predict import tile_log_proba
from cqt2img.models.device import retain_freed_memory
from cqt2img.models.factory import TileNet
from cqt2img.training.accelerator import (
    bf16_on_cpu,
    choose_workers,
    is_out_of_memory,
    make_accelerator,
)
from cqt2img.training.callbacks import Callback
from cqt2img.training.checkpoint import Checkpoint
from cqt2img.training.config import TrainingConfig, resolve_config
from cqt2img.training.linear_probe import fit_linear_probe, settle_norms

log = logging.getLogger(__name__)
_ADVICE = "Lower learning_rate, or set precision='fp32'."


@dataclass(frozen=True)
class TrainingResult:
    """What training gives.

    Parameters
    ----------
    state : dict
        Weights of the best epoch, on the CPU.
    history : list of dict
        One entry per epoch.
    validation : ndarray of float32, shape (n_validation, n_classes)
        Log-probabilities of the validation recordings at the best epoch.
    features : list of ndarray of float32, shape (n_features,), optional
        Means over the tiles of the training and then the validation recordings, where the body did not move.
    """

    state: dict[str, torch.Tensor]
    history: list[dict[str, Any]]
    validation: NDArray[np.float32]
    features: list[NDArray[np.float32]] | None = None


def train(
    network: TileNet,
    corpus: TrainingData,
    recipe: TrainingConfig,
    device: str | None = None,
    watch: Callback | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> TrainingResult:
    """Fine-tune all layers of a network, and keep the epoch that is best on validation recordings.

    Parameters
    ----------
    network : TileNet
        What `build_network` gives; it is changed.
    corpus : TrainingData
        The recordings.
    recipe : TrainingConfig
        How.
    device : str, optional
        "cpu" keeps off the GPU.
    watch : Callback, optional
        Gets told how it goes.
    checkpoint : Path, optional
        Folder for the state of the training, written every minute and after every epoch.
    resume : bool
        Whether to go on from the checkpoint, if there is one. On a CPU the weights are then the
        same, to the bit, as without the interruption.

    Returns
    -------
    TrainingResult
        The best epoch.

    Raises
    ------
    TrainingError
        If the loss or what the network gives is no longer a number.
    InputError
        If the checkpoint is damaged, or of another training.

    References
    ----------
    Ilya Loshchilov and Frank Hutter, "Decoupled Weight Decay Regularization", 2019.
    Hongyi Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018.
    Kevin Clark et al., "ELECTRA: Pre-training Text Encoders as Discriminators Rather Than
    Generators", 2020, for the decay of the learning rate from layer to layer.
    """
    recipe = resolve_config(recipe, network)
    with torch.random.fork_rng(), retain_freed_memory(), ExitStack() as stack:
        torch.manual_seed(recipe.seed)
        course = Trainer(network, corpus, recipe, device, watch or Callback())
        keep = Checkpoint(checkpoint, asdict(recipe), corpus, course.plain)
        if checkpoint is not None and course.accelerator.is_main_process:
            with disk_full_error("fit", checkpoint):
                checkpoint.mkdir(parents=True, exist_ok=True)
            stack.enter_context(folder_lock(checkpoint))
        stack.enter_context(bf16_on_cpu(course.plain, course.accelerator))
        state = keep.read(course.accelerator.device) if resume else None
        if state is not None:
            course.restore(state)
        elif recipe.head_first:
            course.head_first()
        return course.run(keep)


def train_linear_probe(
    network: TileNet,
    corpus: TrainingData,
    recipe: TrainingConfig,
    watch: Callback,
    memory: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> TrainingResult:
    """Fit the head of a network alone, in the end to all recordings; every tile goes through its body once.

    Parameters
    ----------
    network : TileNet
        What `build_network` gives, where it is to run; its head is changed.
    corpus : TrainingData
        The recordings.
    recipe : TrainingConfig
        Its seed counts.
    watch : Callback
        Gets told how it went, as one epoch.
    memory, progress
        As for `fit_linear_probe`.

    Returns
    -------
    TrainingResult
        The network, and a history of one epoch.

    Raises
    ------
    InputError
        If the head of the network is not linear.
    """
    start = time.perf_counter()
    make_accelerator(
        "fp32", network.table.device.type
    )  # of several processes, each fits the same, and one speaks
    fitted = fit_linear_probe(
        network, corpus, network.table.device, recipe.seed, memory, progress, refit=True
    )
    if not np.isfinite(fitted.loss):
        raise TrainingError(
            f"fit: the network must give finite numbers, got a loss of {fitted.loss}. {_ADVICE}"
        )
    entry = {
        "epoch": 1,
        "loss": fitted.loss,
        **_scores(fitted.validation, corpus.targets[corpus.validation]),
        "learning_rate": 0.0,
        "seconds": round(time.perf_counter() - start, 3),
    }
    watch.epoch(entry)
    state = {k: v.cpu() for k, v in network.state_dict().items()}
    return TrainingResult(state, [entry], fitted.validation, fitted.features)


class Trainer:
    """One training: what changes from step to step, and nothing else."""

    def __init__(
        self,
        network: TileNet,
        corpus: TrainingData,
        recipe: TrainingConfig,
        device: str | None,
        watch: Callback,
    ) -> None:
        from timm.optim import create_optimizer_v2
        from timm.scheduler import CosineLRScheduler

        assert recipe.learning_rate is not None and recipe.layer_decay is not None  # noqa: PT018
        self.corpus, self.recipe = corpus, recipe
        self.accelerator = make_accelerator(recipe.precision, device)
        self.watch = watch if self.accelerator.is_main_process else Callback()
        self.data = TrainingTiles(corpus, recipe.augment, recipe.balance, recipe.seed)
        n_tiles, size = len(self.data), recipe.batch_size
        self.n_steps = max(
            1, n_tiles // size
        )  # what is left over is drawn in another epoch
        optimizer = create_optimizer_v2(
            network.backbone,
            opt="adamw",
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            filter_bias_and_bn=True,
            layer_decay=recipe.layer_decay if recipe.layer_decay < 1 else None,
            fused=self.accelerator.device.type in ("cpu", "cuda"),
        )
        self.network, self.optimizer = self.accelerator.prepare(network, optimizer)
        self.plain = self.accelerator.unwrap_model(
            self.network, keep_fp32_wrapper=False
        )
        total = recipe.epochs * self.n_steps
        self.schedule = CosineLRScheduler(
            self.optimizer.optimizer,
            t_initial=total,
            lr_min=recipe.learning_rate * 1e-3,
            t_in_epochs=False,
            warmup_t=round(0.15 * total),
            warmup_lr_init=recipe.learning_rate * 0.04,
            warmup_prefix=False,
        )
        modules = network.modules()
        self.norms = [
            (m, m.momentum)
            for m in modules
            if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)
        ]
        self.average = self._average() if recipe.ema else None
        self.n_parts = recipe.accumulate
        self.n_workers = choose_workers(recipe.workers, self.accelerator)
        self.settled = 0  # steps that batch norms have seen before the first
        self.epoch, self.step, self.total, self.stale = 0, 0, 0.0, 0
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None

    def _average(self) -> Any:
        from timm.utils import ModelEmaV3

        return ModelEmaV3(
            self.plain, decay=self.recipe.ema, use_warmup=True, warmup_power=2 / 3
        )

    def head_first(self) -> None:
        """Fit the head to the body as it is, once the batch norms of the body know tiles."""
        device, seed = self.accelerator.device, self.recipe.seed
        settle_norms(self.plain, self.corpus, device, seed)
        self.settled = 1000
        fit_linear_probe(self.plain, self.corpus, device, seed)
        if self.average is not None:
            self.average.set(self.plain)

    def run(self, keep: Checkpoint) -> TrainingResult:
        """Take what steps are left."""
        self.watch.begin(
            self.recipe.epochs,
            self.n_steps,
            self.epoch * self.n_steps + self.step,
            self.history,
        )
        while self.epoch < self.recipe.epochs and self.stale < (
            self.recipe.patience or self.recipe.epochs + 1
        ):
            start = time.perf_counter()
            self.data.set_epoch(self.epoch)
            for levels, target in self._batches():
                self._take(levels, target)
                if keep.is_due():
                    keep.write(self.state(), self.accelerator)
            self._close_epoch(start)
            keep.write(self.state(), self.accelerator)
        assert self.best is not None
        return TrainingResult(
            self.best["state"], self.history, self.best["validation"].numpy()
        )

    def _batches(self) -> Iterator[Any]:
        """Give the batches of this epoch from the next step on, this process's part of each."""
        size, n_processes = self.recipe.batch_size, self.accelerator.num_processes
        mine = slice(self.accelerator.process_index, None, n_processes)
        places = range(len(self.data))
        batches = [
            list(places[n * size : (n + 1) * size][mine])
            for n in range(self.step, self.n_steps)
        ]
        loader = torch.utils.data.DataLoader(
            self.data, batch_sampler=batches, num_workers=self.n_workers
        )
        device = self.accelerator.device
        return ((levels.to(device), target.to(device)) for levels, target in loader)

    def _take(self, levels: torch.Tensor, target: torch.Tensor) -> None:
        """Take one step; where memory runs out, in two halves from then on."""
        recipe, n = self.recipe, self.epoch * self.n_steps + self.step
        _settle_norms(self.norms, n + self.settled)
        self.schedule.step_update(n)
        self.network.train()
        levels, target = _mix(
            levels, target, recipe.mixup, [recipe.seed, self.epoch, self.step]
        )
        try:
            loss = self._learn(levels, target)
        except (torch.OutOfMemoryError, RuntimeError) as err:
            if self.n_parts > recipe.accumulate or not is_out_of_memory(err):
                raise
            self.n_parts *= 2
            log.warning(
                "fit: memory ran out; every batch goes through the network in %d parts from now on",
                self.n_parts,
            )
            self.optimizer.zero_grad()
            loss = self._learn(levels, target)
        self.accelerator.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self.total += loss
        if self.average is not None:
            self.average.update(self.plain, step=n + 1)
        self.watch.step(loss)

    def _learn(self, levels: torch.Tensor, target: torch.Tensor) -> float:
        """Run a batch forwards and backwards, part by part; the loss."""
        from timm.loss import SoftTargetCrossEntropy

        criterion, total = SoftTargetCrossEntropy(), 0.0
        # what the network itself draws, such as dropout, depends on seed, epoch, step and process alone
        words = [
            self.recipe.seed,
            self.epoch,
            self.step,
            self.accelerator.process_index,
        ]
        torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1)[0]))
        parts = list(
            zip(levels.chunk(self.n_parts), target.chunk(self.n_parts), strict=True)
        )
        for n, (tiles, wanted) in enumerate(parts, start=1):
            last = n == len(parts)
            with nullcontext() if last else self.accelerator.no_sync(self.network):
                with self.accelerator.autocast():
                    logits = self.network(tiles)
                loss = criterion(logits, wanted) * (len(tiles) / len(levels))
                if not torch.isfinite(loss):
                    self._astray(float(loss.detach()))
                self.accelerator.backward(loss)
            total += float(loss.detach())
        if self.accelerator.num_processes > 1:
            mean = self.accelerator.reduce(
                torch.tensor(total, device=levels.device), reduction="mean"
            )
            total = float(mean)
        return total

    def _astray(self, loss: float) -> None:
        size = self.recipe.batch_size
        items = self.data.items[self.step * size : (self.step + 1) * size]
        names = list(
            dict.fromkeys(self.corpus.name(recording) for recording, _ in items)
        )
        raise TrainingError(
            f"fit: loss must stay a number, got {loss} at step {self.step + 1} of epoch {self.epoch + 1}, "
            f"with tiles of {', '.join(names[:3])}{' and others' if len(names) > 3 else ''}. {_ADVICE}"
        )

    def _close_epoch(self, start: float) -> None:
        """Validate, write the history, and remember the best epoch."""
        network = self.plain if self.average is None else self.average.module
        validation, device = self.corpus.validation, self.accelerator.device
        log_proba = _validate(network, self.corpus, validation, device)
        heard = (
            log_proba
            if len(log_proba)
            else _validate(network, self.corpus, self.corpus.training[:1], device)
        )
        if not np.isfinite(heard).all():
            raise TrainingError(
                f"fit: the network must give finite numbers, got NaN after epoch {self.epoch + 1}. {_ADVICE}"
            )
        entry = {
            "epoch": self.epoch + 1,
            "loss": self.total / self.n_steps,
            **_scores(log_proba, self.corpus.targets[validation]),
            "learning_rate": max(group["lr"] for group in self.optimizer.param_groups),
            "seconds": round(time.perf_counter() - start, 3),
        }
        self.history.append(entry)
        # by log-loss: the accuracy of a few recordings is a lottery (five demo corpora: .73 against .66)
        if (
            self.best is None
            or not len(validation)
            or entry["valid_loss"] < self.best["valid_loss"]
        ):
            state = {
                k: v.detach().cpu().clone() for k, v in network.state_dict().items()
            }
            self.best = {
                "state": state,
                "valid_loss": entry["valid_loss"],
                "validation": torch.from_numpy(log_proba),
            }
            self.stale = 0
        else:
            self.stale += 1
        self.epoch, self.step, self.total = self.epoch + 1, 0, 0.0
        self.watch.epoch(entry)

    _COUNTS = (
        "settled",
        "epoch",
        "step",
        "total",
        "stale",
        "n_parts",
        "history",
        "best",
    )

    def state(self) -> dict[str, Any]:
        """Give everything that the next step depends on."""
        average = None if self.average is None else self.average.module.state_dict()
        return {
            "network": self.plain.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": average,
            **{name: getattr(self, name) for name in self._COUNTS},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where a checkpoint was written."""
        self.plain.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.module.load_state_dict(state["average"])
        for name in self._COUNTS:
            setattr(self, name, state[name])
        self.n_parts = max(self.n_parts, self.recipe.accumulate)


def _settle_norms(norms: list[tuple[Any, float | None]], n_steps: int) -> None:
    """Let batch norms average over all steps so far until their own memory is as long.

    Else they still hold what they started with, ImageNet or nothing, when a small corpus has had its
    few steps: the loss is low, and every answer is the same name.
    """
    for norm, momentum in norms:
        if momentum is not None:  # None averages over all steps anyway
            norm.momentum = max(momentum, 1 / (n_steps + 1))


def _mix(
    levels: torch.Tensor, target: torch.Tensor, alpha: float, words: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix every tile with another of its batch, in dB, and their targets as much."""
    if not alpha:
        return levels, target
    rng = np.random.default_rng(words)
    part = float(rng.beta(alpha, alpha))
    other = torch.from_numpy(rng.permutation(len(levels))).to(levels.device)
    mixed = part * levels.float() + (1 - part) * levels[other].float()
    return mixed.round().to(levels.dtype), part * target + (1 - part) * target[other]


def _validate(
    network: Any, corpus: TrainingData, places: NDArray[np.int64], device: torch.device
) -> NDArray[np.float32]:
    """Log-probabilities of the validation recordings."""
    with np.errstate(
        invalid="ignore"
    ):  # a network that has gone astray is told of by who called
        rows = [
            pool(tile_log_proba(network, corpus.strips.tiles(int(place)), device))
            for place in places
        ]
    return np.stack(rows) if rows else np.zeros((0, 0), np.float32)


def _scores(
    log_proba: NDArray[np.float32], targets: NDArray[np.float32]
) -> dict[str, float | None]:
    """Accuracy and log-loss per recording, or None where nothing was held out."""
    if not len(log_proba):
        return {"valid_accuracy": None, "valid_loss": None}
    codes = targets.argmax(axis=1)
    accuracy = float((log_proba.argmax(axis=1) == codes).mean())
    return {
        "valid_accuracy": accuracy,
        "valid_loss": log_loss(to_proba(log_proba), codes),
    }
