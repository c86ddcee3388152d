import numpy as np
import pytest

from cqt2img.auditing import shortcuts
from cqt2img.auditing.confounds import CONFOUNDS
from cqt2img.auditing.shortcuts import compute_p_value, find_shortcuts
from cqt2img.errors import InputError
from tests.conftest import raises_with

N_CLASSES, N_GROUPS, N_TAKES = 3, 4, 3
SHAPE = (N_CLASSES, N_GROUPS, N_TAKES)
CLASS, ALBUM, TAKE = np.indices(SHAPE).reshape(3, -1)
LABELS = np.array(["Ada", "Bill", "Clara"])[CLASS]
GROUPS = (CLASS * N_GROUPS + ALBUM).astype(str)


def per_album(seed=0):
    """Return values that differ from album to album, whoever plays."""
    rng = np.random.default_rng(seed)
    albums = rng.normal(size=(N_CLASSES, N_GROUPS))[CLASS, ALBUM]
    return (albums + rng.normal(0, 0.05, len(CLASS)))[:, None]


def per_class():
    """Return values that differ from class to class."""
    return CLASS[:, None] + np.random.default_rng(0).normal(0, 0.05, (len(CLASS), 1))


def tuning(cents):
    angle = 2 * np.pi * np.asarray(cents) / 100
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def indicators(categories):
    return (np.asarray(categories)[:, None] == np.arange(3)).astype(float)


def score(confound, values, labels=LABELS, groups=GROUPS):
    (found,) = find_shortcuts({confound: values}, labels, groups)
    return found


@pytest.mark.parametrize(
    ("confound", "values"),
    [
        ("tuning", tuning(20.0 * CLASS + ALBUM)),
        ("level", np.hstack([per_class(), per_class() + 15])),
        ("bandwidth", per_class()),
        ("noise floor", per_class()),
        ("duration", per_class()),
        ("file format", indicators(CLASS)),
        ("piece", indicators(CLASS)),
    ],
)
def test_a_confound_that_differs_between_classes_is_a_shortcut(confound, values):
    found = score(confound, values)
    assert found.is_shortcut
    assert found.held_out == "groups"
    assert found.accuracy > 0.9
    assert found.low < found.accuracy <= found.high
    assert found.chance == pytest.approx(1 / 3)
    assert found.classes == ("Ada", "Bill", "Clara")
    assert found.explanation.startswith(f"The {CONFOUNDS[confound].phrase} alone ")
    assert found.explanation.endswith("most clearly Ada, Bill, Clara.")
    assert found.advice == CONFOUNDS[confound].advice


@pytest.mark.parametrize("seed", range(3))
def test_a_confound_that_differs_between_albums_only_is_no_shortcut(seed):
    assert not score("level", per_album(seed)).is_shortcut


def test_shortcuts_come_first_and_strongest_first():
    confounds = {
        "bandwidth": per_album(),
        "noise floor": per_class(),
        "mean spectrum": per_class() + per_album() / 20,
    }
    found = find_shortcuts(confounds, LABELS, GROUPS)
    assert [one.is_shortcut for one in found] == [True, True, False]
    accuracies = [one.accuracy for one in found[:2]]
    assert accuracies == sorted(accuracies, reverse=True)


@pytest.mark.parametrize("is_in_noise", [False, True])
def test_the_channel_needs_mean_spectrum_and_noise_floor(is_in_noise):
    """The register of a player changes the mean spectrum, but not the noise."""
    noise_floor = per_class() if is_in_noise else per_album()
    confounds = {
        "mean spectrum": per_class(),
        "noise floor": noise_floor,
        "channel": np.hstack([per_class(), noise_floor]),
    }
    scores = find_shortcuts(confounds, LABELS, GROUPS)
    found = {one.confound: one.is_shortcut for one in scores}
    assert found["mean spectrum"]
    assert found["channel"] == found["noise floor"] == is_in_noise


