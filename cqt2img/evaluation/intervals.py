"""Confidence intervals over groups: recordings of one group are not independent."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from cqt2img._utils.array_types import Float64Array

Interval: TypeAlias = tuple[float, float]
"""Lower and upper limit of one interval."""

Limits: TypeAlias = tuple[Float64Array, Float64Array]
"""Lower and upper limits of many intervals."""

_UPPER = 0.975  # upper quantile of a two-sided 95 % interval
_LOWER = 1 - _UPPER
# weight of each pseudo-recording: with half a recording at either bound, five equal
# values do not imply certainty
_PSEUDO_WEIGHT = 0.5
_TINY = 1e-12
_MAX_LOG_FACTOR = 30.0


def share_interval(hits: ArrayLike, sizes: ArrayLike) -> Limits:
    """Compute the 95 % interval of a proportion, such as accuracy, over groups.

    Parameters
    ----------
    hits : array-like, shape (..., n_groups)
        Number of correct recordings of each group.
    sizes : array-like, shape (..., n_groups)
        Number of recordings of each group; empty groups are ignored.

    Returns
    -------
    low, high : ndarray of float64, shape (...)
        0 to 1.

    Notes
    -----
    The interval is that of Korn and Graubard: the variance between groups determines
    the effective number of independent recordings, for which the interval of Clopper
    and Pearson is computed. It differs in three points. The squared residual of a group
    is divided by one minus its weight (Bell and McCaffrey). The degrees of freedom are
    those of the effective number of groups (Kish). Both matter where groups are unequal
    in size. The effective number of recordings is at least the effective number of
    groups, and equal to it where all recordings are correct or none is: the correlation
    within groups cannot be estimated then. With one recording per group the interval is
    that of Clopper and Pearson. `benchmarks/intervals.py` measures its coverage.

    References
    ----------
    C. J. Clopper and E. S. Pearson, "The use of confidence or fiducial limits
    illustrated in the case of the binomial", 1934.
    Leslie Kish, "Survey Sampling", 1965.
    Edward L. Korn and Barry I. Graubard, "Confidence intervals for proportions with
    small expected number of positive counts estimated from survey data", 1998.
    Robert M. Bell and Daniel F. McCaffrey, "Bias reduction in standard errors for
    linear regression with multi-stage samples", 2002.

    Examples
    --------
    One of five recordings is correct:

    >>> low, high = share_interval([1, 0, 0, 0, 0], np.ones(5))
    >>> print(f"{100 * low:.1f} to {100 * high:.0f} %")
    0.5 to 72 %
    """
    hits = np.asarray(hits, dtype=float)
    sizes = np.asarray(sizes, dtype=float)
    n_recordings = sizes.sum(axis=-1)
    share = hits.sum(axis=-1) / n_recordings
    with np.errstate(divide="ignore", invalid="ignore"):  # NaN with a single group
        squares = _residual_squares(hits, sizes)
    variance = squares / n_recordings**2
    n_groups = _count_effective_groups(sizes)
    return _binomial_interval(share, variance, n_groups, n_recordings)


def jackknife_interval(
    statistic: Callable[[Float64Array], Float64Array],
    totals: ArrayLike,
    sizes: ArrayLike,
) -> Limits:
    """Compute the 95 % interval of a statistic from 0 to 1, such as F1, over groups.

    Parameters
    ----------
    statistic : callable
        Maps sums over recordings, shape (..., n_sums), to values, shape (...).
    totals : array-like, shape (n_groups, n_sums)
        Sums over the recordings of each group.
    sizes : array-like, shape (n_groups,)
        Number of recordings of each group.

    Returns
    -------
    low, high : ndarray of float64, shape ()
        0 to 1.

    Notes
    -----
    The interval is that of `share_interval`, with the jackknife variance over groups.

    References
    ----------
    Bradley Efron and Charles Stein, "The jackknife estimate of variance", 1981.
    """
    totals = np.asarray(totals, dtype=float)
    sizes = np.asarray(sizes, dtype=float)
    total = totals.sum(axis=0)
    value = statistic(total)
    variance = np.array(np.nan)
    n_groups = len(sizes)
    if n_groups > 1:
        leave_one_out = statistic(total - totals)
        squares = (leave_one_out - value) ** 2
        variance = (n_groups - 1) / n_groups * squares.sum()
    n_effective_groups = _count_effective_groups(sizes)
    return _binomial_interval(value, variance, n_effective_groups, sizes.sum())


def mean_interval(
    sums: ArrayLike,
    sizes: ArrayLike,
    bounds: tuple[float, float],
    *,
    log_scale: bool = False,
) -> Limits:
    """Compute the 95 % interval of a mean over groups, such as that of the log-loss.

    Parameters
    ----------
    sums : array-like, shape (..., n_groups)
        Sum over the recordings of each group.
    sizes : array-like, shape (..., n_groups)
        Number of recordings of each group.
    bounds : tuple of two float
        Lowest and highest plausible value of one recording.
    log_scale : bool
        Compute the interval of the logarithm of the mean, for a positive, skewed one.

    Returns
    -------
    low, high : ndarray of float64, shape (...)
        In the unit of `sums`; clipped to `bounds` unless `log_scale`.

    Notes
    -----
    The interval is Student's, with the variance between groups of `share_interval`.
    Half a recording is added at either bound, as Bonett and Price add whole ones: the
    interval of a few recordings with equal values would be empty otherwise.

    References
    ----------
    Douglas G. Bonett and Robert M. Price, "Adjusted Wald confidence interval for a
    difference of binomial proportions based on paired data", 2012.
    """
    from scipy.stats import t

    sums = np.asarray(sums, dtype=float)
    sizes = np.asarray(sizes, dtype=float)
    n_effective_groups = _count_effective_groups(sizes)
    degrees_of_freedom = np.maximum(n_effective_groups - 1, 0.5)

    pseudo_shape = (*sums.shape[:-1], 2)
    pseudo_sums = np.broadcast_to(np.multiply(_PSEUDO_WEIGHT, bounds), pseudo_shape)
    pseudo_sizes = np.full(pseudo_shape, _PSEUDO_WEIGHT)
    sums = np.concatenate([sums, pseudo_sums], axis=-1)
    sizes = np.concatenate([sizes, pseudo_sizes], axis=-1)

    n_recordings = sizes.sum(axis=-1)
    mean = sums.sum(axis=-1) / n_recordings
    standard_error = np.sqrt(_residual_squares(sums, sizes)) / n_recordings
    margin = t.ppf(_UPPER, degrees_of_freedom) * standard_error
    if log_scale:
        factor = np.exp(np.minimum(margin / mean, _MAX_LOG_FACTOR))
        return mean / factor, mean * factor
    lowest, highest = bounds
    low = np.maximum(mean - margin, lowest)
    high = np.minimum(mean + margin, highest)
    return low, high


def macro_f1_from_counts(counts: ArrayLike) -> Float64Array:
    """Compute the mean F1 of the classes that occur.

    Parameters
    ----------
    counts : array-like, shape (..., 3 * n_classes)
        Number of recordings of each class that are predicted correctly, then number of
        recordings of each class, then number of predictions of each class.

    Returns
    -------
    ndarray of float64, shape (...)
        0 to 1.

    Notes
    -----
    `sklearn.metrics.f1_score` takes single recordings and is too slow for a jackknife.
    """
    counts = np.asarray(counts, dtype=float)
    n_correct, n_true, n_predicted = np.split(counts, 3, axis=-1)
    f1 = 2 * n_correct / np.maximum(n_true + n_predicted, 1)
    occurs = n_true > 0
    return f1.sum(axis=-1, where=occurs) / occurs.sum(axis=-1)


def _residual_squares(sums: Float64Array, sizes: Float64Array) -> Float64Array:
    """Sum squared residuals of groups, corrected for the weight of each group."""
    n_recordings = sizes.sum(axis=-1, keepdims=True)
    mean = sums.sum(axis=-1, keepdims=True) / n_recordings
    residuals = sums - mean * sizes
    weights = sizes / n_recordings
    corrected = residuals**2 / (1 - weights)
    return corrected.sum(axis=-1)


def _count_effective_groups(sizes: Float64Array) -> Float64Array:
    """Return the number of equal groups with the same sum of squared weights (Kish)."""
    squared_sizes = sizes**2
    return sizes.sum(axis=-1) ** 2 / squared_sizes.sum(axis=-1)


def _binomial_interval(
    share: Float64Array,
    variance: Float64Array,
    n_groups: Float64Array,
    n_recordings: Float64Array,
) -> Limits:
    """Compute the Clopper-Pearson interval for the effective number of recordings."""
    from scipy.stats import beta

    n_effective = _count_effective_recordings(share, variance, n_groups, n_recordings)
    hits = share * n_effective
    misses = (1 - share) * n_effective
    low = beta.ppf(_LOWER, np.maximum(hits, 1e-9), misses + 1)
    high = beta.ppf(_UPPER, hits + 1, np.maximum(misses, 1e-9))
    low = np.where(share <= _TINY, 0.0, low)
    high = np.where(share >= 1 - _TINY, 1.0, high)
    return low, high


def _count_effective_recordings(
    share: Float64Array,
    variance: Float64Array,
    n_groups: Float64Array,
    n_recordings: Float64Array,
) -> Float64Array:
    """Return the number of independent recordings with the same variance of `share`.

    `n_groups` is the effective number of groups, the smallest possible result.
    """
    from scipy.stats import t

    t_of_recordings = t.ppf(_UPPER, np.maximum(n_recordings - 1, 1))
    t_of_groups = t.ppf(_UPPER, np.maximum(n_groups - 1, 0.5))
    correction = (t_of_recordings / t_of_groups) ** 2
    variance_of_one = share * (1 - share)
    with np.errstate(divide="ignore", invalid="ignore"):
        bessel = n_recordings / (n_recordings - 1)
        n_effective = bessel * variance_of_one / variance * correction
    is_defined = (variance_of_one > _TINY) & ~np.isnan(n_effective)
    n_effective = np.where(is_defined, n_effective, n_groups)
    return np.clip(n_effective, n_groups, n_recordings)
