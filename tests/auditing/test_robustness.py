import numpy as np
import pytest

from cqt2img.auditing.robustness import (
    PERTURBATIONS,
    compute_perturbed_cqts,
    measure_robustness,
    stretch_time,
)


class LoudTrebleModel:
    """A model whose classes are levels of the highest rows of the CQT in dB."""

    verbose = True

    def __init__(self, spec):
        self.spec_ = spec
        self.classes_ = np.array(["High", "Low", "Middle"])

    def predict_proba(self, X):
        rise = np.array([cqt[-10:].mean() - X[0][-10:].mean() for cqt in X])
        has_noise = rise > 5
        return np.stack([has_noise, ~has_noise, np.zeros(len(X))], axis=1)


@pytest.fixture
def model(small):
    return LoudTrebleModel(small)


def test_a_model_that_depends_on_treble_is_changed_by_noise(model, folder):
    files = sorted((folder / "Low").rglob("*.wav"))
    scores = measure_robustness(model, files, ["Low"] * len(files), n_recordings=2)
    by_name = {score.perturbation: score for score in scores}
    assert tuple(by_name) == PERTURBATIONS
    noise = by_name["noise 20 dB"]
    assert noise.changed == noise.mean_distance == 1
    assert (noise.accuracy_before, noise.accuracy_after) == (1, 0)
    shifted = by_name["starts 1 s later"]
    assert shifted.changed == shifted.mean_distance == 0
    assert (shifted.accuracy_before, shifted.accuracy_after) == (1, 1)


def test_recordings_are_taken_from_every_class_in_turn(model, folder):
    files = sorted(folder.rglob("*.wav"))
    labels = [file.parts[-3] for file in files]
    scores = measure_robustness(model, files, labels, n_recordings=3)
    assert {score.n_recordings for score in scores} == {3}
    # the model predicts "Low" for all
    assert scores[0].accuracy_before == pytest.approx(1 / 3)


def test_bad_files_are_left_out(model, folder, bad_folder):
    files = sorted(folder.rglob("*.wav"))[:2] + sorted(bad_folder.glob("*.wav"))
    scores = measure_robustness(model, files, ["High"] * len(files))
    assert {score.n_recordings for score in scores} == {2}


def test_arrays_cannot_be_perturbed(model):
    assert measure_robustness(model, [np.zeros((60, 40)) + 1], ["High"]) == []


def test_the_model_is_not_changed(model, folder):
    files = sorted(folder.rglob("*.wav"))[:1]
    measure_robustness(model, files, ["High"])
    assert model.verbose


def test_perturbations_change_the_cqt_as_they_promise(folder, small):
    (path, *_) = sorted((folder / "Middle").rglob("take 1.wav"))
    cqts = compute_perturbed_cqts(path, small)
    plain, shifted, equalised, encoded, pitch, tempo, room, noisy = cqts
    assert len(cqts) == 1 + len(PERTURBATIONS)
    n = round(1 / small.frame_seconds)
    np.testing.assert_array_equal(shifted, plain[:, n:])
    for same_length in (equalised, encoded, pitch, room, noisy):
        assert abs(same_length.shape[1] - plain.shape[1]) <= 2
    factor = tempo.shape[1] / plain.shape[1]
    assert max(factor, 1 / factor) == pytest.approx(1.03, abs=0.02)
    assert noisy[-5:].mean() > plain[-5:].mean() + 5


@pytest.mark.parametrize("factor", [1 / 1.03, 1.03, 1.0])
def test_a_cqt_is_stretched_in_time_only(factor):
    ramps = np.array([[1.0], [2.0]], np.float32)
    cqt = np.arange(200, dtype=np.float32)[None] * ramps
    stretched = stretch_time(cqt, factor)
    assert stretched.shape == (2, round(200 * factor))
    steps = np.diff(stretched, axis=1)[:, :-5]
    expected = np.broadcast_to(ramps / factor, steps.shape)
    np.testing.assert_allclose(steps, expected, rtol=1e-3)


def test_a_single_frame_can_be_stretched():
    assert stretch_time(np.zeros((2, 1), np.float32), 1.03).shape == (2, 1)
