"""Shortcuts: confounds that predict the labels without the player."""

import statistics
import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.naive_bayes import GaussianNB

from cqt2img._utils.array_types import BoolArray, Float64Array, IntArray, Labels
from cqt2img.auditing.confounds import CHANNEL, CONFOUNDS, Confound
from cqt2img.auditing.groups import collect_values, find_keys_with_several
from cqt2img.errors import InputError
from cqt2img.evaluation.intervals import share_interval

_MIN_KNOWN = 0.5  # share of the recordings of which a confound must be known
# nine confounds of twenty clean collections then cause a third of a false alarm, before
# the gain is considered
_MAX_P_VALUE = 0.002
_N_PERMUTATIONS = 1999
_MAX_SPLITS = 5
_N_SHOWN = 5  # classes in a sentence

Names: TypeAlias = NDArray[np.str_]


class ConfoundScore(NamedTuple):
    """How well one confound predicts the labels.

    Parameters
    ----------
    confound : str
        Its name, a key of `CONFOUNDS`.
    held_out : {"groups", "recordings"}
        What training and test do not share; "recordings" if there are no groups, or no
        two classes with two groups each.
    accuracy, low, high : float
        Accuracy with its 95 % interval over groups, 0 to 1.
    chance : float
        Share of the largest class.
    p_value : float
        See `compute_p_value`.
    is_shortcut : bool
        Whether the accuracy is both significant and high.
    classes : tuple of str
        The classes that it identifies best.
    explanation, advice : str
        What was found, and what to do.
    """

    confound: str
    held_out: str
    accuracy: float
    low: float
    high: float
    chance: float
    p_value: float
    is_shortcut: bool
    classes: tuple[str, ...]
    explanation: str
    advice: str


def find_shortcuts(
    confounds: Mapping[str, Float64Array],
    labels: Sequence[object] | Labels,
    groups: Sequence[object] | Labels,
    *,
    random_state: int = 0,
) -> list[ConfoundScore]:
    """Score how well each single confound predicts the labels, with groups held out.

    Parameters
    ----------
    confounds : mapping of str to ndarray of float64, shape (n_recordings, n_values)
        The result of `measure_confounds`.
    labels, groups : sequence
        One entry per recording.
    random_state : int
        Seed of folds, permutations and jitter.

    Returns
    -------
    list of ConfoundScore
        One for each confound that is known of most recordings; shortcuts first, then by
        accuracy above chance.

    Raises
    ------
    InputError
        If a confound does not have one row per recording, or there are fewer than two
        classes.

    Notes
    -----
    A confound is a shortcut if its accuracy is both significant and high. The p-value
    permutes labels among whole groups, as takes of one album are alike whoever plays.
    With few groups (four classes of two) no confound can be significant. The channel is
    a shortcut if mean spectrum and noise floor both are: then what separates the
    classes is also there when nobody plays.

    References
    ----------
    Bob L. Sturm, "A simple method to determine if a music information retrieval system
    is a 'horse'", 2014.
    """
    names = np.asarray([str(label) for label in labels])
    keys = np.asarray([str(group) for group in groups])
    n_classes = len(set(names.tolist()))
    if n_classes < 2:
        raise InputError(
            f"labels must have two classes or more, got {n_classes}. "
            "Add recordings of another class."
        )
    found: dict[str, ConfoundScore] = {}
    for name, values in confounds.items():
        if len(values) != len(names):
            raise InputError(
                f"confounds must have one row per recording, got {len(values)} of "
                f"{name!r} for {len(names)} labels. Measure the labelled recordings."
            )
        is_known = np.isfinite(values).all(axis=1)
        n_known_classes = len(set(names[is_known].tolist()))
        if is_known.mean() > _MIN_KNOWN and n_known_classes > 1:
            found[name] = _score_confound(
                name, values[is_known], names[is_known], keys[is_known], random_state
            )
    if "channel" in found:
        is_shared = all(found[name].is_shortcut for name in CHANNEL)
        found["channel"] = found["channel"]._replace(is_shortcut=is_shared)
    return sorted(found.values(), key=_rank)


def compute_p_value(
    values: Float64Array, labels: Names, groups: Names, *, random_state: int = 0
) -> float:
    """Test whether classes differ by more than the same groups in any other classes.

    Parameters
    ----------
    values : ndarray of float64, shape (n_recordings, n_values)
        Measured values.
    labels, groups : ndarray of str, shape (n_recordings,)
        Class and group of each recording.
    random_state : int
        Seed.

    Returns
    -------
    float
        p-value of 1999 permutations of the labels of whole groups, 1/2000 to 1. The
        statistic is the sum of squares between classes, as a part of that between
        groups.

    References
    ----------
    Marti J. Anderson, "A new method for non-parametric multivariate analysis of
    variance", 2001.

    Examples
    --------
    Four groups can be put into two pairs in three ways, one of which is the best:

    >>> values = np.repeat([0.0, 0.1, 9.0, 9.1], 2)[:, None]
    >>> labels, groups = np.repeat(["a", "b"], 4), np.repeat(["1", "2", "3", "4"], 2)
    >>> bool(0.25 < compute_p_value(values, labels, groups) < 0.4)
    True
    """
    means, class_indices = _group_means(values, labels, groups)
    n_groups = np.bincount(class_indices)
    one_hot = np.eye(len(n_groups))
    rng = np.random.default_rng(random_state)

    def sum_of_squares(indices: IntArray) -> float:
        sums = one_hot[indices].T @ means
        per_class = np.square(sums).sum(axis=1) / n_groups
        return float(per_class.sum())

    observed = sum_of_squares(class_indices) * (1 - 1e-9)  # for rounding
    n_extreme = 0
    for _ in range(_N_PERMUTATIONS):
        permuted = rng.permutation(class_indices)
        n_extreme += sum_of_squares(permuted) >= observed
    return (1 + n_extreme) / (1 + _N_PERMUTATIONS)


