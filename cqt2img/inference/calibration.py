"""Pool tiles to recordings, and calibrate probabilities by a temperature."""

import numpy as np

from cqt2img._utils.array_types import Float32Array, IntArray

_PRIOR_SD = 0.5  # of the logarithm of the temperature
_MIN_TEMPERATURE = 0.1
_MAX_TEMPERATURE = 10.0


def pool(log_proba: Float32Array) -> Float32Array:
    """Compute the log-probabilities of a recording from those of its tiles.

    Parameters
    ----------
    log_proba : ndarray of float32, shape (n_tiles, n_classes)
        Log-probabilities of the tiles.

    Returns
    -------
    ndarray of float32, shape (n_classes,)
        Log-probabilities of the recording.

    Notes
    -----
    The normalised geometric mean of the probabilities. Tiles of one recording are
    not independent, so that their product would be overconfident.

    Examples
    --------
    One tile is undecided, the other is not:

    >>> tiles = np.log(np.array([[0.5, 0.5], [0.9, 0.1]], dtype="float32"))
    >>> np.exp(pool(tiles)).round(2)
    array([0.75, 0.25], dtype=float32)
    """
    mean = log_proba.mean(axis=0, dtype=np.float64)
    normalised = mean - np.logaddexp.reduce(mean)
    return normalised.astype(np.float32)


def to_proba(log_proba: Float32Array, temperature: float = 1.0) -> Float32Array:
    """Compute probabilities from log-probabilities at a temperature.

    Parameters
    ----------
    log_proba : ndarray of float32, shape (..., n_classes)
        Log-probabilities.
    temperature : float
        Above 0; probabilities are more even at a higher temperature.

    Returns
    -------
    ndarray of float32, shape (..., n_classes)
        Probabilities; they sum to 1 over the classes.

    References
    ----------
    Chuan Guo, Geoff Pleiss, Yu Sun and Kilian Q. Weinberger, "On Calibration of
    Modern Neural Networks", 2017.
    """
    scaled = log_proba.astype(np.float64) / temperature
    log_sum = np.logaddexp.reduce(scaled, axis=-1, keepdims=True)
    return np.exp(scaled - log_sum).astype(np.float32)


def fit_temperature(log_proba: Float32Array, class_indices: IntArray) -> float:
    """Compute the temperature with the lowest log-loss on validation recordings.

    Parameters
    ----------
    log_proba : ndarray of float32, shape (n_recordings, n_classes)
        Log-probabilities of recordings that training did not use.
    class_indices : ndarray of int64, shape (n_recordings,)
        Their classes.

    Returns
    -------
    float
        Temperature, 0.1 to 10.

    Notes
    -----
    A normal prior on the logarithm of the temperature, with mean 0 and standard
    deviation 0.5, keeps the temperature near 1 if there are few recordings.

    References
    ----------
    Chuan Guo, Geoff Pleiss, Yu Sun and Kilian Q. Weinberger, "On Calibration of
    Modern Neural Networks", 2017.

    Examples
    --------
    Predictions at 99 % of which one half is correct must become almost even:

    >>> confident = np.log(np.array([[0.99, 0.01]] * 100, dtype="float32"))
    >>> temperature = fit_temperature(confident, np.array([0, 1] * 50))
    >>> to_proba(confident, temperature)[0].round(1)
    array([0.6, 0.4], dtype=float32)
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        proba = to_proba(log_proba, float(np.exp(log_temperature)))
        prior = 0.5 * (log_temperature / _PRIOR_SD) ** 2
        return len(class_indices) * log_loss(proba, class_indices) + prior

    bounds = (np.log(_MIN_TEMPERATURE), np.log(_MAX_TEMPERATURE))
    found = minimize_scalar(loss, bounds=bounds, method="bounded")
    return float(np.exp(found.x))


def log_loss(proba: Float32Array, class_indices: IntArray) -> float:
    """Compute the mean log-loss, in nats.

    Parameters
    ----------
    proba : ndarray of float32, shape (n_recordings, n_classes)
        Probabilities.
    class_indices : ndarray of int64, shape (n_recordings,)
        Classes of the recordings.

    Returns
    -------
    float
        0 for confident correct predictions; `log(n_classes)` for even ones.
    """
    recordings = np.arange(len(class_indices))
    correct = proba[recordings, class_indices].astype(np.float64)
    return float(-np.log(np.maximum(correct, 1e-12)).mean())
