import numpy as np
import pytest
import torch

from cqt2img.errors import InputError
from cqt2img.inference.calibration import to_proba
from cqt2img.inference.model import EnrollmentReport, FittedModel
from tests.conftest import raises_with
from tests.inference.conftest import (
    LABELS,
    SILENCE,
    known_cqts,
    new_cqts,
    predict,
    run,
)


def test_probabilities_have_the_temperature_of_the_model(fitted):
    outputs = run(fitted, known_cqts()[:3])
    proba = fitted.predict_proba(outputs)
    expected = [to_proba(output.log_proba, 1.25) for output in outputs]
    assert (proba.shape, proba.dtype) == ((3, 4), np.float32)
    np.testing.assert_array_equal(proba, expected)
    assert predict(fitted, known_cqts()) == LABELS


def test_probabilities_of_an_unreadable_recording_are_nan(fitted):
    proba = fitted.predict_proba(run(fitted, [SILENCE, known_cqts()[0]]))
    assert np.isnan(proba).tolist() == [[True] * 4, [False] * 4]


def test_p_values_separate_known_from_new_players(fitted):
    cqts = [*known_cqts()[:4], SILENCE, *new_cqts(2)]
    p_values = fitted.open_set_p_values(run(fitted, cqts))
    # A training recording is its own nearest neighbour.
    np.testing.assert_array_equal(p_values[:4], 1)
    assert np.isnan(p_values[4])
    np.testing.assert_array_equal(p_values[5:], 0)


def test_p_values_without_any_readable_recording_are_nan(fitted):
    assert np.isnan(fitted.open_set_p_values(run(fitted, [SILENCE]))).all()


def test_a_model_without_references_predicts_but_has_no_p_values(fitted):
    plain = FittedModel(fitted.network, "row_levels", 1, fitted.spec, fitted.classes)
    outputs = run(plain, known_cqts()[:2])
    assert plain.predict_proba(outputs).argmax(axis=1).tolist() == [0, 1]
    for function in (plain.check_open_set_ready, lambda: plain.open_set_p_values([])):
        with raises_with(InputError, "predict: unknown", "older version"):
            function()


def test_moving_a_model_returns_it(fitted):
    assert fitted.to(torch.device("cpu")) is fitted


@pytest.mark.parametrize(
    ("n_clips", "n_albums", "accuracy", "parts", "is_reliable"),
    [
        (5, 2, 0.6, ["5 clips of 2 albums", "60 %", "left-out albums"], True),
        (5, 1, 1.0, ["5 clips of 1 album;", "100 %", "two albums or more"], False),
        (1, 1, None, ["1 clip of 1 album;", "unknown", "two albums or more"], False),
    ],
)
def test_an_enrollment_is_summarised_with_its_limits(
    n_clips, n_albums, accuracy, parts, is_reliable
):
    report = EnrollmentReport("Monk", n_clips, n_albums, accuracy)
    summary = str(report)
    assert summary.startswith("enroll: 'Monk' from ")
    assert [part for part in parts if part not in summary] == []
    assert not summary.endswith(".")
    assert report.is_reliable is is_reliable
