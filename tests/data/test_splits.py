import numpy as np
import pandas as pd
import pytest

from cqt2img.data.splits import GroupFolds, group_split, join_groups
from cqt2img.errors import InputError
from tests.conftest import raises_exactly


def corpus(seed, shared):
    """Draw recordings of some classes in groups of unequal size, which classes share or not."""
    rng = np.random.default_rng(seed)
    n, n_classes, n_groups = (
        rng.integers(1, 60),
        rng.integers(1, 6),
        rng.integers(1, 15),
    )
    y, groups = rng.integers(0, n_classes, n), rng.integers(0, n_groups, n)
    return y, groups if shared else [
        f"{label}/{group}" for label, group in zip(y, groups, strict=True)
    ]


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
    assert np.array_equal(
        group_split(y, groups, 0.2, 3)[1], group_split(y, groups, 0.2, 3)[1]
    )


def test_lengths_differ():
    with pytest.raises(InputError) as caught:
        group_split(["a", "b"], [1])
    assert (
        str(caught.value)
        == "group_split: groups must have one entry per recording, got 1 for 2. Count them."
    )


@pytest.mark.parametrize("test_size", [0, 1, -0.1, 20, float("nan")])
def test_test_size_out_of_range(test_size):
    with pytest.raises(InputError) as caught:
        group_split(["a", "b"], [1, 2], test_size)
    assert (
        str(caught.value)
        == f"group_split: test_size must lie between 0 and 1, got {test_size}. Try 0.2."
    )


def test_a_large_album_is_not_taken_where_a_small_one_is_nearer():
    for seed in range(20):
        _, second = group_split(
            ["a"] * 10 + ["b"] * 2,
            ["large"] * 8 + ["small"] * 2 + ["x", "y"],
            0.2,
            seed,
        )
        assert second[:-1].tolist() == [8, 9]


def folds_of(folds, y, groups):
    return [(set(a.tolist()), set(b.tolist())) for a, b in folds.split(None, y, groups)]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("n_splits", [None, 2, 5])
def test_folds_keep_groups_and_test_every_recording_once(shared, n_splits):
    n_parted = 0
    for seed in range(100):
        y, groups = corpus(seed, shared)
        try:
            sides = folds_of(GroupFolds(n_splits, random_state=seed), y, groups)
        except InputError:  # a class in one group or one fold
            continue
        n_parted += 1
        names = np.asarray(groups)
        assert sorted(n for _, test in sides for n in test) == list(range(len(y)))
        for training, test in sides:
            assert training | test == set(range(len(y)))
            assert not set(names[list(training)]) & set(names[list(test)])
            assert set(y[list(training)]) == set(y)
    assert n_parted > 15


def test_a_class_with_as_many_groups_as_folds_is_in_every_fold(caplog):
    for seed in range(50):
        rng = np.random.default_rng(seed)
        n_albums = rng.integers(5, 9, 4)
        albums = [
            (f"class {c}", f"album {c}/{n}")
            for c in range(4)
            for n in range(n_albums[c])
        ]
        y, groups = zip(
            *[album for album in albums for _ in range(rng.integers(1, 20))],
            strict=True,
        )
        for _, test in GroupFolds(5, random_state=seed).split(None, y, groups):
            assert {y[n] for n in test} == set(y)
    assert not caplog.records


def test_classes_that_cannot_be_in_every_fold_are_named(caplog):
    y, groups = ["a"] * 2 + ["b"] * 3, [1, 2, 3, 4, 5]
    sides = folds_of(GroupFolds(3), y, groups)
    assert len(sides) == 3
    assert caplog.messages == [
        "GroupFolds: not in every one of 3 folds, for want of groups: a (2)"
    ]


def test_repeats_deal_anew_and_a_seed_deals_the_same():
    y, groups = ["a", "b"] * 20, np.arange(40)
    sides = folds_of(GroupFolds(4, n_repeats=3), y, groups)
    assert len(sides) == GroupFolds(4, n_repeats=3).get_n_splits() == 12
    parts = [
        frozenset(map(frozenset, (test for _, test in sides[n : n + 4])))
        for n in (0, 4, 8)
    ]
    assert len(set(parts)) == 3
    assert sides == folds_of(GroupFolds(4, n_repeats=3), y, groups)
    assert sides != folds_of(GroupFolds(4, n_repeats=3, random_state=1), y, groups)


