import os
from dataclasses import replace
from math import log, log10
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from cqt2img import Classifier, TrainingConfig, load
from cqt2img.errors import InputError
from cqt2img.models.architecture import resolve_architecture
from cqt2img.models.audio_nets import audio_net_names, find_audio_net
from cqt2img.models.factory import build_network
from cqt2img.models.weights import create_backbone_from_file
from cqt2img.tiles.cqt import compute_cqt
from cqt2img.tiles.png import cut_tiles
from cqt2img.tiles.spec import TileSpec
from tests.conftest import raises_with

DEFAULT_SHARED = Path(__file__).parents[3] / "shared"
WEIGHTS = Path(os.environ.get("CQT2IMG_SHARED", DEFAULT_SHARED)) / "weights"
FILES = {
    "yamnet": WEIGHTS / "mobilenetv1_100.safetensors",
    "efficientat_mn04": WEIGHTS / "mobilenetv3_large_040_audioset.safetensors",
}
NAMES = ["audiomae", "efficientat_mn04", "yamnet"]
SLOW_NAMES = [pytest.param("audiomae", marks=pytest.mark.slow), *NAMES[1:]]
# classes of AudioSet
MUSIC, MUSICAL_INSTRUMENT, PIANO = 137, 138, 153

needs_files = [
    pytest.mark.shared,
    pytest.mark.skipif(
        not all(file.is_file() for file in FILES.values()),
        reason="the shared AudioSet weights are missing",
    ),
]
NAMES_WITH_FILES = [pytest.param(name, marks=needs_files) for name in FILES]


def input_of_backbone(network, tile):
    """The image that the backbone gets for a tile, (rows, columns)."""
    images = network._make_input(torch.from_numpy(tile)[None])
    return images[0, 0].numpy()


def test_names_are_sorted_and_other_networks_are_not_found():
    assert audio_net_names() == NAMES
    assert find_audio_net("resnet18") is None


@pytest.mark.parametrize("name", SLOW_NAMES)
def test_the_lowest_pitch_is_the_first_of_its_axis(small, name):
    tile = np.zeros(small.size, np.uint8)
    tile[-1, -1] = 255  # the lowest note in the last column
    network = build_network(name, 3, small, in_chans=1)
    image = input_of_backbone(network, tile)
    pitch, last = 0, small.width - 1
    is_time_first = name != "efficientat_mn04"
    expected = [last, pitch] if is_time_first else [pitch, last]
    assert np.argwhere(image > image.min()).tolist() == [expected]


