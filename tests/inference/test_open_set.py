import shutil

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from cqt2img.classifier import Classifier, load
from cqt2img.errors import InputError
from cqt2img.inference.enrollment import LinearHead, ReferenceSet
from cqt2img.inference.open_set import (
    SCORE_NAMES,
    OpenSetDetector,
    compute_score,
    select_score,
)
from tests.conftest import make_cqt, raises_exactly

ROWS = {"a": 5, "b": 20, "c": 35, "d": 50}
STRANGE = 58


def lines(n=32):
    """Four players, each at a height of its own."""
    return [
        make_cqt(list(ROWS.values())[k % 4] + k // 4 % 3, 60 + k, seed=k)
        for k in range(n)
    ]


Y = list("abcd") * 8
ALBUMS = [f"{k % 4}-{k // 4 % 4}" for k in range(32)]
STRANGERS = [make_cqt(STRANGE, 60 + k, seed=99 + k) for k in range(3)]


@pytest.fixture(scope="module")
def fitted(options):
    return Classifier(**{**options, "epochs": 6}).fit(lines(), Y, ALBUMS)


def clouds(n_players, spread, n_each=30, n_features=20, seed=0):
    """Features of players around centres of their own; every third recording is held out."""
    rng = np.random.default_rng(seed)
    centres = 3 * rng.standard_normal((n_players, n_features))
    codes = np.repeat(np.arange(n_players), n_each)
    features = centres[codes] + spread * rng.standard_normal((len(codes), n_features))
    return ReferenceSet(
        features.astype(np.float32), codes, np.arange(len(codes)) % 3 == 0
    )


HEAD = LinearHead(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0.0, 0.5]))
PAIR = ReferenceSet(
    np.array([[1, 0], [0, 2], [1, 1]], np.float32),
    np.array([0, 1, 1]),
    np.array([False, False, True]),
)


# the scores


def test_scores_are_what_their_papers_say():
    x = np.array([[3.0, 0.0], [2.0, 2.0], [0.0, -1.0]], np.float32)
    logits = x + np.array([0, 0.5])
    np.testing.assert_allclose(
        compute_score("softmax", x, HEAD, PAIR), log_softmax(logits, axis=1).max(axis=1)
    )
    np.testing.assert_allclose(
        compute_score("energy", x, HEAD, PAIR), logsumexp(logits, axis=1)
    )
    # the third row of the gallery is held out: (2, 2) is 45 degrees from both others, and (0, -1) upright to one
    np.testing.assert_allclose(
        compute_score("neighbours", x, HEAD, PAIR), [1, np.sqrt(0.5), 0], atol=1e-6
    )


def test_known_is_the_part_of_the_held_out_that_is_no_more_familiar():
    angles = np.linspace(0, 0.9, 10)
    held = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    features = np.concatenate([[[1, 0]], held]).astype(np.float32)
    gallery = ReferenceSet(features, np.zeros(11, int), np.arange(11) > 0)
    turns = np.array([-0.01, 0.45, 0.85, 0.95])
    found = OpenSetDetector().score(
        np.stack([np.cos(turns), np.sin(turns)], axis=1).astype(np.float32),
        HEAD,
        gallery,
    )
    np.testing.assert_allclose(found, [0.9, 0.5, 0.1, 0.0])


def test_a_held_out_recording_is_no_more_familiar_than_itself():
    """Else the most familiar of all, as the sure answers of a small network are, would be called unknown."""
    gallery = clouds(3, 1.0)
    head = LinearHead(np.ones((3, 20)), np.arange(3.0))
    found = OpenSetDetector("energy").score(
        gallery.features[gallery.is_validation], head, gallery
    )
    np.testing.assert_allclose(np.sort(found), np.arange(1, 31) / 30)


@pytest.mark.parametrize("score", SCORE_NAMES)
def test_one_in_ten_of_the_known_is_lost(score):
    gallery = clouds(6, 1.0, n_each=600)
    rng = np.random.default_rng(1)
    head = LinearHead(rng.standard_normal((6, 20)), np.zeros(6))
    fresh = (
        clouds(6, 1.0, n_each=600).features[::3] + 0
    )  # the held-out ones themselves, and so the exact part
    known = OpenSetDetector(score).score(fresh, head, gallery)
    assert (known < 0.1).mean() == pytest.approx(0.1, abs=0.002)


# the choice


def test_players_apart_are_told_and_hardly_any_known_is_lost():
    found = select_score(clouds(8, 0.5))
    assert found.auroc[found.score_name] > 0.98
    assert max(found.auroc.values()) == found.auroc[found.score_name]
    assert found.rejection_rate <= 0.05


def test_players_that_are_one_cloud_cannot_be_told():
    found = select_score(clouds(8, 100.0, n_each=90))
    assert found.auroc["neighbours"] == pytest.approx(0.5, abs=0.07)
    assert 0.01 <= found.rejection_rate <= 0.1


@pytest.mark.parametrize("n_players", [2, 3])
def test_too_few_players_to_leave_some_out(n_players):
    assert select_score(clouds(n_players, 0.5)) == OpenSetDetector(
        "neighbours", 0.1, None
    )


def test_four_players_are_enough():
    assert set(select_score(clouds(4, 0.5)).auroc) == set(SCORE_NAMES)


def test_nothing_held_out():
    gallery = clouds(6, 0.5)
    assert (
        select_score(
            ReferenceSet(gallery.features, gallery.class_indices, np.zeros(180, bool))
        )
        == OpenSetDetector()
    )


