"""From tile logits to an answer for the recording, with how sure it is."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cqt2img.backbone import TileNet, steady_memory
from cqt2img.dataset import tile_batches
from cqt2img.source import make_table
from cqt2img.spec import TileSpec

if TYPE_CHECKING:
    import pandas as pd


_PRIOR_SD = 0.5  # of the logarithm of the temperature


class Heard(NamedTuple):
    """One recording after the network; the arrays are None where it could not be read.

    Parameters
    ----------
    info : dict
        `status`, `reason`, `message` and `seconds`.
    tiles : ndarray of float32, shape (n_tiles, n_classes), or None
        Log-probabilities of its tiles.
    recording : ndarray of float32, shape (n_classes,), or None
        Their pool.
    features : ndarray of float32, shape (n_features,), or None
        Mean of what the body had to say of its tiles; None where nobody asked.
    """

    info: dict[str, Any]
    tiles: NDArray[np.float32] | None
    recording: NDArray[np.float32] | None
    features: NDArray[np.float32] | None = None


def tile_log_proba(
    network: torch.nn.Module, tiles: NDArray[np.uint8], device: torch.device, batch_size: int = 32
) -> NDArray[np.float32]:
    """Give the log-probabilities of every tile of a recording.

    Parameters
    ----------
    network : Module
        What `build_network` gives, on `device`.
    tiles : ndarray of uint8, shape (n_tiles, height, width)
        Levels.
    device : torch.device
        Where the network is.
    batch_size : int
        Tiles at a time.

    Returns
    -------
    ndarray of float32, shape (n_tiles, n_classes)
        Natural logarithms; every row of their exponentials adds up to 1.
    """
    logits = _read(network.eval(), tiles, device, batch_size)
    return torch.log_softmax(logits, dim=1).numpy()


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
    return _read(network.eval().embed, tiles, device, batch_size).numpy()


def _read(
    network: Callable[[torch.Tensor], torch.Tensor], tiles: NDArray[np.uint8], device: torch.device, batch_size: int
) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat([network(batch.to(device)).float().cpu() for batch in tile_batches(tiles, batch_size)])


def pool(log_proba: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pool the tiles of a recording to one answer: the mean log-probability.

    Parameters
    ----------
    log_proba : ndarray of float32, shape (n_tiles, n_classes)
        Log-probabilities of tiles.

    Returns
    -------
    ndarray of float32, shape (n_classes,)
        Log-probabilities of the recording.

    Notes
    -----
    The geometric mean, made to add up to 1. Tiles of one recording are not independent, so that
    their product would be far too sure.

    Examples
    --------
    One tile is undecided, the other is not:

    >>> np.exp(pool(np.log(np.array([[0.5, 0.5], [0.9, 0.1]], dtype="float32")))).round(2)
    array([0.75, 0.25], dtype=float32)
    """
    mean = log_proba.mean(axis=0, dtype=np.float64)
    return (mean - np.logaddexp.reduce(mean)).astype(np.float32)


def to_proba(log_proba: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float32]:
    """Turn log-probabilities into probabilities, softened or sharpened by a temperature.

    Parameters
    ----------
    log_proba : ndarray of float32, shape (..., n_classes)
        Log-probabilities.
    temperature : float
        Above 0; more is less sure.

    Returns
    -------
    ndarray of float32, shape (..., n_classes)
        Add up to 1.

    References
    ----------
    Chuan Guo, Geoff Pleiss, Yu Sun and Kilian Q. Weinberger, "On Calibration of Modern Neural
    Networks", 2017.
    """
    scaled = log_proba.astype(np.float64) / temperature
    return np.exp(scaled - np.logaddexp.reduce(scaled, axis=-1, keepdims=True)).astype(np.float32)


