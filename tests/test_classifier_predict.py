"""Predictions of `Classifier`: forms of X, unreadable recordings, tables and scores."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from cqt2img.classifier import Classifier
from cqt2img.data.recordings import list_recordings
from cqt2img.data.render import render
from cqt2img.data.tile_folder import open_tiles
from cqt2img.errors import AudioError, InputError
from tests.conftest import (
    LINE_ALBUMS,
    LINE_LABELS,
    make_cqt,
    make_lines,
    raises_with,
)

REASONS = [
    "silent",
    "too_short",
    "non_finite",
    "truncated",
    "empty_file",
    "unsupported_or_corrupt",
]


@pytest.fixture(scope="module")
def lines_model(probe_options):
    """A model of lines whose embeddings are separable."""
    classifier = Classifier(**probe_options)
    return classifier.fit(make_lines(), LINE_LABELS, LINE_ALBUMS)


@pytest.fixture(scope="module")
def paths(folder):
    """The six recordings of one player."""
    return list_recordings(folder / "Low").paths


@pytest.fixture(scope="module")
def bad_paths(bad_folder):
    return [str(bad_folder / f"{reason}.wav") for reason in REASONS]


# forms of X


def test_all_forms_of_the_same_recordings_have_the_same_predictions(
    model, folder, paths, tile_folder, tmp_path
):
    recordings = list_recordings(folder / "Low")
    frame = recordings.to_frame()[["path"]]
    frame.to_csv(tmp_path / "table.csv", index=False)
    tiles = open_tiles(tile_folder)
    part = tiles.select(tiles.recordings["label"] == "Low")
    expected = model.predict_proba(part)
    assert expected.shape == (6, 3)
    forms = [
        folder / "Low",
        str(folder / "Low"),
        np.array(paths),
        np.array(paths, dtype=object),
        tmp_path / "table.csv",
        frame.set_index(np.arange(6) + 7),
        recordings,
    ]
    for X in forms:
        np.testing.assert_array_equal(model.predict_proba(X), expected)


def test_arrays_and_npy_files_have_the_same_predictions(lines_model, tmp_path):
    X = make_lines()
    files = [tmp_path / f"{n:02d}.npy" for n in range(12)]
    for file, cqt in zip(files, X, strict=True):
        np.save(file, cqt)
    expected = lines_model.predict_proba(X)
    np.testing.assert_array_equal(lines_model.predict_proba(files), expected)
    np.testing.assert_array_equal(lines_model.predict_proba(tmp_path), expected)
    short = [cqt[:, :40] for cqt in X]
    stacked = lines_model.predict_proba(np.stack(short))
    np.testing.assert_array_equal(stacked, lines_model.predict_proba(short))


def test_a_louder_recording_has_the_same_prediction(lines_model):
    louder = [4 * cqt for cqt in make_lines()]
    expected = lines_model.predict_proba(make_lines())
    np.testing.assert_allclose(lines_model.predict_proba(louder), expected, atol=1e-3)


def test_recordings_are_predicted_one_by_one(model, tile_folder):
    recordings = list_recordings(tile_folder)
    expected = model.predict_proba(recordings)
    for n in range(3):
        one = model.predict_proba(recordings.select([n]))
        np.testing.assert_array_equal(one[0], expected[n])
    backwards = model.predict_proba(recordings[::-1])
    np.testing.assert_array_equal(backwards[::-1], expected)


def test_tiles_of_another_spec(lines_model, small, tmp_path):
    other = replace(small, gamma=0.0)
    render([make_cqt(5)], tmp_path / "tiles", other)
    path = repr(str(tmp_path / "tiles"))
    for method in (lines_model.predict, lines_model.identify, lines_model.embed):
        with raises_with(InputError, ": X must", small.key, other.key, path):
            method(tmp_path / "tiles")


def test_one_array_is_no_sequence_of_recordings(lines_model):
    with raises_with(InputError, "predict: X", "(60, 40)", "[cqt]"):
        lines_model.predict(make_cqt(5))


def test_no_recording_at_all(lines_model):
    with raises_with(InputError, "predict: no recordings in a list"):
        lines_model.predict([])


# recordings that cannot be read


@pytest.mark.parametrize("n_jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_unreadable_recordings_do_not_change_the_others(
    model, paths, bad_paths, n_jobs
):
    model.set_params(on_error="skip", n_jobs=n_jobs)
    X = [paths[0], *bad_paths, paths[1]]
    is_bad = np.array([path in bad_paths for path in X])
    table = model.identify(X)
    assert table["path"].tolist() == X
    assert table["status"].eq("error").tolist() == is_bad.tolist()
    assert table["reason"].tolist() == ["", *REASONS, ""]
    labels = table.loc[is_bad, ["label", "probability", "label_2", "probability_3"]]
    assert labels.isna().all(axis=None)
    for path, message in zip(bad_paths, table.loc[is_bad, "message"], strict=True):
        assert path in message
    proba = model.predict_proba(X)
    assert np.isnan(proba).all(axis=1).tolist() == is_bad.tolist()
    expected = model.predict_proba(paths[:2])
    np.testing.assert_array_equal(proba[~is_bad], expected)
    first, last = model.classes_[expected.argmax(axis=1)]
    assert model.predict(X).tolist() == [first, *[None] * 6, last]


def test_no_recording_can_be_read(model, bad_paths):
    model.set_params(on_error="skip")
    assert model.predict(bad_paths).tolist() == [None] * 6
    assert np.isnan(model.predict_proba(bad_paths)).all()
    assert np.isnan(model.embed(bad_paths)).all()
    assert model.identify(bad_paths)["reason"].tolist() == REASONS
    assert model.score(bad_paths, ["Low"] * 6) == 0
    with raises_with(InputError, "evaluate: ", "recording"):
        model.evaluate(bad_paths, ["Low"] * 6)


def test_a_missing_file_is_a_row_of_the_table(lines_model, tmp_path):
    X = [make_lines(1)[0], tmp_path / "gone.wav", tmp_path / "gone.npy"]
    table = lines_model.identify(X)
    assert table["reason"].tolist() == ["", "vanished", "vanished"]


def test_methods_that_return_arrays_raise_errors(lines_model, bad_paths):
    X = [make_lines(1)[0], bad_paths[0]]
    for name in ("predict", "predict_proba", "embed"):
        parts = (f"{name}: X", repr(bad_paths[0]), "on_error='skip'")
        with raises_with(AudioError, *parts):
            getattr(lines_model, name)(X)
    with pytest.raises(AudioError) as caught:
        lines_model.predict([*bad_paths, X[0]])
    assert "6 of 7" in str(caught.value)
    assert caught.value.reason == "silent"


# embeddings


def test_the_head_maps_embeddings_to_logits(lines_model):
    """The head is linear, so that the mean of the logits is that of the embeddings."""
    features = torch.from_numpy(lines_model.embed(make_lines()))
    head = lines_model.network_.backbone.get_classifier()
    with torch.no_grad():
        indices = head(features).argmax(dim=1).numpy()
    predicted = lines_model.predict(make_lines()).tolist()
    assert lines_model.classes_[indices].tolist() == predicted == LINE_LABELS


def test_recordings_of_a_class_have_similar_embeddings(lines_model):
    features = lines_model.embed(make_lines())
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    similarity = features @ features.T - 2 * np.eye(12)
    nearest = similarity.argmax(axis=1)
    assert np.array(LINE_LABELS)[nearest].tolist() == LINE_LABELS


# tables


@pytest.mark.parametrize("top_k", [1, 2, 9])
def test_identify_has_top_k_labels_at_most(model, tile_folder, top_k):
    table = model.identify(tile_folder, top_k)
    labels = ["label", "label_2", "label_3"][:top_k]
    assert [name for name in table if name.startswith("label")] == labels
    proba = -np.sort(-model.predict_proba(tile_folder), axis=1)
    columns = ["probability", "probability_2", "probability_3"][:top_k]
    found = table[columns].to_numpy(dtype=float)
    np.testing.assert_allclose(found, proba[:, :top_k], atol=1e-6)


@pytest.mark.parametrize("top_k", [0, -1, True, 1.5])
def test_top_k_is_a_number_of_1_or_more(lines_model, top_k):
    with raises_with(InputError, f"identify: top_k={top_k!r}"):
        lines_model.identify(make_lines(), top_k)


def test_the_tiles_of_a_recording_have_its_times(model, paths):
    table = model.predict_tiles(paths[:2])
    for path, rows in table.groupby("path", sort=False):
        starts = rows["start_seconds"].to_numpy()
        ends = rows["end_seconds"].to_numpy()
        assert starts[0] == 0
        np.testing.assert_allclose(starts[1:], ends[:-1], atol=2e-3)
        # the last tile is left out if it is less than a quarter full
        tolerance = 0.25 * model.spec_.tile_seconds
        assert ends[-1] == pytest.approx(soundfile.info(path).duration, abs=tolerance)


# scores


def test_the_score_is_the_weighted_accuracy(lines_model):
    y = ["high", *LINE_LABELS[1:]]  # the first recording is a low line
    assert lines_model.score(make_lines(), y) == pytest.approx(11 / 12)
    weight = [3, *[1] * 11]
    score = lines_model.score(make_lines(), y, sample_weight=weight)
    assert score == pytest.approx(11 / 14)


def test_an_unreadable_recording_counts_as_wrong(probe_options, lines_model, bad_paths):
    classifier = Classifier(**probe_options, on_error="skip")
    classifier.model_ = lines_model.model_
    X = [*make_lines(), bad_paths[0]]
    score = classifier.score(X, [*LINE_LABELS, "low"])
    assert score == pytest.approx(12 / 13)


def test_evaluate_counts_groups_and_failures(model, tile_folder, bad_paths):
    scores = model.evaluate(tile_folder)
    counts = (scores.n_recordings, scores.n_groups, scores.n_failed)
    assert counts == (18, 9, 0)
    assert scores.classes == ("High", "Low", "Middle")
    assert len(scores.known_groups) == 9
    assert "np.str_" not in str(scores)
    recordings = list_recordings(tile_folder)
    silent = list_recordings([bad_paths[0]], ["Low"])
    with_silent = model.evaluate(recordings + silent)
    assert with_silent.n_failed == 1
    assert with_silent.accuracy == scores.accuracy
    assert with_silent.known_groups == scores.known_groups


def test_training_recordings_are_recognised_by_their_content(model, tile_folder):
    """Under other names: here the groups are paths instead of albums."""
    tiles = open_tiles(tile_folder)
    recordings = list_recordings(tiles)
    renamed = list_recordings(recordings, groups=[*range(18)])
    known = model.evaluate(renamed).known_groups
    assert known == tuple(sorted(map(str, range(18))))


def test_evaluate_names_a_label_that_the_model_does_not_have(lines_model):
    with raises_with(InputError, "evaluate: y must", "Monk", "high, low"):
        lines_model.evaluate(make_lines(2), ["low", "Monk"])


@pytest.mark.parametrize("method", ["score", "evaluate"])
@pytest.mark.parametrize("labels", [None, ["low", None]])
def test_scores_need_labels(lines_model, method, labels):
    n_missing = 2 if labels is None else 1
    with raises_with(InputError, f"{method}: y must", f"{n_missing} of 2"):
        getattr(lines_model, method)(make_lines(2), labels)
