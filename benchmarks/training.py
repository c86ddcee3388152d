"""Training against bare PyTorch on one thread: what a step costs more, what bf16 gains, what the head costs.

    python benchmarks/training.py [step] [bf16] [head]

All three without a word. Tiles are noise from a seeded generator, of the preset `fast`, in batches of 32, and networks
start at random: no data, no weights.

`step`: `train` with resnet18, fp32, and a bare loop of the same backbone on painted tensors that lie ready take turns,
block by block, in one process, in `retain_freed_memory()`. The bare loop is zero_grad, forward, loss, backward, step;
`train` is everything that it does in an epoch, from the crop to the progress bar. The ratio is of each block to the one
beside it, with and without augmentation: the median and the quartiles. Goal: 1.05.

`bf16`: the same in two processes one after the other, fp32 and bf16, for three networks. Goal: 1.6.

`head`: `settle_norms` and `fit_linear_probe` on 2,000 tiles of 200 recordings against one pass forward, in batches.
Goal: 1.1 passes and 10 s.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from timm.loss import SoftTargetCrossEntropy

from cqt2img.data.dataset import TrainingData
from cqt2img.data.labels import one_hot
from cqt2img.data.tile_arrays import TileArrays
from cqt2img.models.device import retain_freed_memory
from cqt2img.models.factory import TileNet, build_network
from cqt2img.tiles.spec import TileSpec
from cqt2img.training.callbacks import Callback, default_callbacks
from cqt2img.training.config import TrainingConfig
from cqt2img.training.linear_probe import fit_linear_probe, settle_norms
from cqt2img.training.trainer import train

SPEC, N_CLASSES, BATCH, CPU = TileSpec.preset("fast"), 10, 32, torch.device("cpu")
BLOCK, WARM_UP = 3, 2  # steps of a block; blocks that do not count
N_PAIRS, N_ROUNDS = 3, 3  # of processes, fp32 and bf16; of the head
NETWORKS = ("resnet18", "mobilenetv2_100", "vit_tiny_patch16_224")


def make_corpus(n_recordings: int, n_tiles: int, n_held: int = 0) -> TrainingData:
    """Give recordings of noise, of ten classes that are a little louder each in rows of its own."""
    rng = np.random.default_rng(0)
    codes = np.arange(n_recordings) % N_CLASSES
    shape = SPEC.height, n_tiles * SPEC.width
    strips = []
    for code in codes:
        loudness = (
            rng.normal(100, 10, (SPEC.height, 1))
            + 10 * (np.arange(SPEC.height) % N_CLASSES == code)[:, None]
        )
        strips.append(
            np.clip(
                loudness + 30 * rng.standard_normal(shape, dtype=np.float32), 0, 255
            ).astype(np.uint8)
        )
    n_frames = np.full(n_recordings, shape[1], dtype=np.int64)
    places = np.arange(n_recordings)
    mine, held = places[: n_recordings - n_held], places[n_recordings - n_held :]
    return TrainingData(
        TileArrays(SPEC, strips, n_frames),
        one_hot(codes, N_CLASSES, 0.1),
        places // N_CLASSES,
        mine,
        held,
    )


def make_network(name: str) -> TileNet:
    """Give the same network at every call."""
    torch.manual_seed(0)
    return build_network(name, N_CLASSES, SPEC, weights=None)


def bare_loop(name: str, precision: str) -> Callable[[], None]:
    """Give a function that takes a block of steps, as one writes them with PyTorch alone."""
    network = make_network(name)
    rng = np.random.default_rng(1)
    batches = []
    for _ in range(BLOCK):
        levels = torch.from_numpy(
            rng.integers(0, 256, (BATCH, *SPEC.size), dtype=np.uint8)
        )
        target = torch.from_numpy(
            one_hot(rng.integers(0, N_CLASSES, BATCH), N_CLASSES, 0.1)
        )
        batches.append(
            (network._paint(levels).clone(memory_format=torch.preserve_format), target)
        )
    backbone, criterion = network.backbone.train(), SoftTargetCrossEntropy()
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=1e-3, weight_decay=0.05)

    def block() -> None:
        for x, target in batches:
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                logits = backbone(x)
            criterion(logits.float(), target).backward()
            optimizer.step()

    return block


class Turns(Callback):
    """Looks on at `train`, and after every block of its steps lets the bare loop take a block, on the clock."""

    def __init__(self, bare: Callable[[], None], bar: Callback) -> None:
        self.bare, self.bar = bare, bar
        self.n_steps = 0
        self.ours: list[
            tuple[float, float]
        ] = []  # seconds of the processor, and of the clock, a step
        self.theirs: list[tuple[float, float]] = []

    def begin(self, *counts: Any) -> None:
        """Start the clock."""
        self.bar.begin(*counts)
        self.start = time.process_time(), time.perf_counter()

    def step(self, loss: float) -> None:
        """Change sides after a block."""
        self.bar.step(loss)
        self.n_steps += 1
        if self.n_steps % BLOCK == 0:
            self._stop(self.ours)
            self.bare()
            self._stop(self.theirs)

    def _stop(self, times: list[tuple[float, float]]) -> None:
        now = time.process_time(), time.perf_counter()
        times.append(
            ((now[0] - self.start[0]) / BLOCK, (now[1] - self.start[1]) / BLOCK)
        )
        self.start = time.process_time(), time.perf_counter()


def take_turns(
    name: str, precision: str, augment: str, n_blocks: int
) -> tuple[np.ndarray, np.ndarray]:
    """Seconds a step of `train` and of the bare loop, (n_blocks, 2): of the processor, and of the clock."""
    n_steps = BLOCK * (n_blocks + WARM_UP)
    n_recordings = 2 * N_CLASSES
    corpus = make_corpus(n_recordings, -(-n_steps * BATCH // n_recordings))
    recipe = TrainingConfig(
        epochs=1, batch_size=BATCH, augment=augment, precision=precision
    )
    with ExitStack() as stack:
        turns = Turns(
            bare_loop(name, precision), stack.enter_context(default_callbacks(True))
        )
        train(make_network(name), corpus, recipe, "cpu", turns)
    return np.array(turns.ours[WARM_UP:]), np.array(turns.theirs[WARM_UP:])


def spread(ratios: np.ndarray) -> str:
    """Say the median and the quartiles."""
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def measure_step() -> None:
    for augment in ("none", "album"):
        ours, theirs = take_turns("resnet18", "fp32", augment, 20)
        ratios = ours / theirs
        print(
            f"step, augment {augment:5s}: cqt2img {1000 * np.median(ours[:, 0]):.0f} ms, bare "
            f"{1000 * np.median(theirs[:, 0]):.0f} ms of the processor; ratio {spread(ratios[:, 0])}, "
            f"of the clock {spread(ratios[:, 1])}; {len(ratios)} pairs",
            flush=True,
        )


def measure_bf16() -> None:
    for name in NETWORKS:
        times: dict[str, list[list[float]]] = {"fp32": [], "bf16": []}
        for _ in range(N_PAIRS):
            for precision, rows in times.items():
                call = [sys.executable, __file__, "--one", name, precision]
                rows.append(
                    json.loads(subprocess.check_output(call, stderr=subprocess.DEVNULL))
                )
        fp32, bf16 = np.array(times["fp32"]), np.array(times["bf16"])
        for n, side in enumerate(("cqt2img", "bare")):
            slow, fast = 1000 * np.median(fp32[:, n]), 1000 * np.median(bf16[:, n])
            print(
                f"bf16, {name}, {side}: {slow:.0f} ms fp32, {fast:.0f} ms bf16; ratio "
                f"{spread(fp32[:, n] / bf16[:, n])} of {len(fp32)} pairs",
                flush=True,
            )


def measure_head() -> None:
    corpus = make_corpus(200, 10, n_held=40)
    batches = [torch.from_numpy(corpus.arrays.tiles(n).copy()) for n in range(200)]
    batches = list(torch.cat(batches).split(BATCH))
    for name in NETWORKS[:2]:
        network = make_network(name)

        def forward(network: TileNet = network) -> None:
            network.eval()
            with torch.inference_mode(), retain_freed_memory():
                for batch in batches:
                    network(batch)

        def settle(network: TileNet = network) -> None:
            with retain_freed_memory():
                settle_norms(network, corpus, CPU, seed=0)

        def head(network: TileNet = network) -> None:
            fit_linear_probe(network, corpus, CPU)

        rows = []
        for _ in range(N_ROUNDS):
            row = []
            for work in (forward, settle, head):
                start = time.process_time()
                work()
                row.append(time.process_time() - start)
            rows.append(row)
        once, norms, alone = np.median(rows, axis=0)
        passes = [(row[1] + row[2]) / row[0] for row in rows]
        print(
            f"head, {name}: one pass {once:.1f} s of the processor, batch norms {norms:.1f} s, "
            f"fit_linear_probe {alone:.1f} s; together {np.median(passes):.2f} passes ({min(passes):.2f} to "
            f"{max(passes):.2f}), {norms + alone - 1.1 * once:+.1f} s beyond 1.1 passes",
            flush=True,
        )


def main() -> None:
    torch.set_num_threads(1)
    words = sys.argv[1:]
    with threadpool_limits(1):
        if words[:1] == ["--one"]:
            sides = take_turns(words[1], words[2], "album", 4)
            print(json.dumps([float(np.median(side[:, 0])) for side in sides]))
            return
        for word, measure in (
            ("step", measure_step),
            ("bf16", measure_bf16),
            ("head", measure_head),
        ):
            if word in words or not words:
                measure()


if __name__ == "__main__":
    main()
