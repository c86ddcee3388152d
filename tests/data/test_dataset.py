import numpy as np
import pytest

from cqt2img.data.dataset import list_train_validation
from cqt2img.data.recordings import list_recordings
from cqt2img.data.tile_arrays import load_tile_arrays
from cqt2img.errors import InputError
from cqt2img.tiles.png import cut_tiles
from tests.conftest import make_cqt, raises_with, ramp


def test_strips_hold_what_was_cut(small):
    cqts = [make_cqt(5, 20), make_cqt(6, 100), make_cqt(7, 64)]
    strips, infos = load_tile_arrays(list_recordings(cqts), small)
    assert len(strips) == 3
    for n, cqt in enumerate(cqts):
        np.testing.assert_array_equal(strips.tiles(n), cut_tiles(cqt, small))
    assert strips.n_frames.tolist() == [20, 100, 64]
    assert [info.status for info in infos] == ["ok"] * 3


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_bad_recording_costs_itself(small, place, n_jobs):
    cqts = [make_cqt(5), make_cqt(6)]
    cqts.insert(place, np.full((60, 40), np.nan))
    strips, infos = load_tile_arrays(list_recordings(cqts), small, n_jobs)
    assert len(strips) == 2
    assert [info.reason for info in infos] == [
        "non_finite" if n == place else "" for n in range(3)
    ]
    assert [info.status for info in infos] == [
        "error" if n == place else "ok" for n in range(3)
    ]
    good = [n for n in range(3) if n != place]
    for n, m in enumerate(good):
        np.testing.assert_array_equal(strips.tiles(n), cut_tiles(cqts[m], small))


def test_nothing_can_be_read(small):
    strips, infos = load_tile_arrays(list_recordings([np.zeros((60, 40))]), small)
    assert len(strips) == 0
    assert infos[0].reason == "silent"
    assert (
        infos[0].message
        == "to_db: cqt must hold sound, got silence. Leave the recording out."
    )


def test_progress_sees_every_recording(small):
    seen = []

    def progress(steps, n, title):
        seen.append((n, title))
        return steps

    load_tile_arrays(
        list_recordings([make_cqt(5), make_cqt(6)]), small, progress=progress
    )
    assert seen == [(2, "tiles")]


@pytest.mark.parametrize(
    ("start", "first"), [(-9, 0), (0, 0), (17, 17), (64, 64), (65, 64), (10_000, 64)]
)
def test_crop_stays_within_sound(strips, start, first):
    crop = strips.crop(
        3, start
    )  # 100 frames, of which 4 are less than min_fill: the last tile of sound starts at 64
    np.testing.assert_array_equal(crop, strips.arrays[3][:, first : first + 32])
    assert (
        crop[4:] > 0
    ).sum() >= 60 * 31  # the first column of the recording is the floor


@pytest.mark.parametrize("start", [-5, 0, 5])
def test_crop_of_a_short_recording_is_its_tile(strips, start):
    np.testing.assert_array_equal(strips.crop(0, start), strips.tiles(0)[0])


def test_crop_ignores_sound_behind_the_last_tile(small):
    # 70 frames: the last 6 are less than min_fill, and are left out
    strips, _ = load_tile_arrays(list_recordings([ramp(70)]), small)
    assert strips.arrays[0].shape == (64, 64)
    assert strips.crop(0, 60).shape == small.size


@pytest.mark.parametrize(
    ("limit", "n_in_memory"), [(0, 0), (64 * 32 * 4, 0), (2**31, 4)]
)
def test_strips_beyond_the_limit_are_mapped_from_a_file(
    small, monkeypatch, limit, n_in_memory
):
    monkeypatch.setattr("cqt2img.data.tile_arrays._IN_MEMORY", limit)
    cqts = [make_cqt(n, n_frames) for n, n_frames in enumerate((20, 100, 33, 64))]
    found, _ = load_tile_arrays(list_recordings(cqts), small)
    mapped = [isinstance(strip, np.memmap) for strip in found.arrays]
    assert mapped == [n >= n_in_memory for n in range(4)]
    for n, cqt in enumerate(cqts):
        np.testing.assert_array_equal(found.tiles(n), cut_tiles(cqt, small))
    assert found.n_frames.tolist() == [20, 100, 33, 64]
    if limit == 0:
        with pytest.raises(ValueError, match="read-only"):
            found.arrays[0][:] = 0


def test_validation_recordings_are_listed_after_those_for_training(small):
    cqts = [make_cqt(n) for n in range(6)]
    held_out = (cqts[4:], ["a", "b"])
    listed = list_train_validation(cqts[:4], list("baba"), None, None, held_out)
    assert listed.is_validation.tolist() == [False] * 4 + [True] * 2
    assert listed.classes.tolist() == ["a", "b"]
    alone = list_train_validation(cqts[:4], list("baba"), None, None)
    assert not alone.is_validation.any()


def test_a_single_class_is_an_error():
    with raises_with(InputError, "fit: y", "two classes", "only a"):
        list_train_validation([make_cqt(1), make_cqt(2)], ["a", "a"], None, None)
