"""From the name of a backbone and the size of a tile to what timm must be asked for."""

import difflib
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from torch import nn

from cqt2img.errors import InputError
from cqt2img.models.audio_nets import (
    AudioNet,
    audio_net_names,
    covered,
    find_audio_net,
    is_transformer,
    make_transformer,
)
from cqt2img.models.notes import NOTES, make_note_classifier

WAYS = (
    "Connect to the network once so that timm can fetch them, give a local file of weights, "
    "or start at random with weights=None (--weights none)."
)
_HUBS = ("hf_hub:", "hf-hub:", "local-dir:")


@dataclass(frozen=True)
class Architecture:
    """How a backbone is built for tiles of one size.

    Parameters
    ----------
    name : str
        Of the backbone.
    make : callable
        Builds it from what `timm.create_model` takes.
    options : dict
        What it takes in any case: `in_chans`, and `img_size` where the size is part of the network.
    size : tuple of int
        Height and width of what it sees in pixels: those of a tile or, where patches do not divide
        it, a little more.
    audio : AudioNet or None
        How it takes levels, where it knows sound in place of pictures.
    """

    name: str
    make: Callable[..., nn.Module]
    options: dict[str, Any]
    size: tuple[int, int]
    audio: AudioNet | None


def resolve_architecture(
    name: str, in_chans: int, size: tuple[int, int]
) -> Architecture:
    """Find out how a backbone is built for tiles of one size.

    Parameters
    ----------
    name : str
        A classification backbone of timm, "notes", "ast", "yamnet" and the like; see `build_network`.
    in_chans : {3, 1}
        Channels; "notes" takes levels, whatever is said here.
    size : tuple of int
        Height and width of a tile in pixels.

    Returns
    -------
    Architecture
        For `create`.

    Raises
    ------
    InputError
        If there is no such backbone, or not with so many channels.

    Examples
    --------
    Whole patches cover a tile of 96 x 128 pixels if it is padded to 96 x 136:

    >>> resolve_architecture("ast_tiny_s10", 3, (96, 128)).size
    (96, 136)
    """
    if name == NOTES:
        return Architecture(name, make_note_classifier, {"in_chans": 1}, size, None)
    audio = find_audio_net(name)
    if in_chans not in (1, 3):
        raise InputError(
            f"Classifier: in_chans must be 1 or 3, got {in_chans!r}. Take 3 for painted tiles."
        )
    if audio is not None and in_chans != 1:
        raise InputError(
            f"Classifier: in_chans must be 1 for {name!r}, which heard levels and saw no colours, got {in_chans!r}. "
            "Set in_chans=1 (--in-chans 1)."
        )
    plain = Architecture(name, _maker(name, audio), {"in_chans": in_chans}, size, audio)
    if _takes_any_size(name):
        return plain
    probe: Any = create(
        plain, "random", num_classes=2, device="meta"
    )  # without memory: a tenth of a second
    embed = _patches(probe)
    if embed is None and not probe.pretrained_cfg.get("fixed_input_size"):
        return plain
    seen = size[::-1] if audio is not None and audio.time_first else size
    if embed is not None:
        # timm leaves rows and columns out that fill no whole patch: at the bottom, the bass
        (patch_h, patch_w), (stride_h, stride_w) = embed.patch_size, embed.proj.stride
        seen = covered(seen[0], patch_h, stride_h), covered(seen[1], patch_w, stride_w)
    padded = seen[::-1] if audio is not None and audio.time_first else seen
    return replace(plain, options={"in_chans": in_chans, "img_size": seen}, size=padded)


def create(blueprint: Architecture, origin: str, **options: Any) -> nn.Module:
    """Build a backbone, and say in one sentence what went wrong.

    Parameters
    ----------
    blueprint : Architecture
        What to build.
    origin : str
        Where its weights come from: "random", "imagenet", or a file; for the message.
    **options
        More of what `timm.create_model` takes.

    Returns
    -------
    Module
        The backbone.

    Raises
    ------
    InputError
        If it cannot be built, or its weights cannot be had.
    """
    name = blueprint.name
    try:
        with _hub(origin == "imagenet" or name.startswith(_HUBS[:2])):
            return blueprint.make(**blueprint.options, **options)
    except InputError:
        raise
    except Exception as err:  # hub, file and architecture each raise errors of their own, without a common root
        cause = " ".join(str(err).split())[:200].rstrip(".") or type(err).__name__
        if origin == "random":
            text = f"Classifier: backbone must build for these tiles, got {name!r}: {cause}. Try another backbone."
        elif origin == "imagenet":
            text = f"Classifier: weights must be at hand, got none for {name!r} ({cause}). {WAYS}"
        else:
            text = f"Classifier: weights must fit {name!r}, got {origin!r}: {cause}. {WAYS}"
        raise InputError(text) from err


def _maker(name: str, audio: AudioNet | None) -> Callable[..., nn.Module]:
    import timm

    if audio is not None:
        return audio.make
    if is_transformer(name):
        return partial(make_transformer, name)
    if not name.startswith(_HUBS) and not timm.is_model(name):
        near = difflib.get_close_matches(
            name, [*timm.list_models(), *audio_net_names()], n=3, cutoff=0.4
        )
        hint = (
            f"Did you mean {', '.join(near)}?"
            if near
            else "List them with timm.list_models()."
        )
        raise InputError(
            f"Classifier: backbone must be a model of timm, got {name!r}. {hint}"
        )
    return partial(timm.create_model, name)


def _takes_any_size(name: str) -> bool:
    import timm

    if not timm.is_model(name):
        return False
    config = timm.get_pretrained_cfg(name)
    return config is None or not config.fixed_input_size


def _patches(network: Any) -> Any:
    """Give timm's patch embedding, if the network begins with it."""
    from timm.layers import PatchEmbed

    first = getattr(network, "patch_embed", None) or getattr(network, "stem", None)
    return first if isinstance(first, PatchEmbed) else None


@contextmanager
def _hub(is_needed: bool) -> Iterator[None]:
    """Without a network, ask only the local cache, and at once: the hub would try for a minute."""
    if not is_needed:
        yield
        return
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _reachable(url: str) -> bool:
    from urllib.request import getproxies

    parts = urlsplit(url)
    if parts.hostname is None or getproxies():
        return True  # a proxy knows names that this machine does not
    try:
        socket.create_connection((parts.hostname, parts.port or 443), timeout=5).close()
    except OSError:
        return False
    return True
