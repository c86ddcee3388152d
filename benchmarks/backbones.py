"""Measure the backbones of `cqt2img/models/backbones.csv` and update its numbers.

    python benchmarks/backbones.py [--rounds 5] [--out FILE]

The table is read from the package and written to FILE, by default in its place. Names,
channels, sources of weights and descriptions are kept; a new row needs these only.

- `parameters`: parameters of the network with ten classes, in millions.
- `gmacs`: multiply-accumulate operations of one tile of the piano preset, forward, in
  thousands of millions, counted by torch.
- `time`: one batch of four tiles, forward, on one core, as a multiple of resnet18's in
  the same run. It is the minimum over the rounds, in which the backbones take turns so
  that other load on the machine affects all of them. With 0 rounds it is kept.
"""

import argparse
import time
from pathlib import Path

import pandas as pd
import torch
from timm.layers import set_fused_attn
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cqt2img.models import registry
from cqt2img.models.architecture import create_backbone, resolve_architecture
from cqt2img.models.factory import build_network
from cqt2img.models.notes import NoteClassifier
from cqt2img.tiles.spec import TileSpec

SPEC = TileSpec.preset("piano")
N_CLASSES = 10
CSV = Path(registry.__file__).with_name("backbones.csv")


def count_parameters(network: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_macs(network: nn.Module, input_shape: tuple[int, ...]) -> float:
    """Return the multiply-accumulate operations of one forward pass."""
    # the features of notes are counted on the CPU, without a network
    is_note_classifier = isinstance(network, NoteClassifier)
    counted = network.reader if is_note_classifier else network
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        counted(torch.zeros(input_shape, device="meta"))
    return counter.get_total_flops() / 2


def measure_size(name: str, in_chans: int) -> tuple[float, float]:
    """Return millions of parameters and thousands of millions of MACs."""
    architecture = resolve_architecture(name, in_chans, SPEC.size)
    network = create_backbone(
        architecture, "random", num_classes=N_CLASSES, device="meta"
    )
    size = architecture.img_size or SPEC.size
    n_macs = count_macs(network.eval(), (1, in_chans, *size))
    return count_parameters(network) / 1e6, n_macs / 1e9


def measure_times(table: pd.DataFrame, n_rounds: int) -> list[float]:
    """Return the time of each backbone as a multiple of resnet18's."""
    torch.set_num_threads(1)
    tiles = torch.randint(0, 256, (4, *SPEC.size), dtype=torch.uint8)
    networks = {}
    for row in table.itertuples():
        network = build_network(row.name, N_CLASSES, SPEC, None, row.in_chans)
        networks[row.name] = network.eval()
    seconds = dict.fromkeys(networks, float("inf"))
    with torch.no_grad():
        for _ in range(n_rounds):
            for name, network in networks.items():
                start = time.perf_counter()
                network(tiles)
                elapsed = time.perf_counter() - start
                seconds[name] = min(seconds[name], elapsed)
    return [seconds[name] / seconds["resnet18"] for name in networks]


def update_table(table: pd.DataFrame, n_rounds: int) -> pd.DataFrame:
    """Return the table with new numbers and the same descriptions."""
    set_fused_attn(False)  # the counter does not count fused attention
    sizes = [measure_size(row.name, row.in_chans) for row in table.itertuples()]
    set_fused_attn(True)
    parameters, gmacs = zip(*sizes, strict=True)
    table = table.assign(parameters=parameters, gmacs=gmacs)
    if n_rounds:
        table = table.assign(time=measure_times(table, n_rounds))
    return table.round({"parameters": 2, "gmacs": 2, "time": 1})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=CSV)
    arguments = parser.parse_args()
    table = update_table(registry.list_backbones(), arguments.rounds)
    table.to_csv(arguments.out, index=False, lineterminator="\n")
    print(table.drop(columns="good_for").to_string(index=False))


if __name__ == "__main__":
    main()
