import numpy as np
import pandas as pd
import pytest

from cqt2img.auditing.label_errors import (
    NEAR,
    SUSPECTS,
    find_label_errors,
    lone_albums,
    near_names,
)
from cqt2img.errors import InputError
from tests.conftest import raises_exactly

PLAYERS = ("Ada", "Bill", "Clara")


def corpus(n_albums=3, n_takes=8, seed=0, loud=4.0):
    """Sketches of three players, each album with a sound of its own, and the table that belongs to them."""
    rng = np.random.default_rng(seed)
    rows, sketches = [], []
    for who in PLAYERS:
        for album in range(n_albums):
            sound = loud * np.repeat(rng.standard_normal(8), 3)
            for take in range(n_takes):
                folder = f"{who}/{who} {album}"
                rows.append(
                    {
                        "path": f"{folder}/{take}.flac",
                        "label": who,
                        "group": folder,
                        "album": f"{who} {album}",
                    }
                )
                sketches.append(
                    (sound + rng.standard_normal((3, 24))).astype(np.float32)
                )
    return sketches, pd.DataFrame(rows)


def test_right_labels_are_not_doubted():
    for seed in range(3):
        found = find_label_errors(*corpus(seed=seed))
        assert list(found.columns) == SUSPECTS
        assert len(found) == 0


def test_a_take_in_the_wrong_album_is_heard():
    """Name, album and folder are all wrong, and the sound is that of the album where it was recorded."""
    for seed in range(3):
        sketches, table = corpus(seed=seed)
        sketches[3] = sketches[3 * 8 + 1] + np.float32(
            0.1
        )  # on a record of Ada, a take of Bill's
        found = find_label_errors(sketches, table)
        assert found[
            ["row", "path", "label", "likely", "by_group"]
        ].to_numpy().tolist() == [[3, "Ada/Ada 0/3.flac", "Ada", "Bill", False]]
        assert found["by_sound"][0] >= 1


def test_a_wrong_label_is_outvoted_by_its_album():
    sketches, table = corpus(n_takes=3)
    table.loc[[1, 12], "label"] = "Clara", "Ada"
    found = find_label_errors(sketches, table)
    assert found[["row", "label", "likely", "by_group"]].to_numpy().tolist() == [
        [1, "Clara", "Ada", True],
        [12, "Ada", "Bill", True],
    ]
    assert found["by_sound"].isna().all()  # of three takes nothing can be learned
    # the same where the group was named after the label, and folder and album still tell
    table["group"] = table["label"] + "/" + table["album"]
    assert find_label_errors(sketches, table)["row"].tolist() == [1, 12]
    assert find_label_errors(
        sketches, table.assign(path=[f"{n}.flac" for n in range(27)])
    )["row"].tolist() == [1, 12]
    assert (
        len(
            find_label_errors(
                sketches,
                table.drop(columns="album").assign(
                    path=[f"{n}.flac" for n in range(27)]
                ),
            )
        )
        == 0
    )


def test_ear_and_album_agree_and_come_first():
    sketches, table = corpus()
    sketches[3] = sketches[25]
    table.loc[70, "label"] = "Bill"
    found = find_label_errors(sketches, table)
    assert found["row"].tolist() == [70, 3]
    assert found["by_group"].tolist() == [True, False]
    assert found["likely"].tolist() == ["Clara", "Bill"]
    assert (found["by_sound"] >= 1).all()


def test_albums_of_several_players_accuse_nobody():
    """A festival: every group holds everybody."""
    sketches, table = corpus(n_takes=3)
    everybody = ["Ada"] * 5 + ["Bill", "Clara", "Dora", "Eve"]
    table = table.assign(
        label=everybody * 3,
        group=np.arange(27) // 9,
        path=[f"{n}.flac" for n in range(27)],
        album="",
    )
    assert len(find_label_errors(sketches, table)) == 0


def test_an_ear_that_hears_nothing_says_nothing():
    sketches, table = corpus(loud=0)
    assert len(find_label_errors(sketches, table)) == 0


def test_classes_are_listened_to_where_there_are_no_albums():
    sketches, table = corpus(n_albums=1, n_takes=30)
    table = table.assign(group=table["path"], album=table["path"])
    assert len(find_label_errors(sketches, table)) == 0
    sketches[3] = sketches[31]
    found = find_label_errors(sketches, table)
    assert found[["row", "likely"]].to_numpy().tolist() == [[3, "Bill"]]
    few = table.index[table.index % 2 == 1]
    assert len(find_label_errors([sketches[n] for n in few], table.iloc[few])) == 0


def test_few_tiles_teach_nothing():
    """Of more numbers than tiles any take looks odd."""
    sketches, table = corpus(n_takes=12)
    sketches[3] = sketches[37]
    assert len(find_label_errors([one[:1] for one in sketches], table)) == 1
    wide = [np.pad(one, ((0, 0), (0, 630))) for one in sketches]
    assert len(find_label_errors([one[:1] for one in wide], table)) == 0


def test_recordings_without_company():
    sketches, table = corpus(n_albums=1, n_takes=1)
    assert len(find_label_errors(sketches, table)) == 0


def test_a_sketch_too_few():
    sketches, table = corpus(n_albums=1)
    with raises_exactly(
        InputError,
        "find_label_errors: sketches must be one each, got 23 for 24. "
        "Sketch the recordings of the table.",
    ):
        find_label_errors(sketches[1:], table)


@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [
        ("Bill Evans", "bill evans", "spelling"),
        ("Bill Evans", "Evans, Bill", "spelling"),
        ("Bill Evans", "Bill_Evans", "spelling"),
        ("Bill Evans", "BillEvans", "spelling"),
        ("Béla Bartók", "Bela Bartok", "spelling"),
        ("Béla Bartók", "Be\u0301la Barto\u0301k", "spelling"),
        ("Béla Bartók", "Bartok, Bela", "spelling"),
        ("Weißenberg", "Weissenberg", "spelling"),
        ("Bill Evans", "Bil Evans", "one letter"),
        ("Bill Evans", "Bill Evens", "one letter"),
        ("Bill Evans", "Bill Evnas", "one letter"),
        ("Bill Evans", "Bill Evanss", "one letter"),
        ("Müller", "Mueller", "one letter"),
        ("Bill Evans", "Gil Evans", ""),
        ("Actor 01", "Actor 02", ""),
        ("Player 1", "Player 11", ""),
        ("Monk", "Mona", ""),
        ("Bach", "J. S. Bach", ""),
        ("??", "!!", ""),
        ("+", "-", ""),
    ],
)
def test_names(one, other, difference):
    found = near_names([one] * 4 + [other] * 2)
    assert list(found.columns) == NEAR
    assert found.to_numpy().tolist() == (
        [[one, other, difference]] if difference else []
    )


def test_two_large_classes_are_two_players_whatever_letter():
    assert len(near_names(["Anna Berg"] * 6 + ["Anne Berg"] * 4)) == 0
    assert len(near_names(["Anna Berg"] * 6 + ["anna berg"] * 6)) == 1


def test_names_that_are_no_text():
    assert near_names([1, 1, 2, 11]).empty
    assert near_names(["Monk"] * 3).empty
    assert near_names([]).empty


def test_classes_of_one_album():
    table = pd.DataFrame(
        {"label": ["c", "a", "a", "b", "b", 7], "group": [1, 1, 1, 2, 3, 4]}
    )
    assert lone_albums(table) == ["7", "a", "c"]
