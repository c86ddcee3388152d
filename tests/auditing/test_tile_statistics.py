import numpy as np
import pytest

from cqt2img.auditing.tile_statistics import (
    compute_all_tile_statistics,
    compute_semitone_levels,
    compute_tile_statistics,
)
from cqt2img.data.tile_arrays import TileArrays
from cqt2img.tiles.spec import TileSpec

FAST = TileSpec.preset("fast")
PIANO = TileSpec.preset("piano")


def make_silence(spec, n_tiles=1):
    return np.zeros((n_tiles, *spec.size), np.uint8)


@pytest.mark.parametrize("spec", [FAST, PIANO], ids=["fast", "piano"])
def test_a_note_is_in_the_row_of_its_semitone(spec):
    tiles = make_silence(spec)
    tiles[0, spec.row_of_note(69), :] = 200
    levels = compute_semitone_levels(tiles, spec)
    assert levels.shape == (1, 96, spec.width)
    assert np.flatnonzero(levels[0, :, 0]).tolist() == [48]  # A4, four octaves above A0
    assert levels[0, 48, 0] == pytest.approx(200 * spec.step_db)


def test_mean_spread_and_rise_of_a_note_in_every_fourth_column():
    tiles = make_silence(FAST)
    tiles[0, FAST.row_of_note(69), ::4] = 100
    statistics = compute_tile_statistics(tiles, FAST)
    mean, spread, rise = statistics[0].reshape(3, 96)[:, 48]
    level = 100 * FAST.step_db
    assert mean == pytest.approx(level / 4)
    assert spread == pytest.approx(level * np.sqrt(3) / 4, rel=1e-5)
    assert rise == pytest.approx(level * 31 / 127, rel=1e-5)  # 31 of 127 steps rise
    assert np.count_nonzero(statistics) == 3


def test_padding_of_the_last_tile_is_ignored():
    tiles = make_silence(FAST, 2)
    tiles[:, FAST.row_of_note(60), :] = 100
    tiles[1, :, 100:] = 0
    padded = compute_tile_statistics(tiles, FAST)
    cut = compute_tile_statistics(tiles, FAST, n_frames=FAST.width + 100)
    np.testing.assert_allclose(cut[0], cut[1], atol=1e-4)
    assert not np.allclose(padded[0], padded[1], atol=1e-4)


def test_a_last_tile_less_than_half_full_is_left_out_unless_it_is_the_only_one():
    tiles = make_silence(FAST, 2)
    assert len(compute_tile_statistics(tiles, FAST, n_frames=FAST.width + 10)) == 1
    assert len(compute_tile_statistics(tiles[1:], FAST, n_frames=1)) == 1


def test_every_recording_has_statistics():
    rng = np.random.default_rng(0)
    levels = [rng.integers(0, 256, (96, n * 128), dtype=np.uint8) for n in (1, 3)]
    arrays = TileArrays(FAST, levels, np.array([128, 384]))
    statistics = compute_all_tile_statistics(arrays)
    assert [rows.shape for rows in statistics] == [(1, 288), (3, 288)]
    expected = compute_tile_statistics(arrays.tiles(1), FAST)
    np.testing.assert_array_equal(statistics[1], expected)