@pytest.mark.parametrize("name", SLOW_NAMES)
def test_levels_are_mapped_to_the_scale_of_pretraining(small, name):
    """Doubling the amplitude adds ln 2 to a log magnitude and 2 ln 2 to a log power."""
    change = {
        "yamnet": log(2),
        "efficientat_mn04": 2 * log(2) / 5,
        "audiomae": 2 * log(2) / 9.14,
    }[name]
    network = build_network(name, 3, small, in_chans=1)
    decibels = small.min_db + np.arange(256) * small.step_db
    table = network.table[:, 0].numpy()
    loud, soft = np.interp([0, -20 * log10(2)], decibels, table)
    assert loud == pytest.approx(find_audio_net(name).at_zero, abs=1e-4)
    assert loud - soft == pytest.approx(change, rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_three_channels_are_an_input_error(small, name):
    with raises_with(InputError, "fit: in_chans=3", repr(name), "in_chans=1"):
        build_network(name, 3, small)


@pytest.mark.parametrize("name", NAMES)
def test_imagenet_weights_are_an_input_error(small, name):
    with raises_with(InputError, "fit: weights='imagenet'", repr(name)):
        build_network(name, 3, small, "imagenet", in_chans=1)


@pytest.fixture
def audiomae_file(tmp_path):
    """Weights with positions of 64 x 8 patches, time by pitch, and their state."""
    state = timm.create_model(
        "vit_base_patch16_224",
        img_size=(1024, 128),
        in_chans=1,
        num_classes=527,
        global_pool="avg",
    ).state_dict()
    grid = torch.zeros(64, 8, 768)
    grid[..., 0] = torch.arange(64)[:, None]
    grid[..., 1] = torch.arange(8)[None]
    state["pos_embed"][:, 1:] = grid.reshape(1, -1, 768)
    path = tmp_path / "audiomae.safetensors"
    save_file(state, path)
    return path, state


@pytest.mark.slow
def test_audiomae_positions_are_resampled_along_time_and_pitch(small, audiomae_file):
    """A tile of 64 x 32 pixels has 2 x 4 patches, time by pitch."""
    network = build_network("audiomae", 3, small, audiomae_file[0], in_chans=1)
    assert network.backbone.patch_embed.grid_size == (2, 4)
    grid = network.backbone.pos_embed[0, 1:].reshape(2, 4, 768).detach()
    time = torch.tensor([15.5, 47.5])
    torch.testing.assert_close(grid[:, 0, 0], time, atol=2.0, rtol=0)
    pitch = torch.tensor([0.5, 2.5, 4.5, 6.5])
    torch.testing.assert_close(grid[0, :, 1], pitch, atol=0.3, rtol=0)


@pytest.mark.slow
def test_audiomae_positions_of_another_grid_are_an_input_error(small, audiomae_file):
    path, state = audiomae_file
    state["pos_embed"] = state["pos_embed"][:, :-8]
    save_file(state, path)
    with raises_with(InputError, f"fit: weights={str(path)!r}", "64 x 8", "504"):
        build_network("audiomae", 3, small, path, in_chans=1)


@pytest.mark.parametrize("name", NAMES_WITH_FILES)
def test_pretrained_weights_are_those_of_the_file(name):
    stored = load_file(FILES[name])
    network = build_network(name, 10, TileSpec.preset("fast"), FILES[name], 1)
    loaded = network.backbone.state_dict()
    assert set(loaded) == set(stored)
    trunk = [key for key in stored if not key.startswith("classifier")]
    assert len(trunk) > 100
    for key in trunk:
        assert torch.equal(loaded[key], stored[key]), key
    assert len(loaded["classifier.weight"]) == 10
    assert len(stored["classifier.weight"]) == find_audio_net(name).n_classes


def make_piano(spec):
    """Notes of a synthetic piano.

    Partials fall by 9 dB per octave and decay; the higher a partial, the faster.
    """
    t = np.arange(12 * spec.sample_rate) / spec.sample_rate
    wave = 1e-4 * np.random.default_rng(0).standard_normal(len(t))
    for index, midi in enumerate([48, 60, 64, 67, 72, 55, 64, 71] * 3):
        start = index * spec.sample_rate // 2
        since = t[start:] - t[start]
        f0 = 440 * 2 ** ((midi - 69) / 12)
        for k in range(1, int(8000 / f0)):
            hz = f0 * k * np.sqrt(1 + 4e-4 * k * k)
            partial = np.sin(2 * np.pi * hz * since)
            decay = np.exp(-since * (1.5 + 0.4 * k))
            wave[start:] += 0.1 * k**-1.5 * partial * decay
    return wave.astype(np.float32)


@pytest.mark.parametrize("name", [NAMES_WITH_FILES[1]])
def test_a_piano_is_music_only_in_the_direction_of_pretraining(name):
    """With the head of the file and windows as short as those of pretraining."""
    spec = replace(TileSpec.preset("piano"), gamma=20.0)
    architecture = resolve_architecture(name, 1, spec.size)
    network = build_network(name, 3, spec, in_chans=1)
    network.backbone = create_backbone_from_file(architecture, FILES[name])
    network.eval()
    tiles = torch.from_numpy(cut_tiles(compute_cqt(make_piano(spec), spec), spec))
    with torch.no_grad():
        proba = network(tiles).sigmoid().mean(dim=0)
        flipped = network(tiles.flip(1)).sigmoid().mean(dim=0)
    assert int(proba.argmax()) in (MUSIC, MUSICAL_INSTRUMENT)
    assert proba[PIANO] > 3 * flipped[PIANO]


@pytest.mark.parametrize("name", NAMES_WITH_FILES)
def test_a_fine_tuned_classifier_can_be_saved(name, tmp_path):
    X = list(np.random.default_rng(0).random((4, 96, 130)))
    model = Classifier(
        name,
        weights=FILES[name],
        spec="fast",
        epochs=1,
        batch_size=2,
        augment="none",
        device="cpu",
        verbose=False,
        config=TrainingConfig(in_chans=1),
    )
    proba = model.fit(X, ["a", "b"] * 2).predict_proba(X)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)
    model.save(tmp_path / "model")
    assert np.array_equal(load(tmp_path / "model").predict_proba(X), proba)
