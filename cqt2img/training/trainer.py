"""Fine-tuning of networks on tiles."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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
from cqt2img.training.batch_norm import BatchNormWarmup, recompute_batch_norms
from cqt2img.training.callbacks import Callback, EpochMetrics
from cqt2img.training.checkpoint import (
    BestEpoch,
    Checkpoint,
    TrainerState,
    TrainingProgress,
)
from cqt2img.training.config import TrainingSettings
from cqt2img.training.linear_probe import fit_linear_probe
from cqt2img.training.optimization import make_optimizer, make_scheduler, mix_tiles

if TYPE_CHECKING:
    from timm.utils import ModelEmaV3

log = logging.getLogger(__name__)
_ADVICE = "Lower learning_rate, or set precision='fp32'."
_MAX_GRADIENT_NORM = 5.0
_N_RECOMPUTED = 1000  # weight of recomputed batch norms, in steps


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training run.

    Parameters
    ----------
    state : dict of str to Tensor
        Weights and buffers of the best epoch, on the CPU.
    history : list of EpochMetrics
        One entry per epoch.
    validation : ndarray of float32, shape (n_validation, n_classes)
        Log-probabilities of the validation recordings at the best epoch.
    features : list of ndarray of float32, shape (n_features,), optional
        Mean embeddings of the training and then the validation recordings, where
        the backbone did not change.
    """

    state: dict[str, torch.Tensor]
    history: list[EpochMetrics]
    validation: NDArray[np.float32]
    features: list[NDArray[np.float32]] | None = None


