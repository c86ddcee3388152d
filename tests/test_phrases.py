from collections import Counter

import numpy as np
import pytest

from cqt2img.phrases import N_FEATURES, describe_phrases, read_phrases

TUNE = np.array([[0.0, 67, 0.38], [0.5, 69, 0.88], [1.0, 71, 1.38], [1.5, 67, 1.88]])


def moved(notes, semitones=0, seconds=0.0):
    return np.add(notes, [seconds, semitones, seconds])


def test_steps_and_phrases_are_counted():
    words = read_phrases(TUNE)
    assert (words["step 2"], words["step -4"]) == (2, 1)
    assert (words["phrase 2 2"], words["phrase 2 -4"], words["phrase 2 2 -4"]) == (1, 1, 1)
    assert words["voices 1"] == 4
    assert words["held 7"] == 4, "0.38 s is 3.7 octaves above 30 ms, counted in halves"
    assert words["gap 12"] == 3
    assert words["ratio 0"] == 2
    assert words["touch -2"] == 3, "each note ends 120 ms before the next"


def test_a_chord_is_what_begins_within_40_ms():
    chord = np.array([[0.0, 48, 1.0], [0.012, 52, 1.0], [0.03, 55, 1.0], [0.5, 48, 1.0]])
    words = read_phrases(chord)
    assert words["chord 0 4 7"] == 1
    assert (words["interval 4"], words["interval 3"]) == (1, 1)
    assert words["spread 6"] == 1, "30 ms, in fives"
    assert (words["voices 3"], words["voices 1"]) == (1, 1)
    assert words["bass 0"] == 1
    late = chord.copy()
    late[2, 0] = 0.05
    assert read_phrases(late)["chord 0 4 7"] == 0


def test_key_and_time_do_not_matter():
    assert read_phrases(moved(TUNE, 3)) == read_phrases(TUNE)
    assert read_phrases(moved(TUNE, seconds=7.0)) == read_phrases(TUNE)
    assert read_phrases(TUNE[::-1] * [-1, 1, -1]) != read_phrases(TUNE)


def test_density_is_said_often_enough_to_be_heard():
    slow = read_phrases(TUNE * [4, 1, 4])
    assert sum(n for word, n in slow.items() if word.startswith("density")) == 50
    assert {w for w in slow if w.startswith("density")} != {w for w in read_phrases(TUNE * [0.1, 1, 0.1])
                                                             if w.startswith("density")}  # fmt: skip


@pytest.mark.parametrize("n", [0, 1, 2])
def test_fewer_than_three_notes_say_nothing(n):
    assert read_phrases(TUNE[:n]) == Counter()


def test_vectors_have_length_one_and_do_not_depend_on_the_order_of_words():
    words = read_phrases(TUNE)
    backwards = Counter(dict(reversed(list(words.items()))))
    rows = describe_phrases([words, backwards, Counter(), read_phrases(TUNE[:3])])
    assert rows.shape == (4, N_FEATURES)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), [1, 1, 0, 1], rtol=1e-5)
    assert np.array_equal(rows[0], rows[1])
    assert 0.5 < rows[0] @ rows[3] < 0.99, "the beginning of a tune is much like the tune"
