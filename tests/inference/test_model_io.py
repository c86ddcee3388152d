import json
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cqt2img.classifier import Classifier, load
from cqt2img.data.render import render
from cqt2img.errors import InputError
from cqt2img.tiles.spec import TileSpec
from tests.conftest import make_cqt, raises_exactly

FILES = ["model.json", "model.safetensors", "selftest.safetensors"]
ALL = ["gallery.safetensors", *FILES]


@pytest.fixture
def copy(saved, tmp_path):
    """A saved model that a test may damage."""
    return shutil.copytree(saved, tmp_path / "model")


def change(copy, **values):
    about = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps({**about, **values}))
    return about


def test_same_numbers_after_loading(model, saved, tile_folder):
    loaded = load(saved)
    np.testing.assert_array_equal(
        loaded.predict_proba(tile_folder), model.predict_proba(tile_folder)
    )
    assert loaded.identify(tile_folder, 3).equals(model.identify(tile_folder, 3))
    assert loaded.predict_tiles(tile_folder).equals(model.predict_tiles(tile_folder))
    state = loaded.network_.state_dict()
    assert all(
        torch.equal(v.cpu(), state[k].cpu())
        for k, v in model.network_.state_dict().items()
    )


def test_everything_is_remembered(model, saved):
    loaded = load(str(saved))
    assert loaded.get_params() == model.get_params()
    for name in ("temperature_", "history_", "skipped_", "spec_"):
        assert getattr(loaded, name) == getattr(model, name)
    for name in ("classes_", "groups_"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(model, name))


def test_loading_needs_no_network(saved, tile_folder, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    loaded = load(saved)
    assert loaded.score(tile_folder) >= 0.8


def test_weights_are_not_asked_for_again(options, tmp_path):
    """A model that started from pretrained weights opens where these cannot be had."""
    import timm

    torch.manual_seed(0)
    save_file(
        timm.create_model("test_resnet").state_dict(), tmp_path / "start.safetensors"
    )
    X = [make_cqt((10, 45)[n % 2], seed=n) for n in range(8)]
    model = Classifier(
        **{**options, "epochs": 1, "weights": tmp_path / "start.safetensors"}
    ).fit(X, ["a", "b"] * 4)
    model.save(tmp_path / "model")
    (tmp_path / "start.safetensors").unlink()
    np.testing.assert_array_equal(
        load(tmp_path / "model").predict_proba(X), model.predict_proba(X)
    )


def test_no_pickle(saved):
    assert sorted(path.name for path in saved.iterdir()) == ALL
    for path in saved.iterdir():
        head = path.read_bytes()[:16]
        assert not head.startswith(
            (b"\x80", b"PK")
        )  # a pickle, and the zip around one of torch
    assert len(load_file(saved / "model.safetensors")) > 10


def test_json_says_what_it_is(model, saved):
    about = json.loads((saved / "model.json").read_text())
    assert about["classes"] == ["High", "Low", "Middle"]
    assert about["spec_key"] == model.spec_.key == TileSpec.from_dict(about["spec"]).key
    assert about["training_groups"] == model.groups_.tolist()
    assert set(about["versions"]) == {"python", "cqt2img", "torch", "timm", "librosa"}


@pytest.mark.parametrize(
    "names", [[3, 1], [False, True], ["Über", "日本"], ["007", "7"]]
)
def test_labels_keep_their_kind(options, tmp_path, names):
    X = [make_cqt((10, 45)[n % 2], seed=n) for n in range(8)]
    model = Classifier(**{**options, "epochs": 1}).fit(X, names * 4)
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert loaded.classes_.tolist() == sorted(names)
    assert loaded.classes_.dtype == model.classes_.dtype
    assert loaded.score(X, names * 4) == model.score(X, names * 4)


def test_numpy_numbers_among_the_arguments(options, tmp_path):
    """As a grid search over np.logspace sets them."""
    X = [make_cqt((10, 45)[n % 2], seed=n) for n in range(8)]
    changed = {
        "epochs": np.int64(1),
        "learning_rate": np.float64(0.01),
        "random_state": np.int64(3),
        "weight_decay": np.float32(0.05),
    }
    model = Classifier(**{**options, **changed}).fit(X, ["a", "b"] * 4)
    model.save(tmp_path / "model")
    assert load(tmp_path / "model").epochs == 1


@pytest.mark.parametrize("change_one", [{"backbone": "test_vit"}, {"in_chans": 3}])
def test_arguments_changed_after_fit(options, tmp_path, change_one):
    """The folder holds the network that was trained."""
    X = [make_cqt((10, 45)[n % 2], seed=n) for n in range(8)]
    model = Classifier(**{**options, "epochs": 1, "in_chans": 1}).fit(X, ["a", "b"] * 4)
    expected = model.predict_proba(X)
    model.set_params(**change_one).save(tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").predict_proba(X), expected)


def test_spec_given_by_name_or_file(options, tmp_path, small):
    (tmp_path / "spec.json").write_text(small.to_json())
    X = [make_cqt((10, 45)[n % 2], seed=n) for n in range(8)]
    for spec in (tmp_path / "spec.json", str(tmp_path / "spec.json"), None):
        model = Classifier(**{**options, "epochs": 1, "spec": spec})
        given = X
        if spec is None:
            given = render(X, tmp_path / "tiles", small)
        model.fit(given, ["a", "b"] * 4).save(tmp_path / "model")
        assert load(tmp_path / "model").spec_ == small


# writing


def test_new_folders_are_made(model, tmp_path):
    model.save(tmp_path / "a" / "b" / "model")
    assert load(tmp_path / "a" / "b" / "model").classes_.tolist() == [
        "High",
        "Low",
        "Middle",
    ]


def test_older_model_is_replaced_as_a_whole(model, copy):
    model.temperature_ = 7.5
    model.save(copy)
    assert sorted(path.name for path in copy.iterdir()) == ALL
    assert load(copy).temperature_ == 7.5
    assert [path.name for path in copy.parent.iterdir()] == ["model"]


def test_a_model_with_other_files_beside_it_is_left_alone(model, copy, monkeypatch):
    (copy / "notes.txt").write_text("mine")
    with raises_exactly(
        InputError,
        f"save: path must be new or an older model, got {str(copy)!r}. Choose another name.",
    ):
        model.save(copy)
    monkeypatch.chdir(copy)
    with raises_exactly(
        InputError,
        f"save: path must be new or an older model, got {str(copy)!r}. Choose another name.",
    ):
        model.save(".")
    assert (copy / "notes.txt").read_text() == "mine"


def test_a_link_to_an_older_model_stays_a_link(model, copy, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(copy)
    model.temperature_ = 7.5
    model.save(link)
    assert link.is_symlink()
    assert load(copy).temperature_ == 7.5


def test_the_older_model_stays_where_the_new_one_cannot_come(model, copy, monkeypatch):
    rename, calls = Path.rename, []

    def second_fails(self, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError("disk gone")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", second_fails)
    before = load(copy).temperature_
    model.temperature_ = 7.5
    with pytest.raises(OSError, match="disk gone"):
        model.save(copy)
    assert load(copy).temperature_ == before


def test_a_model_without_finite_numbers_is_not_saved(model, tmp_path):
    next(model.network_.parameters()).data.fill_(float("nan"))
    message = "save: the model must give finite numbers, got NaN. Fit it with a lower learning_rate."
    with raises_exactly(InputError, message):
        model.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0),
        ("temperature", -1),
        ("temperature", "x"),
        ("temperature", None),
        ("classes", "ab"),
        ("classes", [1, None, 2]),
        ("classes", ["a", "a", "b"]),
        ("training_groups", 5),
        ("fingerprints", None),
    ],
)
def test_facts_that_somebody_changed(copy, name, value):
    about = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps({**about, name: value}))
    with raises_exactly(
        InputError,
        f"load: path must be a model of format 1, got {str(copy)!r} ({name}). Fit and save it again.",
    ):
        load(copy)