def fit_temperature(log_proba: NDArray[np.float32], codes: NDArray[np.int64]) -> float:
    """Find the temperature at which recordings that training did not see are predicted best.

    Parameters
    ----------
    log_proba : ndarray of float32, shape (n_recordings, n_classes)
        Log-probabilities of validation recordings.
    codes : ndarray of int64, shape (n_recordings,)
        What they are.

    Returns
    -------
    float
        0.1 to 10, where the log-loss over the recordings is lowest, drawn towards 1 where they are
        few: a prior on its logarithm with a standard deviation of 0.5.

    References
    ----------
    Chuan Guo, Geoff Pleiss, Yu Sun and Kilian Q. Weinberger, "On Calibration of Modern Neural
    Networks", 2017.

    Examples
    --------
    Always sure and right half of the time: the answer must become an even one.

    >>> sure = np.log(np.array([[0.99, 0.01]] * 100, dtype="float32"))
    >>> t = fit_temperature(sure, np.array([0, 1] * 50))
    >>> to_proba(sure, t)[0].round(1)
    array([0.6, 0.4], dtype=float32)
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        doubt = 0.5 * (log_temperature / _PRIOR_SD) ** 2
        return len(codes) * log_loss(to_proba(log_proba, float(np.exp(log_temperature))), codes) + doubt

    found = minimize_scalar(loss, bounds=(np.log(0.1), np.log(10)), method="bounded")
    return float(np.exp(found.x))


def log_loss(proba: NDArray[np.float32], codes: NDArray[np.int64]) -> float:
    """Give the mean log-loss in nats.

    Parameters
    ----------
    proba : ndarray of float32, shape (n_recordings, n_classes)
        Probabilities.
    codes : ndarray of int64, shape (n_recordings,)
        What they are.

    Returns
    -------
    float
        0 for one who is sure and right; `log(n_classes)` for one who does not know.
    """
    right = proba[np.arange(len(codes)), codes].astype(np.float64)
    return float(-np.log(np.maximum(right, 1e-12)).mean())


def listen(
    network: torch.nn.Module,
    pictures: Iterable[tuple[NDArray[np.uint8] | None, dict[str, Any]]],
    device: torch.device,
    batch_size: int = 32,
    with_features: bool = False,
) -> Iterator[Heard]:
    """Run the network over recordings, one after the other; one that cannot be read costs itself alone.

    Parameters
    ----------
    network : Module
        What `build_network` gives, on `device`.
    pictures : iterable
        What `attempt` gives for every recording.
    device : torch.device
        Where the network is.
    batch_size : int
        Tiles at a time.
    with_features : bool
        Whether to keep what the body has to say, too.

    Yields
    ------
    Heard
        One for each recording.
    """
    with steady_memory():
        for tiles, info in pictures:
            if tiles is None:
                yield Heard(info, None, None)
                continue
            rows, features = _hear(network, tiles, device, batch_size, with_features)
            yield Heard(info, rows, pool(rows), features)


def _hear(
    network: Any, tiles: NDArray[np.uint8], device: torch.device, batch_size: int, with_features: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Give the log-probabilities of tiles, and the mean of their features if it is wanted."""
    if not with_features:
        return tile_log_proba(network, tiles, device, batch_size), None
    features, head = embed_tiles(network, tiles, device, batch_size), network.backbone.get_classifier()
    if not isinstance(head, torch.nn.Linear):
        return tile_log_proba(network, tiles, device, batch_size), features.mean(axis=0)
    with torch.inference_mode():  # the body is not asked twice
        logits = head(torch.from_numpy(features).to(device)).float().cpu()
    return torch.log_softmax(logits, dim=1).numpy(), features.mean(axis=0)


def embed(
    network: TileNet,
    pictures: Iterable[tuple[NDArray[np.uint8] | None, dict[str, Any]]],
    device: torch.device,
    batch_size: int = 32,
) -> Iterator[tuple[NDArray[np.float32] | None, dict[str, Any]]]:
    """Give what the body of a network has to say of recordings, one after the other.

    Parameters
    ----------
    network : TileNet
        What `build_network` gives, on `device`.
    pictures : iterable
        What `attempt` gives for every recording.
    device : torch.device
        Where the network is.
    batch_size : int
        Tiles at a time.

    Yields
    ------
    features : ndarray of float32, shape (n_features,), or None
        The mean over the tiles; None for a recording that could not be read.
    info : dict
        Its `status`, `reason` and `message`.
    """
    with steady_memory():
        for tiles, info in pictures:
            yield None if tiles is None else embed_tiles(network, tiles, device, batch_size).mean(axis=0), info


