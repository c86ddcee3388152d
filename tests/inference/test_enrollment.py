import copy
import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import logsumexp

from cqt2img.data.recordings import list_recordings
from cqt2img.errors import InputError
from cqt2img.inference import enrollment
from cqt2img.inference.enrollment import (
    check_enrollable,
    enroll,
    fit_new_row,
    fit_row,
    infer_albums,
)
from cqt2img.inference.linear_head import LinearHead
from cqt2img.inference.model import EnrollmentReport
from cqt2img.inference.references import ReferenceSet
from tests.conftest import make_cqt, make_wave, raises_with
from tests.inference.conftest import (
    LABELS,
    SILENCE,
    known_cqts,
    new_cqts,
    predict,
    run,
)

CLIPS = new_cqts(5)
ALBUMS = ["1", "1", "2", "2", "2"]


def enroll_clips(model, name="bb", cqts=CLIPS, albums=None):
    albums = albums or [str(n) for n in range(len(cqts))]
    return enroll(
        model,
        name,
        run(model, cqts),
        np.array(albums),
        groups=albums,
        paths=[f"clip {n}" for n in range(len(cqts))],
    )


@pytest.fixture(scope="module")
def enrolled(_fitted):
    """The model with a player `bb`, which sorts between `b` and `c`."""
    return enroll_clips(_fitted, albums=ALBUMS)


# the new row of the head


def two_classes(seed=0, n=40, n_features=6):
    """Two classes along two axes, their head, and clips of a third class."""
    rng = np.random.default_rng(seed)
    centres = 4 * np.eye(n_features)[:3]
    noise = rng.standard_normal((3 * n, n_features))
    features = (centres[np.repeat([0, 1, 2], n)] + noise).astype(np.float32)
    head = LinearHead(np.eye(n_features)[:2] * 2, np.zeros(2))
    classes = np.repeat([0, 1], n)
    references = ReferenceSet(features[: 2 * n], classes, np.zeros(2 * n, bool))
    return head, references, features[2 * n :]


def test_the_new_row_predicts_the_new_class_and_keeps_the_others():
    head, references, clips = two_classes()
    wide = head.insert_class(1, *fit_row(head, references, clips[:5]))
    np.testing.assert_array_equal(wide.weight[[0, 2]], head.weight)
    assert (wide(clips[5:]).argmax(axis=1) == 1).mean() > 0.9
    before = head(references.features).argmax(axis=1)
    after = wide(references.features).argmax(axis=1)
    assert (after == np.where(before == 1, 2, 0)).mean() > 0.95


def test_the_new_row_minimises_the_balanced_log_loss_with_its_penalty():
    head, references, clips = two_classes()
    row, bias = fit_row(head, references, clips[:5])
    scale = references.features.std(axis=0)
    known = [references.features[references.class_indices == c] for c in (0, 1)]

    def loss(w, b):
        total = 0.0
        for x, sign in ((known[0], 1), (known[1], 1), (clips[:5], -1)):
            margin = (x @ w + b - logsumexp(head(x), axis=1)) * sign
            total += np.logaddexp(0, margin).mean() / 3
        return total + 1e-3 * len(w) / 2 * ((w * scale) ** 2).sum()

    lowest = loss(row, bias)
    for axis in np.eye(len(row)):
        assert loss(row + 0.05 * axis, bias) > lowest
        assert loss(row - 0.05 * axis, bias) > lowest
    assert min(loss(row, bias + 0.05), loss(row, bias - 0.05)) > lowest


def test_the_scale_of_the_features_does_not_matter():
    head, references, clips = two_classes()
    row, bias = fit_row(head, references, clips[:5])
    scaled_head = LinearHead(head.weight / 1000, head.bias)
    scaled = replace(references, features=references.features * 1000)
    scaled_row, scaled_bias = fit_row(scaled_head, scaled, clips[:5] * 1000)
    np.testing.assert_allclose(scaled_row * 1000, row, atol=1e-2)
    assert scaled_bias == pytest.approx(bias, abs=1e-2)


def test_clips_left_out_are_correct_only_if_the_class_is_separate():
    head, references, clips = two_classes()
    assert fit_new_row(head, references, clips[:5], np.arange(5))[2].all()
    of_others = references.features[[0, 50, 3, 60]] + 0.5
    assert fit_new_row(head, references, of_others, np.arange(4))[2].mean() < 0.5


