"""Build the network for a backbone, a label set and a tile spec."""

import os
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cqt2img._utils.progress import import_tqdm
from cqt2img.errors import InputError
from cqt2img.models.architecture import (
    WEIGHT_SOURCES,
    Architecture,
    TimmInterface,
    create_backbone,
    find_input_statistics,
    resolve_architecture,
)
from cqt2img.models.custom import resolve_module
from cqt2img.models.notes import NOTES, check_note_spec
from cqt2img.models.weights import create_backbone_from_file
from cqt2img.tiles.png import palette
from cqt2img.tiles.spec import TileSpec

Weights: TypeAlias = str | os.PathLike[str] | None


class TileNet(nn.Module):
    """A network that takes the levels of tiles and returns logits.

    Its first step is a table of 256 rows that combines the colour map and the input
    normalisation of the backbone, so that tiles are coloured on the device of the
    network. If patches do not divide a tile, it is padded with the lowest level at the
    top and on the right. For networks pretrained with low pitch first, tiles are
    flipped, and transposed if needed.

    Parameters
    ----------
    backbone : Module
        A classification network that implements `TimmInterface`.
    spec : TileSpec
        Spec of the tiles; defines the colour map and the range in dB.
    architecture : Architecture
        Architecture of the backbone. With 3 channels tiles are coloured, with 1 the
        levels themselves are the input.
    is_pretrained : bool
        Whether the weights of the backbone are pretrained.
    """

    table: torch.Tensor

    def __init__(
        self,
        backbone: nn.Module,
        spec: TileSpec,
        architecture: Architecture,
        is_pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.is_pretrained = is_pretrained
        self.is_custom = architecture.is_custom
        self.audio = architecture.audio
        padded_height, padded_width = architecture.size
        self.n_rows_above = padded_height - spec.height
        self.n_columns_after = padded_width - spec.width
        table = _make_input_table(backbone, spec, architecture)
        values = torch.tensor(table, dtype=torch.float32)
        self.register_buffer("table", values, persistent=False)

    @property
    def heads(self) -> tuple[nn.Module, ...]:
        """The head, or the two heads of a distilled network."""
        head = cast(TimmInterface, self.backbone).get_classifier()
        return head if isinstance(head, tuple) else (head,)

    def forward(self, levels: torch.Tensor) -> torch.Tensor:
        """Compute the logits of tiles.

        Parameters
        ----------
        levels : Tensor of uint8, shape (n, height, width)
            Tiles.

        Returns
        -------
        Tensor of float32, shape (n, n_classes)
            Logits.
        """
        return self.backbone(self._make_input(levels)).float()

    def embed(self, levels: torch.Tensor) -> torch.Tensor:
        """Compute backbone embeddings of tiles.

        Parameters
        ----------
        levels : Tensor of uint8, shape (n, height, width)
            Tiles.

        Returns
        -------
        Tensor of float32, shape (n, n_features)
            Pooled features, which are the input of the head.
        """
        backbone = cast(TimmInterface, self.backbone)
        features = backbone.forward_features(self._make_input(levels))
        return backbone.forward_head(features, pre_logits=True).float()

    def _make_input(self, levels: torch.Tensor) -> torch.Tensor:
        if self.n_rows_above or self.n_columns_after:
            margins = (0, self.n_columns_after, self.n_rows_above, 0)
            levels = nn.functional.pad(levels, margins)
        if self.audio is not None:
            levels = levels.flip(1)
            if self.audio.time_first:
                levels = levels.transpose(1, 2)
        # coloured as (n, height, width, channels) and permuted without a copy
        values = nn.functional.embedding(levels.int(), self.table)
        return values.permute(0, 3, 1, 2)


def build_network(
    backbone: str | nn.Module,
    n_classes: int,
    spec: TileSpec,
    weights: Weights = None,
    in_chans: int = 3,
) -> TileNet:
    """Build the network for a label set.

    Parameters
    ----------
    backbone : str or Module
        The name of a classification network of timm such as "resnet18"; "hf_hub:..."
        loads it from the hub. "notes" transcribes notes, see `NoteClassifier`. "ast"
        and its sizes are the Audio Spectrogram Transformer, see
        `make_spectrogram_transformer`. "yamnet", "efficientat_mn04" and "audiomae" are
        pretrained on AudioSet, see `find_audio_net`.

        A module of your own maps float images `(n, in_chans, height, width)` to
        features `(n, n_features)`, to which a linear head is added. If it has timm's
        methods `forward_features`, `forward_head`, `get_classifier` and
        `reset_classifier` and the attribute `num_features`, its own head is replaced.
        It is copied with its weights, and not changed. Images are normalised with the
        mean and standard deviation in its `pretrained_cfg`, or with .5 and .5.
    n_classes : int
        Number of classes, 2 or more.
    spec : TileSpec
        Spec of the tiles.
    weights : {"imagenet", None} or str or Path
        "imagenet": timm's weights for the name, from the hub or its local cache. A
        path: a file of weights for the same backbone (its head may have another number
        of classes, or be missing), or the folder of a saved model to continue from.
        None or "none": a random start. "notes" and modules of your own have their
        weights already and accept no file; None then declares that a module is not
        pretrained.
    in_chans : {3, 1}
        3: coloured tiles. 1: levels; pretrained kernels are summed over the colours.

    Returns
    -------
    TileNet
        The network, on the CPU.

    Raises
    ------
    InputError
        If the name or the file is unknown, the weights cannot be loaded, or a module
        fails on tiles or returns a wrong shape. Weights that were asked for are never
        replaced by a random start: all but those of the head come from the file.

    Notes
    -----
    A saved model contains no code. To load one with a module of your own, build the
    network from the same module with `weights=None` and load the saved `state_dict`;
    `TileNet.is_custom` is True for such networks.
    """
    import_tqdm()  # before timm imports it
    source = _resolve_source(weights)
    if isinstance(backbone, nn.Module):
        architecture = resolve_module(backbone, in_chans, spec.size)
    else:
        architecture = resolve_architecture(str(backbone), in_chans, spec.size)
    if architecture.name == NOTES:
        check_note_spec(spec)
    classifier = _create_backbone(architecture, n_classes, source)
    network = TileNet(classifier, spec, architecture, is_pretrained=source is not None)
    for head in network.heads:
        _initialise_head(head)
    # the layout of coloured tiles; with one layout for training, saving and loading
    # the outputs are equal to the bit
    return network.to(memory_format=torch.channels_last)


def _resolve_source(weights: Weights) -> str | Path | None:
    """Return "imagenet", a path, or None for a random start."""
    if not isinstance(weights, (str, os.PathLike, type(None))):
        raise InputError(
            f"fit: weights={weights!r} is neither 'imagenet', None nor a path. "
            f"{WEIGHT_SOURCES}"
        )
    if weights is None or str(weights).lower() == "none":
        return None
    return "imagenet" if str(weights) == "imagenet" else Path(weights)


def _create_backbone(
    architecture: Architecture, n_classes: int, source: str | Path | None
) -> nn.Module:
    name = architecture.name
    has_own_weights = architecture.is_custom or name == NOTES
    if isinstance(source, Path):
        if has_own_weights:
            raise InputError(
                f"fit: weights={str(source)!r} cannot be used with backbone {name!r}, "
                "which has its own. Leave weights out, or choose the backbone that "
                "they belong to."
            )
        backbone = create_backbone_from_file(architecture, source)
        cast(TimmInterface, backbone).reset_classifier(n_classes)
        return backbone
    if source is None or has_own_weights:
        return create_backbone(architecture, "random", num_classes=n_classes)
    if architecture.audio is not None:
        raise InputError(
            f"fit: weights='imagenet' do not exist for backbone {name!r}. Pass the "
            "file of its AudioSet weights, or weights=None (--weights none) for a "
            "random start."
        )
    return create_backbone(
        architecture, "imagenet", num_classes=n_classes, pretrained=True
    )


def _initialise_head(head: nn.Module) -> None:
    """Initialise a head so that all classes have about the same probability.

    Some networks of timm begin with logits far from zero: a loss of 7 for ten classes.
    """
    if isinstance(head, nn.Linear):
        nn.init.normal_(head.weight, std=0.01)
        if head.bias is not None:
            nn.init.zeros_(head.bias)


def _make_input_table(
    backbone: nn.Module, spec: TileSpec, architecture: Architecture
) -> NDArray[np.floating]:
    """Return the input of the backbone for every level, one column per channel."""
    levels = np.arange(256)[:, None]
    if architecture.audio is not None:
        decibels = spec.min_db + levels * spec.step_db
        return decibels * architecture.audio.per_db + architecture.audio.at_zero
    statistics = find_input_statistics(backbone)
    mean = np.asarray(statistics["mean"])
    std = np.asarray(statistics["std"])
    if architecture.in_chans == 3:
        return (palette(spec.colour_map) / 255 - mean) / std
    return (levels / 255 - float(mean.mean())) / float(std.mean())
