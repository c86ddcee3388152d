"""What a fitted model can be asked about recordings."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from cqt2img.backbone import TileNet, find_device
from cqt2img.errors import InputError
from cqt2img.evaluate import Evaluation, evaluate_proba
from cqt2img.jobs import Progress, progress_bar, run_jobs
from cqt2img.labels import encode, refuse_unlabelled
from cqt2img.predict import Heard, embed, embed_tiles, listen, recording_answers, tile_answers, to_proba
from cqt2img.prototype import Gallery, Head, read_head
from cqt2img.recording import attempt, refuse_bad
from cqt2img.source import list_recordings
from cqt2img.spec import TileSpec
from cqt2img.tileset import spec_for
from cqt2img.unknown import Familiarity, refuse_unready, word_for

if TYPE_CHECKING:
    import pandas as pd


class Listener(ClassifierMixin, BaseEstimator):
    """What `Classifier` does once it is fitted: it listens to recordings and answers, and changes nothing of itself."""

    # what its constructor stores, and what `fit` makes
    batch_size: int
    device: str | None
    n_jobs: int
    on_error: str
    verbose: bool
    classes_: NDArray[Any]
    spec_: TileSpec
    network_: TileNet
    temperature_: float
    groups_: NDArray[Any]
    fingerprints_: list[str]
    gallery_: Gallery | None
    familiarity_: Familiarity

    def identify(self, X: Any, top_k: int = 3, unknown: bool = False) -> "pd.DataFrame":
        """Name the player of every recording, with one row for each, whatever its state.

        Parameters
        ----------
        X : folder, table, TileSet, or sequence of paths or CQT arrays
            The recordings, as for `fit`.
        top_k : int
            How many names to list, 1 or more.
        unknown : bool
            Whether to tell, too, if the player may be none of those the model knows.

        Returns
        -------
        DataFrame
            `path`, `label`, `probability`, `label_2`, `probability_2` and so on, `status` ("ok"
            or "error"), `reason`, `message`. No label where the status is "error". With `unknown`,
            before the status, `known` and `is_unknown`, see Notes.

        Raises
        ------
        InputError
            If there is no recording, `top_k` is below 1, or the model cannot tell the unknown.

        Notes
        -----
        `label` and `probability` always say who it is if it is one of the players that the model knows.
        `known`, 0 to 1, is the part of recordings by these players, heard in `fit` but not trained on, that
        sounded no more familiar than this one. `is_unknown` is true where that is below `familiarity_.lost`;
        see `predict` for what to expect of it.
        """
        return self.answers(X, top_k, unknown)[0]

    def predict(self, X: Any, unknown: bool | str = False) -> NDArray:
        """Name the player of every recording.

        Parameters
        ----------
        X : folder, table, TileSet, or sequence of paths or CQT arrays
            The recordings, as for `fit`.
        unknown : bool or str
            Whether an answer may be "unknown": none of the players that the model knows. A word takes
            the place of "unknown".

        Returns
        -------
        ndarray, shape (n_recordings,)
            Labels; None for a recording that could not be read where `on_error` is "skip". Of type
            object where "unknown" stands among labels that are no text.

        Raises
        ------
        AudioError
            If a recording cannot be read and `on_error` is "raise".
        InputError
            If `unknown` is the name of a class, or the model cannot tell the unknown.

        Notes
        -----
        Up to one in ten recordings of players that the model knows is called unknown, too: that is how the
        line was drawn, on recordings that were kept from training, and a strange album can cost more. How many
        strangers are then found depends on how well the model tells players apart: `familiarity_.auroc`
        says how often a recording of a known player sounded more familiar than one of a player who was left
        out, .5 being chance. It flatters: it rests on few recordings, and the body of a network that was trained
        whole had met these players; try strangers of your own. Of ten jazz pianists,
        whom it names right in 4 of 10 half-minutes, it found 1 stranger in 6 and lost 1 of 8 it knew
        (`benchmarks/unknown.py`).
        """
        check_is_fitted(self)
        word = None if unknown is False else word_for(unknown, self.classes_)
        proba, known = self._hear("predict", X, unknown is not False)
        bad = np.isnan(proba).any(axis=1)
        labels = self.classes_[np.where(bad, 0, proba.argmax(axis=1))]
        if word is not None:
            kind = labels.dtype if labels.dtype.kind == "U" else object
            labels = np.where(known < self.familiarity_.lost, word, labels.astype(kind))
        if bad.any():
            labels = labels.astype(object)
            labels[bad] = None
        return labels

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Give the probability of every player for every recording.

        Parameters
        ----------
        X : folder, table, TileSet, or sequence of paths or CQT arrays
            The recordings, as for `fit`.

        Returns
        -------
        ndarray of float32, shape (n_recordings, n_classes)
            In the order of `classes_`. A row is NaN for a recording that could not be read where
            `on_error` is "skip".

        Raises
        ------
        AudioError
            If a recording cannot be read and `on_error` is "raise".
        """
        return self._hear("predict", X)[0]

    def embed(self, X: Any) -> NDArray[np.float32]:
        """Give what the network hears in every recording, before it turns that into names.

        Parameters
        ----------
        X : folder, table, TileSet, or sequence of paths or CQT arrays
            The recordings, as for `fit`.

        Returns
        -------
        ndarray of float32, shape (n_recordings, n_features)
            The mean over the tiles of each; its unit is the network's own. Near in direction is
            alike to the network. A row is NaN for a recording that could not be read where
            `on_error` is "skip".

        Raises
        ------
        AudioError
            If a recording cannot be read and `on_error` is "raise".
        """
        check_is_fitted(self)
        table = list_recordings(X)
        device = find_device(self.device)
        rows, infos = zip(
            *embed(self.network_.to(device), self._pictures(table, X), device, self.batch_size), strict=True
        )
        if self.on_error == "raise":
            refuse_bad("embed", table["path"], infos, "Mend or remove it, or pass on_error='skip'.")
        heard = [row for row in rows if row is not None]
        if not heard:  # only the network knows how many features there are
            heard = [embed_tiles(self.network_, np.zeros((1, *self.spec_.size), np.uint8), device)[0]]
        return np.stack([np.full_like(heard[0], np.nan) if row is None else row for row in rows])

    def predict_tiles(self, X: Any, top_k: int = 1) -> "pd.DataFrame":
        """Name the player of every few seconds of every recording.

        Parameters
        ----------
        X : folder, table, TileSet, or sequence of paths or CQT arrays
            The recordings, as for `fit`.
        top_k : int
            How many names to list, 1 or more.

        Returns
        -------
        DataFrame
            One row per tile: `path`, `start_seconds`, `end_seconds`, `label`, `probability` and so
            on, `status`, `reason`, `message`; one row without times for a recording that could not
            be read.
        """
        return self.answers(X, top_k)[1]

    def answers(self, X: Any, top_k: int = 3, unknown: bool = False) -> tuple["pd.DataFrame", "pd.DataFrame"]:
        """Give what `identify` and `predict_tiles` give, and listen only once.

        Parameters
        ----------
        X : folder, table, TileSet, or sequence of paths or CQT arrays
            The recordings, as for `fit`.
        top_k : int
            How many names to list, 1 or more.
        unknown : bool
            As for `identify`.

        Returns
        -------
        recordings, tiles : DataFrame
            One row per recording, and one row per tile.

        Raises
        ------
        InputError
            If there is no recording, `top_k` is below 1, or the model cannot tell the unknown.
        """
        check_is_fitted(self)
        if isinstance(top_k, bool) or not isinstance(top_k, (int, np.integer)) or top_k < 1:
            raise InputError(f"identify: top_k must be 1 or more, got {top_k!r}. Choose a larger number.")
        head = self._head_for(unknown)
        table = list_recordings(X)
        heard = list(self._listen(table, X, head is not None))
        paths, names, warmth = table["path"].tolist(), self.classes_, self.temperature_
        recordings = recording_answers(paths, heard, names, warmth, top_k)
        if head is not None:
            known = self._judge(heard, head)
            place = recordings.columns.get_loc("status")
            recordings.insert(place, "known", known.round(4))
            strange = [None if np.isnan(part) else bool(part < self.familiarity_.lost) for part in known]
            recordings.insert(place + 1, "is_unknown", strange)
        return recordings, tile_answers(paths, heard, names, warmth, self.spec_, top_k)

    def score(self, X: Any, y: Sequence[Any] | None = None, sample_weight: Any = None) -> float:
        """Give the part of the recordings that are named right.

        Parameters
        ----------
        X : folder, table, TileSet, or sequence of paths or CQT arrays
            The recordings, as for `fit`.
        y : sequence, optional
            One label per recording; by default what the folders or the table say.
        sample_weight : array-like, optional
            Weight of every recording.

        Returns
        -------
        float
            0 to 1. A recording that could not be read is not named right.

        Raises
        ------
        InputError
            If a label is missing.
        AudioError
            If a recording cannot be read and `on_error` is "raise".
        """
        check_is_fitted(self)
        labels = list_recordings(X, y)["label"].tolist()
        refuse_unlabelled("score", labels)
        right = [a == b for a, b in zip(self.predict(X).tolist(), np.asarray(labels).tolist(), strict=True)]
        return float(np.average(right, weights=sample_weight))

    def evaluate(
        self,
        X: Any,
        y: Sequence[Any] | None = None,
        groups: Sequence[Any] | None = None,
        *,
        group_by: str | None = None,
    ) -> Evaluation:
        """Score the model on recordings, with an interval, beside chance.

        Parameters
        ----------
        X : folder, table, TileSet, or sequence of paths or CQT arrays
            Recordings that training never met, as for `fit`.
        y : sequence, optional
            One label per recording; by default what the folders or the table say.
        groups : sequence, optional
            One group per recording.
        group_by : str, optional
            Column of a table that names the group.

        Returns
        -------
        Evaluation
            Scores per recording, with intervals over groups; what cannot be read is counted, not scored.

        Raises
        ------
        InputError
            If a label is missing or unknown to the model, or no recording can be read.
        """
        check_is_fitted(self)
        table = list_recordings(X, y, groups, group_by)
        refuse_unlabelled("evaluate", table["label"].tolist(), table["path"].tolist())
        codes = encode(table["label"].tolist(), self.classes_)
        heard = list(self._listen(table, X))
        good = [n for n, one in enumerate(heard) if one.recording is not None]
        proba = to_proba(np.reshape([heard[n].recording for n in good], (-1, len(self.classes_))), self.temperature_)
        names = np.array([str(group) for group in table["group"]])[good]
        paths = [table["path"].iloc[n] for n in good]
        scores = evaluate_proba(proba, codes[good], self.classes_, names, len(heard) - len(good), paths)
        # arrays have no name: only what they show can tell that training met them
        met = set(self.groups_.tolist()) - {path for path in table["path"] if path.startswith("array ")}
        same = {name for n, name in zip(good, names, strict=True) if heard[n].info["fingerprint"] in self.fingerprints_}
        known = sorted(str(name) for name in same | (met & set(names.tolist())))
        tiles = tuple(one.tiles for one in heard if one.tiles is not None)
        return replace(scores, known_groups=tuple(known), tiles=tiles, tile_seconds=self.spec_.tile_seconds)

    def _listen(self, table: "pd.DataFrame", X: Any, with_features: bool = False) -> Iterator[Heard]:
        """Hear every recording of a table in turn."""
        device = find_device(self.device)
        return listen(self.network_.to(device), self._pictures(table, X), device, self.batch_size, with_features)

    def _hear(self, caller: str, X: Any, unknown: bool = False) -> tuple[NDArray[np.float32], NDArray]:
        """Give the probabilities of every recording, and how familiar it is; NaN where it cannot be read."""
        check_is_fitted(self)
        head = self._head_for(unknown)
        table = list_recordings(X)
        heard = list(self._listen(table, X, head is not None))
        if self.on_error == "raise":
            infos = [one.info for one in heard]
            refuse_bad(caller, table["path"], infos, "Use identify for one row each, or on_error='skip'.")
        proba = np.full((len(table), len(self.classes_)), np.nan, dtype=np.float32)
        for row, one in enumerate(heard):
            if one.recording is not None:
                proba[row] = to_proba(one.recording, self.temperature_)
        return proba, np.full(len(heard), np.nan) if head is None else self._judge(heard, head)

    def _head_for(self, unknown: bool) -> Head | None:
        """Give the head if the unknown is to be told, which must be possible; else None."""
        if not unknown:
            return None
        head = read_head(self.network_)
        refuse_unready(self.gallery_, head)
        return head

    def _judge(self, heard: Sequence[Heard], head: Head) -> NDArray[np.float64]:
        """Say how familiar every recording is."""
        assert self.gallery_ is not None
        known = np.full(len(heard), np.nan)
        good = [n for n, one in enumerate(heard) if one.features is not None]
        if good:
            known[good] = self.familiarity_.judge(
                np.stack([one.features for one in heard if one.features is not None]), head, self.gallery_
            )
        return known

    def _pictures(self, table: "pd.DataFrame", X: Any) -> Iterator[Any]:
        """Draw every recording of a table in turn."""
        spec_for(self.spec_, X, "predict")
        jobs = zip(table["item"], [self.spec_] * len(table), table["tiles"], strict=True)
        return run_jobs(attempt, jobs, len(table), self.n_jobs, self._bar(), "listening")

    def _bar(self) -> Progress | None:
        return progress_bar if self.verbose else None
