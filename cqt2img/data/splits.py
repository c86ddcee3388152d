"""Splits and cross-validation folds that keep groups whole.

A group is a set of recordings that were made together: an album, session or concert.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.tables import is_missing
from cqt2img.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from cqt2img.data.recordings import Recordings

log = logging.getLogger(__name__)

Labels = Sequence[object] | NDArray
Groups = Sequence[object] | NDArray  # or a data frame; of one or several levels
Indices = NDArray[np.int64]
Split = tuple[Indices, Indices]


def group_split(
    y: Labels,
    groups: "Groups | pd.DataFrame",
    *,
    test_size: float = 0.2,
    random_state: int = 0,
) -> Split:
    """Split recordings into training and test so that no group is in both.

    Every class keeps at least one group for training, so that a class with a single
    group has no test recordings.

    Parameters
    ----------
    y : sequence, shape (n_recordings,)
        Labels.
    groups : sequence, or array or data frame of shape (n_recordings, n_levels)
        Group of each recording: album, session or concert. With several levels, the
        groups of every level are kept whole, see `join_groups`.
    test_size : float
        Fraction of the recordings of every class to aim at for the test, between 0
        and 1.
    random_state : int
        Seed.

    Returns
    -------
    training, test : ndarray of int64
        Indices of the recordings. `test` is empty if every group is needed for
        training.

    Raises
    ------
    InputError
        If the lengths differ, or `test_size` is out of range.

    References
    ----------
    Arthur Flexer, "A closer look on artist filters for musical genre classification",
    2007.

    Examples
    --------
    >>> y = ["Monk"] * 4 + ["Evans"] * 4
    >>> training, test = group_split(y, [1, 1, 2, 2, 3, 3, 4, 4], test_size=0.5)
    >>> sorted(y[index] for index in test)
    ['Evans', 'Evans', 'Monk', 'Monk']
    """
    if len(y) != len(groups):
        raise InputError(
            "group_split: groups must have one entry per recording, got "
            f"{len(groups)} groups for {len(y)} labels."
        )
    if not 0 < test_size < 1:
        raise InputError(
            f"group_split: test_size must be between 0 and 1, got {test_size}. Try 0.2."
        )
    selection = _TestSelection(np.asarray(y), join_groups(groups))
    rng = np.random.default_rng(random_state)
    for label in np.unique(selection.labels):
        selection.add_class(label, test_size, rng)
    is_test = np.isin(selection.groups, list(selection.test_groups))
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


class _TestSelection:
    """Groups that are selected for the test.

    Parameters
    ----------
    labels : ndarray, shape (n_recordings,)
        Labels.
    groups : ndarray of str, shape (n_recordings,)
        Groups.
    """

    def __init__(self, labels: NDArray, groups: NDArray[np.str_]) -> None:
        self.labels = labels
        self.groups = groups
        self.test_groups: set[str] = set()

    def add_class(
        self, label: object, test_size: float, rng: np.random.Generator
    ) -> None:
        """Select groups of a class until about `test_size` of it is selected."""
        in_class = self.groups[self.labels == label]
        names, sizes = np.unique(in_class, return_counts=True)
        size_of = dict(zip(names.tolist(), sizes.tolist(), strict=True))
        n_wanted = test_size * sizes.sum()
        n_selected = sum(size_of.get(name, 0) for name in self.test_groups)
        shuffled = rng.permutation(names).tolist()
        candidates = [name for name in shuffled if name not in self.test_groups]
        for name in candidates:
            error = abs(n_selected - n_wanted)
            new_error = abs(n_selected + size_of[name] - n_wanted)
            if new_error < error and self._try_add(name):
                n_selected += size_of[name]
        # One group that is too large is better than none.
        if candidates and not n_selected:
            smallest = min(candidates, key=lambda name: size_of[name])
            self._try_add(smallest)

    def _try_add(self, group: str) -> bool:
        """Select a group unless one of its classes has no other group for training."""
        is_training = ~np.isin(self.groups, [*self.test_groups, group])
        classes = set(self.labels[self.groups == group])
        can_add = classes <= set(self.labels[is_training])
        if can_add:
            self.test_groups.add(group)
        return can_add


def join_groups(groups: "Groups | pd.DataFrame") -> NDArray[np.str_]:
    """Join groups of several levels that have recordings in common.

    Parameters
    ----------
    groups : sequence, or array or data frame of shape (n_recordings, n_levels)
        Groups of each recording on one or several levels, such as album and piece.
        Missing values (None, NaN or "") join nothing.

    Returns
    -------
    ndarray of str, shape (n_recordings,)
        Joined group of each recording, named after the first level of its first
        recording. Recordings that share a value on any level, directly or through other
        recordings, have the same group.

    Examples
    --------
    Two albums have a piece in common:

    >>> albums = ["Solo Monk", "Solo Monk", "Underground", "Explorations"]
    >>> pieces = ["Dinah", "Ruby", "Ruby", "Israel"]
    >>> join_groups(list(zip(albums, pieces))).tolist()
    ['Solo Monk', 'Solo Monk', 'Solo Monk', 'Explorations']
    """
    table = np.asarray(groups, dtype=object)
    if table.ndim == 1:
        return np.asarray([str(group) for group in table])
    component = _find_components(table)
    _, first_rows, group_index = np.unique(
        component, return_index=True, return_inverse=True
    )
    names = []
    for row in first_rows:
        value = table[row, 0]
        names.append(f"recording {row}" if is_missing(value) else str(value))
    has_duplicates = len(set(names)) < len(names)
    if has_duplicates:  # only if the first level has missing values
        pairs = zip(names, first_rows, strict=True)
        names = [f"{name} ({row})" for name, row in pairs]
    return np.asarray(names)[group_index]


def _find_components(table: NDArray[np.object_]) -> NDArray[np.int32]:
    """Return the connected component of each row of a table.

    The nodes of the graph are the rows and the values of each level; every row is
    connected to its values.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n_rows = len(table)
    node_of_value: dict[tuple[int, str], int] = {}
    rows = []
    nodes = []
    for (row, level), value in np.ndenumerate(table):
        if is_missing(value):
            continue
        key = (level, str(value))
        node = node_of_value.setdefault(key, n_rows + len(node_of_value))
        rows.append(row)
        nodes.append(node)
    n_nodes = n_rows + len(node_of_value)
    edges = np.ones(len(rows), bool)
    graph = coo_array((edges, (rows, nodes)), shape=(n_nodes, n_nodes))
    _, component = connected_components(graph, directed=False)
    return component[:n_rows]


