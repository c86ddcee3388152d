"""The disjointness ladder: one small model, scored with ever more held out, shows what a score is made of."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cqt2img.data.dataset import TrainingData
from cqt2img.data.labels import encode, find_classes, one_hot
from cqt2img.data.splits import split_folds
from cqt2img.data.tile_arrays import TileArrays
from cqt2img.evaluation.evaluation import Evaluation, evaluate_proba
from cqt2img.inference.calibration import pool, to_proba
from cqt2img.inference.predict import tile_log_proba
from cqt2img.models.device import resolve_device
from cqt2img.models.factory import TileNet
from cqt2img.training.callbacks import Callback
from cqt2img.training.config import TrainingSettings
from cqt2img.training.trainer import train

if TYPE_CHECKING:
    import pandas as pd

_N_SPLITS = 5
_LEAST = -30.0  # of a log-probability: one tile must not decide for all others


@dataclass(frozen=True)
class SplitScore:
    """One rung of the ladder: a small model scored with one thing held out.

    Parameters
    ----------
    held_out : str
        What test and training do not share: "tiles" (nothing else), "recordings", or a level such
        as "pieces" or "albums".
    tile_accuracy : float
        Part of the tiles that are named right.
    scores : Evaluation
        Over recordings, each by all its tiles.
    proba : ndarray of float32, shape (n_recordings, n_classes)
        What it says of every recording.
    places : ndarray of int64, shape (n_recordings,)
        Rows of the table that these are.
    """

    held_out: str
    tile_accuracy: float
    scores: Evaluation
    proba: NDArray[np.float32]
    places: NDArray[np.int64]


def score_splits(
    sketches: list[NDArray[np.float32]],
    table: "pd.DataFrame",
    levels: Mapping[str, NDArray[Any]],
    random_state: int = 0,
) -> list[SplitScore]:
    """Score a small model with tiles, recordings and every level held out in turn.

    Parameters
    ----------
    sketches : list of ndarray of float32, shape (n_tiles, n_features)
        What `sketch` gives, one for each recording.
    table : DataFrame
        `label` and `group` of each.
    levels : mapping of str to ndarray, shape (n_recordings,)
        What else to hold out, from fine to coarse: pieces, albums, sessions.
    random_state : int
        Seed of the folds.

    Returns
    -------
    list of SplitScore
        From tiles at random to the last level that can be held out. Classes that are in one group
        only on some level are left out of every rung, so that all are about the same recordings;
        a level on which fewer than two classes are left is left out itself.

    Notes
    -----
    The model is linear discriminant analysis with shrinkage on level, spread and rise of every
    semitone. It takes under a second a rung, and the differences between the rungs are what matters:
    what it gains when tiles of a recording, or recordings of an album, stand on both sides, it
    gains from the recording or the album and not from the player.

    References
    ----------
    Arthur Flexer, "A closer look on artist filters for musical genre classification", 2007.
    Olivier Ledoit and Michael Wolf, "Honey, I Shrunk the Sample Covariance Matrix", 2004.
    """
    labels = np.asarray([str(label) for label in table["label"]])
    levels = {
        name: keys for name, keys in levels.items() if len(_judged(labels, keys)) > 1
    }
    kept = _judged(labels, np.arange(len(labels))).intersection(
        *(_judged(labels, keys) for keys in levels.values())
    )
    places = np.flatnonzero(np.isin(labels, sorted(kept)))
    if len(kept) < 2:
        return []
    classes, codes = np.unique(labels[places], return_inverse=True)
    groups = table["group"].to_numpy()[places]
    n_tiles = [len(sketches[place]) for place in places]
    features, owner = (
        np.concatenate([sketches[place] for place in places]),
        np.repeat(np.arange(len(places)), n_tiles),
    )
    rungs = []
    for name in ["tiles", "recordings", *levels]:
        keys = (
            levels[name][places]
            if name in levels
            else np.arange(len(owner) if name == "tiles" else len(places))
        )
        on_tiles = keys if name == "tiles" else keys[owner]
        log_proba = _out_of_fold(features, codes[owner], on_tiles, random_state)
        rows = np.split(log_proba, np.cumsum(n_tiles)[:-1])
        proba = np.exp(np.stack([pool(row) for row in rows]))
        right = float((log_proba.argmax(axis=1) == codes[owner]).mean())
        rungs.append(
            SplitScore(
                name,
                right,
                evaluate_proba(proba, codes, classes, groups),
                proba,
                places,
            )
        )
    return rungs


def score_tiles(
    strips: TileArrays,
    table: "pd.DataFrame",
    is_test: NDArray[np.bool_] | float,
    network: TileNet,
    recipe: TrainingSettings,
    watch: Callback | None = None,
) -> Evaluation:
    """Train and test on single tiles, as a first network is often built.

    Never use this score for anything but a comparison: with tiles drawn at random, both sides hold
    tiles of the same recordings, and the network is asked for the album.

    Parameters
    ----------
    strips : TileArrays
        Pictures of the recordings.
    table : DataFrame
        `label` and `group` of each.
    is_test : ndarray of bool, shape (n_recordings,), or float
        The recordings whose tiles are tested, or the part of all tiles, drawn at random.
    network : TileNet
        Where training starts; it is changed.
    recipe : TrainingSettings
        How to train; the last epoch is kept.
    watch : Callback, optional
        Gets told how training goes.

    Returns
    -------
    Evaluation
        Scores per tile; intervals are over groups of recordings.

    References
    ----------
    Arthur Flexer, "A closer look on artist filters for musical genre classification", 2007.
    """
    tiles = [strips.tiles(n) for n in range(len(strips))]
    owner = np.repeat(np.arange(len(tiles)), [len(t) for t in tiles])
    single = np.concatenate(tiles)
    if isinstance(is_test, float):
        test = np.random.default_rng(recipe.seed).random(len(single)) < is_test
    else:
        test = is_test[owner]
    classes = find_classes(table["label"].tolist())
    codes = encode(table["label"].tolist(), classes)[owner]
    alone = TileArrays(
        strips.spec, list(single), np.full(len(single), strips.spec.width)
    )
    groups = table["group"].to_numpy()[owner]
    corpus = TrainingData(
        alone,
        one_hot(codes, len(classes), 0.1),
        groups,
        np.flatnonzero(~test),
        np.arange(0),
    )
    trained = train(network, corpus, recipe, callback=watch)
    network.load_state_dict(trained.state)
    device = resolve_device(None)
    proba = to_proba(tile_log_proba(network.to(device), single[test], device))
    return evaluate_proba(proba, codes[test], classes, groups[test])


def _judged(labels: NDArray, keys: NDArray) -> set[str]:
    """Classes that are in two groups or more."""
    pairs = set(zip(labels.tolist(), map(str, keys), strict=True))
    names = [label for label, _ in pairs]
    return {label for label in names if names.count(label) > 1}


def _out_of_fold(
    features: NDArray, codes: NDArray, keys: NDArray, seed: int
) -> NDArray[np.float32]:
    """Give log-probabilities of every tile by a model that met nothing of its group."""
    log_proba = np.full((len(codes), codes.max() + 1), _LEAST, np.float32)
    for training, test in _folds(codes, keys, seed):
        n_classes = len(np.unique(codes[training]))
        if (
            not 1 < n_classes < len(training)
        ):  # nothing to learn from: the answer is a guess
            continue
        mean, scale = features[training].mean(axis=0), features[training].std(axis=0)
        scale = np.where(
            scale > 0, scale, 1
        )  # a row that is always silent says nothing
        model = _fit((features[training] - mean) / scale, codes[training])
        answers = model.predict_log_proba((features[test] - mean) / scale)
        log_proba[np.ix_(test, model.classes_)] = np.maximum(answers, _LEAST)
    return log_proba


def _folds(
    codes: NDArray, keys: NDArray, seed: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    n_splits = min(_N_SPLITS, len(np.unique(keys)), int(np.bincount(codes).max()))
    return split_folds(codes, keys, n_splits, seed)


def _fit(features: NDArray, codes: NDArray) -> Any:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    n_classes = len(np.unique(codes))
    even = np.full(n_classes, 1 / n_classes)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Only one sample"
        )  # of a class: it has no spread of its own
        return LinearDiscriminantAnalysis(
            solver="lsqr", shrinkage="auto", priors=even
        ).fit(features, codes)
