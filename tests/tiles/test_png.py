import hashlib
import json

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image, PngImagePlugin

from cqt2img.errors import AudioError, InputError
from cqt2img.tiles.cqt import compute_cqt, measure_cqt
from cqt2img.tiles.png import (
    colour_tiles,
    cut_tiles,
    n_tiles_of,
    palette,
    read_tile,
    stream_tiles,
    tiles_to_db,
    write_tile,
)
from cqt2img.tiles.spec import PRESETS, TileSpec

SPEC = TileSpec(height=100, width=64, n_bins=96, bins_per_octave=12)
INFO = {
    "source": "/π/\udcff\n\0.wav",
    "start_seconds": 2.5,
    "valid_width": 64,
    "tuning_cents": None,
}


def decibels(n_frames, seed=0):
    """Return dB from -60 to 6 whose reference is 0."""
    db = np.random.default_rng(seed).uniform(-60, 6, (96, n_frames))
    return np.clip(db - np.percentile(db, SPEC.reference_percentile), -60, 6)


def refuse(message, call, *args):
    with pytest.raises(InputError) as caught:
        call(*args)
    assert str(caught.value) == message


@pytest.fixture
def tile():
    """Every level, in a picture that is 4 rows higher than its bins."""
    levels = np.random.default_rng(0).integers(0, 256, (100, 64), dtype=np.uint8)
    levels.ravel()[:256] = np.arange(256)
    return levels


@pytest.fixture
def path(tmp_path, tile):
    path = tmp_path / "é.png"
    write_tile(path, tile, SPEC, INFO)
    return path


@pytest.mark.parametrize("name", PRESETS)
def test_a_tone_is_a_line_in_its_row(name):
    spec = TileSpec.preset(name)
    for midi in (33, 69, 105):
        hz = 440 * 2 ** ((midi - 69) / 12)
        tiles = cut_tiles(
            compute_cqt(np.sin(2 * np.pi * hz * np.arange(66150) / 22050), spec, 0.0),
            spec,
        )
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


def test_pitch_rises_upwards_and_rows_above_the_bins_hold_the_floor():
    tiles = cut_tiles(np.repeat(np.linspace(-50, 0, 96)[:, None], 64, axis=1), SPEC)
    assert np.all(tiles[0, :4] == 0)
    assert np.all(np.diff(tiles[0, 4:].astype(int), axis=0) < 0)


def test_tiles_follow_each_other_without_gap_or_overlap():
    db = decibels(64 * 3)
    tiles = cut_tiles(db, SPEC)
    assert tiles.shape == (3, 100, 64)
    back = tiles_to_db(np.concatenate(list(tiles), axis=1)[4:][::-1], SPEC)
    assert back.dtype == np.float32
    assert np.abs(back - db).max() <= SPEC.step_db / 2 + 1e-5
    assert np.abs(back - db).max() > 0.4 * SPEC.step_db


def test_levels_span_the_range_and_are_cut_at_both_ends():
    cqt = np.zeros((96, 64))
    cqt[:] = -30
    cqt[0] = 0
    cqt[1, 0], cqt[2, 0] = -90, 50
    tile = cut_tiles(cqt, SPEC)[0][::-1]
    assert (tile[1, 0], tile[2, 0], tile[0, 1]) == (0, 255, round(60 / SPEC.step_db))
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
def test_min_fill(n_frames, min_fill, n_tiles):
    spec = TileSpec(
        height=100, width=64, n_bins=96, bins_per_octave=12, min_fill=min_fill
    )
    assert n_tiles_of(n_frames, spec) == n_tiles
    db = decibels(n_frames)
    tiles = cut_tiles(db, spec)
    assert len(tiles) == n_tiles
    strip = np.concatenate(list(tiles), axis=1)[4:][::-1]
    assert np.all(strip[:, n_frames:] == 0)
    assert (
        np.abs(tiles_to_db(strip[:, :n_frames], spec) - db[:, : strip.shape[1]]).max()
        <= spec.step_db / 2 + 1e-5
    )