class GroupFolds:
    """Cross-validation folds that keep groups whole and classes balanced.

    Works as `cv=` of `cross_val_predict`, `GridSearchCV` and other functions of
    scikit-learn.

    Parameters
    ----------
    n_splits : int or None
        Number of folds, 2 or more; None leaves out one group at a time.
    n_repeats : int
        Number of times that the folds are drawn, 1 or more.
    random_state : int
        Seed.

    Notes
    -----
    Uses `StratifiedGroupKFold` and `LeaveOneGroupOut` of scikit-learn. In addition,
    groups may have several levels (see `join_groups`), a class that is missing from a
    training set is an error, and classes that are missing from a test set are logged.

    Examples
    --------
    >>> y = ["Monk"] * 4 + ["Evans"] * 4
    >>> for training, test in GroupFolds(2).split(None, y, [1, 1, 2, 2, 3, 3, 4, 4]):
    ...     print(sorted(y[index] for index in test))
    ['Evans', 'Evans', 'Monk', 'Monk']
    ['Evans', 'Evans', 'Monk', 'Monk']
    """

    def __init__(
        self, n_splits: int | None = 5, *, n_repeats: int = 1, random_state: int = 0
    ) -> None:
        self.n_splits = n_splits
        self.n_repeats = n_repeats
        self.random_state = random_state

    def split(
        self,
        X: object = None,
        y: Labels | None = None,
        groups: "Groups | pd.DataFrame | None" = None,
    ) -> Iterator[Split]:
        """Split recordings, fold by fold.

        Parameters
        ----------
        X : object
            Ignored.
        y : sequence, shape (n_recordings,)
            Labels.
        groups : sequence, or array or data frame of shape (n_recordings, n_levels)
            Groups, see `join_groups`. By default every recording is a group.

        Yields
        ------
        training, test : ndarray of int64
            Indices of the recordings.

        Raises
        ------
        InputError
            If the lengths differ, there are fewer groups than folds, or a class is
            missing from a training set.
        """
        if y is None:
            raise InputError(
                "GroupFolds: y must have one label per recording, got None."
            )
        labels = np.asarray([str(label) for label in y])
        keys = join_groups(range(len(labels)) if groups is None else groups)
        self._check(labels, keys)
        classes = set(labels.tolist())
        for repeat in range(self.n_repeats):
            sequence = np.random.SeedSequence([self.random_state, repeat])
            seed = int(sequence.generate_state(1)[0])
            for training, test in split_folds(labels, keys, self.n_splits, seed):
                missing = classes - set(labels[training].tolist())
                if missing:
                    raise InputError(
                        "GroupFolds: every class must have recordings outside of each "
                        f"fold, got a fold with all of {min(missing)!r}. "
                        "Use other groups or more folds."
                    )
                yield training, test

    def get_n_splits(
        self,
        X: object = None,
        y: object = None,
        groups: "Groups | pd.DataFrame | None" = None,
    ) -> int:
        """Return the number of splits.

        Parameters
        ----------
        X, y : object
            Ignored.
        groups : sequence, or array or data frame of shape (n_recordings, n_levels)
            Groups. Required if `n_splits` is None.

        Returns
        -------
        int
            Number of folds times number of repeats.

        Raises
        ------
        InputError
            If `n_splits` is None and `groups`, too.
        """
        n_folds = self.n_splits
        if n_folds is None:
            if groups is None:
                raise InputError(
                    "GroupFolds: groups must be given if n_splits is None, got None."
                )
            n_folds = len(set(join_groups(groups).tolist()))
        return n_folds * self.n_repeats

    def _check(self, labels: NDArray[np.str_], groups: NDArray[np.str_]) -> None:
        """Raise an InputError if the recordings cannot be split into folds."""
        if len(labels) != len(groups):
            raise InputError(
                "GroupFolds: groups must have one entry per recording, got "
                f"{len(groups)} groups for {len(labels)} labels."
            )
        classes, counts = np.unique(labels, return_counts=True)
        n_groups = {}
        for label in classes.tolist():
            groups_of_class = np.unique(groups[labels == label])
            n_groups[label] = len(groups_of_class)
        too_few = [repr(label) for label, n in n_groups.items() if n < 2]
        if too_few:
            raise InputError(
                "GroupFolds: every class must have 2 groups or more, got 1 for "
                f"{', '.join(too_few[:5])}. Add an album, or remove the class."
            )
        if self.n_splits is None:
            return
        n_splits_max = min(len(set(groups)), int(counts.max()))
        if not 2 <= self.n_splits <= n_splits_max:
            raise InputError(
                f"GroupFolds: n_splits must be from 2 to {n_splits_max}, the number of "
                "groups or of recordings of the largest class, got "
                f"{self.n_splits}."
            )
        rare = [f"{label} ({n})" for label, n in n_groups.items() if n < self.n_splits]
        if rare:
            log.warning(
                "GroupFolds: fewer groups than the %d folds, and so missing from some "
                "test sets: %s",
                self.n_splits,
                ", ".join(rare),
            )


