"""The audit from end to end, on small synthetic corpora; which faults it finds is measured by benchmarks/planted.py."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

import cqt2img
from cqt2img.data.synthetic import make_corpus
from cqt2img.errors import InputError
from tests.conftest import raises_exactly


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Three players, three albums of each, three takes of 8 s."""
    root = tmp_path_factory.mktemp("corpus")
    files = make_corpus(
        root, n_players=3, n_albums=3, n_takes=3, seconds=8, random_state=1
    )
    players, albums = (
        [file.parts[-3] for file in files],
        [file.parts[-2] for file in files],
    )
    return pd.DataFrame(
        {"path": list(map(str, files)), "label": players, "album": albums}
    )


@pytest.fixture(scope="module")
def report(table):
    return cqt2img.audit(table, verbose=False)


def serious(report):
    return {one.kind for one in report.findings if one.severity != "note"} - {
        "album effect"
    }


def test_a_clean_corpus_is_called_clean(report):
    assert serious(report) == set()
    assert (report.n_recordings, report.n_groups, report.n_failed) == (27, 9, 0)
    assert [rung.held_out for rung in report.ladder] == [
        "tiles",
        "recordings",
        "albums",
    ]
    assert len(report.duplicates) == len(report.suspects) == 0
    assert report.scores is report.stability is None
    assert [text.get_text() for text in report.show().axes[0].get_yticklabels()] == [
        name for name, *_ in report.figures()
    ]


def test_a_copy_under_another_name_is_found(table, tmp_path):
    shutil.copy(table["path"][0], tmp_path / "again.flac")
    row = {
        "path": str(tmp_path / "again.flac"),
        "label": table["label"][20],
        "album": table["album"][20],
    }
    report = cqt2img.audit(
        pd.concat([table, pd.DataFrame([row])], ignore_index=True), verbose=False
    )
    assert report.findings[0].kind == "duplicate labels"
    assert report.verdict.startswith("A score on these recordings cannot be believed: ")
    assert "again.flac" in report.findings[0].files[0]


def test_an_album_on_both_sides_is_the_first_thing_said(table):
    split = ["test" if n % 3 == 0 else "train" for n in range(len(table))]
    report = cqt2img.audit(table.assign(split=split), verbose=False)
    assert report.findings[0].kind == "leak"
    assert len(report.findings[0].files) == 27


def test_one_bad_file_costs_one_file(table, tmp_path):
    (tmp_path / "bad.flac").write_text("no sound at all")
    row = {
        "path": str(tmp_path / "bad.flac"),
        "label": table["label"][0],
        "album": table["album"][0],
    }
    report = cqt2img.audit(
        pd.concat([pd.DataFrame([row]), table], ignore_index=True), verbose=False
    )
    assert (report.n_recordings, report.n_failed) == (27, 1)
    assert [one.files for one in report.findings if one.kind == "unreadable"] == [
        (str(tmp_path / "bad.flac"),)
    ]
    assert serious(report) == set()


def test_it_is_saved_as_text_json_and_a_page_that_needs_nothing_else(report, tmp_path):
    report.save(tmp_path / "audit")
    assert sorted(path.name for path in (tmp_path / "audit").iterdir()) == [
        "audit.json",
        "audit.txt",
        "index.html",
    ]
    about = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert about["verdict"] == report.verdict
    assert [row["name"] for row in about["figures"]][:3] == [
        "tiles at random",
        "recordings at random",
        "albums held out",
    ]
    assert all(
        0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1
        for row in about["figures"]
    )
    page = (tmp_path / "audit" / "index.html").read_text()
    assert report.verdict in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert (tmp_path / "audit" / "audit.txt").read_text() == f"{report}\n"


def test_names_of_files_are_no_html(table, tmp_path):
    evil = table.assign(split="train")
    evil.loc[0, "album"] = "<script>alert(1)</script>"
    evil.loc[1, ["album", "split"]] = ["<script>alert(1)</script>", "test"]
    cqt2img.audit(evil, verbose=False).save(tmp_path)
    assert "<script" not in (tmp_path / "index.html").read_text()


def test_a_model_is_asked_too(model, folder, tmp_path):
    report = cqt2img.audit(folder, model=model)
    assert report.scores.n_recordings == 18
    assert "met" in {one.kind for one in report.findings}  # it was trained on these
    assert len(report.stability) == 7
    assert "the model" in [name for name, *_ in report.figures()]
    report.save(tmp_path)
    assert "starts 1 s later" in (tmp_path / "index.html").read_text()


def test_without_groups_it_says_that_it_cannot_tell(table):
    report = cqt2img.audit(table["path"].tolist(), table["label"], verbose=False)
    assert "no groups" in serious(report)
    assert [rung.held_out for rung in report.ladder] == ["tiles", "recordings"]


def test_labels_are_needed(table):
    message = (
        f"audit: y must label every recording, got none for 27 of 27, first {table['path'][0]!r}. "
        "Sort the recordings into one folder per label, or give y or a csv with the column label."
    )
    with raises_exactly(InputError, message):
        cqt2img.audit(pd.DataFrame({"path": table["path"]}), verbose=False)
    for too_few, n in ((table[:2], 1), (table.groupby("label").head(1), 0)):
        message = f"audit: X must hold two classes or more of two recordings that can be read, got {n}. Add recordings."
        with raises_exactly(InputError, message):
            cqt2img.audit(too_few, verbose=False)


def test_the_model_must_be_fitted(table):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        cqt2img.audit(table, model=cqt2img.Classifier())


def test_a_name_that_the_model_does_not_know_is_said_before_any_work(
    model, table, monkeypatch
):
    monkeypatch.setattr("cqt2img.auditing.audit.load_tile_arrays", None)
    with pytest.raises(
        InputError,
        match="labels that the model knows, got ada-legato, bruno-staccato, clara-rubato",
    ):
        cqt2img.audit(table, model=model)


def test_equal_pictures_are_one_take_even_if_nothing_happens_in_them():
    report = cqt2img.audit([np.ones((96, 200))] * 4, y=["a", "b"] * 2, verbose=False)
    assert report.findings[0].kind == "duplicate labels"
    assert len(report.duplicates) == 6


def test_little_is_better_than_nothing(table):
    few = pd.concat([table.groupby("label").head(2), table[3:4]]).assign(
        album=[None, None, "x", "x", "y", "y", None]
    )
    report = cqt2img.audit(few, verbose=False)
    assert report.n_recordings == 7
    assert "small" in {one.kind for one in report.findings}
