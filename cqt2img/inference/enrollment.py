"""Enrollment: add a player to a fitted model from a few clips."""

import logging
import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.array_types import (
    BoolArray,
    Float32Array,
    Float64Array,
    IntArray,
)
from cqt2img.data.recording_types import Label, Recordings
from cqt2img.errors import InputError
from cqt2img.inference.linear_head import LinearHead, read_head, widen_head
from cqt2img.inference.model import EnrollmentReport, FittedModel
from cqt2img.inference.predict import RecordingOutput, stack_embeddings
from cqt2img.inference.references import ReferenceSet

log = logging.getLogger(__name__)
# Per feature; of 0.0003 to 0.03, chosen on validation albums of jazz and on singers,
# benchmarks/unknown.py.
_RIDGE = 1e-3
_MAX_FOLDS = 10


def enroll(
    model: FittedModel,
    name: Label,
    outputs: Sequence[RecordingOutput],
    albums: NDArray[np.str_],
    *,
    groups: Sequence[object],
    paths: Sequence[str],
) -> FittedModel:
    """Return a model with one more player.

    Parameters
    ----------
    model : FittedModel
        The model; nothing of it is changed, so that an interrupt or an error leaves
        it as it was.
    name : str, int, float or bool
        The new class, of the same type as those of the model.
    outputs : sequence of RecordingOutput
        What `predict_recordings` yields for the clips of the new player with
        `with_embeddings=True`. Unreadable clips are left out.
    albums : ndarray of str, shape (n_clips,)
        What was recorded together, see `infer_albums`.
    groups : sequence, one entry per clip
        Group of each clip, for the provenance.
    paths : sequence of str, one entry per clip
        Name of each clip, for error messages.

    Returns
    -------
    FittedModel
        A new model with a network of its own.

    Raises
    ------
    InputError
        If the name cannot be added, the model has no references or no linear head,
        no clip can be read, or training used one of the clips.
    """
    head, references = check_enrollable(model, name)
    readable, features = stack_embeddings(outputs)
    fingerprints = [outputs[n].info.fingerprint for n in readable]
    _check_new_clips(model, [paths[n] for n in readable], fingerprints)
    albums = albums[readable]
    row, bias, is_correct = fit_new_row(head, references, features, albums)

    classes = model.classes.tolist()
    class_index = sum(known < name for known in classes)
    classes.insert(class_index, name)
    accuracy = None if is_correct is None else float(is_correct.mean())
    n_albums = len(np.unique(albums))
    report = EnrollmentReport(name, len(readable), n_albums, accuracy)
    provenance = model.provenance.with_enrollment(
        report,
        groups=[str(groups[n]) for n in readable],
        fingerprints=fingerprints,
    )
    enrolled = replace(
        model,
        network=widen_head(model.network, class_index, row, bias),
        classes=np.asarray(classes),
        references=references.insert_class(class_index, features),
        provenance=provenance,
    )
    level = logging.INFO if report.is_reliable else logging.WARNING
    log.log(level, "%s", report)
    return enrolled


def check_enrollable(
    model: FittedModel, name: Label
) -> tuple[LinearHead, ReferenceSet]:
    """Check that a player can be added to a model.

    Parameters
    ----------
    model : FittedModel
        The model.
    name : str, int, float or bool
        The new class.

    Returns
    -------
    head : LinearHead
        Head of the model.
    references : ReferenceSet
        References of the model.

    Raises
    ------
    InputError
        If the model has the class already, its classes are of another type, or it
        has no references or no linear head.
    """
    known = model.classes.tolist()
    kind = type(known[0])
    if type(name) is not kind or name == "":
        wanted = "a name" if kind is str else f"of type {kind.__name__}"
        raise InputError(
            f"enroll: name must be {wanted}, like {known[0]!r}, got {name!r}."
        )
    if name in known:
        raise InputError(
            f"enroll: name must not be a class of the model, got {name!r}. "
            "Choose another name."
        )
    head = read_head(model.network)
    if head is None:
        raise InputError(
            "enroll: the model must have a linear head. Choose another backbone."
        )
    if model.references is None:
        raise InputError(
            "enroll: the model was saved by an older version, which stored no "
            "references. Fit and save the model again."
        )
    return head, model.references


def _check_new_clips(
    model: FittedModel, paths: Sequence[str], fingerprints: Sequence[str]
) -> None:
    """Check that there are clips, and that training used none of them."""
    if not paths:
        raise InputError(
            "enroll: X holds no clip that can be read. Add clips of the new player."
        )
    known = set(model.provenance.fingerprints)
    for path, fingerprint in zip(paths, fingerprints, strict=True):
        if fingerprint in known:
            raise InputError(
                f"enroll: X must hold clips that training did not use, got {path!r}. "
                "Leave it out."
            )


