"""Training tiles as a torch dataset."""

import numpy as np
import torch
from numpy.typing import NDArray

from cqt2img.data.augment import Augment, make_augment
from cqt2img.data.dataset import TrainingData


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
        self, data: TrainingData, augment: Augment, balance: str, seed: int
    ) -> None:
        self.data = data
        self.seed = seed
        self.augment_name = augment
        spec = data.arrays.spec
        self.augment = make_augment(augment, spec)
        self.jitter = 0 if augment == "none" else spec.width // 2
        # (index of the recording, index of the tile in it)
        self.tiles: list[tuple[int, int]] = []
        # class index -> group -> indices into self.tiles
        self.tiles_by_class: dict[int, dict[str, list[int]]] = {}
        class_indices = data.targets.argmax(axis=1)
        for index in data.train_index.tolist():
            group = str(data.groups[index]) if balance == "group" else ""
            by_group = self.tiles_by_class.setdefault(int(class_indices[index]), {})
            members = by_group.setdefault(group, [])
            for tile in range(data.arrays.n_tiles(index)):
                members.append(len(self.tiles))
                self.tiles.append((index, tile))
        self.set_epoch(0)

    def __getstate__(self) -> dict[str, object]:
        """Leave out the augmentation: classes made by albumentations are not pickled."""
        return {**self.__dict__, "augment": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self.augment = make_augment(self.augment_name, self.data.arrays.spec)

    def set_epoch(self, epoch: int) -> None:
        """Draw the tiles of an epoch.

        Parameters
        ----------
        epoch : int
            0 or more.
        """
        self.epoch = epoch
        rng = np.random.default_rng([self.seed, epoch])
        n_per_class = -(-len(self.tiles) // len(self.tiles_by_class))
        drawn: list[NDArray[np.int64]] = []
        for class_index in sorted(self.tiles_by_class):
            groups = list(self.tiles_by_class[class_index].values())
            n_each = [n_per_class // len(groups)] * len(groups)
            n_left = n_per_class % len(groups)
            for group_index in rng.permutation(len(groups))[:n_left]:
                n_each[group_index] += 1
            for members, n in zip(groups, n_each, strict=True):
                drawn.append(_draw(members, n, rng))
        order = rng.permutation(np.concatenate(drawn))
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
        index, tile_index = self.items[item]
        rng = np.random.default_rng([self.seed, self.epoch, item])
        shift = int(rng.integers(-self.jitter, self.jitter + 1))
        arrays = self.data.arrays
        start = tile_index * arrays.spec.width + shift
        tile = np.ascontiguousarray(arrays.crop(index, start))
        if self.augment is not None:
            tile = self.augment(tile, seed=int(rng.integers(2**31)))
        target = torch.from_numpy(self.data.targets[index])
        return torch.from_numpy(tile.copy()), target


def _draw(members: list[int], n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw `n` members, each equally often, in random order."""
    n_rounds = -(-n // len(members))
    rounds = [rng.permutation(members) for _ in range(n_rounds)]
    return np.concatenate([*rounds, np.empty(0, np.int64)])[:n]
