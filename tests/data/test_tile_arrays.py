import numpy as np
import pytest

from cqt2img.data.recordings import list_recordings
from cqt2img.data.tile_arrays import load_tile_arrays
from cqt2img.errors import InputError
from cqt2img.tiles.png import cut_tiles
from tests.conftest import make_cqt, raises_with
from tests.data.conftest import make_ramp


def test_arrays_contain_the_tiles_of_each_recording(small):
    cqts = [make_cqt(5, 20), make_cqt(6, 100), make_cqt(7, 64)]
    arrays, infos = load_tile_arrays(list_recordings(cqts), small)
    assert len(arrays) == 3
    for index, cqt in enumerate(cqts):
        np.testing.assert_array_equal(arrays.tiles(index), cut_tiles(cqt, small))
    assert [arrays.n_tiles(index) for index in range(3)] == [1, 3, 2]
    assert arrays.n_frames.tolist() == [20, 100, 64]
    assert [info.status for info in infos] == ["ok"] * 3


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("bad_index", [0, 1, 2])
def test_a_bad_recording_does_not_affect_others(small, bad_index, n_jobs):
    cqts = [make_cqt(5), make_cqt(6)]
    cqts.insert(bad_index, np.full((60, 40), np.nan))
    arrays, infos = load_tile_arrays(list_recordings(cqts), small, n_jobs)
    assert infos[bad_index].reason == "non_finite"
    good = [index for index in range(3) if index != bad_index]
    assert [index for index in range(3) if infos[index].is_ok] == good
    assert len(arrays) == 2
    for index, source_index in enumerate(good):
        expected = cut_tiles(cqts[source_index], small)
        np.testing.assert_array_equal(arrays.tiles(index), expected)


def test_arrays_may_be_empty(small):
    recordings = list_recordings([np.zeros((60, 40))])
    arrays, infos = load_tile_arrays(recordings, small)
    assert len(arrays) == 0
    assert infos[0].reason == "silent"


def test_progress_is_called_with_the_number_of_recordings(small):
    calls = []

    def progress(steps, n, title):
        calls.append((n, title))
        return steps

    recordings = list_recordings([make_cqt(5), make_cqt(6)])
    load_tile_arrays(recordings, small, progress=progress)
    assert calls == [(2, "tiles")]


def test_n_jobs_must_not_be_0(small):
    with raises_with(InputError, "n_jobs", "0"):
        load_tile_arrays(list_recordings([make_cqt(5)]), small, n_jobs=0)


@pytest.mark.parametrize(
    ("start", "first"), [(-9, 0), (0, 0), (17, 17), (64, 64), (65, 64), (10_000, 64)]
)
def test_crops_stay_within_the_recording(tile_arrays, start, first):
    # of 100 frames 4 are less than min_fill: the last full tile starts at frame 64
    crop = tile_arrays.crop(3, start)
    expected = tile_arrays.arrays[3][:, first : first + 32]
    np.testing.assert_array_equal(crop, expected)


@pytest.mark.parametrize("start", [-5, 0, 5])
def test_the_crop_of_a_short_recording_is_its_tile(tile_arrays, start):
    crop = tile_arrays.crop(0, start)
    np.testing.assert_array_equal(crop, tile_arrays.tiles(0)[0])


def test_crops_do_not_use_frames_after_the_last_tile(small):
    # of 70 frames the last 6 are less than min_fill, and are left out
    arrays, _ = load_tile_arrays(list_recordings([make_ramp(70)]), small)
    assert arrays.arrays[0].shape == (64, 64)
    assert arrays.crop(0, 60).shape == small.size


def test_selected_recordings_share_their_arrays(tile_arrays):
    part = tile_arrays.select(np.array([4, 0]))
    assert part.n_frames.tolist() == [300, 20]
    assert part.arrays[0] is tile_arrays.arrays[4]


@pytest.mark.parametrize("limit", [0, 64 * 32 * 4, 2**31])
def test_arrays_beyond_the_limit_are_mapped_from_a_file(small, monkeypatch, limit):
    monkeypatch.setattr("cqt2img.data.tile_arrays._IN_MEMORY", limit)
    cqts = [make_cqt(n, n_frames) for n, n_frames in enumerate((20, 100, 33, 64))]
    arrays, _ = load_tile_arrays(list_recordings(cqts), small)
    is_mapped = {isinstance(array, np.memmap) for array in arrays.arrays}
    assert is_mapped == {limit < 2**31}
    for index, cqt in enumerate(cqts):
        np.testing.assert_array_equal(arrays.tiles(index), cut_tiles(cqt, small))
    if limit == 0:
        with pytest.raises(ValueError, match="read-only"):
            arrays.arrays[0][:] = 0
