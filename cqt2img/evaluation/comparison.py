"""Is one model better than another? Both are asked about the same recordings."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cqt2img.errors import InputError
from cqt2img.evaluation.evaluation import Evaluation
from cqt2img.evaluation.intervals import mean_interval


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """What two models make of the same recordings.

    Parameters
    ----------
    table : DataFrame
        One row per recording: `path`, `group`, `played`, `first` and `second` (what each model named),
        `first_right` and `second_right`.
    """

    table: pd.DataFrame

    @property
    def difference(self) -> float:
        """Accuracy of the first less that of the second."""
        return float(self._gains.mean())

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the difference, over groups."""
        sums, sizes = (
            self._gains.groupby(self.table["group"]).agg(of).to_numpy()
            for of in ("sum", "size")
        )
        low, high = mean_interval(sums, sizes, (-1, 1))
        return float(low), float(high)

    @cached_property
    def p_value(self) -> float:
        """How often chance alone makes a difference as large, if in every group either model may be the better."""
        return _flip_signs(self._gains.groupby(self.table["group"]).sum().to_numpy())

    @property
    def only_first(self) -> pd.DataFrame:
        """The recordings that the first model names right and the second does not."""
        return self.table[self._gains > 0].reset_index(drop=True)

    @property
    def only_second(self) -> pd.DataFrame:
        """The recordings that the second model names right and the first does not."""
        return self.table[self._gains < 0].reset_index(drop=True)

    @property
    def _gains(self) -> pd.Series:
        return self.table["first_right"].astype(int) - self.table[
            "second_right"
        ].astype(int)

    def __str__(self) -> str:
        (low, high), first, second = (
            self.interval,
            self.table["first_right"],
            self.table["second_right"],
        )
        n_groups = self.table["group"].nunique()
        clear = self.p_value < 0.05 and not low <= 0 <= high
        better = (
            f"the {'first' if low > 0 else 'second'} is better"
            if clear
            else "either may be the better"
        )
        return "\n".join(
            [
                f"{len(self.table)} recordings in {n_groups} groups: {first.sum()} right by the first model, "
                f"{second.sum()} by the second, {(first & second).sum()} by both, {(~first & ~second).sum()} by neither",
                f"difference {self.difference:+.3f}  (95 % interval {low:+.3f} to {high:+.3f} over "
                f"{'groups' if n_groups < len(self.table) else 'recordings'}; p = {self.p_value:.3f})",
                f"On recordings like these {better}.",
            ]
        )

    __repr__ = __str__  # a notebook shows it as it prints


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """Compare two models on the same recordings.

    Parameters
    ----------
    first, second : Evaluation
        What `Classifier.evaluate` gives. The groups are those of the first.

    Returns
    -------
    Comparison
        The difference of accuracies with its interval, and who gets which recordings.

    Raises
    ------
    InputError
        If they are not of the same recordings with the same labels.

    Notes
    -----
    `p_value` flips the sign of the difference of every group, all ways at once. With groups of one it is
    McNemar's exact test; that test itself takes the recordings of an album for independent.

    References
    ----------
    Quinn McNemar, "Note on the sampling error of the difference between correlated proportions or percentages", 1947.
    Ronald A. Fisher, "The Design of Experiments", 1935.

    Examples
    --------
    >>> from cqt2img.evaluation.evaluation import evaluate_proba
    >>> codes, one, other = np.array([0, 0, 1, 1]), np.eye(2)[[0, 0, 1, 0]], np.eye(2)[[0, 1, 0, 0]]
    >>> found = compare(*(evaluate_proba(proba, codes, ["Evans", "Monk"]) for proba in (one, other)))
    >>> found.difference, found.p_value, found.only_first["path"].tolist()
    (0.5, 0.5, ['1', '2'])
    """
    tables = [
        scores.answer_table().sort_values(["path", "played"], ignore_index=True)
        for scores in (first, second)
    ]
    one, other = tables
    if (
        one[["path", "played"]].to_numpy().tolist()
        != other[["path", "played"]].to_numpy().tolist()
    ):
        both = len(one.merge(other, on=["path", "played"]))
        raise InputError(
            f"compare: first and second must score the same recordings with the same labels, got {len(one)} and "
            f"{len(other)} with {both} in common. Evaluate both models on the same."
        )
    table = one[["path", "group", "played"]].assign(
        first=one["named"], second=other["named"]
    )
    return Comparison(
        table.assign(first_right=one["place"] == 1, second_right=other["place"] == 1)
    )


def _flip_signs(gains: NDArray[np.int64]) -> float:
    """Give the part of all ways to flip signs that brings a sum as far from 0; exact, for the gains are whole."""
    ways, total = np.ones(1), np.abs(gains).sum()
    for gain in np.abs(gains[gains != 0]):
        ways = np.convolve(ways, np.bincount([0, 2 * gain]) / 2)
    return float(ways[np.abs(np.arange(len(ways)) - total) >= abs(gains.sum())].sum())