def test_folds_work_in_scikit_learn():
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, cross_val_predict

    rng = np.random.default_rng(0)
    y, groups = np.repeat(["a", "b"], 20), np.repeat(np.arange(10), 4)
    X = rng.normal(size=(40, 3)) + (y == "b")[:, None] * 5
    for folds in (GroupFolds(5), GroupFolds(None)):
        assert (
            np.mean(
                cross_val_predict(LogisticRegression(), X, y, groups=groups, cv=folds)
                == y
            )
            > 0.9
        )
    search = GridSearchCV(
        LogisticRegression(), {"C": [0.1, 1.0]}, cv=GroupFolds(5)
    ).fit(X, y, groups=groups)
    assert search.best_score_ > 0.9
    assert GroupFolds(None).get_n_splits(X, y, groups) == 10


def test_every_level_is_kept_whole():
    rng = np.random.default_rng(0)
    y = np.repeat(["a", "b"], 60)
    sessions = np.array([f"{label}/{rng.integers(6)}" for label in y])
    pieces = [None if rng.random() < 0.7 else f"piece {rng.integers(40)}" for _ in y]
    table = pd.DataFrame({"session": sessions, "piece": pieces, "take": np.arange(120)})
    joined = join_groups(table)
    for level in ("session", "piece"):
        known = table[level].notna()
        assert (
            pd.Series(joined)[known].groupby(table[level][known]).nunique() == 1
        ).all()
    first, second = group_split(y, table, 0.3)
    for level in ("session", "piece"):
        assert not set(table[level].iloc[first].dropna()) & set(
            table[level].iloc[second].dropna()
        )


def test_groups_are_joined_through_what_links_them():
    levels = [
        ("x", "1"),
        ("y", "1"),
        ("y", "2"),
        ("z", "3"),
        ("z", None),
        ("w", float("nan")),
        (None, ""),
        (None, ""),
    ]
    names = join_groups(levels).tolist()
    assert names == ["x", "x", "x", "z", "z", "w", "recording 6", "recording 7"]
    assert join_groups(["a", 1, "a"]).tolist() == ["a", "1", "a"]
    assert (
        len(set(join_groups([(None, "p"), ("recording 0", "q"), (None, "p")]).tolist()))
        == 2
    )


def test_what_cannot_be_parted_is_refused():
    with raises_exactly(
        InputError, "GroupFolds: y must hold a label per recording, got None. Pass y."
    ):
        list(GroupFolds().split(np.zeros(4)))
    message = (
        "GroupFolds: groups must have one entry per recording, got 2 for 4. Count them."
    )
    with raises_exactly(InputError, message):
        list(GroupFolds(2).split(None, ["a", "b"] * 2, [1, 2]))
    message = (
        "GroupFolds: every class must have 2 groups or more, got 1 for 'solo'. What is tested would miss from "
        "training: add an album, or leave the class out."
    )
    with raises_exactly(InputError, message):
        list(GroupFolds(2).split(None, ["a", "a", "solo", "solo"], [1, 2, 3, 3]))
    for n_splits in (1, 3):
        message = (
            "GroupFolds: n_splits must be from 2 to 2, the most that groups and classes allow, "
            f"got {n_splits}. Choose another."
        )
        with raises_exactly(InputError, message):
            list(GroupFolds(n_splits).split(None, ["a", "a", "b", "b"], [1, 2, 3, 4]))
    message = (
        "GroupFolds: every class must be left in training, got none of 'b' without one fold. "
        "Take other groups, or more folds."
    )
    with raises_exactly(InputError, message):  # both groups of "b" are in one fold
        list(
            GroupFolds(2).split(
                None, ["a", "a", "b", "c", "c", "b", "b"], [1, 2, 1, 2, 3, 3, 3]
            )
        )
