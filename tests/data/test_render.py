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
from cqt2img.data.specs import as_spec, resolve_spec
from cqt2img.data.tile_folder import open_tiles
from cqt2img.errors import AudioError, InputError
from cqt2img.tiles.extract import QUALITY
from cqt2img.tiles.png import read_tile
from cqt2img.tiles.spec import TileSpec

SPEC = TileSpec(
    sample_rate=8000, f_min=55, n_bins=48, height=48, bins_per_octave=12, width=16
)
OTHER = TileSpec(
    sample_rate=8000, f_min=55, n_bins=48, height=48, bins_per_octave=12, width=8
)
RECORDING = [
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
TILE = ["tile", "path", "label", "group", "index", "start_seconds", "valid_width"]


def record(path, seconds=2.2, midi=57):
    """Write a tone; 2.2 s are 35 frames, which are two tiles, and 3 frames that are left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(round(8000 * seconds)) / 8000
    with open(path, "wb") as file:
        soundfile.write(
            file,
            0.3 * np.sin(2 * np.pi * 440 * 2 ** ((midi - 69) / 12) * t),
            8000,
            format="WAV",
        )
    return path


def contents(folder):
    files = {
        file.relative_to(folder).as_posix(): file
        for file in folder.rglob("*")
        if file.is_file()
    }
    return {name: file.read_bytes() for name, file in files.items()}


def times(folder):
    files = list(folder.rglob("*.png"))
    assert files
    return {file: (file.stat().st_mtime_ns, file.stat().st_ino) for file in files}


def no_parts(folder):
    assert not [path for path in folder.rglob("*") if ".part" in path.name]


def same(one, two):
    assert one.spec == two.spec
    for name in ("recordings", "tiles"):
        pd.testing.assert_frame_equal(
            getattr(one, name), getattr(two, name), check_dtype=False
        )


def refuse(message, call, *args):
    with pytest.raises(InputError) as caught:
        call(*args)
    assert str(caught.value) == message


@pytest.fixture
def takes(tmp_path):
    """Three takes of two players, one of them of no sound."""
    for n, name in enumerate(("007/Solo/a.wav", "007/Solo/b.wav", "Monk/c.wav")):
        record(tmp_path / "takes" / name, 2.2 + n, 57 + n)
    soundfile.write(tmp_path / "takes/Monk/d.wav", np.zeros(8000), 8000)
    return tmp_path / "takes"


def test_a_row_for_every_recording_and_every_tile(takes, tmp_path):
    made = render(takes, tmp_path / "out", SPEC)
    table = made.recordings
    assert list(table.columns) == RECORDING
    assert [Path(path).name for path in table["path"]] == [
        "a.wav",
        "b.wav",
        "c.wav",
        "d.wav",
    ]
    assert table["label"].tolist() == ["007", "007", "Monk", "Monk"]
    assert table["group"].tolist() == [
        "007/Solo",
        "007/Solo",
        str(takes / "Monk/c.wav"),
        str(takes / "Monk/d.wav"),
    ]
    assert table["status"].tolist() == ["ok", "ok", "ok", "error"]
    assert table["reason"].tolist() == ["", "", "", "silent"]
    assert "is silent" in table["message"][3]
    assert table["n_tiles"].tolist() == [2, 3, 4, 0]
    assert table["seconds"].tolist()[:3] == pytest.approx(
        [35 * 0.064, 51 * 0.064, 66 * 0.064]
    )
    assert np.isnan(table["seconds"][3])
    assert table["tiles"].tolist() == [
        "tiles/007/Solo/a.wav",
        "tiles/007/Solo/b.wav",
        "tiles/Monk/c.wav",
        "",
    ]
    assert list(made.tiles.columns) == TILE
    assert len(made.tiles) == 9
    first = made.tiles[made.tiles["path"] == str(takes / "007/Solo/b.wav")]
    assert first["tile"].tolist() == [
        f"tiles/007/Solo/b.wav/{n:05d}.png" for n in range(3)
    ]
    assert first["start_seconds"].tolist() == pytest.approx(
        [n * 16 * 0.064 for n in range(3)]
    )
    assert first["valid_width"].tolist() == [16, 16, 16]  # 3 frames more are too few
    assert set(first["label"]) == {"007"}


def test_every_tile_says_what_it_shows(takes, tmp_path):
    made = render(takes, tmp_path / "out", SPEC)
    for row in made.tiles.itertuples():
        levels, info = read_tile(made.path / row.tile, SPEC)
        assert info["source"] == row.path
        assert (info["start_seconds"], info["valid_width"]) == (
            row.start_seconds,
            row.valid_width,
        )
        assert info["spec_key"] == SPEC.key
        assert not levels[:, row.valid_width :].any()
        assert levels[:, 1].argmax() == SPEC.row_of_note(
            {"a": 57, "b": 58, "c": 59}[Path(row.path).stem]
        )


def test_open_tiles_gives_what_render_gave(takes, tmp_path):
    made = render(takes, tmp_path / "out", SPEC)
    same(open_tiles(tmp_path / "out"), made)
    same(open_tiles(str(tmp_path / "out")), made)
    made = render([takes / "Monk/d.wav"], tmp_path / "none", SPEC)
    assert list(made.tiles.columns) == TILE
    same(open_tiles(tmp_path / "none"), made)


def test_columns_of_a_table_stay(takes, tmp_path):
    frame = pd.DataFrame(
        {
            "path": [takes / "Monk/c.wav"],
            "label": ["M"],
            "album": ["X"],
            "year": ["0050"],
        }
    )
    made = render(frame, tmp_path / "out", SPEC)
    for table in (
        made.recordings,
        open_tiles(tmp_path / "out").recordings,
        list_recordings(made).to_frame(),
    ):
        assert table[["label", "group", "album", "year"]].values.tolist() == [
            ["M", "M/X", "X", "0050"]
        ]
    frame = pd.DataFrame({"path": [takes / "Monk/c.wav"], "disc": ["Y"]})
    assert render(frame, tmp_path / "by", SPEC, group_by="disc").recordings[
        "group"
    ].tolist() == ["Y"]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_bad_file_costs_one_row_with_any_number_of_jobs(tmp_path, at):
    paths = [record(tmp_path / f"{n}.wav", 1.2, 57 + n) for n in range(2)]
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no audio")
    paths.insert(at, bad)
    one = render(paths, tmp_path / "one", SPEC)
    two = render(paths, tmp_path / "two", SPEC, n_jobs=2)
    assert one.recordings["status"].tolist() == [
        "error" if n == at else "ok" for n in range(3)
    ]
    assert one.recordings["reason"][at] == "unsupported_or_corrupt"
    for name in ("recordings", "tiles"):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(two, name))
    assert contents(one.path) == contents(two.path)
    assert "tiles/bad.wav" not in {folder.as_posix() for folder in one.path.rglob("*")}
    no_parts(tmp_path)


def test_a_second_run_writes_nothing_again(takes, tmp_path, monkeypatch):
    made = render(takes, tmp_path / "out", SPEC)
    before, tables = times(made.path), contents(made.path)
    monkeypatch.setattr(rendering, "write_tile", lambda *_: pytest.fail("wrote a tile"))
    same(render(takes, made.path, SPEC), made)
    assert times(made.path) == before
    assert contents(made.path) == tables


def test_what_changed_is_rendered_again(takes, tmp_path):
    made = render(takes, tmp_path / "out", SPEC)
    before = times(made.path)
    record(takes / "007/Solo/b.wav", 1.1, 62)
    again = render(takes, made.path, SPEC)
    changed = made.path / "tiles/007/Solo/b.wav"
    assert sorted(file.name for file in changed.glob("*.png")) == [
        "00000.png"
    ]  # three of the old are gone
    assert read_tile(changed / "00000.png")[0][:, 5].argmax() == SPEC.row_of_note(62)
    assert again.recordings["n_tiles"].tolist() == [2, 1, 4, 0]
    after = times(made.path)
    kept = [file for file in after if changed not in file.parents]
    assert len(kept) == 6
    assert all(after[file] == before[file] for file in kept)
    no_parts(made.path)


def test_what_was_cut_off_later_has_no_tiles(takes, tmp_path):
    made = render(takes, tmp_path / "out", SPEC)
    path = takes / "Monk/c.wav"
    path.write_bytes(path.read_bytes()[:9000])
    again = render(takes, made.path, SPEC)
    assert again.recordings["reason"].tolist() == ["", "", "truncated", "silent"]
    assert not (made.path / "tiles/Monk/c.wav").exists()
    others = made.recordings["path"].drop(
        index=again.recordings.index[again.recordings["path"] == str(path)]
    )
    path.unlink()
    assert (
        render([path, *others], made.path, SPEC)
        .recordings["reason"]
        .tolist()
        .count("vanished")
        == 1
    )


def test_recordings_are_not_dropped_from_the_manifest(takes, tmp_path):
    made = render(takes, tmp_path / "out", SPEC)
    before = (made.path / "recordings.csv").read_bytes()
    first, *rest = made.recordings["path"]
    with pytest.raises(InputError) as caught:
        render([first], made.path, SPEC)
    assert str(caught.value) == (
        f"render: X must hold all recordings of the tile folder {str(made.path)!r}, got none of {len(rest)} such as "
        f"{rest[0]!r}. Choose another folder, or pass all recordings at once."
    )
    assert (made.path / "recordings.csv").read_bytes() == before
    Path(rest[0]).unlink()  # what is gone may leave
    assert len(render([first, *rest[1:]], made.path, SPEC).recordings) == len(rest)


@pytest.mark.parametrize("bad", [0, 1.5, None, True])
def test_processes_are_a_whole_number_but_0(takes, tmp_path, bad):
    with pytest.raises(InputError) as caught:
        render(takes, tmp_path / "out", SPEC, n_jobs=bad)
    assert str(caught.value).startswith(
        f"n_jobs must be an integer other than 0, got {bad!r}."
    )


def test_two_runs_into_one_folder(takes, tmp_path, monkeypatch):
    """Another run finishes a recording while this one is at it: its tiles stay, and count."""
    made = render(takes, tmp_path / "out", SPEC)
    finished, calls = rendering._read_finished, []

    def late(target, stamp):
        calls.append(target)
        return None if calls.count(target) == 1 else finished(target, stamp)

    monkeypatch.setattr(rendering, "_read_finished", late)
    monkeypatch.setattr(rendering.shutil, "rmtree", lambda *_, **__: None)
    same(render(takes, made.path, SPEC), made)


def test_a_tile_that_was_lost_is_made_again(takes, tmp_path):
    made = render(takes, tmp_path / "out", SPEC)
    tile = made.path / made.tiles["tile"][1]
    data = tile.read_bytes()
    tile.unlink()
    render(takes, made.path, SPEC)
    assert tile.read_bytes() == data
    (tile.parent / "recording.json").write_text("{")
    same(render(takes, made.path, SPEC), made)


def test_an_array_is_known_by_its_values(tmp_path):
    cqt = np.random.default_rng(0).random((48, 40))
    made = render([cqt], tmp_path / "out", SPEC)
    before = times(made.path)
    render([cqt.copy()], made.path, SPEC)
    assert times(made.path) == before
    again = render([cqt[:, :20], cqt.reshape(48, 40)], made.path, SPEC)
    assert again.recordings["n_tiles"].tolist() == [2, 3]
    assert made.recordings["path"].tolist() == ["array 0"]
    assert pd.isna(made.recordings["tuning_cents"][0])


def test_the_same_name_twice(tmp_path):
    files = [
        record(tmp_path / name, midi=57 + n)
        for n, name in enumerate(("a/x.wav", "a/x.flac", "b/x.wav"))
    ]
    for X in ([*files, files[0]], [tmp_path / "a", tmp_path / "b", files[2]]):
        out = tmp_path / f"out{len(X)}"
        made = render(X, out, SPEC)
        assert made.recordings["tiles"].nunique() == 4
        for row in made.recordings.itertuples():
            first = read_tile(out / row.tiles / "00000.png", SPEC)[0]
            assert first[:, 5].argmax() == SPEC.row_of_note(
                57 + [str(f) for f in files].index(row.path)
            )


def test_a_name_that_is_the_folder_of_another(tmp_path):
    outer, inner = (
        record(tmp_path / "p/x.wav", midi=57),
        record(tmp_path / "q/x.wav/y.wav", midi=58),
    )
    for n, X in enumerate(([outer, tmp_path / "q"], [tmp_path / "q", outer])):
        made = render(X, tmp_path / f"out{n}", SPEC)
        assert made.recordings["status"].tolist() == ["ok", "ok"]
        for row in made.recordings.itertuples():
            assert len(list((made.path / row.tiles).glob("*.png"))) == 2
        same(render(X, made.path, SPEC), made)
    assert inner.exists()


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
def test_strange_names(tmp_path, name):
    path = record(tmp_path / "takes" / "Monk" / name)
    made = render(tmp_path / "takes", tmp_path / "out", SPEC)
    assert made.recordings["status"].tolist() == ["ok"]
    assert made.recordings["path"].tolist() == [str(path)]
    opened = open_tiles(tmp_path / "out")
    same(opened, made)
    assert read_tile(made.path / opened.tiles["tile"][0])[1]["source"] == str(path)
    assert list_recordings(tmp_path / "out")[0].tiles == Path(
        f"{tmp_path}/out/tiles/Monk/{name}"
    )
    before = times(made.path)
    render(tmp_path / "takes", made.path, SPEC)
    assert times(made.path) == before


def test_the_longest_name_twice(tmp_path):
    name = "é" * 125 + "x.wav"
    files = [record(tmp_path / folder / name) for folder in "ab"]
    made = render(files, tmp_path / "out", SPEC)
    assert made.recordings["status"].tolist() == ["ok", "ok"]
    assert made.recordings["tiles"].nunique() == 2


def test_tiles_stay_inside(tmp_path):
    record(tmp_path / "x.wav")
    folder = tmp_path / "a/b"
    folder.mkdir(parents=True)
    rows = ["../../x.wav", f"{tmp_path}/x.wav", "./../../a/../x.wav", "..", "/"]
    (folder / "list.csv").write_text("\n".join(["path", *rows]) + "\n")
    made = render(folder / "list.csv", tmp_path / "deep/out", SPEC)
    assert made.recordings["status"].tolist() == ["ok"] * 3 + ["error"] * 2
    tops = {path.name for path in tmp_path.iterdir()}
    assert tops == {"x.wav", "a", "deep"}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    assert sorted(path.name for path in made.path.iterdir()) == [
        "recordings.csv",
        "spec.json",
        "tiles",
        "tiles.csv",
    ]
    inside = (made.path / "tiles").resolve()
    assert all(
        inside in (made.path / tile).resolve().parents for tile in made.tiles["tile"]
    )
    assert [path.name for path in folder.iterdir()] == ["list.csv"]


def test_out_of_another_spec(takes, tmp_path):
    made = render(takes / "007", tmp_path / "out", SPEC)
    before = contents(made.path)
    message = (
        f"render: out must hold tiles of spec {OTHER.key}, got {str(made.path)!r} of spec {SPEC.key}. "
        "Choose another folder, or the same preset."
    )
    refuse(message, render, takes, made.path, OTHER)
    assert contents(made.path) == before


def test_out_that_belongs_to_somebody_else(takes, tmp_path):
    file = tmp_path / "out"
    file.write_text("mine")
    message = f"render: out must be a folder, got the file {str(file)!r}. Choose another name."
    refuse(message, render, takes, file, SPEC)
    assert file.read_text() == "mine"
    message = f"render: out must be new, empty or a tile folder, got {str(takes)!r}. Choose another folder."
    before = contents(takes)
    refuse(message, render, takes, takes, SPEC)
    assert contents(takes) == before


def test_nothing_is_made_if_nothing_is_found(tmp_path):
    (tmp_path / "takes").mkdir()
    with pytest.raises(InputError, match=r"^render: no recordings in "):
        render(tmp_path / "takes", tmp_path / "out", SPEC)
    assert not (tmp_path / "out").exists()


def test_an_interrupted_write_leaves_nothing_at_the_final_name(
    takes, tmp_path, monkeypatch
):
    write, calls = rendering.write_tile, []

    def stop(path, *args):
        calls.append(path)
        if len(calls) == 4:  # the second tile of the second recording
            path.write_bytes(b"half a tile")
            raise KeyboardInterrupt
        write(path, *args)

    monkeypatch.setattr(rendering, "write_tile", stop)
    with pytest.raises(KeyboardInterrupt):
        render(takes, tmp_path / "out", SPEC)
    assert sorted(
        path.name for path in (tmp_path / "out/tiles/007/Solo").iterdir()
    ) == ["a.wav"]
    assert not (tmp_path / "out/recordings.csv").exists()
    no_parts(tmp_path)
    before = times(tmp_path / "out")
    monkeypatch.undo()
    made = render(takes, tmp_path / "out", SPEC)
    assert made.recordings["n_tiles"].tolist() == [2, 3, 4, 0]
    after = times(made.path)
    assert {file: after[file] for file in before} == before
    clean = render(takes, tmp_path / "clean", SPEC)
    assert contents(made.path) == contents(clean.path)


def test_tiles_are_recordings_too(takes, tmp_path):
    made = render(takes, tmp_path / "out", SPEC)
    shutil.rmtree(takes)
    for X in (made, made.path, str(made.path), [made.path]):
        table = list_recordings(X).to_frame()
        assert table[["path", "label", "group"]].equals(
            made.recordings[["path", "label", "group"]]
        )
        assert table["tiles"].tolist() == [
            str(made.path / t) if t else None for t in made.recordings["tiles"]
        ]
        assert isinstance(table["item"][3], AudioError)
        assert table["item"][3].reason == "silent"
    again = render(made, tmp_path / "again", SPEC)
    for name in ("status", "reason", "message", "n_tiles", "label", "group"):
        assert again.recordings[name].tolist() == made.recordings[name].tolist(), name
    old, new = (
        [read_tile(m.path / t)[0] for t in m.tiles["tile"]] for m in (made, again)
    )
    assert np.array_equal(old, new)


def test_open_tiles_of_what_is_none(tmp_path):
    for name in ("spec.json", "recordings.csv", "tiles.csv"):
        message = (
            f"open_tiles: path must be a folder made by render, got {str(tmp_path)!r} without {name}. "
            "Render the recordings first."
        )
        refuse(message, open_tiles, tmp_path)
        (tmp_path / name).touch()


def test_progress_sees_every_recording(takes, tmp_path):
    seen = []

    def progress(steps, n, title):
        seen.append((n, title))
        for step in steps:
            seen.append(step.info["status"])
            yield step

    render(takes, tmp_path / "out", SPEC, progress=progress)
    assert seen == [(4, "rendering"), "ok", "ok", "ok", "error"]


def test_as_spec(tmp_path):
    assert as_spec(SPEC) is SPEC
    assert as_spec("fast") == TileSpec.preset("fast")
    path = tmp_path / "x.json"
    path.write_text(SPEC.to_json())
    assert as_spec(path) == as_spec(str(path)) == SPEC


def test_spec_for(tmp_path):
    made = render([np.random.default_rng(0).random((48, 9))], tmp_path / "out", SPEC)
    for X in (made, made.path, str(made.path)):
        assert resolve_spec(None, X, "fit") == SPEC
        assert resolve_spec(SPEC, X, "fit") == SPEC
        message = (
            f"fit: X must hold tiles of spec {OTHER.key}, got {str(made.path)!r} of spec {SPEC.key}. "
            "Render the recordings again with this spec."
        )
        refuse(message, resolve_spec, OTHER, X, "fit")
    for X in (tmp_path, [np.ones(3)], ["x.wav"]):
        assert resolve_spec(None, X, "fit") == TileSpec()
        assert resolve_spec("fast", X, "fit") == TileSpec.preset("fast")


def test_the_same_bytes_whatever_the_processes_and_the_order(takes, tmp_path):
    def bytes_of(name, **options):
        paths = sorted(takes.rglob("*.wav"))
        out = render(
            paths[::-1] if options.pop("backwards", False) else paths,
            tmp_path / name,
            SPEC,
            **options,
        ).path
        return {path.relative_to(out): path.read_bytes() for path in out.rglob("*.png")}

    first = bytes_of("a")
    assert len(first) > 3
    assert bytes_of("b", n_jobs=2) == first
    assert bytes_of("c", backwards=True) == first


_PEAK = r"""
import re, sys
from cqt2img import render
import PIL.Image, PIL.PngImagePlugin, cqt2img.data.render, joblib, matplotlib.colors, pandas
import soundfile, soxr, threadpoolctl
kib = lambda: int(re.search(r"VmHWM:\s*(\d+)", open("/proc/self/status").read())[1])
before = kib()
assert render([sys.argv[1]], sys.argv[2]).recordings["status"].tolist() == ["ok"]
print((kib() - before) / 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/status").exists(),
    reason="needs /proc, which tells the memory of a process",
)
def test_an_hour_takes_no_more_memory_than_half_an_hour(tmp_path):
    peaks = []
    for minutes in (30, 60):  # their waves alone would take 151 and 303 MB
        path = tmp_path / f"{minutes}.flac"
        time = np.arange(15 * 60 * 22_050)
        quarter = (9000 * np.sin(time / np.linspace(3, 9, len(time)))).astype(np.int16)
        with soundfile.SoundFile(path, "w", 22_050, 1) as file:
            for _ in range(minutes // 15):
                file.write(quarter)
        words = [sys.executable, "-c", _PEAK, str(path), str(tmp_path / str(minutes))]
        peaks.append(
            float(
                subprocess.run(words, check=True, capture_output=True, text=True).stdout
            )
        )
    assert max(peaks) < 200
    assert peaks[1] - peaks[0] < 20
