"""A network that reads notes from tiles, and a backbone that tells players apart by what they play."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from importlib.resources import as_file, files
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cqt2img.errors import InputError
from cqt2img.tiles.spec import TileSpec

NOTES = "notes"  # the name of the backbone
_SPEC = TileSpec.preset("notes")
_LOWEST = 21  # MIDI number of its lowest row, A0
_HARMONICS = (
    -12,
    0,
    12,
    19,
    24,
    28,
    31,
    34,
    36,
)  # semitones to the octave below and to partials 1 to 8
_ONSET, _HELD = (
    0.7,
    0.4,
)  # .6, .7 and .8 named .47, .50 and .44 right on the training and validation albums of jazz
_LONGEST = 220  # columns that a note is followed for, five seconds


def check_note_spec(spec: TileSpec) -> None:
    """Refuse tiles from which notes cannot be read.

    Parameters
    ----------
    spec : TileSpec
        Of the tiles.

    Raises
    ------
    InputError
        If anything but their length, their colours or `min_fill` departs from the preset "notes".
    """
    if not reads(spec):
        raise InputError(
            f"Classifier: spec must be like the preset 'notes' to read notes from, got spec {spec.key}. "
            "Leave spec out (or --preset), or choose a backbone that sees pictures, such as 'resnet18'."
        )


def reads(spec: TileSpec) -> bool:
    """Say whether notes can be read from tiles of a spec.

    Parameters
    ----------
    spec : TileSpec
        Of the tiles.

    Returns
    -------
    bool
        True for the presets "notes" and "piano", and for what departs from them in the length of a tile, its colours
        or `min_fill` alone.
    """
    return (
        replace(
            spec,
            width=_SPEC.width,
            min_fill=_SPEC.min_fill,
            colour_map=_SPEC.colour_map,
        )
        == _SPEC
    )


class NoteReader(nn.Module):
    """From levels to how likely a note begins, or sounds, in every semitone and column.

    A small network of convolutions, in which every semitone sees its neighbours, the octave below and its own partials.
    It was trained on invented piano music, through sampled pianos and invented rooms, equalisers and noise
    (`benchmarks/train_notes.py`), and never on anybody's playing.

    References
    ----------
    Rachel M. Bittner et al., "A Lightweight Instrument-Agnostic Model for Polyphonic Note Transcription and
    Multipitch Estimation", 2022.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 5, stride=(2, 1), padding=2, bias=False)
        self.stem_norm = nn.BatchNorm2d(8)
        self.mix = nn.Conv2d(8 * len(_HARMONICS), 16, 1, bias=False)
        self.mix_norm = nn.BatchNorm2d(16)
        self.blocks = nn.Sequential(*[_Block(16) for _ in range(3)])
        self.out = nn.Conv2d(16, 2, 1)
        nn.init.constant_(self.out.bias, -3.0)  # type: ignore[arg-type]

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """Give the logits of beginnings and of sounding.

        Parameters
        ----------
        tiles : Tensor of float32, shape (n, 1, 192, width)
            Levels from -1 to 1, two rows a semitone, the highest first.

        Returns
        -------
        Tensor of float32, shape (n, 2, 96, width)
            Logits; the highest semitone first.
        """
        x = torch.relu(self.stem_norm(self.stem(tiles)))
        n_rows, above, below = x.shape[2], max(_HARMONICS), -min(_HARMONICS)
        padded = nn.functional.pad(x, (0, 0, above, below))
        x = torch.cat(
            [padded[:, :, above - up : above - up + n_rows] for up in _HARMONICS], dim=1
        )
        return self.out(torch.relu(self.blocks(torch.relu(self.mix_norm(self.mix(x))))))


