import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np

from cqt2img.data.extraction import (
    extract_recording,
    extract_recordings,
    without_columns,
)
from cqt2img.data.recordings import list_recordings
from cqt2img.errors import AudioError
from cqt2img.tiles.png import cut_tiles
from tests.conftest import make_cqt


def test_tiles_are_extracted_in_order(small):
    cqts = [make_cqt(5, 40), make_cqt(9, 100)]
    results = extract_recordings(list_recordings(cqts), small)
    for cqt, (tiles, info) in zip(cqts, results, strict=True):
        np.testing.assert_array_equal(tiles, cut_tiles(cqt, small))
        assert info.n_frames == cqt.shape[1]


def test_known_errors_are_reported_again(small):
    error = AudioError("silent", "It is silent.")
    (recording,) = list_recordings(["gone.wav"])
    # as listed in a tile folder, and as returned for a worker process that died
    for failed in (replace(recording, error=error), error):
        tiles, info = extract_recording(failed, small)
        assert tiles is None
        assert (info.status, info.reason) == ("error", "silent")
        assert info.message == "It is silent."


def test_a_missing_file_is_reported(small, tmp_path):
    (recording,) = list_recordings([tmp_path / "gone.wav"])
    tiles, info = extract_recording(recording, small)
    assert tiles is None
    assert info.reason == "vanished"
    assert str(tmp_path / "gone.wav") in info.message


def test_blocks_may_be_consumed_without_joining_them(small):
    (recording,) = list_recordings([make_cqt(5, 100)])

    def count(blocks, info):
        return sum(len(block) for block in blocks), info.n_frames

    counted, info = extract_recording(recording, small, count)
    tiles, expected = extract_recording(recording, small)
    assert counted == (len(tiles), 100)
    assert info == expected


def test_jobs_do_not_carry_the_columns_of_a_table():
    (recording,) = list_recordings(["a.wav"])
    large = replace(recording, columns={"notes": "x" * 10_000})
    (job,) = without_columns([large])
    assert len(pickle.dumps(job)) < 500
    assert job.source == Path("a.wav")
