import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cqt2img.audio.effects import EFFECTS
from cqt2img.auditing.duplicates import COLUMNS, find_duplicates
from cqt2img.data.synthetic import (
    MELODIES,
    PLAYERS,
    SAMPLE_RATE,
    make_album,
    perform,
    play,
    record,
)
from tests.auditing.notes import FAST


@pytest.fixture
def takes(tmp_path):
    """Three performances of one melody by one player, and two copies of the first."""
    rng = np.random.default_rng(1)
    album = make_album("test")
    waves = {}
    for n in range(3):
        notes = perform(MELODIES[3], PLAYERS[1], rng)
        waves[f"take {n}"] = record(play(notes, album), album, rng)
    effects = ("mp3, trimmed, gain", "speed, trimmed, room, noise")
    for n, name in enumerate(effects):
        waves[f"copy {n}"] = EFFECTS[name](waves["take 0"], SAMPLE_RATE, rng)
    for name, wave in waves.items():
        scaled = wave / max(1, np.abs(wave).max())
        soundfile.write(tmp_path / f"{name}.flac", scaled, SAMPLE_RATE)
    return tmp_path


def test_copies_are_found_and_bad_files_are_logged(takes, caplog):
    (takes / "broken.flac").write_bytes(b"fLaC and no more")
    with caplog.at_level(logging.WARNING):
        found = find_duplicates(takes, spec="fast")
    pairs = set()
    for first, second in zip(found["path"], found["other_path"], strict=True):
        pairs.add(frozenset([Path(first).stem, Path(second).stem]))
    copies = [("take 0", "copy 0"), ("take 0", "copy 1"), ("copy 0", "copy 1")]
    assert pairs == set(map(frozenset, copies))
    assert found["match"].is_monotonic_decreasing
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("find_duplicates")
    assert "broken.flac" in message


def test_equal_arrays_are_duplicates():
    held = np.full((FAST.n_bins, 300), 1e-6, np.float32)
    held[40] = 1
    other = np.roll(held, 12, axis=0)
    found = find_duplicates([held, other, held.copy()], spec=FAST)
    assert tuple(found.columns) == COLUMNS
    assert found.to_numpy().tolist() == [["array 0", "array 2", 1.0, 0.0, 1.0, 0]]


def test_no_duplicates_are_an_empty_table():
    rng = np.random.default_rng(0)
    found = find_duplicates(list(rng.random((2, FAST.n_bins, 300))), spec=FAST)
    assert tuple(found.columns) == COLUMNS
    assert len(found) == 0
