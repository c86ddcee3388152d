import os
import subprocess
import sys

import numpy as np
import pytest

from cqt2img.data.augment import STRENGTHS, add_hiss, add_room, equalise, make_augment
from cqt2img.errors import InputError
from cqt2img.tiles.spec import TileSpec

SPEC = TileSpec.preset("fast")
SEEDS = range(40)
CHANGES = [equalise, add_room, add_hiss]


def rng(seed):
    return np.random.default_rng(seed)


@pytest.fixture
def tile():
    """A picture of which a third is the floor."""
    levels = rng(0).integers(0, 256, SPEC.size, dtype=np.uint8)
    levels[rng(1).random(SPEC.size) < 1 / 3] = 0
    return levels


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_keeps_the_form_and_the_tile(change, tile):
    before = tile.copy()
    n_changed = 0
    for seed in SEEDS:
        out = change(tile, SPEC, rng(seed))
        assert out.dtype == np.uint8
        assert out.shape == tile.shape
        assert np.array_equal(out, change(tile, SPEC, rng(seed)))
        n_changed += not np.array_equal(out, tile)
    assert n_changed == len(SEEDS)
    assert np.array_equal(tile, before)


def test_the_floor_stays_the_floor_under_equalise(tile):
    for seed in SEEDS:
        assert not equalise(tile, SPEC, rng(seed))[tile == 0].any()


def test_equalise_is_one_curve_for_all_columns():
    tile = np.full(SPEC.size, 128, np.uint8)
    curves = np.array([equalise(tile, SPEC, rng(seed)) for seed in SEEDS]).astype(int)
    assert np.all(curves == curves[:, :, :1])
    middle = (curves[:, 48, 0] - 128) * SPEC.step_db
    assert 3 < np.std(middle) < 15  # dB: a level of 4, and bumps of 5
    assert (
        np.abs(np.diff(curves[:, :, 0], axis=1)).max() * SPEC.step_db < 9
    )  # no edge, also at an upper limit


@pytest.mark.parametrize("change", [add_room, add_hiss])
def test_room_and_hiss_never_lower(change, tile):
    for seed in SEEDS:
        assert np.all(change(tile, SPEC, rng(seed)) >= tile)


def test_the_tail_of_a_room_is_a_straight_fall():
    tile = np.zeros(SPEC.size, np.uint8)
    tile[30, 10] = 240
    for seed in SEEDS:
        out = add_room(tile, SPEC, rng(seed)).astype(float)
        assert not out[:, :10].any()  # nothing sounds before the sound
        assert not np.delete(out, 30, axis=0).any()
        assert out[30, 10] == 240
        tail = out[30, 11:]
        below = (240 - tail[0]) * SPEC.step_db
        seconds = (
            60
            * SPEC.frame_seconds
            / (-np.polyfit(range(5), tail[:5], 1)[0] * SPEC.step_db)
        )
        assert 0.28 < seconds < 2.7
        assert 6 < below < 20 + 60 * SPEC.frame_seconds / 0.3 + 1
        falls = np.diff(tail[tail > 0])
        assert np.ptp(falls) <= 1  # levels are whole numbers


def test_silence_stays_silent_in_a_room():
    assert not add_room(np.zeros(SPEC.size, np.uint8), SPEC, rng(0)).any()


def test_hiss_rises_with_pitch():
    tile = np.zeros(SPEC.size, np.uint8)
    noise = np.mean([add_hiss(tile, SPEC, rng(seed)) for seed in SEEDS], axis=(0, 2))
    assert noise[:12].mean() > 2 * noise[-12:].mean()
    assert 1 < noise[:12].mean() < 120


def test_strengths():
    assert STRENGTHS == ("album", "none")
    assert make_augment("none", SPEC) is None


@pytest.mark.parametrize("strength", ["strong", None, ""])
def test_unknown_strength(strength):
    with pytest.raises(InputError) as caught:
        make_augment(strength, SPEC)
    message = f"make_augment: augment must be one of album, none, got {strength!r}. Choose one."
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["piano", "fast"])
def test_album_keeps_the_form_and_the_seed(name):
    spec = TileSpec.preset(name)
    tile = rng(0).integers(0, 256, spec.size, dtype=np.uint8)
    before = tile.copy()
    augments = [make_augment("album", spec) for _ in range(2)]
    seen = []
    for seed in range(12):
        for augment in augments:
            augment.set_random_seed(seed)
        one, two = (augment(image=tile)["image"] for augment in augments)
        assert one.dtype == np.uint8
        assert one.shape == tile.shape
        assert np.array_equal(one, two)
        seen.append(one.tobytes())
    assert len(set(seen)) == 12
    assert np.array_equal(tile, before)
    augments[0].set_random_seed(3)
    assert augments[0](image=tile)["image"].tobytes() == seen[3]


def test_album_moves_by_two_semitones_at_most():
    spec = TileSpec.preset("piano")
    augment = make_augment("album", spec)
    tile = np.zeros(spec.size, np.uint8)
    tile[100] = 200
    rows = set()
    for seed in range(60):
        augment.set_random_seed(seed)
        lit = np.median(augment(image=tile)["image"].astype(int), axis=1)
        if lit.max() > 120:
            rows.add(int(lit.argmax()) - 100)
    assert rows
    assert rows <= set(range(-4, 5))
    assert min(rows) < 0 < max(rows)
    assert 0 in rows


OFFLINE = """
import os, socket, sys, warnings
warnings.simplefilter("error")
def refuse(*args, **options):
    print("network")
    raise OSError("no network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import cqt2img.data.augment
from cqt2img.tiles.spec import TileSpec
assert "albumentations" not in sys.modules
assert cqt2img.data.augment.make_augment("none", TileSpec()) is None
assert "albumentations" not in sys.modules
before = os.environ.get("NO_ALBUMENTATIONS_UPDATE")
cqt2img.data.augment.make_augment("album", TileSpec())
assert "albumentations" in sys.modules
assert os.environ.get("NO_ALBUMENTATIONS_UPDATE") == before
"""


@pytest.mark.parametrize("wish", [None, "0"])
def test_import_is_silent_and_offline(wish):
    name = "NO_ALBUMENTATIONS_UPDATE"
    env = {key: value for key, value in os.environ.items() if key != name}
    env |= {} if wish is None else {name: wish}
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
