"""The Audio Spectrogram Transformer: timm's distilled DeiT, with patches that may overlap."""

import re
from functools import partial
from math import ceil
from typing import Any

from torch import nn

from cqt2img.errors import InputError

PATCH, STRIDES = 16, (10, 16)
_DEIT = {size: f"deit_{size}_distilled_patch16_224" for size in ("tiny", "small", "base")}
_DEIT["base384"] = "deit_base_distilled_patch16_384"


def is_transformer(name: str) -> bool:
    """Say whether a name asks for the Audio Spectrogram Transformer.

    Parameters
    ----------
    name : str
        Of a backbone.

    Returns
    -------
    bool
        True for "ast" and whatever begins with "ast_".

    Examples
    --------
    >>> [is_transformer(name) for name in ("ast", "ast_small_s10", "vit_tiny_patch16_224")]
    [True, True, False]
    """
    return name == "ast" or name.startswith("ast_")


def make_transformer(name: str, **options: Any) -> nn.Module:
    """Build the Audio Spectrogram Transformer.

    Parameters
    ----------
    name : str
        "ast", or "ast_" with "tiny", "small", "base" or "base384" (base, from weights for pictures
        of 384 pixels, as in the paper). With "_s10" at the end the patches of 16 x 16 pixels lie 10
        pixels apart and overlap, as in the paper: 2.5 times as many, 2.5 to 4 times the work. Else
        they lie 16 apart. "ast" is "ast_tiny".
    **options
        What `timm.create_model` takes; `img_size` must be covered by whole patches.

    Returns
    -------
    Module
        timm's `VisionTransformerDistilled`, with a class token and a distillation token.

    Raises
    ------
    InputError
        If there is no such name.

    Notes
    -----
    As in the paper, training starts from a vision transformer that knows ImageNet, the position
    embeddings are interpolated from its square grid of patches to the grid of the tile, for one
    channel the patch kernel is summed over the colours, and both prefix tokens are heard. Other
    than in the paper: the picture is a CQT tile; the interpolation is bicubic and covers the whole
    grid (the paper cuts the rows out of the middle); each token has a linear head, and their
    logits are averaged (the paper averages the tokens and has a norm before the one head).

    References
    ----------
    Yuan Gong, Yu-An Chung and James Glass, "AST: Audio Spectrogram Transformer", 2021.
    Hugo Touvron, Matthieu Cord, Matthijs Douze, Francisco Massa, Alexandre Sablayrolles and Hervé
    Jégou, "Training data-efficient image transformers & distillation through attention", 2021.

    Examples
    --------
    >>> make_transformer("ast_tiny_s10", num_classes=3, img_size=(96, 136), device="meta").patch_embed.grid_size
    (9, 13)
    """
    import timm

    match = re.fullmatch(r"ast(?:_(tiny|small|base|base384))?(_s10)?", name)
    if match is None:
        raise InputError(
            f"Classifier: backbone must be ast or ast_ with one of {', '.join(_DEIT)}, and perhaps _s10, "
            f"got {name!r}. Choose one of these."
        )
    stride = 10 if match[2] else 16
    return timm.create_model(_DEIT[match[1] or "tiny"], embed_layer=partial(_overlapping, stride), **options)


def covered(side: int, patch: int, stride: int) -> int:
    """Give the least number of pixels that whole patches cover and that is no less than a side.

    Parameters
    ----------
    side : int
        Height or width of a tile in pixels, 1 or more.
    patch, stride : int
        Size of a patch in pixels, and from one patch to the next.

    Returns
    -------
    int
        `patch` and a multiple of `stride`.

    Examples
    --------
    >>> [covered(side, 16, 10) for side in (3, 16, 17, 96, 192)]
    [16, 16, 26, 96, 196]
    """
    return patch + stride * max(0, ceil((side - patch) / stride))


def _overlapping(stride: int, **options: Any) -> nn.Module:
    """Build timm's patch embedding with patches `stride` pixels apart."""
    from timm.layers import PatchEmbed

    embed = PatchEmbed(**options)
    embed.proj.stride = (stride, stride)
    embed.grid_size = tuple((s - p) // stride + 1 for s, p in zip(embed.img_size, embed.patch_size, strict=True))
    embed.num_patches = embed.grid_size[0] * embed.grid_size[1]
    return embed
