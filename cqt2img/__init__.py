"""Hear who is playing: constant-Q pictures of recordings, and backbones that learn players from them.

>>> import cqt2img
>>> cqt2img.TileSpec.preset("piano").size
(192, 256)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cqt2img.audio.decode import load_wave
    from cqt2img.auditing.audit import Audit, audit
    from cqt2img.auditing.duplicates import find_duplicates
    from cqt2img.auditing.findings import Finding
    from cqt2img.classifier import Classifier, load
    from cqt2img.data.render import render
    from cqt2img.data.splits import GroupFolds, group_split, join_groups
    from cqt2img.data.tile_folder import TileSet, open_tiles
    from cqt2img.errors import AudioError, Cqt2imgError, InputError, MissingExtraError
    from cqt2img.evaluation.comparison import Comparison, compare
    from cqt2img.evaluation.evaluation import Evaluation
    from cqt2img.evaluation.plots import (
        plot_confusion,
        plot_history,
        plot_reliability,
        plot_risk_coverage,
        plot_scores,
        plot_seconds,
    )
    from cqt2img.models.registry import list_backbones
    from cqt2img.tiles.cqt import compute_cqt
    from cqt2img.tiles.display import plot_tiles
    from cqt2img.tiles.png import colour_tiles, cut_tiles, read_tile, tiles_to_db
    from cqt2img.tiles.spec import TileSpec

_HOME = {
    "AudioError": "errors",
    "Audit": "auditing.audit",
    "Classifier": "classifier",
    "Comparison": "evaluation.comparison",
    "Cqt2imgError": "errors",
    "Evaluation": "evaluation.evaluation",
    "Finding": "auditing.findings",
    "GroupFolds": "data.splits",
    "InputError": "errors",
    "MissingExtraError": "errors",
    "TileSet": "data.tile_folder",
    "TileSpec": "tiles.spec",
    "audit": "auditing.audit",
    "colour_tiles": "tiles.png",
    "compare": "evaluation.comparison",
    "compute_cqt": "tiles.cqt",
    "cut_tiles": "tiles.png",
    "find_duplicates": "auditing.duplicates",
    "group_split": "data.splits",
    "join_groups": "data.splits",
    "list_backbones": "models.registry",
    "load": "classifier",
    "load_wave": "audio.decode",
    "open_tiles": "data.tile_folder",
    "plot_confusion": "evaluation.plots",
    "plot_history": "evaluation.plots",
    "plot_reliability": "evaluation.plots",
    "plot_risk_coverage": "evaluation.plots",
    "plot_scores": "evaluation.plots",
    "plot_seconds": "evaluation.plots",
    "plot_tiles": "tiles.display",
    "read_tile": "tiles.png",
    "render": "data.render",
    "tiles_to_db": "tiles.png",
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
