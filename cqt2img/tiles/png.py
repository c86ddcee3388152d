"""From a CQT to tiles of one size, and from tiles to PNG files and back."""

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.buffer import DiskBuffer
from cqt2img.errors import InputError
from cqt2img.tiles.cqt import to_db
from cqt2img.tiles.spec import TileSpec

_SOFTWARE = "cqt2img"
_SUB = 1  # the filter of that number in the PNG specification
_N_TILES = 16  # cut at a time


def cut_tiles(cqt: NDArray, spec: TileSpec) -> NDArray[np.uint8]:
    """Cut the CQT of one recording into tiles, as levels of `spec.step_db` dB.

    Parameters
    ----------
    cqt : ndarray, shape (n_bins, n_frames)
        What `compute_cqt` gives, or a CQT from elsewhere: complex, magnitudes, or dB. Row 0 is
        the lowest bin.
    spec : TileSpec
        Must have the same number of bins.

    Returns
    -------
    ndarray of uint8, shape (n_tiles, height, width)
        Low pitch at the bottom, time to the right, 0 is the floor. One pixel is one bin in one
        frame. The last tile is padded with the floor; see `spec.min_fill`.

    Raises
    ------
    InputError
        If the shape or type of `cqt` does not fit `spec`.
    AudioError
        If `cqt` is silent or holds a NaN or an infinity.

    Examples
    --------
    >>> import numpy as np
    >>> spec = TileSpec(n_bins=84, height=96, width=128, bins_per_octave=12, f_min=32.7)
    >>> cut_tiles(np.random.default_rng(0).random((84, 431)), spec).shape
    (4, 96, 128)
    """
    return np.concatenate(list(stream_tiles(to_db(cqt, spec).T, np.float32(0), spec)))


def stream_tiles(
    rows: DiskBuffer | NDArray[np.float32], reference: np.float32, spec: TileSpec
) -> Iterator[NDArray]:
    """Cut a CQT of any length into tiles, some at a time.

    Parameters
    ----------
    rows : DiskBuffer or ndarray of float32, shape (n_frames, n_bins)
        dB.
    reference : float32
        What is to be 0 dB.
    spec : TileSpec
        Says the size of a tile and the range in dB.

    Yields
    ------
    ndarray of uint8, shape (n_tiles, height, width)
        The next tiles, as `cut_tiles` gives them.
    """
    n_tiles = n_tiles_of(len(rows), spec)
    for first in range(0, n_tiles, _N_TILES):
        some = min(_N_TILES, n_tiles - first)
        levels = rows[first * spec.width : (first + some) * spec.width] - (
            reference + np.float32(spec.min_db)
        )
        levels *= np.float32(1 / spec.step_db)
        np.rint(np.clip(levels, 0, 255, out=levels), out=levels)
        strip = np.zeros((some * spec.width, spec.height), np.uint8)
        strip[: len(levels), spec.height - spec.n_bins :] = levels[:, ::-1]
        yield np.ascontiguousarray(
            strip.reshape(some, spec.width, spec.height).swapaxes(1, 2)
        )


def n_tiles_of(n_frames: int, spec: TileSpec) -> int:
    """Count the tiles of a recording.

    Parameters
    ----------
    n_frames : int
        Frames of the recording, 1 or more.
    spec : TileSpec
        Says the width of a tile and how full the last one must be.

    Returns
    -------
    int
        1 or more.

    Examples
    --------
    >>> spec = TileSpec(width=100, min_fill=0.25)
    >>> [n_tiles_of(n, spec) for n in (3, 124, 125, 200)]
    [1, 1, 2, 2]
    """
    whole, rest = divmod(n_frames, spec.width)
    return max(1, whole + (rest > 0 and rest >= spec.min_fill * spec.width))


def tiles_to_db(tiles: NDArray[np.uint8], spec: TileSpec) -> NDArray[np.float32]:
    """Turn levels back into dB relative to the recording's reference.

    Parameters
    ----------
    tiles : ndarray of uint8, any shape
        Levels.
    spec : TileSpec
        Says the range in dB.

    Returns
    -------
    ndarray of float32, same shape
        dB; at most half of `spec.step_db` from what was cut.
    """
    return (spec.min_db + tiles.astype(np.float32) * spec.step_db).astype(np.float32)


@lru_cache(maxsize=16)
def palette(colour_map: str) -> NDArray[np.uint8]:
    """Give the 256 colours of a colour map.

    Parameters
    ----------
    colour_map : str
        Name of a matplotlib colour map.

    Returns
    -------
    ndarray of uint8, shape (256, 3)
        Red, green and blue of every level. Read-only.

    Raises
    ------
    InputError
        If there is no such map, or two of its colours are the same, so that pixels could not be
        read back.
    """
    from matplotlib import colormaps

    if colour_map not in colormaps:
        raise InputError(
            f"palette: colour_map must be a matplotlib colour map, got {colour_map!r}. Try 'magma' or 'inferno'."
        )
    colours = np.rint(
        colormaps[colour_map](np.linspace(0, 1, 256))[:, :3] * 255
    ).astype(np.uint8)
    if len(np.unique(colours, axis=0)) != 256:
        raise InputError(
            f"palette: colour_map must have 256 different colours, got {colour_map!r}. Try 'magma' or 'inferno'."
        )
    colours.flags.writeable = False
    return colours


