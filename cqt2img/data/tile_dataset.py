"""From a corpus to batches of tiles."""

from typing import Any

import numpy as np
import torch

from cqt2img.data.augment import Augment, make_augment
from cqt2img.data.dataset import TrainingData


class TrainingTiles(torch.utils.data.Dataset):
    """One epoch of training tiles: every class or group equally often, each tile at a place of its own.

    Parameters
    ----------
    corpus : TrainingData
        The recordings.
    augment : str, callable or albumentations transform
        See `make_augment`.
    balance : {"group", "class"}
        What is drawn equally often: every class, or every group within it, too.
    seed : int
        Every draw depends on the seed, the epoch and the item alone.
    """

    def __init__(
        self, corpus: TrainingData, augment: Augment, balance: str, seed: int
    ) -> None:
        self.corpus, self.seed, self.strength = corpus, seed, augment
        self.augment = make_augment(augment, corpus.strips.spec)
        self.jitter = 0 if augment == "none" else corpus.strips.spec.width // 2
        codes, width = corpus.targets.argmax(axis=1), corpus.strips.spec.width
        places = [
            (r, t)
            for r in corpus.training.tolist()
            for t in range(corpus.strips.strips[r].shape[1] // width)
        ]
        self.tiles = places
        # class -> group -> its tiles
        self.shelves: dict[int, dict[Any, list[int]]] = {}
        for n, (recording, _) in enumerate(places):
            group = corpus.groups[recording] if balance == "group" else None
            self.shelves.setdefault(int(codes[recording]), {}).setdefault(
                group, []
            ).append(n)
        self.set_epoch(0)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what another process makes for itself: its classes come into being when albumentations does."""
        return {**self.__dict__, "augment": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(
            state, augment=make_augment(state["strength"], state["corpus"].strips.spec)
        )

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
        self.items = [
            self.tiles[int(n)] for n in rng.permutation(np.concatenate(drawn))
        ]

    def __len__(self) -> int:
        """Count the tiles of an epoch."""
        return len(self.items)

    def __getitem__(self, item: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the levels of one tile, shape (height, width), and its target, shape (n_classes,)."""
        recording, n = self.items[item]
        rng = np.random.default_rng([self.seed, self.epoch, item])
        start = n * self.corpus.strips.spec.width + int(
            rng.integers(-self.jitter, self.jitter + 1)
        )
        tile = np.ascontiguousarray(self.corpus.strips.crop(recording, start))
        if self.augment is not None:
            tile = self.augment(tile, seed=int(rng.integers(2**31)))
        return torch.from_numpy(tile.copy()), torch.from_numpy(
            self.corpus.targets[recording]
        )
