import numpy as np
import pytest

from cqt2img.data.labels import check_labelled, encode, find_classes, one_hot
from cqt2img.errors import InputError
from tests.conftest import raises_with


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (["Monk", "Evans"] * 2, ["Evans", "Monk"]),
        (["ö", "z", "a"] * 3, ["a", "z", "ö"]),
        (np.array([10, 9, 10, 9]), [9, 10]),
        ([True, False] * 2, [False, True]),
        (np.array(["b", "a", "b", "a"], object), ["a", "b"]),
    ],
)
def test_classes_are_the_sorted_labels_and_indices_point_to_them(y, classes):
    found = find_classes(y)
    assert found.tolist() == classes
    class_indices = encode(y, found)
    assert class_indices.dtype == np.int64
    assert found[class_indices].tolist() == list(y)


@pytest.mark.parametrize("missing", [None, "", float("nan")])
def test_missing_label_is_an_error_that_names_the_first_recording(missing):
    y = ["a", missing, "b", missing]
    with raises_with(InputError, "fit: y", "2 of 4", "number 1"):
        find_classes(y)
    with raises_with(InputError, "score: y", "2 of 4", "number 1"):
        check_labelled("score", y)
    paths = ["a.wav", "b.wav", "c.wav", "d.wav"]
    with raises_with(InputError, "fit: y", "2 of 4", "'b.wav'"):
        find_classes(y, paths)
    check_labelled("score", ["a"])


@pytest.mark.parametrize(
    ("y", "classes", "expected"),
    [
        (["10", "9", "10"], np.array([9, 10]), [1, 0, 1]),
        ([10, 9], np.array(["10", "9"]), [0, 1]),
        # Here the number and its text are two classes.
        (["1", 1], np.array([1, "1"], object), [1, 1]),
    ],
)
def test_number_and_its_text_are_one_label(y, classes, expected):
    assert encode(y, classes).tolist() == expected


def test_single_class_is_an_error():
    with raises_with(InputError, "fit: y", "2 classes", "Monk"):
        find_classes(["Monk", "Monk"])


def test_class_with_one_recording_is_an_error():
    with raises_with(InputError, "fit: y", "2 recordings", "Evans"):
        find_classes(["Monk", "Evans", "Monk"])


def test_unknown_labels_are_an_error_that_lists_the_classes():
    y, classes = ["Tatum", "Monk", "Powell", "Tatum"], np.array(["Evans", "Monk"])
    with raises_with(InputError, "y must", "Powell, Tatum", "Evans, Monk"):
        encode(y, classes)
    with raises_with(InputError, "evaluate: y must", "Powell, Tatum"):
        encode(y, classes, caller="evaluate")
    with raises_with(InputError, "3, 4, 5, 6, 7.", "10, 11", "19, …"):
        encode(range(3, 10), np.arange(10, 21))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_targets_sum_to_one_and_smoothing_is_shared_evenly(smoothing):
    targets = one_hot(np.array([2, 0, 2]), 4, smoothing)
    assert targets.dtype == np.float32
    assert targets.shape == (3, 4)
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
    assert targets.argmax(axis=1).tolist() == [2, 0, 2]
    np.testing.assert_allclose(targets[0, [0, 1, 3]], smoothing / 4, rtol=1e-6)
