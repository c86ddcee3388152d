"""From tiles to a recording, and the temperature of its probabilities."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    pass


_PRIOR_SD = 0.5  # of the logarithm of the temperature


def pool(log_proba: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pool the tiles of a recording to one answer: the mean log-probability.

    Parameters
    ----------
    log_proba : ndarray of float32, shape (n_tiles, n_classes)
        Log-probabilities of tiles.

    Returns
    -------
    ndarray of float32, shape (n_classes,)
        Log-probabilities of the recording.

    Notes
    -----
    The geometric mean, made to add up to 1. Tiles of one recording are not independent, so that
    their product would be far too sure.

    Examples
    --------
    One tile is undecided, the other is not:

    >>> np.exp(pool(np.log(np.array([[0.5, 0.5], [0.9, 0.1]], dtype="float32")))).round(2)
    array([0.75, 0.25], dtype=float32)
    """
    mean = log_proba.mean(axis=0, dtype=np.float64)
    return (mean - np.logaddexp.reduce(mean)).astype(np.float32)


def to_proba(
    log_proba: NDArray[np.float32], temperature: float = 1.0
) -> NDArray[np.float32]:
    """Turn log-probabilities into probabilities, softened or sharpened by a temperature.

    Parameters
    ----------
    log_proba : ndarray of float32, shape (..., n_classes)
        Log-probabilities.
    temperature : float
        Above 0; more is less sure.

    Returns
    -------
    ndarray of float32, shape (..., n_classes)
        Add up to 1.

    References
    ----------
    Chuan Guo, Geoff Pleiss, Yu Sun and Kilian Q. Weinberger, "On Calibration of Modern Neural
    Networks", 2017.
    """
    scaled = log_proba.astype(np.float64) / temperature
    return np.exp(scaled - np.logaddexp.reduce(scaled, axis=-1, keepdims=True)).astype(
        np.float32
    )


def fit_temperature(log_proba: NDArray[np.float32], codes: NDArray[np.int64]) -> float:
    """Find the temperature at which recordings that training did not see are predicted best.

    Parameters
    ----------
    log_proba : ndarray of float32, shape (n_recordings, n_classes)
        Log-probabilities of validation recordings.
    codes : ndarray of int64, shape (n_recordings,)
        What they are.

    Returns
    -------
    float
        0.1 to 10, where the log-loss over the recordings is lowest, drawn towards 1 where they are
        few: a prior on its logarithm with a standard deviation of 0.5.

    References
    ----------
    Chuan Guo, Geoff Pleiss, Yu Sun and Kilian Q. Weinberger, "On Calibration of Modern Neural
    Networks", 2017.

    Examples
    --------
    Always sure and right half of the time: the answer must become an even one.

    >>> sure = np.log(np.array([[0.99, 0.01]] * 100, dtype="float32"))
    >>> t = fit_temperature(sure, np.array([0, 1] * 50))
    >>> to_proba(sure, t)[0].round(1)
    array([0.6, 0.4], dtype=float32)
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        doubt = 0.5 * (log_temperature / _PRIOR_SD) ** 2
        return (
            len(codes)
            * log_loss(to_proba(log_proba, float(np.exp(log_temperature))), codes)
            + doubt
        )

    found = minimize_scalar(loss, bounds=(np.log(0.1), np.log(10)), method="bounded")
    return float(np.exp(found.x))


def log_loss(proba: NDArray[np.float32], codes: NDArray[np.int64]) -> float:
    """Give the mean log-loss in nats.

    Parameters
    ----------
    proba : ndarray of float32, shape (n_recordings, n_classes)
        Probabilities.
    codes : ndarray of int64, shape (n_recordings,)
        What they are.

    Returns
    -------
    float
        0 for one who is sure and right; `log(n_classes)` for one who does not know.
    """
    right = proba[np.arange(len(codes)), codes].astype(np.float64)
    return float(-np.log(np.maximum(right, 1e-12)).mean())
