"""Count and time the backbones of `cqt2img.list_backbones()` on a tile of the piano preset.

    python benchmarks/backbones.py [ROUNDS]

Parameters are those of the network with ten names, in millions. GMACs are multiplications with an
addition, in thousands of millions, of one tile forwards, counted by torch. Time is that of one
batch of four tiles forwards on one core, the least of ROUNDS rounds (default 5; the backbones take
turns, so that a busy machine harms all alike), as a multiple of resnet18's in the same run. Give 0
rounds to count only. The rows go into `cqt2img/catalogue.py`.
"""

import sys
import time

import torch
from timm.layers import set_fused_attn
from torch.utils.flop_counter import FlopCounterMode

from cqt2img.models.architecture import create, resolve_architecture
from cqt2img.models.factory import build_network
from cqt2img.models.registry import ROWS
from cqt2img.tiles.spec import TileSpec

SPEC = TileSpec.preset("piano")


def count(name: str, in_chans: int) -> tuple[float, float]:
    """Give the parameters in millions and the GMACs of one tile."""
    blueprint = resolve_architecture(name, in_chans, SPEC.size)
    network = create(blueprint, "random", num_classes=10, device="meta").eval()
    size = blueprint.options.get("img_size") or SPEC.size
    body = getattr(
        network, "reader", network
    )  # what follows the reader of notes is no network
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        body(torch.zeros(1, in_chans, *size, device="meta"))
    return sum(
        p.numel() for p in network.parameters()
    ) / 1e6, counter.get_total_flops() / 2e9


def clock(rounds: int) -> dict[str, float]:
    """Give the time of every backbone as a multiple of resnet18's."""
    torch.set_num_threads(1)
    tiles = torch.randint(0, 256, (4, *SPEC.size), dtype=torch.uint8)
    networks = {
        row.name: build_network(row.name, 10, SPEC, None, row.in_chans).eval()
        for row in ROWS
    }
    best = dict.fromkeys(networks, float("inf"))
    with torch.no_grad():
        for _ in range(rounds):
            for name, network in networks.items():
                network.to(memory_format=torch.channels_last)
                start = time.perf_counter()
                network(tiles)
                best[name] = min(best[name], time.perf_counter() - start)
    return {name: seconds / best["resnet18"] for name, seconds in best.items()}


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    set_fused_attn(False)  # the counter does not see the fused one
    counted = {row.name: count(row.name, row.in_chans) for row in ROWS}
    set_fused_attn(True)
    times = clock(rounds) if rounds else dict.fromkeys(counted, float("nan"))
    for name, (millions, gmacs) in counted.items():
        print(f"{name:30s} {millions:7.2f} {gmacs:7.2f} {times[name]:6.1f}")
