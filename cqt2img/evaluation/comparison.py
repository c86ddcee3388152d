"""Paired comparison of two classifiers on the same recordings."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from cqt2img._utils.array_types import IntArray
from cqt2img.errors import InputError
from cqt2img.evaluation.evaluation import Evaluation
from cqt2img.evaluation.intervals import Interval, mean_interval

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Predictions of two models for the same recordings.

    Parameters
    ----------
    table : DataFrame
        One row per recording: `path`, `group`, `label`, `first` and `second` (the
        prediction of each model), `first_correct` and `second_correct`.
    """

    table: "pd.DataFrame"

    @property
    def difference(self) -> float:
        """Accuracy of the first model minus that of the second."""
        return float(self._gains.mean())

    @cached_property
    def interval(self) -> Interval:
        """The 95 % interval of the difference over groups."""
        low, high = mean_interval(self._group_gains, self._group_sizes, (-1, 1))
        return float(low), float(high)

    @cached_property
    def p_value(self) -> float:
        """Probability of a difference as large if the models are equally good."""
        return _sign_flip_p_value(self._group_gains)

    @property
    def only_first(self) -> "pd.DataFrame":
        """Recordings that only the first model predicts correctly."""
        return self.table[self._gains > 0].reset_index(drop=True)

    @property
    def only_second(self) -> "pd.DataFrame":
        """Recordings that only the second model predicts correctly."""
        return self.table[self._gains < 0].reset_index(drop=True)

    @property
    def _gains(self) -> "pd.Series":
        first_correct = self.table["first_correct"].astype(int)
        second_correct = self.table["second_correct"].astype(int)
        return first_correct - second_correct

    @cached_property
    def _group_index(self) -> IntArray:
        # groupby of pandas fails for groups that are not valid Unicode
        groups = self.table["group"].to_numpy(dtype=str)
        return np.unique(groups, return_inverse=True)[1]

    @property
    def _group_sizes(self) -> IntArray:
        return np.bincount(self._group_index)

    @property
    def _group_gains(self) -> IntArray:
        return np.bincount(self._group_index, weights=self._gains).astype(np.int64)

    def __str__(self) -> str:
        first = self.table["first_correct"]
        second = self.table["second_correct"]
        n_recordings = len(self.table)
        n_groups = len(self._group_sizes)
        unit = "groups" if n_groups < n_recordings else "recordings"
        low, high = self.interval
        counts = (
            f"{n_recordings} recordings in {n_groups} groups: "
            f"{first.sum()} correct by the first model, {second.sum()} by the second, "
            f"{(first & second).sum()} by both, {(~first & ~second).sum()} by neither"
        )
        difference = (
            f"difference {self.difference:+.3f}  (95 % interval {low:+.3f} to "
            f"{high:+.3f} over {unit}; p = {self.p_value:.3f})"
        )
        return "\n".join([counts, difference, self._describe_result()])

    __repr__ = __str__  # shown by notebooks

    def _describe_result(self) -> str:
        low, high = self.interval
        is_significant = self.p_value < 0.05
        if is_significant and low > 0:
            return "The first model is better on recordings like these."
        if is_significant and high < 0:
            return "The second model is better on recordings like these."
        return "These recordings do not show that either model is better."


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """Compare two models on the same recordings.

    Parameters
    ----------
    first, second : Evaluation
        Results of `Classifier.evaluate`. Groups are those of `first`.

    Returns
    -------
    Comparison
        Difference of the accuracies, its interval and p-value, and the predictions.

    Raises
    ------
    InputError
        If the recordings or their labels differ.

    Notes
    -----
    `p_value` is that of a permutation test that flips the sign of the difference of
    each group; all combinations are counted. With one recording per group it is
    McNemar's exact test, which assumes independent recordings.

    References
    ----------
    Quinn McNemar, "Note on the sampling error of the difference between correlated
    proportions or percentages", 1947.
    Ronald A. Fisher, "The Design of Experiments", 1935.

    Examples
    --------
    >>> from cqt2img.evaluation.evaluation import evaluate_proba
    >>> class_indices, names = np.array([0, 0, 1, 1]), ["Evans", "Monk"]
    >>> careful = evaluate_proba(np.eye(2)[[0, 0, 1, 0]], class_indices, names)
    >>> careless = evaluate_proba(np.eye(2)[[0, 1, 0, 0]], class_indices, names)
    >>> comparison = compare(careful, careless)
    >>> comparison.difference, comparison.p_value
    (0.5, 0.5)
    >>> comparison.only_first["path"].tolist()
    ['1', '2']
    """
    first_table, first_keys = _sort_answers(first)
    second_table, second_keys = _sort_answers(second)
    if first_keys != second_keys:
        n_common = len(set(first_keys) & set(second_keys))
        raise InputError(
            "compare: first and second must score the same recordings with the same "
            f"labels, got {len(first_table)} and {len(second_table)} recordings with "
            f"{n_common} in common. Evaluate both models on the same recordings."
        )
    table = first_table[["path", "group", "label"]].assign(
        first=first_table["predicted"],
        second=second_table["predicted"],
        first_correct=first_table["rank"] == 1,
        second_correct=second_table["rank"] == 1,
    )
    return Comparison(table)


def _sort_answers(scores: Evaluation) -> tuple["pd.DataFrame", list[tuple[str, str]]]:
    """Return the answers sorted by path and label, and the paths and labels."""
    table = scores.answer_table()
    # pandas cannot sort paths that are not valid Unicode
    paths = table["path"].to_numpy(dtype=str)
    labels = table["label"].to_numpy(dtype=str)
    order = np.lexsort([labels, paths])
    keys = list(zip(paths[order].tolist(), labels[order].tolist(), strict=True))
    return table.iloc[order].reset_index(drop=True), keys


def _sign_flip_p_value(gains: IntArray) -> float:
    """Compute the share of all sign flips with a sum as far from 0.

    The distribution is exact: gains are integers, and each flip convolves it with a
    distribution of two equally likely values.
    """
    magnitudes = np.abs(gains)
    distribution = np.ones(1)
    for magnitude in magnitudes[magnitudes > 0]:
        one_flip = np.bincount([0, 2 * magnitude]) / 2
        distribution = np.convolve(distribution, one_flip)
    sums = np.arange(len(distribution)) - magnitudes.sum()
    is_as_extreme = np.abs(sums) >= abs(gains.sum())
    return float(distribution[is_as_extreme].sum())
