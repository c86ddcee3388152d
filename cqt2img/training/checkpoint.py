"""The state of a training run on disk: written atomically, resumed to the bit."""

import json
import pickle
import reprlib
import time
from dataclasses import dataclass, field, fields
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cqt2img._utils.files import disk_full_error, write_atomic
from cqt2img._utils.hashing import hash_bytes
from cqt2img.data.augment import Augment
from cqt2img.data.dataset import TrainingData
from cqt2img.errors import InputError
from cqt2img.training.callbacks import EpochMetrics
from cqt2img.training.config import TrainingSettings
from cqt2img.training.tensor_hash import hash_tensors

LAST = "last.pt"
BEST = "best.safetensors"
_FORMAT = 2
_INTERVAL_SECONDS = 60.0
# settings that may differ between an interrupted run and the one that resumes it
_FREE_SETTINGS = (
    "num_workers",
    "accumulation_steps",
    "cache_dir",
    "validation_fraction",
)
_LOAD_ERRORS = (  # of torch.load for a damaged file
    OSError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    pickle.UnpicklingError,
)
_ARGUMENT_NAMES = {"seed": "random_state"}
_DESCRIPTIONS = {
    "network": "another backbone or other weights",
    "spec": "tiles of another spec",
}


@dataclass
class BestEpoch:
    """The epoch with the lowest validation log-loss so far.

    Parameters
    ----------
    state : dict of str to Tensor
        Weights and buffers of the network, on the CPU.
    valid_loss : float or None
        Log-loss of the validation recordings; None without these.
    validation : Tensor of float32, shape (n_validation, n_classes)
        Log-probabilities of the validation recordings, on the CPU.
    """

    state: dict[str, torch.Tensor]
    valid_loss: float | None
    validation: torch.Tensor

    def to_cpu(self) -> "BestEpoch":
        """Return the same epoch with all tensors on the CPU.

        Returns
        -------
        BestEpoch
            The epoch.
        """
        state = {name: value.cpu() for name, value in self.state.items()}
        return BestEpoch(state, self.valid_loss, self.validation.cpu())


