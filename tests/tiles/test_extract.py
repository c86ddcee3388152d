import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cqt2img.errors import AudioError, InputError
from cqt2img.tiles.extract import (
    QUALITY,
    RecordingInfo,
    make_tiles,
    raise_on_failures,
    try_extract,
)
from cqt2img.tiles.png import cut_tiles, write_tile
from cqt2img.tiles.spec import TileSpec
from tests.conftest import raises_with

SPEC = TileSpec(
    sample_rate=8000, f_min=55, n_bins=48, height=48, bins_per_octave=12, width=16
)
FRAME_SECONDS = 0.064
MISSING = Path("gone.wav")


def tone(seconds=1.2, hz=440.0):
    time = np.arange(round(8000 * seconds)) / 8000
    return (0.3 * np.sin(2 * np.pi * hz * time)).astype(np.float32)


def write_tiles(folder, sources, names=None):
    """Write a tile of one level for each source, and the record of three tiles."""
    rows = [{"file": f"{n:05d}.png", "start_seconds": n * 1.024} for n in range(3)]
    (folder / "recording.json").write_text(json.dumps({"tiles": rows}))
    for n, source in enumerate(sources):
        header = {
            "valid_width": 16,
            "tuning_cents": 0,
            "start_seconds": n * 1.024,
            "source": source,
        }
        name = names[n] if names else f"{n:05d}.png"
        write_tile(folder / name, np.ones((48, 16), np.uint8), SPEC, header)


def check_error(kind, reason, parts, source, folder=None):
    """Check that `make_tiles` raises an error which `try_extract` reports."""
    with raises_with(kind, *parts):
        make_tiles(source, SPEC, folder)
    tiles, info = try_extract(source, SPEC, folder)
    assert tiles is None
    assert (info.status, info.reason, info.is_ok) == ("error", reason, False)
    assert all(part in info.message for part in map(str, parts))


def test_a_file_becomes_tiles_and_measurements(tmp_path):
    path = tmp_path / "x.wav"
    soundfile.write(path, tone(), 8000)
    tiles, info = make_tiles(path, SPEC)
    assert tiles.shape == (1, 48, 16)
    assert tiles[0, :, 8].argmax() == SPEC.row_of_note(69)
    assert info.seconds == pytest.approx(19 * FRAME_SECONDS)
    assert info.n_frames == 19
    assert info.tuning_cents == pytest.approx(0, abs=2)
    assert info.bandwidth_hz == pytest.approx(440, abs=30)
    row = info.to_dict()
    assert list(row)[:3] == ["status", "reason", "message"]
    assert set(QUALITY) < set(row)
    assert None not in row.values()
    assert try_extract(path, SPEC)[1].to_dict() == {
        **row,
        "fingerprint": try_extract(path, SPEC)[1].fingerprint,
    }


def test_the_fingerprint_depends_on_the_sound_only(tmp_path):
    path = tmp_path / "x.wav"
    soundfile.write(path, tone(), 8000)
    fingerprint = try_extract(path, SPEC)[1].fingerprint
    assert len(fingerprint) == 16
    copy = tmp_path / "copy.wav"
    copy.write_bytes(path.read_bytes())
    assert try_extract(copy, SPEC)[1].fingerprint == fingerprint
    soundfile.write(path, 0.5 * tone()[::-1] ** 3, 8000)
    assert try_extract(path, SPEC)[1].fingerprint != fingerprint


@pytest.mark.parametrize("tuning", ["remove", "keep"])
def test_tuning_is_measured_and_removed_if_the_spec_asks_for_it(tmp_path, tuning):
    spec = TileSpec(tuning=tuning, width=64)
    path = tmp_path / "x.wav"
    sharp = 2 ** (35 / 1200)
    sound = np.concatenate([tone(0.5, hz * sharp) for hz in (220, 330, 440)])
    soundfile.write(path, sound, 8000)
    tiles, info = make_tiles(path, spec)
    assert info.tuning_cents == pytest.approx(35, abs=8)
    assert info.tuning_cents == round(info.tuning_cents, 1)
    row = spec.row_of_note(57)
    assert tiles[0, :, 10].argmax() == (row if tuning == "remove" else row - 1)


def test_an_array_and_a_npy_file_become_tiles(tmp_path):
    cqt = np.random.default_rng(0).random((48, 37))
    np.save(tmp_path / "x.NPY.npy", cqt)
    (tmp_path / "x.NPY.npy").rename(tmp_path / "x.NPY")
    for source in (cqt, tmp_path / "x.NPY"):
        tiles, info = make_tiles(source, SPEC)
        assert np.array_equal(tiles, cut_tiles(cqt, SPEC))
        assert info == RecordingInfo(
            seconds=pytest.approx(37 * FRAME_SECONDS), n_frames=37
        )


