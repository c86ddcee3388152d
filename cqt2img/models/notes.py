"""The backbone "notes": transcribes tiles and classifies the notes that are played."""

from dataclasses import replace
from importlib.resources import as_file, files
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cqt2img.errors import InputError
from cqt2img.models.note_features import N_FEATURES, count_phrases, hash_phrases
from cqt2img.tiles.spec import TileSpec

NOTES = "notes"  # name of the backbone, and of its preset
_SPEC = TileSpec.preset(NOTES)
_LOWEST_PITCH = 21  # MIDI number of the lowest row, A0
# semitones from a pitch to its lower octave and to its partials 1 to 8
_HARMONICS = (-12, 0, 12, 19, 24, 28, 31, 34, 36)
# .6, .7 and .8 gave accuracies of .47, .50 and .44 on training and validation albums
# of jazz
_ONSET_THRESHOLD = 0.7
_FRAME_THRESHOLD = 0.4
_MAX_NOTE_COLUMNS = 220  # five seconds


def can_read_notes(spec: TileSpec) -> bool:
    """Return whether notes can be transcribed from tiles of a spec.

    Parameters
    ----------
    spec : TileSpec
        Spec of the tiles.

    Returns
    -------
    bool
        True for the presets "notes" and "piano", and for specs that differ from them
        only in the width of a tile, the colour map or `min_fill`.
    """
    comparable = replace(
        spec, width=_SPEC.width, min_fill=_SPEC.min_fill, colour_map=_SPEC.colour_map
    )
    return comparable == _SPEC


def check_note_spec(spec: TileSpec) -> None:
    """Check that notes can be transcribed from tiles of a spec.

    Parameters
    ----------
    spec : TileSpec
        Spec of the tiles.

    Raises
    ------
    InputError
        If `can_read_notes` returns False.
    """
    if not can_read_notes(spec):
        raise InputError(
            f"fit: backbone 'notes' needs tiles of the preset 'notes', got spec "
            f"{spec.key}. Leave spec out (or --preset), or choose an image network "
            "such as 'resnet18'."
        )


class NoteTranscriber(nn.Module):
    """A convolutional network that estimates note onsets and sounding notes of tiles.

    Its input for a semitone consists of the neighbours, the octave below and the
    partials of that semitone. It was trained on generated piano music rendered with
    sampled pianos, simulated rooms, equalisers and noise (`benchmarks/train_notes.py`),
    without any performance of a pianist.

    References
    ----------
    Rachel M. Bittner et al., "A Lightweight Instrument-Agnostic Model for Polyphonic
    Note Transcription and Multipitch Estimation", 2022.
    """

    # saved models contain the names of the layers here and in _Block

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 5, stride=(2, 1), padding=2, bias=False)
        self.stem_norm = nn.BatchNorm2d(8)
        self.mix = nn.Conv2d(8 * len(_HARMONICS), 16, 1, bias=False)
        self.mix_norm = nn.BatchNorm2d(16)
        self.blocks = nn.Sequential(_Block(16), _Block(16), _Block(16))
        self.out = nn.Conv2d(16, 2, 1)
        assert self.out.bias is not None
        nn.init.constant_(self.out.bias, -3.0)

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """Compute logits of onsets and of sounding notes.

        Parameters
        ----------
        tiles : Tensor of float32, shape (n, 1, 192, width)
            Levels from -1 to 1, two rows per semitone, the highest pitch first.

        Returns
        -------
        Tensor of float32, shape (n, 2, 96, width)
            Logits of onsets and of sounding notes; the highest semitone first.
        """
        x = torch.relu(self.stem_norm(self.stem(tiles)))
        x = self._stack_harmonics(x)
        x = torch.relu(self.mix_norm(self.mix(x)))
        x = torch.relu(self.blocks(x))
        return self.out(x)

    def _stack_harmonics(self, x: torch.Tensor) -> torch.Tensor:
        """Stack copies of the rows, shifted by each harmonic, as channels."""
        n_rows = x.shape[2]
        n_above = max(_HARMONICS)
        n_below = -min(_HARMONICS)
        padded = nn.functional.pad(x, (0, 0, n_above, n_below))
        shifted = []
        for semitones in _HARMONICS:
            first = n_above - semitones
            shifted.append(padded[:, :, first : first + n_rows])
        return torch.cat(shifted, dim=1)


class _Block(nn.Module):
    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(
            n_channels, n_channels, (3, 7), padding=(1, 3), bias=False
        )
        self.look_norm = nn.BatchNorm2d(n_channels)
        self.mix = nn.Conv2d(n_channels, n_channels, 1, bias=False)
        self.mix_norm = nn.BatchNorm2d(n_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.look_norm(self.look(x)))
        return x + self.mix_norm(self.mix(y))


