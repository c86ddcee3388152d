import hashlib
import json

import librosa
import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image, PngImagePlugin

from cqt2img.errors import AudioError, InputError
from cqt2img.tiles.cqt import compute_cqt, measure_cqt
from cqt2img.tiles.png import (
    colour_tiles,
    count_tiles,
    cut_tiles,
    palette,
    read_tile,
    stream_tiles,
    tiles_to_db,
    write_tile,
)
from cqt2img.tiles.spec import PRESETS, TileSpec
from tests.conftest import raises_with

SPEC = TileSpec(height=100, width=64, n_bins=96, bins_per_octave=12)
INFO = {
    "source": "/π/\udcff\n\0.wav",
    "start_seconds": 2.5,
    "valid_width": 64,
    "tuning_cents": None,
}


def random_db(n_frames, seed=0):
    """Return dB from -60 to 6 with a reference of 0 dB."""
    db = np.random.default_rng(seed).uniform(-60, 6, (96, n_frames))
    return np.clip(db - np.percentile(db, SPEC.reference_percentile), -60, 6)


def join_tiles(tiles):
    """Return the rows of all tiles below the padding, with the lowest bin first."""
    return np.concatenate(list(tiles), axis=1)[4:][::-1]


@pytest.fixture
def tile():
    """Return a tile with every level, 4 rows higher than its bins."""
    levels = np.random.default_rng(0).integers(0, 256, (100, 64), dtype=np.uint8)
    levels.ravel()[:256] = np.arange(256)
    return levels


@pytest.fixture
def path(tmp_path, tile):
    path = tmp_path / "é.png"
    write_tile(path, tile, SPEC, INFO)
    return path


@pytest.mark.parametrize("name", PRESETS)
def test_tone_is_loudest_in_its_row(name):
    spec = TileSpec.preset(name)
    time = np.arange(66150) / 22050
    for midi in (33, 69, 105):
        tone = np.sin(2 * np.pi * librosa.midi_to_hz(midi) * time)
        tiles = cut_tiles(compute_cqt(tone, spec, 0.0), spec)
        assert tiles.shape == (1, *spec.size)
        assert tiles.dtype == np.uint8
        middle = tiles[0][:, round(1.5 / spec.frame_seconds)]
        assert middle.argmax() == spec.row_of_note(midi)


def test_one_pixel_is_one_bin_in_one_frame():
    cqt = np.full((96, 128), -60.0)
    cqt[3, 70] = 0
    tiles = cut_tiles(cqt, SPEC)
    assert np.argwhere(tiles).tolist() == [[1, 100 - 1 - 3, 70 - 64]]
    assert tiles[1, 96, 6] == round(60 / SPEC.step_db)


def test_frequency_rises_upwards_and_padding_rows_have_level_0():
    slope = np.linspace(-50, 0, 96)[:, None]
    (tile,) = cut_tiles(np.repeat(slope, 64, axis=1), SPEC)
    assert np.all(tile[:4] == 0)
    assert np.all(np.diff(tile[4:].astype(int), axis=0) < 0)


def test_joined_tiles_are_the_cqt_within_half_a_level():
    db = random_db(64 * 3)
    tiles = cut_tiles(db, SPEC)
    assert tiles.shape == (3, 100, 64)
    restored = tiles_to_db(join_tiles(tiles), SPEC)
    assert restored.dtype == np.float32
    error = np.abs(restored - db).max()
    assert 0.4 * SPEC.step_db < error <= SPEC.step_db / 2 + 1e-5


def test_levels_are_clipped_at_both_ends():
    cqt = np.full((96, 64), -30.0)
    cqt[0] = 0
    cqt[1, 0] = -90
    cqt[2, 0] = 50
    tile = cut_tiles(cqt, SPEC)[0][::-1]
    assert tile[0, 1] == round(60 / SPEC.step_db)
    assert tile[1, 0] == 0
    assert tile[2, 0] == 255
    assert tiles_to_db(np.array([0, 255], np.uint8), SPEC).tolist() == [-60, 6]


