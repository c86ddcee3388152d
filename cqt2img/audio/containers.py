"""Containers that promise a size: WAV, AIFF, CAF, W64, ASF, MP4 and AU.

libsndfile returns less audio without an error where a file was cut, and stops where a
header promises less than the file holds; so sizes are checked before it decodes.
"""

import io
import struct
from typing import NamedTuple

from cqt2img.audio.reasons import corrupt_error, truncated_error
from cqt2img.audio.source import Source, count_unclaimed, make_source, read_at
from cqt2img.errors import AudioError

ASF_MAGIC = b"\x30\x26\xb2\x75"
MP4_MAGIC = b"ftyp"  # at offset 4
AU_MAGICS = (b".snd", b"dns.")
_PAYLOAD_BYTES = 40  # of a chunk that are read with its header
_W64_DATA = bytes.fromhex("64617461f3acd3118cd100c04f8edb8a")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_MAX_U32 = 0xFFFFFFFF
_MAX_U64 = 0xFFFFFFFFFFFFFFFF
_HEADER_SLACK = 64  # some writers count their header as audio
_DS64_DATA_SIZE = 28  # offset of the 64-bit size of the audio in RF64


class _Layout(NamedTuple):
    """How the chunks of a container are written."""

    first_chunk: int  # offset in bytes
    header: str  # format of name and size for struct
    alignment: int  # of chunks, in bytes
    audio_chunks: tuple[bytes, ...]  # must be complete
    counts_header: bool = False  # whether the size of a chunk includes its header
    is_box: bool = False  # audio may lie in several chunks

    @property
    def header_bytes(self) -> int:
        return struct.calcsize(self.header)

    @property
    def size_format(self) -> str:
        return self.header[0] + self.header[-1]


class _Chunk(NamedTuple):
    """Header of a chunk, and its position in the file."""

    name: bytes
    size: int  # as written in the header
    payload: bytes  # the first bytes
    start: int
    payload_start: int
    size_start: int  # offset from which the size counts

    @property
    def stop(self) -> int:
        return self.size_start + self.size


_RIFF = _Layout(
    first_chunk=12,
    header="<4sI",
    alignment=2,
    audio_chunks=(b"data",),
)
_CAF = _Layout(
    first_chunk=8,
    header=">4sQ",
    alignment=1,
    audio_chunks=(b"data",),
)
_W64 = _Layout(
    first_chunk=40,
    header="<16sQ",
    alignment=8,
    audio_chunks=(_W64_DATA,),
    counts_header=True,
)
_ASF = _Layout(
    first_chunk=0,
    header="<16sQ",
    alignment=1,
    audio_chunks=(_ASF_DATA,),
    counts_header=True,
    is_box=True,
)
_MP4 = _Layout(
    first_chunk=0,
    header=">I4s",
    alignment=1,
    audio_chunks=(b"mdat", b"moov"),
    counts_header=True,
    is_box=True,
)
_LAYOUTS = {
    b"RIFF": _RIFF,
    b"RIFX": _RIFF._replace(header=">4sI"),
    b"RF64": _RIFF,
    b"FORM": _RIFF._replace(header=">4sI", audio_chunks=(b"SSND",)),  # AIFF
    b"caff": _CAF,
    b"riff": _W64,
    ASF_MAGIC: _ASF,
    MP4_MAGIC: _MP4,
}
CHUNKED_MAGICS = frozenset(_LAYOUTS)


def check_chunks(file: io.FileIO, span: range, magic: bytes, name: str) -> Source:
    """Check that the audio chunks of a container are complete.

    Parameters
    ----------
    file : FileIO
        The file.
    span : range
        Offsets from the magic number to the end of the file.
    magic : bytes
        One of `CHUNKED_MAGICS`.
    name : str
        Path of the file, for errors.

    Returns
    -------
    Source
        The file. Where a writer left the size of the audio open, the header gets the
        size that the file has.

    Raises
    ------
    AudioError
        If audio is missing, or the format of a WAV contradicts itself.
    """
    layout = _LAYOUTS[magic]
    origin = span.start + layout.first_chunk
    n_promised = 0
    position = origin
    while position + layout.header_bytes <= span.stop:
        chunk = _read_chunk(file, span, position, magic)
        if chunk.name[:4] == b"fmt ":
            _check_wav_format(chunk.payload, layout.header[0], name)
        if chunk.name == b"COMM" and not _counts_packets(chunk.payload):
            n_promised = int.from_bytes(chunk.payload[2:6], "big") % _MAX_U32
        if layout.counts_header and chunk.stop < chunk.payload_start:
            break  # a box that extends to the end of the file, or not a box
        if layout.is_box and _is_open_size(chunk.size):
            break
        position = origin + _round_up(chunk.stop - origin, layout.alignment)
        if chunk.name not in layout.audio_chunks:
            continue
        if _is_size_missing(file, chunk):
            pieces = _write_size(span, chunk, layout)
            return make_source(file, *pieces, n_promised=n_promised)
        if chunk.stop > span.stop + _HEADER_SLACK:
            n_available = span.stop - chunk.size_start
            raise _incomplete(name, n_available, chunk.size)
        if not layout.is_box:
            surplus = count_unclaimed(file, position) / max(1, chunk.size)
            return make_source(file, span, n_promised=n_promised, surplus=surplus)
    return make_source(file, span, n_promised=n_promised)


