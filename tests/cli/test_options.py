"""Options of the command line, and how they appear in error messages."""

import json

import pytest

from cqt2img.cli.options import check_jobs, name_options, read_config
from cqt2img.errors import InputError
from cqt2img.training.config import TrainingConfig
from tests.conftest import raises_with

VALUES = {"mixup": 0.3, "balance": "group", "patience": 2, "head_first": True}
TOML = 'mixup = 0.3\nbalance = "group"\npatience = 2\nhead_first = true\n'


def test_settings_are_read_from_json_or_toml(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(VALUES))
    (tmp_path / "config.toml").write_text(TOML)
    for name in ("config.json", "config.toml"):
        assert read_config(tmp_path / name, []) == TrainingConfig(**VALUES)


def test_pairs_have_the_types_of_their_values():
    pairs = ["mixup=.3", "balance=group", "patience=2", "head_first=True"]
    assert read_config(None, pairs) == TrainingConfig(**VALUES)
    assert read_config(None, ["cache_dir=a=b"]).cache_dir == "a=b"


def test_pairs_take_precedence_over_the_file(tmp_path):
    file = tmp_path / "config.json"
    file.write_text('{"mixup": 0.3, "patience": 2}')
    config = read_config(file, ["mixup=0.1", "mixup=0.2"])
    assert config == TrainingConfig(mixup=0.2, patience=2)


def test_without_options_there_is_no_config():
    assert read_config(None, []) is None


@pytest.mark.parametrize("pair", ["mixup", ""])
def test_a_pair_without_an_equals_sign(pair):
    with raises_with(InputError, f"--param {pair!r}", "NAME=VALUE"):
        read_config(None, [pair])


@pytest.mark.parametrize("pair", ["mixop=0.3", "=3", "epochs=3"])
def test_a_pair_with_an_unknown_name(pair):
    with raises_with(InputError, "config", repr(pair.partition("=")[0])):
        read_config(None, [pair])


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.json", "{"), ("a.json", "[1]"), ("a.toml", "mixup"), ("gone.json", None)],
)
def test_a_config_that_cannot_be_read(tmp_path, name, text):
    file = tmp_path / name
    if text is not None:
        file.write_text(text)
    with raises_with(InputError, f"--config {str(file)!r}"):
        read_config(file, [])


def test_zero_processes_are_an_error():
    with raises_with(InputError, "--jobs 0"):
        check_jobs(0)
    assert (check_jobs(3), check_jobs(-1)) == (3, -1)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("fit: epochs must be 1.", "fit: --epochs must be 1."),
        ("fit: random_state must be 0.", "fit: --seed must be 0."),
        ("device='gpu' is not there.", "--device 'gpu' is not there."),
        ("config: mixup must be 0.", "--config or --param: mixup must be 0."),
        ("fit: group_by must name one.", "fit: --group-by must name one."),
        ("fit: X must hold tiles.", "fit: SOURCE must hold tiles."),
        ("fit: y must have a label.", "fit: the labels must have a label."),
        ("fit: resume=True needs one.", "fit: --resume needs one."),
        ("fit: checkpoint: no folder.", "fit: --checkpoint: no folder."),
        ("Pass checkpoint=.", "Pass --checkpoint."),
        ("or pass on_error='skip'.", "or pass --skip-bad."),
        ("save: path must be new.", "--out must be new."),
    ],
)
def test_arguments_are_replaced_by_options(message, expected):
    assert name_options(message) == expected


@pytest.mark.parametrize(
    "message",
    [
        "no such file: 'epochs: 3.wav'.",
        "[Errno 28] No space left on device: 'answers.csv'",
        "no such file: '/music/y must/weights=1.wav'.",
        "the labels of a group_by column",
        "array 0 and X and y",
    ],
)
def test_other_text_is_not_changed(message):
    assert name_options(message) == message
