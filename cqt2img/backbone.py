"""A timm name becomes a network that takes tiles."""

import ctypes
import difflib
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import numpy as np
import torch
from torch import nn

from cqt2img.errors import InputError
from cqt2img.jobs import import_tqdm
from cqt2img.spec import TileSpec
from cqt2img.tile import palette


class TileNet(nn.Module):
    """A timm backbone that takes levels and gives logits.

    The colour map and the input statistics of the backbone are one table of 256 rows, so that a
    tile is painted where the network runs.

    Parameters
    ----------
    backbone : Module
        A timm classification network.
    spec : TileSpec
        Says the colour map.
    in_chans : int
        3 paints the tile; 1 gives the level itself.
    """

    table: torch.Tensor

    def __init__(self, backbone: nn.Module, spec: TileSpec, in_chans: int) -> None:
        super().__init__()
        self.backbone = backbone
        config = cast(dict[str, Any], backbone.pretrained_cfg)
        mean, std = (np.asarray(config.get(k) or v) for k, v in (("mean", [0.5]), ("std", [0.5])))
        if in_chans == 3:
            table = (palette(spec.colour_map) / 255 - mean) / std
        else:
            table = (np.arange(256)[:, None] / 255 - mean.mean()) / std.mean()
        self.register_buffer("table", torch.tensor(table, dtype=torch.float32), persistent=False)

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
        # painted channels-last, permuted to (n, channels, height, width) without a copy
        return self.backbone(self.table[levels.int()].permute(0, 3, 1, 2)).float()


def build_network(name: str, n_classes: int, spec: TileSpec, weights: Any = None, in_chans: int = 3) -> TileNet:
    """Make the network for a label set.

    Parameters
    ----------
    name : str
        A classification backbone of timm, such as "resnet18"; "hf_hub:..." asks the hub.
    n_classes : int
        Names to choose from, 2 or more.
    spec : TileSpec
        What its tiles look like.
    weights : {"imagenet", None} or str or Path
        "imagenet": what timm has for the name, from the hub or its local cache. A path: a file
        of weights for the same backbone (its head may have another number of classes). None, or
        the word "none": random start.
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
        takes the place of weights that were asked for.
    """
    import_tqdm()
    import timm

    name = str(name)
    if in_chans not in (1, 3):
        raise InputError(f"Classifier: in_chans must be 1 or 3, got {in_chans!r}. Take 3 for painted tiles.")
    if not name.startswith(("hf_hub:", "hf-hub:", "local-dir:")) and not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4)
        hint = f"Did you mean {', '.join(near)}?" if near else "List them with timm.list_models()."
        raise InputError(f"Classifier: backbone must be a model of timm, got {name!r}. {hint}")
    options: dict[str, Any] = {"num_classes": n_classes, "in_chans": in_chans}
    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if config is not None and config.fixed_input_size:
        options["img_size"] = spec.size
    if weights is None or str(weights).lower() == "none":
        network = _create(name, "random", options)
    elif str(weights) == "imagenet":
        with _hub():
            network = _create(name, "imagenet", {**options, "pretrained": True})
    else:
        path = Path(weights)
        if not path.is_file():
            raise InputError(
                f"Classifier: weights must be 'imagenet', None or a file, got no file {str(path)!r}. {_WAYS}"
            )
        overlay = {"file": str(path)}
        network = _create(name, str(path), {**options, "pretrained": True, "pretrained_cfg_overlay": overlay})
    head = cast(Any, network).get_classifier()
    if isinstance(
        head, nn.Linear
    ):  # some heads of timm start with logits far from zero: a first loss of 7 for ten names
        nn.init.normal_(head.weight, std=0.01)
        if head.bias is not None:
            nn.init.zeros_(head.bias)
    return TileNet(network, spec, in_chans)


def find_device(device: str | None) -> torch.device:
    """Choose where a network runs.

    Parameters
    ----------
    device : {None, "cpu", "cuda", "mps"}
        None takes the GPU if there is one.

    Returns
    -------
    torch.device
        The device.

    Raises
    ------
    InputError
        If this machine has no such device.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device is None:
        return torch.device("cuda" if there["cuda"] else "mps" if there["mps"] else "cpu")
    if not isinstance(device, str) or not there.get(device):
        names = ", ".join(name for name, is_there in there.items() if is_there)
        raise InputError(
            f"Classifier: device must be None or one of {names} here, got {device!r}. Choose one of these."
        )
    return torch.device(device)


@contextmanager
def steady_memory() -> Iterator[None]:
    """Keep the memory of one step for the next, while a network works on a CPU under Linux.

    glibc gives large arrays back to the system at once, and gets them anew, page by page, in the
    next step: that took a third of a training step and more (`benchmarks/RESULTS.md`). Elsewhere
    this does nothing. The defaults of glibc come back at the end.
    """
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        yield
        return
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_MAX, 65_536)
        libc.mallopt(_TRIM_THRESHOLD, 128 * 1024)
        libc.malloc_trim(0)


_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # numbers of glibc's malloc.h
_WAYS = (
    "Connect to the network once so that timm can fetch them, give a local file of weights, "
    "or start at random with weights=None (--weights none)."
)


def _create(name: str, origin: str, options: dict[str, Any]) -> nn.Module:
    """Call timm, and say in one sentence what went wrong."""
    import timm

    try:
        return timm.create_model(name, **options)
    except Exception as err:  # hub, file and architecture each raise errors of their own, without a common root
        cause = str(err).strip().splitlines()[0][:200] if str(err).strip() else type(err).__name__
        if origin == "random":
            text = f"Classifier: backbone must build for these tiles, got {name!r}: {cause}. Try another backbone."
        elif origin == "imagenet":
            text = f"Classifier: weights must be at hand, got none for {name!r} ({cause}). {_WAYS}"
        else:
            text = f"Classifier: weights must fit {name!r}, got {origin!r}: {cause}. {_WAYS}"
        raise InputError(text) from err


@contextmanager
def _hub() -> Iterator[None]:
    """Without a network, ask only the local cache, and at once: the hub would try for a minute."""
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
