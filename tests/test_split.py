import numpy as np
import pytest

from cqt2img.errors import InputError
from cqt2img.split import group_split


def corpus(seed, shared):
    """Draw recordings of some classes in groups of unequal size, which classes share or not."""
    rng = np.random.default_rng(seed)
    n, n_classes, n_groups = rng.integers(1, 60), rng.integers(1, 6), rng.integers(1, 15)
    y, groups = rng.integers(0, n_classes, n), rng.integers(0, n_groups, n)
    return y, groups if shared else [f"{label}/{group}" for label, group in zip(y, groups, strict=True)]


@pytest.mark.parametrize("shared", [True, False])
def test_no_group_on_both_sides_and_every_class_on_the_first(shared):
    n_split = 0
    for seed in range(300):
        y, groups = corpus(seed, shared)
        test_size = np.random.default_rng(seed).uniform(0.05, 0.95)
        first, second = group_split(y, groups, test_size, seed)
        assert sorted([*first, *second]) == list(range(len(y)))
        assert first.dtype == second.dtype == np.int64
        groups = np.asarray(groups)
        assert not set(groups[first]) & set(groups[second])
        assert set(y[first]) == set(y)
        for label in set(y):
            if len(set(groups[y == label])) > 1 and not shared:
                assert label in y[second]
        n_split += len(second) > 0
    assert n_split > 200


@pytest.mark.parametrize("test_size", [0.1, 0.2, 0.5, 0.8])
def test_the_part_is_what_was_asked_for_where_groups_are_small(test_size):
    y = np.repeat(["a", "b", "c"], [200, 40, 20])
    for seed in range(20):
        for groups in (np.arange(260), np.arange(260) // 2):
            _, second = group_split(y, groups, test_size, seed)
            for label, n in (("a", 200), ("b", 40), ("c", 20)):
                assert abs(np.sum(y[second] == label) - test_size * n) <= 1


def test_the_part_is_near_where_groups_are_of_unequal_size():
    rng = np.random.default_rng(0)
    for seed in range(50):
        groups = np.repeat(np.arange(30), rng.integers(1, 8, 30))
        _, second = group_split(["a"] * len(groups), groups, 0.3, seed)
        assert abs(len(second) / len(groups) - 0.3) < 8 / len(groups)


def test_a_class_of_one_group_stays():
    y = ["solo"] * 5 + ["Monk"] * 6
    first, second = group_split(y, ["x"] * 5 + [1, 1, 2, 2, 3, 3], 0.4)
    assert set(first) >= set(range(5))
    assert len(second) == 2
    first, second = group_split(["a", "a", "b"], [1, 1, 2])
    assert (first.tolist(), second.tolist()) == ([0, 1, 2], [])


def test_a_group_of_two_classes_is_spared_only_if_both_keep_another():
    y = ["a", "a", "b", "b"]
    for seed in range(20):
        first, second = group_split(y, [1, 2, 1, 1], 0.5, seed)
        assert second.tolist() == [1]
        first, second = group_split(y, [1, 2, 1, 2], 0.5, seed)
        assert {y[n] for n in second} == {y[n] for n in first} == {"a", "b"}


def test_the_seed_chooses():
    y, groups = ["a"] * 20 + ["b"] * 20, list(range(40))
    sides = {tuple(group_split(y, groups, 0.2, seed)[1]) for seed in range(5)}
    assert len(sides) == 5
    assert np.array_equal(group_split(y, groups, 0.2, 3)[1], group_split(y, groups, 0.2, 3)[1])


def test_lengths_differ():
    with pytest.raises(InputError) as caught:
        group_split(["a", "b"], [1])
    assert str(caught.value) == "group_split: groups must have one entry per recording, got 1 for 2. Count them."


@pytest.mark.parametrize("test_size", [0, 1, -0.1, 20, float("nan")])
def test_test_size_out_of_range(test_size):
    with pytest.raises(InputError) as caught:
        group_split(["a", "b"], [1, 2], test_size)
    assert str(caught.value) == f"group_split: test_size must lie between 0 and 1, got {test_size}. Try 0.2."


def test_a_large_album_is_not_taken_where_a_small_one_is_nearer():
    for seed in range(20):
        _, second = group_split(["a"] * 10 + ["b"] * 2, ["large"] * 8 + ["small"] * 2 + ["x", "y"], 0.2, seed)
        assert second[:-1].tolist() == [8, 9]
