"""Methods of `Classifier` on a saved model whose embeddings are known."""

import copy
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cqt2img.classifier import Classifier, load
from cqt2img.data.render import render
from cqt2img.errors import AudioError, InputError
from cqt2img.inference.model_io import save_model
from cqt2img.tiles.spec import TileSpec
from tests.conftest import make_cqt, raises_with
from tests.inference.conftest import LABELS, PARAMS, SILENCE, known_cqts, new_cqts

CLIPS = new_cqts(5)
LATER = new_cqts(4, seed=199)
ALBUMS = [1, 1, 2, 2, 2]


@pytest.fixture(scope="module")
def _classifier(saved_fitted):
    return load(saved_fitted)


@pytest.fixture
def classifier(_classifier):
    return copy.deepcopy(_classifier)


# unknown players


def test_new_players_are_unknown_and_known_players_are_predicted(classifier):
    training = known_cqts()[:4]
    predicted = classifier.predict([*training, *LATER], unknown=True).tolist()
    assert predicted == [*"abcd", *["unknown"] * 4]
    assert classifier.predict(LATER, unknown="nobody").tolist() == ["nobody"] * 4
    assert classifier.predict(known_cqts()).tolist() == LABELS
    assert set(classifier.predict(LATER)) <= set("abcd")


def test_identify_adds_the_open_set_columns(classifier):
    X = [known_cqts()[0], SILENCE, LATER[0]]
    plain = classifier.identify(X)
    table = classifier.identify(X, unknown=True)
    assert table.drop(columns=["known", "is_unknown"]).equals(plain)
    assert table["is_unknown"].tolist() == [False, None, True]
    assert table["known"].isna().tolist() == [False, True, False]


def test_an_unreadable_recording_has_no_label(classifier):
    classifier.set_params(on_error="skip")
    X = [known_cqts()[0], SILENCE, LATER[0]]
    assert classifier.predict(X, unknown=True).tolist() == ["a", None, "unknown"]


def test_unknown_stands_beside_labels_that_are_integers(fitted, tmp_path):
    numbered = replace(fitted, classes=np.array([97, 98, 99, 100]))
    save_model(tmp_path / "model", numbered, PARAMS)
    classifier = load(tmp_path / "model")
    X = [known_cqts()[0], LATER[0]]
    assert classifier.predict(X, unknown=True).tolist() == [97, "unknown"]


@pytest.mark.parametrize("unknown", ["", "a", 3])
def test_a_label_for_unknown_players_that_cannot_be_used(classifier, unknown):
    with raises_with(InputError, "predict: unknown", repr(unknown)):
        classifier.predict(LATER, unknown=unknown)


def test_a_model_without_references_has_no_unknown_players(fitted, tmp_path):
    save_model(tmp_path / "model", replace(fitted, references=None), PARAMS)
    classifier = load(tmp_path / "model")
    for method in (classifier.predict, classifier.identify):
        with raises_with(InputError, "predict: unknown", "older version"):
            method(LATER, unknown=True)


# enrollment


def test_an_enrolled_player_is_predicted_by_all_methods(classifier):
    assert classifier.enroll("bb", CLIPS, ALBUMS) is classifier
    assert classifier.classes_.tolist() == ["a", "b", "bb", "c", "d"]
    assert classifier.predict(LATER).tolist() == ["bb"] * 4
    assert classifier.predict_proba(LATER).argmax(axis=1).tolist() == [2] * 4
    assert classifier.identify(LATER)["label"].tolist() == ["bb"] * 4
    assert set(classifier.predict_tiles(LATER)["label"]) == {"bb"}
    assert classifier.predict(known_cqts()).tolist() == LABELS
    assert classifier.score(LATER, ["bb"] * 4) == 1


def test_a_numpy_name_is_enrolled_as_plain_python(classifier, fitted, tmp_path):
    numbered = replace(fitted, classes=np.array([97, 98, 99, 100]))
    save_model(tmp_path / "model", numbered, PARAMS)
    classifier = load(tmp_path / "model").enroll(np.int64(7), CLIPS)
    classifier.save(tmp_path / "model")
    assert load(tmp_path / "model").classes_.tolist() == [7, 97, 98, 99, 100]


def test_evaluate_reports_groups_that_were_enrolled(classifier):
    assert classifier.evaluate(LATER, ["a"] * 4).known_groups == ()
    classifier.enroll("bb", CLIPS, ALBUMS)
    by_group = classifier.evaluate(LATER, ["bb"] * 4, [9, 3, 3, 3]).known_groups
    by_content = classifier.evaluate([CLIPS[0], *LATER], ["bb"] * 5, [*"vwxyz"])
    assert by_group == ()  # arrays in memory have no name
    assert by_content.known_groups == ("v",)


