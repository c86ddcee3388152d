"""`Classifier.fit`: its arguments, what it checks, and what it leaves unchanged."""

from dataclasses import replace

import albumentations
import numpy as np
import pandas as pd
import pytest
import torch

from cqt2img.classifier import Classifier, load
from cqt2img.data.recordings import list_recordings
from cqt2img.data.tile_folder import open_tiles
from cqt2img.errors import AudioError, InputError, TrainingError
from cqt2img.inference.predict import embed_tiles
from cqt2img.training.config import TrainingConfig
from tests.conftest import (
    LINE_ALBUMS,
    LINE_LABELS,
    RowLevels,
    make_lines,
    raises_with,
)


def losses(classifier):
    return [(entry["loss"], entry["valid_loss"]) for entry in classifier.history_]


def backbone_state(classifier):
    """The weights and statistics of a network without its head."""
    state = classifier.network_.state_dict()
    return {name: value for name, value in state.items() if "fc." not in name}


def fit_lines(arguments, **fit_arguments):
    """Fit a new classifier to twelve recordings of two classes and six albums."""
    classifier = Classifier(**arguments)
    return classifier.fit(make_lines(), LINE_LABELS, LINE_ALBUMS, **fit_arguments)


# what fit leaves unchanged


def test_fit_returns_itself_and_keeps_its_parameters(probe_options):
    classifier = Classifier(**probe_options)
    before = classifier.get_params()
    assert classifier.fit(make_lines(), LINE_LABELS) is classifier
    assert classifier.get_params() == before


def test_arrays_of_the_caller_are_not_changed(options):
    X = make_lines()
    y = np.array(LINE_LABELS)
    Classifier(**options).fit(X, y).predict(X)
    for cqt, expected in zip(X, make_lines(), strict=True):
        np.testing.assert_array_equal(cqt, expected)
    assert y.tolist() == LINE_LABELS


def test_the_random_state_of_the_caller_is_not_changed(options):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    fit_lines(options).predict(make_lines())
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("augment", ["none", "album"])
def test_the_result_depends_on_the_seed_only(options, augment):
    arguments = {**options, "augment": augment, "epochs": 1}
    one, same, other = (
        fit_lines({**arguments, "random_state": seed}) for seed in (3, 3, 4)
    )
    assert losses(one) == losses(same)
    assert losses(one) != losses(other)
    proba = one.predict_proba(make_lines())
    np.testing.assert_array_equal(proba, same.predict_proba(make_lines()))


def test_fitting_again_starts_anew(options):
    classifier = Classifier(**options).fit(make_lines(), ["a", "b", "c"] * 4)
    classifier.fit(make_lines(), LINE_LABELS, LINE_ALBUMS)
    fresh = fit_lines(options)
    assert classifier.classes_.tolist() == ["high", "low"]
    assert losses(classifier) == losses(fresh)
    np.testing.assert_array_equal(
        classifier.predict_proba(make_lines()), fresh.predict_proba(make_lines())
    )


@pytest.fixture(scope="module")
def fitted(probe_options):
    return fit_lines(probe_options)


def interrupt(tile):
    raise KeyboardInterrupt


class NotFinite(RowLevels):
    """Row levels that are NaN in training."""

    def forward(self, images):
        features = super().forward(images)
        return features * float("nan") if self.training else features


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"augment": interrupt}, KeyboardInterrupt),
        ({"backbone": NotFinite()}, TrainingError),
    ],
)
def test_a_failing_fit_leaves_the_previous_model_unchanged(
    options, fitted, changes, error
):
    classifier = Classifier(**options).set_params(**changes)
    classifier.model_ = fitted.model_
    before = fitted.predict_proba(make_lines())
    with pytest.raises(error):
        classifier.fit(make_lines(), ["left", "right"] * 6, LINE_ALBUMS)
    assert classifier.model_ is fitted.model_
    np.testing.assert_array_equal(classifier.predict_proba(make_lines()), before)


def test_a_loss_that_is_not_finite_is_an_error(options):
    classifier = Classifier(**{**options, "backbone": NotFinite()})
    with raises_with(TrainingError, "fit: ", "loss", "nan", "epoch 1", "array "):
        classifier.fit(make_lines(), LINE_LABELS, LINE_ALBUMS)
    assert not hasattr(classifier, "model_")


# labels


@pytest.mark.parametrize(
    "names",
    [
        ["b", "a"],
        ["Über", "Ångström"],
        [7, 3],
        [np.int64(1), np.int64(0)],
        [True, False],
    ],
)
def test_labels_of_any_type_in_any_order(probe_options, names):
    y = names * 6
    classifier = Classifier(**probe_options).fit(make_lines(), y, LINE_ALBUMS)
    assert classifier.classes_.tolist() == sorted(names)
    assert classifier.predict(make_lines()).tolist() == y
    assert classifier.score(make_lines(), y) == 1


