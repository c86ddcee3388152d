"""How good the answers are: per recording, with an interval over groups, beside chance."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.files import write_atomic
from cqt2img._utils.tables import make_table
from cqt2img.errors import InputError
from cqt2img.evaluation import calibration
from cqt2img.evaluation import intervals as interval

if TYPE_CHECKING:
    import pandas as pd

Pair = tuple[float, float]
_LEAST = 1e-12  # probability, as in `predict.log_loss`
_TOO_WIDE = 0.3  # an interval of 30 points: 40 recordings of which 20 are right


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """Scores over recordings.

    Parameters
    ----------
    proba : ndarray of float32, shape (n_recordings, n_classes)
        What the model said.
    codes : ndarray of int64, shape (n_recordings,)
        Who played, as a place among the classes.
    classes : tuple of str
        The names.
    groups : ndarray of str, shape (n_recordings,)
        What was recorded together.
    paths : tuple of str
        The recordings.
    n_failed : int
        Recordings that could not be read.
    known_groups : tuple of str
        Groups that the model was trained on. Their recordings make the score too good.
    tiles : tuple of ndarray of float32, shape (n_tiles, n_classes)
        Log-probabilities of the tiles of each recording; none if they are not known.
    tile_seconds : float
        Length of a tile.

    References
    ----------
    Yonatan Geifman, Guy Uziel and Ran El-Yaniv, "Bias-Reduced Uncertainty Estimation for Deep Neural
    Classifiers", 2019.
    """

    proba: NDArray[np.float32]
    codes: NDArray[np.int64]
    classes: tuple[str, ...]
    groups: NDArray[np.str_]
    paths: tuple[str, ...]
    n_failed: int = 0
    known_groups: tuple[str, ...] = ()
    tiles: tuple[NDArray[np.float32], ...] = ()
    tile_seconds: float = 0.0

    @property
    def n_recordings(self) -> int:
        """Recordings that were scored."""
        return len(self.codes)

    @property
    def n_groups(self) -> int:
        """Groups among them."""
        return int(self._members.max()) + 1

    @cached_property
    def accuracy(self) -> float:
        """Part of the recordings whose first name is right."""
        return float(self._right.mean())

    @cached_property
    def accuracy_interval(self) -> Pair:
        """Its 95 % interval, as all intervals here over groups."""
        return self._share(self._right)

    @cached_property
    def top_k(self) -> dict[int, float]:
        """For every k the part of the recordings whose name is among the first k."""
        return {
            k: float((self._place < k).mean())
            for k in (1, 3, 5)
            if k < len(self.classes)
        }

    @cached_property
    def top_k_interval(self) -> dict[int, Pair]:
        """Their 95 % intervals."""
        return {k: self._share(self._place < k) for k in self.top_k}

    @cached_property
    def macro_f1(self) -> float:
        """Mean of the F1 of the classes that occur."""
        return float(interval.macro_f1_of(self._counts.sum(axis=0)))

    @cached_property
    def macro_f1_interval(self) -> Pair:
        """Its 95 % interval."""
        return _pair(
            interval.jackknife_interval(
                interval.macro_f1_of,
                self._counts,
                self._sum(np.ones(self.n_recordings)),
            )
        )

    @cached_property
    def log_loss(self) -> float:
        """Mean log-loss in nats."""
        return float(self._losses.mean())

    @cached_property
    def log_loss_interval(self) -> Pair:
        """Its 95 % interval."""
        low, high = self._mean(
            self._losses, (0, 2 * np.log(len(self.classes))), log=True
        )
        return low, min(high, -np.log(_LEAST))

    @cached_property
    def overconfidence(self) -> float:
        """Mean probability of the answers less accuracy: above 0, the model is too sure."""
        return float((self._trust - self._right).mean())

    @cached_property
    def overconfidence_interval(self) -> Pair:
        """Its 95 % interval."""
        return self._mean(self._trust - self._right, (-1, 1))

    @cached_property
    def calibration_error(self) -> float:
        """Mean distance of the probability of an answer from the part of such answers that is right."""
        return calibration.calibration_error(self._trust, self._right)

    @cached_property
    def calibrated_range(self) -> Pair:
        """Where 95 of 100 models that mean these probabilities have their calibration error."""
        return calibration.calibrated_range(self._trust)

    @cached_property
    def aurc(self) -> float:
        """Mean error if the surest part is answered, over all parts; lower is better."""
        right = self._right[np.argsort(-self._trust, kind="stable")]
        return float(1 - (np.cumsum(right) / np.arange(1, len(right) + 1)).mean())

    @property
    def chance(self) -> float:
        """Accuracy of one who guesses evenly."""
        return 1 / len(self.classes)

    @property
    def majority(self) -> float:
        """Accuracy of one who always says the most frequent name."""
        return float(np.bincount(self.codes).max() / self.n_recordings)

    @cached_property
    def confusion(self) -> tuple[tuple[int, ...], ...]:
        """Counts: row who played, column who was named."""
        n = len(self.classes)
        counts = np.bincount(self.codes * n + self._named, minlength=n**2)
        return tuple(map(tuple, counts.reshape(n, n).tolist()))

    def answer_table(self) -> "pd.DataFrame":
        """Tell what was said of every recording.

        Returns
        -------
        DataFrame
            `path`, `group`, `played`, `named`, `probability` of that name, `played_probability`, and
            `place`, from 1, of who played among the names.
        """
        rows = []
        for n, path in enumerate(self.paths):
            said, played, named = self.proba[n], self.codes[n], self._named[n]
            rows.append(
                {
                    "path": path,
                    "group": str(self.groups[n]),
                    "played": self.classes[played],
                    "named": self.classes[named],
                    "probability": float(said[named]),
                    "played_probability": float(said[played]),
                    "place": int(self._place[n]) + 1,
                }
            )
        return make_table(rows)

    def class_table(self) -> "pd.DataFrame":
        """Tell how well every class is known.

        Returns
        -------
        DataFrame
            `label`, `n_recordings`, `n_groups`, `recall` with `low` and `high`, `precision`, `f1`, and
            `taken_for`: the name that was most often given instead. NaN or None where there is nothing to count.
        """
        rows = []
        for code, name in enumerate(self.classes):
            own = self.codes == code
            n, n_groups = int(own.sum()), len(set(self._members[own]))
            right, named = (
                int((own & self._right).sum()),
                int((self._named == code).sum()),
            )
            recall, (low, high) = (
                (right / n, self._share(self._right[own], own))
                if n
                else (None, (None,) * 2)
            )
            missed = np.bincount(self._named[own & ~self._right], minlength=1)
            rows.append(
                {
                    "label": name,
                    "n_recordings": n,
                    "n_groups": n_groups,
                    "recall": recall,
                    "low": low,
                    "high": high,
                    "precision": right / named if named else None,
                    "f1": 2 * right / (named + n) if n or named else None,
                    "taken_for": self.classes[int(missed.argmax())]
                    if missed.any()
                    else None,
                }
            )
        return make_table(rows)

    def group_table(self) -> "pd.DataFrame":
        """Tell how every group was heard.

        Returns
        -------
        DataFrame
            `group`, `played` (the most frequent), `n_recordings`, `n_right` and `most_named`.
        """
        rows = []
        for number, name in enumerate(np.unique(self.groups)):
            own = self._members == number
            played, named = (
                self.classes[np.bincount(of[own]).argmax()]
                for of in (self.codes, self._named)
            )
            rows.append(
                {
                    "group": str(name),
                    "played": played,
                    "n_recordings": int(own.sum()),
                    "n_right": int(self._right[own].sum()),
                    "most_named": named,
                }
            )
        return make_table(rows)

    def reliability_table(self) -> "pd.DataFrame":
        """Compare how sure the answers are with how many are right.

        Returns
        -------
        DataFrame
            One row per bin of `calibration_error`: `probability` (mean), `accuracy` with `low` and `high`,
            `n_recordings`.
        """
        rows = []
        for own in calibration.rising_bins(self._trust, self._right):
            rows.append(
                {
                    "probability": float(self._trust[own].mean()),
                    **self._row(self._right[own], own),
                }
            )
        return make_table(rows)

    def risk_table(self) -> "pd.DataFrame":
        """Tell how many are right if only the surest part of the recordings is answered.

        Returns
        -------
        DataFrame
            `answered` (the part, 5 % and so on to 100 %), `probability` from which on there is an answer,
            `accuracy` with `low` and `high`, `n_recordings`.
        """
        order = np.argsort(-self._trust, kind="stable")
        rows = []
        for n in np.unique(
            np.ceil(self.n_recordings * np.arange(1, 21) / 20 - 1e-9).astype(int)
        ).tolist():
            own, least = order[:n], float(self._trust[order[n - 1]])
            rows.append(
                {
                    "answered": n / self.n_recordings,
                    "probability": least,
                    **self._row(self._right[own], own),
                }
            )
        return make_table(rows)

    def seconds_table(self) -> "pd.DataFrame":
        """Tell how many are right after the first seconds.

        Returns
        -------
        DataFrame
            `seconds` (whole tiles), `accuracy` with `low` and `high`, `n_recordings`. Every row is of the
            recordings that are that long: the last of them may end within the last tile. Empty if the
            tiles are not known.
        """
        longest = max((len(rows) for rows in self.tiles), default=0)
        steps = (
            np.unique(np.geomspace(1, longest, 12).round().astype(int)).tolist()
            if longest
            else []
        )
        sums = [np.cumsum(rows, axis=0, dtype=np.float64) for rows in self.tiles]
        rows = []
        for k in steps:
            own = np.array([n for n, one in enumerate(sums) if len(one) >= k])
            right = np.array([sums[n][k - 1].argmax() for n in own]) == self.codes[own]
            rows.append(
                {"seconds": round(k * self.tile_seconds, 3), **self._row(right, own)}
            )
        return make_table(rows, ["seconds", "accuracy", "low", "high", "n_recordings"])

    def __str__(self) -> str:
        over = "groups" if self.n_groups < self.n_recordings else "recordings"
        low, high = self.overconfidence_interval
        verdict = (
            "too sure"
            if low > 0
            else "not sure enough"
            if high < 0
            else "not clearly too sure or too unsure"
        )
        lines = [
            f"{self.n_recordings} recordings in {self.n_groups} groups, {len(self.classes)} classes"
            + (f"; {self.n_failed} could not be read" if self.n_failed else ""),
            f"accuracy  {self.accuracy:.3f}  (95 % interval {_between(self.accuracy_interval)}, as all over {over})",
            *(
                f"top {k}     {v:.3f}  ({_between(self.top_k_interval[k])})"
                for k, v in self.top_k.items()
                if k > 1
            ),
            f"macro F1  {self.macro_f1:.3f}  ({_between(self.macro_f1_interval)})",
            f"chance    {self.chance:.3f}\nmajority  {self.majority:.3f}",
            f"log-loss  {self.log_loss:.3f}  ({_between(self.log_loss_interval)}; of one who does not know "
            f"{np.log(len(self.classes)):.3f})",
            f"trust     {self._trust.mean():.3f}  is the mean probability of its answers: {verdict} "
            f"({low:+.3f} to {high:+.3f})",
            f"calibration error {self.calibration_error:.3f} (of one who means these probabilities "
            f"{_between(self.calibrated_range)})",
        ]
        return "\n".join([*lines, *(f"WARNING: {text}" for text in self._warnings())])

    __repr__ = __str__  # a notebook shows it as it prints

    def _warnings(self) -> list[str]:
        """Say what these scores cannot."""
        found, (low, high) = [], self.accuracy_interval
        if high - low > _TOO_WIDE:
            found.append(
                f"{int(self._right.sum())} of {self.n_recordings} right, in {self.n_groups} groups, means "
                f"{_percent(low)} to {_percent(high)} %. Score recordings of more groups."
            )
        for guess, who in (
            (self.chance, "guesses"),
            (self.majority, "always says the most frequent name"),
        ):
            if low <= guess <= high:
                found.append(
                    f"these recordings cannot tell this model from one that {who}, {guess:.3f}."
                )
                break
        if self.known_groups:
            first, n = self.known_groups[0], len(self.known_groups)
            found.append(
                f"{n} of these groups were in training, such as {first!r}. "
                "This score says nothing about recordings it never met."
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Give all scores as plain values.

        Returns
        -------
        dict
            Ready for JSON: every attribute but the arrays, and the tables that are not of recordings,
            groups or classes.
        """
        names = (
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
        tables = {
            "reliability": self.reliability_table(),
            "risk": self.risk_table(),
            "seconds": self.seconds_table(),
        }
        plain = {
            **{name: getattr(self, name) for name in names},
            "warnings": self._warnings(),
        }
        return json.loads(
            json.dumps(
                {**plain, **{name: t.to_dict("records") for name, t in tables.items()}}
            )
        )

    def save(self, folder: str | Path) -> None:
        """Write `evaluation.json`, and `confusion`, `classes`, `groups` and `answers` as csv.

        Parameters
        ----------
        folder : str or Path
            Made if it is not there.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_dict(), indent=2) + "\n"
        write_atomic(
            folder / "evaluation.json",
            partial(Path.write_text, data=text, encoding="utf-8"),
        )
        counts = [dict(zip(self.classes, row, strict=True)) for row in self.confusion]
        confusion = make_table(
            [
                {"played \\ named": name, **row}
                for name, row in zip(self.classes, counts, strict=True)
            ]
        )
        tables = {
            "confusion": confusion,
            "classes": self.class_table(),
            "groups": self.group_table(),
            "answers": self.answer_table(),
        }
        for name, table in tables.items():
            write = partial(
                table.to_csv, index=False, encoding="utf-8", errors="surrogateescape"
            )
            write_atomic(folder / f"{name}.csv", write)

    @cached_property
    def _named(self) -> NDArray[np.int64]:
        return self.proba.argmax(axis=1)

    @cached_property
    def _right(self) -> NDArray[np.bool_]:
        return self._named == self.codes

    @cached_property
    def _trust(self) -> NDArray[np.float64]:
        return self.proba.max(axis=1).astype(np.float64)

    @cached_property
    def _losses(self) -> NDArray[np.float64]:
        return -np.log(
            np.maximum(
                self.proba[np.arange(self.n_recordings), self.codes].astype(np.float64),
                _LEAST,
            )
        )

    @cached_property
    def _place(self) -> NDArray[np.int64]:
        ranks = np.argsort(-self.proba, axis=1, kind="stable")
        return (ranks == self.codes[:, None]).argmax(axis=1)

    @cached_property
    def _members(self) -> NDArray[np.int64]:
        return np.unique(self.groups, return_inverse=True)[1]

    @cached_property
    def _counts(self) -> NDArray[np.float64]:
        """What `macro_f1_of` takes, for every group."""
        one = np.eye(len(self.classes))
        return self._sum(
            np.hstack(
                [
                    one[self.codes] * self._right[:, None],
                    one[self.codes],
                    one[self._named],
                ]
            )
        )

    def _sum(
        self, values: NDArray, own: NDArray | slice = slice(None)
    ) -> NDArray[np.float64]:
        """Sum over the recordings of every group."""
        sums = np.zeros((self.n_groups, *values.shape[1:]))
        np.add.at(sums, self._members[own], values)
        return sums

    def _share(self, right: NDArray, own: NDArray | slice = slice(None)) -> Pair:
        """Interval of the part that is right among some recordings."""
        return _pair(
            interval.share_interval(
                self._sum(right, own), self._sum(np.ones(len(right)), own)
            )
        )

    def _row(self, right: NDArray, own: NDArray) -> dict[str, Any]:
        """Accuracy among some recordings, as a part of a row."""
        ends = dict(zip(("low", "high"), self._share(right, own), strict=True))
        return {"accuracy": float(right.mean()), **ends, "n_recordings": len(right)}

    def _mean(self, values: NDArray, extremes: Pair, log: bool = False) -> Pair:
        return _pair(
            interval.mean_interval(
                self._sum(values), self._sum(np.ones(len(values))), extremes, log
            )
        )


def evaluate_proba(
    proba: NDArray[np.float32],
    codes: NDArray[np.int64],
    classes: Sequence[Any] | NDArray,
    groups: Sequence[Any] | NDArray | None = None,
    n_failed: int = 0,
    paths: Sequence[str] | None = None,
) -> Evaluation:
    """Score probabilities of recordings.

    Parameters
    ----------
    proba : ndarray of float32, shape (n_recordings, n_classes)
        Probabilities.
    codes : ndarray of int64, shape (n_recordings,)
        Who played, as a place among the classes.
    classes : sequence
        The names.
    groups : sequence, optional
        One group per recording; by default every recording is its own.
    n_failed : int
        Recordings that could not be read.
    paths : sequence of str, optional
        The recordings; by default their numbers.

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
    >>> proba = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]], dtype="float32")
    >>> scores = evaluate_proba(proba, np.array([0, 1, 1, 1]), ["Evans", "Monk"])
    >>> scores.accuracy, scores.chance, scores.majority, scores.confusion
    (0.75, 0.5, 0.75, ((1, 0), (1, 2)))
    """
    n = len(codes)
    if not n:
        raise InputError(
            "evaluate: X must hold a recording that can be read, got none. See the reasons with identify."
        )
    keys = np.array([str(group) for group in (range(n) if groups is None else groups)])
    names = tuple(str(path) for path in (range(n) if paths is None else paths))
    return Evaluation(
        proba, codes, tuple(str(name) for name in classes), keys, names, n_failed
    )


def _pair(found: tuple[NDArray, NDArray]) -> Pair:
    return float(found[0]), float(found[1])


def _between(found: Pair) -> str:
    return f"{found[0]:.3f} to {found[1]:.3f}"


def _percent(share: float) -> str:
    return (
        f"{100 * share:.1f}"
        if 0.0005 < share < 0.01 or 0.99 < share < 0.9995
        else f"{100 * share:.0f}"
    )