def train(
    network: TileNet,
    data: TrainingData,
    settings: TrainingSettings,
    *,
    device: str | None = None,
    callback: Callback | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> TrainingResult:
    """Fine-tune all layers and keep the epoch with the lowest validation log-loss.

    Parameters
    ----------
    network : TileNet
        The network, see `build_network`; it is changed.
    data : TrainingData
        The recordings. Without validation recordings the last epoch is kept.
    settings : TrainingSettings
        The settings.
    device : {None, "cpu", "cuda", "mps"}
        Device; None takes a GPU if there is one.
    callback : Callback, optional
        Called at every step and epoch.
    checkpoint : Path, optional
        Folder for the state of the run, written every minute and after every epoch.
    resume : bool
        Whether to resume from the checkpoint, if one exists. On a CPU the weights
        are then the same, to the bit, as without the interruption.

    Returns
    -------
    TrainingResult
        The best epoch.

    Raises
    ------
    TrainingError
        If the loss or an output of the network is not finite.
    InputError
        If the checkpoint is damaged or of another run, or the disk is full.
    """
    settings = settings.resolve(network)
    config = settings.config
    with torch.random.fork_rng(), retain_freed_memory(), ExitStack() as stack:
        torch.manual_seed(settings.seed)
        trainer = Trainer(network, data, settings, device=device, callback=callback)
        is_main = trainer.accelerator.is_main_process
        store = Checkpoint(
            checkpoint, settings, data, trainer.plain_network, is_writer=is_main
        )
        if checkpoint is not None and is_main:
            with disk_full_error("fit", checkpoint):
                checkpoint.mkdir(parents=True, exist_ok=True)
            stack.enter_context(folder_lock(checkpoint))
        stack.enter_context(bf16_on_cpu(trainer.plain_network, trainer.accelerator))
        state = store.read(trainer.accelerator.device) if resume else None
        if state is not None:
            trainer.restore(state)
        elif config.head_first:
            trainer.fit_head()
        if config.patience is not None and len(data.validation_index) == 0:
            log.warning("fit: patience has no effect without validation recordings")
        return trainer.run(store)


def train_linear_probe(
    network: TileNet,
    data: TrainingData,
    settings: TrainingSettings,
    *,
    callback: Callback | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> TrainingResult:
    """Fit only the head: choose its regularisation, then refit to all recordings.

    Parameters
    ----------
    network : TileNet
        The network, on the device where it is to run; its head is changed.
    data : TrainingData
        The recordings.
    settings : TrainingSettings
        Only the seed has an effect.
    callback : Callback, optional
        Called once, with the metrics of one epoch.
    cache_dir, progress
        As for `fit_linear_probe`.

    Returns
    -------
    TrainingResult
        The network, with a history of one epoch.

    Raises
    ------
    InputError
        If the head of the network is not linear.
    TrainingError
        If the loss is not finite.
    """
    start = time.perf_counter()
    device = network.table.device
    # where several processes were launched, each fits the same head and the first logs
    make_accelerator("fp32", device.type)
    probe = fit_linear_probe(
        network,
        data,
        device,
        seed=settings.seed,
        cache_dir=cache_dir,
        progress=progress,
        refit=True,
    )
    if not np.isfinite(probe.loss):
        raise TrainingError(
            f"fit: the loss must be finite, got {probe.loss}. {_ADVICE}"
        )
    accuracy, valid_loss = _validation_scores(probe.validation, data)
    entry: EpochMetrics = {
        "epoch": 1,
        "loss": probe.loss,
        "valid_accuracy": accuracy,
        "valid_loss": valid_loss,
        "learning_rate": 0.0,
        "seconds": round(time.perf_counter() - start, 3),
    }
    if callback is not None:
        callback.on_epoch_end(entry)
    state = {name: value.cpu() for name, value in network.state_dict().items()}
    return TrainingResult(state, [entry], probe.validation, probe.features)


class Trainer:
    """The state of one training run, and the steps that change it.

    Parameters
    ----------
    network : TileNet
        The network; it is changed.
    data : TrainingData
        The recordings.
    settings : TrainingSettings
        Resolved settings.
    device : {None, "cpu", "cuda", "mps"}
        Device; None takes a GPU if there is one.
    callback : Callback, optional
        Called at every step and epoch, in the main process only.
    """

    def __init__(
        self,
        network: TileNet,
        data: TrainingData,
        settings: TrainingSettings,
        *,
        device: str | None = None,
        callback: Callback | None = None,
    ) -> None:
        from timm.loss import SoftTargetCrossEntropy

        config = settings.config
        assert settings.learning_rate is not None, "the settings must be resolved"
        self.data = data
        self.settings = settings
        self.accelerator = make_accelerator(config.precision, device)
        self.callback = Callback()
        if callback is not None and self.accelerator.is_main_process:
            self.callback = callback
        self.tiles = TrainingTiles(
            data,
            settings.augment,
            config.balance,
            settings.seed,
        )
        # tiles beyond the last full batch are drawn in another epoch
        self.n_steps = max(1, len(self.tiles) // settings.batch_size)
        optimizer = make_optimizer(network.backbone, settings, self.accelerator.device)
        self.network, self.optimizer = self.accelerator.prepare(network, optimizer)
        self.plain_network = self.accelerator.unwrap_model(
            self.network, keep_fp32_wrapper=False
        )
        self.scheduler = make_scheduler(
            self.optimizer.optimizer,
            settings.learning_rate,
            settings.epochs * self.n_steps,
        )
        self.norm_warmup = BatchNormWarmup(network)
        self.average = self._make_average() if config.ema_decay > 0 else None
        self.n_workers = choose_workers(config.num_workers, self.accelerator)
        self._criterion = SoftTargetCrossEntropy()
        self.progress = TrainingProgress(n_parts=config.accumulation_steps)

    def _make_average(self) -> "ModelEmaV3":
        from timm.utils import ModelEmaV3

        return ModelEmaV3(
            self.plain_network,
            decay=self.settings.config.ema_decay,
            use_warmup=True,
            warmup_power=2 / 3,
        )

    def fit_head(self) -> None:
        """Recompute the batch norms from tiles, then fit the head to the embeddings."""
        device = self.accelerator.device
        seed = self.settings.seed
        recompute_batch_norms(self.plain_network, self.data, device, seed=seed)
        self.progress.n_norm_steps = _N_RECOMPUTED
        fit_linear_probe(self.plain_network, self.data, device, seed=seed)
        if self.average is not None:
            self.average.set(self.plain_network)

    def run(self, checkpoint: Checkpoint) -> TrainingResult:
        """Train the epochs that are left.

        Parameters
        ----------
        checkpoint : Checkpoint
            Where the state is written.

        Returns
        -------
        TrainingResult
            The best epoch.

        Raises
        ------
        TrainingError
            If the loss or an output of the network is not finite.
        """
        progress = self.progress
        n_done = progress.epoch * self.n_steps + progress.step
        self.callback.on_train_begin(
            self.settings.epochs, self.n_steps, n_done, progress.history
        )
        while not self._is_finished():
            start = time.perf_counter()
            self.tiles.set_epoch(progress.epoch)
            for levels, targets in self._batches():
                self._train_step(levels, targets)
                if checkpoint.is_due():
                    checkpoint.write(self.state())
            self._end_epoch(start)
            checkpoint.write(self.state())
        best = progress.best
        assert best is not None, "there is at least one epoch"
        return TrainingResult(best.state, progress.history, best.validation.numpy())

    def _is_finished(self) -> bool:
        patience = self.settings.config.patience
        if patience is not None and self.progress.n_stale_epochs >= patience:
            return True
        return self.progress.epoch >= self.settings.epochs

    def _batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield this process's part of the batches that are left in the epoch."""
        size = self.settings.batch_size
        first = self.accelerator.process_index
        n_processes = self.accelerator.num_processes
        items = range(len(self.tiles))
        batches = [
            list(items[step * size : (step + 1) * size][first::n_processes])
            for step in range(self.progress.step, self.n_steps)
        ]
        loader = torch.utils.data.DataLoader(
            self.tiles, batch_sampler=batches, num_workers=self.n_workers
        )
        device = self.accelerator.device
        for levels, targets in loader:
            yield levels.to(device), targets.to(device)

    def _train_step(self, levels: torch.Tensor, targets: torch.Tensor) -> None:
        progress = self.progress
        n_done = progress.epoch * self.n_steps + progress.step
        self.norm_warmup.set_momentum(n_done + progress.n_norm_steps)
        self.scheduler.step_update(n_done)
        self.network.train()
        mixup = self.settings.config.mixup
        levels, targets = mix_tiles(levels, targets, mixup, self._entropy())
        loss = self._backward(levels, targets)
        self.accelerator.clip_grad_norm_(self.network.parameters(), _MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update(self.plain_network, step=n_done + 1)
        progress.step += 1
        progress.total_loss += loss
        self.callback.on_step_end(loss)

    def _entropy(self) -> list[int]:
        """Return the seed of all random draws of the current step."""
        return [self.settings.seed, self.progress.epoch, self.progress.step]

    def _backward(self, levels: torch.Tensor, targets: torch.Tensor) -> float:
        """Compute gradients; if memory runs out once, in smaller parts from then on."""
        try:
            return self._backward_in_parts(levels, targets)
        except RuntimeError as err:
            was_split = self.progress.n_parts > self.settings.config.accumulation_steps
            if was_split or not is_out_of_memory(err):
                raise
        self.progress.n_parts *= 2
        log.warning(
            "fit: out of memory; batches go through the network in %d parts from now "
            "on. accumulation_steps=%d avoids this warning.",
            self.progress.n_parts,
            self.progress.n_parts,
        )
        self.optimizer.zero_grad()
        return self._backward_in_parts(levels, targets)

    def _backward_in_parts(self, levels: torch.Tensor, targets: torch.Tensor) -> float:
        """Add the gradients of all parts of a batch and return its mean loss."""
        self._seed_network()
        level_parts = levels.chunk(self.progress.n_parts)
        target_parts = targets.chunk(self.progress.n_parts)
        last = len(level_parts) - 1
        total = 0.0
        for n, (part, wanted) in enumerate(zip(level_parts, target_parts, strict=True)):
            weight = len(part) / len(levels)
            with self._gradient_sync(is_last=n == last):
                total += self._backward_part(part, wanted, weight)
        if self.accelerator.num_processes > 1:
            own = torch.tensor(total, device=levels.device)
            total = float(self.accelerator.reduce(own, reduction="mean"))
        return total

    def _gradient_sync(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Share gradients between processes after the last part of a batch only."""
        if is_last:
            return nullcontext()
        return self.accelerator.no_sync(self.network)

    def _backward_part(
        self, levels: torch.Tensor, targets: torch.Tensor, weight: float
    ) -> float:
        with self.accelerator.autocast():
            logits = self.network(levels)
        loss = self._criterion(logits, targets) * weight
        if not torch.isfinite(loss):
            self._raise_not_finite(float(loss.detach()))
        self.accelerator.backward(loss)
        return float(loss.detach())

    def _seed_network(self) -> None:
        """Seed what the network draws, such as dropout, by seed, step and process."""
        entropy = [*self._entropy(), self.accelerator.process_index]
        seed = np.random.SeedSequence(entropy).generate_state(1)[0]
        torch.manual_seed(int(seed))

    def _raise_not_finite(self, loss: float) -> None:
        step = self.progress.step
        size = self.settings.batch_size
        items = self.tiles.items[step * size : (step + 1) * size]
        names = list(dict.fromkeys(self.data.name(recording) for recording, _ in items))
        shown = ", ".join(names[:3])
        others = " and others" if len(names) > 3 else ""
        raise TrainingError(
            f"fit: the loss must be finite, got {loss} at step {step + 1} of epoch "
            f"{self.progress.epoch + 1}, with tiles of {shown}{others}. {_ADVICE}"
        )

    def _end_epoch(self, start: float) -> None:
        """Validate, add a row to the history, and keep the epoch if it is the best."""
        progress = self.progress
        network = self.plain_network if self.average is None else self.average.module
        log_proba = self._predict_validation(network)
        accuracy, valid_loss = _validation_scores(log_proba, self.data)
        entry: EpochMetrics = {
            "epoch": progress.epoch + 1,
            "loss": progress.total_loss / self.n_steps,
            "valid_accuracy": accuracy,
            "valid_loss": valid_loss,
            "learning_rate": max(group["lr"] for group in self.optimizer.param_groups),
            "seconds": round(time.perf_counter() - start, 3),
        }
        progress.history.append(entry)
        if self._is_best(valid_loss):
            state = {
                name: value.detach().cpu().clone()
                for name, value in network.state_dict().items()
            }
            progress.best = BestEpoch(state, valid_loss, torch.from_numpy(log_proba))
            progress.n_stale_epochs = 0
        else:
            progress.n_stale_epochs += 1
        progress.epoch += 1
        progress.step = 0
        progress.total_loss = 0.0
        self.callback.on_epoch_end(entry)

    def _is_best(self, valid_loss: float | None) -> bool:
        """Compare by log-loss; the accuracy of few recordings varies by chance.

        On five synthetic data sets, the epoch of the lowest log-loss had a test
        accuracy of .73, that of the highest accuracy .66
        (`benchmarks/epoch_choice.py`).
        """
        best = self.progress.best
        if best is None or best.valid_loss is None or valid_loss is None:
            return True
        return valid_loss < best.valid_loss

    def _predict_validation(self, network: torch.nn.Module) -> NDArray[np.float32]:
        """Compute log-probabilities of the validation recordings and check them."""
        device = self.accelerator.device
        log_proba = _predict(network, self.data, self.data.validation_index, device)
        # without validation recordings, one training recording is checked
        checked = log_proba
        if len(log_proba) == 0:
            checked = _predict(network, self.data, self.data.train_index[:1], device)
        if not np.isfinite(checked).all():
            raise TrainingError(
                "fit: the outputs of the network must be finite, got NaN after epoch "
                f"{self.progress.epoch + 1}. {_ADVICE}"
            )
        return log_proba

    def state(self) -> TrainerState:
        """Return all that the next step depends on.

        Returns
        -------
        TrainerState
            The state; its tensors are those of the run, not copies.
        """
        average = None if self.average is None else self.average.module.state_dict()
        return TrainerState(
            self.plain_network.state_dict(),
            self.optimizer.state_dict(),
            average,
            self.progress,
        )

    def restore(self, state: TrainerState) -> None:
        """Return to an earlier state.

        Parameters
        ----------
        state : TrainerState
            The state.
        """
        self.plain_network.load_state_dict(state.network)
        self.optimizer.load_state_dict(state.optimizer)
        if self.average is not None:
            self.average.module.load_state_dict(state.average)
        self.progress = state.progress
        # the batch may be split further than before, never less
        n_parts = max(state.progress.n_parts, self.settings.config.accumulation_steps)
        self.progress.n_parts = n_parts


def _predict(
    network: torch.nn.Module,
    data: TrainingData,
    recordings: NDArray[np.int64],
    device: torch.device,
) -> NDArray[np.float32]:
    """Compute log-probabilities of recordings, shape (n_recordings, n_classes)."""
    if len(recordings) == 0:
        return np.zeros((0, 0), np.float32)
    rows = []
    with np.errstate(invalid="ignore"):  # the caller checks for NaN
        for recording in recordings:
            tiles = data.arrays.tiles(int(recording))
            rows.append(pool(tile_log_proba(network, tiles, device)))
    return np.stack(rows)


def _validation_scores(
    log_proba: NDArray[np.float32], data: TrainingData
) -> tuple[float | None, float | None]:
    """Compute accuracy and log-loss of the validation recordings, or None for both."""
    if len(log_proba) == 0:
        return None, None
    class_indices = data.targets[data.validation_index].argmax(axis=1)
    is_right = log_proba.argmax(axis=1) == class_indices
    return float(is_right.mean()), log_loss(to_proba(log_proba), class_indices)
