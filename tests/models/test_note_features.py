from collections import Counter

import numpy as np
import pytest

from cqt2img.models.note_features import N_FEATURES, count_phrases, hash_phrases

# onset, MIDI number, end
TUNE = np.array([[0.0, 67, 0.38], [0.5, 69, 0.88], [1.0, 71, 1.38], [1.5, 67, 1.88]])
CHORD = np.array([[0.0, 48, 1.0], [0.012, 52, 1.0], [0.03, 55, 1.0], [0.5, 48, 1.0]])


def shift(notes, semitones=0, seconds=0.0):
    return np.add(notes, [seconds, semitones, seconds])


def density_features(notes):
    counts = count_phrases(notes)
    return {name: n for name, n in counts.items() if name.startswith("density")}


@pytest.mark.parametrize(
    ("feature", "n"),
    [
        ("step 2", 2),
        ("step -4", 1),
        ("phrase 2 2", 1),
        ("phrase 2 -4", 1),
        ("phrase 2 2 -4", 1),
        ("voices 1", 4),
        ("held 7", 4),  # 0.38 s is 3.7 octaves above 30 ms, in half octaves
        ("gap 12", 3),  # 0.5 s is 4.06 octaves above 30 ms, in third octaves
        ("ratio 0", 2),
        ("touch -2", 3),  # each note ends 120 ms before the next, in 50 ms steps
    ],
)
def test_features_of_a_tune_are_counted(feature, n):
    assert count_phrases(TUNE)[feature] == n


@pytest.mark.parametrize(
    ("feature", "n"),
    [
        ("chord 0 4 7", 1),
        ("interval 4", 1),
        ("interval 3", 1),
        ("spread 6", 1),  # 30 ms in steps of 5 ms
        ("voices 3", 1),
        ("voices 1", 1),
        ("bass 0", 1),
    ],
)
def test_features_of_a_chord_are_counted(feature, n):
    assert count_phrases(CHORD)[feature] == n


@pytest.mark.parametrize(("seconds", "n_chords"), [(0.039, 1), (0.041, 0)])
def test_notes_that_begin_within_40_ms_form_a_chord(seconds, n_chords):
    notes = CHORD.copy()
    notes[2, 0] = seconds
    assert count_phrases(notes)["chord 0 4 7"] == n_chords


def test_transposition_within_a_register_changes_no_feature():
    assert count_phrases(shift(TUNE, semitones=3)) == count_phrases(TUNE)


def test_a_shift_in_time_changes_no_feature():
    assert count_phrases(shift(TUNE, seconds=7.0)) == count_phrases(TUNE)


def test_another_order_of_pitches_changes_the_features():
    backwards = TUNE.copy()
    backwards[:, 1] = TUNE[::-1, 1]
    assert count_phrases(backwards) != count_phrases(TUNE)


def test_note_density_has_a_weight_of_fifty():
    slow = density_features(TUNE * [4, 1, 4])
    fast = density_features(TUNE * [0.1, 1, 0.1])
    assert list(slow.values()) == list(fast.values()) == [50]
    assert slow.keys() != fast.keys()


@pytest.mark.parametrize("n", [0, 1, 2])
def test_fewer_than_three_notes_have_no_features(n):
    assert count_phrases(TUNE[:n]) == Counter()


def test_feature_vectors_have_norm_one_or_zero():
    rows = hash_phrases([count_phrases(TUNE), Counter()])
    assert rows.shape == (2, N_FEATURES)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), [1, 0], rtol=1e-5)


def test_feature_vectors_do_not_depend_on_the_order_of_counts():
    """Five features share a column on average; float sums depend on their order."""
    counts = Counter({f"feature {n}": n for n in range(5 * N_FEATURES)})
    backwards = Counter(dict(reversed(counts.items())))
    first, second = hash_phrases([counts, backwards])
    assert np.array_equal(first, second)


def test_the_beginning_of_a_tune_is_similar_to_the_tune():
    whole, beginning = hash_phrases([count_phrases(TUNE), count_phrases(TUNE[:3])])
    assert 0.5 < whole @ beginning < 0.99


@pytest.mark.parametrize(
    ("feature", "column", "value"),
    [("step 2", 3971, 1), ("phrase 2 2", 2181, 1), ("density 3", 3589, -1)],
)
def test_features_have_the_columns_of_earlier_versions(feature, column, value):
    """The heads of saved models depend on the column and the sign of every feature."""
    (row,) = hash_phrases([Counter({feature: 1})])
    assert np.flatnonzero(row).tolist() == [column]
    assert row[column] == value
