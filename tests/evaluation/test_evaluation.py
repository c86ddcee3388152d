import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    top_k_accuracy_score,
)

from cqt2img.errors import InputError
from cqt2img.evaluation.calibration import calibrated_range, calibration_error
from cqt2img.evaluation.evaluation import evaluate_proba
from cqt2img.inference.calibration import log_loss
from tests.conftest import raises_with
from tests.evaluation.examples import (
    class_names,
    draw_predictions,
    draw_scores,
    few_scores,
    scores_of_two_classes,
)


def exact_interval(n_correct, n):
    """Clopper-Pearson interval."""
    interval = binomtest(n_correct, n).proportion_ci()
    return interval.low, interval.high


def warnings_of(scores):
    return [line for line in str(scores).splitlines() if line.startswith("WARNING")]


# scores


@pytest.mark.parametrize(
    ("n", "n_classes", "seed"), [(200, 6, 0), (50, 2, 1), (30, 10, 2)]
)
def test_scores_agree_with_scikit_learn(n, n_classes, seed):
    proba, class_indices = draw_predictions(n, n_classes, seed)
    scores = evaluate_proba(proba, class_indices, class_names(n_classes))
    predicted, labels = proba.argmax(axis=1), np.arange(n_classes)
    occurring = np.unique(class_indices)
    f1 = f1_score(class_indices, predicted, labels=occurring, average="macro")
    matrix = confusion_matrix(class_indices, predicted, labels=labels)
    assert scores.accuracy == pytest.approx(accuracy_score(class_indices, predicted))
    assert scores.macro_f1 == pytest.approx(f1)
    assert scores.log_loss == pytest.approx(log_loss(proba, class_indices))
    np.testing.assert_array_equal(scores.confusion, matrix)


@pytest.mark.parametrize(("n_classes", "ks"), [(2, [1]), (5, [1, 3]), (6, [1, 3, 5])])
def test_top_k_accuracy_agrees_with_scikit_learn(n_classes, ks):
    proba, class_indices = draw_predictions(60, n_classes)
    scores = evaluate_proba(proba, class_indices, class_names(n_classes))
    assert list(scores.top_k) == list(scores.top_k_interval) == ks
    assert scores.top_k[1] == scores.accuracy
    for k in ks[1:]:
        expected = top_k_accuracy_score(class_indices, proba, k=k)
        low, high = scores.top_k_interval[k]
        assert scores.top_k[k] == pytest.approx(expected)
        assert low < expected <= high


def test_counts_and_baselines():
    proba, class_indices = draw_predictions(120, 6)
    scores = evaluate_proba(
        proba, class_indices, class_names(6), np.arange(120) // 4, n_failed=3
    )
    assert (scores.n_recordings, scores.n_groups, scores.n_failed) == (120, 30, 3)
    assert scores.chance == 1 / 6
    assert scores.majority == np.bincount(class_indices).max() / 120


def test_calibration_scores_are_those_of_the_predicted_class():
    proba, class_indices = draw_predictions()
    scores = evaluate_proba(proba, class_indices, class_names(6))
    confidence = proba.max(axis=1).astype(np.float64)
    is_correct = proba.argmax(axis=1) == class_indices
    excess = confidence.mean() - scores.accuracy
    assert scores.overconfidence == pytest.approx(excess)
    assert scores.calibration_error == calibration_error(confidence, is_correct)
    assert scores.calibrated_range == calibrated_range(confidence)


def test_macro_f1_averages_only_classes_that_occur():
    proba = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    class_indices = np.array([0, 1, 1, 0])
    scores = evaluate_proba(proba, class_indices, class_names(3))
    assert scores.macro_f1 == pytest.approx((1 + 2 / 3) / 2)


@pytest.mark.parametrize(("shift", "accuracy"), [(0, 1), (1, 0)])
def test_thirty_equal_outcomes_do_not_imply_certainty(shift, accuracy):
    class_indices = np.arange(30) % 3
    proba = np.eye(3, dtype=np.float32)[(class_indices + shift) % 3]
    scores = evaluate_proba(proba, class_indices, class_names(3))
    exact = exact_interval(30 * accuracy, 30)
    assert (scores.accuracy, scores.macro_f1, scores.aurc) == (
        accuracy,
        accuracy,
        1 - accuracy,
    )
    assert scores.accuracy_interval == pytest.approx(exact)
    assert scores.macro_f1_interval == pytest.approx(exact)
    assert scores.overconfidence == scores.calibration_error == 1 - accuracy


