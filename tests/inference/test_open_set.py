from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from cqt2img.errors import InputError
from cqt2img.inference.linear_head import LinearHead
from cqt2img.inference.open_set import (
    SCORE_NAMES,
    OpenSetDetector,
    check_open_set_ready,
    compute_score,
    resolve_unknown_label,
    select_score,
)
from cqt2img.inference.references import ReferenceSet
from tests.conftest import raises_with

HEAD = LinearHead(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0.0, 0.5]))
PAIR = ReferenceSet(
    np.array([[1, 0], [0, 2], [1, 1]], np.float32),
    np.array([0, 1, 1]),
    np.array([False, False, True]),
)


def make_clouds(n_classes, spread, n_each=30, n_features=20, seed=0):
    """Features around one centre per class; every third recording is validation."""
    rng = np.random.default_rng(seed)
    centres = 3 * rng.standard_normal((n_classes, n_features))
    class_indices = np.repeat(np.arange(n_classes), n_each)
    noise = spread * rng.standard_normal((len(class_indices), n_features))
    features = (centres[class_indices] + noise).astype(np.float32)
    is_validation = np.arange(len(class_indices)) % 3 == 0
    return ReferenceSet(features, class_indices, is_validation)


def test_scores_are_those_of_their_papers():
    x = np.array([[3.0, 0.0], [2.0, 2.0], [0.0, -1.0]], np.float32)
    logits = x + np.array([0, 0.5])
    softmax = compute_score("softmax", x, HEAD, PAIR)
    np.testing.assert_allclose(softmax, log_softmax(logits, axis=1).max(axis=1))
    energy = compute_score("energy", x, HEAD, PAIR)
    np.testing.assert_allclose(energy, logsumexp(logits, axis=1))
    # The third reference is validation: (2, 2) is at 45 degrees to both others, and
    # (0, -1) at a right angle to one.
    neighbours = compute_score("neighbours", x, HEAD, PAIR)
    np.testing.assert_allclose(neighbours, [1, np.sqrt(0.5), 0], atol=1e-6)


def at_angles(angles):
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_the_p_value_is_the_fraction_of_validation_recordings_that_score_no_higher():
    features = at_angles(np.array([0, *np.linspace(0, 0.9, 10)]))
    references = ReferenceSet(features, np.zeros(11, int), np.arange(11) > 0)
    x = at_angles(np.array([-0.01, 0.45, 0.85, 0.95]))
    p_values = OpenSetDetector().score(x, HEAD, references)
    np.testing.assert_allclose(p_values, [0.9, 0.5, 0.1, 0.0])


@pytest.mark.parametrize("name", SCORE_NAMES)
def test_p_values_of_the_validation_recordings_are_uniform(name):
    """So the most similar of all has 1, and a fraction of 0.1 is rejected at 0.1."""
    references = make_clouds(6, 1.0)
    rng = np.random.default_rng(1)
    head = LinearHead(rng.standard_normal((6, 20)), np.zeros(6))
    detector = OpenSetDetector(name)
    p_values = detector.score(references.validation_features, head, references)
    np.testing.assert_allclose(np.sort(p_values), np.arange(1, 61) / 60)


# the choice of the score


def test_separate_classes_are_detected_and_hardly_any_known_recording_is_rejected():
    detector = select_score(make_clouds(8, 0.5))
    assert set(detector.auroc) == set(SCORE_NAMES)
    assert detector.auroc[detector.score_name] == max(detector.auroc.values())
    assert detector.auroc[detector.score_name] > 0.98
    assert detector.rejection_rate <= 0.05


def test_classes_that_overlap_are_detected_at_chance():
    detector = select_score(make_clouds(8, 100.0, n_each=90))
    assert detector.auroc["neighbours"] == pytest.approx(0.5, abs=0.1)
    assert 0.01 <= detector.rejection_rate <= 0.1


@pytest.mark.parametrize("n_classes", [2, 3])
def test_too_few_classes_to_leave_some_out_give_the_default(n_classes):
    detector = select_score(make_clouds(n_classes, 0.5))
    assert detector == OpenSetDetector("neighbours", 0.1, None)


def test_four_classes_are_enough():
    assert select_score(make_clouds(4, 0.5)).auroc is not None


def test_references_without_validation_give_the_default():
    references = make_clouds(6, 0.5)
    no_validation = np.zeros(len(references.class_indices), bool)
    references = replace(references, is_validation=no_validation)
    assert select_score(references) == OpenSetDetector()


def test_the_seed_determines_the_choice():
    references = make_clouds(7, 3.0)
    assert select_score(references, 3) == select_score(references, 3)
    assert select_score(references, 3) != select_score(references, 4)


# checks


@pytest.mark.parametrize(
    ("references", "head", "part"),
    [
        (None, HEAD, "older version"),
        (PAIR, None, "not linear"),
        (replace(PAIR, is_validation=np.zeros(3, bool)), HEAD, "validation_fraction"),
    ],
)
def test_a_model_that_cannot_detect_unknown_players(references, head, part):
    with raises_with(InputError, "predict: ", "unknown", part):
        check_open_set_ready(references, head)


def test_a_model_that_can_detect_unknown_players():
    check_open_set_ready(PAIR, HEAD)


@pytest.mark.parametrize("unknown", [3, "", None, 0, False])
def test_the_label_of_unknown_players_must_be_text(unknown):
    with raises_with(InputError, "predict: unknown", f"got {unknown!r}"):
        resolve_unknown_label(unknown, np.array(["a", "b"]))


def test_the_label_of_unknown_players_must_not_be_a_class():
    classes = np.array(["unknown", "b"])
    with raises_with(InputError, "predict: unknown", "'unknown'", "nobody"):
        resolve_unknown_label(True, classes)
    assert resolve_unknown_label("nobody", classes) == "nobody"
