import json
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from cqt2img.synth import make_corpus


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path):
    make_corpus(tmp_path / "recordings", n_players=2, n_albums=3, n_takes=2, seconds=12)
    words = ["-m", "cqt2img", "fit", str(tmp_path / "recordings"), "--backbone", "test_vit", "--weights", "none",
             "--preset", "fast", "--epochs", "2", "--batch-size", "8", "--learning-rate", "3e-4", "--device", "cpu",
             "--quiet"]  # fmt: skip
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", "2"]
    found = {}
    for name, before in (("one", []), ("two", launch)):
        command = [sys.executable, *before, *words, "-o", str(tmp_path / name)]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        assert done.stdout.count("model of 2 classes") == 1, "one of them speaks"
        history = json.loads((tmp_path / name / "model.json").read_text(encoding="utf-8"))["history"]
        found[name] = [entry["loss"] for entry in history], load_file(tmp_path / name / "model.safetensors")
    (losses, one), (losses_of_two, two) = found["one"], found["two"]
    np.testing.assert_allclose(losses_of_two, losses, atol=1e-4)
    assert len(one) > 10
    # a parameter moves by about 1e-3
    assert max(np.abs(two[k] - v).max() for k, v in one.items()) < 1e-4
