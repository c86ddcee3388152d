"""`Classifier` keeps scikit-learn's promises, and ours."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    cross_val_predict,
    cross_val_score,
)
from sklearn.utils import estimator_checks

from cqt2img.classifier import Classifier, load
from cqt2img.data.recordings import list_recordings
from cqt2img.data.render import render
from cqt2img.data.tile_folder import open_tiles
from cqt2img.errors import AudioError, InputError, TrainingError
from cqt2img.inference.predict import embed_tiles
from cqt2img.models.architecture import WEIGHT_SOURCES
from cqt2img.models.factory import build_network
from tests.conftest import make_cqt, raises_exactly, raises_with

CHECKS = [
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_valid_tag_types",
]
METHODS = [
    "predict",
    "predict_proba",
    "embed",
    "predict_tiles",
    "identify",
    "answers",
    "score",
    "evaluate",
    "save",
]
BAD = [
    "silent",
    "too_short",
    "non_finite",
    "truncated",
    "empty_file",
    "unsupported_or_corrupt",
]


def lines(n=12, **words):
    """Recordings with a low and with a high line, by turns."""
    return [
        make_cqt((10, 45)[k % 2] + k % 3, 40 + k, seed=k, **words) for k in range(n)
    ]


Y = ["low", "high"] * 6


@pytest.fixture
def classifier(options):
    return Classifier(**options)


@pytest.fixture(scope="module")
def paths(folder):
    return list_recordings(folder).paths


# scikit-learn's own checks that need no data


@pytest.mark.parametrize("name", CHECKS)
def test_data_free_check(name):
    getattr(estimator_checks, name)("Classifier", Classifier())


def test_every_check_was_meant():
    missing = [name for name in CHECKS if not hasattr(estimator_checks, name)]
    assert missing == []


def test_is_a_classifier():
    assert is_classifier(Classifier())
    assert Classifier().__sklearn_tags__().input_tags.string


def test_constructor_stores_and_does_nothing_more():
    strange = {
        "backbone": object(),
        "weights": object(),
        "spec": [1],
        "in_chans": "x",
        "epochs": -1,
        "batch_size": None,
        "learning_rate": "fast",
        "augment": 3,
        "random_state": "now",
    }
    model = Classifier(**strange)
    assert all(getattr(model, name) is value for name, value in strange.items())
    assert set(vars(model)) == set(model.get_params())


def test_clone_of_a_fitted_model_is_unfitted(model):
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert not hasattr(copy, "classes_")


def test_set_params(classifier):
    assert classifier.set_params(epochs=7, spec="fast") is classifier
    assert (classifier.epochs, classifier.spec) == (7, "fast")
    with pytest.raises(ValueError, match="Invalid parameter 'epoch'"):
        classifier.set_params(epoch=7)


# before fit


@pytest.mark.parametrize("method", METHODS)
def test_not_fitted_comes_before_the_input(method, tmp_path, classifier):
    class Untouchable:
        def __getattribute__(self, name):
            raise AssertionError("the input was touched")

    with pytest.raises(NotFittedError):
        getattr(classifier, method)(
            tmp_path / "gone" if method == "save" else Untouchable()
        )
    assert list(tmp_path.iterdir()) == []


# fit


def test_fit_gives_itself_and_names_that_end_in_an_underscore(classifier):
    before = vars(classifier).copy()
    assert classifier.fit(lines(), Y) is classifier
    made = set(vars(classifier)) - set(before)
    assert made == {
        "architecture_",
        "classes_",
        "enrolled_",
        "open_set_",
        "fingerprints_",
        "references_",
        "groups_",
        "history_",
        "network_",
        "skipped_",
        "spec_",
        "temperature_",
    }
    assert {name: getattr(classifier, name) for name in before} == before
    assert classifier.classes_.tolist() == ["high", "low"]
    assert len(classifier.history_) == classifier.epochs


def test_fit_changes_no_array_of_the_caller(classifier):
    X, y = lines(), np.array(Y)
    before = [cqt.copy() for cqt in X]
    classifier.fit(X, y).predict(X)
    assert all(np.array_equal(a, b) for a, b in zip(before, X, strict=True))
    assert y.tolist() == Y


def losses(model):
    return [(entry["loss"], entry["valid_loss"]) for entry in model.history_]


@pytest.mark.parametrize("augment", ["none", "album"])
def test_same_seed_same_model(options, augment):
    X = lines()
    models = [
        Classifier(**{**options, "augment": augment, "random_state": s}).fit(X, Y)
        for s in (3, 3, 4)
    ]
    assert losses(models[0]) == losses(models[1]) != losses(models[2])
    proba = [model.predict_proba(X) for model in models]
    np.testing.assert_array_equal(proba[0], proba[1])
    assert not np.array_equal(proba[0], proba[2])


def test_fit_leaves_the_draws_of_the_caller(classifier):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    classifier.fit(lines(), Y).predict(lines())
    assert torch.equal(before, torch.get_rng_state())


def test_refit_forgets(options):
    X = lines()
    model = Classifier(**options).fit(X, ["a", "b", "c"] * 4)
    model.fit(X, Y)
    fresh = Classifier(**options).fit(X, Y)
    assert model.classes_.tolist() == ["high", "low"]
    assert losses(model) == losses(fresh)
    np.testing.assert_array_equal(model.predict_proba(X), fresh.predict_proba(X))


def test_failed_refit_leaves_no_mixture(options, bad_folder):
    model = Classifier(**options).fit(lines(), Y)
    before = model.predict_proba(lines())
    with pytest.raises(AudioError):
        model.fit([*lines(), str(bad_folder / "silent.wav")], [*Y, "low"])
    np.testing.assert_array_equal(model.predict_proba(lines()), before)
    assert model.skipped_ == []


def test_a_refit_that_goes_astray_leaves_the_model_of_before(options):
    model = Classifier(**options).fit(lines(), Y)
    before = model.predict_proba(lines())
    model.set_params(learning_rate=1e30)
    with pytest.raises(TrainingError):
        model.fit(lines(), ["left", "right"] * 6)
    assert model.classes_.tolist() == ["high", "low"]
    np.testing.assert_array_equal(model.predict_proba(lines()), before)


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
def test_labels_of_any_kind_in_any_order(options, names):
    y = [names[n % 2] for n in range(12)]
    model = Classifier(**{**options, "epochs": 8}).fit(lines(), y)
    assert model.classes_.tolist() == sorted(names)
    assert model.predict(lines()).tolist() == y
    assert model.score(lines(), y) == 1.0


def test_labels_may_be_a_series_of_any_index(classifier):
    y = pd.Series(Y, index=np.arange(12) + 50)
    assert classifier.fit(lines(), y).classes_.tolist() == ["high", "low"]


def test_one_class(classifier):
    message = "fit: y must hold two classes or more, got only low. Add recordings of another player."
    with raises_exactly(InputError, message):
        classifier.fit(lines(3), ["low"] * 3)


def test_class_with_one_recording(classifier):
    message = (
        "fit: y must hold two recordings or more of every class, got one of rare. "
        "Add recordings of it, or leave it out."
    )
    with raises_exactly(InputError, message):
        classifier.fit(lines(3), ["low", "low", "rare"])


def test_unlabelled(classifier, tmp_path):
    message = (
        "fit: y must label every recording, got none for 3 of 3, first 'array 0'. "
        "Sort the recordings into one folder per label, or give y or a csv with the column label."
    )
    with raises_exactly(InputError, message):
        classifier.fit(lines(3))


def test_lengths_differ(classifier):
    message = "fit: y must have one entry per recording, got 2 for 3 recordings. Compare it with X."
    with raises_exactly(InputError, message):
        classifier.fit(lines(3), ["low", "high"])


@pytest.mark.parametrize("bad", [-0.1, 1.0, 1.5, "half", None, float("nan")])
@pytest.mark.parametrize("name", ["validation_fraction", "label_smoothing"])
def test_parts_lie_between_nothing_and_all(classifier, name, bad):
    message = (
        f"fit: {name} must be a number from 0 to below 1, got {bad!r}. Choose another."
    )
    with raises_exactly(InputError, message):
        classifier.set_params(**{name: bad}).fit(lines(), Y)


def test_on_error_is_one_of_two(classifier):
    with raises_exactly(
        InputError, "fit: on_error must be 'raise' or 'skip', got 'ignore'. Choose one."
    ):
        classifier.set_params(on_error="ignore").fit(lines(), Y)


def test_arguments_are_checked_before_the_recordings(classifier):
    with raises_exactly(
        InputError, "fit: epochs must be a whole number from 1, got 0. Choose another."
    ):
        classifier.set_params(epochs=0).fit("nowhere")


def test_loss_that_is_no_number(options):
    model = Classifier(**{**options, "learning_rate": 1e30})
    where = r"^fit: loss must stay a number, got (nan|inf) at step \d+ of epoch 1, with tiles of array \d.*\. Lower"
    with pytest.raises(TrainingError, match=where):
        model.fit(lines(), Y)
    assert not hasattr(model, "network_")


def test_weights_that_are_no_numbers(options):
    """The loss is finite, for the step that broke the weights was the last one."""
    model = Classifier(
        **{
            **options,
            "learning_rate": 1e19,
            "epochs": 1,
            "batch_size": 64,
            "validation_fraction": 0,
        }
    )
    with pytest.raises(
        TrainingError,
        match=r"^fit: (loss must stay a|the network must give finite) number",
    ):
        model.fit(lines(), Y).predict(lines())
    assert not hasattr(model, "network_")


def test_validation_given(options):
    X = lines()
    model = Classifier(**options).fit(X[:8], Y[:8], validation=(X[8:], Y[8:]))
    assert all(
        entry["valid_accuracy"] in (0, 0.25, 0.5, 0.75, 1) for entry in model.history_
    )
    assert sorted(model.groups_) == sorted([f"array {n}" for n in range(8)])


def test_validation_with_a_strange_label(classifier):
    message = (
        "encode: y must hold labels that the model knows, got middle. "
        "It knows high, low: rename the labels or fit a new model."
    )
    with raises_exactly(InputError, message):
        classifier.fit(lines(8), Y[:8], validation=(lines(2), ["low", "middle"]))


def test_validation_folder(options, tile_folder):
    table = list_recordings(tile_folder).to_frame()
    kept = table["group"].str.endswith("2")
    model = Classifier(**{**options, "epochs": 1}).fit(
        table[~kept], validation=table[kept]
    )
    assert model.history_[0]["valid_accuracy"] * 6 == pytest.approx(
        round(model.history_[0]["valid_accuracy"] * 6)
    )


def test_validation_that_holds_training_recordings(options, tile_folder):
    first = list_recordings(tile_folder).paths[0]
    message = (
        f"fit: validation must hold recordings that training does not, got 18 of 18, first {first!r}. "
        "Give other recordings, or put copies into one group."
    )
    with raises_exactly(InputError, message):
        Classifier(**options).fit(tile_folder, validation=tile_folder)


def test_one_sound_with_two_labels(options):
    X = lines()
    X[3] = X[0]
    message = (
        f"fit: y must give the same sound one label, got {Y[0]} for 'array 0' and {Y[3]} for 'array 3'. "
        "Remove one of them."
    )
    with raises_exactly(InputError, message):
        Classifier(**options).fit(X, Y)


def test_albums_that_nobody_named_are_told(options, caplog):
    Classifier(**{**options, "epochs": 1}).fit(lines(), Y)
    assert "no groups are given, so an album may stand on both sides" in caplog.text
    caplog.clear()
    Classifier(**{**options, "epochs": 1}).fit(lines(), Y, [n // 2 for n in range(12)])
    assert caplog.text == ""


def test_a_device_that_is_not_here_costs_no_time(options, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    with raises_with(InputError, "device='gpu'", "cpu"):
        Classifier(**{**options, "device": "gpu", "epochs": 10**6}).fit(lines(), Y)


def test_without_validation(options):
    model = Classifier(**{**options, "validation_fraction": 0.0}).fit(lines(), Y)
    assert model.temperature_ == 1.0
    assert model.history_[-1]["valid_accuracy"] is None


def test_groups_are_kept_whole(options, monkeypatch, tile_folder):
    from cqt2img import classifier as module

    seen = {}

    def spy(network, corpus, *rest):
        seen["sides"] = corpus.train_index, corpus.validation_index
        raise InterruptedError

    monkeypatch.setattr(module, "train", spy)
    with pytest.raises(InterruptedError):
        Classifier(**options).fit(tile_folder)
    table = list_recordings(tile_folder).to_frame()
    first, second = (set(table["group"].iloc[side]) for side in seen["sides"])
    assert first
    assert second
    assert not first & second
    assert set(table["label"].iloc[seen["sides"][0]]) == set(table["label"])


def test_groups_of_training_are_remembered(model, folder):
    assert model.groups_.tolist() == [
        f"{p}/album {n}" for p in ("High", "Low", "Middle") for n in range(3)
    ]


# scikit-learn's tools


def test_what_the_weights_met_before_is_remembered(options, tile_folder, saved):
    whole, table = load(saved), list_recordings(tile_folder).to_frame()
    later = table[table["group"].isin(table.groupby("label")["group"].last())]
    model = Classifier(
        **{**options, "weights": saved, "epochs": 1, "validation_fraction": 0}
    ).fit(later)
    assert set(model.groups_) == set(whole.groups_) > set(later["group"])
    assert model.fingerprints_ == whole.fingerprints_
    assert set(model.evaluate(table).known_groups) == set(whole.groups_)


def test_some_of_the_tiles(options, tile_folder):
    tiles = open_tiles(tile_folder)
    mine = tiles.select(tiles.recordings["label"] != "High")
    assert set(mine.tiles["label"]) == {"Low", "Middle"}
    assert len(mine.recordings) == 2 * len(tiles.recordings) // 3
    model = Classifier(**options).fit(mine)
    assert model.classes_.tolist() == ["Low", "Middle"]
    assert model.skipped_ == []
    few = tiles.select([3, 1])
    np.testing.assert_array_equal(
        model.predict_proba(few), model.predict_proba(tiles)[[3, 1]]
    )
    assert all(one.tiles for one in list_recordings(few))  # nothing is drawn again


@pytest.mark.parametrize("word", ["none", "imagenet"])
def test_a_folder_of_that_name_is_no_weights(
    options, tile_folder, tmp_path, monkeypatch, word
):
    (tmp_path / word).mkdir()
    monkeypatch.chdir(tmp_path)
    if word == "imagenet":
        real = build_network
        monkeypatch.setattr(
            "cqt2img.classifier.build_network", lambda *a: real(*a[:3], None, *a[4:])
        )
    model = Classifier(**{**options, "weights": word, "epochs": 1}).fit(tile_folder)
    assert len(model.groups_) == 9


@pytest.mark.parametrize("bad", [5, True, [1], {}])
def test_weights_are_a_word_or_a_file(options, tile_folder, bad):
    with raises_with(InputError, f"fit: weights={bad!r}", WEIGHT_SOURCES):
        Classifier(**{**options, "weights": bad}).fit(tile_folder)


@pytest.mark.parametrize("name", ["checkpoint", "memory"])
@pytest.mark.parametrize("bad", ["file", "file/below", "x" * 300, "a\0b", 5, ""])
def test_folders_are_looked_at_before_anything_is_drawn(
    options, tile_folder, tmp_path, monkeypatch, name, bad
):
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cqt2img.classifier.list_train_validation", None)
    words = {"memory": bad, "finetune": "head"} if name == "memory" else {}
    if bad in (5, ""):
        message = f"fit: {name} must be a folder, got {bad!r}. Give its path."
    else:
        message = f"{bad!r} is not a folder that can be written. Choose another one."
    with raises_exactly(InputError, message):
        Classifier(**{**options, **words}).fit(
            tile_folder, **({"checkpoint": bad} if name == "checkpoint" else {})
        )


@pytest.mark.parametrize(
    ("value", "told"), [(float("nan"), "NaN"), (0.0, "the same for all")]
)
@pytest.mark.parametrize("words", [{"finetune": "head"}, {"head_first": True}])
def test_a_body_that_hears_nothing(options, tile_folder, tmp_path, value, told, words):
    network = build_network("test_resnet", 3, options["spec"])
    state = {
        k: torch.full_like(v, value) if v.is_floating_point() else v
        for k, v in network.backbone.state_dict().items()
    }
    torch.save(state, tmp_path / "w.pth")
    message = f"fit: weights must give features that differ from tile to tile, got {told}. Choose other weights."
    with raises_exactly(InputError, message):
        Classifier(**{**options, "weights": tmp_path / "w.pth", **words}).fit(
            tile_folder
        )


def test_a_memory_that_holds_something_else_is_not_trusted(
    options, tile_folder, tmp_path
):
    import joblib

    words = {**options, "finetune": "head", "memory": tmp_path}
    first = Classifier(**words).fit(tile_folder)
    kept = sorted(tmp_path.rglob("output.pkl"))
    assert len(kept) == 18
    for n, path in enumerate(kept):
        joblib.dump(["nonsense", np.zeros((7, 3), np.float32)][n % 2], path)
    again = Classifier(**words).fit(tile_folder)
    assert torch.equal(
        first.network_.backbone.get_classifier().weight,
        again.network_.backbone.get_classifier().weight,
    )


def test_the_best_weights_of_a_checkpoint_are_a_start(options, tile_folder, tmp_path):
    model = Classifier(**options).fit(tile_folder, checkpoint=tmp_path / "state")
    words = {
        **options,
        "weights": tmp_path / "state" / "best.safetensors",
        "finetune": "head",
    }
    other = Classifier(**words).fit(tile_folder)
    assert all(
        torch.equal(v, model.network_.state_dict()[k]) for k, v in body(other).items()
    )


def test_grid_search_over_specs(options, small, paths):
    y = [path.split("/")[-3] for path in paths]
    groups = [path.rsplit("/", 1)[0] for path in paths]
    taller = replace(small, height=72)
    search = GridSearchCV(
        Classifier(**{**options, "epochs": 1}),
        {"spec": [small, taller]},
        cv=GroupKFold(2),
    )
    search.fit(paths, y, groups=groups)
    assert search.best_params_["spec"] in (small, taller)
    assert search.best_estimator_.spec_ == search.best_params_["spec"]
    assert len(search.cv_results_["mean_test_score"]) == 2
    assert len(search.predict(paths)) == len(paths)


def test_cross_validation_over_groups(options):
    model = Classifier(**{**options, "epochs": 6})
    groups = np.arange(12) // 2
    named = cross_val_predict(model, lines(), Y, groups=groups, cv=GroupKFold(2))
    assert set(named) <= {"low", "high"}
    assert len(named) == 12
    proba = cross_val_predict(
        model, lines(), Y, groups=groups, cv=GroupKFold(2), method="predict_proba"
    )
    assert proba.shape == (12, 2)
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-6)
    assert len(cross_val_score(model, lines(), Y, groups=groups, cv=GroupKFold(2))) == 2


# predict


def test_fitted_model_knows_its_players(model, tile_folder):
    assert model.score(tile_folder) >= 0.8
    proba = model.predict_proba(tile_folder)
    assert proba.dtype == np.float32
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(
        model.predict(tile_folder), model.classes_[proba.argmax(axis=1)]
    )


@pytest.fixture(scope="module")
def forms(folder, tile_folder, paths, tmp_path_factory):
    """The same recordings in every form that X may have."""
    root = tmp_path_factory.mktemp("forms")
    frame = list_recordings(folder).to_frame()[["path", "label", "group"]]
    frame.to_csv(root / "table.csv", index=False)
    return {
        "folder": str(folder),
        "Path": folder,
        "list": paths,
        "array": np.array(paths, dtype=object),
        "strings": np.array(paths),
        "csv": root / "table.csv",
        "data frame": frame.set_index(np.arange(len(frame)) + 7),
        "tile folder": tile_folder,
        "TileSet": open_tiles(tile_folder),
    }


@pytest.mark.parametrize(
    "form",
    ["Path", "list", "array", "strings", "csv", "data frame", "tile folder", "TileSet"],
)
def test_every_form_of_the_same_recordings_gives_the_same_answers(model, forms, form):
    np.testing.assert_array_equal(
        model.predict_proba(forms[form]), model.predict_proba(forms["folder"])
    )


@pytest.mark.parametrize(
    "form", ["list", "csv", "data frame", "tile folder", "TileSet"]
)
def test_every_form_of_the_same_recordings_trains_the_same_model(options, forms, form):
    plain = Classifier(**{**options, "epochs": 2})
    expected = clone(plain).fit(
        forms["tile folder"] if form in ("list", "csv", "data frame") else forms["csv"]
    )
    y = [path.split("/")[-3] for path in forms["list"]]
    groups = [path.rsplit("/", 1)[0] for path in forms["list"]]
    plain.fit(forms[form], y, groups) if form == "list" else plain.fit(forms[form])
    assert losses(plain) == losses(expected)
    assert plain.classes_.tolist() == expected.classes_.tolist()
    np.testing.assert_array_equal(
        *(m.predict_proba(forms["tile folder"]) for m in (plain, expected))
    )


def test_cqt_arrays_and_npy_files_give_the_same_answers(options, tmp_path):
    X = lines()
    model = Classifier(**options).fit(X, Y)
    for n, cqt in enumerate(X):
        np.save(tmp_path / f"{n:02d}.npy", cqt)
    files = [tmp_path / f"{n:02d}.npy" for n in range(12)]
    expected = model.predict_proba(X)
    np.testing.assert_array_equal(model.predict_proba(files), expected)
    np.testing.assert_array_equal(model.predict_proba(tmp_path), expected)
    np.testing.assert_array_equal(
        model.predict_proba(np.stack([c[:, :40] for c in X])),
        model.predict_proba([c[:, :40] for c in X]),
    )


def test_louder_recording_same_answer(options):
    model = Classifier(**options).fit(lines(), Y)
    np.testing.assert_allclose(
        model.predict_proba([4 * c for c in lines()]),
        model.predict_proba(lines()),
        atol=1e-3,
    )


def test_neighbours_change_nothing(model, paths):
    alone = np.concatenate([model.predict_proba([path]) for path in paths])
    np.testing.assert_array_equal(alone, model.predict_proba(paths))
    np.testing.assert_array_equal(alone[::-1], model.predict_proba(paths[::-1]))


def test_number_of_processes_changes_nothing(options):
    one, two = (Classifier(**{**options, "n_jobs": n}).fit(lines(), Y) for n in (1, 2))
    assert losses(one) == losses(two)
    np.testing.assert_array_equal(
        one.predict_proba(lines()), two.predict_proba(lines())
    )


def test_tiles_of_another_spec(model, tmp_path):
    other = replace(model.spec_, gamma=0.0)
    render([make_cqt(5)], tmp_path / "tiles", other)
    message = (
        f"predict: X must hold tiles of spec {model.spec_.key}, got {str(tmp_path / 'tiles')!r} of spec {other.key}. "
        "Render the recordings again with this spec."
    )
    for method in (model.predict, model.identify, model.predict_tiles):
        with raises_exactly(InputError, message):
            method(tmp_path / "tiles")


def test_single_array_is_refused(model):
    with raises_exactly(
        InputError,
        "predict: X must be a sequence of recordings, got one array of shape (60, 40). Write [cqt].",
    ):
        model.predict(make_cqt(5))


def test_nothing_to_predict(model):
    with pytest.raises(InputError, match="predict: no recordings in a list"):
        model.predict([])


@pytest.mark.parametrize("form", ["tile folder", "TileSet", "table"])
def test_spec_comes_with_the_tiles(options, forms, small, form):
    """A table that was made of a tile folder, as the command line makes one of --labels, still knows its spec."""
    X = list_recordings(forms["tile folder"]) if form == "table" else forms[form]
    assert Classifier(**{**options, "epochs": 1, "spec": None}).fit(X).spec_ == small
    if form == "table":
        with pytest.raises(InputError, match="fit: X must hold tiles of spec "):
            Classifier(**{**options, "spec": replace(small, gamma=0.0)}).fit(X)


# recordings that cannot be read


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_bad_recordings_cost_themselves_alone(model, paths, bad_folder, place, n_jobs):
    model.set_params(on_error="skip", n_jobs=n_jobs)
    good = paths[::9]
    bad = [str(bad_folder / f"{reason}.wav") for reason in BAD]
    X = [*good[:place], *bad, *good[place:]]
    is_bad = [path in bad for path in X]
    found = model.identify(X)
    assert found["path"].tolist() == X
    assert (found["status"] == "error").tolist() == is_bad
    assert found.loc[is_bad, "reason"].tolist() == BAD
    assert (
        found.loc[is_bad, ["label", "probability", "label_2", "probability_3"]]
        .isna()
        .all(axis=None)
    )
    assert (found.loc[is_bad, "message"].str.len() > 20).all()
    assert found.loc[~np.array(is_bad), ["reason", "message"]].eq("").all(axis=None)
    proba = model.predict_proba(X)
    assert np.isnan(proba).all(axis=1).tolist() == is_bad
    np.testing.assert_array_equal(proba[~np.array(is_bad)], model.predict_proba(good))
    named = model.predict(X)
    assert [label is None for label in named] == is_bad
    assert [label for label in named if label is not None] == model.predict(
        good
    ).tolist()


def test_every_recording_is_bad(model, bad_folder):
    model.set_params(on_error="skip")
    X = [bad_folder / f"{reason}.wav" for reason in BAD]
    assert model.predict(X).tolist() == [None] * len(BAD)
    assert np.isnan(model.predict_proba(X)).all()
    assert model.identify(X)["reason"].tolist() == BAD
    with raises_exactly(
        InputError,
        "evaluate: X must hold a recording that can be read, got none. See the reasons with identify.",
    ):
        model.evaluate(X, ["Low"] * len(BAD))


def test_embeddings_are_what_the_head_gets(model, paths, bad_folder):
    model.set_params(on_error="skip")
    bad = [bad_folder / "silent.wav", bad_folder / "truncated.wav"]
    features = model.embed([bad[0], *paths, bad[1]])
    assert features.dtype == np.float32
    assert np.isnan(features[[0, -1]]).all()
    assert np.isfinite(features[1:-1]).all()
    assert model.embed(bad).shape == (2, features.shape[1])
    head = model.network_.backbone.get_classifier()
    with torch.no_grad():
        logits = head(
            torch.from_numpy(features[1:-1])
        ).numpy()  # of the mean is the mean of the logits
    assert (
        model.classes_[logits.argmax(axis=1)].tolist() == model.predict(paths).tolist()
    )


def test_alike_players_lie_near_each_other(model, tile_folder):
    features = model.embed(tile_folder)
    labels = np.array(list_recordings(tile_folder).labels)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    near = features @ features.T - 2 * np.eye(len(features))
    assert (labels[near.argmax(axis=1)] == labels).mean() > 0.8


def body(model):
    """Weights and statistics of a network below its head."""
    head = {id(v) for v in model.network_.backbone.get_classifier().parameters()}
    return {
        k: v
        for k, v in model.network_.state_dict(keep_vars=True).items()
        if id(v) not in head
    }


def test_head_alone(options, tile_folder, tmp_path):
    start = build_network("test_resnet", 3, options["spec"])
    torch.save(start.backbone.state_dict(), tmp_path / "start.pth")
    words = {**options, "weights": tmp_path / "start.pth", "finetune": "head"}
    model = Classifier(**words).fit(tile_folder)
    assert all(torch.equal(v, start.state_dict()[k]) for k, v in body(model).items())
    assert [sorted(entry) for entry in model.history_] == [
        ["epoch", "learning_rate", "loss", "seconds", "valid_accuracy", "valid_loss"]
    ]
    assert model.score(tile_folder) > 0.8
    again = Classifier(**words).fit(tile_folder)
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            again.network_.parameters(), model.network_.parameters(), strict=True
        )
    )
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(
        load(tmp_path / "model").embed(tile_folder), model.embed(tile_folder)
    )


def test_head_alone_goes_on_from_a_fine_tuned_model(options, tile_folder, saved):
    model = Classifier(**{**options, "weights": saved, "finetune": "head"}).fit(
        tile_folder
    )
    whole = load(saved)
    assert all(
        torch.equal(v, whole.network_.state_dict()[k]) for k, v in body(model).items()
    )


@pytest.mark.parametrize("words", [{"memory": "features"}, {"checkpoint": "state"}])
def test_features_are_kept_from_fit_to_fit(
    options, tile_folder, tmp_path, monkeypatch, words
):
    monkeypatch.chdir(tmp_path)
    how = {"memory": words.get("memory"), "finetune": "head"}
    fit = {k: v for k, v in words.items() if k == "checkpoint"}
    calls = []
    real = embed_tiles
    monkeypatch.setattr(
        "cqt2img.training.embedding_cache.embed_tiles",
        lambda *args: calls.append(1) or real(*args),
    )
    first = Classifier(**{**options, **how}).fit(tile_folder, **fit)
    n = len(calls)
    assert n == len(list_recordings(tile_folder))
    again = Classifier(**{**options, **how}).fit(tile_folder, **fit, resume=bool(fit))
    assert len(calls) == n
    assert torch.equal(
        first.network_.backbone.get_classifier().weight,
        again.network_.backbone.get_classifier().weight,
    )
    if fit:
        assert (tmp_path / "state" / "history.csv").is_file()
    other = {
        **options,
        **how,
        "random_state": 1,
    }  # another random start is another body
    Classifier(**other).fit(tile_folder, **fit)
    assert len(calls) == 2 * n


@pytest.mark.parametrize("finetune", ["all", "head"])
def test_resume_wants_a_folder(options, tile_folder, finetune):
    with raises_exactly(
        InputError,
        "fit: checkpoint must name a folder to resume from, got None. Pass checkpoint=.",
    ):
        Classifier(**{**options, "finetune": finetune}).fit(tile_folder, resume=True)


def test_finetune_is_one_of_two(options, tile_folder):
    with raises_exactly(
        InputError, "fit: finetune must be 'all' or 'head', got 'tail'. Choose another."
    ):
        Classifier(**{**options, "finetune": "tail"}).fit(tile_folder)


def test_missing_file_is_one_row(model, paths, tmp_path):
    found = model.identify([paths[0], tmp_path / "gone.wav", tmp_path / "gone.npy"])
    assert found["reason"].tolist() == ["", "vanished", "vanished"]


def test_predict_raises_where_it_is_asked_to(model, paths, bad_folder):
    path = str(bad_folder / "silent.wav")
    message = (
        f"predict: X must hold readable recordings, got one that cannot be read: {path!r} "
        f"({path!r} is silent, below -80 dBFS. "
        "Check the recording, or export one of its channels.) Use identify for one row each, or on_error='skip'."
    )
    for method in (model.predict, model.predict_proba):
        with raises_exactly(AudioError, message):
            method([paths[0], path])
    with raises_exactly(
        AudioError,
        message.replace("predict: X", "embed: X").replace(
            "Use identify for one row each, or on_error='skip'.",
            "Repair or remove it, or pass on_error='skip'.",
        ),
    ):
        model.embed([paths[0], path])


def test_predict_counts_what_is_bad(model, paths, bad_folder):
    bad = [str(bad_folder / f"{reason}.wav") for reason in BAD]
    with pytest.raises(AudioError) as caught:
        model.predict([*bad, paths[0]])
    start = f"predict: X must hold readable recordings, got 6 of 7 that cannot be read, first {bad[0]!r} ("
    assert str(caught.value).startswith(start)
    assert caught.value.reason == "silent"


def test_fit_raises_before_the_first_epoch(options, monkeypatch, bad_folder):
    from cqt2img import classifier as module

    monkeypatch.setattr(module, "train", None)
    path = str(bad_folder / "empty_file.wav")
    message = (
        f"fit: X must hold readable recordings, got one that cannot be read: {path!r} "
        f"(load_wave: path must hold audio, got {path!r} which has 0 bytes. Copy it again from its source.) "
        "Repair or remove it, or pass on_error='skip'."
    )
    with raises_exactly(AudioError, message):
        Classifier(**options).fit([*lines(), path], [*Y, "low"])


def test_fit_skips_where_it_is_asked_to(options, bad_folder, caplog):
    bad = [str(bad_folder / f"{reason}.wav") for reason in BAD]
    X, y = [bad[0], *lines(), *bad[1:]], ["low", *Y, *["high"] * 5]
    groups = ["bad", *range(12), *["bad"] * 5]
    model = Classifier(**{**options, "on_error": "skip"}).fit(X, y, groups)
    assert [(row["path"], row["reason"]) for row in model.skipped_] == list(
        zip(bad, BAD, strict=True)
    )
    plain = Classifier(**options).fit(lines(), Y, range(12))
    assert losses(model) == losses(plain)
    assert sum("left out" in record.message for record in caplog.records) == len(BAD)


def test_fit_is_left_with_one_class(options, bad_folder):
    X = [*lines(4), bad_folder / "silent.wav", bad_folder / "truncated.wav"]
    message = "fit: y must hold two classes or more, got only low. Add recordings of another player."
    with raises_exactly(InputError, message):
        Classifier(**{**options, "on_error": "skip"}).fit(X, ["low"] * 4 + ["high"] * 2)


# identify, predict_tiles, score, evaluate


@pytest.mark.parametrize("top_k", [1, 2, 3, 9])
def test_identify_lists_as_many_names_as_asked(model, tile_folder, top_k):
    found = model.identify(tile_folder, top_k)
    n = min(top_k, 3)
    assert [c for c in found if c.startswith("label")] == [
        "label",
        "label_2",
        "label_3",
    ][:n]
    proba = model.predict_proba(tile_folder)
    np.testing.assert_allclose(found["probability"], proba.max(axis=1), atol=1e-6)
    assert found["label"].tolist() == model.predict(tile_folder).tolist()


@pytest.mark.parametrize("top_k", [0, -1])
def test_top_k_is_one_or_more(model, tile_folder, top_k):
    with raises_exactly(
        InputError,
        f"identify: top_k must be 1 or more, got {top_k}. Choose a larger number.",
    ):
        model.identify(tile_folder, top_k)


def test_predict_tiles_counts_the_time(model, paths):
    import soundfile

    found = model.predict_tiles(paths[:2])
    for path, rows in found.groupby("path", sort=False):
        seconds = soundfile.info(path).duration
        assert rows["start_seconds"].iloc[0] == 0
        np.testing.assert_allclose(
            rows["start_seconds"][1:], rows["end_seconds"][:-1], atol=2e-3
        )
        assert rows["end_seconds"].iloc[-1] == pytest.approx(
            seconds, abs=0.25 * model.spec_.tile_seconds
        )


def test_score_is_the_part_that_is_right(model, tile_folder):
    y = np.array(list_recordings(tile_folder).labels)
    assert model.score(tile_folder) == (model.predict(tile_folder) == y).mean()
    weight = np.where(y == "Low", 1.0, 0.0)
    assert (
        model.score(tile_folder, sample_weight=weight)
        == (model.predict(tile_folder) == y)[y == "Low"].mean()
    )


def test_evaluate_is_score_with_an_interval(model, folder, bad_folder):
    scores = model.evaluate(folder)
    assert scores.accuracy == model.score(folder)
    assert (scores.n_recordings, scores.n_groups, scores.n_failed) == (18, 9, 0)
    assert scores.classes == ("High", "Low", "Middle")
    assert len(scores.known_groups) == 9
    assert {type(name) for name in scores.known_groups} == {str}
    assert "np.str_" not in str(scores)
    y = list_recordings(folder).labels
    paths = list_recordings(folder).paths
    one_more = model.evaluate([*paths, bad_folder / "silent.wav"], [*y, "Low"])
    assert (one_more.n_failed, one_more.accuracy, one_more.known_groups) == (
        1,
        scores.accuracy,
        tuple(sorted(paths)),
    )


def test_evaluate_on_a_strange_label(model, folder):
    paths = list_recordings(folder).paths
    message = (
        "encode: y must hold labels that the model knows, got Monk. "
        "It knows High, Low, Middle: rename the labels or fit a new model."
    )
    with raises_exactly(InputError, message):
        model.evaluate(paths[:2], ["Low", "Monk"])


@pytest.mark.parametrize("labels", [None, ["Low", None]])
def test_evaluate_without_labels(model, paths, labels):
    with pytest.raises(
        InputError,
        match=r"^evaluate: y must label every recording, got none for [12] of 2",
    ):
        model.evaluate(paths[:2], labels)


def test_score_without_labels(model, paths):
    with pytest.raises(
        InputError, match="score: y must label every recording, got none for 2 of 2"
    ):
        model.score(paths[:2])


def test_score_of_skipped_recordings(model, paths, bad_folder):
    """One that cannot be read is one that is not named right."""
    model.set_params(on_error="skip")
    y = [path.split("/")[-3] for path in paths]
    right = model.score(paths, y) * len(paths)
    assert model.score(
        [*paths, bad_folder / "silent.wav"], [*y, "Low"]
    ) == pytest.approx(right / (len(paths) + 1))


def test_nothing_is_printed(options, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Classifier(**options).fit(lines(), Y).predict(lines())
    assert capsys.readouterr() == ("", "")


def test_fit_is_left_without_one_of_three_classes(options, bad_folder):
    X = [*lines(4), bad_folder / "silent.wav", bad_folder / "truncated.wav"]
    with raises_exactly(
        InputError,
        "fit: every class must have recordings that can be read, got none for middle. "
        "Repair the files, or leave out the class.",
    ):
        Classifier(**{**options, "on_error": "skip"}).fit(
            X, [*Y[:4], "middle", "middle"]
        )


def test_validation_that_shares_groups_is_told(options, tmp_path, caplog):
    for n, line in enumerate(lines(8)):
        np.save(tmp_path / f"{n}.npy", line)
    every = [
        {"path": f"{n}.npy", "label": Y[n], "group": f"album {n % 4 // 2}"}
        for n in range(8)
    ]
    for name, part in (("training", every[:4]), ("validation", every[4:])):
        pd.DataFrame(part).to_csv(tmp_path / f"{name}.csv", index=False)
    Classifier(**{**options, "epochs": 1}).fit(
        tmp_path / "training.csv", validation=tmp_path / "validation.csv"
    )
    assert "share groups, such as 'album 0'" in caplog.text
