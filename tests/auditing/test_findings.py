from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cqt2img.auditing import findings as find
from cqt2img.evaluation.evaluation import evaluate_proba


def corpus(n_albums=2, n_takes=2, **columns):
    rows = [
        {
            "path": f"{player}/{album}/take {take}.flac",
            "label": player,
            "group": f"{player}/{album}",
        }
        for player in ("Evans", "Monk")
        for album in range(n_albums)
        for take in range(n_takes)
    ]
    return pd.DataFrame(rows).assign(**columns)


def only(found):
    (one,) = list(found)
    assert one.severity in find.SEVERITIES
    return one


def pairs(*two):
    return pd.DataFrame(two, columns=["first", "second"], dtype=int)


def rung(held_out, accuracy, n=100):
    codes = np.tile([0, 1], n // 2)
    named = np.where(np.arange(n) < accuracy * n, codes, 1 - codes)
    scores = evaluate_proba(np.eye(2, dtype=np.float32)[named], codes, ["a", "b"])
    return SimpleNamespace(held_out=held_out, scores=scores)


def test_groups_on_two_sides():
    table = corpus(
        split=["train", "test", "train", "train", "train", "train", "test", "test"]
    )
    found = only(find.find_leaks(table))
    assert (found.kind, found.severity) == ("leak", "fault")
    assert found.title.startswith("1 group stands on two sides of the split: Evans/0.")
    assert found.files == ("Evans/0/take 0.flac", "Evans/0/take 1.flac")


def test_whole_groups_and_no_split_are_no_leak():
    assert not list(find.find_leaks(corpus()))
    assert not list(find.find_leaks(corpus(split=np.repeat(["train", "test"] * 2, 2))))


def test_clips_of_one_recording_are_known_by_their_names_where_nobody_gave_groups():
    names = [
        "Dinah_01.wav",
        "Dinah_02.wav",
        "Ruby-tile-3.wav",
        "Ruby-tile-4.wav",
        "Israel.wav",
        "Nardis.wav",
    ]
    table = pd.DataFrame(
        {"path": names, "group": names, "label": ["Monk"] * 4 + ["Evans"] * 2}
    )
    found = only(
        find.find_leaks(
            table.assign(split=["train", "test", "train", "train", "train", "test"])
        )
    )
    assert "Dinah" in found.title
    assert found.files == ("Dinah_01.wav", "Dinah_02.wav")
    assert not list(
        find.find_leaks(
            table.assign(split=["train", "train", "test", "test", "train", "test"])
        )
    )


@pytest.mark.parametrize(
    ("pair", "kind", "severity"),
    [
        ((0, 4), "duplicate labels", "fault"),
        ((0, 2), "leak", "fault"),
        ((0, 1), "duplicates", "warning"),
    ],
)
def test_one_take_twice_is_sorted_by_the_worst_that_it_spoils(pair, kind, severity):
    table = corpus(split=np.repeat(["train", "test"] * 2, 2))
    found = only(find.find_twice(pairs(pair), table))
    assert (found.kind, found.severity) == (kind, severity)
    assert found.files == (f"{table['path'][pair[0]]} = {table['path'][pair[1]]}",)
    assert found.title.startswith("2 recordings are the same take, ")


def test_one_take_in_two_albums_is_a_fault_without_a_split_too():
    found = only(find.find_twice(pairs((0, 2), (1, 3)), corpus()))
    assert (found.kind, found.severity) == ("duplicates", "fault")
    assert found.title.startswith(
        "2 pairs of recordings are each the same take, in two groups, so that"
    )
    assert not list(find.find_twice(pairs(), corpus()))


def test_want_of_groups_and_of_albums():
    table = corpus()
    assert (
        only(find.find_bare_groups(table.assign(group=table["path"]), [])).kind
        == "no groups"
    )
    found = only(find.find_bare_groups(table, ["Monk"]))
    assert (found.kind, found.severity, len(found.files)) == ("one album", "fault", 4)
    assert found.title.startswith("1 of 2 classes have one album only: Monk.")
    assert not list(find.find_bare_groups(table, []))


def test_the_album_effect_is_said_in_points():
    ladder = [rung("tiles", 0.9), rung("recordings", 0.8), rung("albums", 0.3)]
    gap = SimpleNamespace(difference=0.6, interval=(0.5, 0.7))
    found = only(find.find_album_effect(ladder, gap))
    assert found.severity == "warning"
    assert "90%" in found.title
    assert "30%: 60 points (50 to 70) come from how albums sound." in found.title
    weak = SimpleNamespace(difference=0.08, interval=(0.03, 0.13))
    assert only(find.find_album_effect(ladder, weak)).severity == "note"
    for none in (None, SimpleNamespace(difference=0.08, interval=(-0.03, 0.19))):
        assert not list(find.find_album_effect(ladder, none))


def test_few_recordings_are_said_to_be_few():
    found = only(find.find_small(corpus(), [rung("albums", 0.5, 8)]))
    assert found.title.startswith(
        "8 recordings in 4 groups are few: the figure of 50% may as well be 16% or 84%."
    )
    assert not list(find.find_small(corpus(), [rung("albums", 0.5, 1000)]))
    assert not list(find.find_small(corpus(), []))


def stability(*changed, n=40):
    kinds = ["starts 1 s later", "room", "mp3 64 kbit/s"]
    return pd.DataFrame({"disturbance": kinds, "changed": changed, "n": n})


def test_changes_are_held_against_tiles_that_begin_elsewhere():
    found = only(find.find_unstable(stability(0.1, 0.6, 0.15)))
    assert "room (60%)" in found.title
    assert "mp3" not in found.title
    for calm in (
        stability(0.3, 0.35, 0.2),
        stability(0.0, 0.05, 0.0),
        None,
        stability(0, 0, 0)[:0],
    ):
        assert not list(find.find_unstable(calm))


def test_clues_names_suspects_and_the_rest():
    clue = {
        "clue": "tuning",
        "held_out": "groups",
        "is_shortcut": True,
        "explanation": "From tuning alone …",
        "advice": "Vary it.",
    }
    other = {**clue, "clue": "level", "is_shortcut": False}
    channel, spectrum = {**clue, "clue": "channel"}, {**clue, "clue": "mean spectrum"}
    assert only(find.find_clues(pd.DataFrame([spectrum]))).severity == "warning"
    found = list(find.find_clues(pd.DataFrame([clue, other, spectrum, channel])))
    assert [(one.kind, one.clue) for one in found] == [
        ("shortcut", "tuning"),
        ("shared channel", "channel"),
    ]
    names = pd.DataFrame({"first": ["Bill Evans"], "second": ["bill evans"]})
    assert "'Bill Evans' and 'bill evans'" in only(find.find_names(names)).title
    suspects = pd.DataFrame({"path": ["a.wav"], "label": ["Monk"], "likely": ["Evans"]})
    assert only(find.find_suspects(suspects)).files == ("a.wav: Monk, rather Evans",)
    assert only(find.find_unreadable(corpus()[:1])).files == ("Evans/0/take 0.flac",)
    for none in (
        find.find_clues(pd.DataFrame([other])),
        find.find_names(names[:0]),
        find.find_suspects(suspects[:0]),
        find.find_unreadable(corpus()[:0]),
        find.find_met(None),
    ):
        assert not list(none)


def test_what_the_model_met_is_a_fault():
    scores = SimpleNamespace(known_groups=("Solo Monk",), n_groups=4)
    found = only(find.find_met(scores))
    assert found.severity == "fault"
    assert found.title.startswith(
        "The model was trained on 1 of the 4 groups that it is asked about: Solo Monk."
    )
