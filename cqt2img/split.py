"""Splits that keep together what was recorded together."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cqt2img.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


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


def validation_split(
    codes: NDArray[np.int64], groups: Sequence[Any], fraction: float, random_state: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keep whole groups from training to choose the epoch by, and tell where that cannot be honest.

    Parameters
    ----------
    codes : ndarray of int64, shape (n_recordings,)
        Places of the labels.
    groups : sequence
        One group per recording.
    fraction : float
        Part of every class to keep, 0 to below 1.
    random_state : int
        Seed.

    Returns
    -------
    training, validation : ndarray of int64
        Places of recordings.
    """
    if fraction == 0:
        return np.arange(len(codes)), np.arange(0)
    if len(set(map(str, groups))) == len(groups):
        log.warning(
            "fit: no groups are given, so an album may stand on both sides of the validation split; "
            "sort recordings into albums, or pass groups= (--group-by)"
        )
    sides = group_split(codes, groups, fraction, random_state)
    if not len(sides[1]):
        log.warning("fit: no group can be spared for validation, so the last epoch is kept, uncalibrated")
    return sides


def refuse_leaks(table: "pd.DataFrame", sides: tuple[NDArray[np.int64], NDArray[np.int64]]) -> None:
    """Refuse the same recording on both sides or under two labels; tell of groups on both sides.

    Parameters
    ----------
    table : DataFrame
        `path`, `label`, `group` and `fingerprint` of every recording.
    sides : tuple of two ndarray of int64
        Rows to train on, and to validate on.

    Raises
    ------
    InputError
        If the same sound has two labels, or stands on both sides.
    """
    first: dict[str, Any] = {}
    for row in table.itertuples():
        other = first.setdefault(row.fingerprint, row)
        if str(other.label) != str(row.label):
            raise InputError(
                f"fit: y must give the same sound one label, got {other.label!s} for {other.path!r} and {row.label!s} "
                f"for {row.path!r}. Remove one of them."
            )
    training, validation = (table.iloc[side] for side in sides)
    twice = validation["path"][validation["fingerprint"].isin(training["fingerprint"])]
    if len(twice):
        raise InputError(
            f"fit: validation must hold recordings that training does not, got {len(twice)} of {len(validation)}, "
            f"first {twice.iloc[0]!r}. Give other recordings, or put copies into one group."
        )
    shared = set(map(str, training["group"])) & set(map(str, validation["group"]))
    shared = {group for group in shared if not group.startswith("array ")}  # arrays are numbered anew in each
    if shared:
        log.warning("fit: training and validation share groups, such as %r, so the epoch may be chosen by what they "
                    "have in common", min(shared))  # fmt: skip


def _needed(group: str, labels: NDArray, keys: NDArray, spared: set[str]) -> bool:
    """Whether a class that shares the group would be left with nothing on the first side."""
    kept = ~np.isin(keys, [*spared, group])
    return bool(set(labels[keys == group]) - set(labels[kept]))
