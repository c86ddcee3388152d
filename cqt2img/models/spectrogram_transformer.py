"""The Audio Spectrogram Transformer (AST), built from timm's vision transformers."""

import re
from functools import partial
from typing import TYPE_CHECKING

from torch import nn

from cqt2img.errors import InputError

if TYPE_CHECKING:
    from timm.layers import PatchEmbed

_TIMM_NAMES = {
    "tiny": "deit_tiny_distilled_patch16_224",
    "small": "deit_small_distilled_patch16_224",
    "base": "deit_base_distilled_patch16_224",
    "base384": "deit_base_distilled_patch16_384",
}
_STRIDE = 16
_OVERLAPPING_STRIDE = 10


def is_spectrogram_transformer(name: str) -> bool:
    """Return whether a backbone name selects the Audio Spectrogram Transformer.

    Parameters
    ----------
    name : str
        Name of a backbone.

    Returns
    -------
    bool
        True for "ast" and for names that begin with "ast_".

    Examples
    --------
    >>> is_spectrogram_transformer("ast_small_s10")
    True
    >>> is_spectrogram_transformer("vit_tiny_patch16_224")
    False
    """
    return name == "ast" or name.startswith("ast_")


def make_spectrogram_transformer(name: str, **options: object) -> nn.Module:
    """Build the Audio Spectrogram Transformer.

    Parameters
    ----------
    name : str
        "ast", or "ast_" followed by "tiny", "small", "base" or "base384" (base, from
        weights for images of 384 pixels, as in the paper). The suffix "_s10" sets the
        distance between patches of 16 x 16 pixels to 10 pixels, so that they overlap
        as in the paper: 2.5 times as many patches and 2.5 to 4 times the work. Without
        it the distance is 16 pixels. "ast" is "ast_tiny".
    **options
        Options of `timm.create_model`; whole patches must cover `img_size`.

    Returns
    -------
    Module
        timm's `VisionTransformerDistilled`, with a class token and a distillation
        token.

    Raises
    ------
    InputError
        If there is no such name.

    Notes
    -----
    As in the paper, training starts from a vision transformer pretrained on ImageNet,
    the position embeddings are interpolated from its square grid of patches to the
    grid of the tile, the patch kernel is summed over the colours for one channel, and
    both prefix tokens are used. Differences from the paper: the image is a CQT tile;
    the interpolation is bicubic and covers the whole grid (the paper cuts rows out of
    the middle); each token has a linear head and their logits are averaged (the paper
    averages the tokens and applies a norm before a single head).

    References
    ----------
    Yuan Gong, Yu-An Chung and James Glass, "AST: Audio Spectrogram Transformer", 2021.
    Hugo Touvron, Matthieu Cord, Matthijs Douze, Francisco Massa, Alexandre Sablayrolles
    and Hervé Jégou, "Training data-efficient image transformers & distillation through
    attention", 2021.

    Examples
    --------
    >>> options = {"num_classes": 3, "img_size": (96, 136), "device": "meta"}
    >>> network = make_spectrogram_transformer("ast_tiny_s10", **options)
    >>> network.patch_embed.grid_size
    (9, 13)
    """
    import timm

    match = re.fullmatch(r"ast(?:_(tiny|small|base|base384))?(_s10)?", name)
    if match is None:
        raise InputError(
            f"fit: backbone {name!r} is not an Audio Spectrogram Transformer. "
            f"Use 'ast', or 'ast_' and one of {', '.join(_TIMM_NAMES)}, "
            "with or without '_s10' at the end."
        )
    size, overlap = match.groups()
    stride = _OVERLAPPING_STRIDE if overlap else _STRIDE
    embed_layer = partial(_make_patch_embedding, stride)
    timm_name = _TIMM_NAMES[size or "tiny"]
    return timm.create_model(timm_name, embed_layer=embed_layer, **options)


def _make_patch_embedding(stride: int, **options: object) -> "PatchEmbed":
    """Build timm's patch embedding with patches `stride` pixels apart."""
    from timm.layers import PatchEmbed

    embedding = PatchEmbed(**options)
    embedding.proj.stride = (stride, stride)
    height, width = embedding.img_size
    patch_height, patch_width = embedding.patch_size
    n_rows = (height - patch_height) // stride + 1
    n_columns = (width - patch_width) // stride + 1
    embedding.grid_size = (n_rows, n_columns)
    embedding.num_patches = n_rows * n_columns
    return embedding