def test_rendered_tiles_are_read_instead_of_the_source(tmp_path):
    tiles = np.random.default_rng(0).integers(0, 256, (11, 48, 16), dtype=np.uint8)
    rows = []
    for n, tile in enumerate(tiles):
        header = {
            "valid_width": 16 if n < 10 else 5,
            "tuning_cents": 3.1,
            "start_seconds": n * 1.024,
            "source": "x.wav",
        }
        write_tile(tmp_path / f"{n:05d}.png", tile, SPEC, header)
        rows.append({"file": f"{n:05d}.png", "start_seconds": n * 1.024})
    (tmp_path / "recording.json").write_text(json.dumps({"tiles": rows}))
    for source in (MISSING, np.zeros(3)):
        again, info = make_tiles(source, SPEC, tmp_path)
        assert np.array_equal(again, tiles)
        assert info == RecordingInfo(
            seconds=pytest.approx(165 * FRAME_SECONDS), n_frames=165, tuning_cents=3.1
        )


@pytest.mark.parametrize("change", ["delete", "add", "swap", "foreign", "record"])
def test_rendered_tiles_that_were_changed_are_an_error(tmp_path, change):
    write_tiles(tmp_path, ["x.wav"] * 3)
    assert len(make_tiles(MISSING, SPEC, tmp_path)[0]) == 3
    if change == "delete":
        (tmp_path / "00001.png").unlink()
    elif change == "add":
        write_tiles(tmp_path, ["x.wav"] * 4)
    elif change == "swap":
        names = ["00000.png", "00002.png", "00001.png"]
        write_tiles(tmp_path, ["x.wav"] * 3, names)
    elif change == "foreign":
        write_tiles(tmp_path, ["x.wav", "y.wav", "x.wav"])
    else:
        (tmp_path / "recording.json").write_text('{"tiles": [{}]}')
    parts = ("changed", str(tmp_path), "Render")
    check_error(AudioError, "vanished", parts, MISSING, tmp_path)


def test_a_folder_without_tiles_is_an_error(tmp_path):
    parts = ("changed", str(tmp_path), "Render")
    check_error(AudioError, "vanished", parts, MISSING, tmp_path)


def test_rendered_tiles_of_another_spec_are_an_error(tmp_path):
    other = TileSpec()
    record = {"tiles": [{"file": "00000.png", "start_seconds": 0}]}
    (tmp_path / "recording.json").write_text(json.dumps(record))
    header = {"valid_width": 256, "tuning_cents": 0}
    path = tmp_path / "00000.png"
    write_tile(path, np.zeros(other.size, np.uint8), other, header)
    parts = (SPEC.key, other.key, str(path))
    check_error(InputError, "wrong_input", parts, MISSING, tmp_path)


def test_a_silent_recording_is_an_error(tmp_path):
    path = tmp_path / "x.wav"
    soundfile.write(path, 0 * tone(), 8000)
    check_error(AudioError, "silent", (str(path),), path)


def test_a_cqt_of_another_shape_is_an_error():
    for shape in ((60, 431), (), (48,)):
        parts = ("48 rows", str(shape))
        check_error(InputError, "wrong_input", parts, np.ones(shape))


def test_npy_files_that_are_no_cqt_are_an_error(tmp_path):
    path = tmp_path / "x.npy"
    check_error(AudioError, "vanished", ("no such file", str(path)), path)
    reason = "unsupported_or_corrupt"
    np.save(path, np.array([{}]), allow_pickle=True)
    check_error(AudioError, reason, (str(path), "allow_pickle"), path)
    np.save(path, np.ones((48, 20)))
    path.write_bytes(path.read_bytes()[:-9])
    check_error(AudioError, reason, (str(path),), path)
    with open(path, "wb") as file:
        np.savez(file, a=np.ones((48, 20)))
    check_error(AudioError, reason, (str(path), "archive"), path)


def test_failures_raise_an_error_that_names_the_first():
    good = RecordingInfo()
    silent = RecordingInfo("error", "silent", "It is silent.")
    vanished = RecordingInfo("error", "vanished", "It is gone.")
    raise_on_failures("fit", ["a", "b"], [good, good], "Go on.")
    with pytest.raises(AudioError) as caught:
        raise_on_failures("fit", ["a", "b"], [good, silent], "Repair it.")
    assert caught.value.reason == "silent"
    for part in ("fit: ", "'b'", "It is silent.", "Repair it."):
        assert part in str(caught.value)
    parts = ("2 of 3", "'a'", "It is gone.")
    with raises_with(AudioError, *parts):
        raise_on_failures("fit", ["a", "b", "c"], [vanished, good, silent], "Repair.")