def split_folds(
    y: NDArray, groups: NDArray, n_splits: int | None, random_state: int
) -> Iterator[Split]:
    """Split recordings into folds of whole groups with balanced classes.

    Parameters
    ----------
    y : ndarray, shape (n_recordings,)
        Labels.
    groups : ndarray, shape (n_recordings,)
        Groups.
    n_splits : int or None
        Number of folds; None leaves out one group at a time.
    random_state : int
        Seed.

    Yields
    ------
    training, test : ndarray of int64
        Indices of the recordings. A class may be missing from either.
    """
    from sklearn.model_selection import LeaveOneGroupOut, StratifiedGroupKFold

    if n_splits is None:
        folds = LeaveOneGroupOut()
    else:
        folds = StratifiedGroupKFold(n_splits, shuffle=True, random_state=random_state)
    with warnings.catch_warnings():
        # `GroupFolds` logs the names of these classes.
        warnings.filterwarnings("ignore", message="The least populated class")
        yield from folds.split(y, y, groups)


def validation_split(
    class_indices: Indices,
    groups: Sequence[object],
    fraction: float,
    random_state: int,
) -> Split:
    """Split recordings into training and validation, and log what limits the result.

    Parameters
    ----------
    class_indices : ndarray of int64, shape (n_recordings,)
        Labels as class indices.
    groups : sequence, shape (n_recordings,)
        Groups.
    fraction : float
        Fraction of every class for validation, 0 to below 1.
    random_state : int
        Seed.

    Returns
    -------
    training, validation : ndarray of int64
        Indices of the recordings.
    """
    n_recordings = len(class_indices)
    if fraction == 0:
        return np.arange(n_recordings), np.arange(0)
    n_groups = len(set(map(str, groups)))
    if n_groups == len(groups):
        log.warning(
            "fit: no groups are given, so that recordings of one album may be in both "
            "training and validation. Sort the recordings into albums, or pass groups= "
            "(--group-by)"
        )
    training, validation = group_split(
        class_indices, groups, test_size=fraction, random_state=random_state
    )
    if not len(validation):
        log.warning(
            "fit: every group is needed for training, so that there is no validation: "
            "the last epoch is kept, uncalibrated"
        )
    return training, validation


