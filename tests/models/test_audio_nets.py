"""Networks that know AudioSet: the direction and the level in which they hear a tile."""

import os
from dataclasses import replace
from math import log
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from cqt2img import Classifier, load
from cqt2img.errors import InputError
from cqt2img.models.architecture import create, resolve_architecture
from cqt2img.models.audio_nets import audio_net_names, find_audio_net, make_transformer
from cqt2img.models.factory import build_network
from cqt2img.models.weights import read_weights
from cqt2img.tiles.spec import PRESETS, TileSpec
from tests.conftest import raises_exactly

SHARED = (
    Path(os.environ.get("CQT2IMG_SHARED", Path(__file__).parents[3] / "shared"))
    / "weights"
)
FILES = {
    "yamnet": "mobilenetv1_100",
    "efficientat_mn04": "mobilenetv3_large_040_audioset",
}
N_CLASSES = {"yamnet": 521, "efficientat_mn04": 527}
NAMES = ["audiomae", "efficientat_mn04", "yamnet"]
MARKED = [pytest.param("audiomae", marks=pytest.mark.slow), *NAMES[1:]]


def file_of(name):
    return SHARED / f"{FILES[name]}.safetensors"


shared = [
    pytest.mark.shared,
    pytest.mark.skipif(
        not all(file_of(name).is_file() for name in FILES),
        reason="no shared weights of AudioSet here",
    ),
]


def heard(network, tile):
    """What the backbone gets for a tile: (rows, columns)."""
    seen = []
    hook = network.backbone.register_forward_pre_hook(
        lambda module, args: seen.append(args[0][0, 0])
    )
    with torch.no_grad():
        network(torch.from_numpy(tile)[None])
    hook.remove()
    return seen[0].numpy()


def test_names():
    assert audio_net_names() == NAMES
    assert find_audio_net("resnet18") is None


@pytest.mark.parametrize("name", MARKED)
def test_low_pitch_comes_first(small, name):
    """The lowest note, in the last column of a tile whose sides are whole patches."""
    tile = np.zeros(small.size, np.uint8)
    tile[-1, -1] = 255
    network = build_network(name, 3, small, in_chans=1).eval()
    rows, columns = np.nonzero(heard(network, tile) > network.table[254, 0].item())
    time_first = name != "efficientat_mn04"
    assert (rows.tolist(), columns.tolist()) == (
        ([31], [0]) if time_first else ([0], [31])
    )


