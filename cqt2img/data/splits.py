"""Splits that keep together what was recorded together."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cqt2img.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


def group_split(
    y: Sequence[Any] | NDArray,
    groups: Sequence[Any] | NDArray,
    test_size: float = 0.2,
    random_state: int = 0,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Part recordings in two, so that no group stands on both sides and every class on the first.

    A class whose recordings are all of one group stays on the first side.

    Parameters
    ----------
    y : sequence
        One label per recording.
    groups : sequence, or array or data frame of shape (n_recordings, n_levels)
        One group per recording: album, session or concert. Of several levels all are kept whole.
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
        raise InputError(
            f"group_split: test_size must lie between 0 and 1, got {test_size}. Try 0.2."
        )
    labels, keys = np.asarray(y), join_groups(groups)
    rng = np.random.default_rng(random_state)
    spared: set[str] = set()
    for label in np.unique(labels):
        names, sizes = np.unique(keys[labels == label], return_counts=True)
        size_of = dict(zip(names.tolist(), sizes.tolist(), strict=True))
        want = test_size * sizes.sum()
        taken = sum(size for name, size in size_of.items() if name in spared)
        free = [name for name in rng.permutation(names).tolist() if name not in spared]
        for name in (
            free
        ):  # a group is taken where that brings the part nearer to what is wanted
            nearer = abs(taken + size_of[name] - want) < abs(taken - want)
            if nearer and not _needed(name, labels, keys, spared):
                spared.add(name)
                taken += size_of[name]
        smallest = min(free, key=size_of.__getitem__, default=None)
        if (
            not taken
            and smallest is not None
            and not _needed(smallest, labels, keys, spared)
        ):
            spared.add(smallest)  # one album that is too large is better than none
    second = np.isin(keys, list(spared))
    return np.flatnonzero(~second), np.flatnonzero(second)


def join_groups(groups: Any) -> NDArray[np.str_]:
    """Join what shares an album, or a piece, or a session, however these cross, into groups to be kept whole.

    Parameters
    ----------
    groups : sequence, or array or data frame of shape (n_recordings, n_levels)
        What each recording belongs to, on one level or on several. What is missing (None, NaN or
        empty) joins nothing.

    Returns
    -------
    ndarray of str, shape (n_recordings,)
        One group each, called after its first member on the first level. Two recordings that share
        anything on any level, or are linked by others that do, have the same.

    Examples
    --------
    Two albums share a piece:

    >>> albums = ["Solo Monk", "Solo Monk", "Underground", "Explorations"]
    >>> pieces = ["Dinah", "Ruby", "Ruby", "Israel"]
    >>> join_groups(list(zip(albums, pieces))).tolist()
    ['Solo Monk', 'Solo Monk', 'Solo Monk', 'Explorations']
    """
    table = np.asarray(groups, dtype=object)
    if table.ndim == 1:
        return np.asarray([str(group) for group in table])
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n, n_levels = table.shape
    names: dict[Any, int] = {}
    links = [
        (row, n + names.setdefault((level, str(table[row, level])), len(names)))
        for level in range(n_levels)
        for row in range(n)
        if not _is_missing(table[row, level])
    ]
    ends = np.reshape(np.array(links, dtype=np.int64), (-1, 2)).T
    size = n + len(names)
    _, member = connected_components(
        coo_array((np.ones(ends.shape[1], bool), tuple(ends)), shape=(size, size)),
        False,
    )
    _, first, inverse = np.unique(member[:n], return_index=True, return_inverse=True)
    called = [
        str(table[row, 0]) if not _is_missing(table[row, 0]) else f"recording {row}"
        for row in first
    ]
    if len(set(called)) < len(called):  # only where a level misses names
        called = [f"{name} ({row})" for name, row in zip(called, first, strict=True)]
    return np.asarray(called)[inverse]


class GroupFolds:
    """Folds that keep groups whole and classes even, for `cross_val_predict`, `GridSearchCV` and their like.

    Parameters
    ----------
    n_splits : int or None
        Folds, 2 or more; None leaves one group out at a time.
    n_repeats : int
        How often to draw all folds anew, 1 or more.
    random_state : int
        Seed.

    Notes
    -----
    scikit-learn's `StratifiedGroupKFold` and `LeaveOneGroupOut`, which deal out whole groups, so that
    none can stand on both sides; here for groups of several levels, and with what they leave unsaid:
    a class that would miss from training is refused, one that misses from a test is named in the log.

    Examples
    --------
    >>> y = ["Monk"] * 4 + ["Evans"] * 4
    >>> for training, test in GroupFolds(2).split(None, y, [1, 1, 2, 2, 3, 3, 4, 4]):
    ...     print(sorted(y[n] for n in test))
    ['Evans', 'Evans', 'Monk', 'Monk']
    ['Evans', 'Evans', 'Monk', 'Monk']
    """

    def __init__(
        self, n_splits: int | None = 5, n_repeats: int = 1, random_state: int = 0
    ) -> None:
        self.n_splits = n_splits
        self.n_repeats = n_repeats
        self.random_state = random_state

    def split(
        self, X: Any = None, y: Any = None, groups: Any = None
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Part recordings, fold after fold.

        Parameters
        ----------
        X : object
            Not looked at.
        y : sequence
            One label per recording.
        groups : sequence, or array or data frame of shape (n_recordings, n_levels)
            As for `join_groups`; by default every recording is a group.

        Yields
        ------
        training, test : ndarray of int64
            Places in `y`.

        Raises
        ------
        InputError
            If lengths differ, there are fewer groups than folds, or a class would be missing from
            a training side.
        """
        if y is None:
            raise InputError(
                "GroupFolds: y must hold a label per recording, got None. Pass y."
            )
        labels = np.asarray([str(label) for label in y])
        keys = join_groups(np.arange(len(labels)) if groups is None else groups)
        if len(labels) != len(keys):
            raise InputError(
                f"GroupFolds: groups must have one entry per recording, got {len(keys)} for "
                f"{len(labels)}. Count them."
            )
        self._check(labels, keys)
        for repeat in range(self.n_repeats):
            seed = int(
                np.random.SeedSequence([self.random_state, repeat]).generate_state(1)[0]
            )
            for training, test in deal(labels, keys, self.n_splits, seed):
                lost = set(labels.tolist()) - set(labels[training].tolist())
                if lost:
                    raise InputError(
                        f"GroupFolds: every class must be left in training, got none of {min(lost)!r} "
                        "without one fold. Take other groups, or more folds."
                    )
                yield training, test

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Count the splits.

        Parameters
        ----------
        X, y : object
            Not looked at.
        groups : sequence, or array or data frame of shape (n_recordings, n_levels), optional
            Needed to leave one out.

        Returns
        -------
        int
            1 or more.
        """
        n_folds = (
            len(set(join_groups(groups).tolist()))
            if self.n_splits is None
            else self.n_splits
        )
        return n_folds * self.n_repeats

    def _check(self, labels: NDArray, keys: NDArray) -> None:
        """Refuse what cannot be parted, and name the classes that cannot be in every fold."""
        n_groups = {
            label: len(set(keys[labels == label]))
            for label in sorted(set(labels.tolist()))
        }
        alone = [label for label, n in n_groups.items() if n < 2]
        if alone:
            raise InputError(
                f"GroupFolds: every class must have 2 groups or more, got 1 for {', '.join(map(repr, alone[:5]))}. "
                "What is tested would miss from training: add an album, or leave the class out."
            )
        if self.n_splits is None:
            return
        most = min(
            len(set(keys)), max(labels.tolist().count(label) for label in n_groups)
        )
        if not 2 <= self.n_splits <= most:
            raise InputError(
                f"GroupFolds: n_splits must be from 2 to {most}, the most that groups and classes allow, "
                f"got {self.n_splits}. Choose another."
            )
        few = [f"{label} ({n})" for label, n in n_groups.items() if n < self.n_splits]
        if few:
            log.warning(
                "GroupFolds: not in every one of %d folds, for want of groups: %s",
                self.n_splits,
                ", ".join(few),
            )


def deal(
    y: NDArray, groups: NDArray, n_splits: int | None, random_state: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Deal out whole groups to folds, as even as classes allow.

    Parameters
    ----------
    y : ndarray, shape (n_recordings,)
        Labels.
    groups : ndarray, shape (n_recordings,)
        What is kept whole.
    n_splits : int or None
        Folds; None leaves one group out at a time.
    random_state : int
        Seed.

    Yields
    ------
    training, test : ndarray of int64
        Places in `y`; a class may miss from either.
    """
    from sklearn.model_selection import LeaveOneGroupOut, StratifiedGroupKFold

    folds = LeaveOneGroupOut()
    if n_splits is not None:
        folds = StratifiedGroupKFold(n_splits, shuffle=True, random_state=random_state)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="The least populated class"
        )  # `GroupFolds` names it
        yield from folds.split(y, y, groups)


def _is_missing(value: Any) -> bool:
    return value is None or value == "" or value != value


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
        log.warning(
            "fit: no group can be spared for validation, so the last epoch is kept, uncalibrated"
        )
    return sides


def check_leaks(
    table: "pd.DataFrame", sides: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> None:
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
    shared = {
        group for group in shared if not group.startswith("array ")
    }  # arrays are numbered anew in each
    if shared:
        log.warning(
            "fit: training and validation share groups, such as %r, so the epoch may be chosen by what they "
            "have in common",
            min(shared),
        )


def _needed(group: str, labels: NDArray, keys: NDArray, spared: set[str]) -> bool:
    """Whether a class that shares the group would be left with nothing on the first side."""
    kept = ~np.isin(keys, [*spared, group])
    return bool(set(labels[keys == group]) - set(labels[kept]))
