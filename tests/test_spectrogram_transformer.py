"""The Audio Spectrogram Transformer: its grid of patches, and where ImageNet's positions go."""

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from conftest import refused
from safetensors.torch import save_file

from cqt2img.backbone import build_network
from cqt2img.blueprint import create, draw_blueprint
from cqt2img.errors import InputError
from cqt2img.spec import PRESETS, TileSpec
from cqt2img.spectrogram_transformer import make_transformer

ROWS = COLUMNS = 14
# more rows and columns; fewer; as many patches as ImageNet's 14 x 14, in 7 x 28 and 28 x 7, at both strides
GRIDS = [("ast", 192, 256, 12, 16), ("ast", 320, 336, 20, 21), ("ast", 112, 448, 7, 28), ("ast", 448, 112, 28, 7),
         ("ast_tiny_s10", 96, 136, 9, 13), ("ast_tiny_s10", 76, 286, 7, 28)]  # fmt: skip


def ramp(n_rows=ROWS, n_columns=COLUMNS, dim=192):
    """Positions whose first number is the row, whose second is the column; before them, the two tokens' own."""
    grid = torch.zeros(n_rows, n_columns, dim)
    grid[..., 0] = torch.arange(n_rows)[:, None]
    grid[..., 1] = torch.arange(n_columns)[None]
    tokens = torch.stack([torch.full((dim,), 100.0), torch.full((dim,), 200.0)])
    return torch.cat([tokens, grid.reshape(-1, dim)])[None]


def expected(n_new, n_old):
    """Where the middle of each new patch lies among the old ones."""
    return (torch.arange(n_new) + 0.5) * n_old / n_new - 0.5


def check_ramp(positions, grid, old=(ROWS, COLUMNS)):
    torch.testing.assert_close(positions[0, 0], torch.full((192,), 100.0))
    torch.testing.assert_close(positions[0, 1], torch.full((192,), 200.0))
    found = positions[0, 2:].reshape(*grid, 192).detach()
    for axis in (0, 1):
        line = found[..., axis].movedim(axis, 0)
        assert float((line - line[:, :1]).abs().max()) < 1e-3, "the same along the other axis"
        inner = slice(3, -3) if grid[axis] > 8 else slice(2, -2)  # a bicubic bends at the edges
        torch.testing.assert_close(line[inner, 0], expected(grid[axis], old[axis])[inner], atol=0.06, rtol=0)
        assert (line[1:, 0] > line[:-1, 0]).all()


@pytest.fixture(scope="module")
def deit(tmp_path_factory):
    """A file as timm gives it for DeiT, with a ramp for its positions."""
    torch.manual_seed(1)
    state = timm.create_model("deit_tiny_distilled_patch16_224").state_dict()
    path = tmp_path_factory.mktemp("deit") / "deit.safetensors"
    save_file({**state, "pos_embed": ramp()}, path)
    return path, state


@pytest.mark.parametrize(("name", "height", "width", "rows", "columns"), GRIDS)
def test_positions_keep_their_place_from_a_file(deit, name, height, width, rows, columns):
    network = build_network(name, 3, TileSpec(height=height, width=width, n_bins=60), deit[0])
    assert network.backbone.patch_embed.grid_size == (rows, columns)
    check_ramp(network.backbone.pos_embed, (rows, columns))


@pytest.mark.parametrize(("name", "height", "width", "rows", "columns"), GRIDS)
def test_positions_keep_their_place_through_timm_alone(deit, name, height, width, rows, columns):
    """The way of weights="imagenet"; timm before 1.0.31 misplaced them where the grids have as many patches."""
    overlay = {"file": str(deit[0])}
    network = create(
        draw_blueprint(name, 3, (height, width)), "file", num_classes=3, pretrained=True, pretrained_cfg_overlay=overlay
    )
    check_ramp(network.pos_embed, (rows, columns))


