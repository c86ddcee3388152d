import numpy as np
import pytest

from cqt2img.auditing.tile_statistics import semitones, sketch, sketch_tiles
from cqt2img.data.tile_arrays import TileArrays
from cqt2img.tiles.spec import TileSpec

FAST, PIANO = TileSpec.preset("fast"), TileSpec.preset("piano")


def levels(spec, n_tiles=1):
    return np.zeros((n_tiles, *spec.size), np.uint8)


@pytest.mark.parametrize("spec", [FAST, PIANO])
def test_a_note_lights_its_semitone(spec):
    tiles = levels(spec)
    tiles[0, spec.row_of_note(69), :] = 200
    rows = semitones(tiles, spec)
    assert rows.shape == (1, 96, spec.width)
    assert np.flatnonzero(rows[0, :, 0]).tolist() == [48]  # A4 is four octaves above A0
    assert rows[0, 48, 0] == pytest.approx(200 * spec.step_db)


def test_level_spread_and_rise_of_a_note_struck_once_in_four_columns():
    tiles = levels(FAST)
    tiles[0, FAST.row_of_note(69), ::4] = 100
    mean, spread, rise = sketch_tiles(tiles, FAST)[0].reshape(3, 96)[:, 48]
    top = 100 * FAST.step_db
    assert mean == pytest.approx(top / 4)
    assert spread == pytest.approx(top * np.sqrt(3) / 4, rel=1e-5)
    assert rise == pytest.approx(top * 31 / 127, rel=1e-5)  # 31 of 127 steps go up
    assert np.count_nonzero(sketch_tiles(tiles, FAST)) == 3


def test_the_padding_of_the_last_tile_has_no_say():
    tiles = levels(FAST, 2)
    tiles[:, FAST.row_of_note(60), :] = 100
    tiles[1, :, 100:] = 0
    padded, cut = (
        sketch_tiles(tiles, FAST),
        sketch_tiles(tiles, FAST, n_frames=FAST.width + 100),
    )
    np.testing.assert_allclose(cut[0], cut[1], atol=1e-4)
    assert not np.allclose(padded[0], padded[1], atol=1e-4)
    assert len(sketch_tiles(tiles, FAST, n_frames=FAST.width + 10)) == 1
    assert len(sketch_tiles(tiles[1:], FAST, n_frames=1)) == 1


def test_every_recording_has_a_sketch():
    rng = np.random.default_rng(0)
    strips = TileArrays(
        FAST,
        [rng.integers(0, 256, (96, n * 128)).astype(np.uint8) for n in (1, 3)],
        np.array([128, 384]),
    )
    found = sketch(strips)
    assert [one.shape for one in found] == [(1, 288), (3, 288)]
    np.testing.assert_array_equal(found[1], sketch_tiles(strips.tiles(1), FAST))