def test_one_recording_has_scores_and_a_wide_interval():
    scores = scores_of_two_classes([1])
    assert (scores.accuracy, scores.macro_f1) == (1, 1)
    assert scores.accuracy_interval == pytest.approx((0.025, 1))
    assert scores.macro_f1_interval == pytest.approx((0.025, 1))
    assert scores.calibration_error == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "log_loss", "overconfidence"])
def test_intervals_widen_where_the_recordings_of_a_group_are_alike(name):
    is_correct = np.repeat(np.arange(10) < 7, 10)

    def width(groups):
        scores = scores_of_two_classes(is_correct, groups)
        low, high = getattr(scores, f"{name}_interval")
        assert low < getattr(scores, name) < high
        return high - low

    independent = width(None)
    assert width(np.arange(100) // 10) > 2.2 * independent
    assert width(np.tile(np.arange(10), 10)) < 1.1 * independent


def test_ten_groups_of_equal_recordings_have_the_interval_of_ten_recordings():
    is_correct = np.repeat(np.arange(10) < 7, 10)
    scores = scores_of_two_classes(is_correct, np.arange(100) // 10)
    assert scores.accuracy_interval == pytest.approx(exact_interval(7, 10))


def test_the_log_loss_interval_ends_at_the_highest_possible_log_loss():
    low, high = scores_of_two_classes([1]).log_loss_interval
    assert 0 < low < high <= -np.log(1e-12)


def scores_of_confidence(too_high_by):
    """Predictions of 50 to 100 % confidence that are less often correct."""
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 2000)
    is_wrong = rng.random(2000) > confidence - too_high_by
    proba = np.column_stack([confidence, 1 - confidence])
    return evaluate_proba(proba, is_wrong.astype(int), class_names(2))


def test_a_calibrated_model_is_within_the_calibrated_range():
    scores = scores_of_confidence(too_high_by=0)
    low, high = scores.overconfidence_interval
    assert low < 0 < high
    low, high = scores.calibrated_range
    assert low <= scores.calibration_error <= high
    assert "not clearly over- or underconfident" in str(scores)


def test_an_overconfident_model_is_recognised():
    scores = scores_of_confidence(too_high_by=0.2)
    assert scores.overconfidence == pytest.approx(0.2, abs=0.03)
    assert scores.calibration_error == pytest.approx(0.2, abs=0.03)
    assert scores.calibration_error > scores.calibrated_range[1]
    assert "; overconfident" in str(scores)


def test_an_underconfident_model_is_recognised():
    scores = scores_of_confidence(too_high_by=-0.2)
    assert scores.overconfidence_interval[1] < 0
    assert "; underconfident" in str(scores)


def test_aurc_is_low_where_errors_have_low_confidence():
    proba = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]], np.float32)
    good = evaluate_proba(proba, np.array([0, 0, 0, 1]), class_names(2))
    bad = evaluate_proba(proba, np.array([1, 0, 0, 0]), class_names(2))
    assert good.aurc == pytest.approx((0 + 0 + 0 + 1 / 4) / 4)
    assert bad.aurc == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)


def test_equal_input_gives_equal_scores():
    assert draw_scores().to_dict() == draw_scores().to_dict()


def test_no_recording_is_an_error():
    with raises_with(InputError, "evaluate", "X", "0 of 2"):
        evaluate_proba(np.zeros((0, 2)), np.zeros(0, int), class_names(2), n_failed=2)


# text


