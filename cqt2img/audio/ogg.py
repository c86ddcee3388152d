"""Check of Ogg files (Vorbis, Opus, FLAC) before they are decoded.

libsndfile skips a damaged page without an error, and reads only the first of several
streams that follow one another.
"""

import io
import struct
import zlib
from typing import NamedTuple

from cqt2img.audio.reasons import corrupt_error, truncated_error
from cqt2img.audio.source import WINDOW, Source, make_source, read_at

OGG_MAGIC = b"OggS"
# Magic number, version, flags, position, serial, number, checksum, count of segments.
_HEADER = struct.Struct("<4s2B8s4sI4sB")
_CHECKSUM_START = 22
_CHECKSUM_STOP = 26
_IS_FIRST = 2  # flag
_IS_LAST = 4
_MIRRORED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class _Page(NamedTuple):
    flags: int
    serial: bytes  # of its stream
    number: int
    checksum: bytes
    data: bytes  # all of it
    n_bytes: int  # of it, according to its header


def check_ogg(file: io.FileIO, span: range, name: str) -> Source:
    """Check the order and the checksums of all pages of an Ogg file.

    Parameters
    ----------
    file : FileIO
        The file.
    span : range
        Offsets from the magic number to the end of the file.
    name : str
        Path of the file, for errors.

    Returns
    -------
    Source
        One file for each of the streams that follow one another.

    Raises
    ------
    AudioError
        If a page is damaged or missing.
    """
    starts: list[int] = []
    next_numbers: dict[bytes, int] = {}  # of the streams that have not ended
    position = span.start
    while (page := _read_page(file, position)) is not None:
        if position + page.n_bytes > span.stop:
            raise truncated_error(name, "stops before its last page")
        if page.flags & _IS_FIRST:
            if not next_numbers:
                starts.append(position)
            next_numbers[page.serial] = page.number
        is_next = next_numbers.get(page.serial) == page.number
        if not is_next or not _is_intact(page):
            raise corrupt_error(name, f"has a fault in page {page.number}")
        next_numbers[page.serial] = page.number + 1
        if page.flags & _IS_LAST:
            del next_numbers[page.serial]
        position += page.n_bytes
    if OGG_MAGIC in read_at(file, position, WINDOW):
        raise corrupt_error(name, "has a fault in the middle")
    if next_numbers or not starts:
        raise truncated_error(name, "stops before its last page")
    stops = [*starts[1:], position]
    sources = [
        make_source(file, range(*ends)) for ends in zip(starts, stops, strict=True)
    ]
    return Source(tuple(source.files[0] for source in sources))


def _read_page(file: io.FileIO, position: int) -> _Page | None:
    """Read the page at an offset, or return None if there is none."""
    header = read_at(file, position, _HEADER.size)
    fields = _HEADER.unpack(header)
    magic, _, flags, _, serial, number, checksum, n_segments = fields
    if magic != OGG_MAGIC:
        return None
    segments = read_at(file, position + _HEADER.size, n_segments)
    n_payload_bytes = sum(segments)
    payload = file.read(n_payload_bytes)
    return _Page(
        flags=flags,
        serial=serial,
        number=number,
        checksum=checksum,
        data=header + segments + payload,
        n_bytes=_HEADER.size + n_segments + n_payload_bytes,
    )


def _is_intact(page: _Page) -> bool:
    """Whether the checksum of a page is right."""
    before = page.data[:_CHECKSUM_START]
    after = page.data[_CHECKSUM_STOP:]
    # The bits are in the reverse order of zlib's.
    mirrored = (before + bytes(4) + after).translate(_MIRRORED_BITS)
    crc = zlib.crc32(mirrored, 0xFFFFFFFF) ^ 0xFFFFFFFF
    checksum = crc.to_bytes(4, "big").translate(_MIRRORED_BITS)
    return checksum == page.checksum
