import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cqt2img.errors import AudioError, InputError
from cqt2img.tiles.extract import QUALITY, make_tiles, raise_on_failures, try_extract
from cqt2img.tiles.png import cut_tiles, write_tile
from cqt2img.tiles.spec import TileSpec

SPEC = TileSpec(
    sample_rate=8000, f_min=55, n_bins=48, height=48, bins_per_octave=12, width=16
)


def tone(seconds=1.2, hz=440.0):
    return (
        0.3 * np.sin(2 * np.pi * hz * np.arange(round(8000 * seconds)) / 8000)
    ).astype(np.float32)


def refuse(kind, message, *args):
    with pytest.raises(kind) as caught:
        make_tiles(*args)
    assert str(caught.value) == message
    _, info = try_extract(*args)
    assert info["status"] == "error"
    assert info["message"] == message
    assert info["reason"] == (
        caught.value.reason if kind is AudioError else "wrong_input"
    )
    return info["reason"]


def test_a_file(tmp_path):
    path = tmp_path / "x.wav"
    soundfile.write(path, tone(), 8000)
    tiles, info = make_tiles(path, SPEC)
    assert tiles.shape == (1, 48, 16)
    assert tiles[0, :, 8].argmax() == SPEC.row_of_note(69)
    assert list(info) == ["seconds", "n_frames", *QUALITY]
    assert None not in info.values()
    assert info["seconds"] == pytest.approx(19 * 0.064)
    assert info["n_frames"] == 19
    assert info["tuning_cents"] == pytest.approx(0, abs=2)
    assert info["bandwidth_hz"] == pytest.approx(440, abs=30)
    attempted = try_extract(path, SPEC)[1]
    mark = attempted.pop("fingerprint")
    assert attempted == {"status": "ok", "reason": "", "message": "", **info}
    copy = tmp_path / "copy.wav"
    copy.write_bytes(path.read_bytes())
    assert try_extract(copy, SPEC)[1]["fingerprint"] == mark
    soundfile.write(path, 0.5 * tone()[::-1] ** 3, 8000)
    assert try_extract(path, SPEC)[1]["fingerprint"] != mark


@pytest.mark.parametrize("tuning", ["remove", "keep"])
def test_tuning_is_measured_and_removed_if_the_spec_says_so(tmp_path, tuning):
    spec = TileSpec(tuning=tuning, width=64)
    path = tmp_path / "x.wav"
    sound = np.concatenate([tone(0.5, hz * 2 ** (35 / 1200)) for hz in (220, 330, 440)])
    soundfile.write(path, sound, 8000)
    tiles, info = make_tiles(path, spec)
    assert info["tuning_cents"] == pytest.approx(35, abs=8)
    assert info["tuning_cents"] == round(info["tuning_cents"], 1)
    row = spec.row_of_note(57)
    assert tiles[0, :, 10].argmax() == (row if tuning == "remove" else row - 1)


def test_an_array_and_a_npy_file(tmp_path):
    cqt = np.random.default_rng(0).random((48, 37))
    np.save(tmp_path / "x.NPY.npy", cqt)
    (tmp_path / "x.NPY.npy").rename(tmp_path / "x.NPY")
    for item in (cqt, tmp_path / "x.NPY"):
        tiles, info = make_tiles(item, SPEC)
        assert np.array_equal(tiles, cut_tiles(cqt, SPEC))
        assert info == {
            "seconds": pytest.approx(37 * 0.064),
            "n_frames": 37,
            **dict.fromkeys(QUALITY),
        }


def test_tiles_that_were_rendered(tmp_path):
    tiles = np.random.default_rng(0).integers(0, 256, (11, 48, 16), dtype=np.uint8)
    for n, tile in enumerate(tiles):
        width = 16 if n < 10 else 5
        chunks = {
            "valid_width": width,
            "tuning_cents": 3.1,
            "start_seconds": n * 1.024,
            "source": "x.wav",
        }
        write_tile(tmp_path / f"{n:05d}.png", tile, SPEC, chunks)
    rows = [{"file": f"{n:05d}.png", "start_seconds": n * 1.024} for n in range(11)]
    (tmp_path / "recording.json").write_text(json.dumps({"tiles": rows}))
    for item in (Path("gone.wav"), np.zeros(3)):
        again, info = make_tiles(item, SPEC, str(tmp_path))
        assert np.array_equal(again, tiles)
        measured = {**dict.fromkeys(QUALITY), "tuning_cents": 3.1}
        assert info == {
            "seconds": pytest.approx(165 * 0.064),
            "n_frames": 165,
            **measured,
        }


