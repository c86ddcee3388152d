"""Hear who is playing: constant-Q pictures of recordings, and backbones that learn players from them.

>>> import cqt2img
>>> cqt2img.TileSpec.preset("piano").size
(192, 256)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cqt2img.audio import load_wave
    from cqt2img.catalogue import list_backbones
    from cqt2img.classifier import Classifier, load
    from cqt2img.cqt import compute_cqt
    from cqt2img.drawing import plot_tiles
    from cqt2img.errors import AudioError, Cqt2imgError, InputError, MissingExtraError
    from cqt2img.evaluate import Evaluation
    from cqt2img.rendering import render
    from cqt2img.report import plot_confusion, plot_history
    from cqt2img.spec import TileSpec
    from cqt2img.split import group_split
    from cqt2img.tile import colour_tiles, cut_tiles, read_tile, tiles_to_db
    from cqt2img.tileset import TileSet, open_tiles

_HOME = {
    "AudioError": "errors",
    "Classifier": "classifier",
    "Cqt2imgError": "errors",
    "Evaluation": "evaluate",
    "InputError": "errors",
    "MissingExtraError": "errors",
    "TileSet": "tileset",
    "TileSpec": "spec",
    "colour_tiles": "tile",
    "compute_cqt": "cqt",
    "cut_tiles": "tile",
    "group_split": "split",
    "list_backbones": "catalogue",
    "load": "classifier",
    "load_wave": "audio",
    "open_tiles": "tileset",
    "plot_confusion": "report",
    "plot_history": "report",
    "plot_tiles": "drawing",
    "read_tile": "tile",
    "render": "rendering",
    "tiles_to_db": "tile",
}

__all__ = [
    "AudioError",
    "Classifier",
    "Cqt2imgError",
    "Evaluation",
    "InputError",
    "MissingExtraError",
    "TileSet",
    "TileSpec",
    "colour_tiles",
    "compute_cqt",
    "cut_tiles",
    "group_split",
    "list_backbones",
    "load",
    "load_wave",
    "open_tiles",
    "plot_confusion",
    "plot_history",
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
