"""Labels as class indices and as targets."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.tables import is_missing
from cqt2img.errors import InputError

_N_SHOWN = 10  # classes in a message


def find_classes(
    y: Sequence[object] | NDArray, paths: Sequence[str] | None = None
) -> NDArray:
    """Return the sorted classes of training data.

    Parameters
    ----------
    y : sequence, shape (n_recordings,)
        Labels.
    paths : sequence of str, optional
        Names of the recordings for error messages.

    Returns
    -------
    ndarray, shape (n_classes,)
        Unique labels.

    Raises
    ------
    InputError
        If a label is missing, there is only one class, or a class has only one
        recording.

    Examples
    --------
    >>> find_classes(["Monk", "Evans", "Monk", "Evans"]).tolist()
    ['Evans', 'Monk']
    """
    check_labelled("fit", y, paths)
    classes, counts = np.unique(np.asarray(y), return_counts=True)
    if len(classes) < 2:
        raise InputError(
            f"fit: y must have 2 classes or more, got only {classes[0]!s}. "
            "Add recordings of another player."
        )
    if counts.min() < 2:
        rarest = classes[counts.argmin()]
        raise InputError(
            "fit: y must have 2 recordings or more of every class, got 1 of "
            f"{rarest!s}. Add recordings of this class, or remove it."
        )
    return classes


def check_labelled(
    caller: str, y: Sequence[object] | NDArray, paths: Sequence[str] | None = None
) -> None:
    """Check that every recording has a label.

    Parameters
    ----------
    caller : str
        Public method or command for the error message.
    y : sequence, shape (n_recordings,)
        Labels; None, NaN and "" are missing.
    paths : sequence of str, optional
        Names of the recordings for the error message.

    Raises
    ------
    InputError
        If a label is missing.
    """
    missing = [index for index, label in enumerate(y) if is_missing(label)]
    if not missing:
        return
    first = missing[0]
    name = f"number {first}" if paths is None else repr(str(list(paths)[first]))
    raise InputError(
        f"{caller}: y must have a label for every recording, got none for "
        f"{len(missing)} of {len(y)}, such as {name}. Sort the recordings into one "
        "folder per label, or pass y or a csv file with the column label."
    )


def encode(
    y: Sequence[object] | NDArray, classes: NDArray, *, caller: str | None = None
) -> NDArray[np.int64]:
    """Convert labels to class indices.

    Parameters
    ----------
    y : sequence, shape (n_recordings,)
        Labels. A number and its text are the same label, unless they are two classes.
    classes : ndarray, shape (n_classes,)
        Sorted classes.
    caller : str, optional
        Public method or command for the error message.

    Returns
    -------
    ndarray of int64, shape (n_recordings,)
        Class indices, 0 to n_classes - 1.

    Raises
    ------
    InputError
        If a label is not one of the classes.

    Examples
    --------
    >>> encode(["Monk", "Evans"], np.array(["Evans", "Monk"]))
    array([1, 0])
    """
    index_of = {label: index for index, label in enumerate(classes.tolist())}
    # A csv file has text where an array has numbers.
    index_of_text = {str(label): index for label, index in index_of.items()}
    is_ambiguous = len(index_of_text) < len(index_of)
    if is_ambiguous:
        index_of_text = {}
    class_indices = []
    unknown = set()
    for label in np.asarray(y).tolist():
        index = index_of.get(label, index_of_text.get(str(label)))
        if index is None:
            unknown.add(str(label))
        else:
            class_indices.append(index)
    if unknown:
        shown = list(map(str, classes[:_N_SHOWN]))
        if len(classes) > _N_SHOWN:
            shown.append("…")
        prefix = "" if caller is None else f"{caller}: "
        raise InputError(
            f"{prefix}y must contain only classes of the model, got "
            f"{', '.join(sorted(unknown)[:5])}. The classes are {', '.join(shown)}. "
            "Rename the labels, or fit a new model."
        )
    return np.array(class_indices, dtype=np.int64)


def one_hot(
    class_indices: NDArray[np.int64], n_classes: int, smoothing: float = 0.0
) -> NDArray[np.float32]:
    """Convert class indices to one-hot targets, with optional label smoothing.

    Parameters
    ----------
    class_indices : ndarray of int64, shape (n,)
        0 to n_classes - 1.
    n_classes : int
        Number of classes, 2 or more.
    smoothing : float
        Fraction of each target that is distributed evenly over all classes, 0 to
        below 1.

    Returns
    -------
    ndarray of float32, shape (n, n_classes)
        Targets; every row sums to 1.

    References
    ----------
    Christian Szegedy et al., "Rethinking the Inception Architecture for Computer
    Vision", 2016.

    Examples
    --------
    >>> one_hot(np.array([1]), 2, smoothing=0.1)
    array([[0.05, 0.95]], dtype=float32)
    """
    hard = np.eye(n_classes, dtype=np.float32)[class_indices]
    return np.float32(1 - smoothing) * hard + np.float32(smoothing / n_classes)
