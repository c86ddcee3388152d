from typing import NamedTuple

import numpy as np
import pytest

from cqt2img.auditing.leakage import score_splits, score_tiles
from cqt2img.data.tile_arrays import TileArrays
from cqt2img.models.factory import build_network
from cqt2img.training.config import TrainingSettings


class Collection(NamedTuple):
    """Statistics, labels and groups of recordings."""

    statistics: list[np.ndarray]
    labels: np.ndarray
    groups: np.ndarray

    def score(self, *, with_albums=True, **kwargs):
        levels = {"albums": self.groups} if with_albums else {}
        return score_splits(*self, levels, **kwargs)


def make_collection(player, album, n_albums=4, n_takes=5, n_tiles=6):
    """Make players and albums that differ by so many standard deviations of a tile."""
    rng = np.random.default_rng(0)
    statistics = []
    labels = []
    groups = []
    of_players = player * rng.standard_normal((3, 20))
    for p in range(3):
        for a in range(n_albums):
            of_album = album * rng.standard_normal(20)
            for _ in range(n_takes):
                noise = rng.standard_normal((n_tiles, 20))
                tiles = of_players[p] + of_album + noise
                statistics.append(tiles.astype(np.float32))
                labels.append(f"player {p}")
                groups.append(f"{p}/{a}")
    return Collection(statistics, np.array(labels), np.array(groups))


@pytest.fixture(scope="module")
def players():
    """Players that differ, on albums that do not."""
    return make_collection(player=3, album=0)


def accuracies_of(scores):
    assert [score.held_out for score in scores] == ["tiles", "recordings", "albums"]
    return [score.scores.accuracy for score in scores]


def test_albums_without_players_are_recognised_until_they_are_held_out():
    collection = make_collection(player=0, album=3)
    tiles, recordings, albums = accuracies_of(collection.score())
    assert tiles == recordings == 1
    assert albums < 0.5  # a third by chance


def test_players_are_recognised_however_the_data_are_split(players):
    assert accuracies_of(players.score()) == [1, 1, 1]


def test_noise_is_classified_by_chance_however_the_data_are_split():
    noise = make_collection(player=0, album=0, n_albums=8, n_takes=8, n_tiles=2)
    for accuracy in accuracies_of(noise.score()):
        # four standard deviations of 192 guesses
        assert abs(accuracy - 1 / 3) < 4 * np.sqrt(2 / 9 / 192)


def test_one_extreme_tile_cannot_outweigh_the_others(players):
    statistics = [tiles.copy() for tiles in players.statistics]
    statistics[0][0] = statistics[-1].mean(axis=0) * 5  # surely another player
    score = players._replace(statistics=statistics).score(with_albums=False)[0]
    assert score.scores.accuracy == 1
    assert score.tile_accuracy < 1


def test_classes_of_one_album_are_left_out_of_every_score(players):
    is_first = players.labels == "player 0"
    groups = np.where(is_first, "its only album", players.groups)
    for score in players._replace(groups=groups).score():
        assert score.scores.classes == ("player 1", "player 2")
        assert not is_first[score.indices].any()


def test_a_level_that_leaves_one_class_is_left_out(players):
    scores = players._replace(groups=players.labels).score()
    assert [score.held_out for score in scores] == ["tiles", "recordings"]
    assert len(scores[0].indices) == len(players.labels)


def test_two_classes_are_needed(players):
    labels = np.full(len(players.labels), "player 0")
    assert players._replace(labels=labels).score(with_albums=False) == []


def test_probabilities_belong_to_the_recordings_of_the_indices(players):
    score = players.score(with_albums=False)[0]
    predicted = np.asarray(score.scores.classes)[score.proba.argmax(axis=1)]
    np.testing.assert_array_equal(predicted, players.labels[score.indices])
    np.testing.assert_allclose(score.proba.sum(axis=1), 1, atol=1e-5)


def test_the_seed_determines_the_folds():
    collection = make_collection(player=0.3, album=1, n_takes=2)
    one, again, other = (collection.score(random_state=seed) for seed in (3, 3, 4))
    for a, b in zip(one, again, strict=True):
        np.testing.assert_array_equal(a.proba, b.proba)
    assert not np.array_equal(one[0].proba, other[0].proba)


@pytest.mark.parametrize("is_test", [np.array([False, True] * 4), 0.5])
def test_training_on_single_tiles_is_scored_per_recording(small, is_test):
    rng = np.random.default_rng(0)
    shape = (small.height, 3 * small.width)
    levels = [rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(8)]
    arrays = TileArrays(small, levels, np.full(8, 3 * small.width))
    network = build_network("test_resnet", 2, small, None)
    scores = score_tiles(
        arrays,
        ["a", "b"] * 2 + ["b", "a"] * 2,
        ["one", "two"] * 4,
        is_test,
        network,
        TrainingSettings(epochs=1, batch_size=8, learning_rate=1e-3, augment="none"),
    )
    if isinstance(is_test, float):
        assert 0 < scores.n_recordings <= 8
    else:
        assert scores.n_recordings == 4
        assert set(scores.groups) == {"two"}
