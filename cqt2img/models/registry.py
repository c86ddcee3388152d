"""Backbones to choose from: what each costs, and what it is good for."""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pandas as pd


class Backbone(NamedTuple):
    """One backbone, measured by `benchmarks/backbones.py`.

    Parameters
    ----------
    name : str
        What `Classifier` takes.
    in_chans : int
        Channels that it was measured with.
    weights : {"imagenet", "file", "own"}
        Whether timm's hub has weights for it, a file must be given, or they come with this package.
    parameters : float
        Millions.
    gmacs : float
        Thousands of millions of multiplications for one tile of the piano preset.
    time : float
        Of one tile on one core of a CPU, as a multiple of resnet18's.
    good_for : str
        One sentence.
    """

    name: str
    in_chans: int
    weights: str
    parameters: float
    gmacs: float
    time: float
    good_for: str


ROWS = (
    Backbone(
        "notes",
        1,
        "own",
        0.06,
        0.45,
        0.3,
        "The default, for the piano: reads notes, and tells players by them.",
    ),
    Backbone(
        "resnet18",
        3,
        "imagenet",
        11.18,
        1.78,
        1.0,
        "Sees pictures: quick on a CPU, patient with learning rates.",
    ),
    Backbone(
        "resnet50",
        3,
        "imagenet",
        23.53,
        4.0,
        2.8,
        "The next step up from resnet18, where a GPU or a night is at hand.",
    ),
    Backbone(
        "mobilenetv2_100",
        3,
        "imagenet",
        2.24,
        0.29,
        0.4,
        "A model of 9 MB, of plain parts that run everywhere.",
    ),
    Backbone(
        "mobilenetv3_large_100",
        3,
        "imagenet",
        4.21,
        0.21,
        0.3,
        "Little work for what it knows, on a laptop or a phone.",
    ),
    Backbone(
        "mobilenetv4_conv_small",
        3,
        "imagenet",
        2.51,
        0.18,
        0.2,
        "The quickest: first trials, and answers on small machines.",
    ),
    Backbone(
        "efficientnet_b0",
        3,
        "imagenet",
        4.02,
        0.38,
        0.5,
        "Accurate for its size; its norms want batches of 16 or more.",
    ),
    Backbone(
        "tf_efficientnetv2_b0",
        3,
        "imagenet",
        5.87,
        0.7,
        0.6,
        "Its successor: a little more work, a little more accurate.",
    ),
    Backbone(
        "convnext_atto",
        3,
        "imagenet",
        3.38,
        0.54,
        0.6,
        "Small, without batch norms: batches of any size will do.",
    ),
    Backbone(
        "convnext_tiny",
        3,
        "imagenet",
        27.83,
        4.36,
        3.7,
        "The most accurate of these on ImageNet; wants a GPU.",
    ),
    Backbone(
        "vit_tiny_patch16_224",
        3,
        "imagenet",
        5.53,
        1.22,
        1.3,
        "A small plain transformer, from 14 million pictures.",
    ),
    Backbone(
        "vit_small_patch16_224",
        3,
        "imagenet",
        21.67,
        4.5,
        3.9,
        "The same with four times the parameters; wants a GPU.",
    ),
    Backbone(
        "deit_tiny_distilled_patch16_224",
        3,
        "imagenet",
        5.53,
        1.23,
        1.0,
        "What ast is, by the name it has for pictures.",
    ),
    Backbone(
        "ast",
        3,
        "imagenet",
        5.53,
        1.23,
        1.0,
        "Audio Spectrogram Transformer, tiny: every note meets every other at once.",
    ),
    Backbone(
        "ast_tiny_s10",
        3,
        "imagenet",
        5.58,
        3.65,
        2.8,
        "The same with overlapping patches, as in the paper.",
    ),
    Backbone(
        "ast_small",
        3,
        "imagenet",
        21.67,
        4.52,
        3.0,
        "Audio Spectrogram Transformer of middle size; wants a GPU.",
    ),
    Backbone(
        "ast_base384_s10",
        3,
        "imagenet",
        86.03,
        44.99,
        30.1,
        "Its size in the paper; wants a large GPU and much data.",
    ),
    Backbone(
        "yamnet",
        1,
        "file",
        3.22,
        0.55,
        0.5,
        "Knows AudioSet, in short clips; a start, not a judge.",
    ),
    Backbone(
        "efficientat_mn04",
        1,
        "file",
        0.72,
        0.04,
        0.1,
        "Knows AudioSet; the quickest, and no worse on new albums.",
    ),
    Backbone(
        "audiomae",
        1,
        "file",
        85.41,
        17.12,
        9.2,
        "A large transformer that knows AudioSet; wants a GPU.",
    ),
    Backbone(
        "test_resnet",
        3,
        "imagenet",
        0.37,
        0.2,
        0.1,
        "Tiny: shows whether everything runs, and learns small tasks.",
    ),
)


def list_backbones() -> "pd.DataFrame":
    """List backbones to choose from, with what they cost and what they are good for.

    Every other classification network of timm works by its name as well.

    Returns
    -------
    DataFrame
        One row each: `name`; `in_chans` and `weights` ("imagenet", "own" for what comes with this package,
        or "file" for networks that know sound, whose weights must be given as a file), `parameters` in
        millions, `gmacs` (thousands of millions of multiplications for a tile of 192 x 256 pixels), `time` of
        such a tile on one core as a multiple of resnet18's, and `good_for`.

    Examples
    --------
    >>> import cqt2img
    >>> table = cqt2img.list_backbones().set_index("name")
    >>> table.loc["resnet18", ["parameters", "time"]].tolist()
    [11.18, 1.0]
    """
    import pandas as pd

    return pd.DataFrame(ROWS, columns=list(Backbone._fields))