class _Block(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(n, n, (3, 7), padding=(1, 3), bias=False)
        self.look_norm = nn.BatchNorm2d(n)
        self.mix = nn.Conv2d(n, n, 1, bias=False)
        self.mix_norm = nn.BatchNorm2d(n)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.mix_norm(self.mix(torch.relu(self.look_norm(self.look(x)))))


class NoteClassifier(nn.Module):
    """A backbone that reads notes and tells players apart by their phrases; with the calls of timm's networks.

    Its body is `NoteReader`, which stays as it is, and `describe_phrases`; its head is linear.

    Parameters
    ----------
    num_classes : int
        Names to choose from, 1 or more.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.pretrained_cfg = {"mean": (0.5,), "std": (0.5,)}  # levels from -1 to 1
        self.reader = NoteReader().requires_grad_(False)
        self.head: nn.Module = nn.Linear(N_FEATURES, num_classes)

    def get_classifier(self) -> nn.Module:
        """Give the head.

        Returns
        -------
        Module
            A linear layer.
        """
        return self.head

    def forward_features(self, tiles: torch.Tensor) -> torch.Tensor:
        """Give what is played in every tile.

        Parameters
        ----------
        tiles : Tensor of float32, shape (n, 1, 192, width)
            Levels from -1 to 1.

        Returns
        -------
        Tensor of float32, shape (n, 4096)
            See `describe_phrases`.
        """
        with torch.no_grad():
            heard = [
                torch.sigmoid(self.reader.eval()(tile[None]))[0].float().cpu().numpy()
                for tile in tiles
            ]
        rows = describe_phrases([read_phrases(find_notes(*one)) for one in heard])
        return torch.from_numpy(rows).to(tiles.device)

    def forward_head(
        self, features: torch.Tensor, pre_logits: bool = False
    ) -> torch.Tensor:
        """Give the logits of features.

        Parameters
        ----------
        features : Tensor of float32, shape (n, 4096)
            What `forward_features` gives.
        pre_logits : bool
            Whether to give them back as they are.

        Returns
        -------
        Tensor of float32, shape (n, num_classes)
            Logits.
        """
        return features if pre_logits else self.head(features)

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """Give the logits of tiles.

        Parameters
        ----------
        tiles : Tensor of float32, shape (n, 1, 192, width)
            Levels from -1 to 1.

        Returns
        -------
        Tensor of float32, shape (n, num_classes)
            Logits.
        """
        return self.forward_head(self.forward_features(tiles))


def make_note_classifier(
    num_classes: int, in_chans: int = 1, device: Any = None
) -> NoteClassifier:
    """Build the backbone with the weights that come with this package.

    Parameters
    ----------
    num_classes : int
        Names to choose from.
    in_chans : {1}
        It takes levels.
    device : str or torch.device, optional
        Where; by default the CPU.

    Returns
    -------
    NoteClassifier
        On the device.
    """
    assert in_chans == 1
    network = NoteClassifier(num_classes)
    network.reader.load_state_dict(_weights())
    _fuse(network.reader.eval())
    return network.to(device)


def find_notes(
    begins: NDArray[np.float32], sounds: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Find the notes of a tile.

    Parameters
    ----------
    begins, sounds : ndarray of float32, shape (96, width)
        How likely a note begins, and sounds; the highest semitone first.

    Returns
    -------
    ndarray of float64, shape (n_notes, 3)
        Beginning in seconds from the first column, MIDI number, and end in seconds, in the order of the beginnings.

    Examples
    --------
    >>> begins, sounds = np.zeros((2, 96, 8), "float32")
    >>> begins[-1, 2], sounds[-1, 2:6] = 0.9, 0.9
    >>> find_notes(begins, sounds).round(3).tolist()
    [[0.046, 21.0, 0.139]]
    """
    before, after = (
        np.pad(begins, ((0, 0), (1, 0)))[:, :-1],
        np.pad(begins, ((0, 0), (0, 1)))[:, 1:],
    )
    peaks = (begins > _ONSET) & (begins >= before) & (begins > after)
    goes_on = (sounds > _HELD) & ~peaks
    notes = []
    for row, column in zip(*np.nonzero(peaks), strict=True):
        left, peak, right = before[row, column], begins[row, column], after[row, column]
        nudge = (
            0.5 * (left - right) / (left - 2 * peak + right)
        )  # the top of a parabola through the three
        silent = np.flatnonzero(~goes_on[row, column + 1 : column + _LONGEST])
        end = (
            column
            + 1
            + (
                silent[0]
                if len(silent)
                else min(_LONGEST - 1, begins.shape[1] - column - 1)
            )
        )
        pitch = _LOWEST + len(begins) - 1 - row
        notes.append(
            (float(column + np.clip(nudge, -0.5, 0.5)), float(pitch), float(end))
        )
    found = np.array(sorted(notes), dtype=np.float64).reshape(-1, 3)
    return found * [_SPEC.frame_seconds, 1, _SPEC.frame_seconds]


def _fuse(module: nn.Module) -> None:
    """Let every convolution do the work of the norm that follows it: a seventh of the time, and the same to 1e-5."""
    for name, norm in list(module.named_children()):
        _fuse(norm)
        if isinstance(norm, nn.BatchNorm2d):
            layer = name.removesuffix("_norm")
            setattr(
                module,
                layer,
                fuse_conv_bn_eval(getattr(module, layer), norm).requires_grad_(False),
            )
            setattr(module, name, nn.Identity())


def _weights() -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    with as_file(files("cqt2img.models") / "notes.safetensors") as file:
        return load_file(file)


N_FEATURES = (
    4096  # 2048 to 8192 were alike on the training and validation albums of jazz
)
_CHORD = 0.04  # seconds within which notes begin together
_MELODY, _BASS = (
    60,
    55,
)  # MIDI notes from which on, and below which, a voice is looked for
_WIDEST = 12  # semitones that a step of a phrase may have
_DENSITY = 50  # how often the number of notes a second is said: once would be lost among three hundred notes


def read_phrases(notes: NDArray[np.float64]) -> Counter[str]:
    """Count what is played: lengths, chords, steps and phrases, and when.

    Parameters
    ----------
    notes : ndarray of float64, shape (n_notes, 3)
        Beginning in seconds, MIDI number, and end in seconds, in the order of their beginnings.

    Returns
    -------
    Counter of str
        How often each of them was heard; empty for fewer than three notes.

    Notes
    -----
    It is much the same in every key, and nothing is told of level, colour or room. How often every pitch is played
    is left out on purpose: which of them are read depends on the record. Without it, .54 of the validation recordings
    of jazz were named right in place of .48, and .45 in place of .34 where training met each player through one sound.

    References
    ----------
    Huw Cheston, Reuben Bance and Peter M. C. Harrison, "Deconstructing Jazz Piano Style Using Machine Learning", 2025.

    Examples
    --------
    A broken triad rises by a major and a minor third:

    >>> triad = np.array([[0.0, 60, 0.5], [0.5, 64, 1.0], [1.0, 67, 1.5]])
    >>> read_phrases(triad)["phrase 4 3"]
    1
    """
    if len(notes) < 3:
        return Counter()
    start, pitch, end = notes[:, 0], notes[:, 1].astype(int), notes[:, 2]
    chords = _chords(start)
    beginnings = np.array([start[chord[0]] for chord in chords])
    density = int(len(notes) / (start[-1] - start[0] + 1) / 2)
    words = Counter(f"held {bin_}" for bin_ in _octaves(end - start, 2, 0, 15))
    words.update(_harmony(chords, start, pitch))
    words.update(_melody([int(pitch[chord].max()) for chord in chords]))
    words.update(_bass([int(pitch[chord].min()) for chord in chords]))
    words.update(_pace(beginnings))
    words.update(_touch(chords, start, pitch, end))
    words[f"density {density}"] += _DENSITY
    return words


def describe_phrases(phrases: Sequence[Counter[str]]) -> NDArray[np.float32]:
    """Turn counts into vectors of one length.

    Parameters
    ----------
    phrases : sequence of Counter
        What `read_phrases` gives, one for each tile.

    Returns
    -------
    ndarray of float32, shape (n_tiles, 4096)
        Logarithms of the counts, hashed; each row has the length 1, or 0 where nothing was counted.

    References
    ----------
    Kilian Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", 2009.

    Examples
    --------
    >>> describe_phrases([Counter(), Counter({"step 2": 5})]).sum(axis=1).round(3).tolist()
    [0.0, 1.0]
    """
    from sklearn.feature_extraction import FeatureHasher

    hasher = FeatureHasher(N_FEATURES, dtype=np.float32)
    logs = [
        {word: float(np.log1p(n)) for word, n in sorted(words.items())}
        for words in phrases
    ]
    rows = hasher.transform(logs).toarray()
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def _chords(start: NDArray[np.float64]) -> list[list[int]]:
    """Give the places of notes that begin together."""
    chords = [[0]]
    for n in range(1, len(start)):
        if start[n] - start[chords[-1][0]] < _CHORD:
            chords[-1].append(n)
        else:
            chords.append([n])
    return chords


def _octaves(
    values: NDArray[np.float64], n_each: int, low: int, high: int
) -> list[int]:
    """Sort seconds into steps of part of an octave above 30 ms."""
    return (
        np.clip(np.log2(np.maximum(values, 0.01) / 0.03) * n_each, low, high)
        .astype(int)
        .tolist()
    )


def _harmony(
    chords: list[list[int]], start: NDArray[np.float64], pitch: NDArray[np.int64]
) -> Iterator[str]:
    for chord in chords:
        yield f"voices {len(chord)}"
        if len(chord) == 1:
            continue
        tones = sorted(pitch[chord].tolist())
        yield from (f"interval {min(b - a, 24)}" for a, b in pairwise(tones))
        yield f"spread {int((start[chord].max() - start[chord].min()) * 200)}"  # in 5 ms
        if len(chord) > 2:
            yield "chord " + " ".join(str(tone - tones[0]) for tone in tones)


def _melody(top: list[int]) -> Iterator[str]:
    """Give the steps of the highest voice, and its phrases of two to four steps."""
    steps = np.diff([p for p in top if p >= _MELODY]).tolist()
    yield from (f"step {max(-15, min(15, step))}" for step in steps)
    for n in (2, 3, 4):
        for at in range(len(steps) - n + 1):
            phrase = steps[at : at + n]
            if max(map(abs, phrase)) <= _WIDEST:
                yield "phrase " + " ".join(map(str, phrase))


def _bass(bottom: list[int]) -> Iterable[str]:
    steps = np.diff([p for p in bottom if p < _BASS]).tolist()
    return (f"bass {max(-15, min(15, step))}" for step in steps)


def _pace(beginnings: NDArray[np.float64]) -> Iterator[str]:
    """Say how long it is until the next chord, and how much longer than from the one before."""
    gaps = np.maximum(np.diff(beginnings), 0.01)
    yield from (f"gap {bin_}" for bin_ in _octaves(gaps, 3, 0, 20))
    ratios = np.clip(np.log2(gaps[1:] / gaps[:-1]) * 3, -8, 8).astype(int)
    yield from (f"ratio {ratio}" for ratio in ratios.tolist())


def _touch(
    chords: list[list[int]],
    start: NDArray[np.float64],
    pitch: NDArray[np.int64],
    end: NDArray[np.float64],
) -> Iterator[str]:
    """Say how far the highest note of every chord reaches into the next, or ends before it, in 50 ms."""
    for chord, following in pairwise(chords):
        highest = max(chord, key=lambda n: pitch[n])
        yield f"touch {int(np.clip((end[highest] - start[following[0]]) / 0.05, -8, 8))}"
