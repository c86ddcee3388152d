"""What a network is trained on: pictures of recordings, who plays, and which side each stands on."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.progress import Progress
from cqt2img.data.labels import encode, find_classes, one_hot
from cqt2img.data.recordings import list_recordings
from cqt2img.data.splits import check_leaks, validation_split
from cqt2img.data.tile_arrays import TileArrays, load_tile_arrays
from cqt2img.errors import InputError
from cqt2img.tiles.extract import raise_on_failures
from cqt2img.tiles.spec import TileSpec

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


def list_train_validation(
    X: Any, y: Any, groups: Any, group_by: str | None, validation: Any = None
) -> tuple["pd.DataFrame", NDArray[Any]]:
    """List what `fit` is given: recordings to train on, and behind them those to choose by.

    Parameters
    ----------
    X, y, groups, group_by
        As for `list_recordings`.
    validation : like X, or tuple (X, y) or (X, y, groups), optional
        Recordings to choose by.

    Returns
    -------
    table : DataFrame
        As of `list_recordings`, and `held`: whether a recording was given to choose by.
    wanted : ndarray, shape (n_classes,)
        The names to train on, sorted.

    Raises
    ------
    InputError
        If there is one class, or a class has one recording.
    """
    import pandas as pd

    table = list_recordings(X, y, groups, group_by)
    wanted = find_classes(table["label"].tolist(), table["path"].tolist())
    table["held"] = False
    if validation is not None:
        given = validation if isinstance(validation, tuple) else (validation,)
        X_valid, y_valid, groups_valid = (*given, None, None)[:3]
        held = list_recordings(X_valid, y_valid, groups_valid, group_by).assign(
            held=True
        )
        table = pd.concat([table, held], ignore_index=True)
    return table, wanted


def load_train_validation(
    table: "pd.DataFrame",
    spec: TileSpec,
    on_error: str,
    n_jobs: int = 1,
    progress: Progress | None = None,
) -> tuple[TileArrays, "pd.DataFrame", list[dict[str, Any]]]:
    """Draw what `fit` is given; bad recordings stop here, before the first epoch, or are left out.

    Parameters
    ----------
    table : DataFrame
        What `list_train_validation` gives.
    spec : TileSpec
        What a pixel means.
    on_error : {"raise", "skip"}
        What a recording that cannot be read does.
    n_jobs : int
        Processes, as joblib counts them.
    progress : callable, optional
        As for `load_tile_arrays`.

    Returns
    -------
    strips : TileArrays
        Of the recordings that could be read.
    table : DataFrame
        Their rows, with `fingerprint`.
    skipped : list of dict
        `path`, `reason` and `message` of the others.

    Raises
    ------
    AudioError
        If a recording cannot be read and `on_error` is "raise".
    """
    strips, infos = load_tile_arrays(table, spec, n_jobs, progress)
    if on_error == "raise":
        raise_on_failures(
            "fit", table["path"], infos, "Mend or remove it, or pass on_error='skip'."
        )
    states = {
        k: [info.get(k) for info in infos]
        for k in ("status", "reason", "message", "fingerprint")
    }
    table = table.assign(**states)
    bad = table["status"] != "ok"
    skipped = table.loc[bad, ["path", "reason", "message"]].to_dict("records")
    for one in skipped:
        log.warning("fit: left out %s", one["message"])
    return strips, table[~bad].reset_index(drop=True), skipped


@dataclass(frozen=True)
class TrainingData:
    """What a network is trained on, and what its epoch is chosen by.

    Parameters
    ----------
    strips : TileArrays
        Pictures of all recordings.
    targets : ndarray of float32, shape (n_recordings, n_classes)
        One-hot, perhaps smoothed.
    groups : ndarray, shape (n_recordings,)
        What was recorded together.
    training, validation : ndarray of int64
        Places of the recordings on each side. Without the latter the last epoch is kept.
    names : sequence of str
        What to call the recordings; by default their places.
    """

    strips: TileArrays
    targets: NDArray[np.float32]
    groups: NDArray[Any]
    training: NDArray[np.int64]
    validation: NDArray[np.int64]
    names: Sequence[str] = ()

    def name(self, recording: int) -> str:
        """Give the name of a recording.

        Parameters
        ----------
        recording : int
            Its place.

        Returns
        -------
        str
            Its name.
        """
        return self.names[recording] if len(self.names) else f"recording {recording}"


def split_training_data(
    strips: TileArrays,
    table: "pd.DataFrame",
    wanted: NDArray[Any],
    fraction: float | None,
    smoothing: float,
    random_state: int,
) -> tuple[TrainingData, NDArray[Any]]:
    """Put recordings on the side of training or of validation, and refuse what cannot be learned honestly.

    Parameters
    ----------
    strips : TileArrays
        Their pictures.
    table : DataFrame
        `label`, `group`, `path`, `fingerprint` and `held` (given to choose by) of each.
    wanted : ndarray
        The classes that were to be learned.
    fraction : float or None
        Part of each class to keep for validation, in whole groups; None if validation was given.
    smoothing : float
        Part of a one-hot target shared among all classes.
    random_state : int
        Seed of the split.

    Returns
    -------
    corpus : TrainingData
        The recordings on their sides.
    classes : ndarray, shape (n_classes,)
        The names.

    Raises
    ------
    InputError
        If a class cannot be read at all, or the same recording stands on both sides.
    """
    labels = table["label"].tolist()
    is_train = ~np.asarray(table["held"], dtype=bool)
    classes = find_classes(
        [label for label, mine in zip(labels, is_train, strict=True) if mine]
    )
    lost = sorted(set(map(str, wanted)) - set(map(str, classes)))
    if lost:
        raise InputError(
            f"fit: y must name classes that can be read, got none of {', '.join(lost)}. Mend the files."
        )
    codes = encode(labels, classes)
    if fraction is None:
        sides = np.flatnonzero(is_train), np.flatnonzero(~is_train)
    else:
        sides = validation_split(codes, table["group"].tolist(), fraction, random_state)
    check_leaks(table, sides)
    groups = np.array(list(map(str, table["group"])))
    corpus = TrainingData(
        strips,
        one_hot(codes, len(classes), smoothing),
        groups,
        *sides,
        names=table["path"].tolist(),
    )
    return corpus, classes
