"""Synthetic recordings, a fitted model and helpers that all tests share."""

import copy
from contextlib import contextmanager

import numpy as np
import pytest
import soundfile
import torch

from cqt2img.tiles.spec import TileSpec

collect_ignore = ["programs"]  # run by tests in processes of their own

RATE = 22_050  # samples per second
LINE_LABELS = ["low", "high"] * 6
LINE_ALBUMS = [n // 2 for n in range(12)]
NOTES = {"High": 76, "Low": 40, "Middle": 60}  # MIDI number of each player's notes


@contextmanager
def raises_with(kind, *parts):
    """Expect an error whose message contains the given parts.

    Parameters
    ----------
    kind : type
        Class of the error.
    *parts : object
        What the message must contain as text, such as the method, the argument and
        its value. The rest of the sentence may change.
    """
    with pytest.raises(kind) as caught:
        yield
    message = str(caught.value)
    missing = [part for part in map(str, parts) if part not in message]
    assert not missing, f"{missing} not in {message!r}"


def make_wave(midi, seconds=2.0, rate=3.0, seed=0):
    """Repeat one note `rate` times a second, with a little noise."""
    time = np.arange(int(seconds * RATE)) / RATE
    frequency = 440 * 2 ** ((midi - 69) / 12)
    partials = [np.sin(2 * np.pi * frequency * k * time) / k for k in (1, 2, 3)]
    decay = np.exp(-4 * (time * rate % 1) / rate)
    noise = np.random.default_rng(seed).standard_normal(len(time))
    wave = 0.3 * sum(partials) * decay + 0.002 * noise
    return wave.astype(np.float32)


def make_cqt(row, n_frames=40, n_bins=60, seed=0):
    """Make magnitudes with one bright row; row 0 has the lowest frequency."""
    rng = np.random.default_rng(seed)
    cqt = 0.01 * rng.random((n_bins, n_frames)) + 1e-4
    cqt[row] += 1
    return cqt


def make_lines(n=12):
    """Make CQTs with a low and a high bright row in turn; labels are `LINE_LABELS`."""
    rows = [(10, 45)[k % 2] + k % 3 for k in range(n)]
    return [make_cqt(row, 40 + k, seed=k) for k, row in enumerate(rows)]


class RowLevels(torch.nn.Module):
    """Backbone without weights: the mean level of every row of a tile.

    Recordings with one bright row each have embeddings that any linear head
    separates by a wide margin, whatever the seed and the processor.
    """

    def forward(self, images):
        return images.mean(dim=(1, 3))


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Use one thread: faster for tiny networks, and sums have one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small():
    """Tiles of 1.5 s and five octaves from C2: 64 rows and 32 columns."""
    return TileSpec(
        hop_length=1024,
        f_min=65.40639132514966,
        n_bins=60,
        bins_per_octave=12,
        gamma=4.0,
        height=64,
        width=32,
    )


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Recordings `player/album 1/take 1.wav`: three players, albums of two takes."""
    root = tmp_path_factory.mktemp("recordings")
    for player, lowest in NOTES.items():
        for album in range(3):
            album_folder = root / player / f"album {album}"
            album_folder.mkdir(parents=True)
            for take in range(2):
                midi = lowest + (album, 2)[take]
                seconds = 1.6 + 0.7 * take
                wave = make_wave(midi, seconds, 2 + album, seed=album)
                soundfile.write(album_folder / f"take {take}.wav", wave, RATE)
    return root


@pytest.fixture(scope="session")
def tile_folder(folder, small, tmp_path_factory):
    """The same recordings as rendered tiles."""
    from cqt2img.data.render import render

    out = tmp_path_factory.mktemp("rendered") / "tiles"
    return render(folder, out, small).path


@pytest.fixture(scope="session")
def bad_folder(tmp_path_factory):
    """One file for each reason why a recording cannot be read, named by it."""
    root = tmp_path_factory.mktemp("bad")
    wave = make_wave(60)
    with_nan = wave.copy()
    with_nan[9] = np.nan
    soundfile.write(root / "silent.wav", np.zeros(RATE, np.float32), RATE)
    soundfile.write(root / "too_short.wav", wave[:1], RATE)
    soundfile.write(root / "non_finite.wav", with_nan, RATE, subtype="FLOAT")
    soundfile.write(root / "truncated.wav", wave, RATE)
    data = (root / "truncated.wav").read_bytes()
    (root / "truncated.wav").write_bytes(data[: len(data) // 2])
    (root / "empty_file.wav").write_bytes(b"")
    (root / "unsupported_or_corrupt.wav").write_text("no sound at all")
    return root


@pytest.fixture(scope="session")
def options(small):
    """Arguments of a `Classifier` that trains all layers in less than a second."""
    return {
        "backbone": "test_resnet",
        "weights": None,
        "spec": small,
        "epochs": 2,
        "learning_rate": 1e-2,
        "batch_size": 4,
        "augment": "none",
        "device": "cpu",
        "verbose": False,
    }


@pytest.fixture(scope="session")
def probe_options(small):
    """Arguments of a `Classifier` that fits a linear head to `RowLevels`."""
    return {
        "backbone": RowLevels(),
        "weights": None,
        "spec": small,
        "finetune": "head",
        "device": "cpu",
        "verbose": False,
    }


@pytest.fixture(scope="session")
def _fitted(tile_folder, probe_options):
    """A linear probe of a network of timm, which can be saved and loaded."""
    from cqt2img.classifier import Classifier

    arguments = {**probe_options, "backbone": "test_resnet"}
    return Classifier(**arguments).fit(tile_folder)


@pytest.fixture
def model(_fitted):
    """A model of the three players of `folder`; every test has its own copy."""
    return copy.deepcopy(_fitted)


@pytest.fixture(scope="session")
def saved(_fitted, tmp_path_factory):
    """The same model as a folder. Copy it before changing it."""
    path = tmp_path_factory.mktemp("saved") / "model"
    _fitted.save(path)
    return path
