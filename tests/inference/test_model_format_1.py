import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cqt2img._utils.hashing import hash_file
from cqt2img.inference.model import EnrollmentReport
from cqt2img.inference.model_format_1 import upgrade_json
from cqt2img.inference.model_io import load_model, save_model
from cqt2img.inference.open_set import OpenSetDetector
from tests.inference.conftest import known_cqts, run

# what the version before stored, with values that are not the defaults
PARAMS_1 = {
    "accumulate": 2,
    "augment": "none",
    "backbone": "row_levels",
    "balance": "group",
    "batch_size": 8,
    "device": "cpu",
    "ema": 0.99,
    "epochs": 3,
    "finetune": "all",
    "head_first": True,
    "in_chans": 1,
    "label_smoothing": 0.0,
    "layer_decay": 0.75,
    "learning_rate": 0.01,
    "memory": "features",
    "mixup": 0.2,
    "n_jobs": 2,
    "on_error": "skip",
    "patience": 5,
    "precision": "fp32",
    "random_state": 3,
    "spec": None,
    "validation_fraction": 0.25,
    "verbose": False,
    "weight_decay": 0.01,
    "weights": None,
    "workers": 4,
}
REPORT_1 = {"name": "d", "n_clips": 8, "n_albums": 4, "right": 0.75}


@pytest.fixture
def old_folder(saved_fitted, tmp_path):
    """The fitted model as the version before would have saved it."""
    folder = shutil.copytree(saved_fitted, tmp_path / "model")
    tensors = load_file(folder / "references.safetensors")
    names = {"class_indices": "codes", "is_validation": "held"}
    renamed = {names.get(name, name): value for name, value in tensors.items()}
    save_file(renamed, folder / "gallery.safetensors")
    (folder / "references.safetensors").unlink()
    about = json.loads((folder / "model.json").read_text())
    about["format"] = 1
    del about["references_sha256"], about["open_set"]
    about["gallery_sha256"] = hash_file(folder / "gallery.safetensors")
    about["familiarity"] = {"score": "energy", "lost": 0.05, "auroc": {"energy": 0.7}}
    about["enrolled"] = [REPORT_1]
    about["params"] = PARAMS_1
    (folder / "model.json").write_text(json.dumps(about))
    return folder


def change_json(folder, function):
    about = json.loads((folder / "model.json").read_text())
    function(about)
    (folder / "model.json").write_text(json.dumps(about))


def assert_same_predictions(model, other):
    outputs = run(model, known_cqts()[:4])
    expected = run(other, known_cqts()[:4])
    np.testing.assert_array_equal(
        model.predict_proba(outputs), other.predict_proba(expected)
    )


def test_a_model_of_format_1_predicts_the_same(old_folder, fitted):
    model, _ = load_model(old_folder)
    assert_same_predictions(model, fitted)
    for name in ("features", "class_indices", "is_validation"):
        found = getattr(model.references, name)
        np.testing.assert_array_equal(found, getattr(fitted.references, name))
    assert model.open_set == OpenSetDetector("energy", 0.05, {"energy": 0.7})
    assert model.provenance.groups == fitted.provenance.groups
    assert model.provenance.enrolled == (EnrollmentReport("d", 8, 4, 0.75),)


def test_arguments_are_renamed_and_move_into_the_config(old_folder):
    _, params = load_model(old_folder)
    assert params == {
        "augment": "none",
        "backbone": "row_levels",
        "batch_size": 8,
        "device": "cpu",
        "epochs": 3,
        "finetune": "all",
        "learning_rate": 0.01,
        "n_jobs": 2,
        "on_error": "skip",
        "random_state": 3,
        "spec": None,
        "verbose": False,
        "weights": None,
        "config": {
            "in_chans": 1,
            "weight_decay": 0.01,
            "label_smoothing": 0.0,
            "layer_decay": 0.75,
            "head_first": True,
            "mixup": 0.2,
            "ema_decay": 0.99,
            "patience": 5,
            "accumulation_steps": 2,
            "balance": "group",
            "num_workers": 4,
            "validation_fraction": 0.25,
            "precision": "fp32",
            "cache_dir": "features",
        },
    }


def test_upgrading_does_not_change_the_argument():
    architecture = {"backbone": "notes", "in_chans": 3}
    saved = {
        "architecture": architecture,
        "params": dict(PARAMS_1),
        "enrolled": [dict(REPORT_1)],
    }
    before = json.dumps(saved)
    upgrade_json(saved)
    assert json.dumps(saved) == before


def test_the_first_models_have_no_references(old_folder, fitted):
    (old_folder / "gallery.safetensors").unlink()

    def remove(about):
        for name in ("gallery_sha256", "familiarity", "enrolled"):
            del about[name]

    change_json(old_folder, remove)
    model, _ = load_model(old_folder)
    assert_same_predictions(model, fitted)
    assert model.references is None
    assert model.open_set == OpenSetDetector()
    assert model.provenance.enrolled == ()


def test_a_model_of_format_1_is_saved_in_format_2(old_folder, fitted):
    model, params = load_model(old_folder)
    save_model(old_folder, model, params)
    again, same_params = load_model(old_folder)
    assert sorted(path.name for path in old_folder.iterdir()) == [
        "model.json",
        "model.safetensors",
        "references.safetensors",
        "selftest.safetensors",
    ]
    assert same_params == params
    assert_same_predictions(again, fitted)
    assert again.open_set == model.open_set
