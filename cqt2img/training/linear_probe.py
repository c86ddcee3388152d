"""A linear head, fitted to the embeddings of an unchanged backbone."""

import os
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from cqt2img._utils.progress import Progress
from cqt2img.data.dataset import TrainingData
from cqt2img.errors import InputError
from cqt2img.inference.calibration import fit_temperature, log_loss, pool, to_proba
from cqt2img.models.device import retain_freed_memory
from cqt2img.models.factory import TileNet
from cqt2img.models.notes import NoteClassifier
from cqt2img.training.embedding_cache import make_embedder

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

# inverse regularisation strengths, as scikit-learn's C; the middle one is the default
_STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_DEFAULT_STRENGTH = 1e-3
_MAX_TILES = 100_000  # of more, the solver sees every second, third and so on


@dataclass(frozen=True)
class LinearProbe:
    """The result of a linear probe.

    Parameters
    ----------
    strength : float
        Inverse regularisation strength.
    loss : float
        Log-loss of the training tiles in nats.
    validation : ndarray of float32, shape (n_validation, n_classes)
        Log-probabilities of the validation recordings, by a head fitted to the
        training recordings only.
    features : list of ndarray of float32, shape (n_features,)
        Mean embeddings of the training and then the validation recordings.
    """

    strength: float
    loss: float
    validation: NDArray[np.float32]
    features: list[NDArray[np.float32]]


@dataclass(frozen=True)
class _Samples:
    """Tiles that a head can be fitted to.

    Parameters
    ----------
    features : ndarray of float32, shape (n_tiles, n_features)
        Standardised embeddings.
    class_indices : ndarray of int64, shape (n_tiles,)
        Classes.
    weights : ndarray of float64, shape (n_tiles,)
        Weights with mean 1.
    """

    features: NDArray[np.float32]
    class_indices: NDArray[np.int64]
    weights: NDArray[np.float64]