@pytest.mark.parametrize("change", ["delete", "add", "swap", "foreign"])
def test_tiles_that_somebody_changed(tmp_path, change):
    rows = [{"file": f"{n:05d}.png", "start_seconds": n * 1.024} for n in range(3)]
    (tmp_path / "recording.json").write_text(json.dumps({"tiles": rows}))

    def write(n, source="x.wav", name=None):
        chunks = {
            "valid_width": 16,
            "tuning_cents": 0,
            "start_seconds": n * 1.024,
            "source": source,
        }
        write_tile(
            tmp_path / f"{n if name is None else name:05d}.png",
            np.ones((48, 16), np.uint8),
            SPEC,
            chunks,
        )

    for n in range(3):
        write(n)
    make_tiles(Path("x.wav"), SPEC, str(tmp_path))
    if change == "delete":
        (tmp_path / "00001.png").unlink()
    elif change == "add":
        write(3)
    elif change == "swap":
        write(2, name=1)
    else:
        write(1, source="y.wav")
    message = (
        f"make_tiles: folder must hold the tiles that were rendered, got {str(tmp_path)!r}, changed since. "
        "Render it again."
    )
    assert refuse(AudioError, message, Path("x.wav"), SPEC, str(tmp_path)) == "vanished"


def test_what_failed_before_fails_again():
    before = AudioError("silent", "It is silent.")
    assert refuse(AudioError, "It is silent.", before, SPEC) == "silent"
    assert refuse(AudioError, "It is silent.", before, SPEC, "folder") == "silent"


def test_a_recording_that_cannot_be_read(tmp_path):
    path = tmp_path / "x.wav"
    soundfile.write(path, 0 * tone(), 8000)
    message = (
        f"{str(path)!r} is silent, below -80 dBFS. "
        "Check the recording, or export one of its channels."
    )
    assert refuse(AudioError, message, path, SPEC) == "silent"
    assert try_extract(path, SPEC)[0] is None


def test_a_cqt_that_does_not_fit(tmp_path):
    message = "to_db: cqt must have 48 rows, got shape (60, 431). Compute it with the same spec."
    assert refuse(InputError, message, np.ones((60, 431)), SPEC) == "wrong_input"
    for shape in ((), (48,)):
        message = f"to_db: cqt must have 48 rows, got shape {shape}. Compute it with the same spec."
        assert refuse(InputError, message, np.ones(shape), SPEC) == "wrong_input"


def test_npy_files_that_are_none(tmp_path):
    path = tmp_path / "x.npy"
    message = f"make_tiles: item must exist, got {str(path)!r}. Check the path."
    assert refuse(AudioError, message, path, SPEC) == "vanished"
    np.save(path, np.array([{}]), allow_pickle=True)
    fault = "Object arrays cannot be loaded when allow_pickle=False"
    message = f"make_tiles: item must be a CQT saved by numpy.save, got {str(path)!r}: {fault}. Save it anew."
    assert refuse(AudioError, message, path, SPEC) == "unsupported_or_corrupt"
    np.save(path, np.ones((48, 20)))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(AudioError) as caught:
        make_tiles(path, SPEC)
    assert caught.value.reason == "unsupported_or_corrupt"
    with open(path, "wb") as file:
        np.savez(file, a=np.ones((48, 20)))
    fault = "it is an archive of arrays"
    message = f"make_tiles: item must be a CQT saved by numpy.save, got {str(path)!r}: {fault}. Save it anew."
    assert refuse(AudioError, message, path, SPEC) == "unsupported_or_corrupt"


def test_folders_that_hold_no_such_tiles(tmp_path):
    message = (
        f"make_tiles: folder must hold the tiles that were rendered, got {str(tmp_path)!r}, changed since. "
        "Render it again."
    )
    assert refuse(AudioError, message, Path("x.wav"), SPEC, str(tmp_path)) == "vanished"
    other = TileSpec()
    path = tmp_path / "00000.png"
    (tmp_path / "recording.json").write_text(
        '{"tiles": [{"file": "00000.png", "start_seconds": 0}]}'
    )
    write_tile(
        path,
        np.zeros(other.size, np.uint8),
        other,
        {"valid_width": 256, "tuning_cents": 0},
    )
    message = (
        f"read_tile: path must be a tile of spec {SPEC.key}, got {str(path)!r} of spec {other.key}. "
        "Render the recording again with this spec."
    )
    assert (
        refuse(InputError, message, Path("x.wav"), SPEC, str(tmp_path)) == "wrong_input"
    )


def test_refuse_bad():
    good = {"status": "ok", "reason": "", "message": ""}
    silent = {"status": "error", "reason": "silent", "message": "It is silent."}
    other = {"status": "error", "reason": "vanished", "message": "It is gone."}
    raise_on_failures("fit", ["a", "b"], [good, good], "Go on.")
    with pytest.raises(AudioError) as caught:
        raise_on_failures("fit", ["a", "b"], [good, silent], "Mend it.")
    message = "fit: X must hold readable recordings, got one that cannot be read: 'b' (It is silent.) Mend it."
    assert (caught.value.reason, str(caught.value)) == ("silent", message)
    with pytest.raises(AudioError) as caught:
        raise_on_failures("fit", ["a", "b", "c"], [other, good, silent], "Mend them.")
    got = "got 2 of 3 that cannot be read, first 'a' (It is gone.)"
    assert (
        str(caught.value) == f"fit: X must hold readable recordings, {got} Mend them."
    )
