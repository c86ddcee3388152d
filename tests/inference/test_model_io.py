import json
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from cqt2img._utils.hashing import hash_file
from cqt2img.errors import InputError
from cqt2img.inference import model_io
from cqt2img.inference.model import (
    EnrollmentReport,
    FittedModel,
    SkippedRecording,
    TrainingProvenance,
)
from cqt2img.inference.model_io import check_model_path, load_model, save_model
from cqt2img.models.factory import build_network
from cqt2img.tiles.spec import TileSpec
from tests.conftest import raises_with
from tests.inference.conftest import PARAMS, known_cqts, new_cqts, run

FILES = ["model.json", "model.safetensors", "selftest.safetensors"]
ALL_FILES = ["model.json", "model.safetensors", "references.safetensors", FILES[2]]


@pytest.fixture
def folder(saved_fitted, tmp_path):
    """A saved model that a test may damage."""
    return shutil.copytree(saved_fitted, tmp_path / "model")


def file_names(folder):
    return sorted(path.name for path in folder.iterdir())


def change_json(folder, **values):
    about = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**about, **values}))


def change_last_byte(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def architecture(backbone):
    return {"backbone": backbone, "in_chans": 3, "is_custom": False}


def load_error(folder, *parts):
    return raises_with(InputError, "load: ", repr(str(folder)), *parts)


# round trip


def test_a_loaded_model_is_the_saved_one(fitted, saved_fitted):
    model, params = load_model(saved_fitted)
    assert params == PARAMS
    names = ("backbone", "in_chans", "spec", "temperature", "open_set", "provenance")
    for name in names:
        assert getattr(model, name) == getattr(fitted, name)
    assert model.classes.tolist() == fitted.classes.tolist()
    assert model.classes.dtype == fitted.classes.dtype
    for name in ("features", "class_indices", "is_validation"):
        found = getattr(model.references, name)
        np.testing.assert_array_equal(found, getattr(fitted.references, name))


def test_a_loaded_model_predicts_the_same(fitted, saved_fitted):
    model, _ = load_model(saved_fitted)
    cqts = [*known_cqts()[:4], *new_cqts(1)]
    found, expected = run(model, cqts), run(fitted, cqts)
    np.testing.assert_array_equal(
        model.predict_proba(found), fitted.predict_proba(expected)
    )
    np.testing.assert_array_equal(
        model.open_set_p_values(found), fitted.open_set_p_values(expected)
    )


def test_the_provenance_is_kept(fitted, tmp_path):
    provenance = TrainingProvenance(
        groups=("Über/日本", "x"),
        fingerprints=("01", "23"),
        history=({"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}),
        skipped=(SkippedRecording("bad.wav", "silent", "The recording is silent."),),
        enrolled=(EnrollmentReport("d", 1, 1, None),),
    )
    save_model(tmp_path / "model", replace(fitted, provenance=provenance), {})
    assert load_model(tmp_path / "model")[0].provenance == provenance


@pytest.mark.parametrize(
    "classes", [[1, 3, 5, 7], [0.5, 1.0, 2.0, 3.0], ["007", "7", "Über", "日本"]]
)
def test_classes_keep_their_type(fitted, tmp_path, classes):
    model = replace(fitted, classes=np.array(classes))
    save_model(tmp_path / "model", model, {})
    found = load_model(tmp_path / "model")[0].classes
    assert found.tolist() == classes
    assert found.dtype == model.classes.dtype


def test_saving_does_not_change_the_model(fitted, tmp_path):
    before = fitted.predict_proba(run(fitted, known_cqts()[:2]))
    save_model(tmp_path / "model", fitted, {})
    after = fitted.predict_proba(run(fitted, known_cqts()[:2]))
    np.testing.assert_array_equal(after, before)


def test_a_model_without_references_has_one_file_less(fitted, tmp_path):
    save_model(tmp_path / "model", replace(fitted, references=None), {})
    assert file_names(tmp_path / "model") == FILES
    assert load_model(tmp_path / "model")[0].references is None


class Scaled(torch.nn.Module):
    """A backbone of the user."""

    def __init__(self, scale):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(scale))

    def forward(self, x):
        return self.scale * x.mean(dim=(1, 3))


def test_a_module_of_the_user_is_saved_without_its_code(small, tmp_path):
    network = build_network(Scaled(2.0), 2, small, weights=None).eval()
    model = FittedModel(network, "Scaled", 3, small, np.array(["a", "b"]))
    path = tmp_path / "model"
    save_model(path, model, {})
    loaded, _ = load_model(path, backbone=Scaled(1.0))
    assert loaded.network.is_custom
    expected = model.predict_proba(run(model, known_cqts()[:2]))
    found = loaded.predict_proba(run(loaded, known_cqts()[:2]))
    np.testing.assert_array_equal(found, expected)
    with load_error(path, "'Scaled'", "backbone=module"):
        load_model(path)
    with load_error(path, "damaged"):
        load_model(path, backbone=torch.nn.Flatten())


def test_a_module_is_not_accepted_for_a_named_backbone(saved_fitted):
    with load_error(saved_fitted, "'row_levels'", "backbone="):
        load_model(saved_fitted, backbone=Scaled(1.0))


@pytest.mark.parametrize("in_chans", [1, 3])
def test_a_network_of_timm_is_saved_and_loaded(small, tmp_path, in_chans):
    torch.manual_seed(0)
    network = build_network("test_vit", 2, small, weights=None, in_chans=in_chans)
    classes = np.array([False, True])
    model = FittedModel(network.eval(), "test_vit", in_chans, small, classes)
    save_model(tmp_path / "model", model, {})
    loaded, _ = load_model(tmp_path / "model")
    assert loaded.classes.tolist() == [False, True]
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], value)


