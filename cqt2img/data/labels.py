"""Label sets: the names to choose from, as numbers and as targets."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cqt2img.errors import InputError


def find_classes(
    y: Sequence[Any] | NDArray, paths: Sequence[Any] | None = None
) -> NDArray:
    """Give the names to choose from, sorted.

    Parameters
    ----------
    y : sequence
        One label per recording.
    paths : sequence, optional
        Their names, for messages.

    Returns
    -------
    ndarray, shape (n_classes,)
        Every label once.

    Raises
    ------
    InputError
        If a label is missing, there is one class only, or a class has one recording.

    Examples
    --------
    >>> find_classes(["Monk", "Evans", "Monk", "Evans"]).tolist()
    ['Evans', 'Monk']
    """
    check_labelled("fit", y, paths)
    classes, counts = np.unique(np.asarray(y), return_counts=True)
    if len(classes) < 2:
        raise InputError(
            f"fit: y must hold two classes or more, got only {classes[0]!s}. Add recordings of another player."
        )
    if counts.min() < 2:
        lonely = classes[counts.argmin()]
        raise InputError(
            f"fit: y must hold two recordings or more of every class, got one of {lonely!s}. "
            "Add recordings of it, or leave it out."
        )
    return classes


def check_labelled(
    caller: str, y: Sequence[Any] | NDArray, paths: Sequence[Any] | None = None
) -> None:
    """Stop if a recording has no label.

    Parameters
    ----------
    caller : str
        Name of the function that needs them all.
    y : sequence
        One label per recording.
    paths : sequence, optional
        Their names, for the message.

    Raises
    ------
    InputError
        If a label is missing.
    """
    missing = [
        n for n, label in enumerate(y) if label is None or label != label or label == ""
    ]
    if missing:
        first = (
            f"number {missing[0]}"
            if paths is None
            else repr(str(list(paths)[missing[0]]))
        )
        raise InputError(
            f"{caller}: y must label every recording, got none for {len(missing)} of {len(y)}, "
            f"first {first}. "
            "Sort the recordings into one folder per label, or give y or a csv with the column label."
        )


def encode(y: Sequence[Any] | NDArray, classes: NDArray) -> NDArray[np.int64]:
    """Turn labels into their places among the classes.

    Parameters
    ----------
    y : sequence
        One label per recording. A number and its text are one label, unless two classes share it.
    classes : ndarray, shape (n_classes,)
        Sorted names.

    Returns
    -------
    ndarray of int64, shape (n_recordings,)
        0 to n_classes - 1.

    Raises
    ------
    InputError
        If a label is not among the classes.

    Examples
    --------
    >>> encode(["Monk", "Evans"], np.array(["Evans", "Monk"]))
    array([1, 0])
    """
    places = {name: n for n, name in enumerate(classes.tolist())}
    values = np.asarray(y).tolist()
    texts = {str(name): name for name in places}
    if len(texts) == len(places):  # a csv has text where an array had numbers
        values = [
            label if label in places else texts.get(str(label), label)
            for label in values
        ]
    strange = sorted({str(label) for label in values if label not in places})
    if strange:
        known = ", ".join(map(str, classes[:10]))
        raise InputError(
            f"encode: y must hold labels that the model knows, got {', '.join(strange[:5])}. "
            f"It knows {known}{' …' if len(classes) > 10 else ''}: rename the labels or fit a new model."
        )
    return np.array([places[label] for label in values], dtype=np.int64)


def one_hot(
    codes: NDArray[np.int64], n_classes: int, smoothing: float = 0.0
) -> NDArray[np.float32]:
    """Turn places into one-hot targets.

    Parameters
    ----------
    codes : ndarray of int64, shape (n,)
        0 to n_classes - 1.
    n_classes : int
        2 or more.
    smoothing : float
        Part of the target that is shared among all classes, 0 to below 1.

    Returns
    -------
    ndarray of float32, shape (n, n_classes)
        Every row adds up to 1.

    References
    ----------
    Christian Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2016.

    Examples
    --------
    >>> one_hot(np.array([1]), 2, smoothing=0.1)
    array([[0.05, 0.95]], dtype=float32)
    """
    hard = np.eye(n_classes, dtype=np.float32)[codes]
    return np.float32(1 - smoothing) * hard + np.float32(smoothing / n_classes)
