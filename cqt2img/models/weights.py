"""Read weights from files and saved models for a backbone."""

import difflib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Protocol, TypeAlias, cast

import torch
from torch import nn

from cqt2img.errors import InputError
from cqt2img.models.architecture import (
    WEIGHT_SOURCES,
    Architecture,
    create_backbone,
    describe_cause,
    resolve_architecture,
)
from cqt2img.tiles.spec import TileSpec

log = logging.getLogger(__name__)

StateDict: TypeAlias = dict[str, torch.Tensor]

_DESCRIPTION_FILE = "model.json"
_WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class SavedModelInfo:
    """The part of a saved model's description that a new training run needs.

    Parameters
    ----------
    backbone : str
        Name of the backbone.
    in_chans : int
        Number of input channels.
    spec : TileSpec
        Spec of the tiles that it was trained on.
    training_groups : list of str
        Groups of the recordings that it was trained on.
    fingerprints : list of str
        Fingerprints of these recordings.
    """

    backbone: str
    in_chans: int
    spec: TileSpec
    training_groups: list[str]
    fingerprints: list[str]


class _PatchEmbedding(Protocol):
    grid_size: tuple[int, int]
    patch_size: tuple[int, int]
    num_patches: int


def create_backbone_from_file(architecture: Architecture, path: Path) -> nn.Module:
    """Build a backbone with weights from a file.

    Parameters
    ----------
    architecture : Architecture
        Architecture of the backbone.
    path : Path
        A file of weights for the same backbone, whose head may have any number of
        classes or be missing, or the folder of a saved model.

    Returns
    -------
    Module
        The backbone with the head of the file. Every weight comes from the file, and
        none of the file is left over.

    Raises
    ------
    InputError
        If the file does not exist, cannot be read, belongs to another backbone, or has
        position embeddings of an unknown grid.

    Notes
    -----
    Position embeddings are resampled (bicubic) from the grid that they were trained
    on. The description of a saved model contains its grid; in other files the grid
    must be square, as in all of timm's. If a saved model was trained on tiles of
    another size, a warning is logged.
    """
    if not path.exists():
        raise InputError(
            f"fit: weights={str(path)!r} is not a file or folder{_suggest_word(path)}. "
            f"{WEIGHT_SOURCES}"
        )
    info = read_saved_model_info(path)
    file = path / _WEIGHTS_FILE if path.is_dir() else path
    state = _read_state_dict(file, architecture.name)
    source = None
    if info is not None:
        source = _resolve_saved_architecture(info, path, architecture)
    target = create_backbone(architecture, "random", num_classes=2, device="meta")
    patches = _find_patch_grid(target)
    if patches is not None and _has_positions(state, target):
        grid = _find_position_grid(state, target, patches, source, architecture, path)
        state["pos_embed"] = _resample_positions(state, target, patches, grid)
    config = cast(Mapping[str, object], target.pretrained_cfg)
    n_classes = _count_classes(state, config)
    n_channels = _count_channels(state, config)
    overlay = {
        "state_dict": state,
        "input_size": (n_channels, *(architecture.img_size or architecture.size)),
        "num_classes": n_classes,
        "label_offset": 0,
        "custom_load": False,
    }
    backbone = create_backbone(
        architecture,
        str(path),
        num_classes=n_classes,
        pretrained=True,
        pretrained_cfg_overlay=overlay,
    )
    # else every copy of the network would contain the weights
    cast(dict[str, object], backbone.pretrained_cfg)["state_dict"] = None
    return backbone


def training_provenance(
    weights: str | os.PathLike[str] | None,
) -> tuple[list[str], list[str]]:
    """Return the recordings on which weights were trained before fine-tuning.

    Parameters
    ----------
    weights : {"imagenet", None} or str or Path
        As for `build_network`.

    Returns
    -------
    groups, fingerprints : list of str
        Those of the recordings that a saved model was trained on; empty for other
        weights.

    Raises
    ------
    InputError
        If the saved model is damaged.
    """
    if weights is None or str(weights).lower() in ("none", "imagenet"):
        return [], []
    info = read_saved_model_info(Path(weights))
    if info is None:
        return [], []
    return info.training_groups, info.fingerprints


def read_saved_model_info(path: Path) -> SavedModelInfo | None:
    """Read the description of a saved model.

    Parameters
    ----------
    path : Path
        The folder of a saved model, its file of weights, or another file.

    Returns
    -------
    SavedModelInfo or None
        None for a file that does not belong to a saved model.

    Raises
    ------
    InputError
        If a folder is not a saved model, or the description is damaged.
    """
    if not path.is_dir() and path.name != _WEIGHTS_FILE:
        return None
    folder = path if path.is_dir() else path.parent
    try:
        text = (folder / _DESCRIPTION_FILE).read_text(encoding="utf-8")
        description = json.loads(text)
        is_ours = description["made_by"] == "cqt2img"
    except (OSError, ValueError, KeyError, TypeError) as err:
        if not path.is_dir():
            return None  # a file of the hub, which is named like ours
        raise InputError(
            f"fit: weights={str(path)!r} is a folder, but not a saved model. "
            f"{WEIGHT_SOURCES}"
        ) from err
    if not is_ours:
        return None
    try:
        return SavedModelInfo(
            backbone=description["architecture"]["backbone"],
            in_chans=description["architecture"]["in_chans"],
            spec=TileSpec.from_dict(description["spec"]),
            training_groups=description["training_groups"],
            fingerprints=description["fingerprints"],
        )
    except (KeyError, TypeError) as err:
        raise InputError(
            f"fit: weights={str(path)!r} is a damaged model: {_DESCRIPTION_FILE} is "
            "incomplete. Copy it again."
        ) from err