def test_labels_may_be_a_series_with_any_index(probe_options):
    y = pd.Series(LINE_LABELS, index=np.arange(12) + 50)
    classifier = Classifier(**probe_options).fit(make_lines(), y)
    assert classifier.classes_.tolist() == ["high", "low"]


@pytest.mark.parametrize(
    ("y", "parts"),
    [
        (["low"] * 3, ("2 classes", "low")),
        (["low", "low", "rare"], ("2 recordings", "rare")),
        (["low", "high"], ("2 for 3 recordings",)),
        (None, ("3 of 3", "'array 0'")),
    ],
)
def test_labels_that_cannot_be_fitted(options, y, parts):
    with raises_with(InputError, "fit: y must", *parts):
        Classifier(**options).fit(make_lines(3), y)


def test_copies_of_a_recording_with_two_labels(options):
    X = make_lines()
    X[3] = X[0]
    with raises_with(InputError, "fit: y", "'array 0'", "'array 3'", "low", "high"):
        Classifier(**options).fit(X, LINE_LABELS)


# arguments


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 1.5),
        ("learning_rate", 0),
        ("finetune", "tail"),
        ("augment", "much"),
        ("on_error", "ignore"),
        ("random_state", -1),
        ("config", {"mixup": 1}),
    ],
)
def test_arguments_are_checked_before_the_recordings(options, name, value):
    classifier = Classifier(**{**options, name: value})
    with raises_with(InputError, f"fit: {name} must be", repr(value)):
        classifier.fit("nowhere")


def test_weights_are_checked_before_recordings_are_read(options, bad_folder):
    classifier = Classifier(**{**options, "weights": 5})
    X = sorted(bad_folder.iterdir())
    with raises_with(InputError, "fit: weights=5"):
        classifier.fit(X, ["a", "b"] * 3)