class _NaiveBayes(GaussianNB):
    """Gaussian naive Bayes that also accepts features without variance.

    Unlike linear discriminant analysis, it can use a feature that has a single value
    within a class. Where all training samples are equal, it predicts the most frequent
    class.
    """

    def fit(self, X: Float64Array, y: Names) -> "_NaiveBayes":
        self.majority_ = statistics.mode(y.tolist())
        self.is_constant_ = not np.ptp(X, axis=0).any()
        if not self.is_constant_:
            super().fit(X, y)
        return self

    def predict(self, X: ArrayLike) -> Names:
        if self.is_constant_:
            return np.full(len(np.asarray(X)), self.majority_)
        return super().predict(X)


def _rank(score: ConfoundScore) -> tuple[bool, float]:
    gain = score.accuracy - score.chance
    relative_gain = gain / (1 - score.chance)
    return not score.is_shortcut, -relative_gain


def _score_confound(
    name: str, values: Float64Array, labels: Names, groups: Names, random_state: int
) -> ConfoundScore:
    """Score one confound that is known of all these recordings."""
    confound = CONFOUNDS[name]
    is_tested = _select_testable(labels, groups)
    held_out = "groups"
    if not is_tested.any():
        held_out = "recordings"
        is_tested[:] = True
        groups = np.arange(len(labels)).astype(str)
    labels = labels[is_tested]
    groups = groups[is_tested]
    values = values[is_tested]
    values = _scale(values, confound, random_state)

    is_correct = _predict(values, labels, groups, random_state) == labels
    accuracy = float(is_correct.mean())
    low, high = _group_interval(is_correct, groups)
    class_names, class_indices = np.unique(labels, return_inverse=True)
    n_recordings = np.bincount(class_indices)
    chance = float(n_recordings.max() / len(labels))
    recall = np.bincount(class_indices, is_correct) / n_recordings
    best = class_names[recall >= (1 + chance) / 2]
    p_value = compute_p_value(values, labels, groups, random_state=random_state)
    min_accuracy = chance + confound.min_gain * (1 - chance)
    is_significant = p_value <= _MAX_P_VALUE and low > chance
    classes = tuple(best.tolist())
    explanation = (
        f"The {confound.phrase} alone identifies {accuracy:.0%} of the "
        f"recordings (95% interval {low:.0%} to {high:.0%}, "
        f"chance {chance:.0%}) with {held_out} held out{_list_best(classes)}."
    )
    return ConfoundScore(
        confound=name,
        held_out=held_out,
        accuracy=accuracy,
        low=low,
        high=high,
        chance=chance,
        p_value=p_value,
        is_shortcut=is_significant and accuracy >= min_accuracy,
        classes=classes,
        explanation=explanation,
        advice=confound.advice,
    )


def _select_testable(labels: Names, groups: Names) -> BoolArray:
    """Mark the recordings whose group can be held out: none, or two classes or more."""
    classes = find_keys_with_several(labels, groups)
    n_groups = len(np.unique(groups))
    if len(classes) < 2 or n_groups == len(groups):
        return np.zeros(len(labels), dtype=bool)
    return np.isin(labels, classes)


def _scale(values: Float64Array, confound: Confound, random_state: int) -> Float64Array:
    """Add the jitter, and scale numbers to unit variance."""
    rng = np.random.default_rng(random_state)
    values = values + rng.normal(0, confound.jitter, values.shape)
    if confound.is_categorical:
        return values
    spread = np.maximum(values.std(axis=0), 1e-9)
    return (values - values.mean(axis=0)) / spread


def _predict(
    values: Float64Array, labels: Names, groups: Names, random_state: int
) -> Names:
    """Predict each label by a model that was not trained on its group."""
    groups_of = collect_values(labels, groups)
    fewest_groups = min(map(len, groups_of.values()))
    n_splits = max(2, min(_MAX_SPLITS, fewest_groups))
    folds = StratifiedGroupKFold(n_splits, shuffle=True, random_state=random_state)
    model = _NaiveBayes(var_smoothing=0.01)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        return cross_val_predict(model, values, labels, groups=groups, cv=folds)


def _group_interval(is_correct: BoolArray, groups: Names) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy over groups."""
    _, member = np.unique(groups, return_inverse=True)
    n_correct = np.bincount(member, is_correct)
    low, high = share_interval(n_correct, np.bincount(member))
    return float(low), float(high)


def _group_means(
    values: Float64Array, labels: Names, groups: Names
) -> tuple[Float64Array, IntArray]:
    """Return the centred means of every group, and the class index of each group.

    The recordings of one group and two classes count as two groups.
    """
    import pandas as pd

    pairs = pd.MultiIndex.from_arrays([groups, labels])
    member, units = pd.factorize(pairs)
    sums = [np.bincount(member, column) for column in values.T]
    means = np.stack(sums, axis=1) / np.bincount(member)[:, None]
    unit_labels = np.asarray([label for _, label in units])
    class_indices, _ = pd.factorize(unit_labels)
    return means - means.mean(axis=0), class_indices


def _list_best(classes: tuple[str, ...]) -> str:
    if not classes:
        return ""
    shown = ", ".join(classes[:_N_SHOWN])
    more = " and others" if len(classes) > _N_SHOWN else ""
    return f", most clearly {shown}{more}"