def test_loading_opens_no_connection(saved_fitted, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "socket", fail)
    monkeypatch.setattr(socket, "create_connection", fail)
    load_model(saved_fitted)


def test_no_file_is_a_pickle(saved_fitted):
    assert file_names(saved_fitted) == ALL_FILES
    for file in saved_fitted.iterdir():
        head = file.read_bytes()[:16]
        assert not head.startswith((b"\x80", b"PK"))  # a pickle, and torch's zip of one


def test_the_json_describes_the_model(fitted, saved_fitted):
    about = json.loads((saved_fitted / "model.json").read_text())
    assert about["format"] == 2
    assert about["classes"] == ["a", "b", "c", "d"]
    assert about["spec_key"] == TileSpec.from_dict(about["spec"]).key
    assert about["training_groups"] == list(fitted.provenance.groups)
    assert set(about["versions"]) == {"python", "cqt2img", "torch", "timm", "librosa"}


# writing


def test_missing_parent_folders_are_made(fitted, tmp_path):
    save_model(tmp_path / "a" / "b" / "model", fitted, {})
    assert file_names(tmp_path / "a" / "b" / "model") == ALL_FILES


def test_an_empty_folder_is_used(fitted, tmp_path):
    (tmp_path / "model").mkdir()
    save_model(tmp_path / "model", fitted, {})
    assert file_names(tmp_path / "model") == ALL_FILES


def test_an_older_model_is_replaced_whole(fitted, folder):
    save_model(folder, replace(fitted, temperature=7.5, references=None), {})
    assert file_names(folder) == FILES
    assert load_model(folder)[0].temperature == 7.5
    assert file_names(folder.parent) == ["model"]