def test_cut_tiles_refuses_what_does_not_fit():
    message = "to_db: cqt must have 96 rows, got shape (60, 431). Compute it with the same spec."
    refuse(message, cut_tiles, np.ones((60, 431)), SPEC)
    with pytest.raises(AudioError) as caught:
        cut_tiles(np.zeros((96, 5)), SPEC)
    assert (
        str(caught.value)
        == "to_db: cqt must hold sound, got silence. Leave the recording out."
    )


@pytest.mark.parametrize("name", ["magma", "inferno", "plasma", "gray"])
def test_palette_is_the_colour_map(name):
    colours = palette(name)
    assert colours.shape == (256, 3)
    assert colours.dtype == np.uint8
    assert len({tuple(colour) for colour in colours.tolist()}) == 256
    for level in (0, 1, 128, 255):
        assert colours[level].tolist() == [
            round(255 * part) for part in colormaps[name](level)[:3]
        ]
    with pytest.raises(ValueError, match="read-only"):
        colours[0] = 0


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("nope", "be a matplotlib colour map"),
        ("viridis", "have 256 different colours"),
    ],  # 254 in 8 bits
)
def test_palette_that_cannot_be_read_back(name, rule):
    refuse(
        f"palette: colour_map must {rule}, got {name!r}. Try 'magma' or 'inferno'.",
        palette,
        name,
    )


def test_colour_tiles(tile):
    painted = colour_tiles(tile[None], SPEC)
    assert painted.shape == (1, 100, 64, 3)
    assert painted[0, 0, 5].tolist() == palette("magma")[tile[0, 5]].tolist()


def test_png_gives_the_levels_back(path, tile):
    for spec in (None, SPEC):
        levels, info = read_tile(path, spec)
        assert levels.dtype == np.uint8
        assert np.array_equal(levels, tile)
        assert info == {"spec_key": SPEC.key, "min_db": -60, "max_db": 6, **INFO}
    levels[0] = 0  # the caller may change it


def test_any_viewer_shows_the_colours(path, tile):
    with Image.open(path) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "P", (64, 100))
        assert np.array_equal(
            np.reshape(image.getpalette("RGB"), (256, 3)), palette("magma")
        )
        assert np.array_equal(
            np.asarray(image.convert("RGB")), colour_tiles(tile, SPEC)
        )
        assert image.text["Software"] == "cqt2img"
        assert {name: json.loads(image.text[name]) for name in INFO} == INFO


def test_a_tile_of_silence_is_still_a_palette(tmp_path):
    path = tmp_path / "x.png"
    write_tile(path, np.zeros((100, 64), np.uint8), SPEC, INFO)
    assert not read_tile(path, SPEC)[0].any()


def test_a_tile_is_small(path):
    assert path.stat().st_size < 100 * 64 + 768 + 1000


def test_read_tile_of_another_spec(path):
    other = TileSpec(height=100, width=64, n_bins=96, bins_per_octave=12, gamma=5)
    message = (
        f"read_tile: path must be a tile of spec {other.key}, got {str(path)!r} of spec {SPEC.key}. "
        "Render the recording again with this spec."
    )
    refuse(message, read_tile, path, other)


def test_read_tile_of_another_size(path, tile):
    write_tile(path, tile[:, :32], SPEC, INFO)
    message = (
        f"read_tile: path must be a tile of spec {SPEC.key}, got {str(path)!r} of spec {SPEC.key}. "
        "Render the recording again with this spec."
    )
    refuse(message, read_tile, path, SPEC)


def test_read_tile_of_no_file(tmp_path):
    path = tmp_path / "x.png"
    fault = f"[Errno 2] No such file or directory: {str(path)!r}"
    refuse(
        f"read_tile: path must be a readable tile, got {str(path)!r}: {fault}. Render its recording again.",
        read_tile,
        path,
    )


