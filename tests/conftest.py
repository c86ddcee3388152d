"""Small recordings, a fitted model and the words to make more, shared by the tests of the learning half."""

from contextlib import contextmanager

import numpy as np
import pytest
import soundfile
import torch

from cqt2img.tiles.spec import TileSpec

RATE = 22_050
NOTES = {"High": 76, "Low": 40, "Middle": 60}  # who plays where


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Tiny networks are faster without threads, and give the same numbers on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small():
    """A tile is 1.5 s of five octaves from C2: 60 rows and 32 columns."""
    return TileSpec(
        hop_length=1024,
        f_min=65.40639132514966,
        n_bins=60,
        bins_per_octave=12,
        gamma=4.0,
        height=64,
        width=32,
    )


@contextmanager
def raises_exactly(kind, message):
    """Expect an error with exactly this message."""
    with pytest.raises(kind) as caught:
        yield
    assert str(caught.value) == message


@contextmanager
def raises_with(kind, *parts):
    """Expect an error of one class whose message names all parts, such as an argument and its value."""
    with pytest.raises(kind) as caught:
        yield
    message = str(caught.value)
    missing = [part for part in map(str, parts) if part not in message]
    assert not missing, f"{missing} not in {message!r}"


def make_wave(midi, seconds=2.0, rate=3.0, seed=0):
    """Notes of one pitch, struck `rate` times a second, with a little noise."""
    t = np.arange(int(seconds * RATE)) / RATE
    tone = sum(
        np.sin(2 * np.pi * 440 * 2 ** ((midi - 69) / 12) * k * t) / k for k in (1, 2, 3)
    )
    noise = np.random.default_rng(seed).standard_normal(len(t))
    return (0.3 * tone * np.exp(-4 * (t * rate % 1) / rate) + 0.002 * noise).astype(
        np.float32
    )


def make_cqt(row, n_frames=40, n_bins=60, seed=0):
    """Magnitudes with one bright row."""
    cqt = 0.01 * np.random.default_rng(seed).random((n_bins, n_frames)) + 1e-4
    cqt[row] += 1
    return cqt


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Three players, three albums of each, two takes of each: `player/album 1/take 1.wav`."""
    root = tmp_path_factory.mktemp("recordings")
    for player, midi in NOTES.items():
        for album in range(3):
            for take in range(2):
                path = root / player / f"album {album}" / f"take {take}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                wave = make_wave(
                    midi + (album, 2, 4)[take], 1.6 + 0.7 * take, 2 + album, seed=album
                )
                soundfile.write(path, wave, RATE)
    return root


@pytest.fixture(scope="session")
def bad_folder(tmp_path_factory):
    """One recording of each kind that cannot be read, by its reason."""
    root = tmp_path_factory.mktemp("bad")
    wave = make_wave(60)
    soundfile.write(root / "silent.wav", np.zeros(RATE, np.float32), RATE)
    soundfile.write(root / "too_short.wav", wave[:1], RATE)
    soundfile.write(
        root / "non_finite.wav",
        np.where(np.arange(len(wave)) == 9, np.nan, wave),
        RATE,
        subtype="FLOAT",
    )
    soundfile.write(root / "whole.wav", wave, RATE)
    data = (root / "whole.wav").read_bytes()
    (root / "truncated.wav").write_bytes(data[: len(data) // 2])
    (root / "whole.wav").unlink()
    (root / "empty_file.wav").write_bytes(b"")
    (root / "unsupported_or_corrupt.wav").write_text("no sound at all")
    return root


@pytest.fixture(scope="session")
def options(small):
    """Arguments of a Classifier that learns in a second."""
    return {
        "backbone": "test_resnet",
        "weights": None,
        "spec": small,
        "epochs": 3,
        "learning_rate": 1e-2,
        "batch_size": 4,
        "augment": "none",
        "device": "cpu",
        "verbose": False,
    }


@pytest.fixture(scope="session")
def _fitted(tile_folder, options):
    from cqt2img.classifier import Classifier

    return Classifier(**{**options, "epochs": 8}).fit(tile_folder)


@pytest.fixture
def model(_fitted):
    """A model that knows the three players; every test gets a copy of its own."""
    import copy

    return copy.deepcopy(_fitted)


@pytest.fixture(scope="session")
def saved(_fitted, tmp_path_factory):
    """The same model as a folder. Copy it before changing it."""
    path = tmp_path_factory.mktemp("saved") / "model"
    _fitted.save(path)
    return path


@pytest.fixture(scope="session")
def tile_folder(folder, small, tmp_path_factory):
    from cqt2img.data.render import render

    return render(folder, tmp_path_factory.mktemp("rendered") / "tiles", small).path
