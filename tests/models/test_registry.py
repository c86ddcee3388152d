import pytest

import cqt2img
from cqt2img.models.architecture import create, resolve_architecture
from cqt2img.models.registry import ROWS
from cqt2img.tiles.spec import TileSpec


def test_table_for_people():
    table = cqt2img.list_backbones()
    assert list(table) == [
        "name",
        "in_chans",
        "weights",
        "parameters",
        "gmacs",
        "time",
        "good_for",
    ]
    assert len(table) == len(ROWS) >= 20
    assert table["name"].is_unique
    assert set(table["weights"]) == {"imagenet", "file", "own"}
    assert (table[["parameters", "gmacs", "time"]] > 0).all(axis=None)
    assert table["good_for"].str.endswith(".").all()
    assert table["good_for"].str.len().max() <= 80
    assert table.set_index("name").loc["resnet18", "time"] == 1


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_figures_are_those_of_the_network(row):
    import torch
    from timm.layers import set_fused_attn, use_fused_attn
    from torch.utils.flop_counter import FlopCounterMode

    spec = TileSpec.preset("piano")
    before = use_fused_attn()
    set_fused_attn(False)  # the counter does not see the fused one
    try:
        blueprint = resolve_architecture(row.name, row.in_chans, spec.size)
        network = create(blueprint, "random", num_classes=10, device="meta").eval()
    finally:
        set_fused_attn(bool(before))
    body = (
        network.reader if row.weights == "own" else network
    )  # what follows it is no network
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        body(
            torch.zeros(
                1,
                row.in_chans,
                *blueprint.options.get("img_size", spec.size),
                device="meta",
            )
        )
    assert row.parameters == pytest.approx(
        sum(p.numel() for p in network.parameters()) / 1e6, abs=0.006
    )
    assert row.gmacs == pytest.approx(counter.get_total_flops() / 2e9, abs=0.006)


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.weights == "imagenet"], ids=lambda row: row.name
)
def test_weights_are_where_the_table_says(row):
    network = create(
        resolve_architecture(row.name, 3, (96, 128)),
        "random",
        num_classes=3,
        device="meta",
    )
    assert network.pretrained_cfg["hf_hub_id"] or network.pretrained_cfg["url"]