@pytest.mark.parametrize(
    ("n_frames", "min_fill", "n_tiles"),
    [
        (1, 0.25, 1),
        (64, 0.25, 1),
        (65, 0.25, 1),
        (79, 0.25, 1),
        (80, 0.25, 2),
        (80, 0.26, 1),
        (127, 1.0, 1),
        (128, 1.0, 2),
        (65, 0.0, 2),
        (64, 0.0, 1),
        (640, 0.0, 10),
    ],
)
def test_last_tile_is_kept_if_it_is_filled_enough(n_frames, min_fill, n_tiles):
    spec = TileSpec(
        height=100, width=64, n_bins=96, bins_per_octave=12, min_fill=min_fill
    )
    assert count_tiles(n_frames, spec) == n_tiles
    db = random_db(n_frames)
    tiles = cut_tiles(db, spec)
    assert len(tiles) == n_tiles
    joined = join_tiles(tiles)
    assert np.all(joined[:, n_frames:] == 0)
    restored = tiles_to_db(joined[:, :n_frames], spec)
    error = np.abs(restored - db[:, : joined.shape[1]])
    assert error.max() <= spec.step_db / 2 + 1e-5


def test_cut_tiles_of_a_wrong_or_silent_cqt_is_an_error():
    with raises_with(InputError, "cqt", "96 rows", (60, 431)):
        cut_tiles(np.ones((60, 431)), SPEC)
    with raises_with(AudioError, "cqt", "silent"):
        cut_tiles(np.zeros((96, 5)), SPEC)


@pytest.mark.parametrize("name", ["magma", "inferno", "plasma", "gray"])
def test_palette_is_the_colour_map(name):
    colours = palette(name)
    assert colours.shape == (256, 3)
    assert colours.dtype == np.uint8
    assert len(np.unique(colours, axis=0)) == 256
    for level in (0, 1, 128, 255):
        expected = [round(255 * part) for part in colormaps[name](level)[:3]]
        assert colours[level].tolist() == expected
    with pytest.raises(ValueError, match="read-only"):
        colours[0] = 0


# "viridis" has 254 distinct colours in 8 bits.
@pytest.mark.parametrize(
    ("name", "rule"), [("nope", "matplotlib"), ("viridis", "256 distinct")]
)
def test_colour_map_that_is_unknown_or_ambiguous_is_an_error(name, rule):
    with raises_with(InputError, "colour_map", rule, repr(name), "'magma'"):
        palette(name)


def test_colours_are_those_of_the_palette(tile):
    coloured = colour_tiles(tile[None], SPEC)
    assert coloured.shape == (1, 100, 64, 3)
    assert coloured[0, 0, 5].tolist() == palette("magma")[tile[0, 5]].tolist()


@pytest.mark.parametrize("spec", [None, SPEC])
def test_levels_and_text_survive_a_round_trip(path, tile, spec):
    levels, info = read_tile(path, spec)
    assert levels.dtype == np.uint8
    assert np.array_equal(levels, tile)
    assert info == {"spec_key": SPEC.key, "min_db": -60, "max_db": 6, **INFO}
    levels[0] = 0  # writable


def test_image_viewers_show_the_colours(path, tile):
    with Image.open(path) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "P", (64, 100))
        colours = np.reshape(image.getpalette("RGB"), (256, 3))
        assert np.array_equal(colours, palette("magma"))
        rgb = np.asarray(image.convert("RGB"))
        assert np.array_equal(rgb, colour_tiles(tile, SPEC))
        assert image.text["Software"] == "cqt2img"
        assert {name: json.loads(image.text[name]) for name in INFO} == INFO


def test_silent_tile_survives_a_round_trip(tmp_path):
    path = tmp_path / "x.png"
    write_tile(path, np.zeros((100, 64), np.uint8), SPEC, INFO)
    assert not read_tile(path, SPEC)[0].any()


def test_tile_of_noise_has_one_byte_per_pixel_and_a_short_header(path):
    assert path.stat().st_size < 100 * 64 + 768 + 1000


def test_tile_of_another_spec_is_an_error(path):
    other = TileSpec(height=100, width=64, n_bins=96, bins_per_octave=12, gamma=5)
    with raises_with(InputError, "read_tile: path", path, other.key, SPEC.key):
        read_tile(path, other)


def test_tile_of_another_size_is_an_error(path, tile):
    write_tile(path, tile[:, :32], SPEC, INFO)
    with raises_with(InputError, "read_tile: path", path, SPEC.size, (100, 32)):
        read_tile(path, SPEC)


def test_missing_tile_is_an_error(tmp_path):
    path = tmp_path / "x.png"
    with raises_with(InputError, "read_tile: path", path, "No such file"):
        read_tile(path)