def test_text_shows_every_score_with_its_interval():
    scores = draw_scores(120, groups=np.arange(120) // 2, n_failed=2)
    lines = str(scores).splitlines()
    assert lines[0] == ("120 recordings in 60 groups, 6 classes; 2 could not be read")
    shown = {line[:19].strip(): line[19:] for line in lines[1:]}
    expected = {
        "accuracy": (scores.accuracy, scores.accuracy_interval),
        "top-3 accuracy": (scores.top_k[3], scores.top_k_interval[3]),
        "top-5 accuracy": (scores.top_k[5], scores.top_k_interval[5]),
        "macro F1": (scores.macro_f1, scores.macro_f1_interval),
        "chance": (1 / 6, None),
        "majority class": (scores.majority, None),
        "log-loss": (scores.log_loss, scores.log_loss_interval),
        "mean confidence": (scores.proba.max(axis=1).mean(), None),
        "calibration error": (scores.calibration_error, scores.calibrated_range),
    }
    assert list(shown) == list(expected)
    for name, (value, interval) in expected.items():
        assert shown[name].startswith(f"{value:.3f}")
        if interval:
            assert f"{interval[0]:.3f} to {interval[1]:.3f}" in shown[name]
    low, high = scores.overconfidence_interval
    assert f"{low:+.3f} to {high:+.3f}" in shown["mean confidence"]
    assert f"chance {np.log(6):.3f}" in shown["log-loss"]
    assert shown["accuracy"].endswith("all intervals are over groups)")
    assert repr(scores) == str(scores)


def test_a_wide_interval_is_a_warning():
    scores = scores_of_two_classes([1, 0, 0, 0, 0])
    assert scores.accuracy_interval == pytest.approx(exact_interval(1, 5))
    (warning, *_) = warnings_of(scores)
    assert "1 of 5 recordings correct in 5 groups" in warning
    assert "0.5 to 72 %" in warning


def test_scores_at_chance_are_a_warning():
    class_indices = np.arange(200) % 2
    predicted = (np.arange(200) // 2) % 2
    scores = evaluate_proba(
        0.1 + 0.8 * np.eye(2)[predicted], class_indices, class_names(2)
    )
    assert scores.accuracy == 0.5
    (warning,) = warnings_of(scores)
    assert "uniform random guessing, accuracy 0.500" in warning


def test_scores_of_a_constant_prediction_are_a_warning():
    proba = np.tile([[0.8, 0.1, 0.1]], (200, 1))
    class_indices = np.where(np.arange(200) % 5 < 4, 0, 1)
    (warning,) = warnings_of(evaluate_proba(proba, class_indices, class_names(3)))
    assert "the most frequent class, accuracy 0.800" in warning


def test_groups_of_the_training_data_are_a_warning():
    known = ("Evans/Sunday", "Monk/Solo")
    (warning,) = warnings_of(replace(draw_scores(), known_groups=known))
    assert "2 of these groups were in training, such as 'Evans/Sunday'" in warning


def test_good_scores_have_no_warning():
    class_indices = np.arange(200) % 4
    scores = evaluate_proba(np.eye(4)[class_indices], class_indices, class_names(4))
    assert warnings_of(scores) == []


# files


@pytest.fixture
def saved_scores():
    paths = [f"{n}.wav" for n in range(20)]
    scores = draw_scores(20, groups=np.arange(20) // 2, paths=paths, n_failed=1)
    return replace(
        scores,
        tile_log_proba=tuple(np.log(scores.proba[:, None])),
        tile_seconds=2.0,
        known_groups=("3",),
    )


def test_save_writes_scores_as_json(saved_scores, tmp_path):
    saved_scores.save(tmp_path / "new" / "scores")
    text = (tmp_path / "new" / "scores" / "evaluation.json").read_text()
    values = json.loads(text)
    assert values == saved_scores.to_dict()
    assert values["accuracy"] == saved_scores.accuracy
    assert values["top_k"] == {str(k): v for k, v in saved_scores.top_k.items()}
    assert values["seconds"][0]["accuracy"] == saved_scores.accuracy
    assert (values["n_failed"], values["known_groups"]) == (1, ["3"])
    assert len(values["warnings"]) == len(warnings_of(saved_scores))


def test_save_writes_the_confusion_matrix_with_class_names(saved_scores, tmp_path):
    saved_scores.save(tmp_path)
    frame = pd.read_csv(tmp_path / "confusion.csv", index_col=0)
    assert list(frame) == list(frame.index) == class_names(6)
    assert frame.index.name == "label \\ predicted"
    np.testing.assert_array_equal(frame.to_numpy(), saved_scores.confusion)


def test_save_writes_tables_as_csv(saved_scores, tmp_path):
    saved_scores.save(tmp_path)
    tables = {
        "answers": saved_scores.answer_table(),
        "classes": saved_scores.class_table(),
        "groups": saved_scores.group_table(),
    }
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {f"{name}.csv" for name in tables} | {
        "confusion.csv",
        "evaluation.json",
    }
    for name, table in tables.items():
        saved = pd.read_csv(tmp_path / f"{name}.csv", dtype={"group": object})
        assert list(saved) == list(table)
        text = table.select_dtypes(object).fillna("")
        numbers = table.select_dtypes("number")
        assert saved[list(text)].fillna("").to_numpy().tolist() == (
            text.to_numpy().tolist()
        )
        np.testing.assert_allclose(saved[list(numbers)], numbers, rtol=1e-6)


def test_save_keeps_the_bytes_of_paths_that_are_not_unicode(tmp_path):
    scores = scores_of_two_classes([1, 0])
    replace(scores, paths=("old\udce9.wav", "b.wav")).save(tmp_path)
    assert b"old\xe9.wav" in (tmp_path / "answers.csv").read_bytes()


def test_dict_contains_only_values_of_json():
    values = few_scores().to_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
