"""Measure how much a training step on a CPU gains from `retain_freed_memory`.

    python benchmarks/steady_memory.py [N_PAIRS]

Each pair is two processes, one without and one with `retain_freed_memory`. Prints
the tiles per second of mobilenetv2_100 at 96 x 128 in batches of 32: the median of
ten steps after three.
"""

import contextlib
import json
import subprocess
import sys
import time

BATCH_SIZE = 32
N_WARM_UP = 3
N_STEPS = 10


def measure(kind: str) -> float:
    """Tiles per second, "plain" or "steady"."""
    import numpy as np
    import torch

    from cqt2img.models.device import retain_freed_memory
    from cqt2img.models.factory import build_network
    from cqt2img.tiles.spec import TileSpec

    spec = TileSpec.preset("fast")
    network = build_network("mobilenetv2_100", 10, spec).train()
    tiles = torch.randint(0, 255, (BATCH_SIZE, *spec.size), dtype=torch.uint8)
    optimizer = torch.optim.AdamW(network.parameters())
    seconds = []
    context = retain_freed_memory() if kind == "steady" else contextlib.nullcontext()
    with context:
        for _ in range(N_WARM_UP + N_STEPS):
            start = time.perf_counter()
            network(tiles).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            seconds.append(time.perf_counter() - start)
    return BATCH_SIZE / float(np.median(seconds[N_WARM_UP:]))


def measure_in_process(kind: str) -> float:
    command = [sys.executable, __file__, "--one", kind]
    return json.loads(subprocess.check_output(command))


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(sys.argv[2])))
        return
    n_pairs = int(sys.argv[1]) if sys.argv[1:] else 5
    for _ in range(n_pairs):
        plain = measure_in_process("plain")
        steady = measure_in_process("steady")
        print(
            f"plain {plain:6.1f}  steady {steady:6.1f} tiles per second  "
            f"ratio {steady / plain:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
