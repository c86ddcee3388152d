"""Is a score honest? The score that a first network reports, to hold the real one against."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cqt2img.backbone import TileNet, find_device
from cqt2img.corpus import Corpus, Strips
from cqt2img.evaluate import Evaluation, evaluate_proba
from cqt2img.labels import encode, find_classes, one_hot
from cqt2img.predict import tile_log_proba, to_proba
from cqt2img.recipe import Recipe
from cqt2img.train import train
from cqt2img.watch import Watch

if TYPE_CHECKING:
    import pandas as pd


def score_tiles(
    strips: Strips,
    table: "pd.DataFrame",
    is_test: NDArray[np.bool_] | float,
    network: TileNet,
    recipe: Recipe,
    watch: Watch | None = None,
) -> Evaluation:
    """Train and test on single tiles, as a first network is often built.

    Never use this score for anything but a comparison: with tiles drawn at random, both sides hold
    tiles of the same recordings, and the network is asked for the album.

    Parameters
    ----------
    strips : Strips
        Pictures of the recordings.
    table : DataFrame
        `label` and `group` of each.
    is_test : ndarray of bool, shape (n_recordings,), or float
        The recordings whose tiles are tested, or the part of all tiles, drawn at random.
    network : TileNet
        Where training starts; it is changed.
    recipe : Recipe
        How to train; the last epoch is kept.
    watch : Watch, optional
        Gets told how training goes.

    Returns
    -------
    Evaluation
        Scores per tile. `accuracy_interval_groups` is over groups of recordings.

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
    alone = Strips(strips.spec, list(single), np.full(len(single), strips.spec.width))
    groups = table["group"].to_numpy()[owner]
    corpus = Corpus(alone, one_hot(codes, len(classes), 0.1), groups, np.flatnonzero(~test), np.arange(0))
    trained = train(network, corpus, recipe, None, watch)
    network.load_state_dict(trained.state)
    device = find_device(None)
    proba = to_proba(tile_log_proba(network.to(device), single[test], device))
    return evaluate_proba(proba, codes[test], classes, groups[test])