def test_a_single_clip_cannot_be_left_out():
    head, references, clips = two_classes()
    row, bias, is_correct = fit_new_row(head, references, clips[:1], np.arange(1))
    expected_row, expected_bias = fit_row(head, references, clips[:1])
    np.testing.assert_array_equal(row, expected_row)
    assert (bias, is_correct) == (expected_bias, None)


def test_validation_recordings_correct_the_bias():
    """Few clips in many dimensions: without them the new class is predicted rarely."""
    head, references, clips = two_classes(n_features=300)
    calibrated = replace(references, is_validation=np.arange(80) % 4 == 0)

    def recall(references):
        row, bias, _ = fit_new_row(head, references, clips[:3], np.arange(3))
        logits = clips[3:] @ row + bias
        return (logits > head(clips[3:]).max(axis=1)).mean()

    assert recall(calibrated) > recall(references) + 0.05


def test_albums_are_left_out_whole():
    """The clips differ by album only, so that nothing is known of an album left out."""
    head, references, _ = two_classes(n_features=12)
    axes = np.eye(12, dtype=np.float32)
    noise = np.random.default_rng(0).standard_normal((6, 12))
    clips = 4 * axes[[5, 5, 5, 6, 6, 6]] + 4 * axes[0] + 0.1 * noise
    clips = clips.astype(np.float32)
    by_clip = fit_new_row(head, references, clips, np.arange(6))[2]
    by_album = fit_new_row(head, references, clips, np.repeat([0, 1], 3))[2]
    one_album = fit_new_row(head, references, clips, np.zeros(6))[2]
    assert by_clip.all()
    assert by_album.mean() < 0.5
    np.testing.assert_array_equal(one_album, by_clip)


# enrollment in a model


def test_the_new_player_is_predicted_and_the_others_stay(fitted, enrolled):
    assert enrolled.classes.tolist() == ["a", "b", "bb", "c", "d"]
    assert predict(enrolled, new_cqts(4, seed=199)) == ["bb"] * 4
    assert predict(enrolled, known_cqts()) == LABELS


def test_the_other_classes_keep_their_ratios(fitted, enrolled):
    before = fitted.predict_proba(run(fitted, known_cqts()))
    after = enrolled.predict_proba(run(enrolled, known_cqts()))
    others = np.delete(after, 2, axis=1) / (1 - after[:, 2:3])
    np.testing.assert_allclose(others, before, atol=1e-5)


def test_the_new_player_is_no_longer_unknown(fitted, enrolled):
    before = fitted.open_set_p_values(run(fitted, CLIPS))
    after = enrolled.open_set_p_values(run(enrolled, CLIPS))
    np.testing.assert_array_equal(before, 0)
    np.testing.assert_array_equal(after, 1)


def test_the_references_and_the_provenance_have_the_new_clips(fitted, enrolled):
    assert enrolled.references.class_indices.tolist()[-6:] == [4, 2, 2, 2, 2, 2]
    outputs = run(fitted, CLIPS)
    fingerprints = {output.info.fingerprint for output in outputs}
    before = fitted.provenance
    after = enrolled.provenance
    assert set(after.fingerprints) == {*before.fingerprints, *fingerprints}
    assert set(after.groups) == {*before.groups, "1", "2"}
    assert list(after.groups) == sorted(after.groups)
    assert after.enrolled == (EnrollmentReport("bb", 5, 2, 1.0),)
    assert after.history == before.history


@pytest.mark.parametrize(
    ("name", "index"), [("A", 0), ("z", 4), ("a longer name than any", 1), ("Ü", 4)]
)
def test_the_classes_stay_sorted(fitted, name, index):
    enrolled = enroll_clips(fitted, name)
    assert enrolled.classes.tolist() == sorted([*"abcd", name])
    assert predict(enrolled, new_cqts(2, seed=199)) == [name, name]
    assert enrolled.classes[index] == name


def test_two_players_are_enrolled_one_after_the_other(fitted):
    other = [make_cqt(28, 60 + k, seed=70 + k) for k in range(6)]
    both = enroll_clips(enroll_clips(fitted, "y"), "x", other[:4])
    assert both.classes.tolist() == [*"abcd", "x", "y"]
    cqts = [*new_cqts(2, seed=199), *other[4:]]
    assert predict(both, cqts) == ["y", "y", "x", "x"]
    assert [report.name for report in both.provenance.enrolled] == ["y", "x"]
    assert both.references.class_indices.tolist()[-9:] == [5] * 5 + [4] * 4


