"""Resolve the name of a backbone and the size of a tile to an architecture."""

import difflib
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Protocol, runtime_checkable
from urllib.parse import urlsplit

import torch
from torch import nn

from cqt2img.errors import InputError
from cqt2img.models.audio_nets import AudioNet, audio_net_names, find_audio_net
from cqt2img.models.notes import NOTES, make_note_classifier
from cqt2img.models.spectrogram_transformer import (
    is_spectrogram_transformer,
    make_spectrogram_transformer,
)

if TYPE_CHECKING:
    from timm.layers import PatchEmbed

WEIGHT_SOURCES = (
    "Connect to the internet once so that timm can download weights, pass a local "
    "file of weights, or use weights=None (--weights none) for a random start."
)
_HUBS = ("hf_hub:", "hf-hub:")
_LOCAL_FOLDER = "local-dir:"


@runtime_checkable
class TimmInterface(Protocol):
    """The part of timm's interface for classification networks that is used here."""

    num_features: int

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Compute feature maps or tokens of images.

        Parameters
        ----------
        x : Tensor of float32, shape (n, in_chans, height, width)
            Images.

        Returns
        -------
        Tensor of float32, first dimension n
            Features before pooling.
        """

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Compute logits from features.

        Parameters
        ----------
        x : Tensor of float32
            Result of `forward_features`.
        pre_logits : bool
            Whether to return the pooled features, which are the input of the head.

        Returns
        -------
        Tensor of float32, shape (n, n_classes) or (n, n_features)
            Logits, or pooled features.
        """

    def get_classifier(self) -> nn.Module | tuple[nn.Module, ...]:
        """Return the head, or the two heads of a distilled network.

        Returns
        -------
        Module or tuple of Module
            The head or heads.
        """

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the head by a new one.

        Parameters
        ----------
        num_classes : int
            Number of classes.
        """


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Description of how a backbone is built for tiles of one size.

    Parameters
    ----------
    name : str
        Name of the backbone; for a module of the user's, the name of its class.
    make : callable
        Builds the backbone from options of `timm.create_model`.
    in_chans : {3, 1}
        Number of input channels.
    size : tuple of int
        Height and width in pixels of the tile that the backbone processes: those of
        the tile or, where patches do not divide it, a little more.
    img_size : tuple of int or None
        Rows and columns of the input, for architectures that depend on them.
    audio : AudioNet or None
        Mapping of levels to the input of a network pretrained on AudioSet.
    is_custom : bool
        Whether the backbone is a module of the user's, which cannot be rebuilt from
        its name.
    """

    name: str
    make: Callable[..., nn.Module]
    in_chans: int
    size: tuple[int, int]
    img_size: tuple[int, int] | None = None
    audio: AudioNet | None = None
    is_custom: bool = False


def resolve_architecture(
    name: str, in_chans: int, size: tuple[int, int]
) -> Architecture:
    """Find out how a backbone is built for tiles of one size.

    Parameters
    ----------
    name : str
        "notes", "ast", "yamnet" and others, or a classification network of timm; see
        `build_network`.
    in_chans : {3, 1}
        Number of input channels; "notes" always has 1.
    size : tuple of int
        Height and width of a tile in pixels.

    Returns
    -------
    Architecture
        Input of `create_backbone`.

    Raises
    ------
    InputError
        If there is no such backbone, or it does not support `in_chans`.

    Examples
    --------
    A tile of 96 x 128 pixels is padded to 96 x 136, which whole patches cover:

    >>> resolve_architecture("ast_tiny_s10", 3, (96, 128)).size
    (96, 136)
    """
    if name == NOTES:
        return Architecture(name=name, make=make_note_classifier, in_chans=1, size=size)
    audio = find_audio_net(name)
    check_in_chans(in_chans)
    if audio is not None and in_chans != 1:
        raise InputError(
            f"fit: in_chans={in_chans!r} does not fit backbone {name!r}, which was "
            "trained on one channel. Set in_chans=1."
        )
    plain = Architecture(
        name=name,
        make=_find_constructor(name, audio),
        in_chans=in_chans,
        size=size,
        audio=audio,
    )
    if _takes_any_size(name):
        return plain
    # on the meta device: no memory, a tenth of a second
    probe = create_backbone(plain, "random", num_classes=2, device="meta")
    patches = _find_patch_embedding(probe)
    if patches is None and not _has_fixed_size(probe):
        return plain
    is_transposed = audio is not None and audio.time_first
    img_size = size[::-1] if is_transposed else size
    if patches is not None:
        img_size = _covered_size(img_size, patches)
    padded = img_size[::-1] if is_transposed else img_size
    return replace(plain, size=padded, img_size=img_size)


def check_in_chans(in_chans: int) -> None:
    """Check the number of input channels.

    Parameters
    ----------
    in_chans : int
        Number of input channels.

    Raises
    ------
    InputError
        If it is neither 1 nor 3.
    """
    if in_chans not in (1, 3):
        raise InputError(
            f"fit: in_chans must be 1 or 3, got {in_chans!r}. "
            "Use 3 for coloured tiles, 1 for levels."
        )