@pytest.mark.parametrize("name", MARKED)
def test_a_step_in_level_is_the_step_it_was_trained_with(small, name):
    """Twice the amplitude is ln 2 more in a logarithm of magnitudes, 2 ln 2 in one of powers."""
    nepers = {"yamnet": 1, "efficientat_mn04": 2 / 5, "audiomae": 2 / 9.14}[name]
    network = build_network(name, 3, small, in_chans=1)
    six_db = 20 * log(2) / log(10)
    table = network.table[:, 0].numpy()
    decibels = small.min_db + np.arange(256) * small.step_db
    assert np.interp(0, decibels, table) == pytest.approx(
        find_audio_net(name).at_zero, abs=1e-4
    )
    assert np.interp(0, decibels, table) - np.interp(
        -six_db, decibels, table
    ) == pytest.approx(nepers * log(2), rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_colours_mean_nothing_to_them(small, name):
    message = (
        f"Classifier: in_chans must be 1 for {name!r}, which heard levels and saw no colours, got 3. "
        "Set in_chans=1 (--in-chans 1)."
    )
    with raises_exactly(InputError, message):
        build_network(name, 3, small)


@pytest.mark.parametrize("name", NAMES)
def test_imagenet_means_nothing_to_them(small, name):
    message = (
        f"Classifier: weights must be a file or None for {name!r}, got 'imagenet'. "
        "Give the file that knows AudioSet, or start at random with weights=None (--weights none)."
    )
    with raises_exactly(InputError, message):
        build_network(name, 3, small, "imagenet", in_chans=1)


@pytest.mark.slow
def test_audiomae_positions_keep_time_and_pitch(small, tmp_path):
    """A file as the hub has it: 64 x 8 patches, time by pitch; a tile of 64 x 32 pixels is 2 x 4 of them."""
    state = timm.create_model(
        "vit_base_patch16_224",
        img_size=(1024, 128),
        in_chans=1,
        num_classes=527,
        global_pool="avg",
    ).state_dict()
    grid = torch.zeros(64, 8, 768)
    grid[..., 0], grid[..., 1] = torch.arange(64)[:, None], torch.arange(8)[None]
    state["pos_embed"][:, 1:] = grid.reshape(1, -1, 768)
    save_file(state, tmp_path / "audiomae.safetensors")
    network = build_network(
        "audiomae", 3, small, tmp_path / "audiomae.safetensors", in_chans=1
    )
    assert network.backbone.patch_embed.grid_size == (2, 4)
    found = network.backbone.pos_embed[0, 1:].reshape(2, 4, 768).detach()
    torch.testing.assert_close(
        found[:, 0, 0], torch.tensor([15.5, 47.5]), atol=2.0, rtol=0
    )
    torch.testing.assert_close(
        found[0, :, 1], torch.tensor([0.5, 2.5, 4.5, 6.5]), atol=0.3, rtol=0
    )
    state["pos_embed"] = state["pos_embed"][:, :-8]
    save_file(state, tmp_path / "short.safetensors")
    message = (
        f"Classifier: weights must have positions of a grid of 64 x 8, got 504 of them in "
        f"{str(tmp_path / 'short.safetensors')!r}. "
        "Give the folder of a saved model, which names its grid, or weights trained on squares."
    )
    with raises_exactly(InputError, message):
        build_network("audiomae", 3, small, tmp_path / "short.safetensors", in_chans=1)


def with_marks(values):
    return [pytest.param(value, marks=shared) for value in values]


@pytest.mark.parametrize("name", with_marks(FILES))
def test_real_weights_are_the_ones_in_the_file(name):
    stored = load_file(file_of(name))
    mine = build_network(
        name, 10, TileSpec.preset("fast"), file_of(name), 1
    ).backbone.state_dict()
    trunk = [key for key in stored if not key.startswith("classifier")]
    assert len(trunk) > 100
    assert set(mine) == set(stored)
    assert all(torch.equal(mine[key], stored[key]) for key in trunk)
    assert mine["classifier.weight"].shape[0] == 10
    assert stored["classifier.weight"].shape[0] == N_CLASSES[name]


def piano_tiles(spec):
    """Five notes of a made piano: harmonics that fall by 9 dB an octave and die away, the higher the sooner."""
    from cqt2img import compute_cqt, cut_tiles

    t = np.arange(12 * spec.sample_rate) / spec.sample_rate
    wave = 1e-4 * np.random.default_rng(0).standard_normal(len(t))
    for i, midi in enumerate([48, 60, 64, 67, 72, 55, 64, 71] * 3):
        since = np.maximum(t - 0.5 * i, 0)
        f0 = 440 * 2 ** ((midi - 69) / 12)
        for k in range(1, int(8000 / f0)):
            partial = np.sin(2 * np.pi * f0 * k * np.sqrt(1 + 4e-4 * k * k) * since)
            wave += (
                0.1
                * k**-1.5
                * partial
                * np.exp(-since * (1.5 + 0.4 * k))
                * (t >= 0.5 * i)
            )
    return cut_tiles(compute_cqt(wave.astype(np.float32), spec), spec)


@pytest.mark.parametrize("name", with_marks(["efficientat_mn04"]))
def test_a_tile_of_piano_is_heard_as_music_before_any_training(name):
    """With the head of the file, and in no other direction: 137 is Music, 138 Musical instrument, 153 Piano."""
    # with windows as short as those of the sound it knows; the long ones of the presets are strange to it
    spec = replace(TileSpec.preset("piano"), gamma=20.0)
    blueprint = resolve_architecture(name, 1, spec.size)
    backbone = create(
        blueprint, "file", **read_weights(file_of(name), blueprint)
    ).eval()
    network = build_network(name, 3, spec, in_chans=1).eval()
    network.backbone = backbone
    tiles = torch.from_numpy(piano_tiles(spec))
    with torch.no_grad():
        right, wrong = (network(t).sigmoid().mean(0) for t in (tiles, tiles.flip(1)))
    assert int(right.argmax()) in (137, 138)
    assert right[153] > 3 * wrong[153]


@pytest.mark.parametrize("name", with_marks(FILES))
def test_real_weights_are_fine_tuned(name, tmp_path):
    rng = np.random.default_rng(0)
    low, high = np.zeros((2, 96, 1))
    low[20], high[70] = 1, 1
    X = [line + 0.1 * rng.random((96, 130)) for line in (low, high) * 4]
    y = ["left hand", "right hand"] * 4
    model = Classifier(
        name, weights=file_of(name), spec="fast", in_chans=1, epochs=12, batch_size=4, learning_rate=1e-3,
        augment="none", device="cpu", verbose=False,
    )  # fmt: skip
    assert model.fit(X, y, list("aabbccdd")).score(X, y) >= 0.85
    model.save(tmp_path / "model")
    assert np.array_equal(
        load(tmp_path / "model").predict_proba(X), model.predict_proba(X)
    )


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
        assert float((line - line[:, :1]).abs().max()) < 1e-3, (
            "the same along the other axis"
        )
        inner = (
            slice(3, -3) if grid[axis] > 8 else slice(2, -2)
        )  # a bicubic bends at the edges
        torch.testing.assert_close(
            line[inner, 0], expected(grid[axis], old[axis])[inner], atol=0.06, rtol=0
        )
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
def test_positions_keep_their_place_from_a_file(
    deit, name, height, width, rows, columns
):
    network = build_network(
        name, 3, TileSpec(height=height, width=width, n_bins=60), deit[0]
    )
    assert network.backbone.patch_embed.grid_size == (rows, columns)
    check_ramp(network.backbone.pos_embed, (rows, columns))


@pytest.mark.parametrize(("name", "height", "width", "rows", "columns"), GRIDS)
def test_positions_keep_their_place_through_timm_alone(
    deit, name, height, width, rows, columns
):
    """The way of weights="imagenet"; timm before 1.0.31 misplaced them where the grids have as many patches."""
    overlay = {"file": str(deit[0])}
    network = create(
        resolve_architecture(name, 3, (height, width)),
        "file",
        num_classes=3,
        pretrained=True,
        pretrained_cfg_overlay=overlay,
    )
    check_ramp(network.pos_embed, (rows, columns))


@pytest.mark.parametrize("in_chans", [1, 3])
def test_everything_else_comes_from_imagenet(deit, in_chans):
    path, state = deit
    mine = build_network(
        "ast_tiny_s10", 3, TileSpec.preset("fast"), path, in_chans
    ).backbone.state_dict()
    changed = {
        "pos_embed",
        "patch_embed.proj.weight",
        "head.weight",
        "head.bias",
        "head_dist.weight",
        "head_dist.bias",
    }
    assert set(mine) == set(state)
    assert all(torch.equal(mine[key], state[key]) for key in set(state) - changed)
    kernel = state["patch_embed.proj.weight"]
    summed = kernel if in_chans == 3 else kernel.sum(dim=1, keepdim=True)
    torch.testing.assert_close(mine["patch_embed.proj.weight"], summed)
    assert float(mine["head.weight"].std()) == pytest.approx(0.01, abs=0.002)
    assert float(mine["head_dist.weight"].std()) == pytest.approx(0.01, abs=0.002)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    ("name", "stride"), [("ast", 16), ("ast_tiny_s10", 10), ("ast_small", 16)]
)
def test_whole_patches_cover_the_tiles_of_every_preset(preset, name, stride):
    spec = TileSpec.preset(preset)
    blueprint = resolve_architecture(name, 3, spec.size)
    network = create(blueprint, "random", num_classes=3, device="meta")
    for n_patches, side, seen in zip(
        network.patch_embed.grid_size, spec.size, blueprint.size, strict=True
    ):
        assert side <= seen == 16 + stride * (n_patches - 1) < side + stride
    assert (
        network.patch_embed(torch.zeros(1, 3, *blueprint.size, device="meta")).shape[1]
        == network.pos_embed.shape[1] - 2
    )


