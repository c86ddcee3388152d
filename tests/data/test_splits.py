import numpy as np
import pandas as pd
import pytest

from cqt2img.data.recordings import Recording, Recordings
from cqt2img.data.splits import (
    GroupFolds,
    check_leaks,
    group_split,
    join_groups,
    validation_split,
)
from cqt2img.errors import InputError
from tests.conftest import raises_with


def random_recordings(seed, *, classes_share_groups):
    """Return labels and groups of unequal sizes."""
    rng = np.random.default_rng(seed)
    n, n_classes, n_groups = (int(rng.integers(1, high)) for high in (60, 6, 15))
    y = rng.integers(0, n_classes, n)
    groups = rng.integers(0, n_groups, n)
    if classes_share_groups:
        return y, groups
    pairs = zip(y, groups, strict=True)
    return y, np.array([f"{label}/{group}" for label, group in pairs])


# group_split


@pytest.mark.parametrize("shared", [True, False])
def test_no_group_is_in_both_parts_and_every_class_is_in_training(shared):
    n_with_test = 0
    for seed in range(300):
        y, groups = random_recordings(seed, classes_share_groups=shared)
        test_size = np.random.default_rng(seed).uniform(0.05, 0.95)
        training, test = group_split(y, groups, test_size=test_size, random_state=seed)
        assert sorted([*training, *test]) == list(range(len(y)))
        assert training.dtype == test.dtype == np.int64
        assert not set(groups[training]) & set(groups[test])
        assert set(y[training]) == set(y)
        for label in set(y):
            n_groups = len(set(groups[y == label]))
            assert shared or n_groups == 1 or label in y[test]
        n_with_test += len(test) > 0
    assert n_with_test > 200


