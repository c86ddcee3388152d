"""The body as it is, and a head on it: features of tiles, and the linear head that tells players apart by them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cqt2img.backbone import TileNet, steady_memory
from cqt2img.dataset import Corpus, TrainingTiles, tile_batches
from cqt2img.errors import InputError

_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)  # of the inverse regularisation; chosen on validation recordings


def embed_tiles(
    network: TileNet, tiles: NDArray[np.uint8], device: torch.device, batch_size: int = 32
) -> NDArray[np.float32]:
    """Give what the body of a network has to say of tiles, before the head turns it into names.

    Parameters
    ----------
    network : TileNet
        What `build_network` gives, on `device`.
    tiles : ndarray of uint8, shape (n_tiles, height, width)
        Levels.
    device : torch.device
        Where the network is.
    batch_size : int
        Tiles at a time.

    Returns
    -------
    ndarray of float32, shape (n_tiles, n_features)
        Features.
    """
    network.eval()
    with torch.inference_mode():
        rows = [network.embed(batch.to(device)).float().cpu() for batch in tile_batches(tiles, batch_size)]
    return torch.cat(rows).numpy()


def fit_head(network: TileNet, corpus: Corpus, device: torch.device, seed: int = 0) -> dict[str, Any]:
    """Fit the head to the features of the body as it is, by logistic regression.

    Parameters
    ----------
    network : TileNet
        On `device`; its head is changed, its body is not.
    corpus : Corpus
        The recordings. The regularisation is the one with the lowest log-loss on the validation
        recordings; without these the middle one.
    device : torch.device
        Where the network is.
    seed : int
        Of the solver.

    Returns
    -------
    dict
        `strength` (inverse regularisation) and `valid_loss` (None without validation recordings).

    Raises
    ------
    InputError
        If the head of the network is not one linear layer.

    Notes
    -----
    Every class counts the same, and every group within a class. A head that fits before the body
    moves keeps the body from being distorted by the noise of a random one.

    References
    ----------
    Ananya Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform
    Out-of-Distribution", 2022.
    """
    from sklearn.linear_model import LogisticRegression

    layer: Any = network.backbone.get_classifier()  # type: ignore[operator]
    if not isinstance(layer, torch.nn.Linear):
        raise InputError(
            f"fit: the head must be one linear layer to be fitted first, got {type(layer).__name__}. "
            "Pass head_first=False."
        )
    codes = corpus.targets.argmax(axis=1)
    with steady_memory():
        settle_norms(network, corpus, device, seed)
        mine = list(_features(network, corpus, corpus.training, device))
        held = list(_features(network, corpus, corpus.validation, device))
    x = np.concatenate(mine)
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.maximum(scale, 0.01 * scale.max())  # what hardly moves is no feature
    y = np.repeat(codes[corpus.training], [len(f) for f in mine])
    weight = _weights(corpus, [len(f) for f in mine])
    found: list[tuple[float, float, Any]] = []
    for strength in _STRENGTHS if held else _STRENGTHS[1:2]:
        model = LogisticRegression(C=strength, max_iter=500, random_state=seed).fit((x - mean) / scale, y, weight)
        loss = _log_loss(model, held, codes[corpus.validation], mean, scale) if held else float("nan")
        found.append((loss, strength, model))
    loss, strength, model = min(found, key=lambda one: one[0]) if held else found[0]
    matrix, bias = _both_classes(model.coef_, model.intercept_)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(matrix / scale))
        layer.bias.copy_(torch.from_numpy(bias - (matrix / scale) @ mean))
    return {"strength": strength, "valid_loss": loss if held else None}


def settle_norms(network: TileNet, corpus: Corpus, device: torch.device, seed: int, n_batches: int = 50) -> None:
    """Let batch norms forget the pictures that the body comes from, and measure tiles.

    Parameters
    ----------
    network : TileNet
        On `device`; the statistics of its batch norms are changed, its weights are not.
    corpus : Corpus
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
    norms = [m for m in network.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
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


def _features(
    network: TileNet, corpus: Corpus, places: NDArray[np.int64], device: torch.device
) -> Iterator[NDArray[np.float32]]:
    for place in places:
        yield embed_tiles(network, corpus.strips.tiles(int(place)), device)


def _weights(corpus: Corpus, n_tiles: list[int]) -> NDArray[np.float64]:
    """Weigh every tile so that classes count the same, groups within a class, and recordings by their tiles."""
    codes = corpus.targets.argmax(axis=1)[corpus.training]
    keys = list(zip(codes.tolist(), [str(group) for group in corpus.groups[corpus.training]], strict=True))
    tiles_of: dict[Any, int] = {}
    groups_of: dict[int, set[Any]] = {}
    for key, n in zip(keys, n_tiles, strict=True):
        tiles_of[key] = tiles_of.get(key, 0) + n
        groups_of.setdefault(key[0], set()).add(key)
    each = np.repeat([1 / (tiles_of[key] * len(groups_of[key[0]])) for key in keys], n_tiles)
    return each * len(each) / each.sum()


def _log_loss(model: Any, held: list[NDArray[np.float32]], codes: NDArray, mean: NDArray, scale: NDArray) -> float:
    """Log-loss over recordings of the mean log-probability of their tiles."""
    rows = np.stack([model.predict_log_proba((f - mean) / scale).mean(axis=0) for f in held])
    rows = rows - np.logaddexp.reduce(rows, axis=1, keepdims=True)
    columns = {code: n for n, code in enumerate(model.classes_)}
    return float(-np.mean([row[columns[code]] for row, code in zip(rows, codes, strict=True)]))


def _both_classes(matrix: NDArray, bias: NDArray) -> tuple[NDArray, NDArray]:
    """Give one row per class, where scikit-learn gives one for two classes."""
    if len(matrix) > 1:
        return matrix, bias
    return np.concatenate([-matrix, matrix]) / 2, np.concatenate([-bias, bias]) / 2
