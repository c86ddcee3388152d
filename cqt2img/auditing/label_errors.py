"""Recordings whose label is probably wrong."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.array_types import (
    BoolArray,
    Float32Array,
    Float64Array,
    IntArray,
    Labels,
)
from cqt2img.auditing.out_of_fold import MIN_LOG_PROBA, predict_out_of_fold
from cqt2img.data.splits import Split
from cqt2img.errors import InputError

# share of the recordings with the majority label of their group, from which on groups
# are evidence for labels
_MIN_PURITY = 0.8
# share of the labels that the small model must confirm before it may contradict others
_MIN_CONFIRMED = 0.8
# tiles of an album from which its sound can be learned: with 10, labels of clean
# collections were doubted
_MIN_TILES_PER_GROUP = 12
# recordings of a class, if there are no such albums; with 15, right labels were doubted
_MIN_RECORDINGS_PER_CLASS = 30
_MIN_TILES_PER_FEATURE = 4  # with fewer, neighbouring semitones are added up
_SEMITONES_ADDED = 3
# 5 folds, drawn once, doubted 4 right labels in 20 collections; these doubted 1
_N_SPLITS = 10
_N_REPEATS = 3


Names: TypeAlias = NDArray[np.str_]


class LabelError(NamedTuple):
    """A recording whose label is probably wrong.

    Parameters
    ----------
    recording_index : int
        Index of the recording.
    path : str
        Its path.
    label : str
        Its label.
    likely_label : str
        The label that is more likely.
    by_group : bool
        Whether nearly all others of its group, or of its folder and album, have the
        likely label.
    by_sound : float
        How much more the small model prefers the likely label to the given one; 1 is
        as much as it prefers right labels on average. NaN if it was not used.
    """

    recording_index: int
    path: str
    label: str
    likely_label: str
    by_group: bool
    by_sound: float


class _Votes(NamedTuple):
    """The most frequent label around each recording, and whether it overrules."""

    label: Names
    overrules: BoolArray


def find_label_errors(
    statistics: Sequence[Float32Array],
    labels: Sequence[object] | Labels,
    groups: Sequence[object] | Labels,
    paths: Sequence[str],
    albums: Sequence[object] | None = None,
    *,
    random_state: int = 0,
) -> list[LabelError]:
    """Find the recordings whose label is probably wrong.

    Parameters
    ----------
    statistics : sequence of ndarray of float32, shape (n_tiles, n_features)
        The result of `compute_tile_statistics` for each recording.
    labels, groups, paths : sequence
        One entry per recording.
    albums : sequence, optional
        Album, session or concert of each recording, as far as it is known.
    random_state : int
        Seed of the folds.

    Returns
    -------
    list of LabelError
        Most probable error first.

    Raises
    ------
    InputError
        If `statistics` does not have one entry per recording.

    Notes
    -----
    Two sources are combined: the labels of the group or folder of a recording, and a
    small model of how groups sound. Recordings are held out, and albums are not: a
    recording that sounds like an album of another player was probably recorded there.
    As in confident learning, a label is doubted if a model that was not trained on the
    recording prefers another label by as much as it prefers right labels on average.
    The model predicts the album if albums have 12 tiles or more, else the class if
    classes have 30 recordings or more, and is not used if it confirms fewer than four
    labels of five. Among 799 recordings of ten pianists, it found 13 and 14 of 15 that
    were moved to a wrong album and doubted no right label. It finds nothing if every
    recording has a channel of its own.

    References
    ----------
    Curtis G. Northcutt, Lu Jiang and Isaac L. Chuang, "Confident learning: estimating
    uncertainty in dataset labels", 2021.
    """
    if len(statistics) != len(labels):
        raise InputError(
            f"statistics must have one entry per recording, got {len(statistics)} for "
            f"{len(labels)} labels. Compute them for the labelled recordings."
        )
    names = np.asarray([str(label) for label in labels])
    keys = np.asarray([str(group) for group in groups])
    votes = _vote(names, keys, _locate(paths, albums))
    margin, preferred = _compare_by_sound(statistics, names, keys, random_state)
    found = []
    is_doubted = votes.overrules | (margin >= 1)
    for index in np.flatnonzero(is_doubted).tolist():
        by_group = bool(votes.overrules[index])
        likely = votes.label[index] if by_group else preferred[index]
        found.append(
            LabelError(
                recording_index=index,
                path=paths[index],
                label=str(names[index]),
                likely_label=str(likely),
                by_group=by_group,
                by_sound=float(margin[index]),
            )
        )
    return sorted(found, key=_certainty, reverse=True)


def _certainty(error: LabelError) -> float:
    by_sound = 0.0 if np.isnan(error.by_sound) else error.by_sound
    return error.by_group + min(max(by_sound, -1.0), 3.0)


def _vote(labels: Names, groups: Names, locations: Names) -> _Votes:
    """Let groups vote on the labels of their recordings, and folders where they do not.

    A wrong label may have put a recording into a group of its own, while its folder and
    album are still right.
    """
    by_group = _vote_within(labels, groups)
    by_location = _vote_within(labels, locations)
    label = np.where(by_group.overrules, by_group.label, by_location.label)
    return _Votes(label, by_group.overrules | by_location.overrules)


def _vote_within(labels: Names, groups: Names) -> _Votes:
    """Find recordings whose label is unique in its group, or that of a quarter."""
    import pandas as pd

    majority = _majority_labels(labels, groups)
    table = pd.DataFrame({"label": labels, "group": groups})
    by_group = table.groupby("group")["label"]
    by_group_and_label = table.groupby(["group", "label"])["label"]
    n_all = by_group.transform("size").to_numpy()
    n_same = by_group_and_label.transform("size").to_numpy()
    overrules = labels != majority
    overrules &= n_all >= 3
    overrules &= (n_same == 1) | (n_same <= n_all / 4)
    if _purity(labels, majority) < _MIN_PURITY:
        overrules[:] = False
    return _Votes(majority, overrules)


def _majority_labels(labels: Names, groups: Names) -> Names:
    """Return the most frequent label of the group of each recording."""
    import pandas as pd

    grouped = pd.Series(labels).groupby(groups)
    majority = grouped.transform(lambda part: part.mode().iloc[0])
    return majority.to_numpy()


def _purity(labels: Names, majority: Names) -> float:
    return float(np.mean(labels == majority))


def _locate(paths: Sequence[str], albums: Sequence[object] | None) -> Names:
    """Return folder and album of each recording, which do not depend on its label."""
    if albums is None:
        albums = [""] * len(paths)
    locations = []
    for path, album in zip(paths, albums, strict=True):
        folder = PurePath(path).parent
        locations.append(f"{folder}|{album}")
    return np.asarray(locations)


def _compare_by_sound(
    statistics: Sequence[Float32Array],
    labels: Names,
    groups: Names,
    random_state: int,
) -> tuple[Float64Array, Names]:
    """Compare each label with the one that a small model prefers.

    Returns the relative margin of the preferred label, NaN if the model is not used,
    and the preferred label.
    """
    unknown = np.full(len(labels), np.nan)
    units = _choose_units(statistics, labels, groups)
    if units is None:
        return unknown, labels
    features = _reduce_features(np.concatenate(statistics))
    n_tiles, n_features = features.shape
    is_trainable = _group_sizes(units) > 1
    n_trainable_classes = len(np.unique(labels[is_trainable]))
    if n_trainable_classes < 2 or n_tiles < n_features:
        return unknown, labels
    tiles_per_recording = [len(rows) for rows in statistics]
    owner = np.repeat(np.arange(len(labels)), tiles_per_recording)
    _, first_indices, unit_indices = np.unique(
        units,
        return_index=True,
        return_inverse=True,
    )
    folds = _draw_folds(unit_indices, owner, is_trainable, random_state)
    log_proba = _average_over_repeats(features, unit_indices[owner], folds)
    per_recording = _average_over_tiles(log_proba, owner)

    majority = _majority_labels(labels, units)
    unit_labels = majority[first_indices]
    scores, names = _best_per_label(per_recording, unit_labels, labels)
    return _relative_margin(scores, names, labels)


def _choose_units(
    statistics: Sequence[Float32Array],
    labels: Names,
    groups: Names,
) -> Names | None:
    """Return what the small model predicts: groups, classes, or None for nothing."""
    import pandas as pd

    n_tiles = pd.Series([len(rows) for rows in statistics])
    tiles_per_group = n_tiles.groupby(groups).sum().median()
    recordings_per_class = pd.Series(labels).value_counts().median()
    is_pure = _purity(labels, _majority_labels(labels, groups)) >= _MIN_PURITY
    if is_pure and tiles_per_group >= _MIN_TILES_PER_GROUP:
        return groups
    if recordings_per_class >= _MIN_RECORDINGS_PER_CLASS:
        return labels
    return None


def _reduce_features(features: Float32Array) -> Float32Array:
    """Add up neighbouring semitones if there are too few tiles for all of them."""
    n_tiles, n_features = features.shape
    if n_tiles >= _MIN_TILES_PER_FEATURE * n_features:
        return features
    return np.add.reduceat(features, range(0, n_features, _SEMITONES_ADDED), axis=1)


def _group_sizes(groups: Names) -> IntArray:
    """Return the size of the group of each recording."""
    _, index, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return counts[index]


def _draw_folds(
    unit_indices: IntArray,
    owner: IntArray,
    is_trainable: BoolArray,
    random_state: int,
) -> Iterator[list[Split]]:
    """Yield folds of tiles for each repeat; the tiles of a recording stay together.

    The only recording of a unit is tested, but not trained on.
    """
    from sklearn.model_selection import StratifiedKFold

    largest_unit = int(np.bincount(unit_indices).max())
    n_splits = min(_N_SPLITS, largest_unit)
    for repeat in range(_N_REPEATS):
        splitter = StratifiedKFold(
            n_splits, shuffle=True, random_state=random_state + repeat
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The least populated class")
            recording_folds = list(splitter.split(unit_indices, unit_indices))
        folds = []
        for training, test in recording_folds:
            is_training = np.isin(owner, training) & is_trainable[owner]
            training_tiles = np.flatnonzero(is_training)
            test_tiles = np.flatnonzero(np.isin(owner, test))
            folds.append((training_tiles, test_tiles))
        yield folds


def _average_over_repeats(
    features: Float32Array,
    class_indices: IntArray,
    repeats: Iterator[list[Split]],
) -> Float64Array:
    """Return the mean of the out-of-fold log-probabilities, tile by tile."""
    predictions = []
    for folds in repeats:
        predictions.append(predict_out_of_fold(features, class_indices, folds))
    return np.mean(predictions, axis=0, dtype=np.float64)


def _average_over_tiles(log_proba: Float64Array, owner: IntArray) -> Float64Array:
    """Return the mean log-probability of every recording."""
    n_tiles = np.bincount(owner)
    sums = [np.bincount(owner, column) for column in log_proba.T]
    return np.stack(sums, axis=1) / n_tiles[:, None]


def _best_per_label(
    log_proba: Float64Array,
    unit_labels: Names,
    labels: Names,
) -> tuple[Float64Array, Names]:
    """Return the score of the best unit of every label, and the names of the labels."""
    names = np.unique(labels)
    shape = (len(labels), len(names))
    scores = np.full(shape, MIN_LOG_PROBA)
    for index, name in enumerate(names):
        columns = log_proba[:, unit_labels == name]
        if columns.shape[1]:
            best = columns.max(axis=1)
            scores[:, index] = np.maximum(best, MIN_LOG_PROBA)
    return scores, names


def _relative_margin(
    scores: Float64Array, names: Names, labels: Names
) -> tuple[Float64Array, Names]:
    """Return the margin of the best other label, in units of that of right labels."""
    rows = np.arange(len(labels))
    own_index = np.searchsorted(names, labels)
    own = scores[rows, own_index]
    others = scores.copy()
    others[rows, own_index] = -np.inf
    margin = others.max(axis=1) - own
    is_confirmed = margin < 0
    if is_confirmed.mean() < _MIN_CONFIRMED:
        return np.full(len(labels), np.nan), labels
    usual = -margin[is_confirmed].mean()
    return margin / usual, names[others.argmax(axis=1)]
