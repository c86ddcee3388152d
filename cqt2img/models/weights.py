"""Weights from a file: whose they are, and what size of picture they were trained on."""

import json
import logging
from collections.abc import Sequence
from math import isqrt
from pathlib import Path
from typing import Any

import torch

from cqt2img.errors import InputError
from cqt2img.models.architecture import WAYS, Architecture, create, resolve_architecture
from cqt2img.tiles.spec import TileSpec

log = logging.getLogger(__name__)


def read_weights(path: Path, blueprint: Architecture) -> dict[str, Any]:
    """Read weights for a backbone.

    Parameters
    ----------
    path : Path
        A file of weights for the same backbone, whose head may have any number of classes or be
        missing, or the folder of a saved model.
    blueprint : Architecture
        Of the backbone.

    Returns
    -------
    dict
        What `create` takes so that every weight comes from the file, and none is left over. The
        network then has the head of the file.

    Raises
    ------
    InputError
        If there is no such file, it cannot be read, belongs to another backbone, or has position
        embeddings of an unknown grid.

    Notes
    -----
    Position embeddings are resampled, bicubic, from the grid that they were trained on. A saved
    model names its grid; other files must be of a square, as all of timm's are. A warning in the
    log says when a saved model was trained on other pictures.
    """
    if not path.exists():
        raise InputError(
            f"Classifier: weights must be 'imagenet', None or a file, got no file {str(path)!r}. {WAYS}"
        )
    about = about_saved(path)
    state = _read(path / "model.safetensors" if path.is_dir() else path, blueprint.name)
    source = None
    if all(
        name.startswith("backbone.") for name in state
    ):  # a saved model's, or the best of a checkpoint
        state = {name.removeprefix("backbone."): value for name, value in state.items()}
    if about is not None:
        source = _source_of(about, path, blueprint)
    target: Any = create(blueprint, "random", num_classes=2, device="meta")
    config = target.pretrained_cfg
    if _has_positions(state, target):
        state["pos_embed"] = _move_positions(
            state["pos_embed"], target, source, blueprint, path
        )
    n_classes = _rows(state, _names(config.get("classifier")))
    size = blueprint.options.get("img_size") or blueprint.size
    overlay = {
        "state_dict": state,
        "input_size": (_channels(state, config), *size),
        "num_classes": n_classes,
        "label_offset": 0,
        "custom_load": False,
    }
    return {
        "num_classes": n_classes,
        "pretrained": True,
        "pretrained_cfg_overlay": overlay,
    }


def training_provenance(weights: Any) -> tuple[list[str], list[str]]:
    """Tell what a network has met before it is fine-tuned.

    Parameters
    ----------
    weights : {"imagenet", None} or str or Path
        As for `build_network`.

    Returns
    -------
    groups, fingerprints : list of str
        Of the recordings that a saved model was trained on; none for other weights.

    Raises
    ------
    InputError
        If the saved model is damaged.
    """
    about = (
        None
        if str(weights).lower() in ("none", "imagenet")
        else about_saved(Path(weights))
    )
    try:
        return (about["training_groups"], about["fingerprints"]) if about else ([], [])
    except KeyError as err:
        raise InputError(
            f"Classifier: weights must be an undamaged model, got {str(weights)!r}. Copy it again."
        ) from err


def about_saved(path: Path) -> dict[str, Any] | None:
    """Read what a saved model says of itself.

    Parameters
    ----------
    path : Path
        The folder of a saved model, its file of weights, or another file.

    Returns
    -------
    dict or None
        What `model.json` holds; None for any other file.
    """
    file = (path if path.is_dir() else path.parent) / "model.json"
    if not path.is_dir() and path.name != "model.safetensors":
        return None
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        return about if about["made_by"] == "cqt2img" else None
    except (OSError, ValueError, KeyError, TypeError) as err:
        if not path.is_dir():
            return None
        raise InputError(
            f"Classifier: weights must be a saved model where they are a folder, got {str(path)!r}. {WAYS}"
        ) from err


def _read(file: Path, name: str) -> dict[str, Any]:
    from timm.models import load_state_dict

    try:
        state = dict(load_state_dict(str(file)))
        if not any(torch.is_tensor(value) for value in state.values()):
            raise ValueError("no tensors")
    except (
        Exception
    ) as err:  # torch and safetensors raise errors of their own, without a common root
        cause = " ".join(str(err).split())[:200].rstrip(".") or type(err).__name__
        raise InputError(
            f"Classifier: weights must fit {name!r}, got {str(file)!r}: {cause}. {WAYS}"
        ) from err
    return state


