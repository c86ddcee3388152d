import numpy as np
import pytest

from cqt2img.auditing.landmarks import compute_landmarks
from cqt2img.auditing.matching import match_takes
from tests.auditing.notes import FAST, FINE, draw_tiles, landmarks_of, make_notes


@pytest.mark.parametrize(
    ("spec", "speed", "shift"),
    [
        (FAST, 1.0, 0),
        (FAST, 0.97, 1),
        (FAST, 1.03, -1),
        (FINE, 1.0, -1),
        (FINE, 0.97, 0),
        (FINE, 1.03, 1),
    ],
)
def test_a_changed_take_is_found_and_the_change_is_measured(spec, speed, shift):
    notes = make_notes(1)
    part = notes[30:-20]
    changed = part * [1 / speed, 1 / speed, 1, 1] + [-4, 0, shift, 0]
    takes = [
        landmarks_of(make_notes(2), spec),
        landmarks_of(notes, spec),
        landmarks_of(changed, spec, noise=30, gain_db=-5),
        landmarks_of(make_notes(3), spec),
    ]
    (pair,) = match_takes(takes)
    assert (pair.first, pair.second, pair.semitones) == (1, 2, shift)
    assert pair.match > 0.8
    assert pair.speed == pytest.approx(speed, abs=2e-3)
    assert pair.offset_seconds == pytest.approx(-4, abs=0.1)


def test_the_order_of_two_takes_inverts_the_change():
    notes = make_notes(1)
    usual = landmarks_of(notes)
    slow = landmarks_of(notes * [1.03, 1.03, 1, 1] + [2, 0, 1, 0])
    (there,) = match_takes([usual, slow])
    (back,) = match_takes([slow, usual])
    assert there.speed == pytest.approx(1 / 1.03, abs=2e-3)
    assert back.speed == pytest.approx(1.03, abs=2e-3)
    assert (there.semitones, back.semitones) == (1, -1)
    assert there.offset_seconds == pytest.approx(2, abs=0.1)
    assert back.offset_seconds == pytest.approx(-2 / 1.03, abs=0.1)


def test_an_excerpt_is_found_in_its_take():
    notes = make_notes(1)
    excerpt = notes[60:110] - [notes[60, 0] - 0.3, 0, 0, 0]
    assert len(match_takes([landmarks_of(notes), landmarks_of(excerpt)])) == 1


def test_the_same_notes_at_other_times_are_another_performance():
    notes = make_notes(1)
    again = notes.copy()
    again[:, 0] += 0.12 * np.random.default_rng(5).standard_normal(len(notes))
    assert match_takes([landmarks_of(notes), landmarks_of(again)]) == []


def test_equal_onsets_are_not_enough_for_a_match():
    notes = make_notes(1)
    plucked = notes.copy()
    plucked[:, 1] = 0.1
    plucked[:, 3] = notes[::-1, 3]
    takes = [landmarks_of(notes), landmarks_of(plucked)]
    assert match_takes(takes) == []
    assert len(match_takes(takes, min_match=0.3)) == 1


@pytest.mark.parametrize(("seconds", "is_same_take"), [(3, False), (20, True)])
def test_short_takes_must_be_more_similar_than_long_ones(seconds, is_same_take):
    notes = make_notes(1, seconds)
    rng = np.random.default_rng(2)
    varied = notes + rng.normal(0, 1, notes.shape) * [0.01, 0.08, 0, 4]
    pairs = match_takes([landmarks_of(notes), landmarks_of(varied)])
    assert len(pairs) == is_same_take


def test_silence_held_tones_and_pulses_match_nothing():
    silence = np.zeros((4, *FAST.size), np.uint8)
    held = draw_tiles(np.array([[0.5, 20, 40, 0]]))
    pulse = draw_tiles(np.array([[0.5 * n, 0.3, 40, 0] for n in range(1, 40)]))
    tiles = [silence, silence, held, held + 1, pulse, np.roll(pulse, 1, axis=2)]
    assert match_takes([compute_landmarks(each, FAST) for each in tiles]) == []


def test_no_takes_have_no_pairs():
    assert match_takes([]) == []


def test_three_copies_among_many_takes_are_three_pairs():
    takes = [landmarks_of(make_notes(n)) for n in range(20)]
    takes += [landmarks_of(make_notes(3), noise=60 + n) for n in range(2)]
    pairs = match_takes(takes)
    found = sorted((pair.first, pair.second) for pair in pairs)
    assert found == [(3, 20), (3, 21), (20, 21)]
    matches = [pair.match for pair in pairs]
    assert matches == sorted(matches, reverse=True)


def test_equal_fingerprints_are_one_take_even_without_onsets():
    silence = compute_landmarks(np.zeros((1, *FAST.size), np.uint8), FAST)
    (pair,) = match_takes([silence] * 3, fingerprints=["a", "b", "a"])
    assert pair == (0, 2, 1.0, 0.0, 1.0, 0)
