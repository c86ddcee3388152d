"""Open-set recognition: detect recordings of players absent from training."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cqt2img._utils.array_types import BoolArray, Float32Array, Float64Array, Labels
from cqt2img.errors import InputError
from cqt2img.inference.linear_head import LinearHead
from cqt2img.inference.references import ReferenceSet

SCORE_NAMES = ("softmax", "energy", "neighbours")
_MAX_REJECTION_RATE = 0.1
# Four classes: two folds can be left out in turn, and two classes or more remain.
_MIN_CLASSES = 4
_MAX_FOLDS = 5
_INVERSE_REGULARISATION = 1e-3  # of the heads that are fitted without some classes
_MAX_FIT_RECORDINGS = 2000  # that such a head is fitted to


@dataclass(frozen=True)
class OpenSetDetector:
    """Rule by which a recording is called unknown.

    Parameters
    ----------
    score_name : {"neighbours", "softmax", "energy"}
        Score to compare recordings by, see `compute_score`.
    rejection_rate : float
        Fraction of validation recordings of known players that is called unknown,
        0 to 0.1. A recording with a p-value below it is called unknown.
    auroc : dict of str to float, or None
        Area under the ROC curve of each score: how often a validation recording of
        a known player scores higher than one of a player left out; 0.5 is chance.
        None if there were too few classes to leave some out.
    """

    score_name: str = "neighbours"
    rejection_rate: float = _MAX_REJECTION_RATE
    auroc: dict[str, float] | None = None

    def score(
        self, features: Float32Array, head: LinearHead, references: ReferenceSet
    ) -> Float64Array:
        """Compute conformal p-values of recordings.

        Parameters
        ----------
        features : ndarray of float32, shape (n_recordings, n_features)
            Embeddings of the recordings.
        head : LinearHead
            Head of the model.
        references : ReferenceSet
            References of the model, with one validation recording or more.

        Returns
        -------
        ndarray of float64, shape (n_recordings,)
            Fraction of the validation recordings that score no higher, 0 to 1.

        Notes
        -----
        Of recordings distributed like the validation recordings, one in ten has a
        p-value below 0.1.

        References
        ----------
        Stephen Bates, Emmanuel Candès, Lihua Lei, Yaniv Romano and Matteo Sesia,
        "Testing for Outliers with Conformal p-Values", 2023.
        """
        calibration = compute_score(
            self.score_name, references.validation_features, head, references
        )
        calibration.sort()
        scores = compute_score(self.score_name, features, head, references)
        n_lower = np.searchsorted(calibration, scores, side="right")
        return n_lower / len(calibration)


def compute_score(
    name: str,
    features: Float32Array,
    head: LinearHead,
    references: ReferenceSet,
) -> Float64Array:
    """Compute how similar recordings are to those of the known players.

    Parameters
    ----------
    name : {"softmax", "energy", "neighbours"}
        "softmax": logarithm of the highest probability. "energy": logarithm of the
        sum of the exponentials of the logits. "neighbours": cosine similarity to the
        nearest training recording.
    features : ndarray of float32, shape (n_recordings, n_features)
        Embeddings of the recordings.
    head : LinearHead
        Head of the model.
    references : ReferenceSet
        References of the model.

    Returns
    -------
    ndarray of float64, shape (n_recordings,)
        Higher is more similar.

    References
    ----------
    Dan Hendrycks and Kevin Gimpel, "A Baseline for Detecting Misclassified and
    Out-of-Distribution Examples in Neural Networks", 2017.
    Weitang Liu, Xiaoyun Wang, John D. Owens and Yixuan Li, "Energy-based
    Out-of-distribution Detection", 2020.
    Yiyou Sun, Yifei Ming, Xiaojin Zhu and Yixuan Li, "Out-of-Distribution Detection
    with Deep Nearest Neighbors", 2022.
    """
    from scipy.special import log_softmax, logsumexp

    if name == "softmax":
        return log_softmax(head(features), axis=1).max(axis=1)
    if name == "energy":
        return logsumexp(head(features), axis=1)
    training = _normalise(references.training_features)
    similarity = _normalise(features) @ training.T
    return similarity.max(axis=1).astype(np.float64)


def _normalise(features: Float32Array) -> Float32Array:
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(norms, 1e-12)


def select_score(references: ReferenceSet, seed: int = 0) -> OpenSetDetector:
    """Choose the score and the rejection rate by leaving classes out in turn.

    Parameters
    ----------
    references : ReferenceSet
        References of the model.
    seed : int
        Seed of the order in which classes are left out, 0 or more.

    Returns
    -------
    OpenSetDetector
        The score with the highest mean AUROC, and the rejection rate, 0.01 to 0.1,
        with the highest mean difference between the detection rate and the false
        alarm rate. With fewer than four classes, or without validation recordings:
        nearest neighbours at 0.1.

    Notes
    -----
    Only a linear head is fitted again without the classes that are left out. If the
    backbone was trained on these classes, the AUROC is too high;
    `benchmarks/unknown.py` measures by how much.
    """
    rates = np.linspace(0.01, _MAX_REJECTION_RATE, 10)
    aurocs: dict[str, list[float]] = {name: [] for name in SCORE_NAMES}
    gains: dict[str, list[Float64Array]] = {name: [] for name in SCORE_NAMES}
    for fold in _leave_classes_out(references, seed):
        for name in SCORE_NAMES:
            scores = compute_score(name, fold.features, fold.head, fold.references)
            known = scores[fold.is_known]
            unknown = scores[~fold.is_known]
            aurocs[name].append(_auroc(known, unknown))
            gains[name].append(_detection_gain(known, unknown, rates))
    if not aurocs["softmax"]:
        return OpenSetDetector()
    auroc = {name: float(np.mean(values)) for name, values in aurocs.items()}
    best = max(SCORE_NAMES, key=auroc.__getitem__)
    best_rate = np.mean(gains[best], axis=0).argmax()
    return OpenSetDetector(best, float(rates[best_rate]), auroc)


def _auroc(known: Float64Array, unknown: Float64Array) -> float:
    from sklearn.metrics import roc_auc_score

    is_known = [1] * len(known) + [0] * len(unknown)
    return float(roc_auc_score(is_known, np.concatenate([known, unknown])))


def _detection_gain(
    known: Float64Array,
    unknown: Float64Array,
    rates: Float64Array,
) -> Float64Array:
    """Return the detection rate less the false alarm rate, at each rejection rate."""
    thresholds = np.quantile(known, rates, method="inverted_cdf")
    gains = []
    for threshold in thresholds:
        detected = (unknown < threshold).mean()
        false_alarms = (known < threshold).mean()
        gains.append(detected - false_alarms)
    return np.array(gains)


@dataclass(frozen=True)
class _Fold:
    """A head and references without some classes, and all validation recordings."""

    head: LinearHead
    references: ReferenceSet
    features: Float32Array
    is_known: BoolArray


def _leave_classes_out(references: ReferenceSet, seed: int) -> Iterator[_Fold]:
    is_training = ~references.is_validation
    classes = np.unique(references.class_indices[is_training])
    if len(classes) < _MIN_CLASSES:
        return
    order = np.random.default_rng(seed).permutation(classes)
    n_folds = min(_MAX_FOLDS, len(classes) // 2)
    validation_classes = references.class_indices[references.is_validation]
    for left_out in np.array_split(order, n_folds):
        is_known = ~np.isin(validation_classes, left_out)
        if is_known.all() or not is_known.any():
            continue
        is_kept = ~np.isin(references.class_indices, left_out)
        kept = references.select(is_training & is_kept)
        yield _Fold(_fit_head(kept), kept, references.validation_features, is_known)


def _fit_head(references: ReferenceSet) -> LinearHead:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    step = -(-len(references.class_indices) // _MAX_FIT_RECORDINGS)
    fitted = references.select(slice(None, None, step))
    scaler = StandardScaler().fit(fitted.features.astype(np.float64))
    model = LogisticRegression(
        C=_INVERSE_REGULARISATION, class_weight="balanced", max_iter=500
    )
    model.fit(scaler.transform(fitted.features), fitted.class_indices)
    return LinearHead.from_regression(model, scaler)


def check_open_set_ready(
    references: ReferenceSet | None, head: LinearHead | None
) -> None:
    """Check that a model can detect unknown players.

    Parameters
    ----------
    references : ReferenceSet or None
        References of the model.
    head : LinearHead or None
        Head of the model.

    Raises
    ------
    InputError
        If the model has no references, no linear head, or no validation recordings.
    """
    if references is None:
        raise InputError(
            "predict: unknown must be False for a model saved by an older version, "
            "which stored no references. Fit and save the model again."
        )
    if head is None:
        raise InputError(
            "predict: unknown must be False for a network whose head is not linear. "
            "Choose another backbone."
        )
    if not references.is_validation.any():
        raise InputError(
            "predict: unknown must be False for a model fitted without validation "
            "recordings, which calibrate the threshold. Fit with validation= or with "
            "validation_fraction above 0."
        )


def resolve_unknown_label(unknown: object, classes: Labels) -> str:
    """Return the label of recordings by unknown players.

    Parameters
    ----------
    unknown : bool or str
        True for "unknown", or another label.
    classes : ndarray, shape (n_classes,)
        Classes of the model.

    Returns
    -------
    str
        The label.

    Raises
    ------
    InputError
        If `unknown` is neither True nor a label, or the name of a class.

    Examples
    --------
    >>> resolve_unknown_label(True, np.array(["Evans", "Monk"]))
    'unknown'
    """
    label = "unknown" if unknown is True else unknown
    if not isinstance(label, str) or not label:
        raise InputError(
            f"predict: unknown must be True, False or a label, got {unknown!r}."
        )
    if label in classes.tolist():
        raise InputError(
            f"predict: unknown must not be the name of a class, got {label!r}. "
            "Pass another label, such as unknown='nobody'."
        )
    return label
