import pickle

import numpy as np
import pytest
import torch

from cqt2img.data.dataset import TrainingData
from cqt2img.data.labels import one_hot
from cqt2img.data.tile_dataset import TrainingTiles
from cqt2img.inference.predict import tile_batches


def n_tiles(strips):
    return [strips.arrays[n].shape[1] // strips.spec.width for n in range(len(strips))]


def training(
    strips, augment="none", seed=0, recordings=None, balance="class", groups="abcde"
):
    targets = one_hot(np.array([0, 0, 1, 1, 2]), 3)
    mine = np.arange(5) if recordings is None else recordings
    return TrainingTiles(
        TrainingData(strips, targets, np.array(list(groups)), mine, np.arange(0)),
        augment,
        balance,
        seed,
    )


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
        assert (levels.dtype, tuple(levels.shape), target.dtype) == (
            torch.uint8,
            strips.spec.size,
            torch.float32,
        )
        np.testing.assert_array_equal(levels.numpy(), strips.tiles(recording)[tile])


def test_last_tile_is_moved_back_until_it_is_full(strips):
    data = training(strips, "none", recordings=np.array([4]))
    last = data.items.index((4, 9))  # columns 288 to 320, of which 300 hold sound
    np.testing.assert_array_equal(data[last][0].numpy(), strips.arrays[4][:, 268:300])


@pytest.mark.parametrize("augment", ["none", "album"])
def test_draws_depend_on_seed_epoch_and_item_alone(strips, augment):
    one, two, other = (
        training(strips, augment),
        training(strips, augment),
        training(strips, augment, seed=1),
    )
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


def test_another_process_draws_the_same(strips):
    here = training(strips, "album")
    there = pickle.loads(pickle.dumps(here))
    assert all(torch.equal(here[n][0], there[n][0]) for n in range(len(here)))


def test_augmented_tiles_differ_and_the_recording_stays(strips):
    before = [strip.copy() for strip in strips.arrays]
    data = training(strips, "album")
    changed = [
        not np.array_equal(data[n][0], strips.tiles(r)[t])
        for n, (r, t) in enumerate(data.items)
    ]
    assert np.mean(changed) > 0.8
    assert all(np.array_equal(a, b) for a, b in zip(before, strips.arrays, strict=True))


def test_jitter_starts_tiles_anywhere(strips):
    data = training(strips, "album")
    data.augment = None  # what is left is the place
    starts = set()
    for epoch in range(4):
        data.set_epoch(epoch)
        for n, (recording, _) in enumerate(data.items):
            if recording == 4:
                level = int(data[n][0][10, 0])
                starts.add(
                    int(np.abs(strips.arrays[4][10].astype(int) - level).argmin())
                )
    assert len(starts) > 12
    assert min(starts) >= 0
    assert max(starts) <= 300 - 32


@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (64, [5])]
)
def test_tile_batches(batch_size, sizes):
    tiles = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    batches = list(tile_batches(tiles, batch_size))
    assert [len(batch) for batch in batches] == sizes
    np.testing.assert_array_equal(torch.cat(batches).numpy(), tiles)


def test_every_group_of_a_class_equally_often(strips):
    data = training(
        strips, balance="group"
    )  # the third class has one group, the second one of 2 and one of 3 tiles
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
