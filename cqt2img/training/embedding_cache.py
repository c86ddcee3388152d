"""Embeddings of tiles, kept in a folder from one fit to the next."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cqt2img._utils.files import disk_full_error
from cqt2img.inference.predict import embed_tiles
from cqt2img.models.factory import TileNet
from cqt2img.training.tensor_hash import hash_tensors

Embedder = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def make_embedder(
    network: TileNet,
    device: torch.device,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Embedder:
    """Create a function that computes backbone embeddings of tiles.

    Parameters
    ----------
    network : TileNet
        A network on `device`.
    device : torch.device
        Device of the network.
    cache_dir : str or Path, optional
        Folder in which embeddings are kept. They are found again by the tiles and
        by the weights of the backbone; the head has no influence.

    Returns
    -------
    callable
        Takes tiles, an ndarray of uint8, shape (n_tiles, height, width); returns
        embeddings, an ndarray of float32, shape (n_tiles, n_features).
    """
    if cache_dir is None:
        return lambda tiles: embed_tiles(network, tiles, device)
    from joblib import Memory

    memory = Memory(cache_dir, verbose=0)
    cached = memory.cache(_embed, ignore=["network", "device"])
    backbone = _hash_backbone(network)

    def embed(tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        with disk_full_error("fit", Path(cache_dir)):
            features = cached(tiles, backbone, network, device)
        if _is_intact(features, len(tiles)):
            return features
        return embed_tiles(network, tiles, device)

    return embed


def _embed(
    tiles: NDArray[np.uint8], backbone: str, network: TileNet, device: torch.device
) -> NDArray[np.float32]:
    """Compute embeddings; joblib looks them up by the tiles and the backbone's hash."""
    return embed_tiles(network, tiles, device)


def _is_intact(features: object, n_tiles: int) -> bool:
    """Check what was read from the cache, where a file may be damaged."""
    if not isinstance(features, np.ndarray) or features.ndim != 2:
        return False
    return features.dtype == np.float32 and len(features) == n_tiles


def _hash_backbone(network: TileNet) -> str:
    """Compute a digest of the architecture and of all weights but those of the head."""
    heads = network.heads
    head_names = {
        f"backbone.{name}"
        for name, layer in network.backbone.named_modules()
        if layer in heads
    }
    tensors = [
        (name, value)
        for name, value in network.state_dict().items()
        if name.rpartition(".")[0] not in head_names
    ]
    architecture = " ".join(type(module).__name__ for module in network.modules())
    return hash_tensors([*tensors, ("table", network.table)], prefix=architecture)
