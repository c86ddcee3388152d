"""Files of a tile folder, and csv files as tables of text."""

from pathlib import Path
from typing import TYPE_CHECKING

from cqt2img._utils.tables import PATH_ERRORS
from cqt2img.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

SPEC_FILE = "spec.json"
RECORDINGS_FILE = "recordings.csv"
TILES_FILE = "tiles.csv"


def resolve_tile_folder(path: Path) -> Path:
    """Replace the path of a manifest by its tile folder.

    Parameters
    ----------
    path : Path
        Any path.

    Returns
    -------
    Path
        The parent folder if `path` is the `recordings.csv` of a tile folder, else
        `path` itself.
    """
    is_manifest = path.name == RECORDINGS_FILE
    if is_manifest and (path.parent / SPEC_FILE).is_file():
        return path.parent
    return path


def read_csv(path: Path) -> "pd.DataFrame":
    """Read a csv file as text, so that a label such as 007 stays a string.

    Parameters
    ----------
    path : Path
        A csv file with a header, in UTF-8.

    Returns
    -------
    DataFrame
        Python strings; an empty field is an empty string.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    import pandas as pd

    try:
        return pd.read_csv(
            path,
            dtype=object,
            keep_default_na=False,
            encoding="utf-8-sig",
            encoding_errors=PATH_ERRORS,
        )
    except (ValueError, OSError) as error:
        raise InputError(
            f"cannot read the csv file {str(path)!r}: {error}. Save it again."
        ) from error