def test_a_saved_model_keeps_an_enrolled_player(classifier, tmp_path):
    classifier.enroll("bb", CLIPS, ALBUMS).save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    np.testing.assert_array_equal(
        loaded.predict_proba(LATER), classifier.predict_proba(LATER)
    )
    table = loaded.identify(LATER, unknown=True)
    assert table.equals(classifier.identify(LATER, unknown=True))
    assert loaded.model_.provenance == classifier.model_.provenance
    again = loaded.enroll("e", [make_cqt(28, 60, seed=3)])
    assert again.classes_.tolist() == ["a", "b", "bb", "c", "d", "e"]


def test_a_failing_enrollment_leaves_the_classifier_unchanged(classifier, bad_folder):
    path = str(bad_folder / "silent.wav")
    with raises_with(AudioError, "enroll: ", repr(path), "on_error='skip'"):
        classifier.enroll("bb", [path])
    classifier.set_params(on_error="skip")
    with raises_with(InputError, "enroll: X"):
        classifier.enroll("bb", [path])
    with raises_with(InputError, "enroll: name", "'b'"):
        classifier.enroll("b", CLIPS)
    with raises_with(InputError, "enroll: X", "'array 1'"):
        classifier.enroll("bb", [CLIPS[0], known_cqts()[5]])
    assert classifier.classes_.tolist() == ["a", "b", "c", "d"]
    classifier.enroll("bb", [path, *CLIPS])
    assert classifier.model_.provenance.enrolled[0].n_clips == 5


def test_fitting_again_removes_enrolled_players(classifier):
    classifier.set_params(backbone="row_levels", weights=None, finetune="head")
    classifier.set_params(spec=classifier.spec_)
    classifier.enroll("bb", CLIPS).fit(known_cqts()[:8], LABELS[:8])
    assert classifier.model_.provenance.enrolled == ()
    assert classifier.classes_.tolist() == ["a", "b", "c", "d"]


def test_the_command_line_enrolls_a_player(saved_fitted, tmp_path):
    from typer.testing import CliRunner

    from cqt2img.cli.main import app

    files = []
    for n, cqt in enumerate([*CLIPS, *LATER]):
        file = tmp_path / f"album {n % 2}" / f"{n}.npy"
        file.parent.mkdir(exist_ok=True)
        np.save(file, cqt)
        files.append(str(file))
    clips, later = files[:5], files[5:]
    model, new = str(saved_fitted), str(tmp_path / "new")
    run = CliRunner().invoke
    done = run(app, ["enroll", "Monk", *clips, "-m", model, "-o", new, "-q"])
    assert done.exit_code == 0, done.output
    assert "'Monk' from 5 clips of 2 albums" in done.stdout
    assert new in done.stdout
    assert set(load(new).predict(later)) == {"Monk"}
    table = str(tmp_path / "out.csv")
    run(app, ["predict", *later, "-m", model, "-o", table, "--unknown", "-q"])
    assert pd.read_csv(table)["is_unknown"].tolist() == [True] * 4


# saving


@pytest.fixture
def options(small):
    """A classifier whose fit is a logistic regression on known embeddings."""
    return {
        "backbone": "row_levels",
        "weights": None,
        "spec": small,
        "finetune": "head",
        "device": "cpu",
        "verbose": False,
    }


def test_a_loaded_classifier_has_the_arguments_of_the_saved_one(options, tmp_path):
    """Also numbers of NumPy, which a grid search over an array sets."""
    arguments = {**options, "n_jobs": 2, "random_state": np.int64(3)}
    classifier = Classifier(**arguments).fit(known_cqts(), LABELS)
    classifier.save(tmp_path / "model")
    loaded = load(str(tmp_path / "model"))
    assert loaded.get_params() == classifier.get_params()
    assert loaded.predict(known_cqts()).tolist() == LABELS


def test_the_fitted_backbone_is_saved_whatever_set_params_said_later(options, tmp_path):
    classifier = Classifier(**options).fit(known_cqts(), LABELS)
    expected = classifier.predict_proba(known_cqts())
    classifier.set_params(backbone="test_vit").save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(known_cqts()), expected)


def test_a_spec_that_was_given_as_a_file_is_saved(options, tmp_path, small):
    file = tmp_path / "spec.json"
    file.write_text(small.to_json())
    for spec in (file, str(file)):
        classifier = Classifier(**{**options, "spec": spec})
        classifier.fit(known_cqts(), LABELS).save(tmp_path / "model")
        assert load(tmp_path / "model").spec_ == small


def test_tiles_of_another_spec_are_not_predicted(classifier, small, tmp_path):
    other = TileSpec.from_dict({**json.loads(small.to_json()), "max_db": 5.0})
    render([make_cqt(5)], tmp_path / "tiles", other)
    folder = repr(str(tmp_path / "tiles"))
    with raises_with(InputError, "predict: X", small.key, other.key, folder):
        classifier.predict(tmp_path / "tiles")