def _read_chunk(file: io.FileIO, span: range, start: int, magic: bytes) -> _Chunk:
    layout = _LAYOUTS[magic]
    data = read_at(file, start, layout.header_bytes + _PAYLOAD_BYTES)
    payload = data[layout.header_bytes :]
    fields = struct.unpack_from(layout.header, data)
    if magic == MP4_MAGIC:
        size, name = fields
        if size == 1:  # the size follows in 64 bits
            size = int.from_bytes(payload[:8], "big")
    else:
        name, size = fields
    if magic == b"RF64" and size == _MAX_U32:
        size_bytes = read_at(file, span.start + _DS64_DATA_SIZE, 8)
        size = int.from_bytes(size_bytes, "little")
    payload_start = start + layout.header_bytes
    return _Chunk(
        name=name,
        size=size,
        payload=payload,
        start=start,
        payload_start=payload_start,
        size_start=start if layout.counts_header else payload_start,
    )


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def _is_size_missing(file: io.FileIO, chunk: _Chunk) -> bool:
    """Whether the size of the audio is not in the header, although there is audio."""
    if chunk.size == 0:
        return count_unclaimed(file, chunk.payload_start) > 0
    return _is_open_size(chunk.size)


def _is_open_size(size: int) -> bool:
    """Whether a size is one that programs write when they do not know it yet."""
    return 0x7FFF0000 <= size <= 0x80000000 or size in (_MAX_U32, _MAX_U64)


def _write_size(
    span: range, chunk: _Chunk, layout: _Layout
) -> tuple[range, bytes, range]:
    """Replace the size of a chunk by the number of bytes to the end of the file."""
    width = struct.calcsize(layout.size_format)
    largest = 256**width - 1
    n_available = span.stop - chunk.size_start
    size = struct.pack(layout.size_format, min(n_available, largest))
    before = range(span.start, chunk.payload_start - width)
    after = range(chunk.payload_start, span.stop)
    return before, size, after


def _incomplete(name: str, n_available: int, size: int) -> AudioError:
    return truncated_error(name, f"holds {n_available} of {size} bytes of audio")


def _counts_packets(common: bytes) -> bool:
    """Whether an AIFF counts packets of a codec instead of frames."""
    return common[18:22] in (b"ima4", b"GSM ")


def _check_wav_format(payload: bytes, byte_order: str, name: str) -> None:
    """Raise if the fields of a WAV format chunk contradict each other."""
    fields = struct.unpack(byte_order + "HHIIHH", payload[:16])
    tag, n_channels, rate, byte_rate, frame_bytes, bits = fields
    if tag not in (1, 3, 6, 7, 0xFFFE):
        return
    # Known errors of writers: no byte rate, bits instead of bytes, or one channel only.
    byte_rates = (
        0,
        rate * frame_bytes % 2**32,
        rate * frame_bytes * 8 % 2**32,
        rate * frame_bytes // max(1, n_channels),
    )
    sample_bytes = -(-bits // 8)
    is_padded = bits > 16 and frame_bytes == 4 * n_channels  # 24 bits in four bytes
    is_packed = frame_bytes == n_channels * sample_bytes
    if byte_rate in byte_rates and (is_packed or is_padded):
        return
    problem = (
        f"claims {rate} Hz and {n_channels} channels of {bits} bits, "
        f"but {frame_bytes} bytes per frame and {byte_rate} per second"
    )
    raise corrupt_error(name, problem)


def check_au(file: io.FileIO, span: range, name: str) -> Source:
    """Check that an AU file is complete.

    Parameters
    ----------
    file, span, name
        As for `check_chunks`.

    Returns
    -------
    Source
        The file.

    Raises
    ------
    AudioError
        If audio is missing.
    """
    head = read_at(file, span.start, 12)
    byte_order = ">" if head[:4] == AU_MAGICS[0] else "<"
    offset, size = struct.unpack(byte_order + "II", head[4:])
    n_available = len(span) - offset
    if size != _MAX_U32 and size > n_available:
        raise _incomplete(name, max(0, n_available), size)
    end = span.start + offset + size
    return make_source(file, span, surplus=count_unclaimed(file, end) / max(1, size))
