"""Kill training at random moments, resume it, and compare the result to the bit.

    python benchmarks/kill_fit.py N_RUNS [N_WORKERS]

Every run trains a tiny network on synthetic recordings. It is killed three times by
SIGKILL, at moments drawn uniformly over the length of an uninterrupted run, and is
resumed to the end. A kill after the end of training does not count: the run is drawn
again. The runs alternate between two networks, each with a checkpoint every minute,
which here means after every epoch, and with one every half second, which means
within an epoch. N_WORKERS processes augment tiles (default 0). The bytes of the
weights, the validation predictions and the history but its seconds are compared. The
exit code is 1 if any run differs.
"""

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import NamedTuple

NETWORKS = ("test_resnet", "test_vit")
INTERVALS = (60.0, 0.5)
N_KILLS = 3
PRELOADED = [
    "accelerate",
    "albumentations",
    "cqt2img.training.trainer",
    "sklearn.linear_model",
    "timm.optim",
]


class Run(NamedTuple):
    """What is trained, and where it keeps its files."""

    network: str
    interval: float
    n_workers: int
    folder: Path

    @property
    def checkpoint(self) -> Path:
        """Folder of the checkpoint."""
        return self.folder / "checkpoint"

    @property
    def result(self) -> Path:
        """File of the result."""
        return self.folder / "result.json"


def train_run(run: Run, report: Connection) -> None:
    """Train in a process of its own; report when training starts and when it ends."""
    import numpy as np
    import torch

    from cqt2img.data.dataset import TrainingData
    from cqt2img.data.labels import one_hot
    from cqt2img.data.tile_arrays import TileArrays
    from cqt2img.models.factory import build_network
    from cqt2img.tiles.spec import TileSpec
    from cqt2img.training import checkpoint
    from cqt2img.training.config import TrainingConfig, TrainingSettings
    from cqt2img.training.trainer import train

    # for the processes that augment, as in any other program
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    checkpoint._INTERVAL_SECONDS = run.interval
    spec = TileSpec.preset("fast")
    rng = np.random.default_rng(0)
    class_indices = np.arange(18) % 3
    arrays = []
    for class_index in class_indices:
        levels = rng.integers(0, 60, (spec.height, 12 * spec.width), dtype=np.uint8)
        levels[20 + 25 * class_index] = 255
        arrays.append(levels)
    n_frames = np.full(18, 12 * spec.width)
    data = TrainingData(
        TileArrays(spec, arrays, n_frames),
        one_hot(class_indices, 3, 0.1),
        np.arange(18) // 6,
        np.arange(12),
        np.arange(12, 18),
    )
    config = TrainingConfig(
        head_first=True, mixup=0.2, ema_decay=0.9, num_workers=run.n_workers
    )
    settings = TrainingSettings(
        epochs=6, batch_size=8, learning_rate=0.003, config=config
    )
    network = build_network(run.network, 3, spec)
    report.send("started")
    result = train(
        network, data, settings, device="cpu", checkpoint=run.checkpoint, resume=True
    )
    report.send("ended")
    digest = hashlib.sha256(result.validation.tobytes())
    for name, value in result.state.items():
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    history = [{**entry, "seconds": 0} for entry in result.history]
    facts = {"weights": digest.hexdigest(), "history": history}
    run.result.write_text(json.dumps(facts), encoding="utf-8")


def start(context: ForkServerContext, run: Run) -> tuple[ForkServerProcess, Connection]:
    """Start a process and wait until training starts."""
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=train_run, args=(run, sender))
    process.start()
    sender.close()
    assert receiver.recv() == "started"
    return process, receiver


def finish(context: ForkServerContext, run: Run) -> tuple[float, str]:
    """Train to the end; return the seconds and the result."""
    process, receiver = start(context, run)
    begin = time.perf_counter()
    assert receiver.recv() == "ended"
    seconds = time.perf_counter() - begin
    process.join()
    assert process.exitcode == 0
    return seconds, run.result.read_text(encoding="utf-8")


def kill(context: ForkServerContext, run: Run, after: float) -> str | None:
    """Kill after some seconds; return the state of the checkpoint, None if it ended."""
    import torch

    before = len(list(run.checkpoint.glob(".*.part")))
    process, receiver = start(context, run)
    time.sleep(after)
    process.kill()
    process.join()
    if has_ended(receiver):
        return None
    if len(list(run.checkpoint.glob(".*.part"))) > before:
        return "while a checkpoint was written"
    path = run.checkpoint / "last.pt"
    if not path.is_file():
        return "before the first checkpoint"
    progress = torch.load(path, weights_only=True)["progress"]
    if progress["step"] > 0:
        return "after a checkpoint within an epoch"
    return "after a checkpoint between epochs"


def has_ended(receiver: Connection) -> bool:
    """Check whether training had ended.

    Does not wait for the end of the pipe: workers outlive a killed process by
    seconds.
    """
    try:
        return receiver.poll() and receiver.recv() == "ended"
    except EOFError:
        return False


def kill_and_resume(
    context: ForkServerContext, run: Run, seconds: float, draw: random.Random
) -> tuple[str, list[str], int]:
    """Kill a run three times and resume it; return its result, states and draws."""
    n_drawn = 0
    while True:
        n_drawn += 1
        moments = sorted(draw.uniform(0, seconds) for _ in range(N_KILLS))
        # a resumed process starts before the last kill, so that it gets to its own
        # moment at most
        waits = [b - a for a, b in zip([0.0, *moments], moments, strict=False)]
        states = [kill(context, run, wait) for wait in waits]
        if None not in states:
            break
        shutil.rmtree(run.folder)
        run.folder.mkdir()
    found = [state for state in states if state is not None]
    return finish(context, run)[1], found, n_drawn


def main() -> int:
    n_runs = int(sys.argv[1])
    n_workers = int(sys.argv[2]) if sys.argv[2:] else 0
    # it would warn about the locks of killed processes
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"
    # imports torch once, and starts every process anew
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    draw = random.Random(0)
    root = Path(tempfile.mkdtemp())
    uninterrupted = {}
    n_same = 0
    n_late = 0
    landed: Counter[str] = Counter()
    try:
        for network in NETWORKS:
            folder = root / network
            folder.mkdir()
            uninterrupted[network] = finish(
                context, Run(network, INTERVALS[0], n_workers, folder)
            )
            print(
                f"{network}: {uninterrupted[network][0]:.1f} s uninterrupted",
                flush=True,
            )
        for n in range(n_runs):
            network = NETWORKS[n % 2]
            interval = INTERVALS[n // 2 % 2]
            seconds, expected = uninterrupted[network]
            run = Run(network, interval, n_workers, root / str(n))
            run.folder.mkdir()
            found, states, n_drawn = kill_and_resume(context, run, seconds, draw)
            shutil.rmtree(run.folder)
            landed.update(states)
            n_late += n_drawn - 1
            n_same += found == expected
            verdict = "the same" if found == expected else "DIFFERENT"
            print(
                f"run {n + 1}, {network}, checkpoint every {interval:g} s, killed "
                f"{', '.join(states)}: {verdict}",
                flush=True,
            )
    finally:
        shutil.rmtree(root)
    counts = ", ".join(f"{count} {state}" for state, count in sorted(landed.items()))
    print(f"{landed.total()} kills: {counts}; {n_late} runs drawn again")
    print(f"{n_same} of {n_runs} the same to the bit")
    return int(n_same < n_runs)


if __name__ == "__main__":
    sys.exit(main())
