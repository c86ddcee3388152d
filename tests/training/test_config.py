import json
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
import torch

from cqt2img.errors import InputError
from cqt2img.models.factory import build_network
from cqt2img.tiles.spec import TileSpec
from cqt2img.training.config import (
    SETTINGS_OF_FULL_TRAINING,
    SETTINGS_OF_LINEAR_PROBE,
    TrainingConfig,
    TrainingSettings,
    unused_settings,
)
from tests.conftest import raises_with

NOT_A_COUNT = [-1, 1.5, "3", True]
BAD_CONFIG = [
    ("in_chans", [0, 2, "3", True, None]),
    ("weight_decay", [-0.1, float("nan"), float("inf"), "small", None, True]),
    ("label_smoothing", [-0.1, 1, 1.5, None]),
    ("layer_decay", [0, -0.5, 1.1, "auto"]),
    ("head_first", [1, "yes", None]),
    ("mixup", [-0.1, None]),
    ("ema_decay", [-0.1, 1.0, None]),
    ("patience", [0, *NOT_A_COUNT]),
    ("accumulation_steps", [0, None, *NOT_A_COUNT]),
    ("balance", ["none", None, 1]),
    ("num_workers", NOT_A_COUNT),
    ("validation_fraction", [-0.1, 1, None]),
    ("precision", ["fp16", None]),
    ("cache_dir", [3, "", b"folder"]),
]
BAD_SETTINGS = [
    ("finetune", ["none", None]),
    ("epochs", [0, None, *NOT_A_COUNT]),
    ("batch_size", [0, None, *NOT_A_COUNT]),
    ("learning_rate", [0, -1e-3, float("nan"), float("inf"), "fast", []]),
    ("augment", ["strong", None, 3]),
    ("config", [None, {"mixup": 0.2}]),
]


def pairs(table):
    return [(name, value) for name, values in table for value in values]


def test_every_field_of_the_config_is_checked():
    assert {name for name, _ in BAD_CONFIG} == {f.name for f in fields(TrainingConfig)}


@pytest.mark.parametrize(("name", "value"), pairs(BAD_CONFIG))
def test_config_names_the_field_that_is_wrong(name, value):
    with raises_with(InputError, f"config: {name} must be", f"got {value!r}."):
        TrainingConfig(**{name: value})


@pytest.mark.parametrize(("name", "value"), pairs(BAD_SETTINGS))
def test_settings_name_the_argument_that_is_wrong(name, value):
    with raises_with(InputError, f"fit: {name} must be", f"got {value!r}."):
        TrainingSettings(**{name: value})


@pytest.mark.parametrize("seed", [-1, "now", None, 1.5, 2**32])
def test_the_seed_is_named_as_users_know_it(seed):
    with raises_with(InputError, "fit: random_state must be", f"got {seed!r}."):
        TrainingSettings(seed=seed)


def test_config_and_settings_are_frozen():
    with pytest.raises(FrozenInstanceError):
        TrainingConfig().mixup = 1.0
    with pytest.raises(FrozenInstanceError):
        TrainingSettings().epochs = 1


def test_numpy_scalars_become_python_numbers():
    settings = TrainingSettings(epochs=np.int64(3), learning_rate=np.float64(0.5))
    config = TrainingConfig(
        mixup=np.float64(0.25), patience=np.int32(2), head_first=np.bool_(True)
    )
    assert [type(v) for v in (settings.epochs, settings.learning_rate)] == [int, float]
    assert json.loads(json.dumps(config.to_dict())) == config.to_dict()
    assert (config.mixup, config.patience, config.head_first) == (0.25, 2, True)


def test_config_survives_json(tmp_path):
    config = TrainingConfig(mixup=0.2, layer_decay=0.7, cache_dir=tmp_path)
    values = json.loads(json.dumps(config.to_dict()))
    assert values["cache_dir"] == str(tmp_path)
    again = TrainingConfig.from_dict(values)
    assert again.to_dict() == config.to_dict()
    assert TrainingConfig.from_dict({}) == TrainingConfig()


@pytest.mark.parametrize(
    ("name", "advice"),
    [("mixupp", "'mixup'"), ("ema_decya", "'ema_decay'"), ("zzz", "weight_decay")],
)
def test_an_unknown_setting_names_the_nearest(name, advice):
    with raises_with(InputError, "config", repr(name), advice):
        TrainingConfig.from_dict({name: 1})


def test_augment_may_be_a_callable():
    assert callable(TrainingSettings(augment=lambda image: {"image": image}).augment)


@pytest.mark.parametrize(
    ("name", "is_pretrained", "expected"),
    [
        ("test_resnet", False, (1e-3, 1.0)),
        ("test_resnet", True, (1e-3, 1.0)),
        ("test_vit", False, (1e-4, 1.0)),
        ("test_vit", True, (1e-4, 0.75)),
        ("test_convnext", True, (1e-4, 0.75)),
        ("ast_tiny", True, (1e-4, 0.75)),
    ],
)
def test_default_rates_suit_the_backbone(name, is_pretrained, expected):
    network = build_network(name, 3, TileSpec.preset("fast"))
    assert not network.is_pretrained
    network.is_pretrained = is_pretrained
    found = TrainingSettings().resolve(network)
    assert (found.learning_rate, found.config.layer_decay) == expected
    chosen = TrainingSettings(
        learning_rate=0.5, config=TrainingConfig(layer_decay=0.25)
    ).resolve(network)
    assert (chosen.learning_rate, chosen.config.layer_decay) == (0.5, 0.25)


def test_weights_from_a_file_count_as_pretrained(tmp_path):
    spec = TileSpec.preset("fast")
    backbone = build_network("test_resnet", 3, spec).backbone
    torch.save(backbone.state_dict(), tmp_path / "w.pth")
    assert build_network("test_resnet", 2, spec, tmp_path / "w.pth").is_pretrained
    assert not build_network("test_resnet", 2, spec, "none").is_pretrained


def test_settings_without_effect_are_listed(tmp_path):
    config = TrainingConfig(
        mixup=0.2, validation_fraction=0.5, in_chans=1, cache_dir=tmp_path
    )
    changed = {"epochs": 40, "batch_size": 4, "seed": 7, "config": config}
    assert unused_settings(TrainingSettings(finetune="head", **changed)) == [
        "epochs",
        "mixup",
    ]
    assert unused_settings(TrainingSettings(**changed)) == ["cache_dir"]
    assert unused_settings(TrainingSettings(finetune="head")) == []


def test_settings_without_effect_are_compared_with_given_defaults():
    settings = TrainingSettings(finetune="head", epochs=40)
    assert unused_settings(settings, settings) == []


def test_lists_of_settings_without_effect_name_fields():
    known = {f.name for f in (*fields(TrainingSettings), *fields(TrainingConfig))}
    assert {*SETTINGS_OF_FULL_TRAINING, *SETTINGS_OF_LINEAR_PROBE} <= known
