import numpy as np
import pytest

from cqt2img.auditing.landmarks import compute_landmarks
from tests.auditing.notes import FAST, FINE, draw_tiles, landmarks_of, make_notes


@pytest.mark.parametrize("spec", [FAST, FINE], ids=["fast", "fine"])
def test_onsets_are_found_in_time_and_pitch(spec):
    notes = np.array([[1.0, 1, 36, 0], [2.5, 1, 40, -6], [4.02, 1, 43, -3]])
    onsets = landmarks_of(notes, spec).onsets
    tolerance = 0.6 * FAST.frame_seconds
    np.testing.assert_allclose(onsets[:, 0], notes[:, 0], atol=tolerance)
    np.testing.assert_array_equal(onsets[:, 1], notes[:, 2])


def test_onsets_are_ordered_and_at_most_eight_per_second():
    onsets = landmarks_of(np.concatenate([make_notes(n, 10) for n in range(8)])).onsets
    assert (np.diff(onsets[:, 0]) >= 0).all()
    _, counts = np.unique(onsets[:, 0] // 3, return_counts=True)
    assert counts.max() == 24


def test_the_spectrogram_contains_loud_notes_only():
    loud_and_quiet = np.array([[1.0, 2, 36, 0], [4.0, 1, 40, -40]])
    landmarks = landmarks_of(loud_and_quiet)
    semitones, frames = np.nonzero(landmarks.spectrogram)
    assert set(semitones) == {36 - 12}
    start = frames.min() * landmarks.frame_seconds
    assert start == pytest.approx(1.0, abs=0.15)


def test_landmarks_are_smaller_than_a_kilobyte_per_second():
    landmarks = landmarks_of(make_notes(0))
    seconds = landmarks.spectrogram.shape[1] * landmarks.frame_seconds
    n_bytes = landmarks.spectrogram.nbytes + landmarks.onsets.nbytes
    assert n_bytes < 1000 * seconds


def test_a_held_tone_has_one_onset():
    held = draw_tiles(np.array([[0.5, 20, 40, 0]]))
    assert len(compute_landmarks(held, FAST).onsets) == 1
