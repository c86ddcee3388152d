import pickle

import numpy as np
import pytest
import torch

from cqt2img.data.dataset import TrainingData
from cqt2img.data.labels import one_hot
from cqt2img.data.tile_dataset import TrainingTiles

# the recordings have 1, 1, 2, 3 and 10 tiles, the classes 2, 5 and 10
CLASS_INDICES = np.array([0, 0, 1, 1, 2])


def make_dataset(
    tile_arrays, augment="none", train_index=range(5), balance="class", seed=0
):
    data = TrainingData(
        arrays=tile_arrays,
        targets=one_hot(CLASS_INDICES, 3),
        groups=np.array(list("abcde")),
        train_index=np.array(train_index),
        validation_index=np.arange(0),
    )
    return TrainingTiles(data, augment, balance, seed)


def test_every_class_is_drawn_equally_often(tile_arrays):
    dataset = make_dataset(tile_arrays)
    for epoch in range(3):
        dataset.set_epoch(epoch)
        labels = [int(target.argmax()) for _, target in dataset]
        assert np.bincount(labels).tolist() == [6, 6, 6]  # a third of 17, rounded up


def test_every_tile_of_a_rare_class_is_drawn(tile_arrays):
    items = make_dataset(tile_arrays).items
    counts = np.bincount([item.recording for item in items])
    assert counts[:2].tolist() == [3, 3]
    second_class = {item for item in items if item.recording in (2, 3)}
    assert len(second_class) == 5


def test_every_group_of_a_class_is_drawn_equally_often(tile_arrays):
    # the groups of the second class have 2 and 3 tiles
    dataset = make_dataset(tile_arrays, balance="group")
    counts = np.zeros(5)
    for epoch in range(50):
        dataset.set_epoch(epoch)
        assert len(dataset) == 18
        for item in dataset.items:
            counts[item.recording] += 1
    assert counts[2] == pytest.approx(counts[3], rel=0.1)
    assert counts[:2].sum() == counts[2:4].sum() == counts[4]


def test_only_training_recordings_are_drawn(tile_arrays):
    dataset = make_dataset(tile_arrays, train_index=[0, 4])
    assert {item.recording for item in dataset.items} == {0, 4}
    assert {int(target.argmax()) for _, target in dataset} == {0, 2}


def test_without_augmentation_tiles_are_those_of_the_recording(tile_arrays):
    dataset = make_dataset(tile_arrays, train_index=range(4))
    for item, (levels, target) in zip(dataset.items, dataset, strict=True):
        assert levels.dtype == torch.uint8
        assert target.dtype == torch.float32
        expected = tile_arrays.tiles(item.recording)[item.tile]
        np.testing.assert_array_equal(levels.numpy(), expected)


def test_the_last_tile_is_moved_back_until_it_is_full(tile_arrays):
    dataset = make_dataset(tile_arrays, train_index=[4])
    last = dataset.items.index((4, 9))  # frames 288 to 320, of 300
    levels, _ = dataset[last]
    np.testing.assert_array_equal(levels.numpy(), tile_arrays.arrays[4][:, 268:300])


@pytest.mark.parametrize("augment", ["none", "album"])
def test_draws_depend_on_seed_epoch_and_item_only(tile_arrays, augment):
    one = make_dataset(tile_arrays, augment)
    two = make_dataset(tile_arrays, augment)
    other = make_dataset(tile_arrays, augment, seed=1)
    two.set_epoch(7)
    for index in range(len(two)):
        two[index]
    for dataset in (one, two, other):
        dataset.set_epoch(2)
    assert one.items == two.items
    assert one.items != other.items
    for index in reversed(range(len(two))):
        assert torch.equal(two[index][0], one[index][0])
    one.set_epoch(3)
    assert one.items != two.items


def test_another_process_draws_the_same(tile_arrays):
    here = make_dataset(tile_arrays, "album")
    there = pickle.loads(pickle.dumps(here))
    for index in range(len(here)):
        assert torch.equal(here[index][0], there[index][0])


def test_augmentation_changes_tiles_but_not_the_recordings(tile_arrays):
    before = [array.copy() for array in tile_arrays.arrays]
    dataset = make_dataset(tile_arrays, "album")
    is_changed = []
    for item, (levels, _) in zip(dataset.items, dataset, strict=True):
        tile = tile_arrays.tiles(item.recording)[item.tile]
        is_changed.append(not np.array_equal(levels.numpy(), tile))
    assert np.mean(is_changed) > 0.8
    for array, expected in zip(tile_arrays.arrays, before, strict=True):
        np.testing.assert_array_equal(array, expected)


def test_a_function_may_be_the_augmentation(tile_arrays):
    dataset = make_dataset(tile_arrays, lambda tile: 255 - tile, train_index=[0])
    levels, _ = dataset[0]
    np.testing.assert_array_equal(levels.numpy(), 255 - tile_arrays.tiles(0)[0])


def test_augmented_tiles_start_at_any_frame(tile_arrays):
    # every frame of the recording has a level of its own
    dataset = make_dataset(tile_arrays, lambda tile: tile, train_index=[0, 4])
    row = tile_arrays.arrays[4][10].astype(int)
    starts = set()
    for epoch in range(4):
        dataset.set_epoch(epoch)
        for item, (levels, _) in zip(dataset.items, dataset, strict=True):
            if item.recording == 4:
                first_level = int(levels[10, 0])
                starts.add(int(np.abs(row - first_level).argmin()))
    assert len(starts) > 12
    assert min(starts) >= 0
    assert max(starts) <= 300 - 32
