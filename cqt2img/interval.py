"""What chance does to a score: 95 % intervals where recordings of one album stand or fall together; calibration."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_LEVEL = 0.975  # two-sided 95 %
_DOUBT = 0.5  # recordings: half of one at either extreme, so that five equal values do not mean certainty
_MOST_BINS, _LEAST_IN_BIN = 15, 5
_N_SIMULATED = 400


def share_interval(hits: NDArray, sizes: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
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
    return (2 * right / np.maximum(played + named, 1)).sum(axis=-1, where=occurs) / occurs.sum(axis=-1)


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


def rising_bins(trust: NDArray[np.float64], right: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Sort answers into bins of equally many, as many bins as keep accuracy from falling where trust rises.

    Parameters
    ----------
    trust : ndarray of float64, shape (n_recordings,)
        Probability of each answer.
    right : ndarray of bool, shape (n_recordings,)
        Whether it is right.

    Returns
    -------
    list of ndarray of int64
        The places of the recordings of each bin, the least sure first; 15 bins at most, of 5 at least.
    """
    order = np.argsort(trust, kind="stable")
    return np.array_split(order, int(_count_bins(right[order])))


def calibration_error(trust: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Give the mean distance of the probability of an answer from the part of such answers that is right.

    Parameters
    ----------
    trust : ndarray of float64, shape (n_recordings,)
        Probability of each answer.
    right : ndarray of bool, shape (n_recordings,)
        Whether it is right.

    Returns
    -------
    float
        0 to 1, over the bins of `rising_bins`.

    Notes
    -----
    Expected calibration error (Guo et al.) is too high where recordings are few (Kumar et al.). These bins have
    the least bias (Roelofs et al.), which held here: with 40, 120, 600 recordings +.016, +.006, +.003 on average over
    models that mean what they say or not, against +.068, +.025, +.008 with ten bins. What is left shows
    `calibrated_range`. No interval is given: two bootstraps over groups held the truth in 38 to 92 of 100 test sets.

    References
    ----------
    Chuan Guo, Geoff Pleiss, Yu Sun and Kilian Q. Weinberger, "On Calibration of Modern Neural Networks", 2017.
    Ananya Kumar, Percy Liang and Tengyu Ma, "Verified Uncertainty Calibration", 2019.
    Rebecca Roelofs, Nicholas Cain, Jonathon Shlens and Michael C. Mozer, "Mitigating Bias in Calibration Error
    Estimation", 2022.
    """
    order = np.argsort(trust, kind="stable")
    return float(_gaps(trust[order], right[None, order])[0])


def calibrated_range(trust: NDArray[np.float64]) -> tuple[float, float]:
    """Tell between what chance alone puts the calibration error of a model that means its probabilities.

    Parameters
    ----------
    trust : ndarray of float64, shape (n_recordings,)
        Probability of each answer.

    Returns
    -------
    low, high : float
        95 of 100 test sets lie between, by simulation with a fixed seed, one recording independent of the other.
    """
    trust = np.sort(trust)
    drawn = np.random.default_rng(0).random((_N_SIMULATED, len(trust))) < trust
    low, high = np.quantile(_gaps(trust, drawn), [0.025, 0.975])
    return float(low), float(high)


def _starts(n: int, n_bins: int) -> NDArray[np.int64]:
    """Where bins of equally many begin, as `numpy.array_split` makes them."""
    return np.cumsum([0, *(len(own) for own in np.array_split(np.empty(n), n_bins))])[:-1]


def _count_bins(right: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count the bins that rise, in each row; its answers stand in order of trust."""
    n, right = right.shape[-1], right.astype(np.float64)
    count, rising = np.ones(right.shape[:-1], np.int64), np.ones(right.shape[:-1], bool)
    for n_bins in range(2, min(n // _LEAST_IN_BIN, _MOST_BINS) + 1):
        starts = _starts(n, n_bins)
        shares = np.add.reduceat(right, starts, axis=-1) / np.diff([*starts, n])
        rising &= (np.diff(shares) >= 0).all(axis=-1)
        if not rising.any():
            break
        count = np.where(rising, n_bins, count)
    return count


def _gaps(trust: NDArray[np.float64], right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Give the calibration error of each row; its answers stand in order of trust."""
    count, gaps = _count_bins(right), np.empty(len(right))
    for n_bins in np.unique(count):
        own = count == n_bins
        gaps[own] = np.abs(np.add.reduceat(trust - right[own], _starts(len(trust), n_bins), axis=1)).sum(axis=1)
    return gaps / len(trust)


def _exact(share: NDArray, variance: NDArray, even: NDArray, n: NDArray) -> tuple[NDArray, NDArray]:
    """Clopper and Pearson's interval for as many recordings as would vary as much; `even`: groups of one size."""
    from scipy.stats import beta, t

    one_recording = share * (1 - share)
    few = t.ppf(_LEVEL, np.maximum(n - 1, 1)) / t.ppf(_LEVEL, np.maximum(even - 1, 0.5))
    with np.errstate(divide="ignore", invalid="ignore"):
        as_many = n / (n - 1) * one_recording / variance * few**2
    n_alone = np.clip(np.where((one_recording > 1e-12) & ~np.isnan(as_many), as_many, even), even, n)
    hits, misses = share * n_alone, (1 - share) * n_alone
    low = beta.ppf(1 - _LEVEL, np.maximum(hits, 1e-9), misses + 1)
    high = beta.ppf(_LEVEL, hits + 1, np.maximum(misses, 1e-9))
    return np.where(share <= 1e-12, 0.0, low), np.where(share >= 1 - 1e-12, 1.0, high)
