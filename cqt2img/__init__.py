"""Hear who is playing: constant-Q pictures of recordings, and backbones that learn players from them.

>>> import cqt2img
>>> cqt2img.TileSpec.preset("piano").size
(192, 256)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cqt2img.audio import load_wave
    from cqt2img.auditing import Audit, audit
    from cqt2img.catalogue import list_backbones
    from cqt2img.classifier import Classifier, load
    from cqt2img.comparison import Comparison, compare
    from cqt2img.cqt import compute_cqt
    from cqt2img.drawing import plot_tiles
    from cqt2img.duplicates import find_duplicates
    from cqt2img.errors import AudioError, Cqt2imgError, InputError, MissingExtraError
    from cqt2img.evaluate import Evaluation
    from cqt2img.findings import Finding
    from cqt2img.plots import (
        plot_confusion,
        plot_history,
        plot_reliability,
        plot_risk_coverage,
        plot_scores,
        plot_seconds,
    )
    from cqt2img.rendering import render
    from cqt2img.spec import TileSpec
    from cqt2img.split import GroupFolds, group_split, join_groups
    from cqt2img.tile import colour_tiles, cut_tiles, read_tile, tiles_to_db
    from cqt2img.tileset import TileSet, open_tiles

_HOME = {
    "AudioError": "errors",
    "Audit": "auditing",
    "Classifier": "classifier",
    "Comparison": "comparison",
    "Cqt2imgError": "errors",
    "Evaluation": "evaluate",
    "Finding": "findings",
    "GroupFolds": "split",
    "InputError": "errors",
    "MissingExtraError": "errors",
    "TileSet": "tileset",
    "TileSpec": "spec",
    "audit": "auditing",
    "colour_tiles": "tile",
    "compare": "comparison",
    "compute_cqt": "cqt",
    "cut_tiles": "tile",
    "find_duplicates": "duplicates",
    "group_split": "split",
    "join_groups": "split",
    "list_backbones": "catalogue",
    "load": "classifier",
    "load_wave": "audio",
    "open_tiles": "tileset",
    "plot_confusion": "plots",
    "plot_history": "plots",
    "plot_reliability": "plots",
    "plot_risk_coverage": "plots",
    "plot_scores": "plots",
    "plot_seconds": "plots",
    "plot_tiles": "drawing",
    "read_tile": "tile",
    "render": "rendering",
    "tiles_to_db": "tile",
}

__all__ = [
    "AudioError",
    "Audit",
    "Classifier",
    "Comparison",
    "Cqt2imgError",
    "Evaluation",
    "Finding",
    "GroupFolds",
    "InputError",
    "MissingExtraError",
    "TileSet",
    "TileSpec",
    "audit",
    "colour_tiles",
    "compare",
    "compute_cqt",
    "cut_tiles",
    "find_duplicates",
    "group_split",
    "join_groups",
    "list_backbones",
    "load",
    "load_wave",
    "open_tiles",
    "plot_confusion",
    "plot_history",
    "plot_reliability",
    "plot_risk_coverage",
    "plot_scores",
    "plot_seconds",
    "plot_tiles",
    "read_tile",
    "render",
    "tiles_to_db",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load the module of a public name when it is first used, so that the import stays light."""
    if name not in _HOME:
        raise AttributeError(f"module 'cqt2img' has no attribute {name!r}")
    value = getattr(import_module(f"cqt2img.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
