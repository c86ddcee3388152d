"""Tiles: cutting them from a CQT, and writing and reading them as PNG files."""

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.buffer import DiskBuffer
from cqt2img.errors import InputError
from cqt2img.tiles.cqt import to_db
from cqt2img.tiles.cqt_kernels import FloatArray
from cqt2img.tiles.spec import TileSpec

Tiles = NDArray[np.uint8]

_SOFTWARE = "cqt2img"
_TILES_PER_BLOCK = 16
_N_COLOURS = 256
# Constants of the PNG specification.
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BIT_DEPTH = 8
_PALETTE_COLOUR = 3
_FILTER_SUB = 1  # stores the difference from the pixel to the left


class TileInfo(TypedDict, total=False):
    """Text chunks of a tile.

    `spec_key`, `min_db` and `max_db` describe the spec; `source` is the path of the
    recording, `start_seconds` the time of the first column, `valid_width` the number of
    columns that the recording covers, and `tuning_cents` the estimated tuning, None for
    a CQT.
    """

    spec_key: str
    source: str
    start_seconds: float
    valid_width: int
    tuning_cents: float | None
    min_db: float
    max_db: float


def cut_tiles(cqt: NDArray, spec: TileSpec) -> Tiles:
    """Cut the CQT of a recording into tiles.

    Parameters
    ----------
    cqt : ndarray, shape (n_bins, n_frames)
        A CQT from `compute_cqt` or another library: complex values, magnitudes or dB.
        Row 0 is the lowest bin.
    spec : TileSpec
        Must have the same number of bins.

    Returns
    -------
    ndarray of uint8, shape (n_tiles, height, width)
        Levels in steps of `spec.step_db` dB; 0 is `spec.min_db`. Row 0 is the highest
        bin, columns are frames. The last tile is padded with level 0; see
        `spec.min_fill`.

    Raises
    ------
    InputError
        If `cqt` is not a numeric array of shape `(spec.n_bins, n_frames)`.
    AudioError
        If `cqt` is empty, silent or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> spec = TileSpec(n_bins=84, height=96, width=128, bins_per_octave=12, f_min=32.7)
    >>> cut_tiles(np.random.default_rng(0).random((84, 431)), spec).shape
    (4, 96, 128)
    """
    rows = to_db(cqt, spec).T
    return np.concatenate(list(stream_tiles(rows, np.float32(0), spec)))


def stream_tiles(
    rows: DiskBuffer | FloatArray, reference: np.float32, spec: TileSpec
) -> Iterator[Tiles]:
    """Cut a CQT of any length into tiles, in bounded memory.

    Parameters
    ----------
    rows : DiskBuffer or ndarray of float32, shape (n_frames, n_bins)
        Levels in dB.
    reference : float32
        Level that becomes 0 dB.
    spec : TileSpec
        Defines the size of a tile and the range in dB.

    Yields
    ------
    ndarray of uint8, shape (n_tiles, height, width)
        The next tiles, see `cut_tiles`.
    """
    n_tiles = count_tiles(len(rows), spec)
    n_padding_rows = spec.height - spec.n_bins
    lowest = reference + np.float32(spec.min_db)
    for first in range(0, n_tiles, _TILES_PER_BLOCK):
        n_block = min(_TILES_PER_BLOCK, n_tiles - first)
        n_frames = n_block * spec.width
        start = first * spec.width
        levels = rows[start : start + n_frames] - lowest
        levels *= np.float32(1 / spec.step_db)
        np.clip(levels, 0, 255, out=levels)
        np.rint(levels, out=levels)
        frames = np.zeros((n_frames, spec.height), np.uint8)
        frames[: len(levels), n_padding_rows:] = levels[:, ::-1]
        tiles = frames.reshape(n_block, spec.width, spec.height)
        yield np.ascontiguousarray(tiles.swapaxes(1, 2))