def recording_answers(
    paths: Iterable[str], heard: Iterable[Heard], classes: NDArray, temperature: float, top_k: int
) -> "pd.DataFrame":
    """Tell who plays in every recording, one row each.

    Parameters
    ----------
    paths : iterable of str
        The recordings.
    heard : iterable of Heard
        What the network made of them.
    classes : ndarray, shape (n_classes,)
        The names.
    temperature : float
        See `to_proba`.
    top_k : int
        How many names to list, 1 or more.

    Returns
    -------
    DataFrame
        `path`, `label`, `probability`, `label_2` and so on, `status`, `reason`, `message`.
    """
    rows = []
    for path, one in zip(paths, heard, strict=True):
        proba = None if one.recording is None else to_proba(one.recording, temperature)
        rows.append({"path": path, **answer(proba, classes, top_k), **_state(one)})
    return make_table(rows)


def tile_answers(
    paths: Iterable[str], heard: Iterable[Heard], classes: NDArray, temperature: float, spec: TileSpec, top_k: int
) -> "pd.DataFrame":
    """Tell who plays in every tile, one row each.

    Parameters
    ----------
    paths : iterable of str
        The recordings.
    heard : iterable of Heard
        What the network made of them.
    classes : ndarray, shape (n_classes,)
        The names.
    temperature : float
        See `to_proba`.
    spec : TileSpec
        Says how long a tile is.
    top_k : int
        How many names to list, 1 or more.

    Returns
    -------
    DataFrame
        As `recording_answers`, with `start_seconds` and `end_seconds` behind the path.
    """
    rows = []
    for path, one in zip(paths, heard, strict=True):
        tiles: list[Any] = [None] if one.tiles is None else list(to_proba(one.tiles, temperature))
        for n, proba in enumerate(tiles):
            start = n * spec.tile_seconds
            end = None if proba is None else round(min(start + spec.tile_seconds, one.info["seconds"]), 3)
            times = {"start_seconds": None if proba is None else round(start, 3), "end_seconds": end}
            rows.append({"path": path, **times, **answer(proba, classes, top_k), **_state(one)})
    return make_table(rows)


def _state(heard: Heard) -> dict[str, Any]:
    return {k: heard.info[k] for k in ("status", "reason", "message")}


def answer(proba: NDArray[np.float32] | None, classes: NDArray, top_k: int) -> dict[str, Any]:
    """Put the answer for one recording into words.

    Parameters
    ----------
    proba : ndarray of float32, shape (n_classes,), or None
        Probabilities, or None for a recording that could not be read.
    classes : ndarray, shape (n_classes,)
        The names.
    top_k : int
        How many names to list, 1 or more.

    Returns
    -------
    dict
        `label` and `probability`, and for `top_k` above 1 `label_2`, `probability_2` and so on;
        None throughout where there is no answer.

    Examples
    --------
    >>> answer(np.array([0.25, 0.75], dtype="float32"), np.array(["Evans", "Monk"]), 1)
    {'label': 'Monk', 'probability': 0.75}
    """
    words: dict[str, Any] = {}
    n = min(top_k, len(classes))
    order = [None] * n if proba is None else np.argsort(-proba, kind="stable")[:n].tolist()
    for rank, place in enumerate(order, start=1):
        tail = "" if rank == 1 else f"_{rank}"
        words[f"label{tail}"] = None if place is None else classes[place].item()
        words[f"probability{tail}"] = None if place is None or proba is None else round(float(proba[place]), 6)
    return words