@pytest.mark.parametrize("test_size", [0.1, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("group_size", [1, 2])
def test_small_groups_give_the_requested_fraction_of_every_class(test_size, group_size):
    sizes = {"a": 200, "b": 40, "c": 20}
    y = np.repeat(list(sizes), list(sizes.values()))
    groups = np.arange(len(y)) // group_size
    for seed in range(20):
        _, test = group_split(y, groups, test_size=test_size, random_state=seed)
        for label, n in sizes.items():
            assert abs(np.sum(y[test] == label) - test_size * n) <= 1


def test_unequal_groups_give_about_the_requested_fraction():
    rng = np.random.default_rng(0)
    for seed in range(50):
        groups = np.repeat(np.arange(30), rng.integers(1, 8, 30))
        y = ["a"] * len(groups)
        _, test = group_split(y, groups, test_size=0.3, random_state=seed)
        assert abs(len(test) - 0.3 * len(groups)) < 8


def test_class_with_one_group_stays_in_training():
    y = ["solo"] * 5 + ["Monk"] * 6
    training, test = group_split(y, ["x"] * 5 + [1, 1, 2, 2, 3, 3], test_size=0.4)
    assert set(range(5)) <= set(training)
    assert len(test) == 2
    training, test = group_split(["a", "a", "b"], [1, 1, 2])
    assert (training.tolist(), test.tolist()) == ([0, 1, 2], [])


def test_group_of_two_classes_is_in_the_test_only_if_both_have_another():
    y = ["a", "a", "b", "b"]
    for seed in range(20):
        _, test = group_split(y, [1, 2, 1, 1], test_size=0.5, random_state=seed)
        assert test.tolist() == [1]
        parts = group_split(y, [1, 2, 1, 2], test_size=0.5, random_state=seed)
        assert [{y[n] for n in part} for part in parts] == [{"a", "b"}] * 2


def test_large_group_is_not_used_if_a_small_one_is_closer_to_the_fraction():
    y = ["a"] * 10 + ["b"] * 2
    groups = ["large"] * 8 + ["small"] * 2 + ["x", "y"]
    for seed in range(20):
        _, test = group_split(y, groups, test_size=0.2, random_state=seed)
        assert test[:-1].tolist() == [8, 9]


def test_split_depends_on_the_seed():
    y, groups = ["a"] * 20 + ["b"] * 20, list(range(40))
    tests = [tuple(group_split(y, groups, random_state=n)[1]) for n in range(5)]
    assert len(set(tests)) == 5
    assert tests[3] == tuple(group_split(y, groups, random_state=3)[1])


def test_split_of_a_seed_is_that_of_the_first_version():
    y = ["a"] * 6 + ["b"] * 6
    groups = [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    tests = [group_split(y, groups, test_size=0.4, random_state=n)[1] for n in (0, 1)]
    assert [test.tolist() for test in tests] == [[4, 5, 10, 11], [0, 1, 10, 11]]


def test_different_lengths_are_an_error():
    with raises_with(InputError, "group_split: groups", "1 groups for 2 labels"):
        group_split(["a", "b"], [1])


@pytest.mark.parametrize("test_size", [0, 1, -0.1, 20, float("nan")])
def test_test_size_out_of_range_is_an_error(test_size):
    with raises_with(InputError, "group_split: test_size", test_size):
        group_split(["a", "b"], [1, 2], test_size=test_size)


# GroupFolds


def list_folds(folds, y, groups):
    """Return the training and test sets of all folds."""
    return [(set(a.tolist()), set(b.tolist())) for a, b in folds.split(None, y, groups)]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("n_splits", [None, 2, 5])
def test_folds_keep_groups_whole_and_test_every_recording_once(shared, n_splits):
    n_split = 0
    for seed in range(100):
        y, groups = random_recordings(seed, classes_share_groups=shared)
        try:
            folds = list_folds(GroupFolds(n_splits, random_state=seed), y, groups)
        except InputError:  # a class in one group or one fold
            continue
        n_split += 1
        assert sorted(n for _, test in folds for n in test) == list(range(len(y)))
        for training, test in folds:
            assert training | test == set(range(len(y)))
            assert not set(groups[list(training)]) & set(groups[list(test)])
            assert set(y[list(training)]) == set(y)
    assert n_split > 15


def test_class_with_as_many_groups_as_folds_is_in_every_fold(caplog):
    for seed in range(50):
        rng = np.random.default_rng(seed)
        y, groups = [], []
        for label in range(4):
            for album in range(rng.integers(5, 9)):
                n_takes = rng.integers(1, 20)
                y += [f"class {label}"] * n_takes
                groups += [f"album {label}/{album}"] * n_takes
        for _, test in GroupFolds(5, random_state=seed).split(None, y, groups):
            assert {y[n] for n in test} == set(y)
    assert not caplog.records


def test_classes_with_fewer_groups_than_folds_are_logged(caplog):
    y, groups = ["a"] * 2 + ["b"] * 3, [1, 2, 3, 4, 5]
    assert len(list_folds(GroupFolds(3), y, groups)) == 3
    (message,) = caplog.messages
    assert "3 folds" in message
    assert message.endswith(": a (2)")


def test_repeats_draw_different_folds_and_a_seed_the_same():
    y, groups = ["a", "b"] * 20, np.arange(40)
    folds = list_folds(GroupFolds(4, n_repeats=3), y, groups)
    assert len(folds) == GroupFolds(4, n_repeats=3).get_n_splits() == 12
    tests = [frozenset(test) for _, test in folds]
    repeats = {frozenset(tests[n : n + 4]) for n in (0, 4, 8)}
    assert len(repeats) == 3
    assert folds == list_folds(GroupFolds(4, n_repeats=3), y, groups)
    other = GroupFolds(4, n_repeats=3, random_state=1)
    assert folds != list_folds(other, y, groups)


@pytest.mark.parametrize("n_splits", [5, None])
def test_folds_work_as_cv_of_scikit_learn(n_splits):
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, cross_val_predict

    rng = np.random.default_rng(0)
    y, groups = np.repeat(["a", "b"], 20), np.repeat(np.arange(10), 4)
    X = rng.normal(size=(40, 3)) + (y == "b")[:, None] * 5
    model, folds = LogisticRegression(), GroupFolds(n_splits)
    predicted = cross_val_predict(model, X, y, groups=groups, cv=folds)
    assert np.mean(predicted == y) > 0.9
    search = GridSearchCV(model, {"C": [0.1, 1.0]}, cv=folds)
    assert search.fit(X, y, groups=groups).best_score_ > 0.9
    assert folds.get_n_splits(X, y, groups) == (n_splits or 10)


@pytest.mark.parametrize(
    ("n_splits", "y", "groups", "parts"),
    [
        (5, None, None, ["y", "None"]),
        (2, ["a", "b"] * 2, [1, 2], ["groups", "2 groups for 4 labels"]),
        (2, ["a", "a", "solo", "solo"], [1, 2, 3, 3], ["2 groups", "'solo'"]),
        (1, ["a", "a", "b", "b"], [1, 2, 3, 4], ["n_splits", "2 to 2", "got 1"]),
        (3, ["a", "a", "b", "b"], [1, 2, 3, 4], ["n_splits", "2 to 2", "got 3"]),
        # both groups of "b" are in one fold
        (2, ["a", "a", "b", "c", "c", "b", "b"], [1, 2, 1, 2, 3, 3, 3], ["'b'"]),
    ],
)
def test_recordings_that_cannot_be_split_are_an_error(n_splits, y, groups, parts):
    with raises_with(InputError, "GroupFolds: ", *parts):
        list(GroupFolds(n_splits).split(None, y, groups))


def test_number_of_groups_left_out_needs_groups():
    with raises_with(InputError, "GroupFolds: groups", "None"):
        GroupFolds(None).get_n_splits()


# join_groups


def test_every_level_of_groups_is_kept_whole():
    rng = np.random.default_rng(0)
    y = np.repeat(["a", "b"], 60)
    sessions = np.array([f"{label}/{rng.integers(6)}" for label in y])
    pieces = [None if rng.random() < 0.7 else f"piece {rng.integers(40)}" for _ in y]
    table = pd.DataFrame({"session": sessions, "piece": pieces, "take": np.arange(120)})
    joined = pd.Series(join_groups(table))
    training, test = group_split(y, table, test_size=0.3)
    for level in ("session", "piece"):
        is_known = table[level].notna()
        by_value = joined[is_known].groupby(table[level][is_known])
        assert (by_value.nunique() == 1).all()
        in_training = set(table[level].iloc[training].dropna())
        assert not in_training & set(table[level].iloc[test].dropna())


def test_groups_are_joined_through_common_values():
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
    assert join_groups([(None, "")]).tolist() == ["recording 0"]
    assert join_groups(["a", 1, "a"]).tolist() == ["a", "1", "a"]


def test_joined_groups_have_distinct_names():
    names = join_groups([(None, "p"), ("recording 0", "q"), (None, "p")]).tolist()
    assert names[0] == names[2] != names[1]


# validation_split and check_leaks


def test_validation_split_is_a_group_split():
    class_indices = np.repeat([0, 1], 20)
    groups = [f"album {n // 4}" for n in range(40)]
    found = validation_split(class_indices, groups, 0.2, 3)
    expected = group_split(class_indices, groups, test_size=0.2, random_state=3)
    assert [part.tolist() for part in found] == [part.tolist() for part in expected]


def test_validation_split_of_fraction_0_is_all_training():
    training, validation = validation_split(np.repeat([0, 1], 2), list("abcd"), 0, 0)
    assert (training.tolist(), validation.tolist()) == ([0, 1, 2, 3], [])


def test_missing_groups_and_a_missing_validation_are_logged(caplog):
    validation_split(np.array([0, 0, 1, 1]), list("abcd"), 0.5, 0)
    assert "no groups are given" in caplog.messages[0]
    caplog.clear()
    validation_split(np.array([0, 0, 1, 1]), list("aabb"), 0.5, 0)
    (message,) = caplog.messages
    assert "no validation" in message


def make_recordings(labels, groups):
    return Recordings(
        tuple(
            Recording(f"{n}.wav", np.zeros((1, 1)), label, group, f"{n}.wav")
            for n, (label, group) in enumerate(zip(labels, groups, strict=True))
        )
    )


SPLIT = np.array([0, 2]), np.array([1, 3])


def test_recordings_without_copies_have_no_leaks(caplog):
    check_leaks(make_recordings("aabb", "wxyz"), list("1234"), SPLIT)
    assert not caplog.records


def test_copies_with_different_labels_are_an_error():
    recordings = make_recordings("aabb", "wxyz")
    with raises_with(InputError, "fit: y", "a for '0.wav'", "b for '2.wav'"):
        check_leaks(recordings, list("1213"), SPLIT)


def test_copies_in_training_and_validation_are_an_error():
    recordings = make_recordings("aabb", "wxyz")
    with raises_with(InputError, "fit: validation", "1 of 2", "'1.wav'"):
        check_leaks(recordings, list("1123"), SPLIT)


def test_copies_within_training_are_allowed(caplog):
    check_leaks(make_recordings("aaab", "wxyz"), list("1213"), SPLIT)
    assert not caplog.records


def test_groups_in_training_and_validation_are_logged(caplog):
    check_leaks(make_recordings("aabb", "wwyz"), list("1234"), SPLIT)
    (message,) = caplog.messages
    assert "'w'" in message
    caplog.clear()
    arrays = make_recordings("aabb", ["array 0", "array 0", "y", "z"])
    check_leaks(arrays, list("1234"), SPLIT)
    assert not caplog.records
