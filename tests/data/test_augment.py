import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cqt2img.data.augment import (
    _import_albumentations,
    add_hiss,
    add_reverberation,
    equalise,
    make_augment,
)
from cqt2img.data.dataset import TrainingData
from cqt2img.data.labels import one_hot
from cqt2img.data.recordings import list_recordings
from cqt2img.data.tile_arrays import load_tile_arrays
from cqt2img.data.tile_dataset import TrainingTiles
from cqt2img.errors import InputError
from cqt2img.tiles.spec import TileSpec
from tests.conftest import raises_with

SPEC = TileSpec.preset("fast")
SEEDS = range(40)
CHANGES = [equalise, add_reverberation, add_hiss]


def make_rng(seed):
    return np.random.default_rng(seed)


def random_tile(spec=SPEC):
    return make_rng(0).integers(0, 256, spec.size, dtype=np.uint8)


@pytest.fixture
def tile():
    """Return a tile of which a third has level 0."""
    levels = random_tile()
    levels[make_rng(1).random(SPEC.size) < 1 / 3] = 0
    return levels


@pytest.mark.parametrize("change", CHANGES)
def test_change_depends_on_the_seed_and_leaves_its_input_unchanged(change, tile):
    before = tile.copy()
    for seed in SEEDS:
        changed = change(tile, SPEC, make_rng(seed))
        assert changed.dtype == np.uint8
        assert changed.shape == tile.shape
        assert np.array_equal(changed, change(tile, SPEC, make_rng(seed)))
        assert not np.array_equal(changed, tile)
    assert np.array_equal(tile, before)


def test_equaliser_keeps_level_0(tile):
    for seed in SEEDS:
        assert not equalise(tile, SPEC, make_rng(seed))[tile == 0].any()


def test_equaliser_is_one_smooth_curve_for_all_columns():
    tile = np.full(SPEC.size, 128, np.uint8)
    changed = np.array([equalise(tile, SPEC, make_rng(seed)) for seed in SEEDS])
    curves = changed[:, :, 0].astype(int) - 128
    assert np.all(changed == changed[:, :, :1])
    middle_db = curves[:, 48] * SPEC.step_db
    assert 3 < np.std(middle_db) < 15  # a level of SD 4 dB and peaks of SD 5 dB
    steps_db = np.abs(np.diff(curves, axis=1)) * SPEC.step_db
    assert steps_db.max() < 9  # also at an upper cutoff


@pytest.mark.parametrize("change", [add_reverberation, add_hiss])
def test_reverberation_and_hiss_never_lower_a_level(change, tile):
    for seed in SEEDS:
        assert np.all(change(tile, SPEC, make_rng(seed)) >= tile)


def test_reverberation_is_a_linear_decay_of_the_drawn_time():
    tile = np.zeros(SPEC.size, np.uint8)
    tile[30, 10] = 240
    for seed in SEEDS:
        changed = add_reverberation(tile, SPEC, make_rng(seed)).astype(float)
        assert not changed[:, :10].any()  # nothing before the sound
        assert not np.delete(changed, 30, axis=0).any()
        assert changed[30, 10] == 240
        tail = changed[30, 11:]
        slope_db = np.polyfit(range(5), tail[:5], 1)[0] * SPEC.step_db
        seconds = -60 * SPEC.frame_seconds / slope_db
        assert 0.28 < seconds < 2.7
        offset_db = (240 - tail[0]) * SPEC.step_db
        assert 6 < offset_db < 20 + 60 * SPEC.frame_seconds / 0.3 + 1
        steps = np.diff(tail[tail > 0])
        assert np.ptp(steps) <= 1  # levels are integers


def test_reverberation_of_silence_is_silence():
    silence = np.zeros(SPEC.size, np.uint8)
    assert not add_reverberation(silence, SPEC, make_rng(0)).any()


def test_hiss_rises_with_frequency():
    silence = np.zeros(SPEC.size, np.uint8)
    changed = [add_hiss(silence, SPEC, make_rng(seed)) for seed in SEEDS]
    mean = np.mean(changed, axis=(0, 2))
    assert mean[:12].mean() > 2 * mean[-12:].mean()
    assert 1 < mean[:12].mean() < 120


@pytest.mark.parametrize("augment", ["strong", None, "", 3])
def test_unknown_augmentation_is_an_error_that_lists_the_names(augment):
    with raises_with(InputError, "augment", "album, none", repr(augment)):
        make_augment(augment, SPEC)


@pytest.mark.parametrize("name", ["piano", "fast"])
def test_album_augmentation_depends_on_the_seed_alone(name):
    spec = TileSpec.preset(name)
    tile = random_tile(spec)
    before = tile.copy()
    one, two = (make_augment("album", spec) for _ in range(2))
    changed = [one(tile, seed) for seed in range(12)]
    for seed in reversed(range(12)):
        assert changed[seed].dtype == np.uint8
        assert changed[seed].shape == tile.shape
        assert np.array_equal(two(tile, seed), changed[seed])
    assert len({levels.tobytes() for levels in changed}) == 12
    assert np.array_equal(tile, before)


