import numpy as np
import pytest
import torch
from conftest import make_cqt

from cqt2img.dataset import Corpus, TrainingTiles, load_strips, tile_batches
from cqt2img.labels import one_hot
from cqt2img.source import list_recordings
from cqt2img.tile import cut_tiles


def ramp(n_frames):
    """A CQT in dB whose every column has a level of its own in all rows."""
    return np.tile(np.linspace(-60, -1, n_frames), (60, 1))


@pytest.fixture
def strips(small):
    """Five recordings of 20, 32, 70, 100 and 300 frames."""
    found, _ = load_strips(list_recordings([ramp(n) for n in (20, 32, 70, 100, 300)]), small)
    return found


def n_tiles(strips):
    return [strips.strips[n].shape[1] // strips.spec.width for n in range(len(strips))]


def test_strips_hold_what_was_cut(small):
    cqts = [make_cqt(5, 20), make_cqt(6, 100), make_cqt(7, 64)]
    strips, infos = load_strips(list_recordings(cqts), small)
    assert len(strips) == 3
    for n, cqt in enumerate(cqts):
        np.testing.assert_array_equal(strips.tiles(n), cut_tiles(cqt, small))
    assert strips.n_frames.tolist() == [20, 100, 64]
    assert [info["status"] for info in infos] == ["ok"] * 3


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_bad_recording_costs_itself(small, place, n_jobs):
    cqts = [make_cqt(5), make_cqt(6)]
    cqts.insert(place, np.full((60, 40), np.nan))
    strips, infos = load_strips(list_recordings(cqts), small, n_jobs)
    assert len(strips) == 2
    assert [info["reason"] for info in infos] == ["non_finite" if n == place else "" for n in range(3)]
    assert [info["status"] for info in infos] == ["error" if n == place else "ok" for n in range(3)]
    good = [n for n in range(3) if n != place]
    for n, m in enumerate(good):
        np.testing.assert_array_equal(strips.tiles(n), cut_tiles(cqts[m], small))


def test_nothing_can_be_read(small):
    strips, infos = load_strips(list_recordings([np.zeros((60, 40))]), small)
    assert len(strips) == 0
    assert infos[0]["reason"] == "silent"
    assert infos[0]["message"] == "to_db: cqt must hold sound, got silence. Leave the recording out."


def test_progress_sees_every_recording(small):
    seen = []

    def progress(steps, n, title):
        seen.append((n, title))
        return steps

    load_strips(list_recordings([make_cqt(5), make_cqt(6)]), small, progress=progress)
    assert seen == [(2, "pictures")]


@pytest.mark.parametrize(("start", "first"), [(-9, 0), (0, 0), (17, 17), (64, 64), (65, 64), (10_000, 64)])
def test_crop_stays_within_sound(strips, start, first):
    crop = strips.crop(3, start)  # 100 frames, of which 4 are less than min_fill: the last tile of sound starts at 64
    np.testing.assert_array_equal(crop, strips.strips[3][:, first : first + 32])
    assert (crop[4:] > 0).sum() >= 60 * 31  # the first column of the recording is the floor


@pytest.mark.parametrize("start", [-5, 0, 5])
def test_crop_of_a_short_recording_is_its_tile(strips, start):
    np.testing.assert_array_equal(strips.crop(0, start), strips.tiles(0)[0])


def test_crop_ignores_sound_behind_the_last_tile(small):
    # 70 frames: the last 6 are less than min_fill, and are left out
    strips, _ = load_strips(list_recordings([ramp(70)]), small)
    assert strips.strips[0].shape == (64, 64)
    assert strips.crop(0, 60).shape == small.size


def training(strips, augment="none", seed=0, recordings=None, balance="class", groups="abcde"):
    targets = one_hot(np.array([0, 0, 1, 1, 2]), 3)
    mine = np.arange(5) if recordings is None else recordings
    return TrainingTiles(Corpus(strips, targets, np.array(list(groups)), mine, np.arange(0)), augment, balance, seed)


def test_every_class_equally_often(strips):
    data = training(strips)
    tiles = n_tiles(strips)
    assert tiles == [1, 1, 2, 3, 10]  # the classes have 2, 5 and 10 tiles
    for epoch in range(3):
        data.set_epoch(epoch)
        labels = [int(data[n][1].argmax()) for n in range(len(data))]
        assert np.bincount(labels).tolist() == [6, 6, 6]  # a third of 17, rounded up


def test_every_tile_of_a_rare_class_is_drawn(strips):
    data = training(strips)
    drawn = np.array([r for r, _ in data.items])
    assert np.bincount(drawn)[:2].tolist() == [3, 3]
    assert len({item for item in data.items if item[0] in (2, 3)}) == 5


def test_only_training_recordings(strips):
    data = training(strips, recordings=np.array([0, 4]))
    assert {r for r, _ in data.items} == {0, 4}
    assert {int(data[n][1].argmax()) for n in range(len(data))} == {0, 2}


def test_without_augmentation_tiles_are_as_cut(strips):
    data = training(strips, "none", recordings=np.arange(4))
    for n, (recording, tile) in enumerate(data.items):
        levels, target = data[n]
        assert (levels.dtype, tuple(levels.shape), target.dtype) == (torch.uint8, strips.spec.size, torch.float32)
        np.testing.assert_array_equal(levels.numpy(), strips.tiles(recording)[tile])


def test_last_tile_is_moved_back_until_it_is_full(strips):
    data = training(strips, "none", recordings=np.array([4]))
    last = data.items.index((4, 9))  # columns 288 to 320, of which 300 hold sound
    np.testing.assert_array_equal(data[last][0].numpy(), strips.strips[4][:, 268:300])


@pytest.mark.parametrize("augment", ["none", "album"])
def test_draws_depend_on_seed_epoch_and_item_alone(strips, augment):
    one, two, other = training(strips, augment), training(strips, augment), training(strips, augment, seed=1)
    two.set_epoch(7)
    _ = [two[n] for n in range(len(two))]
    for data in (one, two, other):
        data.set_epoch(2)
    forwards = [one[n][0] for n in range(len(one))]
    backwards = [two[n][0] for n in reversed(range(len(two)))][::-1]
    assert one.items == two.items
    assert all(torch.equal(a, b) for a, b in zip(forwards, backwards, strict=True))
    assert other.items != one.items
    one.set_epoch(3)
    assert one.items != two.items


def test_augmented_tiles_differ_and_the_recording_stays(strips):
    before = [strip.copy() for strip in strips.strips]
    data = training(strips, "album")
    changed = [not np.array_equal(data[n][0], strips.tiles(r)[t]) for n, (r, t) in enumerate(data.items)]
    assert np.mean(changed) > 0.8
    assert all(np.array_equal(a, b) for a, b in zip(before, strips.strips, strict=True))


def test_jitter_starts_tiles_anywhere(strips):
    data = training(strips, "album")
    data.augment = None  # what is left is the place
    starts = set()
    for epoch in range(4):
        data.set_epoch(epoch)
        for n, (recording, _) in enumerate(data.items):
            if recording == 4:
                level = int(data[n][0][10, 0])
                starts.add(int(np.abs(strips.strips[4][10].astype(int) - level).argmin()))
    assert len(starts) > 12
    assert min(starts) >= 0
    assert max(starts) <= 300 - 32


@pytest.mark.parametrize(("batch_size", "sizes"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (64, [5])])
def test_tile_batches(batch_size, sizes):
    tiles = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    batches = list(tile_batches(tiles, batch_size))
    assert [len(batch) for batch in batches] == sizes
    np.testing.assert_array_equal(torch.cat(batches).numpy(), tiles)


def test_every_group_of_a_class_equally_often(strips):
    data = training(strips, balance="group")  # the third class has one group, the second one of 2 and one of 3 tiles
    drawn = np.zeros(5)
    for epoch in range(50):
        data.set_epoch(epoch)
        assert len(data) == 18
        for recording, _ in data.items:
            drawn[recording] += 1
    assert drawn[2] == pytest.approx(drawn[3], rel=0.1)
    assert drawn[:2].sum() == drawn[2:4].sum() == drawn[4]
    together = training(strips, balance="group", groups="aabbc")
    by_class = training(strips, balance="class")
    assert [len(one) for one in (together, by_class)] == [18, 18]