def _source_of(
    about: dict[str, Any], path: Path, blueprint: Architecture
) -> Architecture:
    """Draw the blueprint of a saved model, and say if it was trained on other pictures."""
    try:
        backbone, in_chans = (
            about["architecture"]["backbone"],
            about["architecture"]["in_chans"],
        )
        spec = TileSpec.from_dict(about["spec"])
    except (KeyError, TypeError) as err:
        raise InputError(
            f"Classifier: weights must be an undamaged model, got {str(path)!r}. Copy it again."
        ) from err
    if backbone != blueprint.name:
        raise InputError(
            f"Classifier: weights must be of {blueprint.name!r}, got {str(path)!r} of {backbone!r}. "
            f"Set backbone={backbone!r} (--backbone {backbone})."
        )
    source = resolve_architecture(backbone, in_chans, spec.size)
    if source.size != blueprint.size:
        log.warning(
            "weights: %s was trained on tiles of %d x %d pixels, not %d x %d; positions are resampled",
            path,
            *source.size,
            *blueprint.size,
        )
    return source


def _has_positions(state: dict[str, Any], target: Any) -> bool:
    """Whether the file holds positions of a grid of patches, in the form that timm gives them."""
    is_like_timm = torch.is_tensor(state.get("pos_embed")) and "mask_token" not in state
    is_grid = hasattr(getattr(target, "patch_embed", None), "grid_size")
    return (
        is_like_timm and is_grid and torch.is_tensor(getattr(target, "pos_embed", None))
    )


def _move_positions(
    positions: torch.Tensor,
    target: Any,
    source: Architecture | None,
    blueprint: Architecture,
    path: Path,
) -> torch.Tensor:
    """Resample position embeddings from the grid that they were trained on to that of the target."""
    from timm.layers import resample_abs_pos_embed

    n_prefix = target.pos_embed.shape[1] - target.patch_embed.num_patches
    n_patches = positions.shape[1] - n_prefix
    side = isqrt(max(0, n_patches))
    if source is not None:
        known: Any = create(source, "random", num_classes=2, device="meta")
        grid = known.patch_embed.grid_size
    elif blueprint.audio is not None:
        grid = tuple(
            s // p
            for s, p in zip(
                blueprint.audio.input_size[1:],
                target.patch_embed.patch_size,
                strict=True,
            )
        )
    else:
        grid = side, side
    if n_patches < 1 or grid[0] * grid[1] != n_patches:
        raise InputError(
            f"Classifier: weights must have positions of {_rule(source, blueprint, grid)}, got {n_patches} of them in "
            f"{str(path)!r}. Give the folder of a saved model, which names its grid, or weights trained on squares."
        )
    return resample_abs_pos_embed(
        positions, list(target.patch_embed.grid_size), list(grid), n_prefix
    )


def _rule(
    source: Architecture | None, blueprint: Architecture, grid: tuple[int, int]
) -> str:
    return (
        "a square grid"
        if source is None and blueprint.audio is None
        else f"a grid of {grid[0]} x {grid[1]}"
    )


def _names(value: Any) -> Sequence[str]:
    """Give the names in an entry of timm's configuration: none, one or more."""
    return (value,) if isinstance(value, str) else tuple(value or ())


def _rows(state: dict[str, Any], names: Sequence[str]) -> int:
    """Count the classes of the head in a file: 0 if it has none."""
    found = [
        state[f"{name}.weight"]
        for name in (*names, "head", "fc", "classifier")
        if f"{name}.weight" in state
    ]
    return int(found[0].shape[0]) if found else 0


def _channels(state: dict[str, Any], config: dict[str, Any]) -> int:
    """Count the channels that a file was trained on."""
    kernels = [
        state[f"{name}.weight"]
        for name in _names(config.get("first_conv"))
        if f"{name}.weight" in state
    ]
    n_channels = int(kernels[0].shape[1]) if kernels and kernels[0].ndim == 4 else 0
    return (
        n_channels
        if n_channels in (1, 3)
        else int((config.get("input_size") or (3,))[0])
    )
