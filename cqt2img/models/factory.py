"""The name of a backbone becomes a network that takes tiles."""

import os
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cqt2img._utils.progress import import_tqdm
from cqt2img.errors import InputError
from cqt2img.models.architecture import WAYS, Architecture, create, resolve_architecture
from cqt2img.models.notes import NOTES, check_note_spec
from cqt2img.models.weights import read_weights
from cqt2img.tiles.png import palette
from cqt2img.tiles.spec import TileSpec


class TileNet(nn.Module):
    """A backbone that takes levels and gives logits.

    The colour map and the input statistics of the backbone are one table of 256 rows, so that a
    tile is painted where the network runs. What patches need beyond the tile is the floor, above it
    and after it; networks that heard low pitch first get the tile in their direction.

    Parameters
    ----------
    backbone : Module
        A classification network.
    spec : TileSpec
        Says the colour map and the range in dB.
    blueprint : Architecture
        Of the backbone: 3 channels paint the tile, 1 gives the level itself.
    is_pretrained : bool
        Whether its weights know something already.
    """

    table: torch.Tensor

    def __init__(
        self,
        backbone: nn.Module,
        spec: TileSpec,
        blueprint: Architecture,
        is_pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.is_pretrained = is_pretrained
        self.backbone = backbone
        self.audio = blueprint.audio
        self.margin = blueprint.size[1] - spec.width, blueprint.size[0] - spec.height
        table = _table(backbone, spec, blueprint)
        self.register_buffer(
            "table", torch.tensor(table, dtype=torch.float32), persistent=False
        )

    def forward(self, levels: torch.Tensor) -> torch.Tensor:
        """Give the logits of tiles.

        Parameters
        ----------
        levels : Tensor of uint8, shape (n, height, width)
            Tiles.

        Returns
        -------
        Tensor of float32, shape (n, n_classes)
            Logits.
        """
        return self.backbone(self._paint(levels)).float()

    def embed(self, levels: torch.Tensor) -> torch.Tensor:
        """Give what the body has to say of tiles, before the head turns it into names.

        Parameters
        ----------
        levels : Tensor of uint8, shape (n, height, width)
            Tiles.

        Returns
        -------
        Tensor of float32, shape (n, n_features)
            Features.
        """
        body = cast(Any, self.backbone)
        return body.forward_head(
            body.forward_features(self._paint(levels)), pre_logits=True
        ).float()

    def _paint(self, levels: torch.Tensor) -> torch.Tensor:
        if any(self.margin):
            levels = nn.functional.pad(levels, (0, self.margin[0], self.margin[1], 0))
        if self.audio is not None:
            levels = (
                levels.flip(1).transpose(1, 2)
                if self.audio.time_first
                else levels.flip(1)
            )
        # painted channels-last, permuted to (n, channels, height, width) without a copy
        return nn.functional.embedding(levels.int(), self.table).permute(0, 3, 1, 2)


def build_network(
    name: str, n_classes: int, spec: TileSpec, weights: Any = None, in_chans: int = 3
) -> TileNet:
    """Make the network for a label set.

    Parameters
    ----------
    name : str
        A classification backbone of timm, such as "resnet18"; "hf_hub:..." asks the hub. "notes" reads
        notes, see `NoteClassifier`. "ast" and its sizes are the Audio Spectrogram Transformer, see
        `make_transformer`; "yamnet", "efficientat_mn04" and "audiomae" know sound, see `find_audio_net`.
    n_classes : int
        Names to choose from, 2 or more.
    spec : TileSpec
        What its tiles look like.
    weights : {"imagenet", None} or str or Path
        "imagenet": what timm has for the name, from the hub or its local cache. A path: a file
        of weights for the same backbone (its head may have another number of classes, or be
        missing), or the folder of a saved model, to go on from it. None, or the word "none":
        random start. "notes" brings its own, and takes none of a file.
    in_chans : {3, 1}
        3: painted tiles. 1: levels; pretrained kernels are summed over the colours.

    Returns
    -------
    TileNet
        On the CPU.

    Raises
    ------
    InputError
        If the name or the file is unknown, or the weights cannot be had. A random start never
        takes the place of weights that were asked for: every weight but the head's comes from the
        file.
    """
    import_tqdm()  # before timm does
    if not isinstance(weights, (str, os.PathLike, type(None))):
        raise InputError(
            f"Classifier: weights must be 'imagenet', None or a file, got {weights!r}. {WAYS}"
        )
    blueprint = resolve_architecture(str(name), in_chans, spec.size)
    network: Any
    at_random = weights is None or str(weights).lower() == "none"
    if name == NOTES:
        check_note_spec(spec)
        if not at_random and str(weights) != "imagenet":
            raise InputError(
                f"Classifier: weights must be left out for 'notes', which brings its own, got {str(weights)!r}. "
                "Leave it out, or name the backbone that they are of."
            )
    if at_random or name == NOTES:
        network = create(blueprint, "random", num_classes=n_classes)
    elif str(weights) == "imagenet":
        if blueprint.audio is not None:
            raise InputError(
                f"Classifier: weights must be a file or None for {str(name)!r}, got 'imagenet'. "
                "Give the file that knows AudioSet, or start at random with weights=None (--weights none)."
            )
        network = create(blueprint, "imagenet", num_classes=n_classes, pretrained=True)
    else:
        network = create(
            blueprint, str(weights), **read_weights(Path(str(weights)), blueprint)
        )
        network.pretrained_cfg["state_dict"] = (
            None  # else it is carried along wherever the network goes
        )
        network.reset_classifier(n_classes)
    heads = network.get_classifier()
    for head in heads if isinstance(heads, tuple) else (heads,):
        if isinstance(
            head, nn.Linear
        ):  # some of timm start with logits far from zero: a first loss of 7 for ten names
            nn.init.normal_(head.weight, std=0.01)
            if head.bias is not None:
                nn.init.zeros_(head.bias)
    # as tiles are painted; one layout for training, saving and opening gives the same numbers to the bit
    return TileNet(network, spec, blueprint, not at_random).to(
        memory_format=torch.channels_last
    )


def _table(backbone: nn.Module, spec: TileSpec, blueprint: Architecture) -> NDArray:
    """Give what the backbone gets for every level, one column per channel."""
    if blueprint.audio is not None:
        decibels = spec.min_db + np.arange(256)[:, None] * spec.step_db
        return decibels * blueprint.audio.per_db + blueprint.audio.at_zero
    config = cast(dict[str, Any], backbone.pretrained_cfg)
    mean, std = (
        np.asarray(config.get(k) or v) for k, v in (("mean", [0.5]), ("std", [0.5]))
    )
    if blueprint.options["in_chans"] == 3:
        return (palette(spec.colour_map) / 255 - mean) / std
    return (np.arange(256)[:, None] / 255 - mean.mean()) / std.mean()