def test_empty_folder_is_used(model, tmp_path):
    (tmp_path / "model").mkdir()
    model.save(tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ALL


def test_interrupted_saving_leaves_the_older_model(
    model, copy, monkeypatch, tile_folder
):
    from cqt2img.inference import model_io as store

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    expected = load(copy).predict_proba(tile_folder)
    monkeypatch.setattr(store, "_digest", stop)
    model.temperature_ = 9.0
    with pytest.raises(KeyboardInterrupt):
        model.save(copy)
    monkeypatch.undo()
    assert [path.name for path in copy.parent.iterdir()] == ["model"]
    np.testing.assert_array_equal(load(copy).predict_proba(tile_folder), expected)


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_no_model_is_not_replaced(model, tmp_path, kind):
    path = tmp_path / "thesis"
    if kind == "folder":
        path.mkdir()
        (path / "chapter 1.txt").write_text("years of work")
    else:
        path.write_text("years of work")
    message = f"save: path must be new or an older model, got {str(path)!r}. Choose another name."
    with raises_exactly(InputError, message):
        model.save(path)
    assert (
        (path / "chapter 1.txt") if kind == "folder" else path
    ).read_text() == "years of work"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_with_a_model_json_of_another_program(model, tmp_path):
    path = tmp_path / "other"
    path.mkdir()
    (path / "model.json").write_text('{"made_by": "another program"}')
    message = f"save: path must be new or an older model, got {str(path)!r}. Choose another name."
    with raises_exactly(InputError, message):
        model.save(path)
    assert (path / "model.json").read_text() == '{"made_by": "another program"}'


# opening


@pytest.mark.parametrize("kind", ["nothing", "empty", "file"])
def test_folder_that_is_no_model(tmp_path, kind):
    path = tmp_path / "model"
    if kind == "empty":
        path.mkdir()
    if kind == "file":
        path.write_text("no model")
    message = f"load: path must be a model saved by cqt2img, got {str(path)!r} without model.json. Fit and save one."
    with raises_exactly(InputError, message):
        load(path)


@pytest.mark.parametrize("name", FILES)
def test_file_is_missing(copy, name):
    (copy / name).unlink()
    message = f"load: path must be a model saved by cqt2img, got {str(copy)!r} without {name}. Fit and save one."
    with raises_exactly(InputError, message):
        load(copy)


def test_weights_are_damaged(copy):
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (copy / "model.safetensors").write_bytes(data)
    message = f"load: path must be an undamaged model, got {str(copy)!r} with other weights. Copy it again."
    with raises_exactly(InputError, message):
        load(copy)


@pytest.mark.parametrize("name", FILES[1:])
@pytest.mark.parametrize("content", [b"", b"\0" * 99, b"{}"])
def test_tensors_are_damaged(copy, name, content):
    import hashlib

    (copy / name).write_bytes(content)
    change(
        copy,
        **(
            {"weights_sha256": hashlib.sha256(content).hexdigest()}
            if name == FILES[1]
            else {}
        ),
    )
    with pytest.raises(InputError) as caught:
        load(copy)
    assert str(caught.value).startswith(
        f"load: path must be an undamaged model, got {str(copy)!r}: "
    )
    assert str(caught.value).endswith(". Copy it again.")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", "{}", '{"made_by": "cqt2img"}', "\udcff"]
)
def test_json_is_damaged(copy, text):
    (copy / "model.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError) as caught:
        load(copy)
    assert str(caught.value).startswith(
        f"load: path must be a model of format 1, got {str(copy)!r} ("
    )
    assert str(caught.value).endswith("). Fit and save it again.")


@pytest.mark.parametrize(
    "values", [{"format": 2}, {"format": None}, {"made_by": "another"}]
)
def test_another_format(copy, values):
    change(copy, **values)
    message = f"load: path must be a model of format 1, got {str(copy)!r} ('format'). Fit and save it again."
    with raises_exactly(InputError, message):
        load(copy)


@pytest.mark.parametrize(
    "name", ["params", "temperature", "history", "training_groups", "skipped", "spec"]
)
def test_fact_is_missing(copy, name):
    about = change(copy)
    del about[name]
    (copy / "model.json").write_text(json.dumps(about))
    with pytest.raises(
        InputError,
        match=r"^load: path must be a model of format 1, got .*Fit and save it again\.$",
    ):
        load(copy)


def test_pictures_that_this_version_cannot_draw(copy):
    about = change(copy, spec_key="0123456789ab")
    message = (
        f"load: path must be a model whose pictures this version can draw, got {str(copy)!r} of spec 0123456789ab. "
        f"Use the versions it was made with: {about['versions']}."
    )
    with raises_exactly(InputError, message):
        load(copy)


@pytest.mark.parametrize("shift", [0.1, float("nan")])
def test_self_test_fails(copy, shift):
    tensors = load_file(copy / "selftest.safetensors")
    tensors["log_proba"][0, 0] += shift
    save_file(tensors, copy / "selftest.safetensors")
    about = change(copy)
    message = (
        f"load: path must be a model that passes its self-test, got {str(copy)!r}, which is off by {shift:.2g}. "
        f"Use the versions it was made with: {about['versions']}."
    )
    with raises_exactly(InputError, message):
        load(copy)


def test_weights_of_another_backbone(copy):
    about = change(copy, architecture={"backbone": "test_vit", "in_chans": 3})
    assert about["architecture"]["backbone"] == "test_resnet"
    with pytest.raises(InputError) as caught:
        load(copy)
    assert str(caught.value).startswith(
        f"load: path must be an undamaged model, got {str(copy)!r}: "
    )


def test_backbone_that_this_timm_does_not_have(copy):
    change(copy, architecture={"backbone": "resnet_of_tomorrow", "in_chans": 3})
    with pytest.raises(
        InputError,
        match=r"backbone 'resnet_of_tomorrow' is not known to timm",
    ):
        load(copy)


def test_tiles_of_another_spec(saved, tmp_path, small):
    other = TileSpec.from_dict({**json.loads(small.to_json()), "max_db": 5.0})
    render([make_cqt(5)], tmp_path / "tiles", other)
    message = (
        f"predict: X must hold tiles of spec {small.key}, got {str(tmp_path / 'tiles')!r} of spec {other.key}. "
        "Render the recordings again with this spec."
    )
    with raises_exactly(InputError, message):
        load(saved).predict(tmp_path / "tiles")


def test_saving_does_not_change_the_model(model, tile_folder, tmp_path):
    before = model.predict_proba(tile_folder)
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(model.predict_proba(tile_folder), before)
