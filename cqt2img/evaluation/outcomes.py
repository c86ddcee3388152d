"""Predictions and true classes of recordings, and their intervals over groups."""

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.array_types import (
    BoolArray,
    Float32Array,
    Float64Array,
    IntArray,
)
from cqt2img.evaluation import intervals
from cqt2img.evaluation.intervals import Interval

Subset: TypeAlias = IntArray | BoolArray | slice

MIN_PROBABILITY = 1e-12  # in the log-loss, as in `inference.calibration.log_loss`
_ALL = slice(None)


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Predictions and true classes of recordings.

    Parameters
    ----------
    proba : ndarray of float32, shape (n_recordings, n_classes)
        Predicted probabilities.
    class_indices : ndarray of int64, shape (n_recordings,)
        Index of the true class of each recording.
    groups : ndarray of str, shape (n_recordings,)
        Group of each recording.
    """

    proba: Float32Array
    class_indices: IntArray
    groups: NDArray[np.str_]

    @cached_property
    def predicted(self) -> IntArray:
        """Index of the predicted class of each recording."""
        return self.proba.argmax(axis=1)

    @cached_property
    def is_correct(self) -> BoolArray:
        """Whether each prediction is correct."""
        return self.predicted == self.class_indices

    @cached_property
    def confidence(self) -> Float64Array:
        """Probability of each prediction."""
        return self.proba.max(axis=1).astype(np.float64)

    @cached_property
    def by_confidence(self) -> IntArray:
        """Indices of the recordings by decreasing confidence."""
        return np.argsort(-self.confidence, kind="stable")

    @cached_property
    def class_proba(self) -> Float64Array:
        """Probability of the true class of each recording."""
        recordings = np.arange(len(self.class_indices))
        return self.proba[recordings, self.class_indices].astype(np.float64)

    @cached_property
    def log_losses(self) -> Float64Array:
        """Log-loss of each recording in nats."""
        return -np.log(np.maximum(self.class_proba, MIN_PROBABILITY))

    @cached_property
    def rank(self) -> IntArray:
        """Rank of the true class of each recording, 1 for the most probable class."""
        order = np.argsort(-self.proba, axis=1, kind="stable")
        is_true_class = order == self.class_indices[:, np.newaxis]
        return is_true_class.argmax(axis=1) + 1

    @cached_property
    def group_names(self) -> NDArray[np.str_]:
        """Distinct groups in alphabetical order."""
        return np.unique(self.groups)

    @cached_property
    def group_index(self) -> IntArray:
        """Index of the group of each recording among `group_names`."""
        return np.searchsorted(self.group_names, self.groups)

    @cached_property
    def f1_counts(self) -> Float64Array:
        """Counts of each group for `macro_f1_from_counts`."""
        one_hot = np.eye(self.proba.shape[1])
        is_class = one_hot[self.class_indices]
        is_predicted = one_hot[self.predicted]
        counts = np.hstack([is_class * is_predicted, is_class, is_predicted])
        return self.sum_by_group(counts)

    def sum_by_group(
        self, values: NDArray[np.number] | BoolArray, subset: Subset = _ALL
    ) -> Float64Array:
        """Sum values over the recordings of each group.

        Parameters
        ----------
        values : ndarray, shape (n_selected, ...)
            One entry per selected recording.
        subset : ndarray or slice
            Selects recordings, all by default.

        Returns
        -------
        ndarray of float64, shape (n_groups, ...)
            0 for groups without a selected recording.
        """
        sums = np.zeros((len(self.group_names), *values.shape[1:]))
        np.add.at(sums, self.group_index[subset], values)
        return sums

    def count_by_group(self, subset: Subset = _ALL) -> Float64Array:
        """Count the recordings of each group.

        Parameters
        ----------
        subset : ndarray or slice
            Selects recordings, all by default.

        Returns
        -------
        ndarray of float64, shape (n_groups,)
            Number of selected recordings.
        """
        n_groups = len(self.group_names)
        counts = np.bincount(self.group_index[subset], minlength=n_groups)
        return counts.astype(np.float64)

    def share_interval(self, is_true: BoolArray, subset: Subset = _ALL) -> Interval:
        """Compute the 95 % interval of a proportion over groups.

        Parameters
        ----------
        is_true : ndarray of bool, shape (n_selected,)
            One entry per selected recording.
        subset : ndarray or slice
            Selects recordings, all by default.

        Returns
        -------
        low, high : float
            0 to 1.
        """
        hits = self.sum_by_group(is_true, subset)
        low, high = intervals.share_interval(hits, self.count_by_group(subset))
        return float(low), float(high)

    def mean_interval(
        self,
        values: Float64Array,
        bounds: Interval,
        *,
        log_scale: bool = False,
    ) -> Interval:
        """Compute the 95 % interval of a mean over groups.

        Parameters
        ----------
        values : ndarray of float64, shape (n_recordings,)
            One entry per recording.
        bounds : tuple of two float
            Lowest and highest plausible value.
        log_scale : bool
            Compute the interval of the logarithm of the mean.

        Returns
        -------
        low, high : float
            In the unit of the values.
        """
        sums = self.sum_by_group(values)
        sizes = self.count_by_group()
        low, high = intervals.mean_interval(sums, sizes, bounds, log_scale=log_scale)
        return float(low), float(high)

    def macro_f1_interval(self) -> Interval:
        """Compute the 95 % interval of the macro F1 over groups.

        Returns
        -------
        low, high : float
            0 to 1.
        """
        low, high = intervals.jackknife_interval(
            intervals.macro_f1_from_counts, self.f1_counts, self.count_by_group()
        )
        return float(low), float(high)
