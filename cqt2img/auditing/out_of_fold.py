"""Out-of-fold predictions of the small models of an audit."""

import warnings
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from cqt2img._utils.array_types import Float32Array, IntArray
from cqt2img.data.splits import Split

MIN_LOG_PROBA = -30.0  # so that one tile cannot outweigh all others


class ShrinkageLDA(ClassifierMixin, BaseEstimator):
    """Linear discriminant analysis with Ledoit-Wolf shrinkage, safe for tiny folds.

    Where the training data has a single class, or no more samples than classes, all
    classes are predicted with equal probability.

    Parameters
    ----------
    equal_priors : bool
        Whether all classes have the same prior; by default their share of the samples.

    References
    ----------
    Olivier Ledoit and Michael Wolf, "Honey, I Shrunk the Sample Covariance Matrix",
    2004.
    """

    def __init__(self, equal_priors: bool = False) -> None:
        self.equal_priors = equal_priors

    def fit(self, X: ArrayLike, y: ArrayLike) -> "ShrinkageLDA":
        """Fit the model.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            Features.
        y : array-like, shape (n_samples,)
            Classes.

        Returns
        -------
        ShrinkageLDA
            The fitted estimator.
        """
        features = np.asarray(X)
        self.classes_, counts = np.unique(y, return_counts=True)
        n_classes = len(self.classes_)
        self.model_ = None
        if not 1 < n_classes < counts.sum():
            return self
        priors = None
        if self.equal_priors:
            priors = np.full(n_classes, 1 / n_classes)
        model = LinearDiscriminantAnalysis(
            solver="lsqr",
            shrinkage="auto",
            priors=priors,
        )
        with warnings.catch_warnings():
            # a class of one sample has no covariance of its own
            warnings.filterwarnings("ignore", message="Only one sample")
            self.model_ = model.fit(features, y)
        return self

    def predict_log_proba(self, X: ArrayLike) -> NDArray[np.floating]:
        """Predict log-probabilities.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            Features.

        Returns
        -------
        ndarray of float, shape (n_samples, n_classes)
            At least -30.
        """
        features = np.asarray(X)
        if self.model_ is None:
            shape = (len(features), len(self.classes_))
            return np.full(shape, MIN_LOG_PROBA, features.dtype)
        log_proba = self.model_.predict_log_proba(features)
        return np.maximum(log_proba, MIN_LOG_PROBA)

    def predict(self, X: ArrayLike) -> NDArray:
        """Predict classes.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            Features.

        Returns
        -------
        ndarray, shape (n_samples,)
            The most probable class of each sample.
        """
        best = self.predict_log_proba(X).argmax(axis=1)
        return self.classes_[best]


def predict_out_of_fold(
    features: Float32Array,
    class_indices: IntArray,
    folds: Iterable[Split],
    *,
    standardize: bool = False,
    equal_priors: bool = False,
) -> NDArray[np.floating]:
    """Predict log-probabilities by models that were not trained on the sample.

    Parameters
    ----------
    features : ndarray of float32, shape (n_samples, n_features)
        Features.
    class_indices : ndarray of int64, shape (n_samples,)
        Classes, 0 to n_classes - 1.
    folds : iterable of (training, test)
        Sample indices; every sample is in one test set.
    standardize : bool
        Whether features are scaled to unit variance in the training samples.
    equal_priors : bool
        As for `ShrinkageLDA`.

    Returns
    -------
    ndarray of float, shape (n_samples, n_classes)
        At least -30, which is also the value of classes that the fold was not trained
        on.
    """
    model = ShrinkageLDA(equal_priors)
    if standardize:
        model = make_pipeline(StandardScaler(), model)
    # One thread: more make matrices of this size slower, twenty times so on a busy
    # machine, and change the last bits.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Number of classes in training fold")
        log_proba = cross_val_predict(
            model,
            features,
            class_indices,
            cv=list(folds),
            method="predict_log_proba",
        )
    return np.maximum(log_proba, MIN_LOG_PROBA)
