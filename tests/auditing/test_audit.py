"""The audit from end to end, on small synthetic collections.

Which faults it finds is measured by benchmarks/planted.py.
"""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

import cqt2img
from cqt2img.data.synthetic import make_corpus
from cqt2img.errors import InputError
from tests.conftest import raises_with

MARKUP = "<script>alert(1)</script>"
EXPECTED_KINDS = {"album effect", "small sample"}  # of any small collection of albums


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Three players, three albums of each, three takes of 8 s."""
    root = tmp_path_factory.mktemp("collection")
    files = make_corpus(
        root, n_players=3, n_albums=3, n_takes=3, seconds=8, random_state=1
    )
    return pd.DataFrame(
        {
            "path": [str(file) for file in files],
            "label": [file.parts[-3] for file in files],
            "album": [file.parts[-2] for file in files],
        }
    )


@pytest.fixture(scope="module")
def clean(table):
    return cqt2img.audit(table, verbose=False)


@pytest.fixture(scope="module")
def faulty(table, tmp_path_factory):
    """The same with a split, a copy under another label, and a file that is no audio.

    The copy is in the test set; the bad file and markup in names are in the first
    album.
    """
    root = tmp_path_factory.mktemp("faulty")
    copy = root / "again.flac"
    shutil.copy(table["path"][0], copy)
    bad = root / "bad.flac"
    bad.write_text("no audio")
    of_last = {"label": table["label"][26], "album": table["album"][26]}
    of_first = {"label": table["label"][0], "album": table["album"][0]}
    added = [{"path": str(copy), **of_last}, {"path": str(bad), **of_first}]
    joined = pd.concat([table, pd.DataFrame(added)], ignore_index=True)
    album = joined["album"].replace(table["album"][0], MARKUP)
    split = np.where(joined.index % 9 == 0, "test", "train")
    return cqt2img.audit(joined.assign(album=album, split=split), verbose=False)


def serious_kinds(report):
    kinds = {f.kind for f in report.findings if f.severity != "note"}
    return kinds - EXPECTED_KINDS


def findings_of(report, kind):
    return [finding for finding in report.findings if finding.kind == kind]


def test_nothing_is_found_in_a_clean_collection(clean):
    assert serious_kinds(clean) == set()
    assert (clean.n_recordings, clean.n_groups, clean.n_failed) == (27, 9, 0)
    held_out = [score.held_out for score in clean.leakage]
    assert held_out == ["tiles", "recordings", "albums"]
    assert len(clean.duplicates) == len(clean.label_errors) == 0
    assert clean.scores is None
    assert clean.robustness is None


def test_the_figure_shows_all_accuracies(clean):
    labels = clean.show().axes[0].get_yticklabels()
    names = [label.get_text() for label in labels]
    assert names == [row.name for row in clean.accuracies()]
    assert names[:3] == ["tiles at random", "recordings at random", "albums held out"]


def test_faults_come_first(faulty):
    severities = [finding.severity for finding in faulty.findings]
    assert severities == sorted(severities, key=["fault", "warning", "note"].index)
    assert severities[0] == "fault"
    assert "cannot be trusted" in faulty.verdict


def test_a_copy_under_another_label_is_found(faulty):
    (finding,) = findings_of(faulty, "conflicting labels")
    assert finding.severity == "fault"
    assert "again.flac" in finding.files[0]
    assert faulty.duplicates["other_path"].str.endswith("again.flac").all()


def test_albums_on_two_sides_of_the_split_are_found(faulty):
    (finding,) = findings_of(faulty, "leakage")
    assert finding.severity == "fault"
    assert MARKUP in finding.title


def test_one_bad_file_costs_one_file(faulty):
    assert (faulty.n_recordings, faulty.n_failed) == (28, 1)
    (finding,) = findings_of(faulty, "unreadable")
    assert finding.files[0].endswith("bad.flac: unsupported or corrupt")


def test_an_audit_is_saved_as_text_json_and_a_page(faulty, tmp_path):
    faulty.save(tmp_path / "audit")
    names = sorted(path.name for path in (tmp_path / "audit").iterdir())
    assert names == ["audit.json", "audit.txt", "index.html"]
    values = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert values == json.loads(json.dumps(faulty.to_dict()))
    assert values["verdict"] == faulty.verdict
    assert len(values["findings"]) == len(faulty.findings)
    for row in values["accuracies"]:
        assert 0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1
    assert (tmp_path / "audit" / "audit.txt").read_text() == f"{faulty}\n"


def test_the_page_shows_all_findings_and_escapes_names(faulty, tmp_path):
    faulty.save(tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert faulty.verdict in page
    for finding in faulty.findings:
        assert finding.advice.split("'")[0] in page
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_the_text_lists_findings_advice_and_accuracies(faulty):
    text = str(faulty)
    assert text.startswith("28 recordings in 9 groups, 3 classes; 1 could not be read")
    for number, finding in enumerate(faulty.findings, start=1):
        assert f"{number}. {finding.severity.upper()}: {finding.title}" in text
        assert finding.advice in text
    for row in faulty.accuracies():
        assert f"\n  {row.name}  " in text


def test_a_model_is_scored_and_perturbed_on_the_test_side(model, folder, tmp_path):
    files = sorted(folder.rglob("*.wav"))
    table = pd.DataFrame(
        {
            "path": [str(file) for file in files],
            "label": [file.parts[-3] for file in files],
            "album": [f"{file.parts[-3]} {file.parts[-2]}" for file in files],
            "split": ["test" if "album 2" in str(f) else "train" for f in files],
        }
    )
    report = cqt2img.audit(table, model=model, verbose=False)
    assert report.scores.n_recordings == 6
    assert report.robustness["n_recordings"].tolist() == [6] * 7
    (finding,) = findings_of(report, "training groups")
    assert finding.files == (
        "High/High album 2",
        "Low/Low album 2",
        "Middle/Middle album 2",
    )
    assert report.accuracies()[-1].name == "the model"
    assert "of the model" in str(report)
    report.save(tmp_path)
    assert "starts 1 s later" in (tmp_path / "index.html").read_text()


def test_arrays_without_groups_can_be_audited():
    arrays = [np.ones((96, 200))] * 4
    report = cqt2img.audit(arrays, y=["a", "b"] * 2, verbose=False)
    assert report.findings[0].kind == "conflicting labels"
    assert len(report.duplicates) == 6  # equal tiles are one take, even without onsets
    assert "no groups" in serious_kinds(report)
    held_out = [score.held_out for score in report.leakage]
    assert held_out == ["tiles", "recordings"]


def test_a_few_recordings_are_enough_for_an_audit(table):
    few = pd.concat([table.groupby("label").head(2), table[3:4]])
    few = few.assign(album=[None, None, "x", "x", "y", "y", None])
    report = cqt2img.audit(few, verbose=False)
    assert report.n_recordings == 7
    assert len(findings_of(report, "small sample")) == 1


def test_missing_labels_are_an_error(table):
    with raises_with(InputError, "audit", "27 of 27", table["path"][0]):
        cqt2img.audit(table[["path"]], verbose=False)


@pytest.mark.parametrize(("n_recordings", "n_classes"), [(2, 1), (1, 0)])
def test_fewer_than_two_classes_are_an_error(n_recordings, n_classes):
    arrays = [np.ones((96, 200))] * n_recordings
    with raises_with(InputError, "audit", "two classes", f"got {n_classes}"):
        cqt2img.audit(arrays, y=["a"] * n_recordings, verbose=False)


def test_the_model_must_be_fitted(table):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        cqt2img.audit(table, model=cqt2img.Classifier())


def test_labels_unknown_to_the_model_are_reported_before_any_work(
    model, table, monkeypatch
):
    monkeypatch.setattr("cqt2img.auditing.audit.load_tile_arrays", None)
    with raises_with(InputError, "labels", "ada-legato", "clara-rubato"):
        cqt2img.audit(table, model=model)
