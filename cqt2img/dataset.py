"""From a table of recordings to tiles in memory and batches for training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from cqt2img.augment import make_augment
from cqt2img.errors import InputError
from cqt2img.jobs import Progress, run_jobs
from cqt2img.labels import encode, find_classes, one_hot
from cqt2img.recording import attempt
from cqt2img.spec import TileSpec
from cqt2img.split import refuse_leaks, validation_split

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


@dataclass(frozen=True)
class Corpus:
    """What a network is trained on, and what its epoch is chosen by.

    Parameters
    ----------
    strips : Strips
        Pictures of all recordings.
    targets : ndarray of float32, shape (n_recordings, n_classes)
        One-hot, perhaps smoothed.
    groups : ndarray, shape (n_recordings,)
        What was recorded together.
    training, validation : ndarray of int64
        Places of the recordings on each side. Without the latter the last epoch is kept.
    names : sequence of str
        What to call the recordings; by default their places.
    """

    strips: Strips
    targets: NDArray[np.float32]
    groups: NDArray[Any]
    training: NDArray[np.int64]
    validation: NDArray[np.int64]
    names: Sequence[str] = ()

    def name(self, recording: int) -> str:
        """Give the name of a recording.

        Parameters
        ----------
        recording : int
            Its place.

        Returns
        -------
        str
            Its name.
        """
        return self.names[recording] if len(self.names) else f"recording {recording}"


def arrange(
    strips: Strips,
    table: "pd.DataFrame",
    wanted: NDArray[Any],
    n_train: int,
    fraction: float | None,
    smoothing: float,
    random_state: int,
) -> tuple[Corpus, NDArray[Any]]:
    """Put recordings on the side of training or of validation, and refuse what cannot be learned honestly.

    Parameters
    ----------
    strips : Strips
        Their pictures.
    table : DataFrame
        `label`, `group`, `path`, `fingerprint` and `row` (place in what was given) of each.
    wanted : ndarray
        The classes that were to be learned.
    n_train : int
        How many of what was given are for training; those behind are for validation.
    fraction : float or None
        Part of each class to keep for validation, in whole groups; None if validation was given.
    smoothing : float
        Part of a one-hot target shared among all classes.
    random_state : int
        Seed of the split.

    Returns
    -------
    corpus : Corpus
        The recordings on their sides.
    classes : ndarray, shape (n_classes,)
        The names.

    Raises
    ------
    InputError
        If a class cannot be read at all, or the same recording stands on both sides.
    """
    labels = table["label"].tolist()
    is_train = np.asarray(table["row"] < n_train)
    classes = find_classes([label for label, mine in zip(labels, is_train, strict=True) if mine])
    lost = sorted(set(map(str, wanted)) - set(map(str, classes)))
    if lost:
        raise InputError(f"fit: y must name classes that can be read, got none of {', '.join(lost)}. Mend the files.")
    codes = encode(labels, classes)
    if fraction is None:
        sides = np.flatnonzero(is_train), np.flatnonzero(~is_train)
    else:
        sides = validation_split(codes, table["group"].tolist(), fraction, random_state)
    refuse_leaks(table, sides)
    groups = np.array(list(map(str, table["group"])))
    corpus = Corpus(strips, one_hot(codes, len(classes), smoothing), groups, *sides, names=table["path"].tolist())
    return corpus, classes


class TrainingTiles(torch.utils.data.Dataset):
    """One epoch of training tiles: every class or group equally often, each tile at a place of its own.

    Parameters
    ----------
    corpus : Corpus
        The recordings.
    augment : str
        See `make_augment`.
    balance : {"group", "class"}
        What is drawn equally often: every class, or every group within it, too.
    seed : int
        Every draw depends on the seed, the epoch and the item alone.
    """

    def __init__(self, corpus: Corpus, augment: str, balance: str, seed: int) -> None:
        self.corpus, self.seed = corpus, seed
        self.augment = make_augment(augment, corpus.strips.spec)
        self.jitter = 0 if augment == "none" else corpus.strips.spec.width // 2
        codes, width = corpus.targets.argmax(axis=1), corpus.strips.spec.width
        places = [(r, t) for r in corpus.training.tolist() for t in range(corpus.strips.strips[r].shape[1] // width)]
        self.tiles = places
        # class -> group -> its tiles
        self.shelves: dict[int, dict[Any, list[int]]] = {}
        for n, (recording, _) in enumerate(places):
            group = corpus.groups[recording] if balance == "group" else None
            self.shelves.setdefault(int(codes[recording]), {}).setdefault(group, []).append(n)
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
        n_each = -(-len(self.tiles) // len(self.shelves))
        drawn = []
        for code in sorted(self.shelves):
            groups = list(self.shelves[code].values())
            share = [n_each // len(groups)] * len(groups)
            for lucky in rng.permutation(len(groups))[: n_each % len(groups)]:
                share[lucky] += 1
            for mine, n in zip(groups, share, strict=True):
                rounds = [rng.permutation(mine) for _ in range(-(-n // len(mine)))]
                drawn.append(np.concatenate([*rounds, np.empty(0, np.int64)])[:n])
        self.items = [self.tiles[int(n)] for n in rng.permutation(np.concatenate(drawn))]

    def __len__(self) -> int:
        """Count the tiles of an epoch."""
        return len(self.items)

    def __getitem__(self, item: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the levels of one tile, shape (height, width), and its target, shape (n_classes,)."""
        recording, n = self.items[item]
        rng = np.random.default_rng([self.seed, self.epoch, item])
        start = n * self.corpus.strips.spec.width + int(rng.integers(-self.jitter, self.jitter + 1))
        tile = np.ascontiguousarray(self.corpus.strips.crop(recording, start))
        if self.augment is not None:
            self.augment.set_random_seed(int(rng.integers(2**31)))
            tile = np.ascontiguousarray(self.augment(image=tile)["image"])
        return torch.from_numpy(tile.copy()), torch.from_numpy(self.corpus.targets[recording])


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