class NoteClassifier(nn.Module):
    """The backbone "notes", with the interface of timm's networks.

    A frozen `NoteTranscriber` and `count_phrases` compute features of the notes that
    are played; the head is linear.

    Parameters
    ----------
    num_classes : int
        Number of classes, 1 or more.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.pretrained_cfg = {"mean": (0.5,), "std": (0.5,)}  # levels from -1 to 1
        self.num_features = N_FEATURES
        self.reader = NoteTranscriber().requires_grad_(False)  # a name in saved models
        self.head = nn.Linear(N_FEATURES, num_classes)

    def get_classifier(self) -> nn.Linear:
        """Return the head.

        Returns
        -------
        Linear
            The head.
        """
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the head by a new one.

        Parameters
        ----------
        num_classes : int
            Number of classes, 1 or more.
        """
        device = self.head.weight.device
        self.head = nn.Linear(N_FEATURES, num_classes, device=device)

    def forward_features(self, tiles: torch.Tensor) -> torch.Tensor:
        """Compute features of the notes in every tile.

        Parameters
        ----------
        tiles : Tensor of float32, shape (n, 1, 192, width)
            Levels from -1 to 1.

        Returns
        -------
        Tensor of float32, shape (n, 4096)
            See `hash_phrases`.
        """
        self.reader.eval()
        counts = []
        for tile in tiles:  # one at a time: features do not depend on the batch
            with torch.no_grad():
                proba = torch.sigmoid(self.reader(tile[None]))
            onset_proba, frame_proba = proba[0].float().cpu().numpy()
            counts.append(count_phrases(decode_notes(onset_proba, frame_proba)))
        return torch.from_numpy(hash_phrases(counts)).to(tiles.device)

    def forward_head(
        self, features: torch.Tensor, pre_logits: bool = False
    ) -> torch.Tensor:
        """Compute logits from features.

        Parameters
        ----------
        features : Tensor of float32, shape (n, 4096)
            Result of `forward_features`.
        pre_logits : bool
            Whether to return the features unchanged.

        Returns
        -------
        Tensor of float32, shape (n, num_classes)
            Logits.
        """
        return features if pre_logits else self.head(features)

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """Compute logits of tiles.

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
    num_classes: int, in_chans: int = 1, device: str | torch.device | None = None
) -> NoteClassifier:
    """Build the backbone "notes" with the weights that are part of this package.

    Parameters
    ----------
    num_classes : int
        Number of classes.
    in_chans : {1}
        Number of input channels.
    device : str or torch.device, optional
        Device of the network; by default the CPU.

    Returns
    -------
    NoteClassifier
        The network.
    """
    assert in_chans == 1
    network = NoteClassifier(num_classes)
    network.reader.load_state_dict(_load_transcriber_weights())
    _fuse_norms(network.reader.eval())
    return network.to(device)


def decode_notes(
    onset_proba: NDArray[np.float32], frame_proba: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Decode probabilities of onsets and sounding notes to notes.

    Parameters
    ----------
    onset_proba, frame_proba : ndarray of float32, shape (96, width)
        Probabilities that a note begins, and that it sounds, in each semitone and
        column; the highest semitone first.

    Returns
    -------
    ndarray of float64, shape (n_notes, 3)
        Onset in seconds from the first column, MIDI number and end in seconds, in the
        order of the onsets.

    Examples
    --------
    >>> onset_proba, frame_proba = np.zeros((2, 96, 8), "float32")
    >>> onset_proba[-1, 2] = 0.9
    >>> frame_proba[-1, 2:6] = 0.9
    >>> decode_notes(onset_proba, frame_proba).round(3).tolist()
    [[0.046, 21.0, 0.139]]
    """
    previous = np.pad(onset_proba, ((0, 0), (1, 0)))[:, :-1]
    following = np.pad(onset_proba, ((0, 0), (0, 1)))[:, 1:]
    is_peak = onset_proba >= previous
    is_peak &= onset_proba > following
    is_peak &= onset_proba > _ONSET_THRESHOLD
    is_held = (frame_proba > _FRAME_THRESHOLD) & ~is_peak
    highest_pitch = _LOWEST_PITCH + len(onset_proba) - 1
    notes = []
    for row, column in np.argwhere(is_peak):
        shift = _peak_shift(
            previous[row, column], onset_proba[row, column], following[row, column]
        )
        held = is_held[row, column + 1 : column + _MAX_NOTE_COLUMNS]
        n_held = len(held) if held.all() else int(np.argmin(held))
        end = column + 1 + n_held
        notes.append((float(column + shift), float(highest_pitch - row), float(end)))
    decoded = np.array(sorted(notes), dtype=np.float64).reshape(-1, 3)
    return decoded * [_SPEC.frame_seconds, 1, _SPEC.frame_seconds]


def _peak_shift(left: np.float32, peak: np.float32, right: np.float32) -> np.float32:
    """Return the position of the maximum of a parabola through three columns."""
    shift = 0.5 * (left - right) / (left - 2 * peak + right)
    return np.clip(shift, -0.5, 0.5)


def _fuse_norms(module: nn.Module) -> None:
    """Fuse each batch norm with the convolution before it.

    This saves a seventh of the network's time and changes its logits by 1e-5.
    """
    for name, child in list(module.named_children()):
        _fuse_norms(child)
        if isinstance(child, nn.BatchNorm2d):
            layer_name = name.removesuffix("_norm")
            convolution = cast(nn.Conv2d, module.get_submodule(layer_name))
            fused = fuse_conv_bn_eval(convolution, child).requires_grad_(False)
            setattr(module, layer_name, fused)
            setattr(module, name, nn.Identity())


def _load_transcriber_weights() -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    with as_file(files("cqt2img.models") / "notes.safetensors") as file:
        return load_file(file)