@dataclass
class TrainingProgress:
    """How far a training run is.

    Parameters
    ----------
    epoch : int
        Number of completed epochs.
    step : int
        Number of completed steps in the current epoch.
    total_loss : float
        Sum of the losses of these steps.
    n_stale_epochs : int
        Number of epochs since the best one.
    n_norm_steps : int
        Number of batches that the batch norms have averaged before the first step.
    n_parts : int
        Number of parts in which a batch goes through the network.
    history : list of EpochMetrics
        The completed epochs.
    best : BestEpoch, optional
        The best of the completed epochs.
    """

    epoch: int = 0
    step: int = 0
    total_loss: float = 0.0
    n_stale_epochs: int = 0
    n_norm_steps: int = 0
    n_parts: int = 1
    history: list[EpochMetrics] = field(default_factory=list)
    best: BestEpoch | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the progress as a dictionary that `torch.load` reads without code.

        Returns
        -------
        dict
            One entry per field.
        """
        best = None if self.best is None else vars(self.best)
        return {**vars(self), "best": best}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainingProgress":
        """Create the progress from the result of `to_dict`.

        Parameters
        ----------
        values : dict
            One entry per field.

        Returns
        -------
        TrainingProgress
            The progress, with the best epoch on the CPU.
        """
        best = values["best"]
        if best is not None:
            best = BestEpoch(**best).to_cpu()
        return cls(**{**values, "best": best})


@dataclass(frozen=True)
class TrainerState:
    """All that the next training step depends on.

    Parameters
    ----------
    network : dict of str to Tensor
        Weights and buffers of the network.
    optimizer : dict
        State of the optimizer.
    average : dict of str to Tensor, optional
        Moving average of the weights.
    progress : TrainingProgress
        How far the run is.
    """

    network: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    average: dict[str, torch.Tensor] | None
    progress: TrainingProgress


class Checkpoint:
    """Write and read the state of a training run.

    Parameters
    ----------
    folder : Path, optional
        The folder of the checkpoint; without one nothing is written.
    settings : TrainingSettings
        The resolved settings of the run.
    data : TrainingData
        The recordings.
    network : Module
        The network before the first step. A checkpoint belongs to one combination
        of settings, recordings and network.
    is_writer : bool
        Whether this process writes; of several processes only the main one does.
    """

    def __init__(
        self,
        folder: Path | None,
        settings: TrainingSettings,
        data: TrainingData,
        network: torch.nn.Module,
        *,
        is_writer: bool = True,
    ) -> None:
        self.folder = folder
        self._is_writer = is_writer
        self._written = time.monotonic()
        self._settings: dict[str, object] = {}
        self._key = ""
        if folder is not None:
            self._settings = {
                **describe_settings(settings),
                "spec": data.arrays.spec.key,
                "network": hash_tensors(network.state_dict().items()),
            }
            self._key = _hash_run(self._settings, data)

    def is_due(self) -> bool:
        """Check whether the last checkpoint is older than a minute.

        Returns
        -------
        bool
            Whether to write one; False without a folder.
        """
        age = time.monotonic() - self._written
        return self.folder is not None and age >= _INTERVAL_SECONDS

    def write(self, state: TrainerState) -> None:
        """Write the state, and the weights of the best epoch if they are new.

        Parameters
        ----------
        state : TrainerState
            The state.

        Raises
        ------
        InputError
            If the disk is full.
        """
        if self.folder is not None and self._is_writer:
            with disk_full_error("fit", self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                self._write_state(self.folder / LAST, state)
                self._write_best(self.folder / BEST, state.progress)
        self._written = time.monotonic()

    def _write_state(self, path: Path, state: TrainerState) -> None:
        values = {
            **vars(state),
            "format": _FORMAT,
            "key": self._key,
            "settings": self._settings,
            "progress": state.progress.to_dict(),
        }
        write_atomic(path, lambda part: torch.save(values, part))

    def _write_best(self, path: Path, progress: TrainingProgress) -> None:
        from safetensors.torch import save_file

        is_new_best = progress.step == 0 and progress.n_stale_epochs == 0
        if progress.best is None or not is_new_best:
            return
        best = {name: v.contiguous() for name, v in progress.best.state.items()}
        write_atomic(path, lambda part: save_file(best, part))

    def read(self, device: torch.device) -> TrainerState | None:
        """Read the state.

        Parameters
        ----------
        device : torch.device
            Device of the tensors, but for those of the best epoch.

        Returns
        -------
        TrainerState or None
            The state; None where no checkpoint exists yet.

        Raises
        ------
        InputError
            If no folder was given, or the checkpoint is damaged, of an older
            version, or of another run.
        """
        if self.folder is None:
            raise InputError(
                "fit: resume=True needs a checkpoint folder, got checkpoint=None."
            )
        path = self.folder / LAST
        if not path.is_file():
            return None
        values = _load(path, device)
        if values.get("format") != _FORMAT:
            raise InputError(
                f"fit: checkpoint {str(path)!r} is of another version of cqt2img. "
                "Remove it to start again, or choose another folder."
            )
        if values.get("key") != self._key:
            raise self._other_run_error(values.get("settings", {}))
        try:
            progress = TrainingProgress.from_dict(values["progress"])
            return TrainerState(
                values["network"], values["optimizer"], values["average"], progress
            )
        except (KeyError, TypeError) as err:
            raise _damaged_error(path, err) from err

    def _other_run_error(self, settings: dict[str, object]) -> InputError:
        """Return the error for a checkpoint of another run, with what differs."""
        differences = [
            _describe_difference(name, settings.get(name))
            for name, value in self._settings.items()
            if settings.get(name) != value
        ]
        found = ", ".join(differences) or "other recordings"
        return InputError(
            f"fit: checkpoint {str(self.folder)!r} is of another run, with {found}. "
            "Choose another folder, or fit without resume."
        )


def describe_settings(settings: TrainingSettings) -> dict[str, object]:
    """Return the settings that identify a training run.

    Parameters
    ----------
    settings : TrainingSettings
        The settings.

    Returns
    -------
    dict
        Values that JSON can hold, by name, without the settings that may differ
        between an interrupted run and the one that resumes it.
    """
    own = {one.name: getattr(settings, one.name) for one in fields(settings)}
    values = {**own, **settings.config.to_dict()}
    del values["config"]
    values["augment"] = _describe_augment(settings.augment)
    return {name: v for name, v in values.items() if name not in _FREE_SETTINGS}


def _describe_augment(augment: Augment) -> str:
    """Return a text that is the same for the same augmentation in another process.

    A callable is described by its name, so that its parameters are not compared.
    """
    if isinstance(augment, str):
        return augment
    if hasattr(augment, "to_dict"):  # a transform of albumentations
        return json.dumps(augment.to_dict(), sort_keys=True, default=str)
    named = augment if hasattr(augment, "__qualname__") else type(augment)
    return f"{named.__module__}.{named.__qualname__}"


def _describe_difference(name: str, value: object) -> str:
    if name in _DESCRIPTIONS:
        return _DESCRIPTIONS[name]
    return f"{_ARGUMENT_NAMES.get(name, name)}={reprlib.repr(value)}"


def _hash_run(settings: dict[str, object], data: TrainingData) -> str:
    """Compute a digest of the settings and the recordings of a run."""
    text = json.dumps(settings, sort_keys=True)
    arrays = [
        data.targets,
        data.train_index,
        data.validation_index,
        *data.arrays.arrays,
    ]
    parts = (np.ascontiguousarray(array).data for array in arrays)
    return hash_bytes(chain([text.encode()], parts))


def _load(path: Path, device: torch.device) -> dict[str, Any]:
    try:
        values = torch.load(path, map_location=device, weights_only=True)
    except _LOAD_ERRORS as err:
        raise _damaged_error(path, err) from err
    if not isinstance(values, dict):
        raise _damaged_error(path, TypeError("it holds no training state"))
    return values


def _damaged_error(path: Path, err: Exception) -> InputError:
    lines = str(err).strip().splitlines()
    cause = lines[0][:200] if lines else type(err).__name__
    return InputError(
        f"fit: checkpoint {str(path)!r} is damaged: {cause}. Remove it to start again."
    )
