"""Splits that keep together what was recorded together."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cqt2img.errors import InputError


def group_split(
    y: Sequence[Any] | NDArray, groups: Sequence[Any] | NDArray, test_size: float = 0.2, random_state: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Part recordings in two, so that no group stands on both sides and every class on the first.

    A class whose recordings are all of one group stays on the first side.

    Parameters
    ----------
    y : sequence
        One label per recording.
    groups : sequence
        One group per recording: album, session or concert.
    test_size : float
        Part of the recordings of every class to aim at for the second side, above 0 and below 1.
    random_state : int
        Seed.

    Returns
    -------
    first, second : ndarray of int64
        Places in `y`. The second is empty where no group can be spared.

    Raises
    ------
    InputError
        If lengths differ, or `test_size` is out of its range.

    References
    ----------
    Arthur Flexer, "A closer look on artist filters for musical genre classification", 2007.

    Examples
    --------
    >>> y = ["Monk"] * 4 + ["Evans"] * 4
    >>> first, second = group_split(y, [1, 1, 2, 2, 3, 3, 4, 4], test_size=0.5)
    >>> sorted(y[n] for n in second)
    ['Evans', 'Evans', 'Monk', 'Monk']
    """
    if len(y) != len(groups):
        raise InputError(
            f"group_split: groups must have one entry per recording, got {len(groups)} for {len(y)}. Count them."
        )
    if not 0 < test_size < 1:
        raise InputError(f"group_split: test_size must lie between 0 and 1, got {test_size}. Try 0.2.")
    labels, keys = np.asarray(y), np.asarray([str(g) for g in groups])
    rng = np.random.default_rng(random_state)
    spared: set[str] = set()
    for label in np.unique(labels):
        names, sizes = np.unique(keys[labels == label], return_counts=True)
        size_of = dict(zip(names.tolist(), sizes.tolist(), strict=True))
        want = test_size * sizes.sum()
        taken = sum(size for name, size in size_of.items() if name in spared)
        free = [name for name in rng.permutation(names).tolist() if name not in spared]
        for name in free:  # a group is taken where that brings the part nearer to what is wanted
            nearer = abs(taken + size_of[name] - want) < abs(taken - want)
            if nearer and not _needed(name, labels, keys, spared):
                spared.add(name)
                taken += size_of[name]
        smallest = min(free, key=size_of.__getitem__, default=None)
        if not taken and smallest is not None and not _needed(smallest, labels, keys, spared):
            spared.add(smallest)  # one album that is too large is better than none
    second = np.isin(keys, list(spared))
    return np.flatnonzero(~second), np.flatnonzero(second)


def _needed(group: str, labels: NDArray, keys: NDArray, spared: set[str]) -> bool:
    """Whether a class that shares the group would be left with nothing on the first side."""
    kept = ~np.isin(keys, [*spared, group])
    return bool(set(labels[keys == group]) - set(labels[kept]))