@pytest.mark.parametrize("in_chans", [1, 3])
def test_everything_else_comes_from_imagenet(deit, in_chans):
    path, state = deit
    mine = build_network("ast_tiny_s10", 3, TileSpec.preset("fast"), path, in_chans).backbone.state_dict()
    changed = {"pos_embed", "patch_embed.proj.weight", "head.weight", "head.bias", "head_dist.weight", "head_dist.bias"}
    assert set(mine) == set(state)
    assert all(torch.equal(mine[key], state[key]) for key in set(state) - changed)
    kernel = state["patch_embed.proj.weight"]
    summed = kernel if in_chans == 3 else kernel.sum(dim=1, keepdim=True)
    torch.testing.assert_close(mine["patch_embed.proj.weight"], summed)
    assert float(mine["head.weight"].std()) == pytest.approx(0.01, abs=0.002)
    assert float(mine["head_dist.weight"].std()) == pytest.approx(0.01, abs=0.002)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("name", "stride"), [("ast", 16), ("ast_tiny_s10", 10), ("ast_small", 16)])
def test_whole_patches_cover_the_tiles_of_every_preset(preset, name, stride):
    spec = TileSpec.preset(preset)
    blueprint = draw_blueprint(name, 3, spec.size)
    network = create(blueprint, "random", num_classes=3, device="meta")
    for n_patches, side, seen in zip(network.patch_embed.grid_size, spec.size, blueprint.size, strict=True):
        assert side <= seen == 16 + stride * (n_patches - 1) < side + stride
    assert (
        network.patch_embed(torch.zeros(1, 3, *blueprint.size, device="meta")).shape[1]
        == network.pos_embed.shape[1] - 2
    )


def test_tiles_of_a_preset_as_they_are():
    assert draw_blueprint("ast", 3, (192, 256)).size == (192, 256)
    assert draw_blueprint("ast", 3, (96, 128)).size == (96, 128)


def test_patches_overlap(small):
    """A pixel that two patches share changes both tokens; without overlap, one."""
    for name, n_changed in (("ast_tiny_s10", 2), ("ast", 1)):
        embed = build_network(name, 3, replace(small, height=96, width=16, n_bins=60), in_chans=1).backbone.patch_embed
        dark = torch.zeros(1, 1, *embed.img_size)
        light = dark.clone()
        light[0, 0, 12, 3] = 1
        with torch.no_grad():
            changed = (embed(light) != embed(dark)).any(dim=2).sum()
        assert int(changed) == n_changed


def test_both_tokens_are_heard(small):
    network = build_network("ast", 3, small, in_chans=1).eval()
    tile = torch.zeros((1, *small.size), dtype=torch.uint8)
    with torch.no_grad():
        for head in network.backbone.get_classifier():
            before = network(tile)
            head.bias += 1
            torch.testing.assert_close(network(tile) - before, torch.full((1, 3), 0.5))


def test_ast_is_the_tiny_one():
    names = {
        name: make_transformer(name, num_classes=3, device="meta") for name in ("ast", "ast_tiny", "ast_base384_s10")
    }
    assert [n.embed_dim for n in names.values()] == [192, 192, 768]
    assert names["ast_base384_s10"].patch_embed.grid_size == (37, 37)
    assert all(n.num_prefix_tokens == 2 for n in names.values())


@pytest.mark.parametrize("name", ["ast_huge", "ast_s12", "ast_", "ast_tiny_s10_"])
def test_no_such_transformer(small, name):
    message = (
        "Classifier: backbone must be ast or ast_ with one of tiny, small, base, base384, and perhaps _s10, "
        f"got {name!r}. Choose one of these."
    )
    with refused(InputError, message):
        build_network(name, 3, small)


def test_classifier_learns_with_it():
    from cqt2img import Classifier

    rng = np.random.default_rng(0)
    low, high = np.zeros((2, 96, 1))
    low[20], high[70] = 1, 1
    X = [line + 0.1 * rng.random((96, 130)) for line in (low, high) * 3]
    y = ["left hand", "right hand"] * 3
    model = Classifier(
        "ast", weights=None, spec="fast", in_chans=1, epochs=6, augment="none", device="cpu", verbose=False
    )
    assert model.fit(X, y).predict(X).tolist() == y