def count_tiles(n_frames: int, spec: TileSpec) -> int:
    """Return the number of tiles of a recording.

    Parameters
    ----------
    n_frames : int
        Number of frames of the recording, 1 or more.
    spec : TileSpec
        Defines the width of a tile and the minimum fill of the last one.

    Returns
    -------
    int
        Number of tiles, 1 or more.

    Examples
    --------
    >>> spec = TileSpec(width=100, min_fill=0.25)
    >>> [count_tiles(n_frames, spec) for n_frames in (3, 124, 125, 200)]
    [1, 1, 2, 2]
    """
    n_whole, n_rest = divmod(n_frames, spec.width)
    if n_rest and n_rest >= spec.min_fill * spec.width:
        return n_whole + 1
    return max(1, n_whole)


def tiles_to_db(tiles: Tiles, spec: TileSpec) -> FloatArray:
    """Convert levels to dB relative to the reference of the recording.

    Parameters
    ----------
    tiles : ndarray of uint8, any shape
        Levels.
    spec : TileSpec
        Defines the range in dB.

    Returns
    -------
    ndarray of float32, same shape
        Levels in dB, within half of `spec.step_db` of the CQT.
    """
    levels = tiles.astype(np.float32) * spec.step_db
    return (spec.min_db + levels).astype(np.float32)


@lru_cache(maxsize=16)
def palette(colour_map: str) -> NDArray[np.uint8]:
    """Return the 256 colours of a colour map.

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
        If the colour map does not exist or two of its colours are equal, so that
        levels could not be recovered from colours.
    """
    from matplotlib import colormaps

    if colour_map not in colormaps:
        raise InputError(
            "colour_map must be the name of a matplotlib colour map, got "
            f"{colour_map!r}. Try 'magma' or 'inferno'."
        )
    rgba = colormaps[colour_map](np.linspace(0, 1, _N_COLOURS))
    colours = np.rint(rgba[:, :3] * 255).astype(np.uint8)
    if len(np.unique(colours, axis=0)) != _N_COLOURS:
        raise InputError(
            f"colour_map must have {_N_COLOURS} distinct colours, got {colour_map!r}. "
            "Try 'magma' or 'inferno'."
        )
    colours.flags.writeable = False
    return colours


def colour_tiles(tiles: Tiles, spec: TileSpec) -> NDArray[np.uint8]:
    """Convert levels to the colours of the spec.

    Parameters
    ----------
    tiles : ndarray of uint8, shape (..., height, width)
        Levels.
    spec : TileSpec
        Defines the colour map.

    Returns
    -------
    ndarray of uint8, shape (..., height, width, 3)
        Red, green and blue, as an image viewer shows the PNG file.
    """
    return palette(spec.colour_map)[tiles]


def write_tile(
    path: Path, tile: Tiles, spec: TileSpec, info: Mapping[str, object]
) -> None:
    """Write a tile as a palette PNG whose pixels are the levels.

    Parameters
    ----------
    path : Path
        File to write.
    tile : ndarray of uint8, shape (height, width)
        Levels.
    spec : TileSpec
        Defines the colour map; its key and range in dB become text chunks.
    info : mapping
        Further text chunks, see `TileInfo`: `source`, `start_seconds`, `valid_width`,
        `tuning_cents`.
    """
    height, width = tile.shape
    header = struct.pack(
        ">IIBBBBB", width, height, _BIT_DEPTH, _PALETTE_COLOUR, 0, 0, 0
    )
    colours = palette(spec.colour_map)
    info = {
        "spec_key": spec.key,
        "min_db": spec.min_db,
        "max_db": spec.max_db,
        **info,
    }
    text = {name: json.dumps(value) for name, value in info.items()}
    chunks = [
        _make_chunk(b"IHDR", header),
        _make_chunk(b"PLTE", colours.tobytes()),
        _make_text_chunk("Software", _SOFTWARE),
        *(_make_text_chunk(name, content) for name, content in text.items()),
        _make_chunk(b"IDAT", _compress(tile)),
        _make_chunk(b"IEND", b""),
    ]
    path.write_bytes(_SIGNATURE + b"".join(chunks))