def colour_tiles(tiles: NDArray[np.uint8], spec: TileSpec) -> NDArray[np.uint8]:
    """Paint levels with the colour map of the spec.

    Parameters
    ----------
    tiles : ndarray of uint8, shape (..., height, width)
        Levels.
    spec : TileSpec
        Says the colour map.

    Returns
    -------
    ndarray of uint8, shape (..., height, width, 3)
        Red, green and blue, as an image viewer shows the PNG.
    """
    return palette(spec.colour_map)[tiles]


def write_tile(
    path: Path, tile: NDArray[np.uint8], spec: TileSpec, info: Mapping[str, Any]
) -> None:
    """Write one tile as a palette PNG whose pixels are the levels.

    Parameters
    ----------
    path : Path
        Where to.
    tile : ndarray of uint8, shape (height, width)
        Levels.
    spec : TileSpec
        Says the colour map; its key and fields go into the text chunks.
    info : mapping
        What else goes into the text chunks, such as `source`, `start_seconds` and `valid_width`.
    """
    height, width = tile.shape
    lines = np.empty(
        (height, width + 1), np.uint8
    )  # every line begins with the number of its filter
    lines[:, 0] = _SUB  # the rest is what changes from left to right
    lines[:, 1] = tile[:, 0]
    np.subtract(tile[:, 1:], tile[:, :-1], out=lines[:, 2:])
    # as small as Pillow's best, and twice as fast as zlib's first level (benchmarks/RESULTS.md)
    deflate = zlib.compressobj(
        1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE
    )
    pixels = deflate.compress(lines.data) + deflate.flush()
    chunks = {
        "spec_key": spec.key,
        "min_db": spec.min_db,
        "max_db": spec.max_db,
        **info,
    }
    # JSON is ASCII, so any file name fits a latin-1 chunk
    text = {
        "Software": _SOFTWARE,
        **{name: json.dumps(value) for name, value in chunks.items()},
    }
    with open(path, "wb") as file:
        file.write(
            b"\x89PNG\r\n\x1a\n"
            + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0))
        )
        file.write(_chunk(b"PLTE", palette(spec.colour_map).tobytes()))
        file.write(
            b"".join(
                _chunk(b"tEXt", f"{k}\0{v}".encode("latin-1")) for k, v in text.items()
            )
        )
        file.write(_chunk(b"IDAT", pixels) + _chunk(b"IEND", b""))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return (
        struct.pack(">I", len(data))
        + kind
        + data
        + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
    )


def read_tile(
    path: Path | str, spec: TileSpec | None = None
) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """Read one tile and what its text chunks say.

    Parameters
    ----------
    path : Path or str
        A PNG that `render` wrote.
    spec : TileSpec, optional
        If given, a tile with another key is refused.

    Returns
    -------
    tile : ndarray of uint8, shape (height, width)
        Levels, exactly as they were cut.
    info : dict
        `spec_key`, `source`, `start_seconds`, `valid_width`, `tuning_cents`, `min_db`, `max_db`.

    Raises
    ------
    InputError
        If the file is missing, damaged, not a tile, or of another spec.
    """
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.load()
            text = dict(getattr(image, "text", {}))
            mode, tile, colours = (
                image.mode,
                np.array(image),
                bytes(image.getpalette() or []),
            )
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as err:
        raise InputError(
            f"read_tile: path must be a readable tile, got {str(path)!r}: {err}. Render its recording again."
        ) from err
    if text.pop("Software", None) != _SOFTWARE or mode != "P":
        raise InputError(
            f"read_tile: path must be a tile made by render, got {str(path)!r}. Render the recording."
        )
    try:
        info = {name: json.loads(value) for name, value in text.items()}
        key = info["spec_key"]
    except (
        ValueError,
        KeyError,
    ) as err:  # programs that save a picture anew add chunks of their own
        raise InputError(
            f"read_tile: path must be a tile as render wrote it, got {str(path)!r} with other text. "
            "Render the recording again."
        ) from err
    if spec is not None and (key != spec.key or tile.shape != spec.size):
        raise InputError(
            f"read_tile: path must be a tile of spec {spec.key}, got {str(path)!r} of spec {key}. "
            "Render the recording again with this spec."
        )
    if (
        spec is not None and colours != palette(spec.colour_map).tobytes()
    ):  # sorted by a program that shrinks PNGs
        raise InputError(
            f"read_tile: path must be a tile with the colours of {spec.colour_map}, got {str(path)!r} with others. "
            "Render the recording again."
        )
    return tile, info
