"""A network that reads notes from tiles, and a backbone that tells players apart by what they play."""

from dataclasses import replace
from importlib.resources import as_file, files
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cqt2img.errors import InputError
from cqt2img.phrases import N_FEATURES, describe_phrases, read_phrases
from cqt2img.spec import TileSpec

NOTES = "notes"  # the name of the backbone
_SPEC = TileSpec.preset("notes")
_LOWEST = 21  # MIDI number of its lowest row, A0
_HARMONICS = (-12, 0, 12, 19, 24, 28, 31, 34, 36)  # semitones to the octave below and to partials 1 to 8
_ONSET, _HELD = 0.7, 0.4  # .6, .7 and .8 named .47, .50 and .44 right on the training and validation albums of jazz
_LONGEST = 220  # columns that a note is followed for, five seconds


def refuse_coarse(spec: TileSpec) -> None:
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
    return replace(spec, width=_SPEC.width, min_fill=_SPEC.min_fill, colour_map=_SPEC.colour_map) == _SPEC


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
        x = torch.cat([padded[:, :, above - up : above - up + n_rows] for up in _HARMONICS], dim=1)
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


class NoteListener(nn.Module):
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
            heard = [torch.sigmoid(self.reader.eval()(tile[None]))[0].float().cpu().numpy() for tile in tiles]
        rows = describe_phrases([read_phrases(find_notes(*one)) for one in heard])
        return torch.from_numpy(rows).to(tiles.device)

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
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


def make_note_listener(num_classes: int, in_chans: int = 1, device: Any = None) -> NoteListener:
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
    NoteListener
        On the device.
    """
    assert in_chans == 1
    network = NoteListener(num_classes)
    network.reader.load_state_dict(_weights())
    _fuse(network.reader.eval())
    return network.to(device)


def find_notes(begins: NDArray[np.float32], sounds: NDArray[np.float32]) -> NDArray[np.float64]:
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
    before, after = np.pad(begins, ((0, 0), (1, 0)))[:, :-1], np.pad(begins, ((0, 0), (0, 1)))[:, 1:]
    peaks = (begins > _ONSET) & (begins >= before) & (begins > after)
    goes_on = (sounds > _HELD) & ~peaks
    notes = []
    for row, column in zip(*np.nonzero(peaks), strict=True):
        left, peak, right = before[row, column], begins[row, column], after[row, column]
        nudge = 0.5 * (left - right) / (left - 2 * peak + right)  # the top of a parabola through the three
        silent = np.flatnonzero(~goes_on[row, column + 1 : column + _LONGEST])
        end = column + 1 + (silent[0] if len(silent) else min(_LONGEST - 1, begins.shape[1] - column - 1))
        pitch = _LOWEST + len(begins) - 1 - row
        notes.append((float(column + np.clip(nudge, -0.5, 0.5)), float(pitch), float(end)))
    found = np.array(sorted(notes), dtype=np.float64).reshape(-1, 3)
    return found * [_SPEC.frame_seconds, 1, _SPEC.frame_seconds]


def _fuse(module: nn.Module) -> None:
    """Let every convolution do the work of the norm that follows it: a seventh of the time, and the same to 1e-5."""
    for name, norm in list(module.named_children()):
        _fuse(norm)
        if isinstance(norm, nn.BatchNorm2d):
            layer = name.removesuffix("_norm")
            setattr(module, layer, fuse_conv_bn_eval(getattr(module, layer), norm).requires_grad_(False))
            setattr(module, name, nn.Identity())


def _weights() -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    with as_file(files("cqt2img") / "notes.safetensors") as file:
        return load_file(file)
