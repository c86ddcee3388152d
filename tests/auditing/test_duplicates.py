"""The same take under two names: drawn from notes, so that what must be found is known."""

import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cqt2img.audio import effects as disturb
from cqt2img.auditing.duplicates import find_duplicates, landmarks, match_takes
from cqt2img.data.synthetic import (
    MELODIES,
    PLAYERS,
    SAMPLE_RATE,
    make_album,
    perform,
    play,
    record,
)
from cqt2img.tiles.spec import TileSpec

SPEC = TileSpec.preset("fast")
FINE = TileSpec(
    hop_length=384, bins_per_octave=36, n_bins=252, height=252, tuning="keep"
)
Notes = (
    np.ndarray
)  # rows of onset and duration in s, semitone above f_min, loudness in dB


def improvise(seed: int, seconds: float = 30) -> Notes:
    """Give random notes, five a second."""
    rng = np.random.default_rng(seed)
    n = round(5 * seconds)
    scale = np.array([0, 2, 4, 5, 7, 9, 11])
    pitch = 24 + rng.integers(-3, 4) + 12 * rng.integers(0, 3, n) + rng.choice(scale, n)
    return np.stack(
        [
            np.sort(rng.uniform(0.2, seconds, n)),
            rng.uniform(0.2, 1, n),
            pitch,
            rng.uniform(-14, 0, n),
        ],
        1,
    )


def draw(
    notes: Notes, spec: TileSpec = SPEC, noise: int = 0, gain_db: float = 0
) -> np.ndarray:
    """Give the tiles of notes that decay by 20 dB a second."""
    each, step = spec.bins_per_octave // 12, spec.frame_seconds
    n_tiles = int(np.ceil((notes[:, 0] + notes[:, 1]).max() / spec.tile_seconds))
    cqt = (
        np.random.default_rng(1)
        .integers(0, noise + 1, (spec.n_bins, n_tiles * spec.width))
        .astype(float)
    )
    for onset, held, pitch, level in notes:
        columns = np.arange(int(np.ceil(onset / step)), int((onset + held) / step))
        levels = 200 + (level + gain_db - 20 * (columns * step - onset)) / spec.step_db
        row = cqt[round(pitch * each)]
        row[columns] = np.maximum(row[columns], levels)
    tiles = (
        cqt[::-1]
        .reshape(spec.n_bins, n_tiles, spec.width)
        .swapaxes(0, 1)
        .clip(0, 255)
        .astype(np.uint8)
    )
    return np.pad(tiles, ((0, 0), (spec.height - spec.n_bins, 0), (0, 0)))


def test_onsets_are_found_where_they_are():
    notes = np.array([[1.0, 1, 36, 0], [2.5, 1, 40, -6], [4.02, 1, 43, -3]])
    for spec in (SPEC, FINE):
        found = landmarks(draw(notes, spec), spec).onsets
        np.testing.assert_allclose(
            found[:, 0], notes[:, 0], atol=0.6 * SPEC.frame_seconds
        )
        np.testing.assert_array_equal(found[:, 1], notes[:, 2])


def test_a_sketch_is_small_and_holds_the_loud_notes():
    marks = landmarks(draw(np.array([[1.0, 2, 36, 0], [4.0, 1, 40, -40]])), SPEC)
    loud, n = np.nonzero(marks.sketch)
    assert set(loud) == {36 - 12}, "the quiet note is left out"
    assert n.min() * marks.frame_seconds == pytest.approx(1.0, abs=0.15)
    assert (
        marks.sketch.nbytes + marks.onsets.nbytes
        < 1000 * marks.sketch.shape[1] * marks.frame_seconds
    )


@pytest.mark.parametrize("spec", [SPEC, FINE], ids=["fast", "fine"])
@pytest.mark.parametrize("shift", [-1, 0, 1])
@pytest.mark.parametrize("speed", [0.97, 1.0, 1.03])
def test_a_take_is_known_again_and_how_it_was_changed(spec, shift, speed):
    notes = improvise(1)
    changed = notes[30:-20] * [1 / speed, 1 / speed, 1, 1] + [0, 0, shift, 0]
    changed[:, 0] -= 4.0
    takes = [landmarks(draw(improvise(n), spec), spec) for n in (2, 3)]
    takes[1:1] = [
        landmarks(draw(notes, spec), spec),
        landmarks(draw(changed, spec, noise=30, gain_db=-5), spec),
    ]
    found = match_takes(takes)
    assert found[["first", "second", "semitones"]].to_numpy().tolist() == [
        [1, 2, shift]
    ]
    pair = found.iloc[0]
    assert pair["match"] > 0.8
    assert pair["speed"] == pytest.approx(speed, abs=2e-3)
    assert pair["offset_seconds"] == pytest.approx(-4, abs=0.1)


