"""Networks that know AudioSet: how they are built, and what a tile must become for them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil, log
from typing import Any

from torch import nn

from cqt2img.errors import InputError

_DB_PER_NEPER = 20 / log(10)  # an amplitude e times as large is 8.7 dB more


@dataclass(frozen=True)
class AudioNet:
    """A network made for log-mel spectrograms, and how it takes the levels of a CQT tile.

    Parameters
    ----------
    make : callable
        Builds it from what `timm.create_model` takes.
    time_first : bool
        Whether its rows are time and its columns pitch. In all of them pitch rises with the index,
        other than in a tile, whose top row is the highest.
    per_db : float
        How much larger its input is for 1 dB more.
    at_zero : float
        Its input at 0 dB, the reference of the recording.
    input_size : tuple of int
        Channels, rows and columns that it was trained on.
    n_classes : int
        Sounds that it was trained to tell apart.
    """

    make: Callable[..., nn.Module]
    time_first: bool
    per_db: float
    at_zero: float
    input_size: tuple[int, int, int]
    n_classes: int


def find_audio_net(name: str) -> AudioNet | None:
    """Look up a network that knows AudioSet.

    Parameters
    ----------
    name : str
        "yamnet": MobileNet V1, trained by Google. "efficientat_mn04": MobileNet V3 at 0.4 of its
        width, taught by transformers. "audiomae": the ViT-B/16 of AudioMAE, fine-tuned (with
        `fc_norm`). Files of weights must name their parts as timm does.

    Returns
    -------
    AudioNet or None
        None for any other name.

    Notes
    -----
    What was adapted from log-mel spectrograms to CQT tiles:

    - Direction. All of them were trained with low pitch first, a tile has high pitch in its top row;
      YAMNet and AudioMAE have time in their rows. The tile is flipped, and transposed, before it is
      heard. (Measured on 10 jazz recordings, 24 bins and gamma 4, before any fine-tuning:
      efficientat_mn04 gives "Piano" a mean probability of .16 on flipped tiles and .02 on tiles as
      they are; .26 on the log-mel spectrogram that it was trained with. Whether that helps to tell
      pianists apart is open: linear heads on both are within the error of 200 recordings.)
    - Level. They take the natural logarithm of a magnitude or a power, so that 1 dB is a fixed step;
      the 0 dB of a tile, the 99.9th percentile of the recording, is put where that percentile of
      their own input lies for the same recordings. So levels mean what they meant in training.
    - Rows. A row stays one bin of the CQT: 24 or 36 to the octave in place of 64 or 128 mel bands in
      all. The networks pool over whatever size there is; their kernels now span other intervals.
    - Time. A column is 17 to 46 ms in place of 10 ms. The long windows of the presets are strange to
      them: a made piano is "Piano" at .24 without gamma (.42 upside down), and at .58 with gamma 20
      (.07 upside down). Give them a spec with `gamma=20`.
    - Channels. They have one, so `in_chans` must be 1: there is nothing to paint.

    YAMNet met nothing but 96 x 64 pixels: its last maps are 3 x 2, each of whose places touches an
    edge. On anything larger, even its own log-mel spectrogram of two seconds, its 521 answers are
    meaningless (always "Music", with logits in the hundreds). Its first layers are still a start;
    let its batch norms learn the new statistics (do not freeze them), or take efficientat_mn04.

    References
    ----------
    Jort F. Gemmeke et al., "Audio Set: An ontology and human-labeled dataset for audio events", 2017.
    Manoj Plakal and Dan Ellis, "YAMNet", 2020.
    Florian Schmid, Khaled Koutini and Gerhard Widmer, "Efficient Large-Scale Audio Tagging via
    Transformer-to-CNN Knowledge Distillation", 2023.
    Po-Yao Huang et al., "Masked Autoencoders that Listen", 2022.

    Examples
    --------
    >>> find_audio_net("efficientat_mn04").input_size
    (1, 128, 1000)
    >>> find_audio_net("resnet18") is None
    True
    """
    return _NETS.get(name)


def audio_net_names() -> list[str]:
    """List the networks that know AudioSet.

    Returns
    -------
    list of str
        Their names.
    """
    return sorted(_NETS)


def _make_timm(name: str, fixed: dict[str, Any], **options: Any) -> nn.Module:
    import timm

    return timm.create_model(name, **fixed, **options)


def _make_mn04(pretrained: bool = False, **options: Any) -> nn.Module:
    """Build MobileNet V3 at 0.4 of its width, whose blocks have expansions of their own."""
    from timm.models import build_model_with_cfg
    from timm.models._efficientnet_blocks import SqueezeExcite
    from timm.models._efficientnet_builder import decode_arch_def, round_channels
    from timm.models.mobilenetv3 import MobileNetV3

    return build_model_with_cfg(
        MobileNetV3,
        "efficientat_mn04",
        pretrained,
        pretrained_cfg={"input_size": (1, 128, 1000), "num_classes": 527, "classifier": "classifier",
                        "first_conv": "conv_stem", "architecture": "efficientat_mn04"},
        block_args=decode_arch_def(_MN04_BLOCKS),
        stem_size=8,
        fix_stem=True,
        num_features=512,
        act_layer=nn.Hardswish,
        norm_layer=partial(nn.BatchNorm2d, eps=1e-3),
        se_layer=partial(SqueezeExcite, gate_layer="sigmoid", rd_round_fn=round_channels),
        **options,
    )  # fmt: skip


_MN04_BLOCKS = [
    ["ds_r1_k3_s1_e1_c8_nre"],
    ["ir_r1_k3_s2_e3_c16_nre", "ir_r1_k3_s1_e2_c16_nre"],
    ["ir_r1_k5_s2_e2_c16_se0.25_nre", "ir_r2_k5_s1_e3_c16_se0.25_nre"],
    ["ir_r1_k3_s2_e6_c32", "ir_r1_k3_s1_e2.5_c32", "ir_r2_k3_s1_e2.25_c32"],
    ["ir_r1_k3_s1_e6_c48_se0.25", "ir_r1_k3_s1_e5.66667_c48_se0.25"],
    ["ir_r1_k5_s2_e5.66667_c64_se0.25", "ir_r2_k5_s1_e6_c64_se0.25"],
    ["cn_r1_k1_s1_c384"],
]
# at_zero: the 99.9th percentile of their own input for ten jazz recordings: 2.2 to 3.1, 1.1 to 1.6, 0.5 to 0.9
_NETS = {
    # ln(magnitude + 0.001)
    "yamnet": AudioNet(
        partial(_make_timm, "mobilenetv1_100", {"pad_type": "same"}), True, 1 / _DB_PER_NEPER, 2.5, (1, 96, 64), 521
    ),
    # (ln(power + 0.00001) + 4.5) / 5
    "efficientat_mn04": AudioNet(_make_mn04, False, 2 / _DB_PER_NEPER / 5, 1.3, (1, 128, 1000), 527),
    # (ln(power) + 4.27) / 9.14
    "audiomae": AudioNet(
        partial(_make_timm, "vit_base_patch16_224", {"global_pool": "avg"}), True,
        2 / _DB_PER_NEPER / 9.14, 0.6, (1, 1024, 128), 527,
    ),
}  # fmt: skip


PATCH, STRIDES = 16, (10, 16)
_DEIT = {
    size: f"deit_{size}_distilled_patch16_224" for size in ("tiny", "small", "base")
}
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
    return timm.create_model(
        _DEIT[match[1] or "tiny"], embed_layer=partial(_overlapping, stride), **options
    )


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
    embed.grid_size = tuple(
        (s - p) // stride + 1
        for s, p in zip(embed.img_size, embed.patch_size, strict=True)
    )
    embed.num_patches = embed.grid_size[0] * embed.grid_size[1]
    return embed