def _suggest_word(path: Path) -> str:
    near = difflib.get_close_matches(str(path).lower(), ["imagenet", "none"], n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _read_state_dict(file: Path, backbone: str) -> StateDict:
    """Read tensors without running code; remove the prefix of a saved model's names."""
    from timm.models import load_state_dict

    try:
        state = dict(load_state_dict(str(file)))
        if not any(torch.is_tensor(value) for value in state.values()):
            raise ValueError("no tensors")
    # torch and safetensors raise errors without a common base class
    except Exception as err:
        raise InputError(
            f"fit: weights={str(file)!r} do not fit backbone {backbone!r}: "
            f"{describe_cause(err)}. {WEIGHT_SOURCES}"
        ) from err
    # prefixed in saved models and in the best weights of a checkpoint
    if all(name.startswith("backbone.") for name in state):
        state = {name.removeprefix("backbone."): state[name] for name in state}
    return state


def _resolve_saved_architecture(
    info: SavedModelInfo, path: Path, architecture: Architecture
) -> Architecture:
    """Return the architecture of a saved model; warn if its tiles had another size."""
    if info.backbone != architecture.name:
        raise InputError(
            f"fit: weights={str(path)!r} belong to backbone {info.backbone!r}, not to "
            f"{architecture.name!r}. Set backbone={info.backbone!r} "
            f"(--backbone {info.backbone})."
        )
    source = resolve_architecture(info.backbone, info.in_chans, info.spec.size)
    if source.size != architecture.size:
        log.warning(
            "weights: %s was trained on tiles of %d x %d pixels instead of %d x %d; "
            "position embeddings are resampled",
            path,
            *source.size,
            *architecture.size,
        )
    return source


def _find_patch_grid(network: nn.Module) -> _PatchEmbedding | None:
    patches = getattr(network, "patch_embed", None)
    return patches if hasattr(patches, "grid_size") else None


def _has_positions(state: StateDict, target: nn.Module) -> bool:
    """Return whether a file has position embeddings in timm's form."""
    has_positions = torch.is_tensor(state.get("pos_embed"))
    is_like_timm = has_positions and "mask_token" not in state
    return is_like_timm and torch.is_tensor(getattr(target, "pos_embed", None))


def _find_position_grid(
    state: StateDict,
    target: nn.Module,
    patches: _PatchEmbedding,
    source: Architecture | None,
    architecture: Architecture,
    path: Path,
) -> tuple[int, int]:
    """Return rows and columns of the patches that position embeddings belong to."""
    n_patches = state["pos_embed"].shape[1] - _count_prefix_tokens(target, patches)
    if source is not None:
        trained = create_backbone(source, "random", num_classes=2, device="meta")
        trained_patches = _find_patch_grid(trained)
        assert trained_patches is not None, "the target of the same name has patches"
        n_rows, n_columns = trained_patches.grid_size
    elif architecture.audio is not None:
        _, height, width = architecture.audio.input_size
        patch_height, patch_width = patches.patch_size
        n_rows, n_columns = height // patch_height, width // patch_width
    else:
        n_rows = n_columns = isqrt(max(0, n_patches))
    if n_patches < 1 or n_rows * n_columns != n_patches:
        is_grid_known = source is not None or architecture.audio is not None
        grid = f"a grid of {n_rows} x {n_columns}" if is_grid_known else "a square grid"
        raise InputError(
            f"fit: weights={str(path)!r} must have position embeddings of {grid}, got "
            f"{n_patches} of them. Use the folder of a saved model, which contains its "
            "grid, or weights trained on squares."
        )
    return n_rows, n_columns


def _resample_positions(
    state: StateDict,
    target: nn.Module,
    patches: _PatchEmbedding,
    grid: tuple[int, int],
) -> torch.Tensor:
    from timm.layers import resample_abs_pos_embed

    new_size = list(patches.grid_size)
    n_prefix = _count_prefix_tokens(target, patches)
    return resample_abs_pos_embed(state["pos_embed"], new_size, list(grid), n_prefix)


def _count_prefix_tokens(target: nn.Module, patches: _PatchEmbedding) -> int:
    positions = cast(torch.Tensor, target.pos_embed)
    return positions.shape[1] - patches.num_patches


def _count_classes(state: StateDict, config: Mapping[str, object]) -> int:
    """Return the number of classes of the head in a file, 0 if it has none."""
    heads = [*_layer_names(config.get("classifier")), "head", "fc", "classifier"]
    weight = _first_weight(state, heads)
    return 0 if weight is None else int(weight.shape[0])


def _count_channels(state: StateDict, config: Mapping[str, object]) -> int:
    """Return the number of input channels that a file was trained on."""
    kernel = _first_weight(state, _layer_names(config.get("first_conv")))
    if kernel is not None and kernel.ndim == 4 and kernel.shape[1] in (1, 3):
        return int(kernel.shape[1])
    input_size = cast(tuple[int, int, int] | None, config.get("input_size"))
    return input_size[0] if input_size else 3


def _layer_names(value: object) -> tuple[str, ...]:
    """Return the layer names in an entry of timm's configuration: none or more."""
    if isinstance(value, str):
        return (value,)
    return tuple(cast(Iterable[str] | None, value) or ())


def _first_weight(state: StateDict, layers: Iterable[str]) -> torch.Tensor | None:
    for layer in layers:
        if f"{layer}.weight" in state:
            return state[f"{layer}.weight"]
    return None