def test_the_order_of_two_takes_only_turns_the_answer():
    notes = improvise(1)
    slow = landmarks(draw(notes * [1.03, 1.03, 1, 1] + [2, 0, 1, 0]), SPEC)
    usual = landmarks(draw(notes), SPEC)
    there, back = (match_takes(pair).iloc[0] for pair in ([usual, slow], [slow, usual]))
    assert there["speed"] == pytest.approx(1 / 1.03, abs=2e-3)
    assert back["speed"] == pytest.approx(1.03, abs=2e-3)
    assert (there["semitones"], back["semitones"]) == (1, -1)
    assert there["offset_seconds"] == pytest.approx(2, abs=0.1)
    assert back["offset_seconds"] == pytest.approx(-2 / 1.03, abs=0.1)


def test_an_excerpt_is_found_in_its_take():
    notes = improvise(1)
    excerpt = notes[60:110] - [notes[60, 0] - 0.3, 0, 0, 0]
    found = match_takes([landmarks(draw(notes), SPEC), landmarks(draw(excerpt), SPEC)])
    assert len(found) == 1


def test_the_same_notes_at_other_times_are_another_performance():
    notes = improvise(1)
    again = notes.copy()
    again[:, 0] += 0.12 * np.random.default_rng(5).standard_normal(len(notes))
    assert match_takes(
        [landmarks(draw(played), SPEC) for played in (notes, again)]
    ).empty


def test_onsets_alone_do_not_make_a_take():
    notes = improvise(1)
    plucked = np.column_stack(
        [notes[:, 0], np.full(len(notes), 0.1), notes[:, 2], notes[::-1, 3]]
    )
    pair = [landmarks(draw(played), SPEC) for played in (notes, plucked)]
    assert match_takes(pair).empty
    assert len(match_takes(pair, least=0.3)) == 1


def test_a_short_line_sung_twice_is_two_takes_and_a_long_one_is_not():
    def twice(seconds: float) -> list:
        notes = improvise(1, seconds)
        rng = np.random.default_rng(2)
        again = notes + rng.normal(0, 1, notes.shape) * [0.01, 0.08, 0, 4]
        return [landmarks(draw(take), SPEC) for take in (notes, again)]

    assert match_takes(twice(3)).empty
    assert len(match_takes(twice(20))) == 1


def test_silence_a_held_tone_and_a_pulse_match_nothing():
    silence = np.zeros((4, *SPEC.size), np.uint8)
    held = draw(np.array([[0.5, 20, 40, 0]]))
    pulse = draw(np.array([[0.5 * n, 0.3, 40, 0] for n in range(1, 40)]))
    takes = [
        landmarks(tiles, SPEC)
        for tiles in (silence, silence, held, held + 1, pulse, np.roll(pulse, 1, 2))
    ]
    assert match_takes(takes).empty
    assert match_takes([]).empty
    assert list(match_takes([]).columns) == [
        "first",
        "second",
        "match",
        "offset_seconds",
        "speed",
        "semitones",
    ]


def test_three_copies_are_three_pairs_among_many_takes():
    takes = [landmarks(draw(improvise(n)), SPEC) for n in range(20)]
    takes += [landmarks(draw(improvise(3), noise=60 + n), SPEC) for n in range(2)]
    found = match_takes(takes)
    assert sorted(zip(found["first"], found["second"], strict=True)) == [
        (3, 20),
        (3, 21),
        (20, 21),
    ]


def takes_on_disk(folder: Path) -> dict[str, np.ndarray]:
    """Write three performances of one melody by one player, and two disguises of the first."""
    player, melody, rng = PLAYERS[1], MELODIES[3], np.random.default_rng(1)
    album = make_album("test")
    waves = {
        f"take {n}": record(play(perform(melody, player, rng), album), album, rng)
        for n in range(3)
    }
    for n, name in enumerate(("mp3, trimmed, gain", "speed, trimmed, room, noise")):
        waves[f"copy {n}"] = disturb.EFFECTS[name](waves["take 0"], SAMPLE_RATE, rng)
    for name, wave in waves.items():
        soundfile.write(
            folder / f"{name}.flac", wave / max(1, np.abs(wave).max()), SAMPLE_RATE
        )
    return waves


def test_copies_are_found_in_a_folder_and_bad_files_are_named(tmp_path, caplog):
    takes_on_disk(tmp_path)
    (tmp_path / "broken.flac").write_bytes(b"fLaC and no more")
    with caplog.at_level(logging.WARNING):
        found = find_duplicates(tmp_path, spec="fast")
    pairs = {
        frozenset(Path(p).stem for p in pair)
        for pair in zip(found["path"], found["other path"], strict=True)
    }
    assert pairs == {
        frozenset(p)
        for p in (("take 0", "copy 0"), ("take 0", "copy 1"), ("copy 0", "copy 1"))
    }
    assert found["match"].is_monotonic_decreasing
    assert [r.getMessage().split(":")[0] for r in caplog.records] == ["find_duplicates"]
    assert "broken.flac" in caplog.text


def test_equal_pictures_match_though_nothing_happens_in_them():
    held = np.full((SPEC.n_bins, 300), 1e-6, np.float32)
    held[40] = 1
    other = held.copy()
    other[40] = 0
    other[52] = 1
    found = find_duplicates([held, other, held.copy()], spec=SPEC)
    assert found.to_numpy().tolist() == [["array 0", "array 2", 1.0, 0.0, 1.0, 0]]
