"""Training data: tiles, targets, groups, and the split into training and validation."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.messages import start_errors_with
from cqt2img._utils.progress import Progress
from cqt2img.data.labels import encode, find_classes, one_hot
from cqt2img.data.recordings import (
    Label,
    Recordings,
    RecordingsLike,
    list_recordings,
)
from cqt2img.data.splits import check_leaks, validation_split
from cqt2img.data.tile_arrays import TileArrays, load_tile_arrays
from cqt2img.errors import InputError
from cqt2img.tiles.extract import raise_on_failures
from cqt2img.tiles.spec import TileSpec

log = logging.getLogger(__name__)

Validation: TypeAlias = "RecordingsLike | tuple[object, ...] | Sequence[int] | None"


@dataclass(frozen=True)
class ListedData:
    """Recordings that `fit` was called with, before their tiles are loaded.

    Parameters
    ----------
    recordings : Recordings
        For training and validation.
    is_validation : ndarray of bool, shape (n_recordings,)
        Whether a recording was passed for validation.
    classes : ndarray, shape (n_classes,)
        Sorted labels of the recordings for training.
    """

    recordings: Recordings
    is_validation: NDArray[np.bool_]
    classes: NDArray[np.generic]


@dataclass(frozen=True)
class SkippedRecording:
    """A recording that was left out of training because it cannot be read.

    Parameters
    ----------
    path : str
        The recording.
    reason : str
        Short token of the error, such as "silent".
    message : str
        The error message.
    """

    path: str
    reason: str
    message: str


@dataclass(frozen=True)
class LoadedData:
    """Recordings that could be read, with their tiles.

    Parameters
    ----------
    arrays : TileArrays
        Their tiles.
    recordings : Recordings
        The recordings.
    fingerprints : list of str
        Hash of the tiles of each.
    is_validation : ndarray of bool, shape (n_recordings,)
        Whether a recording was passed for validation.
    classes : ndarray, shape (n_classes,)
        Labels of all recordings that were listed for training.
    skipped : list of SkippedRecording
        Recordings that could not be read.
    """

    arrays: TileArrays
    recordings: Recordings
    fingerprints: list[str]
    is_validation: NDArray[np.bool_]
    classes: NDArray[np.generic]
    skipped: list[SkippedRecording]


@dataclass(frozen=True)
class TrainingData:
    """Tiles, targets and groups, split into training and validation.

    Parameters
    ----------
    arrays : TileArrays
        Tiles of all recordings.
    targets : ndarray of float32, shape (n_recordings, n_classes)
        One-hot, or with label smoothing.
    groups : ndarray of str, shape (n_recordings,)
        What was recorded together.
    train_index, validation_index : ndarray of int64
        Indices of the recordings to train on, and of those to choose the epoch by.
        Without the latter the last epoch is kept.
    names : sequence of str
        Names of the recordings for messages; by default their indices.
    """

    arrays: TileArrays
    targets: NDArray[np.float32]
    groups: NDArray[np.generic]
    train_index: NDArray[np.int64]
    validation_index: NDArray[np.int64]
    names: Sequence[str] = ()

    def name(self, index: int) -> str:
        """Return the name of a recording.

        Parameters
        ----------
        index : int
            Index of the recording.

        Returns
        -------
        str
            Its name.
        """
        return self.names[index] if len(self.names) else f"recording {index}"


def list_train_validation(
    X: RecordingsLike,
    y: Iterable[Label] | None,
    groups: Iterable[object] | None,
    group_by: str | None,
    validation: Validation = None,
) -> ListedData:
    """List the recordings that `fit` is called with.

    Parameters
    ----------
    X, y, groups, group_by
        As for `list_recordings`.
    validation : like X, tuple (X, y) or (X, y, groups), or array-like, optional
        Recordings for validation, which are appended to those of `X`; or a fold of `X`:
        a boolean mask with one entry per recording, or indices of recordings.

    Returns
    -------
    ListedData
        The recordings.

    Raises
    ------
    InputError
        If there is only one class, a class has only one recording, or a fold does not
        fit `X`.
    """
    recordings = list_recordings(X, y, groups, group_by, caller="fit")
    is_validation = np.zeros(len(recordings), dtype=bool)
    if validation is not None and _is_fold(validation):
        is_validation = _read_fold(np.asarray(validation), len(recordings))
    elif validation is not None:
        given = validation if isinstance(validation, tuple) else (validation,)
        if len(given) > 3:
            raise InputError(
                "fit: validation must be recordings, (X, y) or (X, y, groups), got a "
                f"tuple of {len(given)}. Remove the others."
            )
        X_valid, y_valid, groups_valid = (*given, None, None)[:3]
        held_out = list_recordings(
            X_valid, y_valid, groups_valid, group_by, caller="fit: validation"
        )
        recordings = recordings + held_out
        is_validation = np.append(is_validation, np.ones(len(held_out), dtype=bool))
    training = recordings.select(~is_validation)
    classes = find_classes(training.labels, training.paths)
    return ListedData(recordings, is_validation, classes)


def _is_fold(validation: object) -> bool:
    """Check whether `validation` is a mask or indices, rather than recordings."""
    if isinstance(validation, np.ndarray):
        return validation.ndim == 1 and validation.dtype.kind in "biu"
    if isinstance(validation, (str, tuple)) or not isinstance(validation, Iterable):
        return False
    entries = list(validation)
    kinds = (bool, int, np.bool_, np.integer)
    return len(entries) > 0 and all(isinstance(entry, kinds) for entry in entries)


def _read_fold(fold: NDArray[np.generic], n: int) -> NDArray[np.bool_]:
    """Return a fold of `X` as a mask, after checking that it fits."""
    if fold.dtype == np.bool_:
        if len(fold) != n:
            raise InputError(
                f"fit: validation must have one entry per recording, got a mask of "
                f"{len(fold)} entries for {n} recordings. Compute it from X."
            )
        mask = fold.astype(bool)
    else:
        index = fold.astype(np.int64)
        outside = index[(index < 0) | (index >= n)]
        if len(outside):
            raise InputError(
                f"fit: validation must contain indices from 0 to {n - 1}, got "
                f"{outside[0]}. Use the indices of the recordings in X."
            )
        mask = np.zeros(n, dtype=bool)
        mask[index] = True
    if not mask.any() or mask.all():
        n_held_out = int(mask.sum())
        raise InputError(
            f"fit: validation must select some of the recordings but not all, got "
            f"{n_held_out} of {n}. Pass the test indices of one fold."
        )
    return mask


def load_train_validation(
    listed: ListedData,
    spec: TileSpec,
    on_error: str,
    n_jobs: int = 1,
    progress: Progress | None = None,
) -> LoadedData:
    """Load the tiles of the recordings that `fit` is called with.

    Parameters
    ----------
    listed : ListedData
        The recordings.
    spec : TileSpec
        The meaning of a pixel.
    on_error : {"raise", "skip"}
        Whether a recording that cannot be read raises an error or is left out.
    n_jobs : int
        Number of processes, as in joblib.
    progress : callable, optional
        As for `load_tile_arrays`.

    Returns
    -------
    LoadedData
        The recordings that could be read, with their tiles.

    Raises
    ------
    AudioError
        If a recording cannot be read and `on_error` is "raise".
    """
    recordings = listed.recordings
    with start_errors_with("fit"):
        arrays, infos = load_tile_arrays(recordings, spec, n_jobs, progress)
    if on_error == "raise":
        advice = "Repair or remove it, or pass on_error='skip'."
        raise_on_failures("fit", recordings.paths, infos, advice)
    skipped = []
    for recording, info in zip(recordings, infos, strict=True):
        if not info.is_ok:
            log.warning("fit: left out %s", info.message)
            skipped.append(SkippedRecording(recording.path, info.reason, info.message))
    is_ok = np.array([info.is_ok for info in infos], dtype=bool)
    return LoadedData(
        arrays=arrays,
        recordings=recordings.select(is_ok),
        fingerprints=[info.fingerprint for info in infos if info.is_ok],
        is_validation=listed.is_validation[is_ok],
        classes=listed.classes,
        skipped=skipped,
    )


def split_training_data(
    loaded: LoadedData,
    validation_fraction: float | None,
    label_smoothing: float,
    random_state: int,
) -> tuple[TrainingData, NDArray[np.generic]]:
    """Split recordings into training and validation, and check for leakage.

    Parameters
    ----------
    loaded : LoadedData
        The recordings and their tiles.
    validation_fraction : float or None
        Part of each class to use for validation, in whole groups; None if validation
        recordings were passed.
    label_smoothing : float
        Part of a one-hot target that is shared among all classes.
    random_state : int
        Seed of the split.

    Returns
    -------
    data : TrainingData
        The split recordings.
    classes : ndarray, shape (n_classes,)
        Their labels, sorted.

    Raises
    ------
    InputError
        If no recording of a class can be read, or a recording is in both parts.
    """
    recordings = loaded.recordings
    is_train = ~loaded.is_validation
    classes = find_classes(recordings.select(is_train).labels)
    lost = sorted(set(map(str, loaded.classes)) - set(map(str, classes)))
    if lost:
        raise InputError(
            "fit: every class must have recordings that can be read, got none for "
            f"{', '.join(lost)}. Repair the files, or leave out the class."
        )
    class_indices = encode(recordings.labels, classes, caller="fit")
    if validation_fraction is None:
        split = (np.flatnonzero(is_train), np.flatnonzero(~is_train))
    else:
        split = validation_split(
            class_indices, recordings.groups, validation_fraction, random_state
        )
    check_leaks(recordings, loaded.fingerprints, split)
    train_index, validation_index = split
    data = TrainingData(
        arrays=loaded.arrays,
        targets=one_hot(class_indices, len(classes), label_smoothing),
        groups=np.array(recordings.groups),
        train_index=train_index,
        validation_index=validation_index,
        names=recordings.paths,
    )
    return data, classes