def test_classes_may_be_integers(fitted):
    numbered = replace(fitted, classes=np.array([97, 98, 99, 100]))
    enrolled = enroll_clips(numbered, 7)
    assert enrolled.classes.tolist() == [7, 97, 98, 99, 100]
    assert predict(enrolled, new_cqts(2, seed=199)) == [7, 7]


def test_unreadable_clips_are_left_out(fitted):
    enrolled = enroll_clips(fitted, cqts=[SILENCE, *CLIPS], albums=["0", *ALBUMS])
    assert enrolled.provenance.enrolled[0].n_clips == 5
    assert "0" not in enrolled.provenance.groups


@pytest.mark.parametrize(
    ("albums", "level"), [(ALBUMS, "INFO"), (["solo"] * 5, "WARNING")]
)
def test_the_log_warns_if_all_clips_are_of_one_album(fitted, caplog, albums, level):
    with caplog.at_level(logging.INFO, "cqt2img"):
        enrolled = enroll_clips(fitted, albums=albums)
    record = caplog.records[-1]
    assert record.levelname == level
    assert record.getMessage() == str(enrolled.provenance.enrolled[-1])


# errors and interrupts leave the model unchanged


def assert_equal(model, other):
    assert model.classes.tolist() == other.classes.tolist()
    assert model.provenance == other.provenance
    np.testing.assert_array_equal(
        model.references.class_indices, other.references.class_indices
    )
    state = model.network.state_dict()
    for name, value in other.network.state_dict().items():
        assert torch.equal(state[name], value)


def test_the_model_is_not_changed(fitted):
    before = copy.deepcopy(fitted)
    enroll_clips(fitted)
    assert_equal(fitted, before)


def test_an_interrupt_leaves_the_model_unchanged(fitted, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    before = copy.deepcopy(fitted)
    monkeypatch.setattr(enrollment, "widen_head", interrupt)
    with pytest.raises(KeyboardInterrupt):
        enroll_clips(fitted)
    assert_equal(fitted, before)


@pytest.mark.parametrize("name", ["b", "", 7, None, True])
def test_a_name_that_cannot_be_added(fitted, name):
    with raises_with(InputError, "enroll: name", f"got {name!r}"):
        check_enrollable(fitted, name)
    with raises_with(InputError, "enroll: name", f"got {name!r}"):
        enroll_clips(fitted, name)


def test_a_name_must_have_the_type_of_the_classes(fitted):
    numbered = replace(fitted, classes=np.array([97, 98, 99, 100]))
    with raises_with(InputError, "enroll: name", "int", "97", "'bb'"):
        check_enrollable(numbered, "bb")


def test_a_clip_that_training_used(fitted):
    with raises_with(InputError, "enroll: X", "'clip 1'"):
        enroll_clips(fitted, cqts=[CLIPS[0], known_cqts()[5]])


def test_no_readable_clip(fitted):
    with raises_with(InputError, "enroll: X", "no clip"):
        enroll_clips(fitted, cqts=[SILENCE])


def test_a_model_without_references(fitted):
    with raises_with(InputError, "enroll: ", "older version", "Fit and save"):
        check_enrollable(replace(fitted, references=None), "bb")


def test_a_model_without_a_linear_head(fitted):
    fitted.network.backbone.head = torch.nn.Identity()
    with raises_with(InputError, "enroll: ", "linear head", "backbone"):
        check_enrollable(fitted, "bb")


# albums


def test_the_album_is_the_group_or_the_folder_of_a_clip(tmp_path):
    import soundfile

    one, two = tmp_path / "one", tmp_path / "two"
    for file in (one / "a.wav", one / "b.wav", two / "c.wav"):
        file.parent.mkdir(exist_ok=True)
        soundfile.write(file, make_wave(60), 22_050)
    folders = [str(one), str(one), str(two)]
    paths = sorted(map(str, tmp_path.rglob("*.wav")))
    named = pd.DataFrame({"path": paths, "album": ["p", "p", "q"]})
    partly = list_recordings(paths, groups=["x", "y", None])

    assert infer_albums(list_recordings([str(one), str(two)])).tolist() == folders
    assert infer_albums(list_recordings(tmp_path)).tolist() == folders
    assert infer_albums(list_recordings(named)).tolist() == ["p", "p", "q"]
    assert infer_albums(partly).tolist() == ["x", "y", str(two)]


def test_the_album_of_an_array_is_the_array():
    albums = infer_albums(list_recordings(CLIPS[:2]))
    assert albums.tolist() == ["array 0", "array 1"]
