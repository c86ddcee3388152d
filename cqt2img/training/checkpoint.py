"""The state of a training on disk: written whole, read back to the bit, and of no other training."""

import hashlib
import json
import pickle
import time
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from cqt2img._utils.files import disk_full_error, write_atomic
from cqt2img.data.dataset import TrainingData
from cqt2img.errors import InputError

LAST, BEST = "last.pt", "best.safetensors"
_EVERY_SECONDS = 60.0
_NAMES = {"seed": "random_state"}
_WORDS = {
    "network": "another backbone or other weights",
    "spec": "tiles of another spec",
}
_FREE = (
    "workers",
    "accumulate",
)  # words of a recipe that may change from one run to the next


class Checkpoint:
    """Where the state of a training is kept.

    Parameters
    ----------
    folder : Path, optional
        The folder; without one nothing is kept.
    recipe : dict
        Fields of the recipe.
    corpus : TrainingData
        The recordings.
    network : Module
        As it is before the first step. The three tell one training from another.
    """

    def __init__(
        self,
        folder: Path | None,
        recipe: dict[str, Any],
        corpus: TrainingData,
        network: torch.nn.Module,
    ) -> None:
        self.folder = folder
        self.recipe = {k: v for k, v in recipe.items() if k not in _FREE}
        if folder is not None:
            self.recipe |= {"spec": corpus.arrays.spec.key, "network": _digest(network)}
        self.key = "" if folder is None else _key(self.recipe, corpus)
        self.written = time.monotonic()

    def is_due(self) -> bool:
        """Tell whether the last checkpoint is a minute old.

        Returns
        -------
        bool
            Whether to write one.
        """
        return (
            self.folder is not None
            and time.monotonic() - self.written >= _EVERY_SECONDS
        )

    def write(self, state: dict[str, Any], accelerator: Any) -> None:
        """Write the state, whole or not at all; of several processes only the first does.

        Parameters
        ----------
        state : dict
            Tensors, numbers and texts.
        accelerator : Accelerator
            Knows which process this is.

        Raises
        ------
        InputError
            If the disk is full.
        """
        if self.folder is not None and accelerator.is_main_process:
            from safetensors.torch import save_file

            folder = self.folder
            with disk_full_error("fit", folder):
                folder.mkdir(parents=True, exist_ok=True)
                write_atomic(
                    folder / LAST,
                    lambda part: torch.save(
                        {"key": self.key, "recipe": self.recipe, **state}, part
                    ),
                )
                if (
                    state["best"] is not None
                    and state["step"] == 0
                    and not state["stale"]
                ):
                    best = {
                        k: v.contiguous() for k, v in state["best"]["state"].items()
                    }
                    write_atomic(folder / BEST, lambda part: save_file(best, part))
        self.written = time.monotonic()

    def read(self, device: torch.device) -> dict[str, Any] | None:
        """Read the state back.

        Parameters
        ----------
        device : torch.device
            Where the tensors go.

        Returns
        -------
        dict or None
            The state; None where there is no checkpoint yet.

        Raises
        ------
        InputError
            If no folder was given, or the checkpoint is damaged or of another training.
        """
        if self.folder is None:
            raise InputError(
                "fit: checkpoint must name a folder to resume from, got None. Pass checkpoint=."
            )
        path = self.folder / LAST
        if not path.is_file():
            return None
        try:
            state = torch.load(
                path, map_location=device, weights_only=True
            )  # runs no code
            key, recipe, _ = state.pop("key"), state.pop("recipe"), state["best"]
        except (
            OSError,
            RuntimeError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            EOFError,
            pickle.UnpicklingError,
        ) as err:
            cause = (
                str(err).strip().splitlines()[0][:200]
                if str(err).strip()
                else type(err).__name__
            )
            raise InputError(
                f"fit: checkpoint must be undamaged, got {str(path)!r}: {cause}. Remove it to start anew."
            ) from err
        if key != self.key:
            changed = [
                _WORDS.get(name) or f"{_NAMES.get(name, name)}={recipe.get(name)!r}"
                for name, value in self.recipe.items()
                if recipe.get(name) != value
            ]
            raise InputError(
                f"fit: checkpoint must be of the same recordings and the same arguments, got "
                f"{', '.join(changed) or 'other recordings'} in {str(self.folder)!r}. Choose another folder, or fit "
                "without resume."
            )
        # what was best stays on the CPU
        if state["best"] is not None:
            state["best"]["state"] = {
                k: v.cpu() for k, v in state["best"]["state"].items()
            }
            state["best"]["validation"] = state["best"]["validation"].cpu()
        return state


def _digest(network: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(
            name.encode() + value.detach().cpu().contiguous().numpy().tobytes()
        )
    return digest.hexdigest()


def _key(recipe: dict[str, Any], corpus: TrainingData) -> str:
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode())
    arrays: list[NDArray[Any]] = [
        corpus.targets,
        corpus.train_index,
        corpus.validation_index,
        *corpus.arrays.arrays,
    ]
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()
