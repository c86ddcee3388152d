"""From a table of recordings to tiles in memory and batches for training."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from cqt2img.augment import make_augment
from cqt2img.jobs import Progress, run_jobs
from cqt2img.recording import attempt
from cqt2img.spec import TileSpec

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Strips:
    """The pictures of all recordings that could be read, each as one long strip.

    Parameters
    ----------
    spec : TileSpec
        What a pixel means.
    strips : list of ndarray of uint8, shape (height, n_tiles * width)
        Levels, one array per recording.
    n_frames : ndarray of int64, shape (n_recordings,)
        Columns of each strip that hold sound.
    """

    spec: TileSpec
    strips: list[NDArray[np.uint8]]
    n_frames: NDArray[np.int64]

    def __len__(self) -> int:
        """Count the recordings."""
        return len(self.strips)

    def tiles(self, recording: int) -> NDArray[np.uint8]:
        """Give the tiles of one recording, as they were cut.

        Parameters
        ----------
        recording : int
            Its place.

        Returns
        -------
        ndarray of uint8, shape (n_tiles, height, width)
            Levels.
        """
        height, width = self.spec.size
        return self.strips[recording].reshape(height, -1, width).swapaxes(0, 1)

    def crop(self, recording: int, start: int) -> NDArray[np.uint8]:
        """Cut one tile from a strip at any column.

        Parameters
        ----------
        recording : int
            Its place.
        start : int
            First column; brought back to where a whole tile of sound follows, if there is one.

        Returns
        -------
        ndarray of uint8, shape (height, width)
            Levels.
        """
        last = min(self.n_frames[recording], self.strips[recording].shape[1]) - self.spec.width
        start = int(np.clip(start, 0, max(0, last)))
        return self.strips[recording][:, start : start + self.spec.width]


def load_strips(
    table: "pd.DataFrame", spec: TileSpec, n_jobs: int = 1, progress: Progress | None = None
) -> tuple[Strips, list[dict[str, Any]]]:
    """Make the pictures of all recordings of a table and keep them in memory.

    Parameters
    ----------
    table : DataFrame
        What `list_recordings` gives.
    spec : TileSpec
        What a pixel means.
    n_jobs : int
        Processes, as joblib counts them.
    progress : callable, optional
        Gets an iterator, its length and a title, and gives the iterator back.

    Returns
    -------
    strips : Strips
        Of the recordings that could be read, in their order.
    infos : list of dict
        For every row of the table its `status`, `reason` and `message`.
    """
    jobs = zip(table["item"], [spec] * len(table), table["tiles"], strict=True)
    strips, n_frames, infos = [], [], []
    for tiles, info in run_jobs(attempt, jobs, len(table), n_jobs, progress, "pictures"):
        infos.append(info)
        if tiles is not None:
            strips.append(np.ascontiguousarray(tiles.swapaxes(0, 1)).reshape(spec.height, -1))
            n_frames.append(info["n_frames"])
    return Strips(spec, strips, np.asarray(n_frames, dtype=np.int64)), infos


class TrainingTiles(torch.utils.data.Dataset):
    """One epoch of training tiles: every class equally often, each tile at a place of its own.

    Parameters
    ----------
    strips : Strips
        The pictures.
    recordings : ndarray of int64
        Which recordings to train on.
    targets : ndarray of float32, shape (n_recordings, n_classes)
        One row per recording of `strips`.
    augment : str
        See `make_augment`.
    seed : int
        Every draw depends on the seed, the epoch and the item alone.
    """

    def __init__(
        self, strips: Strips, recordings: NDArray[np.int64], targets: NDArray[np.float32], augment: str, seed: int
    ) -> None:
        self.strips, self.recordings, self.targets, self.seed = strips, recordings, targets, seed
        self.augment = make_augment(augment, strips.spec)
        self.jitter = 0 if augment == "none" else strips.spec.width // 2
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the tiles of an epoch.

        Parameters
        ----------
        epoch : int
            0 or more.
        """
        self.epoch = epoch
        rng = np.random.default_rng([self.seed, epoch])
        width = self.strips.spec.width
        codes = self.targets.argmax(axis=1)
        tiles = [(r, t) for r in self.recordings.tolist() for t in range(self.strips.strips[r].shape[1] // width)]
        classes = np.array([codes[r] for r, _ in tiles])
        present = np.unique(classes)
        n_each = -(-len(tiles) // len(present))
        drawn = []
        for label in present:
            mine = np.flatnonzero(classes == label)
            rounds = [rng.permutation(mine) for _ in range(-(-n_each // len(mine)))]
            drawn.append(np.concatenate(rounds)[:n_each])
        self.items = [tiles[n] for n in rng.permutation(np.concatenate(drawn))]

    def __len__(self) -> int:
        """Count the tiles of an epoch."""
        return len(self.items)

    def __getitem__(self, item: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the levels of one tile, shape (height, width), and its target, shape (n_classes,)."""
        recording, n = self.items[item]
        rng = np.random.default_rng([self.seed, self.epoch, item])
        start = n * self.strips.spec.width + int(rng.integers(-self.jitter, self.jitter + 1))
        tile = np.ascontiguousarray(self.strips.crop(recording, start))
        if self.augment is not None:
            self.augment.set_random_seed(int(rng.integers(2**31)))
            tile = np.ascontiguousarray(self.augment(image=tile)["image"])
        return torch.from_numpy(tile.copy()), torch.from_numpy(self.targets[recording])


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
