"""Compare training with plain PyTorch on one thread.

    python benchmarks/training.py [step] [bf16] [head]

Without arguments, all three. Tiles are noise of the preset "fast" in batches of 32,
and networks start from random weights, so that neither data nor weights are needed.

`step`: `train` with resnet18 in fp32, and a plain loop over the same backbone on
coloured tiles in memory, alternate block by block in one process, with
`retain_freed_memory`. The plain loop is zero_grad, forward, loss, backward, step;
`train` is all of an epoch, from the crop to the progress bar. Each block is divided
by the one beside it, with and without augmentation: median and quartiles. Goal: 1.05.

`bf16`: the same in pairs of processes, fp32 and bf16, for three networks. Goal: 1.6.

`head`: `recompute_batch_norms` and `fit_linear_probe` on 2,000 tiles of 200
recordings against one forward pass in batches. Goal: 1.1 passes and 10 s.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from timm.loss import SoftTargetCrossEntropy

from cqt2img.data.dataset import TrainingData
from cqt2img.data.labels import one_hot
from cqt2img.data.tile_arrays import TileArrays
from cqt2img.models.device import retain_freed_memory
from cqt2img.models.factory import TileNet, build_network
from cqt2img.tiles.spec import TileSpec
from cqt2img.training.batch_norm import recompute_batch_norms
from cqt2img.training.callbacks import Callback, CallbackList, default_callbacks
from cqt2img.training.config import TrainingConfig, TrainingSettings
from cqt2img.training.linear_probe import fit_linear_probe
from cqt2img.training.trainer import train

SPEC = TileSpec.preset("fast")
CPU = torch.device("cpu")
N_CLASSES = 10
BATCH_SIZE = 32
BLOCK_STEPS = 3
N_WARM_UP_BLOCKS = 2
N_PAIRS = 3  # of processes, fp32 and bf16
N_ROUNDS = 3  # of the head
NETWORKS = ("resnet18", "mobilenetv2_100", "vit_tiny_patch16_224")


class Seconds(NamedTuple):
    """Seconds of the processor and of the clock."""

    cpu: float
    wall: float


def now() -> Seconds:
    return Seconds(time.process_time(), time.perf_counter())


def make_data(
    n_recordings: int, n_tiles: int, n_validation: int = 0, *, smoothing: float = 0.1
) -> TrainingData:
    """Make recordings of noise; each class is a little louder in some rows."""
    rng = np.random.default_rng(0)
    class_indices = np.arange(n_recordings) % N_CLASSES
    n_frames = n_tiles * SPEC.width
    arrays = []
    for class_index in class_indices:
        is_loud = np.arange(SPEC.height) % N_CLASSES == class_index
        level = rng.normal(100, 10, (SPEC.height, 1)) + 10 * is_loud[:, None]
        noise = rng.standard_normal((SPEC.height, n_frames), dtype=np.float32)
        arrays.append(np.clip(level + 30 * noise, 0, 255).astype(np.uint8))
    recordings = np.arange(n_recordings)
    n_training = n_recordings - n_validation
    return TrainingData(
        TileArrays(SPEC, arrays, np.full(n_recordings, n_frames, dtype=np.int64)),
        one_hot(class_indices, N_CLASSES, smoothing),
        recordings // N_CLASSES,
        recordings[:n_training],
        recordings[n_training:],
    )


def make_network(name: str) -> TileNet:
    """Return the same network at every call."""
    torch.manual_seed(0)
    return build_network(name, N_CLASSES, SPEC, weights=None)


def make_plain_block(name: str, precision: str) -> Callable[[], None]:
    """Return a function that takes a block of steps in plain PyTorch."""
    network = make_network(name)
    rng = np.random.default_rng(1)
    batches = []
    for _ in range(BLOCK_STEPS):
        levels = rng.integers(0, 256, (BATCH_SIZE, *SPEC.size), dtype=np.uint8)
        class_indices = rng.integers(0, N_CLASSES, BATCH_SIZE)
        images = network._make_input(torch.from_numpy(levels))
        targets = torch.from_numpy(one_hot(class_indices, N_CLASSES, 0.1))
        batches.append((images.clone(memory_format=torch.preserve_format), targets))
    backbone = network.backbone.train()
    criterion = SoftTargetCrossEntropy()
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=1e-3, weight_decay=0.05)

    def take_block() -> None:
        for images, targets in batches:
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                logits = backbone(images)
            criterion(logits.float(), targets).backward()
            optimizer.step()

    return take_block


class Alternate(Callback):
    """Time blocks of steps, and let the plain loop take a block after each."""

    def __init__(self, take_plain_block: Callable[[], None]) -> None:
        self.take_plain_block = take_plain_block
        self.n_steps = 0
        self.trainer: list[Seconds] = []  # per step
        self.plain: list[Seconds] = []

    def on_train_begin(self, *args: object) -> None:
        """Start the clock."""
        self.start = now()

    def on_step_end(self, loss: float) -> None:
        """Change sides after a block."""
        self.n_steps += 1
        if self.n_steps % BLOCK_STEPS == 0:
            self._stop(self.trainer)
            self.take_plain_block()
            self._stop(self.plain)

    def _stop(self, times: list[Seconds]) -> None:
        end = now()
        cpu = (end.cpu - self.start.cpu) / BLOCK_STEPS
        wall = (end.wall - self.start.wall) / BLOCK_STEPS
        times.append(Seconds(cpu, wall))
        self.start = now()


def time_steps(
    name: str, precision: str, augment: str, n_blocks: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Seconds per step of `train` and of the plain loop, shape (n_blocks, 2) each."""
    n_steps = BLOCK_STEPS * (n_blocks + N_WARM_UP_BLOCKS)
    n_recordings = 2 * N_CLASSES
    data = make_data(n_recordings, -(-n_steps * BATCH_SIZE // n_recordings))
    config = TrainingConfig(precision=precision)
    settings = TrainingSettings(
        epochs=1, batch_size=BATCH_SIZE, augment=augment, config=config
    )
    alternate = Alternate(make_plain_block(name, precision))
    with ExitStack() as stack:
        bar = stack.enter_context(default_callbacks(visible=True))
        callback = CallbackList([bar, alternate])
        train(make_network(name), data, settings, device="cpu", callback=callback)
    trainer = np.array(alternate.trainer[N_WARM_UP_BLOCKS:])
    plain = np.array(alternate.plain[N_WARM_UP_BLOCKS:])
    return trainer, plain


def describe(ratios: NDArray[np.float64]) -> str:
    """Median and quartiles."""
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def measure_step() -> None:
    for augment in ("none", "album"):
        trainer, plain = time_steps("resnet18", "fp32", augment, 20)
        ratios = trainer / plain
        cpu_ms = 1000 * np.median(trainer[:, 0])
        plain_ms = 1000 * np.median(plain[:, 0])
        print(
            f"step, augment {augment:5s}: cqt2img {cpu_ms:.0f} ms, plain "
            f"{plain_ms:.0f} ms of the processor; ratio {describe(ratios[:, 0])}, of "
            f"the clock {describe(ratios[:, 1])}; {len(ratios)} pairs",
            flush=True,
        )


def measure_in_process(name: str, precision: str) -> list[float]:
    command = [sys.executable, __file__, "--one", name, precision]
    return json.loads(subprocess.check_output(command, stderr=subprocess.DEVNULL))


def measure_bf16() -> None:
    for name in NETWORKS:
        rows: dict[str, list[list[float]]] = {"fp32": [], "bf16": []}
        for _ in range(N_PAIRS):
            for precision in rows:
                rows[precision].append(measure_in_process(name, precision))
        fp32 = np.array(rows["fp32"])
        bf16 = np.array(rows["bf16"])
        for n, side in enumerate(("cqt2img", "plain")):
            fp32_ms = 1000 * np.median(fp32[:, n])
            bf16_ms = 1000 * np.median(bf16[:, n])
            print(
                f"bf16, {name}, {side}: {fp32_ms:.0f} ms fp32, {bf16_ms:.0f} ms bf16; "
                f"ratio {describe(fp32[:, n] / bf16[:, n])} of {len(fp32)} pairs",
                flush=True,
            )


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def measure_head() -> None:
    data = make_data(200, 10, n_validation=40)
    tiles = np.concatenate([data.arrays.tiles(n) for n in range(200)])
    batches = torch.from_numpy(tiles).split(BATCH_SIZE)
    for name in NETWORKS[:2]:
        network = make_network(name)

        def forward(network: TileNet = network) -> None:
            network.eval()
            with torch.inference_mode(), retain_freed_memory():
                for batch in batches:
                    network(batch)

        def recompute(network: TileNet = network) -> None:
            with retain_freed_memory():
                recompute_batch_norms(network, data, CPU, seed=0)

        def fit_head(network: TileNet = network) -> None:
            fit_linear_probe(network, data, CPU)

        rows = [
            [cpu_seconds(work) for work in (forward, recompute, fit_head)]
            for _ in range(N_ROUNDS)
        ]
        one_pass, norms, head = np.median(rows, axis=0)
        passes = [(row[1] + row[2]) / row[0] for row in rows]
        print(
            f"head, {name}: one pass {one_pass:.1f} s of the processor, batch norms "
            f"{norms:.1f} s, fit_linear_probe {head:.1f} s; together "
            f"{np.median(passes):.2f} passes ({min(passes):.2f} to {max(passes):.2f}), "
            f"{norms + head - 1.1 * one_pass:+.1f} s beyond 1.1 passes",
            flush=True,
        )


def main() -> None:
    torch.set_num_threads(1)
    names = sys.argv[1:]
    with threadpool_limits(1):
        if names[:1] == ["--one"]:
            sides = time_steps(names[1], names[2], "album", 4)
            print(json.dumps([float(np.median(side[:, 0])) for side in sides]))
            return
        measures = {"step": measure_step, "bf16": measure_bf16, "head": measure_head}
        for name, measure in measures.items():
            if name in names or not names:
                measure()


if __name__ == "__main__":
    main()
