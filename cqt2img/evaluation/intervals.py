"""What chance does to a score: 95 % intervals where recordings of one album stand or fall together; calibration."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_LEVEL = 0.975  # two-sided 95 %
_DOUBT = 0.5  # recordings: half of one at either extreme, so that five equal values do not mean certainty


def share_interval(
    hits: NDArray, sizes: NDArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the 95 % interval of a share, such as accuracy, over groups.

    Parameters
    ----------
    hits : ndarray, shape (..., n_groups)
        Recordings of each group that are right.
    sizes : ndarray, shape (..., n_groups)
        Recordings of each group; a group without any has no say.

    Returns
    -------
    low, high : ndarray of float64, shape (...)
        0 to 1.

    Notes
    -----
    Korn and Graubard's: the groups' scatter tells how many independent recordings would vary as much,
    and the interval is Clopper and Pearson's for so many. Two things are changed. A group's residual is
    divided by what its own weight took from it (Bell and McCaffrey), and the degrees of freedom are those
    of as many groups of one size as weigh as much (Kish): both matter where albums are unequal. A group never
    counts for less than one recording, and for one where all recordings are right, or none: then nothing
    shows how alike they are within a group. Groups of one give Clopper and Pearson's interval itself.
    `benchmarks/intervals.py` measures it.

    References
    ----------
    C. J. Clopper and E. S. Pearson, "The use of confidence or fiducial limits illustrated in the case of
    the binomial", 1934.
    Leslie Kish, "Survey Sampling", 1965.
    Edward L. Korn and Barry I. Graubard, "Confidence intervals for proportions with small expected number
    of positive counts estimated from survey data", 1998.
    Robert M. Bell and Daniel F. McCaffrey, "Bias reduction in standard errors for linear regression with
    multi-stage samples", 2002.

    Examples
    --------
    One of five is right:

    >>> low, high = share_interval(np.array([1, 0, 0, 0, 0]), np.ones(5))
    >>> print(f"{100 * low:.1f} to {100 * high:.0f} %")
    0.5 to 72 %
    """
    hits, sizes = np.asarray(hits, float), np.asarray(sizes, float)
    n = sizes.sum(axis=-1)
    share, weight = hits.sum(axis=-1) / n, sizes / n[..., None]
    residual = hits - share[..., None] * sizes
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = (residual**2 / (1 - weight)).sum(axis=-1) / n**2
    return _exact(share, variance, 1 / (weight**2).sum(axis=-1), n)


def jackknife_interval(
    statistic: Callable[[NDArray], NDArray], totals: NDArray, sizes: NDArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the 95 % interval over groups of a statistic from 0 to 1 that is no mere share, such as F1.

    Parameters
    ----------
    statistic : callable
        Turns sums over recordings, shape (..., n_sums), into values, shape (...).
    totals : ndarray, shape (n_groups, n_sums)
        The sums of each group.
    sizes : ndarray, shape (n_groups,)
        Recordings of each group.

    Returns
    -------
    low, high : ndarray of float64, shape ()
        0 to 1.

    Notes
    -----
    As `share_interval`, with the variance from leaving out one group after the other.

    References
    ----------
    Bradley Efron and Charles Stein, "The jackknife estimate of variance", 1981.
    """
    totals, sizes = np.asarray(totals, float), np.asarray(sizes, float)
    n, n_groups = sizes.sum(), len(sizes)
    value = statistic(totals.sum(axis=0))
    if n_groups == 1:
        return _exact(value, np.array(np.nan), np.array(1.0), n)
    without = statistic(totals.sum(axis=0) - totals)
    variance = (n_groups - 1) / n_groups * ((without - value) ** 2).sum()
    return _exact(value, variance, n**2 / (sizes**2).sum(), n)


def macro_f1_of(counts: NDArray) -> NDArray[np.float64]:
    """Give the mean F1 of the classes that occur, from counts.

    Parameters
    ----------
    counts : ndarray, shape (..., 3 * n_classes)
        For every class the recordings that are named so and right, that are of it, and that are named so.

    Returns
    -------
    ndarray of float64, shape (...)
        0 to 1. scikit-learn's takes recordings, and is too slow to leave out every group in turn.
    """
    right, played, named = np.split(np.asarray(counts, float), 3, axis=-1)
    occurs = played > 0
    return (2 * right / np.maximum(played + named, 1)).sum(
        axis=-1, where=occurs
    ) / occurs.sum(axis=-1)


def mean_interval(
    sums: NDArray, sizes: NDArray, extremes: tuple[float, float], log: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the 95 % interval of a mean, such as the log-loss or a difference of accuracies, over groups.

    Parameters
    ----------
    sums : ndarray, shape (..., n_groups)
        The sum over the recordings of each group.
    sizes : ndarray, shape (..., n_groups)
        Recordings of each group.
    extremes : tuple of two float
        How low and how high one recording may well be.
    log : bool
        Whether the mean is above 0 and skew, so that the interval is one of its logarithm.

    Returns
    -------
    low, high : ndarray of float64, shape (...)
        In the unit of the sums; not beyond the extremes unless `log`.

    Notes
    -----
    Student's, from the scatter of the groups as in `share_interval`. Half a recording at either extreme is
    added, as Bonett and Price add whole ones: without, a few recordings on which two models agree would
    prove that they always do.

    References
    ----------
    Douglas G. Bonett and Robert M. Price, "Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data", 2012.
    """
    from scipy.stats import t

    sums, sizes = np.asarray(sums, float), np.asarray(sizes, float)
    even = sizes.sum(axis=-1) ** 2 / (sizes**2).sum(axis=-1)
    doubt = np.broadcast_to(np.array(extremes, float), (*sums.shape[:-1], 2))
    sums = np.concatenate([sums, _DOUBT * doubt], axis=-1)
    sizes = np.concatenate([sizes, np.full_like(doubt, _DOUBT)], axis=-1)
    n = sizes.sum(axis=-1)
    mean = sums.sum(axis=-1) / n
    residual = sums - mean[..., None] * sizes
    error = np.sqrt((residual**2 / (1 - sizes / n[..., None])).sum(axis=-1)) / n
    half = t.ppf(_LEVEL, np.maximum(even - 1, 0.5)) * error
    if log:
        factor = np.exp(np.minimum(half / mean, 30.0))
        return mean / factor, mean * factor
    return np.maximum(mean - half, extremes[0]), np.minimum(mean + half, extremes[1])


def _exact(
    share: NDArray, variance: NDArray, even: NDArray, n: NDArray
) -> tuple[NDArray, NDArray]:
    """Clopper and Pearson's interval for as many recordings as would vary as much; `even`: groups of one size."""
    from scipy.stats import beta, t

    one_recording = share * (1 - share)
    few = t.ppf(_LEVEL, np.maximum(n - 1, 1)) / t.ppf(_LEVEL, np.maximum(even - 1, 0.5))
    with np.errstate(divide="ignore", invalid="ignore"):
        as_many = n / (n - 1) * one_recording / variance * few**2
    n_alone = np.clip(
        np.where((one_recording > 1e-12) & ~np.isnan(as_many), as_many, even), even, n
    )
    hits, misses = share * n_alone, (1 - share) * n_alone
    low = beta.ppf(1 - _LEVEL, np.maximum(hits, 1e-9), misses + 1)
    high = beta.ppf(_LEVEL, hits + 1, np.maximum(misses, 1e-9))
    return np.where(share <= 1e-12, 0.0, low), np.where(share >= 1 - 1e-12, 1.0, high)
