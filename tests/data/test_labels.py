import numpy as np
import pytest

from cqt2img.data.labels import check_labelled, encode, find_classes, one_hot
from cqt2img.errors import InputError

FIT = "Sort the recordings into one folder per label, or give y or a csv with the column label."


def refuse(message, call, *args):
    with pytest.raises(InputError) as caught:
        call(*args)
    assert str(caught.value) == message


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
def test_find_classes_and_encode(y, classes):
    found = find_classes(y)
    assert found.tolist() == classes
    codes = encode(y, found)
    assert codes.dtype == np.int64
    assert found[codes].tolist() == list(y)


@pytest.mark.parametrize("nothing", [None, "", float("nan")])
def test_a_label_is_missing(nothing):
    message = (
        f"fit: y must label every recording, got none for 2 of 4, first number 1. {FIT}"
    )
    refuse(message, find_classes, ["a", nothing, "b", nothing])
    refuse(
        message.replace("fit:", "score:"),
        check_labelled,
        "score",
        ["a", nothing, "b", nothing],
    )
    check_labelled("score", ["a"])
    paths = ["a.wav", "b.wav", "c.wav", "d.wav"]
    message = (
        f"fit: y must label every recording, got none for 2 of 4, first 'b.wav'. {FIT}"
    )
    refuse(message, find_classes, ["a", nothing, "b", nothing], paths)
    refuse(message, check_labelled, "fit", ["a", nothing, "b", nothing], paths)


def test_a_number_and_its_text_are_one_label():
    assert encode(["10", "9", "10"], np.array([9, 10])).tolist() == [1, 0, 1]
    assert encode([10, 9], np.array(["10", "9"])).tolist() == [0, 1]
    assert encode(["1", 1], np.array([1, "1"], object)).tolist() == [
        1,
        1,
    ]  # here they are two
    message = "encode: y must hold labels that the model knows, got 8. It knows 9, 10: rename the labels or fit a new model."
    refuse(message, encode, ["8"], np.array([9, 10]))


def test_one_class():
    message = "fit: y must hold two classes or more, got only Monk. Add recordings of another player."
    refuse(message, find_classes, ["Monk", "Monk"])


def test_a_class_with_one_recording():
    message = (
        "fit: y must hold two recordings or more of every class, got one of Evans. "
        "Add recordings of it, or leave it out."
    )
    refuse(message, find_classes, ["Monk", "Evans", "Monk"])


def test_encode_of_a_strange_label():
    classes = np.array(["Evans", "Monk"])
    message = (
        "encode: y must hold labels that the model knows, got Powell, Tatum. "
        "It knows Evans, Monk: rename the labels or fit a new model."
    )
    refuse(message, encode, ["Tatum", "Monk", "Powell", "Tatum"], classes)
    message = (
        "encode: y must hold labels that the model knows, got 3, 4, 5, 6, 7. "
        "It knows 10, 11, 12, 13, 14, 15, 16, 17, 18, 19 …: rename the labels or fit a new model."
    )
    refuse(message, encode, range(3, 10), np.arange(10, 21))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_one_hot(smoothing):
    targets = one_hot(np.array([2, 0, 2]), 4, smoothing)
    assert targets.dtype == np.float32
    assert targets.shape == (3, 4)
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
    assert targets.argmax(axis=1).tolist() == [2, 0, 2]
    np.testing.assert_allclose(targets[0, [0, 1, 3]], smoothing / 4, rtol=1e-6)