def test_damage_anywhere_is_an_error_or_without_effect(path):
    data = path.read_bytes()
    levels, info = read_tile(path, SPEC)
    cuts = [0, 1, 8, 20, 100, *range(200, len(data) - 12, 97), len(data) - 13]
    damaged = [data[:cut] for cut in cuts]
    for at in range(0, len(data) - 12, 211):
        damaged.append(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
    n_errors = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            found_levels, found_info = read_tile(path, SPEC)
        except InputError as err:
            assert str(err).startswith("read_tile: path must be ")  # noqa: PT017
            n_errors += 1
        else:
            assert np.array_equal(found_levels, levels)
            assert found_info == info
    assert n_errors > 0.9 * len(damaged)


def test_file_that_is_no_png_is_an_error(path):
    path.write_bytes(b"RIFF" + path.read_bytes())
    with raises_with(InputError, "read_tile: path", path, "cannot identify"):
        read_tile(path)


def text_chunks(**chunks):
    info = PngImagePlugin.PngInfo()
    for name, value in chunks.items():
        info.add_text(name, value)
    return info


def test_image_that_render_did_not_write_is_an_error(tmp_path, tile):
    grey, rgb, converted = (tmp_path / f"{n}.png" for n in range(3))
    Image.fromarray(tile).save(grey)
    Image.fromarray(colour_tiles(tile, SPEC)).save(rgb)
    write_tile(converted, tile, SPEC, INFO)
    with Image.open(converted) as image:
        text = text_chunks(Software="cqt2img")
        image.convert("RGB").save(converted, pnginfo=text)
    for path in (grey, rgb, converted):
        with raises_with(InputError, "read_tile: path", path, "written by render"):
            read_tile(path)


@pytest.mark.parametrize(
    "chunks",
    [{}, {"spec_key": "x", "min_db": "0"}, {"spec_key": '"x"', "date:create": "2024"}],
)
def test_tile_with_text_of_an_image_editor_is_an_error(path, chunks):
    text = text_chunks(Software="cqt2img", **chunks, Comment="made with GIMP")
    with Image.open(path) as image:
        image.save(path, pnginfo=text)
    with raises_with(InputError, "read_tile: path", path, "text chunks"):
        read_tile(path)


def test_tile_with_a_reordered_palette_is_an_error(path):
    with Image.open(path) as image:
        reordered = image.remap_palette(list(range(255, -1, -1)))
        reordered.save(path, pnginfo=text_chunks(**image.text))
    with raises_with(InputError, "read_tile: path", path, "colours of magma"):
        read_tile(path, SPEC)


def two_tones(seed):
    """Return two tones that fade in and out."""
    rng = np.random.default_rng(seed)
    time = np.arange(4096) / 22_050
    low, high = librosa.midi_to_hz(rng.integers(45, 90, 2))
    low_phase, high_phase = rng.uniform(0, 6, 2)
    wave = np.sin(2 * np.pi * low * time + low_phase)
    wave += np.sin(2 * np.pi * high * time + high_phase)
    return (np.hanning(4096) * wave).astype(np.float32)


# Preset, seed of the tones, hash of the tiles. The seeds were chosen so that no level
# is closer than 0.02 to the edge between two pixels. The instruction sets of OpenBLAS
# (generic to Skylake-X) change levels by at most 0.001. After an intended change of
# pixels, increase RENDERER in spec.py and update this table.
GOLDEN = [
    ("piano", 3575, "070f39186beb0ec7"),
    ("jazz", 2888, "2b01755c3ad61915"),
    ("orchestra", 122, "6f318019d80145e1"),
    ("fast", 1623, "7fa08343d8545cf2"),
]


@pytest.mark.parametrize(("name", "seed", "expected"), GOLDEN)
def test_pixels_of_a_preset_are_those_of_this_renderer(name, seed, expected):
    spec = TileSpec.preset(name)
    rows, reference = measure_cqt(two_tones(seed), spec, 0.0)
    with rows:
        levels = rows[:].astype(np.float64) - float(reference) - spec.min_db
        tiles = np.concatenate(list(stream_tiles(rows, reference, spec)))
    levels /= spec.step_db
    is_in_range = (levels > 0) & (levels < 255)
    assert is_in_range.sum() > 40
    distance = np.abs(levels - np.floor(levels) - 0.5)[is_in_range]
    assert distance.min() > 0.02
    assert hashlib.sha256(tiles.tobytes()).hexdigest()[:16] == expected
