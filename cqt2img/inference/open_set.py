"""None of these: how familiar a recording is to a model, and below which point it is called unknown."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cqt2img.errors import InputError
from cqt2img.inference.enrollment import Head, ReferenceSet

log = logging.getLogger(__name__)
SCORES = ("softmax", "energy", "neighbours")
_MOST_LOST = 0.1  # of the recordings of known players
_FEWEST = (
    4  # classes of which two sets can be left out in turn, with two or more staying
)
_STRENGTH = (
    1e-3  # inverse regularisation of the heads that are fitted without some players
)
_ENOUGH = 2000  # recordings to fit these to


@dataclass(frozen=True)
class OpenSetDetector:
    """How a model tells that a player is none of those it knows.

    Parameters
    ----------
    score : {"neighbours", "softmax", "energy"}
        What is measured, see `measure`.
    lost : float
        The part of the held-out recordings of known players that is called unknown, 0 to 0.1.
    auroc : dict of str to float
        For every score, how often a held-out recording of a known player looks more familiar than one of
        a player who was left out; .5 is chance. Empty where there were too few players to leave some out.
    """

    score: str = "neighbours"
    lost: float = _MOST_LOST
    auroc: dict[str, float] | None = None

    def judge(
        self, features: NDArray[np.float32], head: Head, gallery: ReferenceSet
    ) -> NDArray[np.float64]:
        """Say how familiar recordings are, beside recordings of known players that training did not meet.

        Parameters
        ----------
        features : ndarray of float32, shape (n_recordings, n_features)
            Of the recordings.
        head : Head
            Of the model.
        gallery : ReferenceSet
            What it remembers.

        Returns
        -------
        ndarray of float64, shape (n_recordings,)
            The part of the held-out recordings that looked no more familiar, 0 to 1. What is below
            `lost` is unknown.

        Notes
        -----
        A conformal p-value: of recordings that are to the model as the held-out ones are, one in ten
        is below .1.

        References
        ----------
        Stephen Bates, Emmanuel Candès, Lihua Lei, Yaniv Romano and Matteo Sesia, "Testing for Outliers
        with Conformal p-Values", 2023.
        """
        known = np.sort(
            measure(self.score, gallery.features[gallery.held], head, gallery)
        )
        return np.searchsorted(
            known, measure(self.score, features, head, gallery), side="right"
        ) / len(known)


def measure(
    score: str, features: NDArray[np.float32], head: Head, gallery: ReferenceSet
) -> NDArray[np.float64]:
    """Measure how familiar recordings are to a model.

    Parameters
    ----------
    score : {"softmax", "energy", "neighbours"}
        "softmax": logarithm of the highest probability. "energy": logarithm of the sum of the
        exponentials of the logits. "neighbours": cosine to the nearest training recording.
    features : ndarray of float32, shape (n_recordings, n_features)
        Of the recordings.
    head : Head
        Of the model.
    gallery : ReferenceSet
        What it remembers.

    Returns
    -------
    ndarray of float64, shape (n_recordings,)
        More is more familiar.

    References
    ----------
    Dan Hendrycks and Kevin Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution
    Examples in Neural Networks", 2017.
    Weitang Liu, Xiaoyun Wang, John D. Owens and Yixuan Li, "Energy-based Out-of-distribution
    Detection", 2020.
    Yiyou Sun, Yifei Ming, Xiaojin Zhu and Yixuan Li, "Out-of-Distribution Detection with Deep Nearest
    Neighbors", 2022.
    """
    from scipy.special import log_softmax, logsumexp

    if score == "softmax":
        return log_softmax(head(features), axis=1).max(axis=1)
    if score == "energy":
        return logsumexp(head(features), axis=1)
    return (
        (_unit(features) @ _unit(gallery.features[~gallery.held]).T)
        .max(axis=1)
        .astype(np.float64)
    )


def _unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def select_score(gallery: ReferenceSet, seed: int = 0) -> OpenSetDetector:
    """Choose how to tell the unknown, by leaving players out in turn.

    Parameters
    ----------
    gallery : ReferenceSet
        What the model remembers.
    seed : int
        Of who is left out with whom.

    Returns
    -------
    OpenSetDetector
        The score that tells best the held-out recordings of players that were left out from those of
        others, and the loss of known recordings, 10 % at most, at which both are best recognised on
        average. With fewer than four classes, or no recordings held out of some: nearest neighbours, at 10 %.

    Notes
    -----
    The network is not trained again: its body has met the players that are left out, only the head
    has not. Where the body was trained on them that is too good; `benchmarks/unknown.py` says by how much.
    """
    found: dict[str, list[float]] = {score: [] for score in SCORES}
    gains: dict[str, list[list[float]]] = {score: [] for score in SCORES}
    parts = np.linspace(0.01, _MOST_LOST, 10)
    for head, rest, features, known in _worlds(gallery, seed):
        for score in SCORES:
            values = measure(score, features, head, rest)
            found[score].append(_auroc(values[known], values[~known]))
            points = np.quantile(values[known], parts, method="inverted_cdf")
            gains[score].append(
                [
                    (values[~known] < p).mean() - (values[known] < p).mean()
                    for p in points
                ]
            )
    if not found["softmax"]:
        return OpenSetDetector()
    auroc = {score: float(np.mean(values)) for score, values in found.items()}
    best = max(SCORES, key=lambda score: auroc[score])
    return OpenSetDetector(
        best, float(parts[np.mean(gains[best], axis=0).argmax()]), auroc
    )


def _auroc(known: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    from sklearn.metrics import roc_auc_score

    return float(
        roc_auc_score(
            [1] * len(known) + [0] * len(other), np.concatenate([known, other])
        )
    )


def _worlds(
    gallery: ReferenceSet, seed: int
) -> Iterator[tuple[Head, ReferenceSet, NDArray[np.float32], NDArray[np.bool_]]]:
    """Leave players out in turn: a head and a gallery without them, held-out recordings, and which are known."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    classes = np.unique(gallery.codes[~gallery.held])
    if len(classes) < _FEWEST:
        return
    order = np.random.default_rng(seed).permutation(classes)
    features, codes = gallery.features[gallery.held], gallery.codes[gallery.held]
    for out in np.array_split(order, min(5, len(classes) // 2)):
        known = ~np.isin(codes, out)
        if known.all() or not known.any():
            continue
        keep = ~gallery.held & ~np.isin(gallery.codes, out)
        rest = ReferenceSet(
            gallery.features[keep], gallery.codes[keep], gallery.held[keep]
        )
        some = slice(None, None, -(-len(rest.codes) // _ENOUGH))
        norm = StandardScaler().fit(rest.features[some].astype(np.float64))
        model = LogisticRegression(C=_STRENGTH, class_weight="balanced", max_iter=500)
        model.fit(norm.transform(rest.features[some]), rest.codes[some])
        weight = (
            np.concatenate([-model.coef_, model.coef_]) / 2
            if len(model.coef_) == 1
            else model.coef_
        )
        bias = (
            np.concatenate([-model.intercept_, model.intercept_]) / 2
            if len(model.coef_) == 1
            else model.intercept_
        )
        head = Head(weight / norm.scale_, bias - (weight / norm.scale_) @ norm.mean_)
        yield head, rest, features, known


def check_open_set_ready(gallery: ReferenceSet | None, head: Head | None) -> None:
    """Refuse to look for the unknown where that cannot be done.

    Parameters
    ----------
    gallery : ReferenceSet or None
        What the model remembers.
    head : Head or None
        Of the model.

    Raises
    ------
    InputError
        If the model was fitted by an older version, with a head that is not linear, or without validation
        recordings.
    """
    if gallery is None:
        raise InputError(
            "predict: unknown must be asked of a model fitted by this version, got an older one. Fit and save it again."
        )
    if head is None:
        raise InputError(
            "predict: unknown must be asked of a network whose head is linear, got another. Choose another backbone."
        )
    if not gallery.held.any():
        raise InputError(
            "predict: unknown must be asked of a model with validation recordings, which say how strange a known "
            "player may sound, got none. Fit with validation= or with validation_fraction above 0."
        )


def unknown_label(unknown: bool | str, classes: NDArray[Any]) -> str:
    """Give the word for "none of these".

    Parameters
    ----------
    unknown : bool or str
        What `predict` is given: True, or another word than "unknown".
    classes : ndarray, shape (n_classes,)
        The names.

    Returns
    -------
    str
        The word.

    Raises
    ------
    InputError
        If it is no word, or the name of a class.

    Examples
    --------
    >>> unknown_label(True, np.array(["Evans", "Monk"]))
    'unknown'
    """
    word = "unknown" if unknown is True else unknown
    if not isinstance(word, str) or not word:
        raise InputError(
            f"predict: unknown must be True, False or a word, got {unknown!r}. Choose one."
        )
    if word in classes.tolist():
        raise InputError(
            f"predict: unknown must be no name of a class, got {word!r}. Pass another word, as in unknown='nobody'."
        )
    return word
