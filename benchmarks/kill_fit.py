"""Kill `fit` at random moments, resume it, and compare what it learned with an undisturbed run, to the bit.

    python benchmarks/kill_fit.py N [WORKERS]

N runs on recordings of made tones, each killed three times by SIGKILL, at moments drawn evenly over the length of an
undisturbed run, and resumed to the end. A kill that came after `fit` had ended does not count: the run is drawn again.
The runs take turns over two networks, each with the checkpoint every minute, which here means after every epoch, and
with one every half second, which means within an epoch. WORKERS processes augment tiles (default 0). Compared are the
bytes of the weights, the temperature and the history but its seconds. The exit code is 1 if any run differs.
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
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

NETWORKS, INTERVALS, N_KILLS = ("test_resnet", "test_vit"), (60.0, 0.5), 3
LOADED = [
    "accelerate",
    "albumentations",
    "cqt2img.classifier",
    "cqt2img.training.trainer",
    "sklearn.linear_model",
    "timm.optim",
]


def make_recordings() -> tuple[list[Any], list[str], list[str]]:
    """Give 18 CQT arrays of one held tone and noise, their names, and their albums of two."""
    import numpy as np

    from cqt2img import TileSpec

    rng, spec = np.random.default_rng(0), TileSpec.preset("fast")
    X, y = [], []
    for n in range(18):
        cqt = 0.1 * rng.random((spec.n_bins, 12 * spec.width), dtype=np.float32)
        cqt[(20, 45, 70)[n % 3]] += 1
        X.append(cqt)
        y.append(("low", "middle", "high")[n % 3])
    return X, y, [f"album {n // 6} of {name}" for n, name in enumerate(y)]


def fit(
    network: str, interval: float, workers: int, folder: Path, say: Connection
) -> None:
    """Fit in a process of its own, and tell when it begins and ends."""
    import torch

    from cqt2img import Classifier
    from cqt2img.training import checkpoint

    multiprocessing.set_start_method(
        "fork", force=True
    )  # for workers, as in any other process
    torch.set_num_threads(1)
    checkpoint._EVERY_SECONDS = interval
    model = Classifier(
        network,
        weights=None,
        spec="fast",
        epochs=6,
        batch_size=8,
        learning_rate=0.003,
        head_first=True,
        mixup=0.2,
        ema=0.9,
        workers=workers,
        device="cpu",
        verbose=False,
    )
    X, y, groups = make_recordings()
    say.send("fits")
    model.fit(X, y, groups, checkpoint=folder / "checkpoint", resume=True)
    say.send("done")
    model.save(folder / "model")


def start(context: Any, *words: Any) -> tuple[Any, Connection]:
    """Start a process, and wait until it fits."""
    hear, say = context.Pipe(duplex=False)
    process = context.Process(target=fit, args=(*words, say))
    process.start()
    say.close()
    assert hear.recv() == "fits"
    return process, hear


def finish(context: Any, *words: Any) -> tuple[float, tuple[str, float, str]]:
    """Fit to the end; seconds, and what was learned."""
    process, hear = start(context, *words)
    begun = time.perf_counter()
    assert hear.recv() == "done"
    seconds = time.perf_counter() - begun
    process.join()
    assert process.exitcode == 0
    model = words[-1] / "model"
    facts = json.loads((model / "model.json").read_text(encoding="utf-8"))
    history = [
        {k: v for k, v in entry.items() if k != "seconds"} for entry in facts["history"]
    ]
    weights = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    return seconds, (weights, facts["temperature"], json.dumps(history))


def kill(context: Any, after: float, *words: Any) -> str:
    """Kill after so many seconds; where it stood by its checkpoint, or nothing if it had ended by then."""
    import torch

    folder = words[-1] / "checkpoint"
    before = len(list(folder.glob(".*.part")))
    process, hear = start(context, *words)
    time.sleep(after)
    process.kill()
    process.join()
    if has_ended(hear):
        return ""
    if len(list(folder.glob(".*.part"))) > before:
        return "while a checkpoint was written"
    if not (folder / "last.pt").is_file():
        return "before the first checkpoint"
    step = torch.load(folder / "last.pt", weights_only=True)["step"]
    return "after a checkpoint within an epoch" if step else "after one between epochs"


def has_ended(hear: Connection) -> bool:
    """Tell whether `fit` had ended; not by waiting, since workers outlive a killed process by seconds."""
    try:
        return hear.poll() and hear.recv() == "done"
    except EOFError:
        return False


def main() -> int:
    n_runs, workers = int(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else 0
    os.environ["PYTHONWARNINGS"] = (
        "ignore:resource_tracker"  # it would tell of the locks of the killed
    )
    context = multiprocessing.get_context(
        "forkserver"
    )  # loads torch once; every process is killed in earnest
    context.set_forkserver_preload(LOADED)
    draw, root = random.Random(0), Path(tempfile.mkdtemp())
    same, late, landed = 0, 0, dict[str, int]()
    try:
        undisturbed = {}
        for network in NETWORKS:
            folder = root / f"undisturbed {network}"
            undisturbed[network] = finish(
                context, network, INTERVALS[0], workers, folder
            )
            print(f"{network}: {undisturbed[network][0]:.1f} s undisturbed", flush=True)
        for n in range(n_runs):
            network, interval = NETWORKS[n % 2], INTERVALS[n // 2 % 2]
            seconds, wanted = undisturbed[network]
            while True:
                folder = root / str(n)
                words = network, interval, workers, folder
                moments = sorted(draw.uniform(0, seconds) for _ in range(N_KILLS))
                # each process gets as far as its moment at most, since it goes on from before the one of the last
                places = [
                    kill(context, b - a, *words)
                    for a, b in zip([0, *moments], moments, strict=False)
                ]
                if all(places):
                    break
                late += 1
                shutil.rmtree(folder)
            for place in places:
                landed[place] = landed.get(place, 0) + 1
            found = finish(context, *words)[1]
            same += found == wanted
            print(
                f"run {n + 1}, {network}, checkpoint every {interval:g} s, killed at "
                f"{', '.join(f'{moment / seconds:.2f}' for moment in moments)} ({'; '.join(places)}): "
                f"{'the same' if found == wanted else 'DIFFERENT'}",
                flush=True,
            )
            shutil.rmtree(folder)
    finally:
        shutil.rmtree(root)
    print(
        f"{sum(landed.values())} kills, all while fit was running: "
        f"{', '.join(f'{count} {place}' for place, count in sorted(landed.items()))}; "
        f"{late} runs drawn again, where a kill came too late"
    )
    print(f"{same} of {n_runs} the same to the bit")
    return int(same < n_runs)


if __name__ == "__main__":
    sys.exit(main())