def fit_linear_probe(
    network: TileNet,
    data: TrainingData,
    device: torch.device,
    *,
    seed: int = 0,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    refit: bool = False,
) -> LinearProbe:
    """Fit the head to the embeddings of the backbone by logistic regression.

    Parameters
    ----------
    network : TileNet
        A network on `device`; its head changes, its backbone does not.
    data : TrainingData
        The recordings. The regularisation is the one with the lowest log-loss on
        the validation recordings, at the best temperature of each; without
        validation recordings it is the middle one of five.
    device : torch.device
        Device of the network.
    seed : int
        Seed of the solver.
    cache_dir : str or Path, optional
        Folder in which embeddings are kept, see `make_embedder`.
    progress : callable, optional
        Takes an iterator, its length and a title; returns the iterator.
    refit : bool
        Whether the head is fitted to all recordings once the validation recordings
        have chosen the regularisation.

    Returns
    -------
    LinearProbe
        The result.

    Raises
    ------
    InputError
        If the head is not linear, the embeddings of all tiles are the same or not
        finite, or the backbone reads notes and finds none.

    Notes
    -----
    Every class has the same weight, and every group within a class. A head that is
    fitted before all layers train keeps the noise of a random head from distorting
    the backbone.

    References
    ----------
    Ananya Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform
    Out-of-Distribution", 2022.
    """
    layers = _linear_layers(network)
    recordings = np.concatenate([data.train_index, data.validation_index])
    n_training = len(data.train_index)
    embed = make_embedder(network, device, cache_dir)
    order = iter(recordings.tolist())
    if progress is not None:
        order = progress(order, len(recordings), "embedding")
    with retain_freed_memory():
        embeddings = [
            embed(np.ascontiguousarray(data.arrays.tiles(recording)))
            for recording in order
        ]
    n_tiles = sum(map(len, embeddings[:n_training]))
    step = -(-n_tiles // _MAX_TILES)
    training_tiles = np.concatenate([one[::step] for one in embeddings[:n_training]])
    reads_notes = isinstance(network.backbone, NoteClassifier)
    _check_embeddings(embeddings, training_tiles, reads_notes=reads_notes)
    mean, scale = _mean_and_scale(training_tiles, reads_notes=reads_notes)
    standardised = [(one - mean) / scale for one in embeddings]

    samples = _make_samples(standardised[:n_training], recordings, data, step)
    model, validation = _select_strength(samples, standardised[n_training:], data, seed)
    if refit and len(data.validation_index):
        samples = _make_samples(standardised, recordings, data, step)
        model = _fit_regression(samples, model.C, seed)
    _set_head(layers, model, mean, scale)
    features = [one.mean(axis=0) for one in embeddings]
    return LinearProbe(model.C, _weighted_loss(model, samples), validation, features)


def _linear_layers(network: TileNet) -> list[torch.nn.Linear]:
    """Return the layers of the head, which must be linear."""
    layers = []
    for layer in network.heads:
        if not isinstance(layer, torch.nn.Linear):
            raise InputError(
                "fit: finetune='head' and head_first=True need a backbone with a "
                f"linear head, got {type(layer).__name__}. Pass finetune='all' and "
                "head_first=False, or choose another backbone."
            )
        layers.append(layer)
    return layers


def _check_embeddings(
    embeddings: list[NDArray[np.float32]],
    training_tiles: NDArray[np.float32],
    *,
    reads_notes: bool,
) -> None:
    """Check that the embeddings are finite and differ from tile to tile."""
    if reads_notes and not training_tiles.any():
        raise InputError(
            "fit: the backbone 'notes' found no piano notes in X. Choose a backbone "
            "for tiles as images, such as 'resnet18'."
        )
    if not all(np.isfinite(one).all() for one in embeddings):
        raise InputError(
            "fit: the embeddings of the backbone are not finite (NaN). Choose other "
            "weights."
        )
    if not np.ptp(training_tiles, axis=0).any():
        raise InputError(
            "fit: the embeddings of the backbone are the same for all tiles. Choose "
            "other weights."
        )


def _mean_and_scale(
    tiles: NDArray[np.float32], *, reads_notes: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the mean and the scale by which embeddings are standardised."""
    mean = tiles.mean(axis=0, dtype=np.float64).astype(np.float32)
    scale = tiles.std(axis=0, dtype=np.float64).astype(np.float32)
    # the features of notes have one scale already: with it, .54 of the jazz
    # recordings were right, with a scale for each feature .47; of images, a feature
    # that hardly varies is not amplified by more than 100
    least = 1.0 if reads_notes else 0.01
    return mean, np.maximum(scale, least * scale.max())


def _make_samples(
    features: list[NDArray[np.float32]],
    recordings: NDArray[np.int64],
    data: TrainingData,
    step: int,
) -> _Samples:
    """Join tiles of the first recordings.

    Classes have the same weight, groups have the same weight within a class, and
    recordings are weighted by their number of tiles within a group.
    """
    tiles = [one[::step] for one in features]
    n_tiles = [len(one) for one in tiles]
    recordings = recordings[: len(features)]
    class_indices = data.targets.argmax(axis=1)[recordings]
    groups = [str(group) for group in data.groups[recordings]]
    keys = list(zip(class_indices.tolist(), groups, strict=True))
    tiles_per_key: Counter[tuple[int, str]] = Counter()
    for key, count in zip(keys, n_tiles, strict=True):
        tiles_per_key[key] += count
    groups_per_class = Counter(class_index for class_index, _ in tiles_per_key)
    weights_per_recording = [
        1 / (tiles_per_key[key] * groups_per_class[key[0]]) for key in keys
    ]
    weights = np.repeat(weights_per_recording, n_tiles)
    return _Samples(
        np.concatenate(tiles),
        np.repeat(class_indices, n_tiles),
        weights * len(weights) / weights.sum(),
    )


def _fit_regression(
    samples: _Samples, strength: float, seed: int
) -> "LogisticRegression":
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=500, random_state=seed)
    return model.fit(samples.features, samples.class_indices, samples.weights)


def _select_strength(
    samples: _Samples,
    held_out: list[NDArray[np.float32]],
    data: TrainingData,
    seed: int,
) -> tuple["LogisticRegression", NDArray[np.float32]]:
    """Fit with every regularisation; return the best model and its predictions."""
    if not held_out:
        model = _fit_regression(samples, _DEFAULT_STRENGTH, seed)
        return model, np.zeros((0, 0), np.float32)
    class_indices = data.targets[data.validation_index].argmax(axis=1)
    models = [_fit_regression(samples, strength, seed) for strength in _STRENGTHS]
    predictions = []
    losses = []
    for model in models:
        log_proba = np.stack([pool(model.predict_log_proba(one)) for one in held_out])
        # the probabilities of the fitted model are calibrated by these recordings
        temperature = fit_temperature(log_proba, class_indices)
        losses.append(log_loss(to_proba(log_proba, temperature), class_indices))
        predictions.append(log_proba)
    best = int(np.argmin(losses))  # of equal ones, the strongest regularisation
    return models[best], predictions[best]


def _weighted_loss(model: "LogisticRegression", samples: _Samples) -> float:
    """Compute the weighted log-loss of tiles in nats."""
    log_proba = model.predict_log_proba(samples.features)
    rows = np.arange(len(samples.class_indices))
    right = log_proba[rows, samples.class_indices]
    return float(-np.average(right, weights=samples.weights))


def _set_head(
    layers: list[torch.nn.Linear],
    model: "LogisticRegression",
    mean: NDArray[np.float32],
    scale: NDArray[np.float32],
) -> None:
    """Copy the coefficients to the head, which gets embeddings as they are."""
    matrix = model.coef_
    bias = model.intercept_
    if len(matrix) == 1:  # scikit-learn has one row for two classes
        matrix = np.concatenate([-matrix, matrix]) / 2
        bias = np.concatenate([-bias, bias]) / 2
    weight = matrix / scale
    with torch.no_grad():
        for layer in layers:
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.copy_(torch.from_numpy(bias - weight @ mean))
