import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from cqt2img.data.synthetic import make_corpus

TORCHRUN = ["torch.distributed.run", "--nproc_per_node", "2"]
# --cpu would start one process, whatever --num_processes says
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


def fit(room, name, launch=()):
    """Losses and weights of one training, and what it wrote and said."""
    words = [
        "-m",
        "cqt2img",
        "fit",
        room / "recordings",
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
        "--checkpoint",
        room / f"{name} checkpoint",
        "-o",
        room / name,
    ]
    # without a GPU, and without being told so: each of the two once trained a model of its own
    env = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HOME": str(room / "no config"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    before = ["-m", *launch] if launch else []
    done = subprocess.run(
        [sys.executable, *before, *words],
        check=True,
        capture_output=True,
        text=True,
        env=env,
    )
    history = json.loads((room / name / "model.json").read_text(encoding="utf-8"))[
        "history"
    ]
    return (
        [entry["loss"] for entry in history],
        load_file(room / name / "model.safetensors"),
        done,
    )


@pytest.fixture(scope="module")
def disk_full_error(tmp_path_factory):
    room = tmp_path_factory.mktemp("room")
    make_corpus(room / "recordings", n_players=2, n_albums=3, n_takes=2, seconds=12)
    return room


@pytest.fixture(scope="module")
def folder_lock(room):
    return fit(room, "one")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    "launch", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"]
)
def test_two_processes_learn_what_one_learns(room, alone, launch):
    name = launch[0]
    losses, one, said_by_one = alone
    losses_of_two, two, said = fit(room, name, launch)
    np.testing.assert_allclose(losses_of_two, losses, atol=1e-4)
    assert len(one) > 10
    # a parameter moves by about 1e-3
    assert max(np.abs(two[k] - v).max() for k, v in one.items()) < 1e-4
    assert any((two[k] != v).any() for k, v in one.items()), (
        "sums of two processes are rounded in another order"
    )
    assert said.stdout == said_by_one.stdout.replace(
        str(room / "one"), str(room / name)
    ), "one of them speaks"
    assert said.stdout.count("model of 2 classes") == 1
    assert names(room / name) == names(room / "one")
    assert names(room / f"{name} checkpoint") == names(room / "one checkpoint"), (
        "one of them writes"
    )
    history = (room / f"{name} checkpoint" / "history.csv").read_text(encoding="utf-8")
    assert len(history.splitlines()) == 3
