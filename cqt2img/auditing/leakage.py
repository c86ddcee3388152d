"""Leakage of recordings and albums into a score, measured with a small model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cqt2img._utils.array_types import BoolArray, Float32Array, IntArray, Labels
from cqt2img.auditing.groups import find_keys_with_several
from cqt2img.auditing.out_of_fold import predict_out_of_fold
from cqt2img.data.dataset import TrainingData
from cqt2img.data.labels import encode, find_classes, one_hot
from cqt2img.data.splits import split_folds
from cqt2img.data.tile_arrays import TileArrays
from cqt2img.evaluation.evaluation import Evaluation, evaluate_proba
from cqt2img.inference.calibration import pool
from cqt2img.inference.predict import tile_log_proba
from cqt2img.models.device import resolve_device
from cqt2img.models.factory import TileNet
from cqt2img.training.callbacks import Callback
from cqt2img.training.config import TrainingSettings
from cqt2img.training.trainer import train

_N_SPLITS = 5


@dataclass(frozen=True)
class SplitScore:
    """Scores of a small model on one way to split the data.

    Parameters
    ----------
    held_out : str
        What training and test do not share: "tiles" (nothing else), "recordings", or a
        level such as "pieces" or "albums".
    tile_accuracy : float
        Accuracy over single tiles, 0 to 1.
    scores : Evaluation
        Scores over recordings, each by all its tiles.
    proba : ndarray of float32, shape (n_recordings, n_classes)
        Predicted probabilities.
    indices : ndarray of int64, shape (n_recordings,)
        Indices of these recordings among all recordings.
    """

    held_out: str
    tile_accuracy: float
    scores: Evaluation
    proba: Float32Array
    indices: IntArray


def score_splits(
    statistics: Sequence[Float32Array],
    labels: Sequence[object] | Labels,
    groups: Sequence[str] | Labels,
    levels: Mapping[str, Labels],
    *,
    random_state: int = 0,
) -> list[SplitScore]:
    """Score a small model with tiles, recordings and every level held out in turn.

    Parameters
    ----------
    statistics : sequence of ndarray of float32, shape (n_tiles, n_features)
        The result of `compute_tile_statistics` for each recording.
    labels, groups : sequence
        One entry per recording.
    levels : mapping of str to ndarray, shape (n_recordings,)
        What else to hold out, from fine to coarse: pieces, albums, sessions.
    random_state : int
        Seed of the folds.

    Returns
    -------
    list of SplitScore
        From tiles split at random to the last level that can be held out. Classes that
        are in one group only on some level are left out of every score, so that all
        scores are about the same recordings. A level that leaves fewer than two classes
        is left out itself. Empty if there are fewer than two classes.

    Notes
    -----
    The model is linear discriminant analysis with shrinkage on level, spread and rise
    of every semitone, and takes less than a second per split. The differences between
    the scores are what matters: what the model gains when training and test share
    recordings or albums comes from these and not from the player.

    References
    ----------
    Arthur Flexer, "A closer look on artist filters for musical genre classification",
    2007.
    """
    names = np.asarray([str(label) for label in labels])
    usable_levels = {}
    usable_classes = set(find_keys_with_several(names, range(len(names))))
    for level, keys in levels.items():
        found = find_keys_with_several(names, keys)
        if len(found) > 1:
            usable_levels[level] = keys
            usable_classes.intersection_update(found)
    if len(usable_classes) < 2:
        return []
    is_usable = np.isin(names, sorted(usable_classes))
    indices = np.flatnonzero(is_usable)
    kept = [statistics[index] for index in indices.tolist()]
    n_tiles = [len(rows) for rows in kept]
    owner = np.repeat(np.arange(len(kept)), n_tiles)
    splits: dict[str, Labels] = {
        "tiles": np.arange(len(owner)),
        "recordings": owner,
    }
    for level, keys in usable_levels.items():
        splits[level] = keys[indices][owner]

    features = np.concatenate(kept)
    classes, class_indices = np.unique(names[indices], return_inverse=True)
    kept_groups = np.asarray(groups)[indices]
    split_scores = []
    for held_out, keys in splits.items():
        tile_classes = class_indices[owner]
        log_proba = _predict_held_out(features, tile_classes, keys, random_state)
        is_correct = log_proba.argmax(axis=1) == tile_classes
        proba = _pool_recordings(log_proba, n_tiles)
        scores = evaluate_proba(proba, class_indices, classes, kept_groups)
        split_scores.append(
            SplitScore(held_out, float(is_correct.mean()), scores, proba, indices)
        )
    return split_scores


def score_tiles(
    arrays: TileArrays,
    labels: Sequence[object],
    groups: Sequence[str] | Labels,
    is_test: BoolArray | float,
    network: TileNet,
    settings: TrainingSettings,
    *,
    callback: Callback | None = None,
) -> Evaluation:
    """Train on single tiles, as a first network often is, and score recordings.

    Use this score only to show how much too high it is: with tiles split at random,
    training and test share recordings, and the network can recognise these.

    Parameters
    ----------
    arrays : TileArrays
        Tiles of the recordings.
    labels, groups : sequence
        One entry per recording.
    is_test : ndarray of bool, shape (n_recordings,), or float
        The recordings whose tiles are tested, or the fraction of all tiles, drawn at
        random.
    network : TileNet
        Initial network; it is trained in place.
    settings : TrainingSettings
        How to train; the network of the last epoch is scored.
    callback : Callback, optional
        Called during training.

    Returns
    -------
    Evaluation
        Scores per recording, pooled over its test tiles, with intervals over groups.

    References
    ----------
    Arthur Flexer, "A closer look on artist filters for musical genre classification",
    2007.
    """
    tiles_of = [arrays.tiles(index) for index in range(len(arrays))]
    n_tiles = [len(recording_tiles) for recording_tiles in tiles_of]
    owner = np.repeat(np.arange(len(arrays)), n_tiles)
    tiles = np.concatenate(tiles_of)
    if isinstance(is_test, float):
        rng = np.random.default_rng(settings.seed)
        tile_is_test = rng.random(len(tiles)) < is_test
    else:
        tile_is_test = is_test[owner]
    classes = find_classes(labels)
    class_indices = encode(labels, classes)
    n_columns = np.full(len(tiles), arrays.spec.width)
    data = TrainingData(
        TileArrays(arrays.spec, list(tiles), n_columns),
        one_hot(class_indices[owner], len(classes), 0.1),
        np.asarray(groups)[owner],
        np.flatnonzero(~tile_is_test),
        np.arange(0),
    )
    result = train(network, data, settings, callback=callback)
    network.load_state_dict(result.state)
    device = resolve_device(None)
    log_proba = tile_log_proba(network.to(device), tiles[tile_is_test], device)
    tested, n_test_tiles = np.unique(owner[tile_is_test], return_counts=True)
    proba = _pool_recordings(log_proba, n_test_tiles.tolist())
    tested_groups = np.asarray(groups)[tested]
    return evaluate_proba(proba, class_indices[tested], classes, tested_groups)


def _predict_held_out(
    features: Float32Array,
    class_indices: IntArray,
    keys: Labels,
    seed: int,
) -> Float32Array:
    """Predict log-probabilities of tiles by models not trained on their key."""
    largest_class = int(np.bincount(class_indices).max())
    n_keys = len(np.unique(keys))
    n_splits = min(_N_SPLITS, n_keys, largest_class)
    log_proba = predict_out_of_fold(
        features,
        class_indices,
        split_folds(class_indices, keys, n_splits, seed),
        standardize=True,
        equal_priors=True,
    )
    return log_proba.astype(np.float32)


def _pool_recordings(log_proba: Float32Array, n_tiles: Sequence[int]) -> Float32Array:
    """Return the probabilities of recordings from those of their tiles."""
    ends = np.cumsum(n_tiles)[:-1]
    pooled = [pool(rows) for rows in np.split(log_proba, ends)]
    return np.exp(np.stack(pooled))
