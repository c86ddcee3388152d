"""Recommended backbones with their measured cost."""

from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def list_backbones() -> "pd.DataFrame":
    """List recommended backbones with their size, cost and use.

    Every other classification network of timm can be used by its name as well.

    Returns
    -------
    DataFrame
        One row per backbone with the columns

        - `name`: value for `Classifier(backbone=...)`.
        - `in_chans`: number of input channels that it was measured with.
        - `weights`: "imagenet" (downloaded by timm), "own" (part of this package) or
          "file" (AudioSet networks, whose weights must be passed as a file).
        - `parameters`: number of parameters in millions.
        - `gmacs`: 10^9 multiply-accumulate operations for a tile of 192 x 256 pixels.
        - `time`: time for such a tile on one CPU core, as a multiple of resnet18's.
        - `good_for`: one sentence on its use.

    Notes
    -----
    `benchmarks/backbones.py` measures the numbers and writes them to the table,
    `cqt2img/models/backbones.csv`.

    Examples
    --------
    >>> import cqt2img
    >>> table = cqt2img.list_backbones().set_index("name")
    >>> table.loc["resnet18", ["parameters", "time"]].tolist()
    [11.18, 1.0]
    """
    import pandas as pd

    with (files("cqt2img.models") / "backbones.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)
