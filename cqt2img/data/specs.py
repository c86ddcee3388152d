"""The tile spec that recordings or rendered tiles are used with."""

import os
from collections.abc import Sequence
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
    wanted = None if spec is None else as_spec(spec)
    folder = _find_tile_folder(X)
    if folder is None:
        return wanted or TileSpec.preset(default)
    found = TileSpec.preset(folder / SPEC_FILE)
    if wanted is None:
        return found
    if wanted.key != found.key:
        raise InputError(
            f"{caller}: X must hold tiles of spec {wanted.key}, got {str(folder)!r} of "
            f"spec {found.key}. Render the recordings again with this spec."
        )
    return wanted


def _find_tile_folder(X: RecordingsLike) -> Path | None:
    """Return the tile folder that X was listed from, if there is one."""
    import pandas as pd

    candidates: list[Path] = []
    if isinstance(X, TileSet):
        candidates = [X.path]
    elif isinstance(X, (str, os.PathLike)):
        candidates = [resolve_tile_folder(Path(X))]
    elif isinstance(X, Recordings):
        tiles = [str(recording.tiles or "") for recording in X]
        candidates = _parents_of_first(tiles)
    elif isinstance(X, pd.DataFrame) and "item" in X and "tiles" in X:
        candidates = _parents_of_first(X["tiles"].tolist())
    for folder in candidates:
        if (folder / SPEC_FILE).is_file():
            return folder
    return None


def _parents_of_first(tiles: Sequence[object]) -> list[Path]:
    """Return the folders that contain the first of several folders of tiles."""
    for folder in tiles:
        if isinstance(folder, str) and folder:
            return list(Path(folder).parents)
    return []
