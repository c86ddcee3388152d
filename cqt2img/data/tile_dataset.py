"""Training tiles as a torch dataset."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch

from cqt2img.data.augment import Augment, make_augment
from cqt2img.data.dataset import TrainingData


class TileIndex(NamedTuple):
    """Position of a tile in training data.

    Parameters
    ----------
    recording : int
        Index of the recording.
    tile : int
        Index of the tile in the recording.
    """

    recording: int
    tile: int


# group -> indices into TrainingTiles.tiles
TilesByGroup: TypeAlias = dict[str, list[int]]


class TrainingTiles(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """One epoch of training tiles: balanced over classes or groups, jittered in time.

    Parameters
    ----------
    data : TrainingData
        The recordings.
    augment : str, callable or albumentations transform
        See `make_augment`.
    balance : {"group", "class"}
        Whether tiles are drawn equally often from every class, or also from every group
        within a class.
    seed : int
        Seed; every draw depends on the seed, the epoch and the item only.
    """

    def __init__(
        self,
        data: TrainingData,
        augment: Augment,
        balance: str,
        seed: int,
    ) -> None:
        self.data = data
        self.seed = seed
        self.balance = balance
        self.augment = augment
        self._make_transform()
        self.tiles: list[TileIndex] = []
        self.tiles_by_class: dict[int, TilesByGroup] = {}
        for index in data.train_index.tolist():
            self._add_recording(index)
        self.set_epoch(0)

    def _make_transform(self) -> None:
        spec = self.data.arrays.spec
        self._transform = make_augment(self.augment, spec)
        is_plain = self._transform is None
        self._jitter = 0 if is_plain else spec.width // 2

    def _add_recording(self, index: int) -> None:
        """Add the tiles of a recording to those of its class and group."""
        class_index = int(self.data.targets[index].argmax())
        group = ""
        if self.balance == "group":
            group = str(self.data.groups[index])
        by_group = self.tiles_by_class.setdefault(class_index, {})
        members = by_group.setdefault(group, [])
        for tile in range(self.data.arrays.n_tiles(index)):
            members.append(len(self.tiles))
            self.tiles.append(TileIndex(index, tile))

    def __getstate__(self) -> dict[str, object]:
        """Leave out the transform: classes made by albumentations cannot be pickled."""
        return {**self.__dict__, "_transform": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._make_transform()

    def set_epoch(self, epoch: int) -> None:
        """Draw the tiles of an epoch.

        Parameters
        ----------
        epoch : int
            0 or more.
        """
        self.epoch = epoch
        rng = np.random.default_rng([self.seed, epoch])
        n_classes = len(self.tiles_by_class)
        n_per_class = -(-len(self.tiles) // n_classes)  # rounded up
        drawn: list[int] = []
        for class_index in sorted(self.tiles_by_class):
            groups = list(self.tiles_by_class[class_index].values())
            drawn += _draw_from_groups(groups, n_per_class, rng)
        order = rng.permutation(drawn)
        self.items = [self.tiles[index] for index in order.tolist()]

    def __len__(self) -> int:
        """Return the number of tiles in an epoch."""
        return len(self.items)

    def __getitem__(self, item: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the levels of one tile and its target.

        Parameters
        ----------
        item : int
            Index of the tile in the epoch.

        Returns
        -------
        tile : Tensor of uint8, shape (height, width)
            Levels.
        target : Tensor of float32, shape (n_classes,)
            Part of each class.
        """
        index = self.items[item]
        rng = np.random.default_rng([self.seed, self.epoch, item])
        shift = int(rng.integers(-self._jitter, self._jitter + 1))
        arrays = self.data.arrays
        start = index.tile * arrays.spec.width + shift
        tile = np.array(arrays.crop(index.recording, start))  # a copy in memory
        if self._transform is not None:
            seed = int(rng.integers(2**31))
            tile = self._transform(tile, seed=seed)
        target = self.data.targets[index.recording]
        return torch.from_numpy(tile), torch.from_numpy(target)


def _draw_from_groups(
    groups: Sequence[Sequence[int]],
    n: int,
    rng: np.random.Generator,
) -> list[int]:
    """Draw `n` members, equally many from each group."""
    n_each = [n // len(groups)] * len(groups)
    n_left = n % len(groups)
    for group_index in rng.permutation(len(groups))[:n_left]:
        n_each[group_index] += 1
    drawn: list[int] = []
    for members, n_members in zip(groups, n_each, strict=True):
        drawn += _draw(members, n_members, rng)
    return drawn


def _draw(members: Sequence[int], n: int, rng: np.random.Generator) -> list[int]:
    """Draw `n` members in random order, each equally often."""
    drawn: list[int] = []
    while len(drawn) < n:
        drawn += rng.permutation(members).tolist()
    return drawn[:n]
