"""From a network and training data to a fitted model."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.progress import Progress
from cqt2img.data.dataset import TrainingData
from cqt2img.inference.calibration import fit_temperature
from cqt2img.inference.model import FittedModel, TrainingProvenance
from cqt2img.inference.open_set import select_score
from cqt2img.inference.predict import embed_tiles
from cqt2img.inference.references import ReferenceSet
from cqt2img.models.device import resolve_device, retain_freed_memory
from cqt2img.models.factory import TileNet
from cqt2img.training.callbacks import default_callbacks
from cqt2img.training.config import TrainingSettings
from cqt2img.training.trainer import TrainingResult, train, train_linear_probe


def fit_model(
    network: TileNet,
    backbone: str,
    data: TrainingData,
    classes: NDArray,
    settings: TrainingSettings,
    *,
    provenance: TrainingProvenance,
    device: str | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    show_progress: bool = False,
    progress: Progress | None = None,
) -> FittedModel:
    """Train a network; calibrate it and choose its open-set detector.

    Parameters
    ----------
    network : TileNet
        What `build_network` returns; it is changed.
    backbone : str
        Its name.
    data : TrainingData
        Training and validation recordings.
    classes : ndarray, shape (n_classes,)
        Labels, sorted.
    settings : TrainingSettings
        How to train.
    provenance : TrainingProvenance
        The recordings of `data`; the history is added.
    device : {"cpu", "cuda", "mps"}, optional
        By default a GPU if there is one.
    checkpoint : Path, optional
        Folder for the state of training; for embeddings of tiles, where only the head
        is trained and no `cache_dir` is set.
    resume : bool
        Whether to continue from the checkpoint.
    show_progress : bool
        Whether to show a progress bar of the training steps.
    progress : callable, optional
        Progress bar of other long work.

    Returns
    -------
    FittedModel
        Ready to predict, with the network on `device`.

    Raises
    ------
    TrainingError
        If the loss is not finite.
    InputError
        If the checkpoint is damaged or of another training.
    """
    with default_callbacks(show_progress, checkpoint) as callback:
        if settings.finetune == "all":
            result = train(
                network,
                data,
                settings,
                device=device,
                callback=callback,
                checkpoint=checkpoint,
                resume=resume,
            )
        else:
            cache_dir = settings.config.cache_dir
            if cache_dir is None and checkpoint is not None:
                cache_dir = checkpoint / "features"
            network.to(resolve_device(device))
            result = train_linear_probe(
                network,
                data,
                settings,
                callback=callback,
                cache_dir=cache_dir,
                progress=progress,
            )
    network.load_state_dict(result.state)
    network.to(resolve_device(device))
    references = make_references(network, data, result, progress)
    return FittedModel(
        network=network,
        backbone=backbone,
        in_chans=settings.config.in_chans,
        spec=data.arrays.spec,
        classes=classes,
        temperature=_validation_temperature(data, result),
        references=references,
        open_set=select_score(references, settings.seed),
        provenance=replace(provenance, history=tuple(result.history)),
    )


def make_references(
    network: TileNet,
    data: TrainingData,
    result: TrainingResult,
    progress: Progress | None = None,
) -> ReferenceSet:
    """Compute the embeddings of all recordings, unless training did.

    Parameters
    ----------
    network : TileNet
        The trained network.
    data : TrainingData
        The recordings.
    result : TrainingResult
        Has embeddings where the backbone was not trained.
    progress : callable, optional
        Progress bar.

    Returns
    -------
    ReferenceSet
        Embeddings of 10,000 recordings or fewer.
    """
    indices = [*data.train_index.tolist(), *data.validation_index.tolist()]
    embeddings = result.features
    if embeddings is None:
        steps: Iterable[int] = indices
        if progress is not None:
            steps = progress(iter(indices), len(indices), "embedding")
        embeddings = list(_embed_recordings(network, data, steps))
    class_indices = data.targets[indices].argmax(axis=1)
    is_validation = np.arange(len(indices)) >= len(data.train_index)
    references = ReferenceSet(np.stack(embeddings), class_indices, is_validation)
    return references.limit_size()


def _embed_recordings(
    network: TileNet, data: TrainingData, indices: Iterable[int]
) -> Iterator[NDArray[np.float32]]:
    with retain_freed_memory():
        for index in indices:
            tiles = data.arrays.tiles(index)
            yield embed_tiles(network, tiles, network.table.device).mean(axis=0)


def _validation_temperature(data: TrainingData, result: TrainingResult) -> float:
    """Return the temperature that fits the validation recordings; 1 without them."""
    class_indices = data.targets[data.validation_index].argmax(axis=1)
    if len(class_indices) < 2:
        return 1.0
    return fit_temperature(result.validation, class_indices)
