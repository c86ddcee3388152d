from pathlib import Path

import numpy as np
import pytest
import soundfile

from cqt2img.auditing.confounds import CONFOUNDS, measure_confounds
from cqt2img.data.tile_arrays import TileArrays
from tests.conftest import RATE


@pytest.fixture
def arrays(small):
    """Two recordings with a level that rises from row to row, in other directions."""
    rise = np.linspace(0, 200, small.height)[:, None].astype(np.uint8)
    levels = [np.tile(rise, (1, small.width)), np.tile(rise[::-1], (1, small.width))]
    return TileArrays(small, levels, np.full(2, small.width))


def write_noise(path, dbfs, seconds=0.5, rate=RATE, subtype="FLOAT"):
    rng = np.random.default_rng(0)
    wave = 10 ** (dbfs / 20) * rng.standard_normal(round(seconds * rate))
    soundfile.write(path, wave, rate, subtype=subtype)
    return path


@pytest.fixture
def files(tmp_path):
    return [
        write_noise(tmp_path / "loud.wav", -40, 3),
        write_noise(tmp_path / "quiet.wav", -60, 3, subtype="PCM_24"),
    ]


def test_every_confound_has_one_row_per_recording(arrays, files):
    measured = measure_confounds(arrays, files, {}, ["Ode", "Elise"])
    assert set(measured) == set(CONFOUNDS)
    for values in measured.values():
        assert values.ndim == 2
        assert len(values) == 2


def test_the_noise_floor_is_in_decibels(arrays, files):
    """White noise has the same power in both bands of 3 kHz."""
    floor = measure_confounds(arrays, files, {})["noise floor"]
    assert np.ptp(floor, axis=1).max() < 1
    np.testing.assert_allclose(floor[0] - floor[1], 20, atol=1)


def test_tunings_of_plus_and_minus_50_cents_are_equal(arrays, files):
    qualities = {"tuning_cents": np.array([-50.0, 50.0])}
    tuning = measure_confounds(arrays, files, qualities)["tuning"]
    np.testing.assert_allclose(tuning[0], tuning[1], atol=1e-9)


def test_bandwidth_and_duration_are_in_octaves(arrays, files):
    qualities = {
        "bandwidth_hz": np.array([4000.0, 8000.0]),
        "seconds": np.array([30.0, 120.0]),
    }
    measured = measure_confounds(arrays, files, qualities)
    assert np.diff(measured["bandwidth"][:, 0]) == pytest.approx(1)
    assert np.diff(measured["duration"][:, 0]) == pytest.approx(2)


def test_the_mean_spectrum_does_not_depend_on_level(arrays, files, small):
    louder = [levels + np.uint8(50) for levels in arrays.arrays]
    shifted = TileArrays(small, louder, arrays.n_frames)
    plain, changed = (
        measure_confounds(each, files, {})["mean spectrum"]
        for each in (arrays, shifted)
    )
    np.testing.assert_allclose(plain, changed, atol=1e-3)
    assert np.diff(plain, axis=1)[0].max() < 0  # the lowest rows are the loudest
    assert np.diff(plain, axis=1)[1].min() > 0


def test_files_differ_in_encoding_and_suffix(arrays, files):
    same = measure_confounds(arrays, [files[0]] * 2, {})["file format"]
    np.testing.assert_array_equal(same, [[1], [1]])
    encodings = measure_confounds(arrays, files, {})["file format"]
    assert sorted(encodings.tolist()) == [[0, 1], [1, 0]]
    missing = [Path("a .mp3"), Path("b.FLAC")]
    suffixes = measure_confounds(arrays, missing, {})["file format"]
    assert sorted(suffixes.tolist()) == [[0, 1], [1, 0]]


@pytest.mark.parametrize("name", ["missing.wav", "text.wav", "short.wav"])
def test_what_cannot_be_measured_is_nan(arrays, files, tmp_path, name):
    (tmp_path / "text.wav").write_text("no audio")
    write_noise(tmp_path / "short.wav", -40, 0.05)
    measured = measure_confounds(arrays, [files[0], tmp_path / name], {})
    assert np.isfinite(measured["noise floor"][0]).all()
    assert np.isnan(measured["noise floor"][1]).all()
    assert np.isnan(measured["tuning"]).all()
    assert "piece" not in measured
