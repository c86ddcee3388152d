"""Summary statistics of tiles: the features of the small models of an audit."""

import numpy as np

from cqt2img._utils.array_types import Float32Array, Tiles
from cqt2img.data.tile_arrays import TileArrays
from cqt2img.tiles.spec import TileSpec


def compute_tile_statistics(
    tiles: Tiles, spec: TileSpec, n_frames: int | None = None
) -> Float32Array:
    """Compute level, spread and rise of every semitone of every tile, in dB.

    Parameters
    ----------
    tiles : ndarray of uint8, shape (n_tiles, height, width)
        Levels of one recording.
    spec : TileSpec
        The meaning of a pixel.
    n_frames : int, optional
        Number of columns that contain sound; by default all.

    Returns
    -------
    ndarray of float32, shape (n_kept, 3 * n_semitones)
        Mean, standard deviation, and mean rise from one column to the next, lowest
        semitone first. A last tile that is less than half full is left out, unless
        it is the only one.

    Notes
    -----
    These are close to the features that performers were recognised by before neural
    networks. They depend on the equaliser and the noise of a recording as much as on
    register and touch of the player.

    References
    ----------
    George Tzanetakis and Perry Cook, "Musical genre classification of audio signals",
    2002.

    Examples
    --------
    >>> spec = TileSpec.preset("fast")
    >>> silence = np.zeros((2, *spec.size), dtype="uint8")
    >>> compute_tile_statistics(silence, spec).shape
    (2, 288)
    """
    n_tiles, _, width = tiles.shape
    n_columns = np.full(n_tiles, width)
    if n_frames is not None:
        n_before_last = (n_tiles - 1) * width
        n_columns[-1] = n_frames - n_before_last
    levels = compute_semitone_levels(tiles, spec)
    rows = []
    for index, end in enumerate(n_columns):
        if n_tiles == 1 or end >= width / 2:
            rows.append(_summarise(levels[index, :, :end]))
    return np.stack(rows)


def compute_all_tile_statistics(arrays: TileArrays) -> list[Float32Array]:
    """Compute the tile statistics of all recordings.

    Parameters
    ----------
    arrays : TileArrays
        Tiles of the recordings.

    Returns
    -------
    list of ndarray of float32, shape (n_kept, 3 * n_semitones)
        The result of `compute_tile_statistics` for each recording.
    """
    statistics = []
    for index, n_frames in enumerate(arrays.n_frames.tolist()):
        tiles = arrays.tiles(index)
        statistics.append(compute_tile_statistics(tiles, arrays.spec, n_frames))
    return statistics


def compute_semitone_levels(tiles: Tiles, spec: TileSpec) -> Float32Array:
    """Compute the level of the loudest row of every semitone, in dB above the floor.

    Parameters
    ----------
    tiles : ndarray of uint8, shape (..., height, width)
        Levels.
    spec : TileSpec
        The meaning of a pixel.

    Returns
    -------
    ndarray of float32, shape (..., n_semitones, width)
        Lowest semitone first.
    """
    bins_per_semitone = spec.bins_per_octave // 12
    n_semitones = spec.n_bins // bins_per_semitone
    lowest_first = tiles[..., ::-1, :]
    rows = lowest_first[..., : n_semitones * bins_per_semitone, :]
    *leading, _, width = tiles.shape
    bins = rows.reshape(*leading, n_semitones, bins_per_semitone, width)
    loudest = bins.max(axis=-2)
    return loudest * np.float32(spec.step_db)


def _summarise(levels: Float32Array) -> Float32Array:
    """Return mean, standard deviation and mean rise of every row."""
    mean = levels.mean(axis=1)
    spread = levels.std(axis=1)
    rise = np.zeros(len(levels), np.float32)
    if levels.shape[1] > 1:
        steps = np.diff(levels, axis=1)
        rise = np.maximum(steps, 0).mean(axis=1)
    statistics = np.concatenate([mean, spread, rise])
    return statistics.astype(np.float32)