def _compress(tile: Tiles) -> bytes:
    """Return the filtered and compressed pixels of a tile."""
    height, width = tile.shape
    lines = np.empty((height, width + 1), np.uint8)
    lines[:, 0] = _FILTER_SUB
    pixels = lines[:, 1:]
    pixels[:, 0] = tile[:, 0]
    pixels[:, 1:] = np.diff(tile, axis=1)
    # As small as the best level of Pillow and twice as fast as the first level of zlib
    # (benchmarks/RESULTS.md).
    compressor = zlib.compressobj(
        1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE
    )
    return compressor.compress(lines.data) + compressor.flush()


def _make_chunk(kind: bytes, data: bytes) -> bytes:
    """Return a PNG chunk: length, kind, data and checksum."""
    length = struct.pack(">I", len(data))
    content = kind + data
    checksum = struct.pack(">I", zlib.crc32(content))
    return length + content + checksum


def _make_text_chunk(name: str, text: str) -> bytes:
    """Return a text chunk. JSON is ASCII, so that any file name fits into latin-1."""
    return _make_chunk(b"tEXt", f"{name}\0{text}".encode("latin-1"))


def read_tile(path: Path | str, spec: TileSpec | None = None) -> tuple[Tiles, TileInfo]:
    """Read a tile and its text chunks.

    Parameters
    ----------
    path : Path or str
        PNG file that was written by `render`.
    spec : TileSpec, optional
        Expected spec.

    Returns
    -------
    tile : ndarray of uint8, shape (height, width)
        Levels, identical to those that were written.
    info : dict
        `spec_key`, `source`, `start_seconds`, `valid_width`, `tuning_cents`, `min_db`
        and `max_db`.

    Raises
    ------
    InputError
        If the file is missing, damaged, not a tile, or a tile of another spec.
    """
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.load()
            text = dict(getattr(image, "text", {}))
            is_palette = image.mode == "P"
            tile = np.array(image)
            colours = bytes(image.getpalette() or [])
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as err:
        raise InputError(
            f"read_tile: path must be a readable tile, got {str(path)!r}: {err}. "
            "Render its recording again."
        ) from err
    if text.pop("Software", None) != _SOFTWARE or not is_palette:
        raise InputError(
            f"read_tile: path must be a tile written by render, got {str(path)!r}. "
            "Render the recording."
        )
    info = _parse_info(path, text)
    if spec is not None:
        _check_spec(path, spec, tile, info)
        # Programs that shrink PNG files reorder the palette.
        if colours != palette(spec.colour_map).tobytes():
            raise InputError(
                "read_tile: path must be a tile with the colours of "
                f"{spec.colour_map}, got {str(path)!r} with other colours. "
                "Render its recording again."
            )
    return tile, info


def _parse_info(path: Path | str, text: dict[str, str]) -> TileInfo:
    """Decode text chunks; image editors change them when they save a tile."""
    try:
        info = {name: json.loads(value) for name, value in text.items()}
    except ValueError:
        info = {}
    if "spec_key" not in info:
        raise InputError(
            "read_tile: path must be an unchanged tile written by render, got "
            f"{str(path)!r} with other text chunks. Render its recording again."
        )
    return cast(TileInfo, info)


def _check_spec(path: Path | str, spec: TileSpec, tile: Tiles, info: TileInfo) -> None:
    """Raise an InputError if a tile has another spec or another size."""
    key = info["spec_key"]
    if key != spec.key or tile.shape != spec.size:
        raise InputError(
            f"read_tile: path must be a tile of spec {spec.key} and size {spec.size}, "
            f"got {str(path)!r} of spec {key} and size {tile.shape}. "
            "Render its recording again with this spec."
        )