def check_leaks(
    recordings: "Recordings", fingerprints: Sequence[str], split: Split
) -> None:
    """Check that no recording is in both training and validation or has two labels.

    Groups that are in both are logged.

    Parameters
    ----------
    recordings : Recordings
        Recordings with labels and groups.
    fingerprints : sequence of str, shape (n_recordings,)
        Fingerprints of the tiles; copies of a recording have the same.
    split : tuple of two ndarray of int64
        Indices of the recordings for training and for validation.

    Raises
    ------
    InputError
        If copies of a recording have different labels or are in both training and
        validation.
    """
    _check_labels_of_copies(recordings, fingerprints)
    training, validation = split
    known = {fingerprints[index] for index in training}
    copies = [index for index in validation if fingerprints[index] in known]
    if copies:
        path = recordings[copies[0]].path
        raise InputError(
            "fit: validation must not contain recordings of the training data, got "
            f"{len(copies)} of {len(validation)}, such as {path!r}. "
            "Use other recordings, or give copies the same group."
        )
    training_groups = {recordings[index].group for index in training}
    validation_groups = {recordings[index].group for index in validation}
    # Arrays in memory are numbered separately in each.
    shared = [
        group
        for group in sorted(training_groups & validation_groups)
        if not group.startswith("array ")
    ]
    if shared:
        log.warning(
            "fit: groups are in both training and validation, such as %r, so that the "
            "epoch may be chosen by what they have in common",
            shared[0],
        )


def _check_labels_of_copies(
    recordings: "Recordings", fingerprints: Sequence[str]
) -> None:
    """Raise an InputError if copies of a recording have different labels."""
    originals: dict[str, int] = {}
    for index, fingerprint in enumerate(fingerprints):
        copy = recordings[index]
        original = recordings[originals.setdefault(fingerprint, index)]
        if str(original.label) != str(copy.label):
            raise InputError(
                "fit: y must have the same label for copies of a recording, got "
                f"{original.label!s} for {original.path!r} and {copy.label!s} for "
                f"{copy.path!r}. Remove one of them."
            )