def test_album_augmentation_transposes_by_two_semitones_at_most():
    spec = TileSpec.preset("piano")
    augment = make_augment("album", spec)
    tile = np.zeros(spec.size, np.uint8)
    tile[100] = 200
    shifts = set()
    for seed in range(60):
        levels = np.median(augment(tile, seed).astype(int), axis=1)
        if levels.max() > 120:
            shifts.add(int(levels.argmax()) - 100)
    assert 0 in shifts
    assert min(shifts) < 0 < max(shifts)
    assert shifts <= set(range(-4, 5))


def own_transform():
    import albumentations as A

    return A.Compose([A.HorizontalFlip(p=0.5), A.PixelDropout(dropout_prob=0.1, p=1)])


def test_albumentations_transform_is_seeded_for_every_tile(tile):
    transform = own_transform()
    augment = make_augment(transform, SPEC)
    before = transform.random_generator.bit_generator.state
    changed = [augment(tile, seed) for seed in range(8)]
    assert transform.random_generator.bit_generator.state == before
    assert len({levels.tobytes() for levels in changed}) == 8
    for seed in reversed(range(8)):
        transform.set_random_seed(seed)
        expected = transform(image=tile)["image"]
        assert np.array_equal(changed[seed], expected)
        assert np.array_equal(augment(tile, seed), expected)


def test_single_albumentations_transform_needs_no_compose(tile):
    import albumentations as A

    augment = make_augment(A.HorizontalFlip(p=1), SPEC)
    assert np.array_equal(augment(tile, 0), tile[:, ::-1])


def test_callable_gets_a_copy_of_the_tile(tile):
    def erase(levels):
        levels[:, :5] = 0
        return levels

    before = tile.copy()
    changed = make_augment(erase, SPEC)(tile, 0)
    assert not changed[:, :5].any()
    assert np.array_equal(changed[:, 5:], before[:, 5:])
    assert np.array_equal(tile, before)


@pytest.mark.parametrize(
    ("augment", "found"),
    [
        (lambda tile: tile[:, :-1], "(96, 127)"),
        (lambda tile: tile.T, "(128, 96)"),
        (lambda tile: np.stack([tile] * 3), "(3, 96, 128)"),
        (lambda tile: tile / 255, "float64"),
        (lambda tile: torch.from_numpy(tile), "Tensor"),
        (lambda tile: None, "NoneType"),
    ],
)
def test_result_of_another_shape_or_dtype_is_an_error(tile, augment, found):
    with raises_with(InputError, "augment", SPEC.size, "uint8", found):
        make_augment(augment, SPEC)(tile, 0)


def test_albumentations_transform_to_floats_is_an_error(tile):
    import albumentations as A

    augment = make_augment(A.ToFloat(), SPEC)
    with raises_with(InputError, "augment", SPEC.size, "uint8", "float32"):
        augment(tile, 0)


def training_tiles(augment, small):
    recordings = list_recordings([make_rng(n).random((60, 100)) for n in range(4)])
    arrays, _ = load_tile_arrays(recordings, small)
    data = TrainingData(
        arrays,
        one_hot(np.array([0, 0, 1, 1]), 2),
        np.array(list("abcd")),
        np.arange(4),
        np.arange(0),
    )
    return TrainingTiles(data, augment, "class", seed=0)


def test_training_with_own_transform_depends_on_epoch_and_item_alone(small):
    one, two = (training_tiles(own_transform(), small) for _ in range(2))
    _ = [two[n] for n in range(len(two))]
    for tiles in (one, two):
        tiles.set_epoch(2)
    forwards = [one[n][0] for n in range(len(one))]
    backwards = [two[n][0] for n in reversed(range(len(two)))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forwards, backwards, strict=True))


def test_training_with_a_callable_uses_its_result(small):
    tiles = training_tiles(np.zeros_like, small)
    assert not any(tiles[n][0].any() for n in range(len(tiles)))


@pytest.mark.parametrize("value", [None, "0"])
def test_import_of_albumentations_restores_the_environment(monkeypatch, value):
    name = "NO_ALBUMENTATIONS_UPDATE"
    monkeypatch.delenv(name, raising=False)
    if value is not None:
        monkeypatch.setenv(name, value)
    _import_albumentations()
    assert os.environ.get(name) == value


def test_import_of_albumentations_is_silent_and_offline():
    script = Path(__file__).with_name("offline_augment.py")
    env = dict(os.environ)
    env.pop("NO_ALBUMENTATIONS_UPDATE", None)
    done = subprocess.run(
        [sys.executable, script], env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