@pytest.mark.parametrize(("cents", "is_shortcut"), [(1, False), (10, True)])
def test_a_difference_of_one_cent_is_no_shortcut(cents, is_shortcut):
    """In one room, the notes that are played change the measured tuning by as much."""
    assert score("tuning", tuning(cents * CLASS)).is_shortcut == is_shortcut


@pytest.mark.parametrize(("min_gain", "is_shortcut"), [(0.25, True), (1.01, False)])
def test_the_accuracy_of_a_shortcut_must_be_high(monkeypatch, min_gain, is_shortcut):
    confound = CONFOUNDS["level"]._replace(min_gain=min_gain)
    monkeypatch.setitem(shortcuts.CONFOUNDS, "level", confound)
    assert score("level", per_class()).is_shortcut == is_shortcut


@pytest.mark.parametrize("groups", [LABELS, np.arange(len(LABELS)).astype(str)])
def test_recordings_are_held_out_where_groups_cannot_be(groups):
    found = score("level", per_class(), groups=groups)
    assert found.held_out == "recordings"
    assert found.is_shortcut


def test_a_class_of_one_album_is_left_out_where_others_have_several():
    groups = np.where(CLASS == 0, "one", GROUPS)
    found = score("level", per_class(), groups=groups)
    assert found.held_out == "groups"
    assert found.chance == 1 / 2
    assert found.classes == ("Bill", "Clara")


def test_two_albums_of_four_classes_prove_nothing():
    """There are 105 ways to form four pairs of eight albums."""
    labels = np.repeat(list("abcd"), 9)
    groups = np.repeat(np.arange(8), [4, 5] * 4).astype(str)
    found = score("level", np.repeat(np.arange(4.0), 9)[:, None], labels, groups)
    assert found.accuracy == 1
    assert found.p_value == pytest.approx(1 / 105, abs=0.006)
    assert not found.is_shortcut


def test_a_confound_known_of_half_the_recordings_is_left_out():
    values = per_class()
    values[: len(values) // 2] = np.nan
    assert find_shortcuts({"level": values}, LABELS, GROUPS) == []
    values[:3] = 0
    assert score("level", values).classes == ("Bill", "Clara")


def test_a_constant_confound_predicts_the_most_frequent_class():
    labels = np.where(CLASS == 2, "Bill", LABELS)
    found = score("file format", np.ones((len(CLASS), 1)), labels)
    assert found.accuracy == pytest.approx(2 / 3)
    assert not found.is_shortcut


def test_labels_are_permuted_among_whole_groups(monkeypatch):
    """With nothing to find, one test in twenty has a p-value below 0.05."""
    monkeypatch.setattr(shortcuts, "_N_PERMUTATIONS", 199)
    by_group = []
    by_recording = []
    for seed in range(60):
        values = np.random.default_rng(seed).normal(size=(12, 1))[GROUPS.astype(int)]
        recordings = np.arange(len(LABELS)).astype(str)
        by_group.append(compute_p_value(values, LABELS, GROUPS, random_state=seed))
        by_recording.append(
            compute_p_value(values, LABELS, recordings, random_state=seed)
        )
    # more than 9 of 60 once in 1500
    assert np.mean(np.array(by_group) <= 0.05) < 0.15
    # takes of an album are alike, whoever plays
    assert np.mean(np.array(by_recording) <= 0.05) > 0.3


def test_the_smallest_p_value_is_one_in_2000():
    """A better order than the best is impossible; an equal one has 1 chance in 5775."""
    p_value = compute_p_value(CLASS[:, None].astype(float), LABELS, GROUPS)
    assert p_value == pytest.approx(1 / 2000, abs=1e-3)


def test_a_confound_must_have_one_row_per_recording():
    with raises_with(InputError, "confounds", "'level'", 35, 36):
        find_shortcuts({"level": per_class()[1:]}, LABELS, GROUPS)


def test_one_class_is_an_error():
    with raises_with(InputError, "labels", "got 1"):
        find_shortcuts({"level": per_class()}, ["Ada"] * 36, GROUPS)
