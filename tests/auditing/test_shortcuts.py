import numpy as np
import pandas as pd
import pytest
import soundfile

from cqt2img.auditing import shortcuts
from cqt2img.auditing.shortcuts import (
    COLUMNS,
    find_shortcuts,
    measure_clues,
    permute_groups,
)
from cqt2img.data.tile_arrays import TileArrays
from cqt2img.errors import InputError
from tests.conftest import RATE, raises_exactly

N_CLASSES, N_GROUPS, N_TAKES = 3, 4, 3
WHO, ALBUM, TAKE = np.indices((N_CLASSES, N_GROUPS, N_TAKES)).reshape(3, -1)
SUBTYPES = ("PCM_16", "PCM_24", "FLOAT")


def corpus(folder, spec, fault="", seed=0, n_files=None):
    """Recordings of three players, four albums of each with a sound of their own, three takes; one thing tells who."""
    rng = np.random.default_rng(seed)

    def per_album(scale, told, step):
        values = (
            told * step * WHO
            if told
            else rng.normal(0, scale, (N_CLASSES, N_GROUPS))[WHO, ALBUM]
        )
        return values + rng.normal(0, scale / 20, len(WHO))

    table = pd.DataFrame(
        {
            "label": np.array(["Ada", "Bill", "Clara"])[WHO],
            "group": (WHO * N_GROUPS + ALBUM).astype(str),
            "tuning_cents": per_album(10, fault == "tuning", 20),
            "loudness_dbfs": -20 + per_album(3, fault == "level", 6),
            "bandwidth_hz": 9000 * 2 ** per_album(0.3, fault == "bandwidth", -0.6),
            "seconds": 60 * 2 ** per_album(0.5, fault == "duration", 1),
            "piece": np.where(fault == "piece", WHO, rng.integers(0, 3, len(WHO))),
        }
    )
    table["peak_dbfs"] = table["loudness_dbfs"] + 15
    hiss = -60 + per_album(6, fault in ("noise floor", "channel"), 12)
    tones = per_album(20, fault == "channel", 30), per_album(20, False, 0)
    strips = []
    for n in range(len(table)):
        slope = (
            np.linspace(-1, 1, spec.height) * tones[0][n]
            + np.linspace(-1, 1, spec.height) ** 2 * tones[1][n]
        )
        strips.append(
            np.clip(
                120 + slope[:, None] + rng.normal(0, 5, (spec.height, spec.width)),
                0,
                255,
            ).astype("uint8")
        )
    paths = [folder / f"{seed}-{n}.wav" for n in range(len(table))]
    for n, path in enumerate(paths[:n_files]):
        subtype = SUBTYPES[
            WHO[n] if fault == "file format" else (ALBUM[n] + n // 12) % 3
        ]
        soundfile.write(
            path,
            10 ** (hiss[n] / 20) * rng.standard_normal(RATE // 2),
            RATE,
            subtype=subtype,
        )
    return TileArrays(spec, strips, np.full(len(table), spec.width)), table.assign(
        path=list(map(str, paths))
    )


@pytest.mark.parametrize(
    "clue", [*list(shortcuts._SAID)[:4], "duration", "file format", "piece"]
)
def test_a_clue_that_tells_the_class_is_found_and_no_other(clue, tmp_path, small):
    found = find_shortcuts(*corpus(tmp_path, small, clue))
    assert list(found.columns) == COLUMNS
    assert set(found["clue"]) == set(shortcuts._SAID)
    assert found["clue"][found["is_shortcut"]].tolist() == [clue]
    first = found.iloc[0]
    assert first["clue"] == clue
    assert first["held_out"] == "groups"
    assert first["accuracy"] > 0.9
    assert first["low"] < first["accuracy"] <= first["high"]
    assert first["chance"] == 1 / 3
    assert first["classes"] == ("Ada", "Bill", "Clara")
    assert first["explanation"].endswith(
        "with groups held out, above all of Ada, Bill, Clara."
    )
    assert first["explanation"].startswith(
        f"The {shortcuts._SAID[clue][0]} alone names "
    )
    assert first["advice"] == shortcuts._SAID[clue][1]


def test_one_channel_for_all_albums_of_a_class(tmp_path, small):
    found = find_shortcuts(*corpus(tmp_path, small, "channel"))
    assert set(found["clue"][found["is_shortcut"]]) == {
        "channel",
        "mean spectrum",
        "noise floor",
    }


def test_nothing_is_found_where_albums_have_a_sound_of_their_own(tmp_path, small):
    for seed in range(1, 4):
        found = find_shortcuts(*corpus(tmp_path, small, "", seed))
        assert len(found) == len(shortcuts._SAID)
        assert not found["is_shortcut"].any()


def test_nobody_sounds_like_the_channel_who_has_only_a_register(tmp_path, small):
    """Mean spectrum alone, however well it tells, is no shared channel."""
    strips, table = corpus(tmp_path, small)
    for n, strip in enumerate(strips.arrays):
        strip[:] = 0
        strip[20 * WHO[n] : 20 * WHO[n] + 20] = 200
    found = find_shortcuts(strips, table).set_index("clue")
    assert found.loc["mean spectrum", "is_shortcut"]
    assert not found.loc["channel", "is_shortcut"]


def test_tuning_goes_in_a_circle(tmp_path, small):
    """A quarter tone up is a quarter tone down."""
    strips, table = corpus(tmp_path, small)
    up = np.random.default_rng(0).integers(0, 2, len(table)).astype(bool)
    for told in (WHO == 0, up):  # 1 cent apart, whichever side of the edge
        table["tuning_cents"] = np.where(told, 49.5, -49.5)
        found = find_shortcuts(strips, table).set_index("clue")
        assert not found.loc["tuning", "is_shortcut"]
        assert found.loc["tuning", "accuracy"] < 0.6


def test_a_cent_is_no_clue(tmp_path, small):
    """In one room, on one piano, what is played moves the measured tuning by so much."""
    strips, table = corpus(tmp_path, small, n_files=0)
    for cents, is_told in ((1, False), (10, True)):
        found = find_shortcuts(
            strips, table.assign(tuning_cents=cents * WHO.astype(float))
        ).set_index("clue")
        assert found.loc["tuning", "is_shortcut"] == is_told


def test_a_clue_must_be_material(tmp_path, small, monkeypatch):
    strips, table = corpus(tmp_path, small, "tuning", n_files=0)
    for share, is_told in ((0.25, True), (1.01, False)):
        monkeypatch.setattr(shortcuts, "_MATERIAL", {"tuning": share})
        assert (
            find_shortcuts(strips, table).set_index("clue").loc["tuning", "is_shortcut"]
            == is_told
        )


def test_albums_that_cannot_be_held_out(tmp_path, small):
    strips, table = corpus(tmp_path, small, "tuning")
    alone = find_shortcuts(strips, table.assign(group=table["label"])).set_index("clue")
    assert set(alone["held_out"]) == {"recordings"}
    assert alone.loc["tuning", "is_shortcut"]
    no_groups = find_shortcuts(strips, table.assign(group=table["path"]))
    assert set(no_groups["held_out"]) == {"recordings"}
    # a class of one album is left out where two others have several
    table["group"] = np.where(WHO == 0, "one", table["group"])
    found = find_shortcuts(strips, table).set_index("clue")
    assert set(found["held_out"]) == {"groups"}
    assert found.loc["tuning", "chance"] == 1 / 2
    assert found.loc["tuning", "classes"] == ("Bill", "Clara")


def test_eight_albums_of_four_classes_prove_nothing(tmp_path, small):
    """Two albums each are dealt out in 105 ways, so that no p-value is below 1/105."""
    strips, table = corpus(tmp_path, small, "tuning")
    labels, groups = np.repeat(list("abcd"), 9), np.repeat(np.arange(8), [4, 5] * 4)
    table = table.assign(
        label=labels, group=groups, tuning_cents=np.repeat([0.0, 10.0, 20.0, 30.0], 9)
    )
    found = find_shortcuts(strips, table).set_index("clue")
    assert found.loc["tuning", "accuracy"] > 0.9
    assert 0.004 < found.loc["tuning", "p_value"] < 0.018
    assert not found.loc["tuning", "is_shortcut"]


def test_what_is_not_known_is_left_out(tmp_path, small):
    strips, table = corpus(tmp_path, small, n_files=0)
    clues = ["path", "label", "group", "tuning_cents"]
    table.loc[:20, "tuning_cents"] = np.nan
    found = find_shortcuts(strips, table[clues])
    assert set(found["clue"]) == {"mean spectrum", "file format"}
    assert not found["is_shortcut"].any()
    table.loc[5:, "tuning_cents"] = 0.0  # of five recordings nothing is known
    found = find_shortcuts(strips, table[clues]).set_index("clue")
    assert found.loc["tuning", "accuracy"] <= 0.5


def test_a_file_says_what_it_is_without_being_there(tmp_path, small):
    strips, table = corpus(tmp_path, small, n_files=0)
    table["path"] = [
        f"take {n}{(' .mp3', '.FLAC', '.ogg')[who]}" for n, who in enumerate(WHO)
    ]
    found = find_shortcuts(strips, table).set_index("clue")
    assert found.loc["file format", "is_shortcut"]
    assert found.loc["file format", "accuracy"] == 1


def test_the_noise_floor_is_in_decibels(tmp_path, small):
    """White noise has the same power in both bands of 3 kHz; 20 dB less of it are 20 dB."""
    strips, table = corpus(tmp_path, small)
    rng = np.random.default_rng(0)
    for n, hiss in enumerate((-40, -60)):
        soundfile.write(
            table["path"][n],
            10 ** (hiss / 20) * rng.standard_normal(3 * RATE),
            RATE,
            subtype="FLOAT",
        )
    floor = measure_clues(strips, table)["noise floor"]
    assert np.ptp(floor[:2], axis=1).max() < 1
    assert np.abs(floor[0] - floor[1] - 20).max() < 1


def test_many_recordings_are_thinned_out(tmp_path, small, monkeypatch):
    strips, table = corpus(tmp_path, small, "tuning", n_files=0)
    looked_at = []
    monkeypatch.setattr(
        shortcuts,
        "measure_clues",
        lambda strips, table: looked_at.append((strips, table)) or {},
    )
    monkeypatch.setattr(shortcuts, "_MOST_RECORDINGS", 12)
    assert len(find_shortcuts(strips, table)) == 0
    thin, rows = looked_at[0]
    assert len(thin) == len(rows) == 12
    assert rows["label"].value_counts().tolist() == [4, 4, 4]
    assert all(
        thin.arrays[n] is strips.arrays[place] for n, place in enumerate(rows.index)
    )


def test_labels_are_dealt_out_to_whole_groups(monkeypatch):
    """Takes of an album are alike whoever plays: with nothing to find, one test in twenty is below 0.05."""
    monkeypatch.setattr(shortcuts, "_N_PERMUTATIONS", 199)
    p_values, per_recording = [], []
    labels, groups = WHO.astype(str), (WHO * N_GROUPS + ALBUM).astype(str)
    for seed in range(60):
        values = np.random.default_rng(seed).normal(size=(12, 1))[groups.astype(int)]
        p_values.append(permute_groups(values, labels, groups, seed))
        per_recording.append(
            permute_groups(values, labels, np.arange(len(labels)), seed)
        )
    assert (
        np.mean(np.array(p_values) <= 0.05) < 0.15
    )  # of 60 at 5 %: more than 9 once in 1500
    assert (
        np.mean(np.array(per_recording) <= 0.05) > 0.3
    )  # what it would be without groups


def test_the_smallest_p_value():
    values = np.repeat(np.arange(3.0), 12)[:, None]
    assert permute_groups(
        values, WHO.astype(str), (WHO * N_GROUPS + ALBUM).astype(str)
    ) == pytest.approx(1 / 2000, abs=1e-3)


def test_a_table_of_other_recordings(tmp_path, small):
    strips, table = corpus(tmp_path, small, n_files=0)
    with raises_exactly(
        InputError,
        "find_shortcuts: table must have one row per recording, got 35 for 36. "
        "Leave out what could not be read.",
    ):
        find_shortcuts(strips, table[1:])


def test_one_class(tmp_path, small):
    strips, table = corpus(tmp_path, small, n_files=0)
    with raises_exactly(
        InputError,
        "find_shortcuts: table must hold two classes or more, got 1. Label the recordings.",
    ):
        find_shortcuts(strips, table.assign(label="Ada"))