def test_read_tile_cut_or_damaged_anywhere(path):
    data = path.read_bytes()
    start = f"read_tile: path must be a readable tile, got {str(path)!r}: "
    whole, words = read_tile(path, SPEC)
    refused = []
    hurt = [
        data[:cut]
        for cut in [0, 1, 8, 20, 100, *range(200, len(data) - 12, 97), len(data) - 13]
    ]
    hurt += [
        data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :]
        for at in range(0, len(data) - 12, 211)
    ]
    for bad in hurt:
        path.write_bytes(bad)
        try:
            levels, info = read_tile(path, SPEC)
        except InputError as err:
            refused.append(str(err))
        else:  # what was hit is of no importance: the tile is read as it was
            assert np.array_equal(levels, whole)
            assert info == words
    assert len(refused) > 0.9 * len(hurt)
    assert all(message.startswith("read_tile: path must be ") for message in refused)
    path.write_bytes(b"RIFF" + data)
    with pytest.raises(InputError) as caught:
        read_tile(path)
    fault = f"cannot identify image file {str(path)!r}"
    assert str(caught.value) == f"{start}{fault}. Render its recording again."


def test_read_tile_from_elsewhere(tmp_path, tile):
    path = tmp_path / "x.png"
    message = f"read_tile: path must be a tile made by render, got {str(path)!r}. Render the recording."
    Image.fromarray(tile).save(path)
    refuse(message, read_tile, path)
    Image.fromarray(colour_tiles(tile, SPEC)).save(path)
    refuse(message, read_tile, path)
    write_tile(path, tile, SPEC, INFO)
    with Image.open(path) as image:
        image.convert("RGB").save(path, pnginfo=_text(Software="cqt2img"))
    refuse(message, read_tile, path)


@pytest.mark.parametrize(
    "chunks",
    [{}, {"spec_key": "x", "min_db": "0"}, {"spec_key": '"x"', "date:create": "2024"}],
)
def test_read_tile_that_another_program_saved(path, chunks):
    with Image.open(path) as image:
        image.save(
            path, pnginfo=_text(Software="cqt2img", **chunks, Comment="made with GIMP")
        )
    message = (
        f"read_tile: path must be a tile as render wrote it, got {str(path)!r} with other text. "
        "Render the recording again."
    )
    refuse(message, read_tile, path)


def test_read_tile_with_colours_in_another_order(path, tile):
    with Image.open(path) as image:
        turned = image.remap_palette(list(range(255, -1, -1)))
        turned.save(path, pnginfo=_text(**image.text))
    message = (
        f"read_tile: path must be a tile with the colours of {SPEC.colour_map}, got {str(path)!r} with others. "
        "Render the recording again."
    )
    refuse(message, read_tile, path, SPEC)


def _text(**chunks):
    info = PngImagePlugin.PngInfo()
    for name, value in chunks.items():
        info.add_text(name, value)
    return info


def chord(seed):
    """Three steady tones that fade in and out."""
    rng, time = np.random.default_rng(seed), np.arange(8192) / 22_050
    notes = 440 * 2 ** ((rng.integers(45, 90, 3) - 69) / 12)
    tones = [
        np.sin(2 * np.pi * hz * time + phase)
        for hz, phase in zip(notes, rng.uniform(0, 6, 3), strict=True)
    ]
    return (np.hanning(8192) * sum(tones)).astype(np.float32)


# Name, seed of the chord, hash of its levels. The chords are chosen so that no pixel lies close to the edge between two
# levels, where another processor's last bit could decide. Whoever changes these pixels on purpose raises RENDERER in
# spec.py and writes the new hashes here.
GOLDEN = [
    ("piano", 342, "3ce59cc8be27b99e"),
    ("jazz", 329, "b92948ce79ea6b76"),
    ("orchestra", 320, "415e0c6caf0bbdb4"),
    ("fast", 302, "513890eb295e51f5"),
]


@pytest.mark.parametrize(("name", "seed", "expected"), GOLDEN)
def test_golden_pixels(name, seed, expected):
    spec = TileSpec.preset(name)
    rows, reference = measure_cqt(chord(seed), spec, 0.0)
    with rows:
        levels = (
            rows[:].astype(np.float64) - float(reference) - spec.min_db
        ) / spec.step_db
        tiles = np.concatenate(list(stream_tiles(rows, reference, spec)))
    assert (
        np.abs(levels - np.floor(levels) - 0.5)[(levels > 0) & (levels < 255)].min()
        > 0.004
    )
    assert hashlib.sha256(tiles.tobytes()).hexdigest()[:16] == expected
