"""A picture in a few numbers per row: what a small model can tell players, or albums, apart by."""

import numpy as np
from numpy.typing import NDArray

from cqt2img.data.tile_arrays import TileArrays
from cqt2img.tiles.spec import TileSpec


def sketch_tiles(
    tiles: NDArray[np.uint8], spec: TileSpec, n_frames: int | None = None
) -> NDArray[np.float32]:
    """Give level, spread and rise of every semitone of every tile, in dB.

    Parameters
    ----------
    tiles : ndarray of uint8, shape (n_tiles, height, width)
        Levels of one recording.
    spec : TileSpec
        What they mean.
    n_frames : int, optional
        Columns that hold sound; by default all.

    Returns
    -------
    ndarray of float32, shape (n_whole, 3 * n_semitones)
        Mean, standard deviation, and mean rise from one column to the next, lowest semitone first. A
        last tile that is less than half full is left out, if it is not the only one.

    Notes
    -----
    These are about the features that performers were told apart by before there were networks, and
    they hold the equaliser and the noise of a recording as well as the player's register and touch.

    References
    ----------
    George Tzanetakis and Perry Cook, "Musical genre classification of audio signals", 2002.

    Examples
    --------
    >>> spec = TileSpec.preset("fast")
    >>> silence = np.zeros((2, *spec.size), dtype="uint8")
    >>> sketch_tiles(silence, spec).shape
    (2, 288)
    """
    n_tiles, _, width = tiles.shape
    ends = np.full(n_tiles, width)
    if n_frames is not None:
        ends[-1] = n_frames - (n_tiles - 1) * width
    keep = ends >= width / 2 if n_tiles > 1 else np.ones(1, bool)
    rows = semitones(tiles, spec)
    parts = [rows[n, :, : ends[n]] for n in np.flatnonzero(keep)]
    return np.stack([_sketch(part) for part in parts])


def sketch(strips: TileArrays) -> list[NDArray[np.float32]]:
    """Give the sketches of all recordings.

    Parameters
    ----------
    strips : TileArrays
        Their pictures.

    Returns
    -------
    list of ndarray of float32, shape (n_whole, 3 * n_semitones)
        As of `sketch_tiles`, one for each recording.
    """
    return [
        sketch_tiles(strips.tiles(n), strips.spec, int(strips.n_frames[n]))
        for n in range(len(strips))
    ]


def semitones(tiles: NDArray[np.uint8], spec: TileSpec) -> NDArray[np.float32]:
    """Give the loudest row of every semitone, in dB above the floor.

    Parameters
    ----------
    tiles : ndarray of uint8, shape (..., height, width)
        Levels.
    spec : TileSpec
        What they mean.

    Returns
    -------
    ndarray of float32, shape (..., n_semitones, width)
        Lowest first.
    """
    each = spec.bins_per_octave // 12
    n = spec.n_bins // each
    up = tiles[..., ::-1, :][..., : n * each, :]
    return up.reshape(*tiles.shape[:-2], n, each, tiles.shape[-1]).max(
        axis=-2
    ) * np.float32(spec.step_db)


def _sketch(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    rise = (
        np.maximum(np.diff(rows, axis=1), 0).mean(axis=1)
        if rows.shape[1] > 1
        else np.zeros(len(rows), np.float32)
    )
    return np.concatenate([rows.mean(axis=1), rows.std(axis=1), rise]).astype(
        np.float32
    )
