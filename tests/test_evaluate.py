import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import refused
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, top_k_accuracy_score

from cqt2img.errors import InputError
from cqt2img.evaluate import evaluate_proba


def draw(n=200, n_classes=6, seed=0, skill=1.0):
    rng = np.random.default_rng(seed)
    codes = rng.integers(n_classes, size=n)
    logits = rng.standard_normal((n, n_classes))
    logits[np.arange(n), codes] += skill
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return proba.astype(np.float32), codes


def names(n):
    return [f"player {k}" for k in range(n)]


@pytest.mark.parametrize(("n", "n_classes", "seed"), [(200, 6, 0), (50, 2, 1), (30, 10, 2)])
def test_scores_against_sklearn(n, n_classes, seed):
    proba, codes = draw(n, n_classes, seed)
    scores = evaluate_proba(proba, codes, names(n_classes))
    named, every = proba.argmax(axis=1), np.arange(n_classes)
    assert scores.accuracy == pytest.approx(accuracy_score(codes, named))
    assert scores.macro_f1 == pytest.approx(f1_score(codes, named, labels=np.unique(codes), average="macro"))
    np.testing.assert_array_equal(scores.confusion, confusion_matrix(codes, named, labels=every))
    assert set(scores.top_k) == {k for k in (1, 3, 5) if k < n_classes}
    for k, value in scores.top_k.items():
        if n_classes > 2:
            assert value == pytest.approx(top_k_accuracy_score(codes, proba, k=k, labels=every))
    assert scores.top_k[1] == scores.accuracy
    assert scores.log_loss == pytest.approx(-np.log(proba[np.arange(n), codes]).mean(), abs=1e-5)
    assert scores.chance == 1 / n_classes
    assert scores.majority == np.bincount(codes).max() / n
    assert (scores.n_recordings, scores.n_groups, scores.n_failed) == (n, n, 0)


def test_f1_counts_only_players_that_occur():
    proba = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    codes = np.array([0, 1, 1, 0])  # nobody is 2, but one is taken for 2
    assert evaluate_proba(proba, codes, names(3)).macro_f1 == pytest.approx((1 + 2 / 3) / 2)


def test_perfect_and_hopeless():
    codes = np.arange(30) % 3
    right = evaluate_proba(np.eye(3, dtype=np.float32)[codes], codes, names(3))
    wrong = evaluate_proba(np.eye(3, dtype=np.float32)[(codes + 1) % 3], codes, names(3))
    assert (right.accuracy, right.accuracy_interval, right.macro_f1) == (1, (1, 1), 1)
    assert (wrong.accuracy, wrong.accuracy_interval, wrong.macro_f1) == (0, (0, 0), 0)


def test_interval_is_that_of_the_binomial():
    proba, codes = draw(400, 4)
    scores = evaluate_proba(proba, codes, names(4))
    low, high = scores.accuracy_interval
    assert low < scores.accuracy < high
    assert scores.macro_f1_interval[0] < scores.macro_f1 < scores.macro_f1_interval[1]
    half = 1.96 * np.sqrt(scores.accuracy * (1 - scores.accuracy) / 400)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


def test_interval_holds_the_truth_95_times_of_100():
    truth, held = 0.7, 0
    rng = np.random.default_rng(0)
    for _ in range(30):
        right = rng.random(80) < truth
        proba = np.where(right[:, None], [[0.9, 0.1]], [[0.1, 0.9]]).astype(np.float32)
        low, high = evaluate_proba(proba, np.zeros(80, int), names(2)).accuracy_interval
        held += low <= truth <= high
    assert 25 <= held <= 30


def test_groups_that_stand_or_fall_together_widen_the_interval():
    codes = np.zeros(100, int)
    right = np.repeat(np.arange(10) < 7, 10)  # ten albums of ten takes
    proba = np.where(right[:, None], [[0.9, 0.1]], [[0.1, 0.9]]).astype(np.float32)
    scores = evaluate_proba(proba, codes, names(2), np.repeat(np.arange(10), 10))
    mixed = evaluate_proba(proba, codes, names(2), np.tile(np.arange(10), 10))
    width, over_groups = (b - a for a, b in (scores.accuracy_interval, scores.accuracy_interval_groups))
    assert scores.n_groups == 10
    assert over_groups / width == pytest.approx(np.sqrt(10), rel=0.15)
    assert np.diff(mixed.accuracy_interval_groups)[0] < width


def test_groups_of_one_say_nothing_new():
    proba, codes = draw(20)
    assert evaluate_proba(proba, codes, names(6)).accuracy_interval_groups is None
    assert evaluate_proba(proba, codes, names(6), range(20)).accuracy_interval_groups is None


def test_same_seed_same_interval():
    proba, codes = draw()
    one, two, other = (evaluate_proba(proba, codes, names(6), random_state=s) for s in (0, 0, 1))
    assert one == two
    assert one.accuracy_interval != other.accuracy_interval


def test_one_recording():
    scores = evaluate_proba(np.array([[0.9, 0.1]], np.float32), np.array([0]), names(2))
    assert (scores.accuracy, scores.accuracy_interval, scores.macro_f1) == (1, (1, 1), 1)


def test_nothing_to_score():
    message = "evaluate: X must hold a recording that can be read, got none. See the reasons with identify."
    with refused(InputError, message):
        evaluate_proba(np.zeros((0, 2), np.float32), np.zeros(0, int), names(2))


def test_text_for_people():
    proba, codes = draw(20, 6)
    scores = evaluate_proba(proba, codes, names(6), np.arange(20) // 2, n_failed=2)
    lines = str(scores).splitlines()
    assert lines[0] == "20 recordings in 10 groups, 6 classes; 2 could not be read"
    assert lines[1].startswith(f"accuracy  {scores.accuracy:.3f}  (95 % interval ")
    assert lines[1].endswith(" over recordings)")
    assert lines[2].endswith(" over groups)")
    assert lines[3].startswith(f"macro F1  {scores.macro_f1:.3f}  (95 % interval ")
    assert lines[4:] == [
        f"top 3     {scores.top_k[3]:.3f}",
        f"top 5     {scores.top_k[5]:.3f}",
        f"chance    {1 / 6:.3f}",
        f"majority  {scores.majority:.3f}",
    ]


def test_warning_about_groups_from_training():
    scores = replace(evaluate_proba(*draw(20), names(6)), known_groups=("Evans/Sunday", "Monk/Solo"))
    assert str(scores).splitlines()[-1] == (
        "WARNING: 2 of these groups were in training, such as 'Evans/Sunday'. "
        "This score says nothing about recordings it never met."
    )


def test_save(tmp_path):
    scores = evaluate_proba(*draw(20), names(6), np.arange(20) // 2)
    scores.save(tmp_path / "new" / "scores")
    assert sorted(p.name for p in (tmp_path / "new" / "scores").iterdir()) == ["confusion.csv", "evaluation.json"]
    read = json.loads((tmp_path / "new" / "scores" / "evaluation.json").read_text())
    assert read == scores.to_dict()
    assert read["accuracy"] == scores.accuracy
    assert read["top_k"] == {"1": scores.accuracy, "3": scores.top_k[3], "5": scores.top_k[5]}
    frame = pd.read_csv(tmp_path / "new" / "scores" / "confusion.csv", index_col=0)
    assert list(frame) == list(frame.index) == names(6)
    np.testing.assert_array_equal(frame.to_numpy(), scores.confusion)
