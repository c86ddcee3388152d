"""Answers as tables."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.tables import make_table
from cqt2img.inference.calibration import to_proba
from cqt2img.inference.predict import RecordingOutput
from cqt2img.tiles.spec import TileSpec

if TYPE_CHECKING:
    import pandas as pd


def recording_table(
    paths: Iterable[str],
    heard: Iterable[RecordingOutput],
    classes: NDArray,
    temperature: float,
    top_k: int,
) -> "pd.DataFrame":
    """Tell who plays in every recording, one row each.

    Parameters
    ----------
    paths : iterable of str
        The recordings.
    heard : iterable of RecordingOutput
        What the network made of them.
    classes : ndarray, shape (n_classes,)
        The names.
    temperature : float
        See `to_proba`.
    top_k : int
        How many names to list, 1 or more.

    Returns
    -------
    DataFrame
        `path`, `label`, `probability`, `label_2` and so on, `status`, `reason`, `message`.
    """
    rows = []
    for path, one in zip(paths, heard, strict=True):
        proba = None if one.recording is None else to_proba(one.recording, temperature)
        rows.append({"path": path, **answer(proba, classes, top_k), **_state(one)})
    return make_table(rows)


def tile_table(
    paths: Iterable[str],
    heard: Iterable[RecordingOutput],
    classes: NDArray,
    temperature: float,
    spec: TileSpec,
    top_k: int,
) -> "pd.DataFrame":
    """Tell who plays in every tile, one row each.

    Parameters
    ----------
    paths : iterable of str
        The recordings.
    heard : iterable of RecordingOutput
        What the network made of them.
    classes : ndarray, shape (n_classes,)
        The names.
    temperature : float
        See `to_proba`.
    spec : TileSpec
        Says how long a tile is.
    top_k : int
        How many names to list, 1 or more.

    Returns
    -------
    DataFrame
        As `recording_table`, with `start_seconds` and `end_seconds` behind the path.
    """
    rows = []
    for path, one in zip(paths, heard, strict=True):
        tiles: list[Any] = (
            [None] if one.tiles is None else list(to_proba(one.tiles, temperature))
        )
        for n, proba in enumerate(tiles):
            start = n * spec.tile_seconds
            end = (
                None
                if proba is None
                else round(min(start + spec.tile_seconds, one.info.seconds or 0), 3)
            )
            times = {
                "start_seconds": None if proba is None else round(start, 3),
                "end_seconds": end,
            }
            rows.append(
                {"path": path, **times, **answer(proba, classes, top_k), **_state(one)}
            )
    return make_table(rows)


def _state(heard: RecordingOutput) -> dict[str, Any]:
    return {k: getattr(heard.info, k) for k in ("status", "reason", "message")}


def answer(
    proba: NDArray[np.float32] | None, classes: NDArray, top_k: int
) -> dict[str, Any]:
    """Put the answer for one recording into words.

    Parameters
    ----------
    proba : ndarray of float32, shape (n_classes,), or None
        Probabilities, or None for a recording that could not be read.
    classes : ndarray, shape (n_classes,)
        The names.
    top_k : int
        How many names to list, 1 or more.

    Returns
    -------
    dict
        `label` and `probability`, and for `top_k` above 1 `label_2`, `probability_2` and so on;
        None throughout where there is no answer.

    Examples
    --------
    >>> answer(np.array([0.25, 0.75], dtype="float32"), np.array(["Evans", "Monk"]), 1)
    {'label': 'Monk', 'probability': 0.75}
    """
    words: dict[str, Any] = {}
    n = min(top_k, len(classes))
    order = (
        [None] * n if proba is None else np.argsort(-proba, kind="stable")[:n].tolist()
    )
    for rank, place in enumerate(order, start=1):
        tail = "" if rank == 1 else f"_{rank}"
        words[f"label{tail}"] = None if place is None else classes[place].item()
        words[f"probability{tail}"] = (
            None if place is None or proba is None else round(float(proba[place]), 6)
        )
    return words
