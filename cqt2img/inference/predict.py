"""Run a network over recordings: log-probabilities and embeddings."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch

from cqt2img._utils.array_types import Float32Array, IntArray, Tiles
from cqt2img.inference.calibration import pool
from cqt2img.models.device import retain_freed_memory
from cqt2img.models.factory import TileNet
from cqt2img.tiles.extract import RecordingInfo

Extracted: TypeAlias = tuple[Tiles | None, RecordingInfo]


@dataclass(frozen=True)
class RecordingOutput:
    """What a network computes for one recording.

    Parameters
    ----------
    info : RecordingInfo
        Status and measurements of the recording.
    tile_log_proba : ndarray of float32, shape (n_tiles, n_classes), or None
        Log-probabilities of the tiles; None for an unreadable recording.
    log_proba : ndarray of float32, shape (n_classes,), or None
        Log-probabilities of the recording, pooled over its tiles; None for an
        unreadable recording.
    embedding : ndarray of float32, shape (n_features,), or None
        Mean embedding of the tiles; None for an unreadable recording, or if no
        embeddings were requested.
    """

    info: RecordingInfo
    tile_log_proba: Float32Array | None = None
    log_proba: Float32Array | None = None
    embedding: Float32Array | None = None


def tile_log_proba(
    network: torch.nn.Module,
    tiles: Tiles,
    device: torch.device,
    batch_size: int = 32,
) -> Float32Array:
    """Compute the log-probabilities of the tiles of a recording.

    Parameters
    ----------
    network : Module
        The network, on `device`; it is set to evaluation mode.
    tiles : ndarray of uint8, shape (n_tiles, height, width)
        Levels.
    device : torch.device
        Device of the network.
    batch_size : int
        Tiles per batch, 1 or more.

    Returns
    -------
    ndarray of float32, shape (n_tiles, n_classes)
        Natural logarithms of probabilities that sum to 1 in each row.
    """
    logits = _run_batches(network.eval(), tiles, device, batch_size)
    return torch.log_softmax(logits, dim=1).numpy()


def embed_tiles(
    network: TileNet,
    tiles: Tiles,
    device: torch.device,
    batch_size: int = 32,
) -> Float32Array:
    """Compute backbone embeddings of tiles.

    Parameters
    ----------
    network : TileNet
        The network, on `device`; it is set to evaluation mode.
    tiles : ndarray of uint8, shape (n_tiles, height, width)
        Levels.
    device : torch.device
        Device of the network.
    batch_size : int
        Tiles per batch, 1 or more.

    Returns
    -------
    ndarray of float32, shape (n_tiles, n_features)
        Inputs of the head.
    """
    return _run_batches(network.eval().embed, tiles, device, batch_size).numpy()


def _run_batches(
    function: Callable[[torch.Tensor], torch.Tensor],
    tiles: Tiles,
    device: torch.device,
    batch_size: int,
) -> torch.Tensor:
    rows = []
    with torch.inference_mode():
        for batch in tile_batches(tiles, batch_size):
            rows.append(function(batch.to(device)).float().cpu())
    return torch.cat(rows)


def predict_recordings(
    network: TileNet,
    extracted: Iterable[Extracted],
    device: torch.device,
    batch_size: int = 32,
    with_embeddings: bool = False,
) -> Iterator[RecordingOutput]:
    """Run a network over recordings, one at a time.

    Parameters
    ----------
    network : TileNet
        The network, on `device`.
    extracted : iterable of (tiles, info)
        What `try_extract` returns for each recording; the tiles of an unreadable
        recording are None.
    device : torch.device
        Device of the network.
    batch_size : int
        Tiles per batch, 1 or more.
    with_embeddings : bool
        Whether to compute embeddings, too.

    Yields
    ------
    RecordingOutput
        One for each recording, also for an unreadable one.
    """
    with retain_freed_memory():
        for tiles, info in extracted:
            if tiles is None:
                yield RecordingOutput(info)
                continue
            embedding = None
            if with_embeddings:
                rows, embedding = _predict_and_embed(network, tiles, device, batch_size)
            else:
                rows = tile_log_proba(network, tiles, device, batch_size)
            yield RecordingOutput(info, rows, pool(rows), embedding)


def _predict_and_embed(
    network: TileNet, tiles: Tiles, device: torch.device, batch_size: int
) -> tuple[Float32Array, Float32Array]:
    """Return the log-probabilities of tiles and the mean of their embeddings."""
    features = embed_tiles(network, tiles, device, batch_size)
    embedding = features.mean(axis=0)
    head = network.heads[0]
    if len(network.heads) > 1 or not isinstance(head, torch.nn.Linear):
        return tile_log_proba(network, tiles, device, batch_size), embedding
    with torch.inference_mode():  # apply the head, instead of running all layers again
        logits = head(torch.from_numpy(features).to(device)).float().cpu()
    return torch.log_softmax(logits, dim=1).numpy(), embedding


def stack_embeddings(
    outputs: Sequence[RecordingOutput],
) -> tuple[IntArray, Float32Array]:
    """Collect the embeddings of readable recordings.

    Parameters
    ----------
    outputs : sequence of RecordingOutput
        What `predict_recordings` yields with `with_embeddings=True`.

    Returns
    -------
    readable : ndarray of int64, shape (n_readable,)
        Positions of the recordings that have an embedding.
    features : ndarray of float32, shape (n_readable, n_features)
        Their embeddings; shape (0, 0) if there is none.
    """
    readable = []
    features = []
    for n, output in enumerate(outputs):
        if output.embedding is not None:
            readable.append(n)
            features.append(output.embedding)
    if not features:
        return np.zeros(0, np.int64), np.zeros((0, 0), np.float32)
    return np.array(readable), np.stack(features)


def embed_recordings(
    network: TileNet,
    extracted: Iterable[Extracted],
    device: torch.device,
    batch_size: int = 32,
) -> Iterator[tuple[Float32Array | None, RecordingInfo]]:
    """Compute backbone embeddings of recordings, one at a time.

    Parameters
    ----------
    network : TileNet
        The network, on `device`.
    extracted : iterable of (tiles, info)
        What `try_extract` returns for each recording; the tiles of an unreadable
        recording are None.
    device : torch.device
        Device of the network.
    batch_size : int
        Tiles per batch, 1 or more.

    Yields
    ------
    embedding : ndarray of float32, shape (n_features,), or None
        Mean over the tiles; None for an unreadable recording.
    info : RecordingInfo
        Status and measurements of the recording.
    """
    with retain_freed_memory():
        for tiles, info in extracted:
            embedding = None
            if tiles is not None:
                features = embed_tiles(network, tiles, device, batch_size)
                embedding = features.mean(axis=0)
            yield embedding, info


def tile_batches(tiles: Tiles, batch_size: int) -> Iterator[torch.Tensor]:
    """Divide the tiles of a recording into batches.

    Parameters
    ----------
    tiles : ndarray of uint8, shape (n_tiles, height, width)
        Levels.
    batch_size : int
        Tiles per batch, 1 or more.

    Yields
    ------
    Tensor of uint8, shape (n, height, width)
        Levels; the last batch may be smaller.
    """
    for start in range(0, len(tiles), batch_size):
        batch = np.ascontiguousarray(tiles[start : start + batch_size])
        yield torch.from_numpy(batch)
