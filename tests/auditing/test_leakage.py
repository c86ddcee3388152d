import numpy as np
import pandas as pd
import pytest

from cqt2img.auditing.leakage import score_splits


def corpus(player, album, n_albums=4, n_takes=5, n_tiles=6, seed=0):
    """Sketches in which players and albums differ by so many standard deviations of a tile."""
    rng = np.random.default_rng(seed)
    rows, sketches = [], []
    of_player = player * rng.standard_normal((3, 20))
    for p in range(3):
        for a in range(n_albums):
            of_album = album * rng.standard_normal(20)
            for _ in range(n_takes):
                rows.append({"label": f"player {p}", "group": f"{p}/{a}"})
                noise = rng.standard_normal((n_tiles, 20))
                sketches.append((of_player[p] + of_album + noise).astype(np.float32))
    return sketches, pd.DataFrame(rows)


def scores_of(sketches, table):
    rungs = score_splits(sketches, table, {"albums": table["group"].to_numpy()})
    assert [rung.held_out for rung in rungs] == ["tiles", "recordings", "albums"]
    return [rung.scores.accuracy for rung in rungs]


def test_albums_are_seen_through():
    tiles, recordings, albums = scores_of(*corpus(player=0, album=3))
    assert tiles == recordings == 1
    assert albums < 0.5  # a third by chance


def test_players_hold_on_every_rung():
    assert scores_of(*corpus(player=3, album=0)) == [1, 1, 1]


def test_noise_is_chance_on_every_rung():
    found = scores_of(*corpus(player=0, album=0, n_albums=8, n_takes=8, n_tiles=2))
    assert all(abs(accuracy - 1 / 3) < 0.12 for accuracy in found)


def test_one_loud_tile_does_not_decide():
    sketches, table = corpus(player=3, album=0)
    sketches[0][0] = (
        sketches[-1].mean(axis=0) * 5
    )  # this tile is surely of another player
    rung = score_splits(sketches, table, {})[0]
    assert rung.scores.accuracy == 1
    assert rung.tile_accuracy < 1


def test_classes_of_one_album_are_left_out_of_every_rung():
    sketches, table = corpus(player=3, album=0)
    table.loc[table["label"] == "player 0", "group"] = "its only album"
    rungs = score_splits(sketches, table, {"albums": table["group"].to_numpy()})
    assert all(rung.scores.classes == ("player 1", "player 2") for rung in rungs)
    assert all((table["label"].iloc[rung.places] != "player 0").all() for rung in rungs)
    table["group"] = table["label"]  # nobody has two albums: albums cannot be held out
    rungs = score_splits(sketches, table, {"albums": table["group"].to_numpy()})
    assert [rung.held_out for rung in rungs] == ["tiles", "recordings"]
    assert len(rungs[0].places) == len(table)


def test_a_ladder_needs_two_classes():
    sketches, table = corpus(player=3, album=0)
    table["label"] = "player 0"
    assert score_splits(sketches, table, {}) == []


def test_probabilities_and_places_belong_together():
    sketches, table = corpus(player=3, album=0)
    rung = score_splits(sketches, table, {})[0]
    named = np.asarray(rung.scores.classes)[rung.proba.argmax(axis=1)]
    assert (named == table["label"].to_numpy()[rung.places]).all()
    np.testing.assert_allclose(rung.proba.sum(axis=1), 1, atol=1e-5)
    assert rung.tile_accuracy == pytest.approx(1, abs=0.05)


def test_the_seed_deals_the_same():
    sketches, table = corpus(player=0.3, album=1)
    one, other = (
        score_splits(sketches, table, {"albums": table["group"].to_numpy()}, 3)
        for _ in range(2)
    )
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.proba, b.proba)
