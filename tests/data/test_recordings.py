import logging
import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cqt2img.data.recordings import (
    Recording,
    Recordings,
    join_labels,
    list_recordings,
)
from cqt2img.errors import AudioError, InputError
from tests.conftest import raises_with

MANIFEST = "path,label,group,status,reason,message,tiles"


def make(root, *names):
    """Make empty files below a folder."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write(path, text, encoding="utf-8"):
    path.write_text(text, encoding=encoding)
    return path


def sources(recordings):
    return [recording.source for recording in recordings]


def tiles(recordings):
    return [recording.tiles for recording in recordings]


# folders


def test_folders_are_labels_and_groups(tmp_path):
    make(
        tmp_path,
        "Monk/Solo/b.wav",
        "Monk/Solo/disc 2/a.flac",
        "Monk/Live/a.mp3",
        "Evans/x.WAV",
        "Evans/x.npy",
    )
    found = list_recordings(tmp_path)
    assert list(zip(found.names, found.labels, found.groups, strict=True)) == [
        ("Evans/x.WAV", "Evans", str(tmp_path / "Evans/x.WAV")),
        ("Evans/x.npy", "Evans", str(tmp_path / "Evans/x.npy")),
        ("Monk/Live/a.mp3", "Monk", "Monk/Live"),
        ("Monk/Solo/b.wav", "Monk", "Monk/Solo"),
        ("Monk/Solo/disc 2/a.flac", "Monk", "Monk/Solo"),
    ]
    assert sources(found) == [tmp_path / name for name in found.names]
    assert found.paths == [str(tmp_path / name) for name in found.names]
    assert tiles(found) == [None] * 5
    assert {one.error for one in found} == {None}
    for X in (str(tmp_path), [tmp_path]):
        assert list_recordings(X).to_frame().equals(found.to_frame())


def test_files_directly_in_the_folder_have_no_label(tmp_path):
    make(tmp_path, "b.wav", "a.wav", "Monk/c.wav")
    found = list_recordings(tmp_path)
    assert found.names == ["a.wav", "b.wav", "Monk/c.wav"]
    assert found.labels == [None, None, "Monk"]
    assert found.groups == found.paths


def test_hidden_and_other_files_are_ignored(tmp_path):
    make(
        tmp_path,
        "A/1.wav",
        "A/._1.wav",
        "A/.part.wav",
        ".git/x.wav",
        "A/.x/y.wav",
        "A/notes.txt",
        "A/wav",
        "A/c.jpg",
    )
    assert list_recordings(tmp_path).names == ["A/1.wav"]


def test_symbolic_links_are_followed_without_cycles(tmp_path):
    make(tmp_path, "disk/Solo/a.wav", "takes/Evans/b.wav")
    (tmp_path / "takes/Monk").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/round").symlink_to(tmp_path / "takes")
    (tmp_path / "takes/self").symlink_to(tmp_path / "takes")
    found = list_recordings(tmp_path / "takes")
    assert found.names == ["Evans/b.wav", "Monk/Solo/a.wav"]


def test_file_names_need_not_be_utf8(tmp_path):
    name = os.fsdecode("é\n,\"'".encode() + b"\xff.wav")
    make(tmp_path, f"Mönk/{name}")
    found = list_recordings(tmp_path)
    assert found.names == [f"Mönk/{name}"]
    assert found[0].source.exists()
    (tmp_path / "x.csv").write_bytes(
        b'path,label\n"M\xc3\xb6nk/\xc3\xa9\n,""\'\xff.wav",M\n'
    )
    assert list_recordings(tmp_path / "x.csv")[0].source.exists()


# tables


def test_paths_in_a_csv_are_relative_to_its_folder(tmp_path):
    make(tmp_path, "sub/a.wav")
    text = f"path,label\nsub/a.wav,Monk\n{tmp_path}/sub/a.wav,Monk\n../b.wav,\n"
    found = list_recordings(write(tmp_path / "list.csv", text))
    file = tmp_path / "sub/a.wav"
    assert sources(found) == [file, file, tmp_path / "../b.wav"]
    assert found.paths == ["sub/a.wav", f"{tmp_path}/sub/a.wav", "../b.wav"]
    assert found.names == found.paths
    assert found.labels == ["Monk", "Monk", None]
    # one file is one group, however its path is spelled
    assert found.groups == [str(file), str(file), str(tmp_path.parent / "b.wav")]


def test_csv_values_stay_text(tmp_path):
    text = "path,label,year\na.wav,007,1955\nb.wav,NA,\n1.0,None,x\n"
    for encoding in ("utf-8", "utf-8-sig"):
        found = list_recordings(write(tmp_path / "list.CSV", text, encoding))
        assert found.paths == ["a.wav", "b.wav", "1.0"]
        assert found.labels == ["007", "NA", "None"]
        assert found.column("year") == ["1955", "", "x"]


@pytest.mark.parametrize(
    ("header", "group_by", "groups"),
    [
        ("piece,take", None, ["{}/a", "{}/b", "{}/c"]),
        ("piece,group", None, ["1", "1", "{}/c"]),
        ("concert,group", None, ["1", "1", "{}/c"]),
        ("concert,album", None, ["M/1", "E/1", "{}/c"]),
        ("concert,session", None, ["M/1", "E/1", "{}/c"]),
        ("piece,concert", None, ["M/1", "E/1", "{}/c"]),
        ("album,piece", "piece", ["M/1", "E/1", "{}/c"]),
        ("group,album", "album", ["M/1", "E/1", "{}/c"]),
    ],
)
def test_group_comes_from_the_first_known_column(tmp_path, header, group_by, groups):
    text = f"path,label,{header}\na,M,x,1\nb,E,x,1\nc,E,,\n"
    path = write(tmp_path / "x.csv", text)
    expected = [group.format(tmp_path) for group in groups]
    assert list_recordings(path, group_by=group_by).groups == expected
    if group_by is not None:
        listed = list_recordings(path)
        assert list_recordings(listed, group_by=group_by).groups == expected
        frame = listed.to_frame()
        assert list_recordings(frame, group_by=group_by).groups == expected


def test_data_frame_is_read_and_left_unchanged():
    frame = pd.DataFrame(
        {
            "path": [Path("a"), "b", "c"],
            "label": [1, "", None],
            "album": [None, np.nan, "7"],
        },
        [5, 5, 6],
    )
    before = frame.copy()
    found = list_recordings(frame)
    assert found.paths == ["a", "b", "c"]
    assert sources(found) == [Path("a"), Path("b"), Path("c")]
    assert found.labels == [1, None, None]
    # recordings without album are not one group
    own = [os.path.abspath("a"), os.path.abspath("b")]
    assert found.groups == [*own, "None/7"]
    pd.testing.assert_frame_equal(frame, before)


def test_user_columns_named_like_ours_do_not_interfere():
    columns = {"path": ["a"], "item": [3], "name": ["Blue Monk"], "recordings": [1]}
    found = list_recordings(pd.DataFrame(columns))
    assert sources(found) == [Path("a")]
    assert found.names == ["a"]
    assert found.groups == [os.path.abspath("a")]


def test_names_in_a_csv_are_stripped(tmp_path):
    text = " path , label, album\na.wav, Monk , Solo\nb.wav,Monk,Solo \n"
    path = write(tmp_path / "x.csv", text)
    found = list_recordings(path)
    assert found.labels == ["Monk", "Monk"]
    assert found.groups == ["Monk/Solo", "Monk/Solo"]
    make(tmp_path, "a.wav", "b.wav")
    joined = join_labels([tmp_path / "a.wav", tmp_path / "b.wav"], path)
    assert joined.labels == ["Monk", "Monk"]


@pytest.mark.parametrize("column", ["start", "end", "start_time", "end_time"])
def test_tables_of_segments_are_an_error_until_supported(tmp_path, column):
    path = write(tmp_path / "x.csv", f"path,label,{column}\na,M,\nb,M,1.5\n")
    with raises_with(InputError, "not supported", column, "'1.5'", str(path)):
        list_recordings(path)
    frame = pd.DataFrame({"path": ["a", "b"], column: [np.nan, 2.0]})
    with raises_with(InputError, "not supported", column, "2.0"):
        list_recordings(frame)
    assert len(list_recordings(frame[:1])) == 1


# sequences


def test_arrays_are_recordings():
    cqt = np.ones((3, 4))
    for X in ([cqt, 2 * cqt], (cqt, 2 * cqt), np.stack([cqt, 2 * cqt])):
        found = list_recordings(X, y=["a", "b"], groups=[7, 7])
        assert found.paths == found.names == ["array 0", "array 1"]
        assert found.labels == ["a", "b"]
        assert found.groups == ["7", "7"]
        assert found[1].location is None
        assert np.array_equal(found[1].source, 2 * cqt)


def test_sequences_of_paths_are_recordings():
    names = ["x/a.wav", "x/b.npy"]
    for X in (
        names,
        tuple(names),
        np.array(names),
        np.array(names, object),
        pd.Series(names, [3, 4]),
        pd.Index(names),
    ):
        found = list_recordings(X)
        assert found.paths == names
        assert found.names == ["a.wav", "b.npy"]
        assert sources(found) == [Path(name) for name in names]


def test_a_list_may_mix_folders_tables_arrays_and_files(tmp_path):
    make(tmp_path, "folder/Monk/Solo/a.wav", "one.flac")
    write(tmp_path / "list.csv", "path,label,album\none.flac,Evans,X\n")
    X = [
        tmp_path / "folder",
        str(tmp_path / "list.csv"),
        np.ones((2, 2)),
        "gone.wav",
        tmp_path / "one.flac",
    ]
    found = list_recordings(X)
    names = ["Monk/Solo/a.wav", "one.flac", "array 2", "gone.wav", "one.flac"]
    assert found.names == names
    assert found.labels == ["Monk", "Evans", None, None, None]
    assert found.groups == [
        "Monk/Solo",
        "Evans/X",
        "array 2",
        os.path.abspath("gone.wav"),
        str(tmp_path / "one.flac"),
    ]
    assert found.column("album") == [None, "X", None, None, None]
    assert found[3].source == Path("gone.wav")  # the error is reported on reading


@pytest.mark.parametrize("name", ["a.wav", "gone.wav", "gone.FLAC", "gone.npy"])
def test_a_single_file_is_listed_whether_it_exists_or_not(tmp_path, name):
    make(tmp_path, "a.wav")
    found = list_recordings(tmp_path / name)
    assert found.names == [name]
    assert sources(found) == [tmp_path / name]


def test_a_file_has_the_same_group_in_every_form(tmp_path, monkeypatch):
    make(tmp_path, "A/1.wav")
    monkeypatch.chdir(tmp_path)
    for X in (
        "A",
        "A/1.wav",
        ["A/1.wav"],
        "../" + tmp_path.name + "/A",
        pd.DataFrame({"path": ["./A/1.wav"]}),
    ):
        assert list_recordings(X).groups == [str(tmp_path / "A/1.wav")]


# recordings as a sequence


@pytest.fixture
def listed(tmp_path):
    text = "year,path,label,album\n1955,a,M,x\n1956,b,M,x\n1957,c,E,y\n"
    return list_recordings(write(tmp_path / "x.csv", text))


def test_recordings_are_accepted_again(listed):
    assert list_recordings(listed) is listed
    assert list_recordings(listed, ["p", "q", "r"]).labels == ["p", "q", "r"]
    assert listed.labels == ["M", "M", "E"]
    # scikit-learn selects the rows of a fold as a list
    fold = [listed[2], listed[0]]
    assert list_recordings(fold).column("year") == ["1957", "1955"]


def test_recordings_are_selected_by_index_or_mask(listed):
    for chosen in ([0, 2], np.array([0, 2]), [True, False, True]):
        part = listed.select(chosen)
        assert isinstance(part, Recordings)
        assert part.paths == ["a", "c"]
    assert listed.select([]).paths == []
    assert listed[1:].paths == ["b", "c"]
    assert (listed[1:] + listed[:1]).paths == ["b", "c", "a"]
    with raises_with(InputError, "indices", "3", "(2,)"):
        listed.select([True, False])


def test_columns_by_name(listed):
    assert listed.column_names == ("year", "path", "label", "album", "group")
    assert listed.column("year") == ["1955", "1956", "1957"]
    assert listed.column("group") == listed.groups == ["M/x", "M/x", "E/y"]
    with raises_with(InputError, "'month'", "year"):
        listed.column("month")


def test_tables_of_recordings_are_accepted_again(listed, tmp_path):
    frame = listed.to_frame()
    assert list(frame.columns) == [*listed.column_names, "name", "item", "tiles"]
    rows = frame[frame["year"] > "1955"].assign(split="test")
    again = list_recordings(rows)
    assert again.paths == ["b", "c"]
    assert sources(again) == [tmp_path / "b", tmp_path / "c"]
    assert again.column("split") == ["test", "test"]


def test_a_recording_is_small_when_pickled():
    recording = Recording("a.wav", Path("a.wav"), "M", "g", "a.wav")
    again = pickle.loads(pickle.dumps(recording))
    assert (again.source, again.group) == (recording.source, recording.group)
    assert len(pickle.dumps(recording)) < 500
    assert str(recording) == "a.wav"


# y and groups


def test_y_and_groups_replace_those_of_the_folders(tmp_path):
    make(tmp_path, "A/x/1.wav", "B/y/2.wav")
    y = pd.Series(["p", "q"], index=[8, 9])
    found = list_recordings(tmp_path, y=y, groups=["g", "h"])
    assert found.labels == ["p", "q"]
    assert found.groups == ["g", "h"]


@pytest.mark.parametrize("nothing", [None, float("nan"), pd.NA, ""])
def test_a_missing_group_is_a_group_of_its_own(tmp_path, nothing):
    make(tmp_path, "A/x/1.wav", "A/x/2.wav", "A/x/3.wav")
    own = [str(tmp_path / f"A/x/{n}.wav") for n in (1, 2, 3)]
    assert list_recordings(tmp_path, groups=[nothing] * 3).groups == own
    given = list_recordings(tmp_path, groups=["g", nothing, ("a", 1)])
    assert given.groups == ["g", own[1], "('a', 1)"]
    arrays = list_recordings([np.ones((2, 2))] * 2, groups=[nothing] * 2)
    assert arrays.groups == ["array 0", "array 1"]


@pytest.mark.parametrize(
    ("y", "kind"),
    [
        ("ab", "str"),
        (3, "int"),
        ({"a": 1, "b": 2}, "dict"),
        ({1, 2}, "set"),
        (np.array(["a"]).reshape(()), "ndarray"),
        (np.array([["a"], ["b"]]), "ndarray"),
        (pd.DataFrame({"y": ["a", "b"]}), "DataFrame"),
        ([["a"], ["b"]], "list with several values"),
        ([("a", "b"), ("b", "c")], "list with several values"),
    ],
)
def test_y_and_groups_must_be_flat_sequences(y, kind):
    with raises_with(InputError, "fit: y must be", kind):
        list_recordings(["p.wav", "q.wav"], y, caller="fit")
    if isinstance(y, list) and isinstance(y[0], tuple):
        return  # a group may be a tuple
    with raises_with(InputError, "groups must be", kind):
        list_recordings(["p.wav", "q.wav"], None, y)


@pytest.mark.parametrize("values", [["a"], ["a", "b", "c"]])
def test_y_and_groups_must_be_as_long_as_X(values):
    with raises_with(InputError, "y", len(values), "2 recordings"):
        list_recordings(["p", "q"], values)
    with raises_with(InputError, "groups", len(values), "2 recordings"):
        list_recordings(["p", "q"], None, values)


def test_a_file_must_not_have_two_labels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "path,label\na.wav,Monk\nb/../a.wav,Evans\n"
    file = str(tmp_path / "a.wav")
    with raises_with(InputError, "one label", "Monk", "Evans", file):
        list_recordings(["a.wav", "./a.wav"], ["Monk", "Evans"])
    with raises_with(InputError, "one label", "Monk", "Evans", file):
        list_recordings(write(tmp_path / "x.csv", text))
    same = list_recordings(["a.wav", "./a.wav"], ["Monk", "Monk"])
    assert same.labels == ["Monk", "Monk"]
    assert len(list_recordings([np.ones((2, 2))] * 2, ["Monk", "Evans"])) == 2


# errors


def test_errors_start_with_the_caller_or_the_argument(tmp_path):
    with raises_with(InputError, "predict: no such file or folder: 'gone'"):
        list_recordings("gone", caller="predict")
    with raises_with(InputError, "X: no such file or folder: 'gone'"):
        list_recordings("gone")


def test_folders_and_tables_without_recordings(tmp_path):
    path = write(tmp_path / "x.csv", "path,label\n")
    with raises_with(InputError, "no recordings", str(path), ".flac", ".npy"):
        list_recordings(path)
    with raises_with(InputError, "no recordings in a list"):
        list_recordings([])
    empty = make(tmp_path / "empty", "a.txt")
    for X in (empty, [empty]):
        with raises_with(InputError, "no recordings", str(empty)):
            list_recordings(X)


def test_types_that_are_no_recordings():
    for X in (3, {}):
        with raises_with(InputError, "X must be paths", type(X).__name__):
            list_recordings(X)
    with raises_with(InputError, "generator", "list(X)"):
        list_recordings(name for name in ["a.wav"])
    with raises_with(InputError, "X must contain paths", "int"):
        list_recordings(["a.wav", 3])
    with raises_with(InputError, "one array", "(84, 3)", "[cqt]"):
        list_recordings(np.ones((84, 3)))


def test_a_missing_folder_or_table_is_an_error(tmp_path):
    for path in (str(tmp_path / "gone"), str(tmp_path / "gone.csv")):
        with raises_with(InputError, "no such file", path):
            list_recordings(path)


def test_missing_columns_are_named(tmp_path):
    path = write(tmp_path / "x.csv", "file,label\na,b\n")
    with raises_with(InputError, "no column 'path'", "file, label", str(path)):
        list_recordings(path)
    with raises_with(InputError, "no column 'path'", "'X'", "0"):
        list_recordings(pd.DataFrame([1]))
    frame = pd.DataFrame({"path": ["a"], "label": ["b"]})
    for X in (frame, list_recordings(frame), [list_recordings(frame)[0]]):
        with raises_with(InputError, "group_by", "'disc'", "path, label"):
            list_recordings(X, group_by="disc")
    folder = make(tmp_path / "f", "a.wav")
    with raises_with(InputError, "group_by", "'disc'", str(folder)):
        list_recordings(folder, group_by="disc")


def test_a_csv_that_cannot_be_read(tmp_path):
    path = write(tmp_path / "x.csv", "")
    with raises_with(InputError, "fit: ", str(path), "No columns to parse"):
        list_recordings(path, caller="fit")


@pytest.mark.parametrize("column", ["label", "album"])
def test_a_csv_that_is_not_utf8(tmp_path, column):
    text = f"path,{column}\na.wav,Dvořák\n"
    path = write(tmp_path / "x.csv", text, "iso-8859-2")
    with raises_with(InputError, column, "UTF-8", "'Dvo\\udcf8\\udce1k'", str(path)):
        list_recordings(path)


@pytest.mark.parametrize("mark", [";", "\t"])
def test_a_csv_without_commas(tmp_path, mark):
    path = write(tmp_path / "x.csv", f"path{mark}label\na.wav{mark}Monk\n")
    header = repr(f"path{mark}label")
    with raises_with(InputError, "commas", header, str(path)):
        list_recordings(path)
    make(tmp_path, "a.wav")
    with raises_with(InputError, "commas", header, str(path)):
        join_labels(tmp_path / "a.wav", path)


# tile folders


def test_columns_named_like_those_of_a_manifest_do_not_interfere(tmp_path):
    header = "path,label,status,reason,message,tiles"
    text = f"{header}\na.wav,M,error,lost,gone,on the roof\n"
    for name in ("x.csv", "recordings.csv"):
        found = list_recordings(write(tmp_path / name, text))
        assert sources(found) == [tmp_path / "a.wav"]
        assert (found[0].tiles, found[0].error) == (None, None)
        assert found.column("status") == ["error"]


def test_an_unfinished_tile_folder_is_an_error(tmp_path):
    write(tmp_path / "spec.json", "{}")
    make(tmp_path, "tiles/a.wav/00000.png")
    with raises_with(InputError, "unfinished", str(tmp_path), "recordings.csv"):
        list_recordings(tmp_path)
    # a folder of recordings may contain a spec file, too
    (tmp_path / "tiles").rename(tmp_path / "takes")
    make(tmp_path, "takes/b.wav")
    assert len(list_recordings(tmp_path)) == 1


def test_recordings_that_failed_to_render_keep_their_error(tmp_path):
    write(tmp_path / "spec.json", "{}")
    rows = "a,M,g,ok,,,tiles/a\nb,007,h,error,silent,It is silent.,\n"
    write(tmp_path / "recordings.csv", f"{MANIFEST}\n{rows}")
    for X in (
        tmp_path,
        [tmp_path],
        tmp_path / "recordings.csv",
        list_recordings(tmp_path).to_frame(),
    ):
        found = list_recordings(X)
        assert tiles(found) == [tmp_path / "tiles/a", None]
        assert found.labels == ["M", "007"]
        assert found.groups == ["g", "h"]
        assert found[0].source == tmp_path / "a"
        assert found[0].error is None
        error = found[1].error
        assert isinstance(error, AudioError)
        assert (error.reason, str(error)) == ("silent", "It is silent.")


# join_labels


@pytest.mark.parametrize(
    ("form", "base"),
    [("below the folder", ""), ("as listed", "{}/takes/"), ("below csv", "takes/")],
)
def test_labels_are_joined_by_path(tmp_path, form, base, caplog):
    make(tmp_path, "takes/A/x/1.wav", "takes/A/x/2.wav", "takes/B/3.wav")
    base = base.format(tmp_path)
    text = f"path,label,year\n{base}B/3.wav,007,1957\n{base}A/x/1.wav,Monk,1958\n"
    path = write(tmp_path / "who.csv", text)
    with caplog.at_level(logging.WARNING):
        found = join_labels(tmp_path / "takes", path)
    assert found.names == ["B/3.wav", "A/x/1.wav"]
    assert found.labels == ["007", "Monk"]
    assert found.column("year") == ["1957", "1958"]
    files = [tmp_path / "takes/B/3.wav", tmp_path / "takes/A/x/1.wav"]
    assert found.groups == [str(files[0]), "A/x"]  # those of the folders
    assert sources(found) == files
    (message,) = caplog.messages
    assert "1 of 3" in message
    assert str(path) in message


def test_labels_are_joined_to_tiles_by_the_paths_of_the_recordings(tmp_path):
    write(tmp_path / "spec.json", "{}")
    rows = (
        "takes/x/a.wav,M,g,ok,,,tiles/x/a.wav\n"
        "takes/x/b.wav,M,h,error,silent,It is silent.,\n"
    )
    write(tmp_path / "recordings.csv", f"{MANIFEST}\n{rows}")
    (tmp_path / "lists").mkdir()
    text = "path,label\nx/b.wav,Evans\nx/a.wav,Monk\n"
    found = join_labels(tmp_path, write(tmp_path / "lists/who.csv", text))
    assert found.labels == ["Evans", "Monk"]
    assert tiles(found) == [None, tmp_path / "tiles/x/a.wav"]


@pytest.mark.parametrize(("column", "group_by"), [("album", None), ("disc", "disc")])
def test_groups_are_joined_with_the_labels(tmp_path, column, group_by):
    make(tmp_path, "A/x/1.wav")
    text = f"path,label,{column}\nA/x/1.wav,Monk,Solo\n"
    found = join_labels(tmp_path, write(tmp_path / "who.csv", text), group_by)
    assert found.groups == ["Monk/Solo"]
    assert list_recordings(found, group_by=group_by).groups == ["Monk/Solo"]


def test_labels_of_unknown_recordings_are_an_error(tmp_path):
    make(tmp_path, "a.wav")
    path = write(tmp_path / "who.csv", "path,label\na.wav,M\nb.wav,M\n")
    with raises_with(InputError, "fit: ", "'b.wav'", str(tmp_path), str(path)):
        join_labels(tmp_path, path, caller="fit")
    write(path, "path,who\na.wav,M\n")
    with raises_with(InputError, "labels: ", "'label'", "path, who", str(path)):
        join_labels(tmp_path, path)