def test_a_device_that_is_not_available(options, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    with raises_with(InputError, "device='gpu'", "cpu"):
        fit_lines({**options, "device": "gpu"})


@pytest.mark.parametrize("name", ["file", "file/below", "x" * 300, "a\0b"])
def test_folders_are_checked_before_the_recordings(
    options, probe_options, tmp_path, monkeypatch, name
):
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    with raises_with(InputError, "fit: checkpoint", repr(name)):
        Classifier(**options).fit("nowhere", checkpoint=name)
    config = TrainingConfig(cache_dir=name)
    with raises_with(InputError, "config: cache_dir", repr(name)):
        Classifier(**probe_options, config=config).fit("nowhere")


@pytest.mark.parametrize("checkpoint", [5, ""])
def test_a_checkpoint_is_a_path(options, checkpoint):
    with raises_with(InputError, f"fit: checkpoint={checkpoint!r}"):
        Classifier(**options).fit("nowhere", checkpoint=checkpoint)


@pytest.mark.parametrize("finetune", ["all", "head"])
def test_resuming_needs_a_folder(options, finetune):
    classifier = Classifier(**{**options, "finetune": finetune})
    with raises_with(InputError, "fit: resume=True", "checkpoint="):
        classifier.fit("nowhere", resume=True)


# arguments without effect


def test_notes_warn_about_settings_of_full_training(small):
    classifier = Classifier("notes", epochs=40, spec=small)
    expected = "fit: epochs=40 has no effect: with backbone 'notes' only the linear"
    with pytest.warns(UserWarning, match=expected), raises_with(InputError, small.key):
        classifier.fit(make_lines(), LINE_LABELS)  # small tiles are not for notes


def test_a_linear_probe_warns_about_settings_of_full_training(probe_options):
    config = TrainingConfig(mixup=0.2)
    arguments = {**probe_options, "augment": "none", "config": config}
    with pytest.warns(UserWarning, match="augment='none', mixup=0.2 have no effect"):
        fit_lines(arguments)


def test_full_training_warns_about_the_cache_of_embeddings(options, tmp_path):
    arguments = {**options, "config": TrainingConfig(cache_dir=tmp_path / "cache")}
    with pytest.warns(UserWarning, match=r"cache_dir=.* all layers are trained"):
        fit_lines(arguments)
    assert not (tmp_path / "cache").exists()


def test_validation_recordings_replace_the_fraction(probe_options):
    config = TrainingConfig(validation_fraction=0.5)
    expected = "validation_fraction=0.5 has no effect: validation recordings were"
    with pytest.warns(UserWarning, match=expected) as caught:
        fit_lines({**probe_options, "config": config}, validation=[0, 1])
    assert len(caught) == 1
    assert caught[0].filename == __file__


# validation


def test_validation_as_recordings_indices_or_a_mask(options):
    X = make_lines()
    mask = np.arange(12) >= 8
    passed = Classifier(**options)
    passed.fit(X[:8], LINE_LABELS[:8], validation=(X[8:], LINE_LABELS[8:]))
    assert passed.references_.is_validation.sum() == 4
    for fold in (mask, mask.tolist(), np.arange(8, 12), [8, 9, 10, 11]):
        classifier = Classifier(**options).fit(X, LINE_LABELS, validation=fold)
        assert losses(classifier) == losses(passed)
        np.testing.assert_array_equal(
            classifier.predict_proba(X), passed.predict_proba(X)
        )


@pytest.mark.parametrize("fold", [[12], np.ones(12, bool), np.ones(5, bool)])
def test_a_fold_that_does_not_fit_the_recordings(options, fold):
    with raises_with(InputError, "fit: validation must"):
        fit_lines(options, validation=fold)


def test_validation_with_a_label_that_training_does_not_have(options):
    X = make_lines()
    validation = (X[8:10], ["low", "middle"])
    with raises_with(InputError, "y must", "middle", "high, low"):
        Classifier(**options).fit(X[:8], LINE_LABELS[:8], validation=validation)


def test_validation_that_contains_training_recordings(options, tile_folder):
    first = list_recordings(tile_folder).paths[0]
    with raises_with(InputError, "fit: validation must", "18 of 18", repr(first)):
        Classifier(**options).fit(tile_folder, validation=tile_folder)


def test_validation_as_a_table(probe_options, tile_folder):
    table = list_recordings(tile_folder).to_frame()
    is_held_out = table["group"].str.endswith("2")
    classifier = Classifier(**probe_options)
    classifier.fit(table[~is_held_out], validation=table[is_held_out])
    assert classifier.references_.is_validation.sum() == 6
    assert set(classifier.groups_) == set(table["group"])


def test_a_model_without_validation_is_not_calibrated(options):
    config = TrainingConfig(validation_fraction=0)
    classifier = fit_lines({**options, "config": config})
    assert classifier.temperature_ == 1
    assert classifier.history_[-1]["valid_accuracy"] is None
    assert not classifier.references_.is_validation.any()


def test_the_log_warns_if_no_groups_are_known(probe_options, caplog):
    Classifier(**probe_options).fit(make_lines(), LINE_LABELS)
    assert "no groups are given" in caplog.text
    caplog.clear()
    fit_lines(probe_options)
    assert caplog.text == ""


def test_the_log_warns_if_validation_shares_groups(probe_options, tmp_path, caplog):
    rows = []
    for n, cqt in enumerate(make_lines(8)):
        np.save(tmp_path / f"{n}.npy", cqt)
        album = f"album {n % 4 // 2}"
        rows.append({"path": f"{n}.npy", "label": LINE_LABELS[n], "group": album})
    training = tmp_path / "training.csv"
    validation = tmp_path / "validation.csv"
    pd.DataFrame(rows[:4]).to_csv(training, index=False)
    pd.DataFrame(rows[4:]).to_csv(validation, index=False)
    Classifier(**probe_options).fit(training, validation=validation)
    assert "groups are in both training and validation" in caplog.text
    assert "'album 0'" in caplog.text


# augmentation


def test_a_function_and_an_albumentations_transform_that_do_the_same(options):
    plain = fit_lines(options)
    transforms = (lambda tile: tile[::-1], albumentations.VerticalFlip(p=1))
    flipped = [fit_lines({**options, "augment": augment}) for augment in transforms]
    assert losses(flipped[0]) == losses(flipped[1])
    assert losses(flipped[0]) != losses(plain)


def test_an_augmentation_that_returns_another_shape(options):
    with raises_with(InputError, "fit: augment must", "(64, 16)"):
        fit_lines({**options, "augment": lambda tile: tile[:, ::2]})


# forms of X


def test_all_forms_of_the_same_recordings_train_the_same_model(
    probe_options, folder, tile_folder, tmp_path
):
    frame = list_recordings(folder).to_frame()[["path", "label", "group"]]
    is_second = frame["path"].str.endswith("take 1.wav")
    frame = frame[is_second].set_index(np.arange(9) + 7)
    frame.to_csv(tmp_path / "table.csv", index=False)
    tiles = open_tiles(tile_folder)
    part = tiles.select(is_second.to_numpy())
    expected = Classifier(**probe_options).fit(part)
    assert expected.classes_.tolist() == ["High", "Low", "Middle"]
    lists = (frame["path"].tolist(), frame["label"].tolist(), frame["group"].tolist())
    for data in ((frame,), (tmp_path / "table.csv",), (list_recordings(part),), lists):
        classifier = Classifier(**probe_options).fit(*data)
        assert classifier.groups_ == expected.groups_
        assert classifier.fingerprints_ == expected.fingerprints_
        np.testing.assert_array_equal(
            classifier.predict_proba(part), expected.predict_proba(part)
        )


def test_the_spec_is_that_of_the_tiles(probe_options, tile_folder, small):
    recordings = list_recordings(tile_folder)
    for X in (tile_folder, open_tiles(tile_folder), recordings):
        classifier = Classifier(**{**probe_options, "spec": None}).fit(X)
        assert classifier.spec_ == small
    other = replace(small, gamma=0.0)
    with raises_with(InputError, "fit: X", small.key, other.key):
        Classifier(**{**probe_options, "spec": other}).fit(recordings)


# recordings that cannot be read


def test_an_unreadable_recording_is_an_error_before_training(options, bad_folder):
    path = str(bad_folder / "empty_file.wav")
    classifier = Classifier(**{**options, "augment": interrupt})
    with raises_with(AudioError, "fit: X", repr(path), "0 bytes", "on_error='skip'"):
        classifier.fit([*make_lines(), path], [*LINE_LABELS, "low"])


def test_unreadable_recordings_are_skipped_if_wanted(probe_options, bad_folder, caplog):
    bad = sorted(map(str, bad_folder.iterdir()))
    X = [bad[0], *make_lines(), *bad[1:]]
    y = ["low", *LINE_LABELS, *["high"] * 5]
    groups = ["bad", *LINE_ALBUMS, *["bad"] * 5]
    classifier = Classifier(**probe_options, on_error="skip").fit(X, y, groups)
    assert [one.path for one in classifier.skipped_] == bad
    for one in classifier.skipped_:
        assert one.path.endswith(f"{one.reason}.wav")
    left_out = [record for record in caplog.records if "left out" in record.message]
    assert len(left_out) == 6
    expected = fit_lines(probe_options)
    np.testing.assert_array_equal(
        classifier.predict_proba(make_lines()), expected.predict_proba(make_lines())
    )


@pytest.mark.parametrize(
    ("labels", "lost"), [(["low"] * 4, "high"), (["low", "high"] * 2, "middle")]
)
def test_a_class_without_any_readable_recording(
    probe_options, bad_folder, labels, lost
):
    X = [*make_lines(4), bad_folder / "silent.wav", bad_folder / "truncated.wav"]
    classifier = Classifier(**probe_options, on_error="skip")
    with raises_with(InputError, "fit: "):
        classifier.fit(X, [*labels, lost, lost])


# initial weights, checkpoints and caches


def test_training_continues_from_a_saved_model(probe_options, tile_folder, saved):
    whole = load(saved)
    table = list_recordings(tile_folder).to_frame()
    later = table[table["group"].str.endswith("2")]
    arguments = {**probe_options, "backbone": "test_resnet", "weights": saved}
    classifier = Classifier(**arguments).fit(later)
    expected = backbone_state(whole)
    for name, value in backbone_state(classifier).items():
        assert torch.equal(value, expected[name]), name
    # scores on the recordings of the first training are no measure, either
    assert set(classifier.groups_) == set(whole.groups_) > set(later["group"])
    assert classifier.fingerprints_ == whole.fingerprints_
    assert classifier.evaluate(table).known_groups == whole.groups_


def test_the_best_weights_of_a_checkpoint_are_initial_weights(options, tmp_path):
    model = fit_lines(options, checkpoint=tmp_path / "state")
    best = tmp_path / "state" / "best.safetensors"
    arguments = {**options, "weights": best, "learning_rate": 1e-12, "epochs": 1}
    classifier = fit_lines(arguments)
    trained = dict(model.network_.backbone.named_parameters())
    for name, value in classifier.network_.backbone.named_parameters():
        if "fc." not in name:
            torch.testing.assert_close(value, trained[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize("where", ["cache_dir", "checkpoint"])
def test_embeddings_are_kept_from_fit_to_fit(
    probe_options, tmp_path, monkeypatch, where
):
    calls = []

    def count(*args):
        calls.append(1)
        return embed_tiles(*args)

    monkeypatch.setattr("cqt2img.training.embedding_cache.embed_tiles", count)
    arguments = dict(probe_options)
    fit_arguments = {}
    if where == "cache_dir":
        arguments["config"] = TrainingConfig(cache_dir=tmp_path / "cache")
    else:
        fit_arguments = {"checkpoint": tmp_path / "cache", "resume": True}
    first = fit_lines(arguments, **fit_arguments)
    assert len(calls) == 12
    again = fit_lines(arguments, **fit_arguments)
    assert len(calls) == 12
    np.testing.assert_array_equal(
        first.predict_proba(make_lines()), again.predict_proba(make_lines())
    )
