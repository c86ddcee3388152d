import pytest
import torch
from timm.layers import set_fused_attn, use_fused_attn
from torch.utils.flop_counter import FlopCounterMode

from cqt2img import list_backbones
from cqt2img.models.architecture import create_backbone, resolve_architecture
from cqt2img.tiles.spec import TileSpec

ROWS = list(list_backbones().itertuples())
IMAGENET_ROWS = [row for row in ROWS if row.weights == "imagenet"]
COLUMNS = ["name", "in_chans", "weights", "parameters", "gmacs", "time", "good_for"]


def name_of(row):
    return row.name


def test_the_table_has_one_described_row_per_backbone():
    table = list_backbones()
    assert list(table) == COLUMNS
    assert len(table) >= 20
    assert table["name"].is_unique
    assert not table.isna().any(axis=None)
    assert set(table["in_chans"]) == {1, 3}
    assert set(table["weights"]) == {"imagenet", "file", "own"}
    assert table["good_for"].str.endswith(".").all()
    assert table["good_for"].str.len().max() <= 80


def test_costs_are_positive_and_relative_to_resnet18():
    table = list_backbones().set_index("name")
    assert (table[["parameters", "gmacs", "time"]] > 0).all(axis=None)
    assert table.loc["resnet18", "time"] == 1


def test_a_caller_may_change_the_table():
    table = list_backbones()
    table["name"] = "changed"
    assert "changed" not in set(list_backbones()["name"])


@pytest.fixture
def _countable_attention():
    """The operation counter does not count fused attention."""
    before = bool(use_fused_attn())
    set_fused_attn(False)
    yield
    set_fused_attn(before)


@pytest.mark.usefixtures("_countable_attention")
@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_parameters_and_operations_are_those_of_the_network(row):
    spec = TileSpec.preset("piano")
    architecture = resolve_architecture(row.name, row.in_chans, spec.size)
    network = create_backbone(architecture, "random", num_classes=10, device="meta")
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    assert row.parameters == pytest.approx(n_parameters / 1e6, abs=0.006)

    counted = network.reader if row.weights == "own" else network
    size = architecture.img_size or spec.size
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        counted.eval()(torch.zeros(1, row.in_chans, *size, device="meta"))
    n_macs = counter.get_total_flops() / 2
    assert row.gmacs == pytest.approx(n_macs / 1e9, abs=0.006)


@pytest.mark.parametrize("row", IMAGENET_ROWS, ids=name_of)
def test_timm_has_imagenet_weights_where_the_table_lists_them(row):
    architecture = resolve_architecture(row.name, 3, (96, 128))
    network = create_backbone(architecture, "random", num_classes=3, device="meta")
    config = network.pretrained_cfg
    assert config["hf_hub_id"] or config["url"]
