"""Scores of a classifier per recording, with intervals over groups and baselines."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.array_types import Float32Array, Float64Array, IntArray
from cqt2img._utils.files import write_atomic
from cqt2img._utils.tables import make_table
from cqt2img.errors import InputError
from cqt2img.evaluation import calibration, tables
from cqt2img.evaluation.intervals import Interval, macro_f1_from_counts
from cqt2img.evaluation.outcomes import MIN_PROBABILITY, Outcomes

if TYPE_CHECKING:
    import pandas as pd

_TOP_K = (1, 3, 5)
# 20 correct of 40 independent recordings have an interval of 32 points
_MAX_INTERVAL_WIDTH = 0.3
_JSON_FIELDS = (
    "n_recordings",
    "n_groups",
    "n_failed",
    "accuracy",
    "accuracy_interval",
    "top_k",
    "top_k_interval",
    "macro_f1",
    "macro_f1_interval",
    "log_loss",
    "log_loss_interval",
    "overconfidence",
    "overconfidence_interval",
    "calibration_error",
    "calibrated_range",
    "aurc",
    "chance",
    "majority",
    "classes",
    "confusion",
    "known_groups",
)


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """Scores of a classifier over recordings.

    All intervals are 95 % intervals over groups, which are taken as independent.

    Parameters
    ----------
    proba : ndarray of float32, shape (n_recordings, n_classes)
        Predicted probabilities.
    class_indices : ndarray of int64, shape (n_recordings,)
        Index of the true class of each recording among `classes`.
    classes : tuple of str
        Class names.
    groups : ndarray of str, shape (n_recordings,)
        Group of each recording.
    paths : tuple of str
        Path of each recording.
    n_failed : int
        Number of recordings that could not be read; they are not scored.
    known_groups : tuple of str
        Groups that were part of the training data. Scores on them are too high.
    tile_log_proba : tuple of ndarray of float32, shape (n_tiles, n_classes)
        Log-probabilities of the tiles of each recording; empty if unknown.
    tile_seconds : float
        Duration of a tile.

    References
    ----------
    Yonatan Geifman, Guy Uziel and Ran El-Yaniv, "Bias-Reduced Uncertainty Estimation
    for Deep Neural Classifiers", 2019.
    """

    proba: Float32Array
    class_indices: IntArray
    classes: tuple[str, ...]
    groups: NDArray[np.str_]
    paths: tuple[str, ...]
    n_failed: int = 0
    known_groups: tuple[str, ...] = ()
    tile_log_proba: tuple[Float32Array, ...] = ()
    tile_seconds: float = 0.0

    @cached_property
    def _outcomes(self) -> Outcomes:
        return Outcomes(self.proba, self.class_indices, self.groups)

    @property
    def n_recordings(self) -> int:
        """Number of scored recordings."""
        return len(self.class_indices)

    @property
    def n_groups(self) -> int:
        """Number of groups among the scored recordings."""
        return len(self._outcomes.group_names)

    @cached_property
    def accuracy(self) -> float:
        """Share of the recordings that are predicted correctly."""
        return float(self._outcomes.is_correct.mean())

    @cached_property
    def accuracy_interval(self) -> Interval:
        """Interval of the accuracy."""
        return self._outcomes.share_interval(self._outcomes.is_correct)

    @cached_property
    def top_k(self) -> dict[int, float]:
        """Top-k accuracy for k of 1, 3 and 5 below the number of classes."""
        return {k: float((self._outcomes.rank <= k).mean()) for k in self._top_ks}

    @cached_property
    def top_k_interval(self) -> dict[int, Interval]:
        """Intervals of the top-k accuracies."""
        outcomes = self._outcomes
        return {k: outcomes.share_interval(outcomes.rank <= k) for k in self._top_ks}

    @property
    def _top_ks(self) -> list[int]:
        return [k for k in _TOP_K if k < len(self.classes)]

    @cached_property
    def macro_f1(self) -> float:
        """Mean F1 of the classes that occur."""
        return float(macro_f1_from_counts(self._outcomes.f1_counts.sum(axis=0)))

    @cached_property
    def macro_f1_interval(self) -> Interval:
        """Interval of the macro F1."""
        return self._outcomes.macro_f1_interval()

    @cached_property
    def log_loss(self) -> float:
        """Mean log-loss in nats."""
        return float(self._outcomes.log_losses.mean())

    @cached_property
    def log_loss_interval(self) -> Interval:
        """Interval of the log-loss in nats."""
        bounds = (0.0, 2 * self._uniform_log_loss)
        low, high = self._outcomes.mean_interval(
            self._outcomes.log_losses, bounds, log_scale=True
        )
        return low, min(high, -np.log(MIN_PROBABILITY))

    @property
    def _uniform_log_loss(self) -> float:
        return float(np.log(len(self.classes)))

    @cached_property
    def overconfidence(self) -> float:
        """Mean confidence minus accuracy; positive if the model is overconfident."""
        return float(self._excess_confidence.mean())

    @cached_property
    def overconfidence_interval(self) -> Interval:
        """Interval of the overconfidence."""
        return self._outcomes.mean_interval(self._excess_confidence, (-1.0, 1.0))

    @property
    def _excess_confidence(self) -> Float64Array:
        return self._outcomes.confidence - self._outcomes.is_correct

    @cached_property
    def calibration_error(self) -> float:
        """Mean distance between confidence and accuracy over monotonic bins."""
        return calibration.calibration_error(
            self._outcomes.confidence, self._outcomes.is_correct
        )

    @cached_property
    def calibrated_range(self) -> Interval:
        """Range of the calibration error of 95 % of calibrated models."""
        return calibration.calibrated_range(self._outcomes.confidence)

    @cached_property
    def aurc(self) -> float:
        """Area under the risk-coverage curve; lower is better."""
        is_correct = self._outcomes.is_correct[self._outcomes.by_confidence]
        n_answered = np.arange(1, self.n_recordings + 1)
        accuracy = np.cumsum(is_correct) / n_answered
        return float(1 - accuracy.mean())

    @property
    def chance(self) -> float:
        """Accuracy of uniform random guessing."""
        return 1 / len(self.classes)

    @property
    def majority(self) -> float:
        """Accuracy of always predicting the most frequent class."""
        return float(np.bincount(self.class_indices).max() / self.n_recordings)

    @cached_property
    def confusion(self) -> tuple[tuple[int, ...], ...]:
        """Confusion matrix of counts: true classes in rows, predictions in columns."""
        n_classes = len(self.classes)
        cells = self.class_indices * n_classes + self._outcomes.predicted
        counts = np.bincount(cells, minlength=n_classes**2)
        rows = counts.reshape(n_classes, n_classes).tolist()
        return tuple(tuple(row) for row in rows)

    def answer_table(self) -> "pd.DataFrame":
        """List the prediction for each recording.

        Returns
        -------
        DataFrame
            `path`, `group`, `label`, `predicted`, `probability` of the predicted class,
            `label_probability`, and `rank` of the true class, from 1.
        """
        return tables.answer_table(self._outcomes, self.classes, self.paths)

    def class_table(self) -> "pd.DataFrame":
        """Compute recall, precision and F1 of each class.

        Returns
        -------
        DataFrame
            `label`, `n_recordings`, `n_groups`, `recall` with its interval `low` and
            `high`, `precision`, `f1`, and `confused_with`: the most frequent wrong
            prediction. Undefined values are NaN or None.
        """
        return tables.class_table(self._outcomes, self.classes)

    def group_table(self) -> "pd.DataFrame":
        """Count correct predictions of each group.

        Returns
        -------
        DataFrame
            `group`, `label` and `predicted` (the most frequent of the group),
            `n_recordings` and `n_correct`.
        """
        return tables.group_table(self._outcomes, self.classes)

    def reliability_table(self) -> "pd.DataFrame":
        """Compute confidence and accuracy of each bin of `calibration_error`.

        Returns
        -------
        DataFrame
            `confidence` (mean), `accuracy` with its interval `low` and `high`,
            `n_recordings`.
        """
        return tables.reliability_table(self._outcomes)

    def risk_table(self) -> "pd.DataFrame":
        """Compute the accuracy of the most confident predictions for each coverage.

        Returns
        -------
        DataFrame
            `coverage` (share of the recordings with a prediction, .05 to 1),
            `threshold` (lowest confidence of a prediction), `accuracy` with its
            interval `low` and `high`, `n_recordings`.
        """
        return tables.risk_table(self._outcomes)

    def seconds_table(self) -> "pd.DataFrame":
        """Compute the accuracy of predictions from the first seconds of recordings.

        Returns
        -------
        DataFrame
            `seconds` (whole tiles), `accuracy` with its interval `low` and `high`,
            `n_recordings`. A row counts the recordings of that duration or longer; the
            last tile of a recording may be partly empty. No rows without
            `tile_log_proba`.
        """
        return tables.seconds_table(
            self._outcomes, self.tile_log_proba, self.tile_seconds
        )

    def __str__(self) -> str:
        size = f"{self.n_recordings} recordings in {self.n_groups} groups"
        size += f", {len(self.classes)} classes"
        if self.n_failed:
            size += f"; {self.n_failed} could not be read"
        rows = [
            ("accuracy", self.accuracy, self._describe_accuracy()),
            *self._describe_top_k(),
            ("macro F1", self.macro_f1, _format_interval(self.macro_f1_interval)),
            ("chance", self.chance, ""),
            ("majority class", self.majority, ""),
            ("log-loss", self.log_loss, self._describe_log_loss()),
            (
                "mean confidence",
                float(self._outcomes.confidence.mean()),
                self._describe_overconfidence(),
            ),
            (
                "calibration error",
                self.calibration_error,
                f"{_format_interval(self.calibrated_range)} if calibrated",
            ),
        ]
        lines = [_format_row(*row) for row in rows]
        warnings = [f"WARNING: {text}" for text in self._list_warnings()]
        return "\n".join([size, *lines, *warnings])

    __repr__ = __str__  # shown by notebooks

    def _describe_accuracy(self) -> str:
        unit = "groups" if self.n_groups < self.n_recordings else "recordings"
        interval = _format_interval(self.accuracy_interval)
        return f"95 % interval {interval}; all intervals are over {unit}"

    def _describe_top_k(self) -> list[tuple[str, float, str]]:
        return [
            (f"top-{k} accuracy", value, _format_interval(self.top_k_interval[k]))
            for k, value in self.top_k.items()
            if k > 1
        ]

    def _describe_log_loss(self) -> str:
        interval = _format_interval(self.log_loss_interval)
        return f"{interval}; chance {self._uniform_log_loss:.3f}"

    def _describe_overconfidence(self) -> str:
        low, high = self.overconfidence_interval
        verdict = "not clearly over- or underconfident"
        if low > 0:
            verdict = "overconfident"
        elif high < 0:
            verdict = "underconfident"
        return f"minus accuracy {low:+.3f} to {high:+.3f}; {verdict}"

    def _list_warnings(self) -> list[str]:
        """List the limits of these scores."""
        checks = [
            self._warn_of_wide_interval(),
            self._warn_of_baseline(),
            self._warn_of_known_groups(),
        ]
        return [text for text in checks if text]

    def _warn_of_wide_interval(self) -> str:
        low, high = self.accuracy_interval
        if high - low <= _MAX_INTERVAL_WIDTH:
            return ""
        n_correct = int(self._outcomes.is_correct.sum())
        return (
            f"{n_correct} of {self.n_recordings} recordings correct in "
            f"{self.n_groups} groups means an accuracy of {_format_percent(low)} to "
            f"{_format_percent(high)} %. Evaluate recordings of more groups."
        )

    def _warn_of_baseline(self) -> str:
        low, high = self.accuracy_interval
        baselines = {
            "uniform random guessing": self.chance,
            "always predicting the most frequent class": self.majority,
        }
        for name, accuracy in baselines.items():
            if low <= accuracy <= high:
                return (
                    "these recordings do not show that the model is better than "
                    f"{name}, accuracy {accuracy:.3f}."
                )
        return ""

    def _warn_of_known_groups(self) -> str:
        if not self.known_groups:
            return ""
        return (
            f"{len(self.known_groups)} of these groups were in training, such as "
            f"{self.known_groups[0]!r}. The score does not apply to new recordings."
        )

    def to_dict(self) -> dict[str, object]:
        """Return all scores as values that JSON can represent.

        Returns
        -------
        dict
            All scalar scores with their intervals, `classes`, `confusion`,
            `known_groups` and `warnings`, and the rows of `reliability_table`,
            `risk_table` and `seconds_table`.
        """
        scores = {name: getattr(self, name) for name in _JSON_FIELDS}
        rows = {
            "reliability": self.reliability_table().to_dict("records"),
            "risk": self.risk_table().to_dict("records"),
            "seconds": self.seconds_table().to_dict("records"),
        }
        values = {**scores, "warnings": self._list_warnings(), **rows}
        return json.loads(json.dumps(values))

    def save(self, folder: str | Path) -> None:
        """Write scores and tables to a folder.

        Writes `evaluation.json` (`to_dict`), and as csv `confusion`, `classes`,
        `groups` and `answers`.

        Parameters
        ----------
        folder : str or Path
            Created if it does not exist.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_dict(), indent=2) + "\n"
        write_text = partial(Path.write_text, data=text, encoding="utf-8")
        write_atomic(folder / "evaluation.json", write_text)
        frames = {
            "confusion": self._confusion_table(),
            "classes": self.class_table(),
            "groups": self.group_table(),
            "answers": self.answer_table(),
        }
        for name, frame in frames.items():
            write_csv = partial(
                frame.to_csv, index=False, encoding="utf-8", errors="surrogateescape"
            )
            write_atomic(folder / f"{name}.csv", write_csv)

    def _confusion_table(self) -> "pd.DataFrame":
        rows: list[tables.Row] = []
        for name, counts in zip(self.classes, self.confusion, strict=True):
            counts_by_class = dict(zip(self.classes, counts, strict=True))
            rows.append({"label \\ predicted": name, **counts_by_class})
        return make_table(rows)


