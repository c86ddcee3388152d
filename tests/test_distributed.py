import json
import os
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
from safetensors.numpy import load_file

from cqt2img.data.synthetic import make_corpus

TORCHRUN = ["torch.distributed.run", "--nproc_per_node", "2"]
# with --cpu it would start one process, whatever --num_processes is
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
OPTIONS = [
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


class Fit(NamedTuple):
    """What one `cqt2img fit` wrote and printed."""

    losses: list[float]
    weights: dict[str, np.ndarray]
    stdout: str


def fit(work, name, launch=()):
    """Run `cqt2img fit` by a launcher on a machine without a GPU."""
    arguments = [
        "cqt2img",
        "fit",
        work / "recordings",
        *OPTIONS,
        "--checkpoint",
        work / f"{name} checkpoint",
        "-o",
        work / name,
    ]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HOME": str(work / "no config"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    launcher = ["-m", *launch] if launch else []
    done = subprocess.run(
        [sys.executable, *launcher, "-m", *arguments],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    facts = json.loads((work / name / "model.json").read_text(encoding="utf-8"))
    losses = [entry["loss"] for entry in facts["history"]]
    return Fit(losses, load_file(work / name / "model.safetensors"), done.stdout)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    work = tmp_path_factory.mktemp("work")
    make_corpus(work / "recordings", n_players=2, n_albums=3, n_takes=2, seconds=12)
    return work


@pytest.fixture(scope="module")
def single(work):
    """The same training in one process."""
    return fit(work, "single")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    "launch", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"]
)
def test_two_processes_train_the_network_of_one(work, single, launch):
    name = launch[0]
    double = fit(work, name, launch)
    np.testing.assert_allclose(double.losses, single.losses, atol=1e-4)
    assert len(single.weights) > 10
    # a parameter moves by about 1e-3
    for key, value in single.weights.items():
        assert np.abs(double.weights[key] - value).max() < 1e-4
    # only the main process prints and writes; two networks would be printed twice
    assert double.stdout.count("model of 2 classes") == 1
    expected = single.stdout.replace(str(work / "single"), str(work / name))
    assert double.stdout == expected
    assert names(work / name) == names(work / "single")
    checkpoint = work / f"{name} checkpoint"
    assert names(checkpoint) == names(work / "single checkpoint")
    history = (checkpoint / "history.csv").read_text(encoding="utf-8")
    assert len(history.splitlines()) == 3