def test_the_same_seed_the_same_choice():
    assert (
        select_score(clouds(7, 3.0), 3)
        == select_score(clouds(7, 3.0), 3)
        != select_score(clouds(7, 3.0), 4)
    )


# asked of a model


def test_a_stranger_is_unknown_and_the_known_are_named(fitted):
    assert fitted.predict(STRANGERS, unknown=True).tolist() == ["unknown"] * 3
    assert fitted.predict(STRANGERS, unknown="nobody").tolist() == ["nobody"] * 3
    assert (fitted.predict(lines(), unknown=True) == Y).mean() > 0.8
    assert "unknown" not in fitted.predict(STRANGERS)


def test_identify_says_how_known_and_changes_nothing_else(fitted):
    plain, found = (
        fitted.identify(lines()[:4] + STRANGERS),
        fitted.identify(lines()[:4] + STRANGERS, unknown=True),
    )
    assert list(found) == [
        "path",
        "label",
        "probability",
        "label_2",
        "probability_2",
        "label_3",
        "probability_3",
        "known",
        "is_unknown",
        "status",
        "reason",
        "message",
    ]
    assert found.drop(columns=["known", "is_unknown"]).equals(plain)
    assert found["is_unknown"].tolist() == [False] * 4 + [True] * 3
    assert (found["known"] < fitted.open_set_.rejection_rate).tolist() == found[
        "is_unknown"
    ].tolist()


def test_a_recording_that_cannot_be_read_is_neither(fitted):
    X = [lines()[0], np.zeros((60, 40)), STRANGERS[0]]
    found = fitted.identify(X, unknown=True)
    assert found["is_unknown"].tolist() == [False, None, True]
    assert found["known"].isna().tolist() == [False, True, False]
    skipping = load_like(fitted).set_params(on_error="skip")
    assert skipping.predict(X, unknown=True).tolist() == ["a", None, "unknown"]
    assert fitted.identify([np.zeros((60, 40))], unknown=True)["status"].tolist() == [
        "error"
    ]


def load_like(model):
    import copy

    return copy.deepcopy(model)


def test_labels_that_are_no_text(options):
    numbers = Classifier(**{**options, "epochs": 6}).fit(
        lines(), [ord(y) for y in Y], ALBUMS
    )
    assert numbers.predict([*lines()[:1], *STRANGERS[:1]], unknown=True).tolist() == [
        97,
        "unknown",
    ]


def test_the_model_folder_keeps_it(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert loaded.open_set_ == fitted.open_set_
    X = lines()[:4] + STRANGERS
    assert loaded.identify(X, unknown=True).equals(fitted.identify(X, unknown=True))


@pytest.mark.parametrize("backbone", ["test_vit", "test_efficientnet", "test_convnext"])
def test_the_body_is_asked_once_and_the_answer_is_the_same(options, backbone):
    model = Classifier(**{**options, "backbone": backbone, "epochs": 1}).fit(
        lines(8), Y[:8]
    )
    plain, found = model.identify(lines(4)), model.identify(lines(4), unknown=True)
    np.testing.assert_allclose(found["probability"], plain["probability"], atol=1e-5)


# refused


@pytest.mark.parametrize("unknown", [3, "", None, 0])
def test_unknown_is_no_word(fitted, unknown):
    message = (
        f"predict: unknown must be True, False or a word, got {unknown!r}. Choose one."
    )
    with raises_exactly(InputError, message):
        fitted.predict(lines(1), unknown=unknown)


def test_a_class_called_unknown(options):
    model = Classifier(**{**options, "epochs": 1}).fit(lines(8), ["unknown", "b"] * 4)
    message = "predict: unknown must be no name of a class, got 'unknown'. Pass another word, as in unknown='nobody'."
    with raises_exactly(InputError, message):
        model.predict(lines(1), unknown=True)
    assert set(model.predict(lines(2), unknown="nobody")) <= {"unknown", "b", "nobody"}


def test_no_validation_recordings(options):
    model = Classifier(**{**options, "epochs": 1, "validation_fraction": 0}).fit(
        lines(8), Y[:8]
    )
    message = (
        "predict: unknown must be asked of a model with validation recordings, which say how strange a known "
        "player may sound, got none. Fit with validation= or with validation_fraction above 0."
    )
    with raises_exactly(InputError, message):
        model.predict(lines(1), unknown=True)
    with raises_exactly(InputError, message):
        model.identify(lines(1), unknown=True)


def test_a_model_of_an_older_version(fitted, tmp_path):
    import json

    fitted.save(tmp_path / "new")
    shutil.copytree(tmp_path / "new", tmp_path / "old")
    (tmp_path / "old" / "references.safetensors").unlink()
    about = json.loads((tmp_path / "old" / "model.json").read_text())
    for name in ("references_sha256", "open_set", "enrolled"):
        del about[name]
    (tmp_path / "old" / "model.json").write_text(json.dumps(about))
    old = load(tmp_path / "old")
    np.testing.assert_array_equal(old.predict(lines()), fitted.predict(lines()))
    message = "predict: unknown must be asked of a model fitted by this version, got an older one. Fit and save it again."
    with raises_exactly(InputError, message):
        old.predict(lines(1), unknown=True)
    old.save(tmp_path / "again")
    assert load(tmp_path / "again").references_ is None


def test_a_head_that_is_not_linear(fitted):
    import torch

    model = load_like(fitted)
    body = model.network_.backbone
    body.fc = torch.nn.Sequential(body.fc)
    message = "predict: unknown must be asked of a network whose head is linear, got another. Choose another backbone."
    with raises_exactly(InputError, message):
        model.predict(lines(1), unknown=True)
