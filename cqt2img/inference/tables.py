"""Predictions as tables, one row per recording or tile."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from cqt2img._utils.array_types import Float32Array, Labels
from cqt2img._utils.tables import make_table
from cqt2img.data.recording_types import Label
from cqt2img.inference.calibration import to_proba
from cqt2img.inference.model import FittedModel
from cqt2img.inference.predict import RecordingOutput

if TYPE_CHECKING:
    import pandas as pd

Cell: TypeAlias = Label | None
Row: TypeAlias = dict[str, Cell]


class RankedLabel(NamedTuple):
    """One label that a model predicts.

    Parameters
    ----------
    label : str, int, float, bool or None
        The label; None for an unreadable recording.
    probability : float or None
        Its probability, 0 to 1, to six digits.
    """

    label: Cell
    probability: float | None


def recording_table(
    paths: Sequence[str],
    outputs: Sequence[RecordingOutput],
    model: FittedModel,
    *,
    top_k: int = 3,
    with_open_set: bool = False,
) -> "pd.DataFrame":
    """Make a table of predictions with one row per recording.

    Parameters
    ----------
    paths : sequence of str
        Names of the recordings.
    outputs : sequence of RecordingOutput
        What `predict_recordings` yields; with embeddings for `with_open_set`.
    model : FittedModel
        The model.
    top_k : int
        Number of labels per recording, 1 or more.
    with_open_set : bool
        Whether to add the columns `known` and `is_unknown`.

    Returns
    -------
    DataFrame
        `path`, `label`, `probability`, `label_2`, `probability_2` and so on,
        `status`, `reason`, `message`. With `with_open_set`, before the status:
        `known`, the p-value of `OpenSetDetector.score`, and `is_unknown`.
    """
    p_values = model.open_set_p_values(outputs) if with_open_set else None
    rows = []
    for n, (path, output) in enumerate(zip(paths, outputs, strict=True)):
        proba = None
        if output.log_proba is not None:
            proba = to_proba(output.log_proba, model.temperature)
        row: Row = {"path": path}
        row |= label_columns(rank_labels(proba, model.classes, top_k))
        if p_values is not None:
            row |= _open_set_columns(p_values[n], model.open_set.rejection_rate)
        row |= _status_columns(output)
        rows.append(row)
    return make_table(rows)


def tile_table(
    paths: Sequence[str],
    outputs: Sequence[RecordingOutput],
    model: FittedModel,
    *,
    top_k: int = 1,
) -> "pd.DataFrame":
    """Make a table of predictions with one row per tile.

    Parameters
    ----------
    paths : sequence of str
        Names of the recordings.
    outputs : sequence of RecordingOutput
        What `predict_recordings` yields.
    model : FittedModel
        The model.
    top_k : int
        Number of labels per tile, 1 or more.

    Returns
    -------
    DataFrame
        The columns of `recording_table`, with `start_seconds` and `end_seconds` after
        the path. An unreadable recording has one row, without times and labels.
    """
    rows: list[Row] = []
    for path, output in zip(paths, outputs, strict=True):
        rows += _tile_rows(path, output, model, top_k)
    return make_table(rows)


def _tile_rows(
    path: str, output: RecordingOutput, model: FittedModel, top_k: int
) -> list[Row]:
    times: list[Row] = [{"start_seconds": None, "end_seconds": None}]
    probabilities: list[Float32Array | None] = [None]
    if output.tile_log_proba is not None:
        probabilities = list(to_proba(output.tile_log_proba, model.temperature))
        times = _tile_times(
            len(probabilities), model.spec.tile_seconds, output.info.seconds or 0.0
        )
    rows = []
    for time, proba in zip(times, probabilities, strict=True):
        row: Row = {"path": path, **time}
        row |= label_columns(rank_labels(proba, model.classes, top_k))
        row |= _status_columns(output)
        rows.append(row)
    return rows


def _tile_times(n_tiles: int, tile_seconds: float, seconds: float) -> list[Row]:
    """Return start and end of every tile; the last one ends with the recording."""
    times: list[Row] = []
    for n in range(n_tiles):
        start = n * tile_seconds
        end = min(start + tile_seconds, seconds)
        times.append({"start_seconds": round(start, 3), "end_seconds": round(end, 3)})
    return times


def _open_set_columns(p_value: float, rejection_rate: float) -> Row:
    if np.isnan(p_value):
        return {"known": p_value, "is_unknown": None}
    return {
        "known": float(np.round(p_value, 4)),
        "is_unknown": bool(p_value < rejection_rate),
    }


def _status_columns(output: RecordingOutput) -> Row:
    return {
        "status": output.info.status,
        "reason": output.info.reason,
        "message": output.info.message,
    }


def rank_labels(
    proba: Float32Array | None, classes: Labels, top_k: int
) -> list[RankedLabel]:
    """Return the most probable labels, the first one first.

    Parameters
    ----------
    proba : ndarray of float32, shape (n_classes,), or None
        Probabilities; None for an unreadable recording.
    classes : ndarray, shape (n_classes,)
        Labels.
    top_k : int
        Number of labels to return, 1 or more; all if there are fewer.

    Returns
    -------
    list of RankedLabel
        The label and probability are None throughout for an unreadable recording.

    Examples
    --------
    >>> proba = np.array([0.25, 0.75], dtype="float32")
    >>> rank_labels(proba, np.array(["Evans", "Monk"]), 1)
    [RankedLabel(label='Monk', probability=0.75)]
    """
    n_labels = min(top_k, len(classes))
    if proba is None:
        return [RankedLabel(None, None)] * n_labels
    order = np.argsort(-proba, kind="stable")[:n_labels]
    return [
        RankedLabel(classes[index].item(), round(float(proba[index]), 6))
        for index in order
    ]


def label_columns(ranked: Sequence[RankedLabel]) -> Row:
    """Return the columns of a table that hold ranked labels.

    Parameters
    ----------
    ranked : sequence of RankedLabel
        What `rank_labels` returns.

    Returns
    -------
    dict
        `label`, `probability`, `label_2`, `probability_2` and so on.
    """
    columns: Row = {}
    for rank, one in enumerate(ranked, start=1):
        suffix = "" if rank == 1 else f"_{rank}"
        columns[f"label{suffix}"] = one.label
        columns[f"probability{suffix}"] = one.probability
    return columns
