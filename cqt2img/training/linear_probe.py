"""The body as it is, and a head on it: features of tiles, and the linear head that tells players apart by them."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cqt2img._utils.files import disk_full_error
from cqt2img._utils.progress import Progress
from cqt2img.data.dataset import TrainingData
from cqt2img.data.tile_dataset import TrainingTiles
from cqt2img.errors import InputError
from cqt2img.inference.calibration import fit_temperature, log_loss, pool, to_proba
from cqt2img.inference.predict import embed_tiles
from cqt2img.models.device import retain_freed_memory
from cqt2img.models.factory import TileNet
from cqt2img.models.notes import NoteClassifier

_STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # of the inverse regularisation
_MOST_TILES = (
    100_000  # that the solver sees; of longer corpora every second, third and so on
)


class LinearProbe(NamedTuple):
    """A head that was fitted.

    Parameters
    ----------
    strength : float
        Inverse regularisation.
    loss : float
        Log-loss of the training tiles.
    validation : ndarray of float32, shape (n_validation, n_classes)
        Log-probabilities of the validation recordings, by a head that had not met them.
    features : list of ndarray of float32, shape (n_features,)
        Means over the tiles of the training and then the validation recordings.
    """

    strength: float
    loss: float
    validation: NDArray[np.float32]
    features: list[NDArray[np.float32]]


def fit_linear_probe(
    network: TileNet,
    corpus: TrainingData,
    device: torch.device,
    seed: int = 0,
    memory: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    refit: bool = False,
) -> LinearProbe:
    """Fit the head to the features of the body as it is, by logistic regression.

    Parameters
    ----------
    network : TileNet
        On `device`; its head is changed, its body is not.
    corpus : TrainingData
        The recordings. The regularisation is the one with the lowest log-loss on the validation
        recordings, at its best temperature; without these the middle one.
    device : torch.device
        Where the network is.
    seed : int
        Of the solver.
    memory : str or Path, optional
        Folder where features are kept, by network and tiles; what lies there is not embedded again.
    progress : callable, optional
        Gets an iterator, its length and a title, and gives the iterator back.
    refit : bool
        Whether the head is fitted to the validation recordings, too, once these have chosen.

    Returns
    -------
    LinearProbe
        How it went.

    Raises
    ------
    InputError
        If the head of the network is not linear, all tiles are the same to its body, or it reads notes
        and finds none.

    Notes
    -----
    Every class counts the same, and every group within a class. A head that fits before the body
    moves keeps the body from being distorted by the noise of a random one.

    References
    ----------
    Ananya Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform
    Out-of-Distribution", 2022.
    """
    layers = _layers(network)
    places = [*corpus.training.tolist(), *corpus.validation.tolist()]
    embed = _embedder(network, device, memory)
    with retain_freed_memory():
        shown = (
            places
            if progress is None
            else progress(iter(places), len(places), "embedding")
        )
        features = [
            embed(np.ascontiguousarray(corpus.strips.tiles(place))) for place in shown
        ]
    n_mine, codes = len(corpus.training), corpus.targets.argmax(axis=1)
    step = -(-sum(map(len, features[:n_mine])) // _MOST_TILES)
    x = np.concatenate([f[::step] for f in features[:n_mine]])
    reads_notes = isinstance(network.backbone, NoteClassifier)
    if reads_notes and not x.any():
        raise InputError(
            "fit: X must hold notes of a piano for the backbone 'notes', got none that can be read. "
            "Choose a backbone that sees pictures, such as 'resnet18'."
        )
    finite = all(np.isfinite(f).all() for f in features)
    if not finite or not np.ptp(x, axis=0).any():
        raise InputError(
            "fit: weights must give features that differ from tile to tile, got "
            f"{'the same for all' if finite else 'NaN'}. Choose other weights."
        )
    mean, scale = (
        f(x, axis=0, dtype=np.float64).astype(np.float32) for f in (np.mean, np.std)
    )
    # what hardly moves is no feature; phrases are on one scale as they are (.54 right in place of .47 on jazz)
    scale = np.maximum(scale, (1.0 if reads_notes else 0.01) * scale.max())
    scaled = [(f - mean) / scale for f in features]
    learnt = _Learnt(places, scaled, step, corpus)
    model, validation = _choose(
        learnt.part(n_mine), scaled[n_mine:], codes[corpus.validation], seed
    )
    x, y, weight = learnt.part(len(places) if refit else n_mine)
    if refit and n_mine < len(places):
        model = _regression(model.C, seed).fit(x, y, weight)
    loss = -np.average(model.predict_log_proba(x)[np.arange(len(y)), y], weights=weight)
    matrix, bias = _both_classes(model.coef_, model.intercept_)
    with torch.no_grad():
        for layer in layers:
            layer.weight.copy_(torch.from_numpy(matrix / scale))
            layer.bias.copy_(torch.from_numpy(bias - (matrix / scale) @ mean))
    return LinearProbe(
        model.C, float(loss), validation, [f.mean(axis=0) for f in features]
    )


def settle_norms(
    network: TileNet,
    corpus: TrainingData,
    device: torch.device,
    seed: int,
    n_batches: int = 20,
) -> None:
    """Let batch norms forget the pictures that the body comes from, and measure tiles.

    Parameters
    ----------
    network : TileNet
        On `device`; the statistics of its batch norms are changed, its weights are not.
    corpus : TrainingData
        The recordings; those on the training side are used.
    device : torch.device
        Where the network is.
    seed : int
        Of which tiles are taken.
    n_batches : int
        How many batches of 32.

    References
    ----------
    Yanghao Li et al., "Revisiting Batch Normalization For Practical Domain Adaptation", 2016.
    """
    norms = [
        m
        for m in network.modules()
        if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)
    ]
    if not norms:
        return
    data = TrainingTiles(corpus, "none", "group", seed)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
    network.train()
    with torch.inference_mode():
        for start in range(0, min(len(data), 32 * n_batches), 32):
            tiles = [data[n][0] for n in range(start, min(len(data), start + 32))]
            if len(tiles) > 1:
                network(torch.stack(tiles).to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _layers(network: TileNet) -> tuple[torch.nn.Linear, ...]:
    """Give the head: one linear layer, or the two of a distilled network, whose features and answers are averaged."""
    head: Any = network.backbone.get_classifier()  # type: ignore[operator]
    layers = head if isinstance(head, tuple) else (head,)
    if not all(isinstance(layer, torch.nn.Linear) for layer in layers):
        raise InputError(
            f"fit: the head must be linear to be fitted on its own, got {type(layers[0]).__name__}. "
            "Pass finetune='all' and head_first=False, or choose another backbone."
        )
    return layers


def _embedder(
    network: TileNet, device: torch.device, memory: str | os.PathLike[str] | None
) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Give what embeds the tiles of a recording, and remembers."""
    if memory is None:
        return lambda tiles: embed_tiles(network, tiles, device)
    from joblib import Memory

    kept = Memory(memory, verbose=0).cache(_embed, ignore=["network", "device"])
    heads = {
        f"backbone.{name}"
        for name, layer in network.backbone.named_modules()
        if layer in _layers(network)
    }
    body = {
        k: v
        for k, v in network.state_dict().items()
        if k.rpartition(".")[0] not in heads
    }
    digest = hashlib.sha256(
        " ".join(type(module).__name__ for module in network.modules()).encode()
    )
    for name, value in [*body.items(), ("table", network.table)]:
        digest.update(
            name.encode() + value.detach().cpu().contiguous().numpy().tobytes()
        )

    def recall(tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        with disk_full_error("fit", Path(memory)):
            features = kept(tiles, digest.hexdigest(), network, device)
        whole = (
            isinstance(features, np.ndarray)
            and features.dtype == np.float32
            and features.ndim == 2
        )
        return (
            features
            if whole and len(features) == len(tiles)
            else embed_tiles(network, tiles, device)
        )

    return recall


def _embed(
    tiles: NDArray[np.uint8], body: str, network: TileNet, device: torch.device
) -> NDArray[np.float32]:
    return embed_tiles(network, tiles, device)


class _Learnt(NamedTuple):
    """What a head can be fitted to: features of recordings, the training side first."""

    places: list[int]
    features: list[NDArray]
    step: int
    corpus: TrainingData

    def part(self, n: int) -> tuple[NDArray, NDArray, NDArray]:
        """Give tiles, classes and weights of the first n recordings.

        Classes count the same, groups within a class, and recordings by their tiles.
        """
        places, tiles = self.places[:n], [f[:: self.step] for f in self.features[:n]]
        codes, n_tiles = (
            self.corpus.targets.argmax(axis=1)[places],
            [len(t) for t in tiles],
        )
        keys = list(
            zip(
                codes.tolist(),
                [str(group) for group in self.corpus.groups[places]],
                strict=True,
            )
        )
        tiles_of: dict[Any, int] = {}
        groups_of: dict[int, set[Any]] = {}
        for key, count in zip(keys, n_tiles, strict=True):
            tiles_of[key] = tiles_of.get(key, 0) + count
            groups_of.setdefault(key[0], set()).add(key)
        each = np.repeat(
            [1 / (tiles_of[key] * len(groups_of[key[0]])) for key in keys], n_tiles
        )
        return (
            np.concatenate(tiles),
            np.repeat(codes, n_tiles),
            each * len(each) / each.sum(),
        )


def _regression(strength: float, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=500, random_state=seed)


def _choose(
    learnt: tuple[NDArray, NDArray, NDArray],
    held: list[NDArray],
    codes: NDArray,
    seed: int,
) -> tuple[Any, NDArray[np.float32]]:
    """Fit with every regularisation; the best, and what it says of the validation recordings."""
    found = []
    for strength in _STRENGTHS if held else _STRENGTHS[2:3]:
        model = _regression(strength, seed).fit(*learnt)
        if not held:
            return model, np.zeros((0, 0), np.float32)
        rows = np.stack([pool(model.predict_log_proba(f)) for f in held])
        # fit softens or sharpens the answers by these recordings in the end, so it does here
        loss = log_loss(to_proba(rows, fit_temperature(rows, codes)), codes)
        found.append((loss, strength, model, rows))
    return min(found, key=lambda one: one[:2])[2:]


def _both_classes(matrix: NDArray, bias: NDArray) -> tuple[NDArray, NDArray]:
    """Give one row per class, where scikit-learn gives one for two classes."""
    if len(matrix) > 1:
        return matrix, bias
    return np.concatenate([-matrix, matrix]) / 2, np.concatenate([-bias, bias]) / 2
