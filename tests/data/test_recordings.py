import logging
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cqt2img.audio.decode import AUDIO_SUFFIXES
from cqt2img.data.recordings import join_labels, list_recordings, tile_folder
from cqt2img.errors import AudioError, InputError

SUFFIXES = ", ".join(sorted(AUDIO_SUFFIXES))
HINT = f"Give files that end in {SUFFIXES} or .npy."
COLUMNS = ["path", "label", "group", "name", "item", "tiles"]


def make(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write(path, text, encoding="utf-8"):
    path.write_text(text, encoding=encoding)
    return path


def refuse(message, call, *args, **options):
    with pytest.raises(InputError) as caught:
        call(*args, **options)
    assert str(caught.value) == message


def test_folders_are_labels_and_groups(tmp_path):
    make(
        tmp_path,
        "Monk/Solo/b.wav",
        "Monk/Solo/disc 2/a.flac",
        "Monk/Live/a.mp3",
        "Evans/x.WAV",
        "Evans/x.npy",
    )
    table = list_recordings(tmp_path)
    assert list(table.columns) == COLUMNS
    assert table[["name", "label", "group"]].values.tolist() == [
        ["Evans/x.WAV", "Evans", str(tmp_path / "Evans/x.WAV")],
        ["Evans/x.npy", "Evans", str(tmp_path / "Evans/x.npy")],
        ["Monk/Live/a.mp3", "Monk", "Monk/Live"],
        ["Monk/Solo/b.wav", "Monk", "Monk/Solo"],
        ["Monk/Solo/disc 2/a.flac", "Monk", "Monk/Solo"],
    ]
    assert table["item"].tolist() == [tmp_path / name for name in table["name"]]
    assert table["path"].tolist() == [str(item) for item in table["item"]]
    assert table["tiles"].tolist() == [None] * 5
    assert list_recordings(str(tmp_path)).equals(table)
    assert list_recordings([tmp_path]).equals(table)


def test_flat_folder_has_no_labels(tmp_path):
    table = list_recordings(make(tmp_path, "b.wav", "a.wav"))
    assert table["name"].tolist() == ["a.wav", "b.wav"]
    assert table["label"].tolist() == [None, None]
    assert table["group"].tolist() == table["path"].tolist()


def test_a_file_beside_the_folders_has_no_label(tmp_path):
    assert list_recordings(make(tmp_path, "a.wav", "Monk/b.wav"))["label"].tolist() == [
        None,
        "Monk",
    ]


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
    assert list_recordings(tmp_path)["name"].tolist() == ["A/1.wav"]


def test_names_need_not_be_utf8(tmp_path):
    name = os.fsdecode("é\n,\"'".encode() + b"\xff.wav")
    make(tmp_path, f"Mönk/{name}")
    table = list_recordings(tmp_path)
    assert table["name"].tolist() == [f"Mönk/{name}"]
    assert table["item"][0].exists()
    write(tmp_path / "x.csv", "").write_bytes(
        b'path,label\n"M\xc3\xb6nk/\xc3\xa9\n,""\'\xff.wav",M\n'
    )
    assert list_recordings(tmp_path / "x.csv")["item"][0].exists()


def test_csv_paths_start_at_its_folder(tmp_path):
    make(tmp_path, "sub/a.wav")
    path = write(
        tmp_path / "list.csv",
        f"path,label\nsub/a.wav,Monk\n{tmp_path}/sub/a.wav,Monk\n../b.wav,\n",
    )
    table = list_recordings(path)
    assert table["item"].tolist() == [
        tmp_path / "sub/a.wav",
        tmp_path / "sub/a.wav",
        tmp_path / "../b.wav",
    ]
    assert (
        table["path"].tolist()
        == table["name"].tolist()
        == ["sub/a.wav", f"{tmp_path}/sub/a.wav", "../b.wav"]
    )
    assert table["label"].tolist() == ["Monk", "Monk", None]
    here = str(tmp_path / "sub/a.wav")  # one file is one group, however it is spelled
    assert table["group"].tolist() == [here, here, str(tmp_path.parent / "b.wav")]


def test_one_file_has_one_group_in_every_form(tmp_path, monkeypatch):
    make(tmp_path, "A/1.wav")
    monkeypatch.chdir(tmp_path)
    for X in (
        "A",
        "A/1.wav",
        ["A/1.wav"],
        "../" + tmp_path.name + "/A",
        pd.DataFrame({"path": ["./A/1.wav"]}),
    ):
        assert list_recordings(X)["group"].tolist() == [str(tmp_path / "A/1.wav")]


def test_one_file_with_two_labels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = (
        f"list_recordings: X must give a recording one label, got Monk and Evans for {str(tmp_path / 'a.wav')!r}. "
        "Keep one of them."
    )
    refuse(message, list_recordings, ["a.wav", "./a.wav"], ["Monk", "Evans"])
    refuse(
        message,
        list_recordings,
        write(tmp_path / "x.csv", "path,label\na.wav,Monk\nb/../a.wav,Evans\n"),
    )
    assert list_recordings(["a.wav", "./a.wav"], ["Monk", "Monk"])[
        "label"
    ].tolist() == ["Monk", "Monk"]
    assert len(list_recordings([np.ones((2, 2))] * 2, ["Monk", "Evans"])) == 2


def test_csv_is_text(tmp_path):
    text = "path,label,year\na.wav,007,1955\nb.wav,NA,\n1.0,None,x\n"
    for encoding in ("utf-8", "utf-8-sig"):
        table = list_recordings(write(tmp_path / "list.CSV", text, encoding))
        assert table["path"].tolist() == ["a.wav", "b.wav", "1.0"]
        assert table["label"].tolist() == ["007", "NA", "None"]
        assert table["year"].tolist() == ["1955", "", "x"]


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
def test_group_column(tmp_path, header, group_by, groups):
    path = write(tmp_path / "x.csv", f"path,label,{header}\na,M,x,1\nb,E,x,1\nc,E,,\n")
    assert list_recordings(path, group_by=group_by)["group"].tolist() == [
        g.format(tmp_path) for g in groups
    ]


def test_data_frame(tmp_path):
    frame = pd.DataFrame(
        {
            "path": [Path("a"), "b", "c"],
            "label": [1, "", None],
            "album": [None, np.nan, "7"],
        },
        [5, 5, 6],
    )
    before = frame.copy()
    table = list_recordings(frame)
    assert table["path"].tolist() == ["a", "b", "c"]
    assert table["item"].tolist() == [Path("a"), Path("b"), Path("c")]
    assert table["label"].tolist() == [1, None, None]
    assert table["group"].tolist()[:2] == [
        os.path.abspath("a"),
        os.path.abspath("b"),
    ]  # an unknown album is not one album
    assert table["group"][2] == "None/7"
    assert table.index.tolist() == [0, 1, 2]
    pd.testing.assert_frame_equal(frame, before)
    again = list_recordings(table)
    pd.testing.assert_frame_equal(again, table)


def test_columns_of_the_user_do_not_get_in_the_way():
    frame = pd.DataFrame({"path": ["a"], "item": [3], "name": ["Blue Monk"]})
    table = list_recordings(frame)
    assert table["item"].tolist() == [Path("a")]
    assert table["group"].tolist() == [os.path.abspath("a")]


def test_arrays():
    cqt = np.ones((3, 4))
    for X in ([cqt, 2 * cqt], (cqt, 2 * cqt), np.stack([cqt, 2 * cqt])):
        table = list_recordings(X, y=["a", "b"], groups=[7, 7])
        assert (
            table["path"].tolist() == table["name"].tolist() == ["array 0", "array 1"]
        )
        assert table["label"].tolist() == ["a", "b"]
        assert table["group"].tolist() == [7, 7]
        assert np.array_equal(table["item"][1], 2 * cqt)


def test_sequences_of_paths(tmp_path):
    names = ["x/a.wav", "x/b.npy"]
    for X in (
        names,
        tuple(names),
        np.array(names),
        np.array(names, object),
        pd.Series(names, [3, 4]),
        pd.Index(names),
    ):
        table = list_recordings(X)
        assert table["path"].tolist() == names
        assert table["name"].tolist() == ["a.wav", "b.npy"]
        assert table["item"].tolist() == [Path(name) for name in names]


def test_mixed_list(tmp_path):
    make(tmp_path, "folder/Monk/Solo/a.wav", "one.flac")
    write(tmp_path / "list.csv", "path,label,album\none.flac,Evans,X\n")
    X = [
        tmp_path / "folder",
        str(tmp_path / "list.csv"),
        np.ones((2, 2)),
        "gone.wav",
        tmp_path / "one.flac",
    ]
    table = list_recordings(X)
    assert table["name"].tolist() == [
        "Monk/Solo/a.wav",
        "one.flac",
        "array 2",
        "gone.wav",
        "one.flac",
    ]
    assert table["label"].tolist() == ["Monk", "Evans", None, None, None]
    assert table["group"].tolist() == [
        *("Monk/Solo", "Evans/X", "array 2"),
        *(os.path.abspath("gone.wav"), str(tmp_path / "one.flac")),
    ]
    assert table["item"][3] == Path("gone.wav")  # a missing file is a row


def test_one_recording(tmp_path):
    table = list_recordings(make(tmp_path, "a.wav") / "a.wav")
    assert table["name"].tolist() == ["a.wav"]


@pytest.mark.parametrize("name", ["gone.wav", "gone.FLAC", "gone.npy"])
def test_one_recording_that_is_missing_is_a_row(tmp_path, name):
    assert list_recordings(tmp_path / name)["item"].tolist() == [tmp_path / name]


def test_y_and_groups_come_before_what_the_folders_say(tmp_path):
    make(tmp_path, "A/x/1.wav", "B/y/2.wav")
    y = pd.Series(["p", "q"], index=[8, 9])
    table = list_recordings(tmp_path, y=y, groups=["g", "h"])
    assert table[["label", "group"]].values.tolist() == [["p", "g"], ["q", "h"]]


@pytest.mark.parametrize("nothing", [None, float("nan"), pd.NA, ""])
def test_no_group_is_a_group_of_its_own(tmp_path, nothing):
    make(tmp_path, "A/x/1.wav", "A/x/2.wav", "A/x/3.wav")
    own = [str(tmp_path / f"A/x/{n}.wav") for n in (1, 2, 3)]
    assert list_recordings(tmp_path, groups=[nothing] * 3)["group"].tolist() == own
    assert list_recordings(tmp_path, groups=["g", nothing, ("a", 1)])[
        "group"
    ].tolist() == ["g", own[1], ("a", 1)]
    arrays = [np.ones((2, 2))] * 2
    assert list_recordings(arrays, groups=[nothing] * 2)["group"].tolist() == [
        "array 0",
        "array 1",
    ]


@pytest.mark.parametrize(
    ("y", "got"),
    [
        ("ab", "str"),
        (3, "int"),
        ({"a": 1, "b": 2}, "dict"),
        ({1, 2}, "set"),
        (np.array(["a"]).reshape(()), "ndarray"),
        (np.array([["a"], ["b"]]), "ndarray"),
        (pd.DataFrame({"y": ["a", "b"]}), "DataFrame"),
        ([["a"], ["b"]], "list of several per entry"),
        ([("a", "b"), ("b", "c")], "list of several per entry"),
    ],
)
def test_y_is_flat(y, got):
    message = f"list_recordings: y must be a sequence with one entry per recording, got {got}. Write a flat list."
    refuse(message, list_recordings, ["p.wav", "q.wav"], y)
    if not isinstance(y, list) or isinstance(y[0], list):
        refuse(
            message.replace(" y ", " groups "),
            list_recordings,
            ["p.wav", "q.wav"],
            None,
            y,
        )


def test_links_are_followed_but_not_in_circles(tmp_path):
    make(tmp_path, "disk/Solo/a.wav", "takes/Evans/b.wav")
    (tmp_path / "takes/Monk").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/round").symlink_to(tmp_path / "takes")
    (tmp_path / "takes/self").symlink_to(tmp_path / "takes")
    assert list_recordings(tmp_path / "takes")["name"].tolist() == [
        "Evans/b.wav",
        "Monk/Solo/a.wav",
    ]


def test_nothing_is_found(tmp_path):
    path = write(tmp_path / "x.csv", "path,label\n")
    refuse(
        f"list_recordings: X must hold recordings, got none in {str(path)!r}. {HINT}",
        list_recordings,
        path,
    )
    refuse(
        f"list_recordings: X must hold recordings, got none in a list. {HINT}",
        list_recordings,
        [],
    )
    folder = make(tmp_path / "empty", "a.txt")
    for X in (folder, [folder]):
        message = f"list_recordings: X must hold recordings, got none below {str(folder)!r}. {HINT}"
        refuse(message, list_recordings, X)


def test_what_is_no_recording(tmp_path):
    advice = "See its docstring."
    refuse(
        f"list_recordings: X must be paths, a table or CQT arrays, got int. {advice}",
        list_recordings,
        3,
    )
    refuse(
        f"list_recordings: X must be paths, a table or CQT arrays, got dict. {advice}",
        list_recordings,
        {},
    )
    message = "list_recordings: X must be paths, a table or CQT arrays, got generator. Write list(X)."
    refuse(message, list_recordings, (name for name in ["a.wav"]))
    message = "list_recordings: X must hold paths or CQT arrays, got int. Convert its entries."
    refuse(message, list_recordings, ["a.wav", 3])
    message = "list_recordings: X must be a sequence of recordings, got one array of shape (84, 3). Write [cqt]."
    refuse(message, list_recordings, np.ones((84, 3)))


def test_missing_path(tmp_path):
    for path in (str(tmp_path / "gone"), str(tmp_path / "gone.csv")):
        refuse(
            f"list_recordings: X must exist, got {path!r}. Check the spelling of the path.",
            list_recordings,
            path,
        )


@pytest.mark.parametrize("values", [["a"], ["a", "b", "c"]])
def test_lengths_differ(values):
    rule = "must have one entry per recording"
    advice = "Count the recordings of X."
    got = f"got {len(values)} for 2"
    refuse(
        f"list_recordings: y {rule}, {got}. {advice}",
        list_recordings,
        ["p", "q"],
        values,
    )
    refuse(
        f"list_recordings: groups {rule}, {got}. {advice}",
        list_recordings,
        ["p", "q"],
        None,
        values,
    )


def test_columns_that_are_missing(tmp_path):
    path = write(tmp_path / "x.csv", "file,label\na,b\n")
    advice = "Name the column that holds the files path."
    message = f"list_recordings: X must have the column path, got file, label in {str(path)!r}. {advice}"
    refuse(message, list_recordings, path)
    message = f"list_recordings: X must have the column path, got 0 in 'X'. {advice}"
    refuse(message, list_recordings, pd.DataFrame([1]))
    message = "list_recordings: group_by must be a column, got 'disc' in 'X'. Choose one of path, label."
    refuse(
        message,
        list_recordings,
        pd.DataFrame({"path": ["a"], "label": ["b"]}),
        group_by="disc",
    )
    folder = make(tmp_path / "f", "a.wav")
    message = (
        "list_recordings: group_by must name a column of a table, got 'disc' for a folder. "
        "Give a csv with the columns path, label and that one."
    )
    refuse(message, list_recordings, folder, group_by="disc")


def test_csv_that_cannot_be_read(tmp_path):
    path = write(tmp_path / "x.csv", "")
    fault = "No columns to parse from file"
    message = f"list_recordings: X must be a readable csv, got {str(path)!r}: {fault}. Save it anew."
    refuse(message, list_recordings, path)


def test_spaces_around_names_in_a_csv(tmp_path):
    path = write(
        tmp_path / "x.csv",
        " path , label, album\na.wav, Monk , Solo\nb.wav,Monk,Solo \n",
    )
    table = list_recordings(path)
    assert table[["path", "label", "group"]].values.tolist() == [
        ["a.wav", "Monk", "Monk/Solo"],
        ["b.wav", "Monk", "Monk/Solo"],
    ]
    make(tmp_path, "a.wav", "b.wav")
    assert join_labels([tmp_path / "a.wav", tmp_path / "b.wav"], path)[
        "label"
    ].tolist() == ["Monk", "Monk"]


@pytest.mark.parametrize("column", ["label", "album"])
def test_csv_that_is_not_utf8(tmp_path, column):
    path = write(tmp_path / "x.csv", f"path,{column}\na.wav,Dvořák\n", "iso-8859-2")
    message = f"list_recordings: {column} must be UTF-8, got 'Dvo\\udcf8\\udce1k' in {str(path)!r}. Save the csv as UTF-8."
    refuse(message, list_recordings, path)


@pytest.mark.parametrize("mark", [";", "\t"])
def test_csv_without_commas(tmp_path, mark):
    path = write(tmp_path / "x.csv", f"path{mark}label\na.wav{mark}Monk\n")
    header = f"path{mark}label"
    message = (
        f"list_recordings: X must be a csv with commas, got the header {header!r} in {str(path)!r}. "
        "Separate the columns with commas."
    )
    refuse(message, list_recordings, path)
    make(tmp_path, "a.wav")
    refuse(message, join_labels, tmp_path / "a.wav", path)


def test_tiles_and_status_of_the_user_are_no_manifest(tmp_path):
    text = (
        "path,label,status,reason,message,tiles\na.wav,M,error,lost,gone,on the roof\n"
    )
    for X in (
        write(tmp_path / "x.csv", text),
        write(tmp_path / "recordings.csv", text),
    ):
        table = list_recordings(X)
        assert table["item"].tolist() == [tmp_path / "a.wav"]
        assert table["tiles"].tolist() == [None]
        assert table["status"].tolist() == ["error"]


def test_tile_folder_that_is_not_finished(tmp_path):
    write(tmp_path / "spec.json", "{}")
    make(tmp_path, "tiles/a.wav/00000.png")
    message = (
        f"list_recordings: X must be a finished folder of tiles, got {str(tmp_path)!r} without recordings.csv. "
        "Run render again; what is finished is not done again."
    )
    refuse(message, list_recordings, tmp_path)
    (tmp_path / "tiles").rename(
        tmp_path / "takes"
    )  # a folder of recordings with a preset of its own
    make(tmp_path, "takes/b.wav")
    assert len(list_recordings(tmp_path)) == 1


def test_tile_folder(tmp_path):
    write(tmp_path / "spec.json", "{}")
    assert tile_folder(tmp_path / "recordings.csv") == tmp_path
    for path in (tmp_path, tmp_path / "other.csv", tmp_path / "sub/recordings.csv"):
        assert tile_folder(path) == path


def test_rows_that_failed_to_render_are_errors(tmp_path):
    write(tmp_path / "spec.json", "{}")
    header = "path,label,group,status,reason,message,tiles"
    write(
        tmp_path / "recordings.csv",
        f"{header}\na,M,g,ok,,,tiles/a\nb,007,h,error,silent,It is silent.,\n",
    )
    for X in (tmp_path, [tmp_path], tmp_path / "recordings.csv"):
        table = list_recordings(X)
        assert table["tiles"].tolist() == [str(tmp_path / "tiles/a"), None]
        assert table[["label", "group"]].values.tolist() == [["M", "g"], ["007", "h"]]
        assert table["item"][0] == tmp_path / "a"
        assert isinstance(table["item"][1], AudioError)
        assert (table["item"][1].reason, str(table["item"][1])) == (
            "silent",
            "It is silent.",
        )


@pytest.mark.parametrize("form", ["below the folder", "as listed", "below the csv"])
def test_join_labels(tmp_path, form, caplog):
    make(tmp_path, "takes/A/x/1.wav", "takes/A/x/2.wav", "takes/B/3.wav")
    base = {
        "below the folder": "",
        "as listed": f"{tmp_path}/takes/",
        "below the csv": "takes/",
    }[form]
    path = write(
        tmp_path / "who.csv",
        f"path,label,year\n{base}B/3.wav,007,1957\n{base}A/x/1.wav,Monk,1958\n",
    )
    with caplog.at_level(logging.WARNING):
        table = join_labels(tmp_path / "takes", path)
    assert table["name"].tolist() == ["B/3.wav", "A/x/1.wav"]
    assert table["label"].tolist() == ["007", "Monk"]
    assert table["year"].tolist() == ["1957", "1958"]
    assert table["group"].tolist() == [
        str(tmp_path / "takes/B/3.wav"),
        "A/x",
    ]  # as the folders say
    assert table["item"].tolist() == [
        tmp_path / "takes/B/3.wav",
        tmp_path / "takes/A/x/1.wav",
    ]
    assert caplog.messages == [f"left out 1 of 3 recordings that {path} does not name"]
    pd.testing.assert_frame_equal(list_recordings(table), table)


def test_join_labels_with_tiles_by_what_was_rendered(tmp_path):
    write(tmp_path / "spec.json", "{}")
    header = "path,label,group,status,reason,message,tiles"
    rows = "takes/x/a.wav,M,g,ok,,,tiles/x/a.wav\ntakes/x/b.wav,M,h,error,silent,It is silent.,\n"
    write(tmp_path / "recordings.csv", f"{header}\n{rows}")
    (tmp_path / "lists").mkdir()
    path = write(
        tmp_path / "lists/who.csv", "path,label\nx/b.wav,Evans\nx/a.wav,Monk\n"
    )
    table = join_labels(tmp_path, path)
    assert table["label"].tolist() == ["Evans", "Monk"]
    assert table["tiles"].tolist() == [None, str(tmp_path / "tiles/x/a.wav")]


@pytest.mark.parametrize(("column", "group_by"), [("album", None), ("disc", "disc")])
def test_join_labels_with_groups(tmp_path, column, group_by):
    make(tmp_path, "A/x/1.wav")
    path = write(tmp_path / "who.csv", f"path,label,{column}\nA/x/1.wav,Monk,Solo\n")
    assert join_labels(tmp_path, path, group_by)["group"].tolist() == ["Monk/Solo"]


def test_join_labels_of_what_is_not_there(tmp_path):
    make(tmp_path, "a.wav")
    path = write(tmp_path / "who.csv", "path,label\na.wav,M\nb.wav,M\n")
    message = (
        f"join_labels: labels must name recordings of {str(tmp_path)!r}, got 'b.wav' in {str(path)!r}. "
        "Write the paths as they are below that folder."
    )
    refuse(message, join_labels, tmp_path, path)
    write(path, "path,who\na.wav,M\n")
    message = (
        f"join_labels: labels must have the column label, got path, who in {str(path)!r}. "
        "Name the column that holds the labels label."
    )
    refuse(message, join_labels, tmp_path, path)
