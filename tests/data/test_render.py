import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from cqt2img.data import render as rendering
from cqt2img.data.recordings import list_recordings
from cqt2img.data.render import render
from cqt2img.data.tile_folder import open_tiles
from cqt2img.errors import InputError
from cqt2img.tiles.extract import QUALITY
from cqt2img.tiles.png import read_tile
from cqt2img.tiles.spec import TileSpec
from tests.conftest import raises_with

SPEC = TileSpec(
    sample_rate=8000, f_min=55, n_bins=48, height=48, bins_per_octave=12, width=16
)
OTHER = TileSpec(
    sample_rate=8000, f_min=55, n_bins=48, height=48, bins_per_octave=12, width=8
)
FRAME_SECONDS = 0.064
ROOT = Path(__file__).parents[2]
RECORDING_COLUMNS = [
    "path",
    "label",
    "group",
    "status",
    "reason",
    "message",
    "seconds",
    *QUALITY,
    "n_tiles",
    "tiles",
]
TILE_COLUMNS = [
    "tile",
    "path",
    "label",
    "group",
    "index",
    "start_seconds",
    "valid_width",
]


def write_tone(path, seconds=2.2, midi=57):
    """Write a tone; 2.2 s are 35 frames: two tiles, and 3 frames that are left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(8000 * seconds)) / 8000
    hz = 440 * 2 ** ((midi - 69) / 12)
    tone = 0.3 * np.sin(2 * np.pi * hz * time)
    with open(path, "wb") as file:  # the suffix need not be that of the format
        soundfile.write(file, tone, 8000, format="WAV")
    return path


def contents(folder):
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


def tile_contents(folder):
    found = contents(folder)
    return {name: data for name, data in found.items() if name.endswith(".png")}


def write_times(folder):
    files = list(folder.rglob("*.png"))
    assert files
    return {file: (file.stat().st_mtime_ns, file.stat().st_ino) for file in files}


def assert_no_unfinished_files(folder):
    assert not [path for path in folder.rglob("*") if ".part" in path.name]


def assert_same(one, two):
    assert one.spec == two.spec
    for name in ("recordings", "tiles"):
        left = getattr(one, name)
        right = getattr(two, name)
        pd.testing.assert_frame_equal(left, right, check_dtype=False)


@pytest.fixture
def takes(tmp_path):
    """Four takes of two players, the last of them silent."""
    for n, name in enumerate(("007/Solo/a.wav", "007/Solo/b.wav", "Monk/c.wav")):
        write_tone(tmp_path / "takes" / name, 2.2 + n, 57 + n)
    soundfile.write(tmp_path / "takes/Monk/d.wav", np.zeros(8000), 8000)
    return tmp_path / "takes"


# the manifest


def test_the_manifest_has_a_row_per_recording(takes, tmp_path):
    table = render(takes, tmp_path / "out", SPEC).recordings
    assert list(table.columns) == RECORDING_COLUMNS
    names = [Path(path).name for path in table["path"]]
    assert names == ["a.wav", "b.wav", "c.wav", "d.wav"]
    assert table["label"].tolist() == ["007", "007", "Monk", "Monk"]
    own = [str(takes / "Monk/c.wav"), str(takes / "Monk/d.wav")]
    assert table["group"].tolist() == ["007/Solo", "007/Solo", *own]
    assert table["status"].tolist() == ["ok", "ok", "ok", "error"]
    assert table["reason"].tolist() == ["", "", "", "silent"]
    assert str(takes / "Monk/d.wav") in table["message"][3]
    assert table["n_tiles"].tolist() == [2, 3, 4, 0]
    n_frames = np.array([35, 51, 66])
    assert table["seconds"].tolist()[:3] == pytest.approx(n_frames * FRAME_SECONDS)
    assert np.isnan(table["seconds"][3])
    folders = ["tiles/007/Solo/a.wav", "tiles/007/Solo/b.wav", "tiles/Monk/c.wav"]
    assert table["tiles"].tolist() == [*folders, ""]


def test_the_manifest_has_a_row_per_tile(takes, tmp_path):
    table = render(takes, tmp_path / "out", SPEC).tiles
    assert list(table.columns) == TILE_COLUMNS
    assert len(table) == 9
    rows = table[table["path"] == str(takes / "007/Solo/b.wav")]
    files = [f"tiles/007/Solo/b.wav/{n:05d}.png" for n in range(3)]
    assert rows["tile"].tolist() == files
    starts = 16 * FRAME_SECONDS * np.arange(3)
    assert rows["start_seconds"].tolist() == pytest.approx(starts)
    assert rows["valid_width"].tolist() == [16, 16, 16]  # 3 more frames are too few
    assert set(rows["label"]) == {"007"}


def test_tiles_store_their_source_and_position(takes, tmp_path):
    tiles = render(takes, tmp_path / "out", SPEC)
    notes = {"a": 57, "b": 58, "c": 59}
    for row in tiles.tiles.itertuples():
        levels, header = read_tile(tiles.path / row.tile, SPEC)
        assert header["source"] == row.path
        assert header["start_seconds"] == row.start_seconds
        assert header["valid_width"] == row.valid_width
        assert header["spec_key"] == SPEC.key
        assert not levels[:, row.valid_width :].any()
        note = notes[Path(row.path).stem]
        assert levels[:, 1].argmax() == SPEC.row_of_note(note)


def test_an_opened_folder_equals_the_rendered_one(takes, tmp_path):
    tiles = render(takes, tmp_path / "out", SPEC)
    assert_same(open_tiles(tmp_path / "out"), tiles)
    assert_same(open_tiles(str(tmp_path / "out")), tiles)
    empty = render([takes / "Monk/d.wav"], tmp_path / "none", SPEC)
    assert list(empty.tiles.columns) == TILE_COLUMNS
    assert_same(open_tiles(tmp_path / "none"), empty)


def test_columns_of_the_table_are_kept_in_their_order(takes, tmp_path):
    columns = {
        "year": ["0050"],
        "path": [takes / "Monk/c.wav"],
        "label": ["M"],
        "album": ["X"],
    }
    tiles = render(pd.DataFrame(columns), tmp_path / "out", SPEC)
    assert list(tiles.recordings)[:5] == ["year", "path", "label", "album", "group"]
    for table in (
        tiles.recordings,
        open_tiles(tmp_path / "out").recordings,
        list_recordings(tiles).to_frame(),
    ):
        row = table[["label", "group", "album", "year"]].values.tolist()
        assert row == [["M", "M/X", "X", "0050"]]


def test_groups_are_taken_from_a_column(takes, tmp_path):
    frame = pd.DataFrame({"path": [takes / "Monk/c.wav"], "disc": ["Y"]})
    tiles = render(frame, tmp_path / "out", SPEC, group_by="disc")
    assert tiles.recordings["group"].tolist() == ["Y"]


def test_progress_gets_every_recording(takes, tmp_path):
    calls = []

    def progress(steps, n, title):
        calls.append((n, title))
        for step in steps:
            calls.append(step.info["status"])
            yield step

    render(takes, tmp_path / "out", SPEC, progress=progress)
    assert calls == [(4, "rendering"), "ok", "ok", "ok", "error"]


# bad recordings, processes and order


@pytest.mark.parametrize("bad_index", [0, 1, 2])
def test_a_bad_file_affects_one_row_with_any_number_of_processes(tmp_path, bad_index):
    paths = [write_tone(tmp_path / f"{n}.wav", 1.2, 57 + n) for n in range(2)]
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no audio")
    paths.insert(bad_index, bad)
    one = render(paths, tmp_path / "one", SPEC)
    two = render(paths, tmp_path / "two", SPEC, n_jobs=2)
    is_bad = one.recordings["status"] == "error"
    assert np.flatnonzero(is_bad).tolist() == [bad_index]
    assert one.recordings["reason"][bad_index] == "unsupported_or_corrupt"
    assert_same(one, two)
    assert contents(one.path) == contents(two.path)
    assert not (one.path / "tiles/bad.wav").exists()
    assert_no_unfinished_files(tmp_path)


def test_tiles_do_not_depend_on_processes_and_order(takes, tmp_path):
    paths = sorted(takes.rglob("*.wav"))
    expected = tile_contents(render(paths, tmp_path / "a", SPEC).path)
    assert len(expected) == 9
    parallel = render(paths, tmp_path / "b", SPEC, n_jobs=2)
    assert tile_contents(parallel.path) == expected
    backwards = render(paths[::-1], tmp_path / "c", SPEC)
    assert tile_contents(backwards.path) == expected


@pytest.mark.parametrize("n_jobs", [0, 1.5, None, True])
def test_n_jobs_must_be_an_integer_other_than_0(takes, tmp_path, n_jobs):
    with raises_with(InputError, "render: n_jobs", repr(n_jobs)):
        render(takes, tmp_path / "out", SPEC, n_jobs=n_jobs)


# resuming


def test_a_second_run_renders_nothing_again(takes, tmp_path, monkeypatch):
    tiles = render(takes, tmp_path / "out", SPEC)
    times = write_times(tiles.path)
    files = contents(tiles.path)
    monkeypatch.setattr(rendering, "write_tile", lambda *_: pytest.fail("wrote a tile"))
    assert_same(render(takes, tiles.path, SPEC), tiles)
    assert write_times(tiles.path) == times
    assert contents(tiles.path) == files


def test_changed_recordings_are_rendered_again(takes, tmp_path):
    tiles = render(takes, tmp_path / "out", SPEC)
    before = write_times(tiles.path)
    write_tone(takes / "007/Solo/b.wav", 1.1, 62)
    again = render(takes, tiles.path, SPEC)
    changed = tiles.path / "tiles/007/Solo/b.wav"
    names = [path.name for path in changed.glob("*.png")]
    assert names == ["00000.png"]  # the three earlier tiles are removed
    levels, _ = read_tile(changed / "00000.png")
    assert levels[:, 5].argmax() == SPEC.row_of_note(62)
    assert again.recordings["n_tiles"].tolist() == [2, 1, 4, 0]
    after = write_times(tiles.path)
    kept = [file for file in after if changed not in file.parents]
    assert len(kept) == 6
    assert all(after[file] == before[file] for file in kept)
    assert_no_unfinished_files(tiles.path)


def test_tiles_of_recordings_that_became_unreadable_are_removed(takes, tmp_path):
    tiles = render(takes, tmp_path / "out", SPEC)
    path = takes / "Monk/c.wav"
    path.write_bytes(path.read_bytes()[:9000])
    again = render(takes, tiles.path, SPEC)
    assert again.recordings["reason"].tolist() == ["", "", "truncated", "silent"]
    assert not (tiles.path / "tiles/Monk/c.wav").exists()
    path.unlink()
    again = render(tiles.recordings["path"].tolist(), tiles.path, SPEC)
    assert again.recordings["reason"].tolist() == ["", "", "vanished", "silent"]


def test_existing_recordings_are_not_dropped_from_the_manifest(takes, tmp_path):
    tiles = render(takes, tmp_path / "out", SPEC)
    before = (tiles.path / "recordings.csv").read_bytes()
    first, second, *rest = tiles.recordings["path"]
    with raises_with(InputError, "render: X", str(tiles.path), "3", repr(second)):
        render([first], tiles.path, SPEC)
    assert (tiles.path / "recordings.csv").read_bytes() == before
    Path(second).unlink()  # deleted recordings may be dropped
    assert len(render([first, *rest], tiles.path, SPEC).recordings) == 3


def test_concurrent_runs_accept_the_tiles_of_each_other(takes, tmp_path, monkeypatch):
    tiles = render(takes, tmp_path / "out", SPEC)
    read_finished = rendering._read_finished
    calls = []

    def read_late(target, stamp):
        """Find nothing at first, as if another run finished it in the meantime."""
        calls.append(target)
        return None if calls.count(target) == 1 else read_finished(target, stamp)

    monkeypatch.setattr(rendering, "_read_finished", read_late)
    monkeypatch.setattr(rendering, "_remove_folder", lambda *_: None)
    assert_same(render(takes, tiles.path, SPEC), tiles)


def test_lost_tiles_and_damaged_records_are_rendered_again(takes, tmp_path):
    tiles = render(takes, tmp_path / "out", SPEC)
    tile = tiles.path / tiles.tiles["tile"][1]
    data = tile.read_bytes()
    tile.unlink()
    render(takes, tiles.path, SPEC)
    assert tile.read_bytes() == data
    for text in ("{", "[]", '{"tiles": [{}]}'):
        (tile.parent / "recording.json").write_text(text)
        assert_same(render(takes, tiles.path, SPEC), tiles)


def test_arrays_are_identified_by_their_values(tmp_path):
    cqt = np.random.default_rng(0).random((48, 40))
    tiles = render([cqt], tmp_path / "out", SPEC)
    before = write_times(tiles.path)
    render([cqt.copy()], tiles.path, SPEC)
    assert write_times(tiles.path) == before
    again = render([cqt[:, :20], cqt], tiles.path, SPEC)
    assert again.recordings["n_tiles"].tolist() == [2, 3]
    assert tiles.recordings["path"].tolist() == ["array 0"]
    assert pd.isna(tiles.recordings["tuning_cents"][0])


def test_an_interrupted_run_is_resumed(takes, tmp_path, monkeypatch):
    write_tile = rendering.write_tile
    calls = []

    def interrupt(path, *args):
        calls.append(path)
        if len(calls) == 4:  # the second tile of the second recording
            path.write_bytes(b"half a tile")
            raise KeyboardInterrupt
        write_tile(path, *args)

    monkeypatch.setattr(rendering, "write_tile", interrupt)
    with pytest.raises(KeyboardInterrupt):
        render(takes, tmp_path / "out", SPEC)
    finished = list((tmp_path / "out/tiles/007/Solo").iterdir())
    assert [path.name for path in finished] == ["a.wav"]
    assert not (tmp_path / "out/recordings.csv").exists()
    assert_no_unfinished_files(tmp_path)
    before = write_times(tmp_path / "out")
    monkeypatch.undo()
    tiles = render(takes, tmp_path / "out", SPEC)
    assert tiles.recordings["n_tiles"].tolist() == [2, 3, 4, 0]
    after = write_times(tiles.path)
    assert {file: after[file] for file in before} == before
    uninterrupted = render(takes, tmp_path / "clean", SPEC)
    assert contents(tiles.path) == contents(uninterrupted.path)


# names of recordings


def test_recordings_with_the_same_name_have_separate_folders(tmp_path):
    names = ("a/x.wav", "a/x.flac", "b/x.wav")
    files = [write_tone(tmp_path / name, midi=57 + n) for n, name in enumerate(names)]
    notes = {str(file): 57 + n for n, file in enumerate(files)}
    for X in ([*files, files[0]], [tmp_path / "a", tmp_path / "b", files[2]]):
        tiles = render(X, tmp_path / f"out{len(X)}", SPEC)
        assert tiles.recordings["tiles"].nunique() == 4
        for row in tiles.recordings.itertuples():
            levels, _ = read_tile(tiles.path / row.tiles / "00000.png", SPEC)
            assert levels[:, 5].argmax() == SPEC.row_of_note(notes[row.path])


def test_a_folder_of_tiles_never_contains_another(tmp_path):
    outer = write_tone(tmp_path / "p/x.wav", midi=57)
    write_tone(tmp_path / "q/x.wav/y.wav", midi=58)
    for n, X in enumerate(([outer, tmp_path / "q"], [tmp_path / "q", outer])):
        tiles = render(X, tmp_path / f"out{n}", SPEC)
        assert tiles.recordings["status"].tolist() == ["ok", "ok"]
        for folder in tiles.recordings["tiles"]:
            assert len(list((tiles.path / folder).glob("*.png"))) == 2
        assert_same(render(X, tiles.path, SPEC), tiles)


@pytest.mark.parametrize(
    "name",
    [
        "Für Elise – ピアノ.wav",
        "a\nb\r\nc.wav",
        "a,\"b\" 'c'.wav",
        " lead and trail .wav",
        "-rf.wav",
        "#%?*[x].wav",
        os.fsdecode(b"caf\xe9\xff.wav"),
        "x" * 251 + ".wav",
        "é" * 125 + "x.wav",
    ],
)
def test_names_may_have_any_characters(tmp_path, name):
    path = write_tone(tmp_path / "takes" / "Monk" / name)
    tiles = render(tmp_path / "takes", tmp_path / "out", SPEC)
    assert tiles.recordings["status"].tolist() == ["ok"]
    assert tiles.recordings["path"].tolist() == [str(path)]
    opened = open_tiles(tmp_path / "out")
    assert_same(opened, tiles)
    _, header = read_tile(tiles.path / opened.tiles["tile"][0])
    assert header["source"] == str(path)
    (recording,) = list_recordings(tmp_path / "out")
    assert str(recording.tiles) == f"{tmp_path}/out/tiles/Monk/{name}"
    before = write_times(tiles.path)
    render(tmp_path / "takes", tiles.path, SPEC)
    assert write_times(tiles.path) == before


def test_the_longest_name_may_occur_twice(tmp_path):
    name = "é" * 125 + "x.wav"
    files = [write_tone(tmp_path / folder / name) for folder in "ab"]
    tiles = render(files, tmp_path / "out", SPEC)
    assert tiles.recordings["status"].tolist() == ["ok", "ok"]
    assert tiles.recordings["tiles"].nunique() == 2


def test_nothing_is_written_outside_the_folder(tmp_path):
    write_tone(tmp_path / "x.wav")
    folder = tmp_path / "a/b"
    folder.mkdir(parents=True)
    paths = ["../../x.wav", f"{tmp_path}/x.wav", "./../../a/../x.wav", "..", "/"]
    (folder / "list.csv").write_text("\n".join(["path", *paths]) + "\n")
    tiles = render(folder / "list.csv", tmp_path / "deep/out", SPEC)
    assert tiles.recordings["status"].tolist() == ["ok"] * 3 + ["error"] * 2
    assert {path.name for path in tmp_path.iterdir()} == {"x.wav", "a", "deep"}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    assert [path.name for path in folder.iterdir()] == ["list.csv"]
    names = {path.name for path in tiles.path.iterdir()}
    assert names == {"recordings.csv", "spec.json", "tiles", "tiles.csv"}
    inside = (tiles.path / "tiles").resolve()
    for tile in tiles.tiles["tile"]:
        assert inside in (tiles.path / tile).resolve().parents


# the folder


def test_tiles_of_another_spec_are_not_overwritten(takes, tmp_path):
    tiles = render(takes / "007", tmp_path / "out", SPEC)
    before = contents(tiles.path)
    parts = (OTHER.key, str(tiles.path), SPEC.key)
    with raises_with(InputError, "render: out", *parts):
        render(takes, tiles.path, OTHER)
    assert contents(tiles.path) == before


def test_other_files_and_folders_are_not_overwritten(takes, tmp_path):
    file = tmp_path / "out"
    file.write_text("mine")
    with raises_with(InputError, "render: out", "file", str(file)):
        render(takes, file, SPEC)
    assert file.read_text() == "mine"
    before = contents(takes)
    with raises_with(InputError, "render: out", str(takes)):
        render(takes, takes, SPEC)
    assert contents(takes) == before


def test_no_folder_is_made_if_there_are_no_recordings(tmp_path):
    (tmp_path / "takes").mkdir()
    with raises_with(InputError, "render: no recordings", str(tmp_path / "takes")):
        render(tmp_path / "takes", tmp_path / "out", SPEC)
    with raises_with(InputError, "render: no such file", str(tmp_path / "gone")):
        render(tmp_path / "gone", tmp_path / "out", SPEC)
    assert not (tmp_path / "out").exists()


# tile folders as input


def test_tile_folders_are_recordings(takes, tmp_path):
    tiles = render(takes, tmp_path / "out", SPEC)
    shutil.rmtree(takes)
    folders = tiles.recordings["tiles"]
    for X in (tiles, tiles.path, str(tiles.path), [tiles.path]):
        found = list_recordings(X)
        for name in ("path", "label", "group"):
            assert found.column(name) == tiles.recordings[name].tolist()
        expected = [tiles.path / folder if folder else None for folder in folders]
        assert [recording.tiles for recording in found] == expected
        assert found[3].error.reason == "silent"


def test_tile_folders_may_be_rendered_again(takes, tmp_path):
    tiles = render(takes, tmp_path / "out", SPEC)
    shutil.rmtree(takes)
    again = render(tiles, tmp_path / "again", SPEC)
    for name in ("status", "reason", "message", "n_tiles", "label", "group"):
        assert again.recordings[name].tolist() == tiles.recordings[name].tolist()
    assert again.tiles["tile"].tolist() == tiles.tiles["tile"].tolist()
    for tile in tiles.tiles["tile"]:
        before, _ = read_tile(tiles.path / tile)
        after, _ = read_tile(again.path / tile)
        np.testing.assert_array_equal(after, before)


# memory


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="needs /proc to measure memory"
)
def test_memory_does_not_grow_with_the_length_of_a_recording(tmp_path):
    peaks = []
    for minutes in (30, 60):  # their waves alone would take 151 and 303 MB
        path = tmp_path / f"{minutes}.flac"
        write_long_tone(path, minutes)
        command = [sys.executable, "-m", "tests.programs.measure_memory"]
        done = subprocess.run(
            [*command, str(path), str(tmp_path / str(minutes))],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        megabytes, _ = json.loads(done.stdout)
        peaks.append(megabytes)
    assert max(peaks) < 200
    assert peaks[1] - peaks[0] < 20


def write_long_tone(path, minutes):
    time = np.arange(15 * 60 * 22_050)
    quarter = 9000 * np.sin(time / np.linspace(3, 9, len(time)))
    with soundfile.SoundFile(path, "w", 22_050, 1) as file:
        for _ in range(minutes // 15):
            file.write(quarter.astype(np.int16))