def evaluate_proba(
    proba: Float32Array,
    class_indices: IntArray,
    classes: Sequence[object] | NDArray,
    groups: Sequence[object] | NDArray | None = None,
    *,
    paths: Sequence[str] | None = None,
    n_failed: int = 0,
) -> Evaluation:
    """Score predicted probabilities of recordings.

    Parameters
    ----------
    proba : ndarray of float32, shape (n_recordings, n_classes)
        Predicted probabilities.
    class_indices : ndarray of int64, shape (n_recordings,)
        Index of the true class of each recording among `classes`.
    classes : sequence
        Class names.
    groups : sequence, optional
        Group of each recording; each recording is its own group by default.
    paths : sequence of str, optional
        Path of each recording; its index by default.
    n_failed : int
        Number of recordings that could not be read.

    Returns
    -------
    Evaluation
        The scores.

    Raises
    ------
    InputError
        If there is no recording.

    Examples
    --------
    >>> proba = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    >>> scores = evaluate_proba(proba, np.array([0, 1, 1, 1]), ["Evans", "Monk"])
    >>> scores.accuracy, scores.chance, scores.majority
    (0.75, 0.5, 0.75)
    >>> scores.confusion
    ((1, 0), (1, 2))
    """
    n_recordings = len(class_indices)
    if not n_recordings:
        raise InputError(
            "evaluate: X must contain a recording that can be read, got 0 of "
            f"{n_failed}. See the reasons with identify."
        )
    if groups is None:
        groups = range(n_recordings)
    if paths is None:
        paths = [str(n) for n in range(n_recordings)]
    return Evaluation(
        proba=proba,
        class_indices=class_indices,
        classes=tuple(str(name) for name in classes),
        groups=np.array([str(group) for group in groups]),
        paths=tuple(str(path) for path in paths),
        n_failed=n_failed,
    )


def _format_row(name: str, value: float, details: str) -> str:
    row = f"{name:19}{value:.3f}"
    if details:
        row += f"  ({details})"
    return row


def _format_interval(interval: Interval) -> str:
    low, high = interval
    return f"{low:.3f} to {high:.3f}"


def _format_percent(share: float) -> str:
    """Format a proportion in percent, with a decimal near 0 and 100 %."""
    is_near_0 = 0.0005 < share < 0.01
    is_near_1 = 0.99 < share < 0.9995
    n_decimals = 1 if is_near_0 or is_near_1 else 0
    return f"{100 * share:.{n_decimals}f}"
