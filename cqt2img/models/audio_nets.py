"""Networks pretrained on AudioSet, and how CQT tiles are adapted to them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import log

from torch import nn

_DB_PER_NEPER = 20 / log(10)  # an amplitude larger by the factor e is 8.7 dB higher


@dataclass(frozen=True)
class AudioNet:
    """A network for log-mel spectrograms, and the mapping of CQT tiles to its input.

    Parameters
    ----------
    make : callable
        Builds the network from options of `timm.create_model`.
    time_first : bool
        Whether rows of the input are time and columns are pitch. In all networks pitch
        rises with the index, whereas the top row of a tile is the highest.
    per_db : float
        Change of the input value per dB.
    at_zero : float
        Input value at 0 dB, the reference level of the recording.
    input_size : tuple of int
        Channels, rows and columns of the input in pretraining.
    n_classes : int
        Number of AudioSet classes in pretraining.
    """

    make: Callable[..., nn.Module]
    time_first: bool
    per_db: float
    at_zero: float
    input_size: tuple[int, int, int]
    n_classes: int


def find_audio_net(name: str) -> AudioNet | None:
    """Look up a network pretrained on AudioSet.

    Parameters
    ----------
    name : str
        "yamnet": MobileNet V1, trained by Google. "efficientat_mn04": MobileNet V3 at
        0.4 of its width, distilled from transformers. "audiomae": the ViT-B/16 of
        AudioMAE, fine-tuned (with `fc_norm`). In a file of weights the parameters must
        have timm's names.

    Returns
    -------
    AudioNet or None
        None for any other name.

    Notes
    -----
    CQT tiles are adapted to networks for log-mel spectrograms as follows.

    - Direction. All networks were trained with low pitch first, whereas the top row of
      a tile is the highest pitch; YAMNet and AudioMAE have time in their rows. The
      tile is flipped, and transposed if needed. (On 10 jazz recordings with 24 bins
      per octave and gamma 4, before any fine-tuning, efficientat_mn04 predicts "Piano"
      with a mean probability of .16 on flipped tiles, .02 on unflipped tiles and .26
      on the log-mel spectrogram of its training. Whether the direction helps to
      identify pianists is unknown: the accuracies of linear heads on both differ by
      less than the error of 200 recordings.)
    - Level. The input is the natural logarithm of a magnitude or a power, so that 1 dB
      is a constant step. The 0 dB of a tile, the 99.9th percentile of the recording,
      is mapped to that percentile of the network's own input for the same recordings.
    - Rows. A row remains one CQT bin: 24 or 36 per octave instead of 64 or 128 mel
      bands in total. The networks pool over any size; their kernels span other
      intervals than in pretraining.
    - Time. A column is 17 to 46 ms instead of 10 ms. The long windows of the presets
      differ from those in pretraining: a synthetic piano is "Piano" with probability
      .24 at gamma 0 (.42 if flipped vertically) and .58 at gamma 20 (.07 if flipped
      vertically). Use a spec with `gamma=20` for these networks.
    - Channels. The networks have one input channel, so `in_chans` must be 1.

    YAMNet was trained on 96 x 64 pixels only: its last feature maps are 3 x 2, and
    every position of them touches an edge. On larger inputs, even on its own log-mel
    spectrogram of two seconds, its 521 outputs are meaningless (always "Music", with
    logits in the hundreds). Its first layers are still useful as a starting point;
    train its batch norms on tiles (do not freeze them), or use efficientat_mn04.

    References
    ----------
    Jort F. Gemmeke et al., "Audio Set: An ontology and human-labeled dataset for audio
    events", 2017.
    Manoj Plakal and Dan Ellis, "YAMNet", 2020.
    Florian Schmid, Khaled Koutini and Gerhard Widmer, "Efficient Large-Scale Audio
    Tagging via Transformer-to-CNN Knowledge Distillation", 2023.
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
    """Return the names of the networks pretrained on AudioSet.

    Returns
    -------
    list of str
        Sorted names.
    """
    return sorted(_NETS)


def _make_yamnet(**options: object) -> nn.Module:
    import timm

    return timm.create_model("mobilenetv1_100", pad_type="same", **options)


def _make_audiomae(**options: object) -> nn.Module:
    import timm

    return timm.create_model("vit_base_patch16_224", global_pool="avg", **options)


def _make_mn04(pretrained: bool = False, **options: object) -> nn.Module:
    """Build MobileNet V3 at 0.4 of its width, with expansion ratios for each block."""
    from timm.models import build_model_with_cfg
    from timm.models._efficientnet_blocks import SqueezeExcite
    from timm.models._efficientnet_builder import decode_arch_def, round_channels
    from timm.models.mobilenetv3 import MobileNetV3

    config = {
        "input_size": (1, 128, 1000),
        "num_classes": 527,
        "classifier": "classifier",
        "first_conv": "conv_stem",
        "architecture": "efficientat_mn04",
    }
    squeeze_excite = partial(
        SqueezeExcite, gate_layer="sigmoid", rd_round_fn=round_channels
    )
    return build_model_with_cfg(
        MobileNetV3,
        "efficientat_mn04",
        pretrained,
        pretrained_cfg=config,
        block_args=decode_arch_def(_MN04_BLOCKS),
        stem_size=8,
        fix_stem=True,
        num_features=512,
        act_layer=nn.Hardswish,
        norm_layer=partial(nn.BatchNorm2d, eps=1e-3),
        se_layer=squeeze_excite,
        **options,
    )


_MN04_BLOCKS = [
    ["ds_r1_k3_s1_e1_c8_nre"],
    ["ir_r1_k3_s2_e3_c16_nre", "ir_r1_k3_s1_e2_c16_nre"],
    ["ir_r1_k5_s2_e2_c16_se0.25_nre", "ir_r2_k5_s1_e3_c16_se0.25_nre"],
    ["ir_r1_k3_s2_e6_c32", "ir_r1_k3_s1_e2.5_c32", "ir_r2_k3_s1_e2.25_c32"],
    ["ir_r1_k3_s1_e6_c48_se0.25", "ir_r1_k3_s1_e5.66667_c48_se0.25"],
    ["ir_r1_k5_s2_e5.66667_c64_se0.25", "ir_r2_k5_s1_e6_c64_se0.25"],
    ["cn_r1_k1_s1_c384"],
]
# at_zero lies in the range of the 99.9th percentile of each network's own input for
# ten jazz recordings: 2.2 to 3.1 (yamnet), 1.1 to 1.6 (mn04), 0.5 to 0.9 (audiomae)
_NETS = {
    "yamnet": AudioNet(  # input: ln(magnitude + 0.001)
        make=_make_yamnet,
        time_first=True,
        per_db=1 / _DB_PER_NEPER,
        at_zero=2.5,
        input_size=(1, 96, 64),
        n_classes=521,
    ),
    "efficientat_mn04": AudioNet(  # input: (ln(power + 0.00001) + 4.5) / 5
        make=_make_mn04,
        time_first=False,
        per_db=2 / _DB_PER_NEPER / 5,
        at_zero=1.3,
        input_size=(1, 128, 1000),
        n_classes=527,
    ),
    "audiomae": AudioNet(  # input: (ln(power) + 4.27) / 9.14
        make=_make_audiomae,
        time_first=True,
        per_db=2 / _DB_PER_NEPER / 9.14,
        at_zero=0.6,
        input_size=(1, 1024, 128),
        n_classes=527,
    ),
}