def test_a_link_to_an_older_model_stays_a_link(fitted, folder, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(folder)
    save_model(link, replace(fitted, temperature=7.5), {})
    assert link.is_symlink()
    assert load_model(folder)[0].temperature == 7.5


@pytest.mark.parametrize("kind", ["folder", "file", "model of another program"])
def test_something_else_than_a_model_is_not_replaced(fitted, tmp_path, kind):
    path = tmp_path / "thesis"
    file = path
    if kind != "file":
        path.mkdir()
        file = path / ("chapter 1.txt" if kind == "folder" else "model.json")
    file.write_text('{"made_by": "another program"}')
    for function in (check_model_path, lambda path: save_model(path, fitted, {})):
        with raises_with(InputError, "save: path", repr(str(path))):
            function(path)
    assert file.read_text() == '{"made_by": "another program"}'
    assert list(tmp_path.iterdir()) == [path]


def test_a_model_with_other_files_beside_it_is_not_replaced(
    fitted, folder, monkeypatch
):
    (folder / "notes.txt").write_text("mine")
    with raises_with(InputError, "save: path", repr(str(folder))):
        save_model(folder, fitted, {})
    monkeypatch.chdir(folder)
    with raises_with(InputError, "save: path", repr(str(folder))):
        save_model(Path("."), fitted, {})
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_failing_rename_leaves_the_older_model(fitted, folder, monkeypatch):
    rename = Path.rename
    calls = []

    def fail_second(self, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError("disk gone")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_second)
    with pytest.raises(OSError, match="disk gone"):
        save_model(folder, replace(fitted, temperature=7.5), {})
    assert load_model(folder)[0].temperature == fitted.temperature


def test_an_interrupt_leaves_the_older_model(fitted, folder, monkeypatch):
    def interrupt(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(model_io, "hash_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_model(folder, replace(fitted, temperature=7.5), {})
    monkeypatch.undo()
    assert file_names(folder.parent) == ["model"]
    assert load_model(folder)[0].temperature == fitted.temperature


def test_a_model_that_returns_nan_is_not_saved(fitted, tmp_path):
    next(fitted.network.parameters()).data.fill_(float("nan"))
    with raises_with(InputError, "save: ", "NaN", "learning_rate"):
        save_model(tmp_path / "model", fitted, {})
    assert list(tmp_path.iterdir()) == []


# damaged and foreign folders


@pytest.mark.parametrize("kind", ["missing", "empty", "file"])
def test_a_path_that_is_no_model(tmp_path, kind):
    path = tmp_path / "model"
    if kind == "empty":
        path.mkdir()
    if kind == "file":
        path.write_text("no model")
    with load_error(path, "no model.json"):
        load_model(path)


@pytest.mark.parametrize("name", ALL_FILES)
def test_a_missing_file(folder, name):
    (folder / name).unlink()
    with load_error(folder, name):
        load_model(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "references.safetensors"])
def test_a_changed_byte(folder, name):
    change_last_byte(folder / name)
    with load_error(folder, "damaged", name):
        load_model(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "selftest.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\0" * 99, b"{}"], ids=["0", "99", "{}"])
def test_a_file_that_is_no_safetensors(folder, name, content):
    (folder / name).write_bytes(content)
    if name == "model.safetensors":
        change_json(folder, weights_sha256=hash_file(folder / name))
    with load_error(folder, "damaged"):
        load_model(folder)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", "{}", '{"made_by": "cqt2img"}', "\udcff"]
)
def test_a_json_file_that_describes_no_model(folder, text):
    (folder / "model.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with load_error(folder, "format 1 or 2", "model.json"):
        load_model(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("format", 3),
        ("format", None),
        ("made_by", "another"),
        ("temperature", 0),
        ("temperature", -1),
        ("temperature", "x"),
        ("temperature", None),
        ("temperature", True),
        ("classes", "ab"),
        ("classes", [1, None, 2]),
        ("classes", ["a", "a", "b"]),
        ("classes", ["a"]),
        ("training_groups", 5),
        ("fingerprints", None),
        ("params", []),
        ("open_set", {"score_name": "x", "rejection_rate": 0.1, "auroc": None}),
        ("open_set", {"score_name": "energy", "rejection_rate": "0", "auroc": None}),
    ],
)
def test_an_invalid_entry_is_named(folder, name, value):
    change_json(folder, **{name: value})
    with load_error(folder, f"({name})"):
        load_model(folder)


@pytest.mark.parametrize(
    "name",
    [
        "architecture",
        "classes",
        "enrolled",
        "fingerprints",
        "format",
        "history",
        "made_by",
        "open_set",
        "params",
        "references_sha256",
        "skipped",
        "spec",
        "spec_key",
        "temperature",
        "training_groups",
        "versions",
        "weights_sha256",
    ],
)
def test_a_missing_entry_is_named(folder, name):
    about = json.loads((folder / "model.json").read_text())
    del about[name]
    (folder / "model.json").write_text(json.dumps(about))
    with load_error(folder, f"('{name}')"):
        load_model(folder)


def test_tiles_that_this_version_cannot_render(folder):
    change_json(folder, spec_key="0123456789ab")
    with load_error(folder, "0123456789ab", f"torch {torch.__version__}".split("+")[0]):
        load_model(folder)


@pytest.mark.parametrize("shift", [0.1, float("nan")])
def test_a_failing_self_test(folder, shift):
    tensors = load_file(folder / "selftest.safetensors")
    tensors["log_proba"][0, 0] += shift
    save_file(tensors, folder / "selftest.safetensors")
    with load_error(folder, "self-test", f"by {shift:.2g}", "timm "):
        load_model(folder)


def test_weights_of_another_backbone(folder):
    change_json(folder, architecture=architecture("test_vit"))
    with load_error(folder, "damaged"):
        load_model(folder)


def test_a_backbone_that_this_version_of_timm_lacks(folder):
    change_json(folder, architecture=architecture("resnet_of_tomorrow"))
    with load_error(folder, "backbone", "'resnet_of_tomorrow'", "timm "):
        load_model(folder)
