"""Tables of predictions: per recording, class, group, bin, coverage and duration."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from cqt2img._utils.array_types import BoolArray, Float32Array, IntArray
from cqt2img._utils.tables import make_table
from cqt2img.evaluation.calibration import monotonic_bins
from cqt2img.evaluation.outcomes import Outcomes, Subset

if TYPE_CHECKING:
    import pandas as pd

Row: TypeAlias = dict[str, object]

_N_COVERAGES = 20  # 5 % steps
_MAX_DURATIONS = 12
_SECONDS_COLUMNS = ("seconds", "accuracy", "low", "high", "n_recordings")


def answer_table(
    outcomes: Outcomes, classes: Sequence[str], paths: Sequence[str]
) -> "pd.DataFrame":
    """List the prediction for each recording.

    Parameters
    ----------
    outcomes : Outcomes
        The predictions.
    classes : sequence of str
        Class names.
    paths : sequence of str
        One path per recording.

    Returns
    -------
    DataFrame
        See `Evaluation.answer_table`.
    """
    rows: list[Row] = []
    for n, path in enumerate(paths):
        row: Row = {
            "path": path,
            "group": str(outcomes.groups[n]),
            "label": classes[outcomes.class_indices[n]],
            "predicted": classes[outcomes.predicted[n]],
            "probability": float(outcomes.confidence[n]),
            "label_probability": float(outcomes.class_proba[n]),
            "rank": int(outcomes.rank[n]),
        }
        rows.append(row)
    return make_table(rows)


def class_table(outcomes: Outcomes, classes: Sequence[str]) -> "pd.DataFrame":
    """Compute recall, precision and F1 of each class.

    Parameters
    ----------
    outcomes : Outcomes
        The predictions.
    classes : sequence of str
        Class names.

    Returns
    -------
    DataFrame
        See `Evaluation.class_table`.
    """
    return make_table([_class_row(outcomes, classes, n) for n in range(len(classes))])


def _class_row(outcomes: Outcomes, classes: Sequence[str], class_index: int) -> Row:
    in_class = outcomes.class_indices == class_index
    n_recordings = int(in_class.sum())
    n_predicted = int((outcomes.predicted == class_index).sum())
    n_correct = int(outcomes.is_correct[in_class].sum())
    row: Row = {
        "label": classes[class_index],
        "n_recordings": n_recordings,
        "n_groups": len(np.unique(outcomes.group_index[in_class])),
        "recall": None,
        "low": None,
        "high": None,
        "precision": None,
        "f1": None,
        "confused_with": None,
    }
    if n_recordings:
        low, high = outcomes.share_interval(outcomes.is_correct[in_class], in_class)
        row |= {"recall": n_correct / n_recordings, "low": low, "high": high}
    if n_predicted:
        row["precision"] = n_correct / n_predicted
    if n_recordings or n_predicted:
        row["f1"] = 2 * n_correct / (n_predicted + n_recordings)
    if n_correct < n_recordings:
        wrong = outcomes.predicted[in_class & ~outcomes.is_correct]
        row["confused_with"] = classes[_most_frequent(wrong)]
    return row


def group_table(outcomes: Outcomes, classes: Sequence[str]) -> "pd.DataFrame":
    """Count correct predictions of each group.

    Parameters
    ----------
    outcomes : Outcomes
        The predictions.
    classes : sequence of str
        Class names.

    Returns
    -------
    DataFrame
        See `Evaluation.group_table`.
    """
    rows: list[Row] = []
    for index, name in enumerate(outcomes.group_names):
        in_group = outcomes.group_index == index
        row: Row = {
            "group": str(name),
            "label": classes[_most_frequent(outcomes.class_indices[in_group])],
            "n_recordings": int(in_group.sum()),
            "n_correct": int(outcomes.is_correct[in_group].sum()),
            "predicted": classes[_most_frequent(outcomes.predicted[in_group])],
        }
        rows.append(row)
    return make_table(rows)


def reliability_table(outcomes: Outcomes) -> "pd.DataFrame":
    """Compute confidence and accuracy of each calibration bin.

    Parameters
    ----------
    outcomes : Outcomes
        The predictions.

    Returns
    -------
    DataFrame
        See `Evaluation.reliability_table`.
    """
    rows: list[Row] = []
    for subset in monotonic_bins(outcomes.confidence, outcomes.is_correct):
        row: Row = {"confidence": float(outcomes.confidence[subset].mean())}
        rows.append(row | _accuracy_columns(outcomes, subset))
    return make_table(rows)


def risk_table(outcomes: Outcomes) -> "pd.DataFrame":
    """Compute the accuracy of the most confident predictions for each coverage.

    Parameters
    ----------
    outcomes : Outcomes
        The predictions.

    Returns
    -------
    DataFrame
        See `Evaluation.risk_table`.
    """
    n_recordings = len(outcomes.is_correct)
    coverages = np.arange(1, _N_COVERAGES + 1) / _N_COVERAGES
    counts = np.ceil(n_recordings * coverages - 1e-9)  # the product may be inexact
    rows: list[Row] = []
    for n_answered in np.unique(counts.astype(int)).tolist():
        subset = outcomes.by_confidence[:n_answered]
        row: Row = {
            "coverage": n_answered / n_recordings,
            "threshold": float(outcomes.confidence[subset[-1]]),
        }
        rows.append(row | _accuracy_columns(outcomes, subset))
    return make_table(rows)


def seconds_table(
    outcomes: Outcomes,
    tile_log_proba: Sequence[Float32Array],
    tile_seconds: float,
) -> "pd.DataFrame":
    """Compute the accuracy of predictions from the first seconds of recordings.

    Parameters
    ----------
    outcomes : Outcomes
        The predictions.
    tile_log_proba : sequence of ndarray of float32, shape (n_tiles, n_classes)
        Log-probabilities of the tiles of each recording.
    tile_seconds : float
        Duration of a tile.

    Returns
    -------
    DataFrame
        See `Evaluation.seconds_table`.
    """
    n_tiles = np.array([len(tiles) for tiles in tile_log_proba], dtype=int)
    sums = [np.cumsum(tiles, axis=0, dtype=np.float64) for tiles in tile_log_proba]
    rows: list[Row] = []
    for n_used in _select_durations(n_tiles.max(initial=0)):
        subset = np.flatnonzero(n_tiles >= n_used)
        predicted = np.array([sums[n][n_used - 1].argmax() for n in subset])
        is_correct = predicted == outcomes.class_indices[subset]
        row: Row = {"seconds": round(n_used * tile_seconds, 3)}
        rows.append(row | _accuracy_columns(outcomes, subset, is_correct))
    return make_table(rows, _SECONDS_COLUMNS)


def _select_durations(max_tiles: int) -> list[int]:
    """Select up to 12 durations in tiles, dense where they are short."""
    if not max_tiles:
        return []
    durations = np.geomspace(1, max_tiles, _MAX_DURATIONS)
    return np.unique(durations.round().astype(int)).tolist()


def _accuracy_columns(
    outcomes: Outcomes, subset: Subset, is_correct: BoolArray | None = None
) -> Row:
    """Compute the columns `accuracy`, `low`, `high` and `n_recordings` of a subset."""
    if is_correct is None:
        is_correct = outcomes.is_correct[subset]
    low, high = outcomes.share_interval(is_correct, subset)
    return {
        "accuracy": float(is_correct.mean()),
        "low": low,
        "high": high,
        "n_recordings": len(is_correct),
    }


def _most_frequent(class_indices: IntArray) -> int:
    return int(np.bincount(class_indices).argmax())
