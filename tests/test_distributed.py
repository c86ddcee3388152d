"""Training in two processes computes what training in one process computes."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from cqt2img.data.synthetic import make_corpus

TORCHRUN = ["torch.distributed.run", "--nproc_per_node", "2"]
# with --cpu, accelerate starts one process, whatever --num_processes is
ACCELERATE = [
    "accelerate.commands.launch",
    "--multi_gpu",
    "--num_processes",
    "2",
    "--num_machines",
    "1",
    "--mixed_precision",
    "no",
    "--dynamo_backend",
    "no",
    "--main_process_port",
    "0",
]
FIT = [
    "--backbone",
    "test_vit",
    "--weights",
    "none",
    "--preset",
    "fast",
    "--epochs",
    "2",
    "--batch-size",
    "8",
    "--learning-rate",
    "3e-4",
    "--quiet",
]

pytestmark = pytest.mark.slow


def fit(folder, name, launcher=()):
    """Fit a model, and return the losses, the weights and the output."""
    words = ["-m", "cqt2img", "fit", folder / "recordings", *FIT]
    words += ["--checkpoint", folder / f"{name} checkpoint", "-o", folder / name]
    if launcher:
        words = ["-m", *launcher, *words]
    # without a GPU and without --cpu: this once trained two separate models
    env = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HOME": str(folder / "no config"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        [sys.executable, *words], check=True, capture_output=True, text=True, env=env
    )
    about = json.loads((folder / name / "model.json").read_text(encoding="utf-8"))
    losses = [entry["loss"] for entry in about["history"]]
    return losses, load_file(folder / name / "model.safetensors"), done.stdout


def list_names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    make_corpus(folder / "recordings", n_players=2, n_albums=3, n_takes=2, seconds=12)
    return folder


@pytest.fixture(scope="module")
def one_process(work):
    return fit(work, "one")


@pytest.mark.parametrize(
    "launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"]
)
def test_two_processes_train_the_model_of_one(work, one_process, launcher):
    name = launcher[0]
    expected_losses, expected, expected_output = one_process
    losses, weights, output = fit(work, name, launcher)
    np.testing.assert_allclose(losses, expected_losses, atol=1e-4)
    assert len(expected) > 10
    assert weights.keys() == expected.keys()
    # in this training, a parameter moves by about 1e-3
    for key, values in expected.items():
        np.testing.assert_allclose(weights[key], values, rtol=0, atol=1e-4)
    # only one of the processes prints and writes
    assert output == expected_output.replace(str(work / "one"), str(work / name))
    assert output.count("model of 2 classes") == 1
    assert list_names(work / name) == list_names(work / "one")
    checkpoint = work / f"{name} checkpoint"
    assert list_names(checkpoint) == list_names(work / "one checkpoint")
    history = (checkpoint / "history.csv").read_text(encoding="utf-8")
    assert len(history.splitlines()) == 3
