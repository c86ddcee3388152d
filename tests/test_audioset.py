"""Networks that know AudioSet: the direction and the level in which they hear a tile."""

import os
from dataclasses import replace
from math import log
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from conftest import refused
from safetensors.torch import load_file, save_file

from cqt2img import Classifier, TileSpec, load
from cqt2img.audioset import audio_net_names, find_audio_net
from cqt2img.backbone import build_network
from cqt2img.blueprint import create, draw_blueprint
from cqt2img.errors import InputError
from cqt2img.weights import read_weights

SHARED = Path(os.environ.get("CQT2IMG_SHARED", Path(__file__).parents[2] / "shared")) / "weights"
FILES = {"yamnet": "mobilenetv1_100", "efficientat_mn04": "mobilenetv3_large_040_audioset"}
N_CLASSES = {"yamnet": 521, "efficientat_mn04": 527}
NAMES = ["audiomae", "efficientat_mn04", "yamnet"]
MARKED = [pytest.param("audiomae", marks=pytest.mark.slow), *NAMES[1:]]


def file_of(name):
    return SHARED / f"{FILES[name]}.safetensors"


shared = [
    pytest.mark.shared,
    pytest.mark.skipif(not all(file_of(name).is_file() for name in FILES), reason="no shared weights of AudioSet here"),
]


def heard(network, tile):
    """What the backbone gets for a tile: (rows, columns)."""
    seen = []
    hook = network.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0][0, 0]))
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
    assert (rows.tolist(), columns.tolist()) == (([31], [0]) if time_first else ([0], [31]))


@pytest.mark.parametrize("name", MARKED)
def test_a_step_in_level_is_the_step_it_was_trained_with(small, name):
    """Twice the amplitude is ln 2 more in a logarithm of magnitudes, 2 ln 2 in one of powers."""
    nepers = {"yamnet": 1, "efficientat_mn04": 2 / 5, "audiomae": 2 / 9.14}[name]
    network = build_network(name, 3, small, in_chans=1)
    six_db = 20 * log(2) / log(10)
    table = network.table[:, 0].numpy()
    decibels = small.min_db + np.arange(256) * small.step_db
    assert np.interp(0, decibels, table) == pytest.approx(find_audio_net(name).at_zero, abs=1e-4)
    assert np.interp(0, decibels, table) - np.interp(-six_db, decibels, table) == pytest.approx(
        nepers * log(2), rel=1e-4
    )


@pytest.mark.parametrize("name", NAMES)
def test_colours_mean_nothing_to_them(small, name):
    message = (
        f"Classifier: in_chans must be 1 for {name!r}, which heard levels and saw no colours, got 3. "
        "Set in_chans=1 (--in-chans 1)."
    )
    with refused(InputError, message):
        build_network(name, 3, small)


@pytest.mark.parametrize("name", NAMES)
def test_imagenet_means_nothing_to_them(small, name):
    message = (
        f"Classifier: weights must be a file or None for {name!r}, got 'imagenet'. "
        "Give the file that knows AudioSet, or start at random with weights=None (--weights none)."
    )
    with refused(InputError, message):
        build_network(name, 3, small, "imagenet", in_chans=1)


@pytest.mark.slow
def test_audiomae_positions_keep_time_and_pitch(small, tmp_path):
    """A file as the hub has it: 64 x 8 patches, time by pitch; a tile of 64 x 32 pixels is 2 x 4 of them."""
    state = timm.create_model(
        "vit_base_patch16_224", img_size=(1024, 128), in_chans=1, num_classes=527, global_pool="avg"
    ).state_dict()
    grid = torch.zeros(64, 8, 768)
    grid[..., 0], grid[..., 1] = torch.arange(64)[:, None], torch.arange(8)[None]
    state["pos_embed"][:, 1:] = grid.reshape(1, -1, 768)
    save_file(state, tmp_path / "audiomae.safetensors")
    network = build_network("audiomae", 3, small, tmp_path / "audiomae.safetensors", in_chans=1)
    assert network.backbone.patch_embed.grid_size == (2, 4)
    found = network.backbone.pos_embed[0, 1:].reshape(2, 4, 768).detach()
    torch.testing.assert_close(found[:, 0, 0], torch.tensor([15.5, 47.5]), atol=2.0, rtol=0)
    torch.testing.assert_close(found[0, :, 1], torch.tensor([0.5, 2.5, 4.5, 6.5]), atol=0.3, rtol=0)
    state["pos_embed"] = state["pos_embed"][:, :-8]
    save_file(state, tmp_path / "short.safetensors")
    message = (
        f"Classifier: weights must have positions of a grid of 64 x 8, got 504 of them in "
        f"{str(tmp_path / 'short.safetensors')!r}. "
        "Give the folder of a saved model, which names its grid, or weights trained on squares."
    )
    with refused(InputError, message):
        build_network("audiomae", 3, small, tmp_path / "short.safetensors", in_chans=1)


def with_marks(values):
    return [pytest.param(value, marks=shared) for value in values]


@pytest.mark.parametrize("name", with_marks(FILES))
def test_real_weights_are_the_ones_in_the_file(name):
    stored = load_file(file_of(name))
    mine = build_network(name, 10, TileSpec.preset("fast"), file_of(name), 1).backbone.state_dict()
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
            wave += 0.1 * k**-1.5 * partial * np.exp(-since * (1.5 + 0.4 * k)) * (t >= 0.5 * i)
    return cut_tiles(compute_cqt(wave.astype(np.float32), spec), spec)


@pytest.mark.parametrize("name", with_marks(["efficientat_mn04"]))
def test_a_tile_of_piano_is_heard_as_music_before_any_training(name):
    """With the head of the file, and in no other direction: 137 is Music, 138 Musical instrument, 153 Piano."""
    # with windows as short as those of the sound it knows; the long ones of the presets are strange to it
    spec = replace(TileSpec.preset("piano"), gamma=20.0)
    blueprint = draw_blueprint(name, 1, spec.size)
    backbone = create(blueprint, "file", **read_weights(file_of(name), blueprint)).eval()
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
    assert np.array_equal(load(tmp_path / "model").predict_proba(X), model.predict_proba(X))