def test_tiles_of_a_preset_as_they_are():
    assert resolve_architecture("ast", 3, (192, 256)).size == (192, 256)
    assert resolve_architecture("ast", 3, (96, 128)).size == (96, 128)


def test_patches_overlap(small):
    """A pixel that two patches share changes both tokens; without overlap, one."""
    for name, n_changed in (("ast_tiny_s10", 2), ("ast", 1)):
        embed = build_network(
            name, 3, replace(small, height=96, width=16, n_bins=60), in_chans=1
        ).backbone.patch_embed
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
        name: make_transformer(name, num_classes=3, device="meta")
        for name in ("ast", "ast_tiny", "ast_base384_s10")
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
    with raises_exactly(InputError, message):
        build_network(name, 3, small)


def test_classifier_learns_with_it():
    from cqt2img import Classifier

    rng = np.random.default_rng(0)
    low, high = np.zeros((2, 96, 1))
    low[20], high[70] = 1, 1
    X = [line + 0.1 * rng.random((96, 130)) for line in (low, high) * 3]
    y = ["left hand", "right hand"] * 3
    model = Classifier(
        "ast",
        weights=None,
        spec="fast",
        in_chans=1,
        epochs=6,
        augment="none",
        device="cpu",
        verbose=False,
    )
    assert model.fit(X, y).predict(X).tolist() == y
