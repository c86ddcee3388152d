import logging

import numpy as np
import pytest

from cqt2img.data.dataset import (
    list_train_validation,
    load_train_validation,
    split_training_data,
)
from cqt2img.errors import AudioError, InputError
from tests.conftest import make_cqt, raises_with

LABELS = ["Monk", "Monk", "Evans", "Evans", "Monk", "Evans"]
GROUPS = ["a", "b", "c", "d", "a", "c"]


@pytest.fixture
def cqts():
    """Six recordings, each with a bright row of its own."""
    return [make_cqt(10 * n) for n in range(6)]


def load(cqts, small, validation=None, labels=LABELS, on_error="raise"):
    listed = list_train_validation(cqts, labels, GROUPS, None, validation)
    return load_train_validation(listed, small, on_error)


# listing


def test_validation_recordings_follow_those_for_training(cqts):
    validation = (cqts[4:], LABELS[4:])
    listed = list_train_validation(cqts[:4], LABELS[:4], None, None, validation)
    assert listed.is_validation.tolist() == [False] * 4 + [True] * 2
    assert listed.recordings.labels == LABELS
    assert listed.classes.tolist() == ["Evans", "Monk"]


def test_without_validation_all_recordings_are_for_training(cqts):
    listed = list_train_validation(cqts, LABELS, None, None)
    assert not listed.is_validation.any()


@pytest.mark.parametrize(
    "fold",
    [
        np.array([4, 5]),
        [4, 5],
        np.array([5, 4], dtype=np.uint8),
        [False, False, False, False, True, True],
        np.array([False, False, False, False, True, True]),
        range(4, 6),
    ],
)
def test_validation_may_be_a_fold_of_X(cqts, fold):
    listed = list_train_validation(cqts, LABELS, GROUPS, None, fold)
    assert listed.is_validation.tolist() == [False] * 4 + [True] * 2
    assert len(listed.recordings) == 6


def test_folds_of_scikit_learn_are_accepted():
    from sklearn.model_selection import StratifiedGroupKFold

    cqts = [make_cqt(5 * n) for n in range(12)]
    labels = ["Monk"] * 6 + ["Evans"] * 6
    groups = np.arange(12) // 2
    splitter = StratifiedGroupKFold(n_splits=3)
    for train_index, test_index in splitter.split(cqts, labels, groups):
        listed = list_train_validation(cqts, labels, groups, None, test_index)
        assert listed.is_validation[test_index].all()
        assert not listed.is_validation[train_index].any()


@pytest.mark.parametrize(
    ("fold", "parts"),
    [
        ([6], ("0 to 5", "6")),
        ([-1], ("0 to 5", "-1")),
        ([True, False], ("mask", "2 entries", "6 recordings")),
        ([False] * 6, ("not all", "0 of 6")),
        (np.array([], dtype=int), ("not all", "0 of 6")),
        (range(6), ("not all", "6 of 6")),
    ],
)
def test_a_fold_must_fit_X(cqts, fold, parts):
    with raises_with(InputError, "fit: validation", *parts):
        list_train_validation(cqts, LABELS, GROUPS, None, fold)


def test_errors_of_validation_recordings_name_the_argument(cqts):
    with raises_with(InputError, "fit: validation: no such file", "'gone'"):
        list_train_validation(cqts, LABELS, None, None, "gone")
    too_many = (cqts, LABELS, GROUPS, GROUPS)
    with raises_with(InputError, "fit: validation", "4"):
        list_train_validation(cqts, LABELS, None, None, too_many)


def test_a_single_class_is_an_error(cqts):
    with raises_with(InputError, "fit: y", "2 classes", "only a"):
        list_train_validation(cqts, ["a"] * 6, None, None)


# loading


def test_an_unreadable_recording_raises_an_error(cqts, small):
    cqts[1] = np.zeros((60, 40))
    with raises_with(AudioError, "fit: ", "'array 1'", "on_error='skip'"):
        load(cqts, small)


def test_unreadable_recordings_are_skipped_on_request(cqts, small, caplog):
    cqts[1] = np.zeros((60, 40))
    with caplog.at_level(logging.WARNING):
        loaded = load(cqts, small, [4, 5], on_error="skip")
    (skipped,) = loaded.skipped
    assert (skipped.path, skipped.reason) == ("array 1", "silent")
    assert skipped.message in caplog.text
    good = [index for index in range(6) if index != 1]
    assert loaded.recordings.paths == [f"array {index}" for index in good]
    assert loaded.is_validation.tolist() == [False] * 3 + [True] * 2
    assert len(loaded.arrays) == len(loaded.fingerprints) == 5
    assert len(set(loaded.fingerprints)) == 5


def test_n_jobs_errors_start_with_fit(cqts, small):
    listed = list_train_validation(cqts, LABELS, None, None)
    with raises_with(InputError, "fit: n_jobs", "0"):
        load_train_validation(listed, small, "raise", n_jobs=0)


# splitting


def test_passed_validation_recordings_are_the_validation_part(cqts, small):
    data, classes = split_training_data(load(cqts, small, [1, 3]), None, 0.0, 0)
    assert classes.tolist() == ["Evans", "Monk"]
    assert data.train_index.tolist() == [0, 2, 4, 5]
    assert data.validation_index.tolist() == [1, 3]
    assert data.targets.argmax(axis=1).tolist() == [1, 1, 0, 0, 1, 0]
    assert data.groups.tolist() == GROUPS
    assert data.name(3) == "array 3"


def test_otherwise_whole_groups_are_the_validation_part(cqts, small):
    data, _ = split_training_data(load(cqts, small), 0.3, 0.1, 0)
    train_groups = set(data.groups[data.train_index])
    validation_groups = set(data.groups[data.validation_index])
    assert train_groups
    assert validation_groups
    assert not train_groups & validation_groups
    indices = [*data.train_index, *data.validation_index]
    assert sorted(indices) == list(range(6))
    assert data.targets.max() == pytest.approx(0.95)  # label smoothing


def test_copies_in_both_parts_are_an_error(cqts, small):
    cqts[4] = cqts[0]
    with raises_with(InputError, "validation", "'array 4'"):
        split_training_data(load(cqts, small, [4, 5]), None, 0.0, 0)


def test_groups_in_both_parts_are_logged(cqts, small, caplog):
    with caplog.at_level(logging.WARNING):
        split_training_data(load(cqts, small, [4, 5]), None, 0.0, 0)
    assert "'a'" in caplog.text


def test_a_class_without_readable_recordings_is_an_error(small):
    cqts = [make_cqt(10 * n) for n in range(4)] + [np.zeros((60, 40))] * 2
    labels = ["Monk", "Monk", "Evans", "Evans", "Tyner", "Tyner"]
    loaded = load(cqts, small, labels=labels, on_error="skip")
    with raises_with(InputError, "fit: ", "Tyner"):
        split_training_data(loaded, None, 0.0, 0)


def test_a_label_of_validation_only_is_an_error(cqts, small):
    labels = ["Monk", "Monk", "Evans", "Evans", "Monk", "Tyner"]
    with raises_with(InputError, "Tyner"):
        split_training_data(load(cqts, small, [4, 5], labels), None, 0.0, 0)
