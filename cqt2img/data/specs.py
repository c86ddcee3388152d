"""The tile spec that recordings or rendered tiles are used with."""

import os
from pathlib import Path

from cqt2img.data.manifest import SPEC_FILE, resolve_tile_folder
from cqt2img.data.recordings import Recordings, RecordingsLike
from cqt2img.data.tile_folder import TileSet
from cqt2img.errors import InputError
from cqt2img.tiles.spec import TileSpec


def as_spec(spec: TileSpec | str | os.PathLike[str]) -> TileSpec:
    """Load the spec that a name or a file stands for.

    Parameters
    ----------
    spec : TileSpec, str or Path
        A spec, the name of a preset, or a JSON file.

    Returns
    -------
    TileSpec
        The spec.
    """
    return spec if isinstance(spec, TileSpec) else TileSpec.preset(str(spec))


def resolve_spec(
    spec: TileSpec | str | os.PathLike[str] | None,
    X: RecordingsLike,
    caller: str,
    default: str = "piano",
) -> TileSpec:
    """Choose the spec for recordings, and check that rendered tiles have it.

    Parameters
    ----------
    spec : TileSpec, str, Path or None
        The requested spec; None takes that of the tiles, or `default` for recordings
        that are not rendered.
    X : folder, table, TileSet, Recordings, or sequence
        Recordings, or tiles.
    caller : str
        Public method or command that error messages start with.
    default : str
        Name of a preset.

    Returns
    -------
    TileSpec
        The spec.

    Raises
    ------
    InputError
        If `X` contains tiles of another spec.
    """
    folder = _find_tile_folder(X)
    found = None if folder is None else TileSpec.preset(folder / SPEC_FILE)
    if spec is None:
        return found or TileSpec.preset(default)
    wanted = as_spec(spec)
    if found is not None and found.key != wanted.key:
        raise InputError(
            f"{caller}: X must hold tiles of spec {wanted.key}, got {str(folder)!r} of "
            f"spec {found.key}. Render the recordings again with this spec."
        )
    return wanted


def _find_tile_folder(X: RecordingsLike) -> Path | None:
    """Return the tile folder that X was listed from, if there is one."""
    import pandas as pd

    if isinstance(X, TileSet):
        return _if_rendered(X.path)
    if isinstance(X, (str, os.PathLike)):
        return _if_rendered(resolve_tile_folder(Path(X)))
    tiles: list[Path] = []
    if isinstance(X, Recordings):
        tiles = [recording.tiles for recording in X if recording.tiles is not None]
    elif isinstance(X, pd.DataFrame) and {"item", "tiles"} <= set(X.columns):
        tiles = [Path(folder) for folder in X["tiles"] if isinstance(folder, str)]
    parents = tiles[0].parents if tiles else ()
    return next((folder for folder in parents if _if_rendered(folder)), None)


def _if_rendered(folder: Path) -> Path | None:
    return folder if (folder / SPEC_FILE).is_file() else None
