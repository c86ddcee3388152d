"""From tile logits to an answer for the recording, with how sure it is."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cqt2img.inference.calibration import pool
from cqt2img.models.device import retain_freed_memory
from cqt2img.models.factory import TileNet
from cqt2img.tiles.extract import RecordingInfo


class RecordingOutput(NamedTuple):
    """One recording after the network; the arrays are None where it could not be read.

    Parameters
    ----------
    info : RecordingInfo
        `status`, `reason`, `message` and `seconds`.
    tiles : ndarray of float32, shape (n_tiles, n_classes), or None
        Log-probabilities of its tiles.
    recording : ndarray of float32, shape (n_classes,), or None
        Their pool.
    features : ndarray of float32, shape (n_features,), or None
        Mean of what the body had to say of its tiles; None where nobody asked.
    """

    info: RecordingInfo
    tiles: NDArray[np.float32] | None
    recording: NDArray[np.float32] | None
    features: NDArray[np.float32] | None = None


def tile_log_proba(
    network: torch.nn.Module,
    tiles: NDArray[np.uint8],
    device: torch.device,
    batch_size: int = 32,
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
    network: TileNet,
    tiles: NDArray[np.uint8],
    device: torch.device,
    batch_size: int = 32,
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
    network: Callable[[torch.Tensor], torch.Tensor],
    tiles: NDArray[np.uint8],
    device: torch.device,
    batch_size: int,
) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat(
            [
                network(batch.to(device)).float().cpu()
                for batch in tile_batches(tiles, batch_size)
            ]
        )


def predict_recordings(
    network: torch.nn.Module,
    pictures: Iterable[tuple[NDArray[np.uint8] | None, RecordingInfo]],
    device: torch.device,
    batch_size: int = 32,
    with_features: bool = False,
) -> Iterator[RecordingOutput]:
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
    RecordingOutput
        One for each recording.
    """
    with retain_freed_memory():
        for tiles, info in pictures:
            if tiles is None:
                yield RecordingOutput(info, None, None)
                continue
            rows, features = _hear(network, tiles, device, batch_size, with_features)
            yield RecordingOutput(info, rows, pool(rows), features)


def _hear(
    network: Any,
    tiles: NDArray[np.uint8],
    device: torch.device,
    batch_size: int,
    with_features: bool,
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Give the log-probabilities of tiles, and the mean of their features if it is wanted."""
    if not with_features:
        return tile_log_proba(network, tiles, device, batch_size), None
    features, head = (
        embed_tiles(network, tiles, device, batch_size),
        network.backbone.get_classifier(),
    )
    if not isinstance(head, torch.nn.Linear):
        return tile_log_proba(network, tiles, device, batch_size), features.mean(axis=0)
    with torch.inference_mode():  # the body is not asked twice
        logits = head(torch.from_numpy(features).to(device)).float().cpu()
    return torch.log_softmax(logits, dim=1).numpy(), features.mean(axis=0)


def embed(
    network: TileNet,
    pictures: Iterable[tuple[NDArray[np.uint8] | None, RecordingInfo]],
    device: torch.device,
    batch_size: int = 32,
) -> Iterator[tuple[NDArray[np.float32] | None, RecordingInfo]]:
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
    info : RecordingInfo
        Its `status`, `reason` and `message`.
    """
    with retain_freed_memory():
        for tiles, info in pictures:
            yield (
                None
                if tiles is None
                else embed_tiles(network, tiles, device, batch_size).mean(axis=0),
                info,
            )


def tile_batches(tiles: NDArray[np.uint8], batch_size: int) -> Iterator[torch.Tensor]:
    """Cut the tiles of a recording into batches.

    Parameters
    ----------
    tiles : ndarray of uint8, shape (n_tiles, height, width)
        Levels.
    batch_size : int
        Tiles in a batch, 1 or more.

    Yields
    ------
    Tensor of uint8, shape (n, height, width)
        Levels.
    """
    for start in range(0, len(tiles), batch_size):
        yield torch.from_numpy(np.ascontiguousarray(tiles[start : start + batch_size]))
