"""How much a training step on a CPU gains from keeping its memory, pair by pair in one run.

python benchmarks/retain_freed_memory.py [PAIRS]
"""

import contextlib
import json
import subprocess
import sys
import time


def measure(steady: bool) -> float:
    """Tiles per second of mobilenetv2_100 at 96 x 128, batch 32, the median of ten steps after three."""
    import numpy as np
    import torch

    from cqt2img.models.device import retain_freed_memory
    from cqt2img.models.factory import build_network
    from cqt2img.tiles.spec import TileSpec

    network = (
        build_network("mobilenetv2_100", 10, TileSpec.preset("fast"))
        .to(memory_format=torch.channels_last)
        .train()
    )
    tiles = torch.randint(0, 255, (32, 96, 128), dtype=torch.uint8)
    optimizer = torch.optim.AdamW(network.parameters())
    seconds = []
    with retain_freed_memory() if steady else contextlib.nullcontext():
        for _ in range(13):
            start = time.perf_counter()
            network(tiles).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            seconds.append(time.perf_counter() - start)
    return 32 / float(np.median(seconds[3:]))


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(sys.argv[2] == "steady")))
        return
    for _ in range(int(sys.argv[1]) if sys.argv[1:] else 5):
        plain, steady = (
            json.loads(
                subprocess.check_output([sys.executable, __file__, "--one", kind])
            )
            for kind in ("plain", "steady")
        )
        print(
            f"plain {plain:6.1f}  steady {steady:6.1f} tiles a second  ratio {steady / plain:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