def fit_row(
    head: LinearHead, references: ReferenceSet, clips: Float32Array
) -> tuple[Float64Array, float]:
    """Fit the row of the head for a new class; the other rows stay fixed.

    Parameters
    ----------
    head : LinearHead
        Head of the known classes.
    references : ReferenceSet
        Recordings of the known classes.
    clips : ndarray of float32, shape (n_clips, n_features)
        Embeddings of one or more clips of the new class.

    Returns
    -------
    row : ndarray of float64, shape (n_features,)
        Weights.
    bias : float
        Bias.

    Notes
    -----
    Logistic regression of the new class against all others, whose logits the head
    gives; every class has the same weight. Few clips in many dimensions require a
    strong ridge penalty. Unlike a head that is fitted anew, this one keeps the
    logits of the other classes. It was chosen on validation albums of jazz: accuracy
    .30 with eight players and two more, against .27 for a row imprinted from the mean
    of the clips; on test albums both had .28 (`benchmarks/unknown.py`).

    References
    ----------
    Hang Qi, Matthew Brown and David G. Lowe, "Low-Shot Learning with Imprinted
    Weights", 2018.
    Spyros Gidaris and Nikos Komodakis, "Dynamic Few-Shot Visual Learning without
    Forgetting", 2018.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    features = references.features
    mean, scale = _measure_scale(features)
    x = (np.concatenate([features, clips]) - mean) / scale
    n_features = x.shape[1]
    other_logits = np.append(_log_sum_exp(head, features), _log_sum_exp(head, clips))
    is_new = np.arange(len(x)) >= len(features)
    weight = _class_weights(references.class_indices, len(clips))
    ridge = _RIDGE * n_features

    def loss(parameters: Float64Array) -> tuple[float, Float64Array]:
        row = parameters[:-1]
        bias = parameters[-1]
        logit = x @ row + bias - other_logits
        log_loss = weight @ (np.logaddexp(0, logit) - is_new * logit)
        penalty = ridge / 2 * (row @ row)
        error = weight * (expit(logit) - is_new)
        row_gradient = error @ x + ridge * row
        return float(log_loss + penalty), np.append(row_gradient, error.sum())

    start = np.zeros(n_features + 1)
    start[-1] = np.median(other_logits)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500})
    row = found.x[:-1] / scale
    bias = found.x[-1] - row @ mean
    return row, float(bias)


def _measure_scale(features: Float32Array) -> tuple[Float64Array, Float64Array]:
    """Return the mean and the scale of every feature."""
    mean = features.mean(axis=0, dtype=np.float64)
    scale = features.std(axis=0, dtype=np.float64)
    # The noise of a feature that is almost constant must not be amplified.
    lowest = max(0.01 * scale.max(), 1e-12)
    return mean, np.maximum(scale, lowest)


def _log_sum_exp(head: LinearHead, features: Float32Array) -> Float64Array:
    from scipy.special import logsumexp

    return logsumexp(head(features), axis=1)


def _class_weights(class_indices: IntArray, n_clips: int) -> Float64Array:
    """Return weights of references and clips by which every class counts the same."""
    counts = np.bincount(class_indices)
    reference_weight = 1 / counts[class_indices]
    clip_weight = np.full(n_clips, 1 / n_clips)
    weight = np.append(reference_weight, clip_weight)
    return weight / weight.sum()


def fit_new_row(
    head: LinearHead,
    references: ReferenceSet,
    clips: Float32Array,
    albums: NDArray,
) -> tuple[Float64Array, float, BoolArray | None]:
    """Fit the row of the head for a new class, and test it on clips left out.

    Parameters
    ----------
    head : LinearHead
        Head of the known classes.
    references : ReferenceSet
        Recordings of the known classes.
    clips : ndarray of float32, shape (n_clips, n_features)
        Embeddings of one or more clips of the new class.
    albums : ndarray, shape (n_clips,)
        Album of each clip. Albums are left out whole where there are two or more.

    Returns
    -------
    row : ndarray of float64, shape (n_features,)
        Weights.
    bias : float
        Bias.
    is_correct : ndarray of bool, shape (n_clips,), or None
        Which clips are predicted correctly when they are left out; None for a single
        clip.

    Notes
    -----
    A row overfits the few clips that it was fitted to, and its class would hardly
    ever be predicted for others. So its bias is fitted once more, to the logits of
    the clips when they are left out and to the validation recordings of the other
    classes.
    """
    row, bias = fit_row(head, references, clips)
    if len(clips) < 2:
        return row, bias, None
    logits = _left_out_logits(head, references, clips, albums)
    if references.is_validation.any():
        validation = references.validation_features
        new_margin = logits - _log_sum_exp(head, clips)
        other_logits = validation @ row + bias
        other_margin = other_logits - _log_sum_exp(head, validation)
        shift = _fit_bias_shift(new_margin, other_margin, len(head.bias))
        bias += shift
        logits = logits + shift
    return row, float(bias), logits > head(clips).max(axis=1)


def _left_out_logits(
    head: LinearHead,
    references: ReferenceSet,
    clips: Float32Array,
    albums: NDArray,
) -> Float64Array:
    """Return the logit of the new class for every clip, fitted without its fold."""
    folds = np.unique(albums, return_inverse=True)[1]
    if not folds.any():  # one album: leave out clips
        folds = np.arange(len(clips))
    folds = folds % _MAX_FOLDS
    logits = np.empty(len(clips))
    for fold in np.unique(folds):
        is_left_out = folds == fold
        row, bias = fit_row(head, references, clips[~is_left_out])
        logits[is_left_out] = clips[is_left_out] @ row + bias
    return logits


def _fit_bias_shift(
    new_margin: Float64Array,
    other_margin: Float64Array,
    n_others: int,
) -> float:
    """Return the shift of the bias with the lowest log-loss; classes count the same."""
    from scipy.optimize import minimize_scalar

    def loss(shift: float) -> float:
        new_loss = np.logaddexp(0, -new_margin - shift).mean()
        other_loss = np.logaddexp(0, other_margin + shift).mean()
        return float(new_loss + n_others * other_loss)

    found = minimize_scalar(loss, bounds=(-30, 30), method="bounded")
    return float(found.x)


def infer_albums(recordings: Recordings) -> NDArray[np.str_]:
    """Return what was recorded together, as far as a list of clips shows.

    Parameters
    ----------
    recordings : Recordings
        The clips.

    Returns
    -------
    ndarray of str, shape (n_clips,)
        The group; for a clip that is its own group, the folder that holds it.
    """
    albums = []
    for recording in recordings:
        path = recording.location
        if path is not None and recording.group == path:
            albums.append(os.path.dirname(path))
        else:
            albums.append(recording.group)
    return np.array(albums)