def create_backbone(
    architecture: Architecture, source: str, **options: object
) -> nn.Module:
    """Build a backbone.

    Parameters
    ----------
    architecture : Architecture
        Result of `resolve_architecture`.
    source : str
        Source of its weights, "random", "imagenet" or a file; for error messages.
    **options
        Further options of `timm.create_model`.

    Returns
    -------
    Module
        The backbone; it implements `TimmInterface`.

    Raises
    ------
    InputError
        If the backbone cannot be built, or its weights cannot be loaded.
    """
    name = architecture.name
    options["in_chans"] = architecture.in_chans
    if architecture.img_size is not None:
        options["img_size"] = architecture.img_size
    needs_hub = source == "imagenet" or name.startswith(_HUBS)
    try:
        with _offline_if_unreachable(needs_hub):
            return architecture.make(**options)
    except InputError:
        raise
    # the hub, files and architectures raise errors without a common base class
    except Exception as err:
        cause = describe_cause(err)
        if source == "random":
            height, width = architecture.size
            message = (
                f"fit: backbone {name!r} cannot be built for tiles of "
                f"{height} x {width} pixels: {cause}. Choose another backbone."
            )
        elif source == "imagenet":
            message = (
                f"fit: weights='imagenet' are not available for backbone {name!r}: "
                f"{cause}. {WEIGHT_SOURCES}"
            )
        else:
            message = (
                f"fit: weights={source!r} do not fit backbone {name!r}: {cause}. "
                f"{WEIGHT_SOURCES}"
            )
        raise InputError(message) from err


def describe_cause(error: Exception) -> str:
    """Return the message of an error in one line of at most 200 characters.

    Parameters
    ----------
    error : Exception
        The error.

    Returns
    -------
    str
        Its message, or the name of its class if it has none.
    """
    one_line = " ".join(str(error).split())
    return one_line[:200].rstrip(".") or type(error).__name__


def find_input_statistics(network: nn.Module) -> Mapping[str, Sequence[float]]:
    """Return the mean and standard deviation with which a network was pretrained.

    Parameters
    ----------
    network : Module
        A backbone, with a `pretrained_cfg` as in timm or without.

    Returns
    -------
    mapping
        "mean" and "std", one number per channel or one for all; .5 if unknown.
    """
    config = getattr(network, "pretrained_cfg", None)
    if not isinstance(config, Mapping):
        config = {}
    return {name: config.get(name) or (0.5,) for name in ("mean", "std")}


def _find_constructor(name: str, audio: AudioNet | None) -> Callable[..., nn.Module]:
    import timm

    if audio is not None:
        return audio.make
    if is_spectrogram_transformer(name):
        return partial(make_spectrogram_transformer, name)
    is_address = name.startswith((*_HUBS, _LOCAL_FOLDER))
    if not is_address and not timm.is_model(name):
        raise InputError(
            f"fit: backbone {name!r} is not known to timm; {_suggest_names(name)}"
        )
    return partial(timm.create_model, name)


def _suggest_names(name: str) -> str:
    import timm

    known = [NOTES, "ast", *audio_net_names(), *timm.list_models()]
    near = [repr(other) for other in difflib.get_close_matches(name, known, cutoff=0.4)]
    if not near:
        return "cqt2img.list_backbones() and timm.list_models() list the names."
    return f"did you mean {' or '.join(near)}?"


def _find_patch_embedding(network: nn.Module) -> "PatchEmbed | None":
    """Return timm's patch embedding if it is the first layer of a network."""
    from timm.layers import PatchEmbed

    first = getattr(network, "patch_embed", None) or getattr(network, "stem", None)
    return first if isinstance(first, PatchEmbed) else None


def _takes_any_size(name: str) -> bool:
    import timm

    if not timm.is_model(name):
        return False
    config = timm.get_pretrained_cfg(name)
    return config is None or not config.fixed_input_size


def _has_fixed_size(network: nn.Module) -> bool:
    config: Mapping[str, object] = network.pretrained_cfg  # type: ignore[assignment]
    return bool(config.get("fixed_input_size"))


def _covered_size(size: tuple[int, int], patches: "PatchEmbed") -> tuple[int, int]:
    """Return the least size that whole patches cover and that is no less than `size`.

    timm drops rows and columns that fill no whole patch: at the bottom, the bass.
    """
    height, width = size
    patch_height, patch_width = patches.patch_size
    row_stride, column_stride = patches.proj.stride
    return (
        _covered_side(height, patch_height, row_stride),
        _covered_side(width, patch_width, column_stride),
    )


def _covered_side(side: int, patch: int, stride: int) -> int:
    n_more = max(0, ceil((side - patch) / stride))
    return patch + stride * n_more


@contextmanager
def _offline_if_unreachable(is_hub_needed: bool) -> Iterator[None]:
    """Use the local cache only if the hub is unreachable.

    The hub's client would try for a minute. Its global setting is restored.
    """
    if not is_hub_needed:
        yield
        return
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _is_reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _is_reachable(url: str) -> bool:
    from urllib.request import getproxies

    parts = urlsplit(url)
    if parts.hostname is None or getproxies():
        return True  # a proxy resolves host names that this machine cannot
    address = (parts.hostname, parts.port or 443)
    try:
        socket.create_connection(address, timeout=5).close()
    except OSError:
        return False
    return True
