"""How good the answers are: per recording, with an interval, beside chance."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cqt2img.errors import InputError
from cqt2img.predict import log_loss

_N_BOOTSTRAP = 2000


@dataclass(frozen=True)
class Evaluation:
    """Scores over recordings.

    Parameters
    ----------
    n_recordings, n_groups, n_failed : int
        Recordings that were scored, groups among them, and recordings that could not be read.
    accuracy : float
        Part of the recordings whose first name is right.
    accuracy_interval : tuple of two float
        95 % interval, bootstrapped over recordings.
    accuracy_interval_groups : tuple of two float, or None
        The same, bootstrapped over whole groups; the honest one where recordings of one album
        stand or fall together. None if every recording is its own group.
    macro_f1 : float
        Mean of the F1 of the classes that occur.
    macro_f1_interval : tuple of two float
        95 % interval, bootstrapped over recordings.
    top_k : dict of int to float
        Part of the recordings whose name is among the first k.
    log_loss : float
        Mean log-loss in nats.
    chance, majority : float
        Accuracy of one who guesses evenly, and of one who always says the most frequent name.
    classes : tuple of str
        The names, in the order of `confusion`.
    confusion : tuple of tuple of int
        Row: who played. Column: who was named.
    known_groups : tuple of str
        Groups that the model was trained on. Their recordings make the score too good.
    """

    n_recordings: int
    n_groups: int
    n_failed: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    accuracy_interval_groups: tuple[float, float] | None
    macro_f1: float
    macro_f1_interval: tuple[float, float]
    top_k: dict[int, float]
    log_loss: float
    chance: float
    majority: float
    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    known_groups: tuple[str, ...] = ()

    def __str__(self) -> str:
        low, high = self.accuracy_interval
        lines = [
            f"{self.n_recordings} recordings in {self.n_groups} groups, {len(self.classes)} classes"
            + (f"; {self.n_failed} could not be read" if self.n_failed else ""),
            f"accuracy  {self.accuracy:.3f}  (95 % interval {low:.3f} to {high:.3f} over recordings)",
        ]
        if self.accuracy_interval_groups:
            low, high = self.accuracy_interval_groups
            lines.append(f"                 (95 % interval {low:.3f} to {high:.3f} over groups)")
        low, high = self.macro_f1_interval
        lines += [
            f"macro F1  {self.macro_f1:.3f}  (95 % interval {low:.3f} to {high:.3f})",
            *(f"top {k}     {v:.3f}" for k, v in self.top_k.items() if k > 1),
            f"chance    {self.chance:.3f}",
            f"majority  {self.majority:.3f}",
        ]
        if self.known_groups:
            lines.append(
                f"WARNING: {len(self.known_groups)} of these groups were in training, such as "
                f"{self.known_groups[0]!r}. This score says nothing about recordings it never met."
            )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Give all scores as plain values.

        Returns
        -------
        dict
            Ready for JSON.
        """
        return json.loads(json.dumps(asdict(self)))

    def save(self, folder: str | Path) -> None:
        """Write `evaluation.json` and `confusion.csv`.

        Parameters
        ----------
        folder : str or Path
            Made if it is not there.
        """
        import pandas as pd

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "evaluation.json").write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")
        names = list(self.classes)
        frame = pd.DataFrame(np.asarray(self.confusion), index=pd.Index(names, name="played \\ named"), columns=names)
        frame.to_csv(folder / "confusion.csv")


def evaluate_proba(
    proba: NDArray[np.float32],
    codes: NDArray[np.int64],
    classes: Sequence[Any] | NDArray,
    groups: Sequence[Any] | NDArray | None = None,
    n_failed: int = 0,
    random_state: int = 0,
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
        One group per recording.
    n_failed : int
        Recordings that could not be read.
    random_state : int
        Seed of the bootstrap.

    Returns
    -------
    Evaluation
        The scores.

    Raises
    ------
    InputError
        If there is no recording.

    References
    ----------
    Bradley Efron and Robert J. Tibshirani, "An Introduction to the Bootstrap", 1993.

    Examples
    --------
    >>> proba = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]], dtype="float32")
    >>> scores = evaluate_proba(proba, np.array([0, 1, 1, 1]), ["Evans", "Monk"])
    >>> scores.accuracy, scores.chance, scores.majority, scores.confusion
    (0.75, 0.5, 0.75, ((1, 0), (1, 2)))
    """
    if not len(codes):
        raise InputError("evaluate: X must hold a recording that can be read, got none. See the reasons with identify.")
    n, n_classes = proba.shape
    named = proba.argmax(axis=1)
    keys = np.asarray([str(g) for g in groups]) if groups is not None else np.arange(n).astype(str)
    rng = np.random.default_rng(random_state)
    draws = rng.integers(n, size=(_N_BOOTSTRAP, n))
    right = named == codes
    f1 = [_macro_f1(codes[d], named[d], n_classes) for d in draws]
    ranks = np.argsort(-proba, axis=1, kind="stable")
    place = (ranks == codes[:, None]).argmax(axis=1)
    names, members = np.unique(keys, return_inverse=True)
    return Evaluation(
        n_recordings=n,
        n_groups=len(names),
        n_failed=n_failed,
        accuracy=float(right.mean()),
        accuracy_interval=_interval(right[draws].mean(axis=1)),
        accuracy_interval_groups=_over_groups(right, members, rng) if len(names) < n else None,
        macro_f1=_macro_f1(codes, named, n_classes),
        macro_f1_interval=_interval(np.asarray(f1)),
        top_k={k: float((place < k).mean()) for k in (1, 3, 5) if k < n_classes},
        log_loss=log_loss(proba, codes),
        chance=1 / n_classes,
        majority=float(np.bincount(codes).max() / n),
        classes=tuple(str(c) for c in classes),
        confusion=tuple(map(tuple, _confusion(codes, named, n_classes).tolist())),
    )


def _confusion(codes: NDArray, named: NDArray, n_classes: int) -> NDArray[np.int64]:
    return np.bincount(codes * n_classes + named, minlength=n_classes**2).reshape(n_classes, n_classes)


def _macro_f1(codes: NDArray, named: NDArray, n_classes: int) -> float:
    """Mean F1 of the classes that occur among who played; scikit-learn's is too slow to bootstrap."""
    table = _confusion(codes, named, n_classes)
    sums = table.sum(axis=0) + table.sum(axis=1)
    occurs = table.sum(axis=1) > 0
    return float((2 * np.diag(table)[occurs] / sums[occurs]).mean())


def _interval(values: NDArray) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _over_groups(right: NDArray, members: NDArray, rng: np.random.Generator) -> tuple[float, float]:
    """Draw whole groups instead of recordings."""
    sizes = np.bincount(members)
    hits = np.bincount(members, weights=right)
    draws = rng.integers(len(sizes), size=(_N_BOOTSTRAP, len(sizes)))
    return _interval(hits[draws].sum(axis=1) / sizes[draws].sum(axis=1))
