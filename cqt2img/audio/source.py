"""Audio files on their way to a decoder, and decoded audio on its way out."""

import io
import os
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from typing_extensions import Buffer

SLACK_SECONDS = 0.1  # encoders disagree on padding by up to four MP3 frames
WINDOW = 1 << 20  # bytes that are searched at once
_BUFFER_BYTES = 1 << 16
# A chunk or a tag may follow the audio; some writers omit the pad byte before it.
_NEXT_CHUNK = re.compile(rb".?([\w() ]{4}|ID3|TAG)", re.S)


class SplicedFile(io.RawIOBase):
    """Read-only file made of byte strings and of byte ranges of another file.

    Parameters
    ----------
    file : FileIO
        The other file.
    pieces : sequence of bytes or range
        Contents: bytes as they are, ranges of offsets into `file`.

    Attributes
    ----------
    error : OSError or None
        The last read error. It is kept because a callback of libsndfile, which reads
        here, cannot raise.
    """

    def __init__(self, file: io.FileIO, pieces: Sequence[bytes | range]) -> None:
        self.error: OSError | None = None
        self._file = file
        self._pieces = pieces
        self._n_bytes = sum(len(piece) for piece in pieces)
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to an offset.

        Parameters
        ----------
        offset, whence : int
            As for other files. An offset before the start becomes 0.

        Returns
        -------
        int
            The offset from the start.
        """
        # A damaged header may send libsndfile before the start. An exception here
        # would be printed by cffi, and lost.
        origins = {
            os.SEEK_SET: 0,
            os.SEEK_CUR: self._position,
            os.SEEK_END: self._n_bytes,
        }
        self._position = max(0, offset + origins[whence])
        return self._position

    def readinto(self, buffer: "Buffer", /) -> int:
        """Read up to the end of the current piece.

        Parameters
        ----------
        buffer : writable buffer
            Where to put the bytes.

        Returns
        -------
        int
            Number of bytes, 0 at the end of the file.
        """
        target = memoryview(buffer)
        offset = self._position
        for piece in self._pieces:
            if offset < len(piece):
                part = piece[offset : offset + len(target)]
                data = self._read(part) if isinstance(part, range) else part
                target[: len(data)] = data
                self._position += len(data)
                return len(data)
            offset -= len(piece)
        return 0

    def _read(self, offsets: range) -> bytes:
        try:
            self._file.seek(offsets.start)
            return self._file.read(len(offsets))
        except OSError as err:
            self.error = err
            return b""


class Source(NamedTuple):
    """An audio file that has been checked, as a decoder is to read it.

    Parameters
    ----------
    files : tuple of BufferedReader
        Contents; several where streams follow one another.
    n_promised : int
        Frames that the container promises, 0 if it does not.
    surplus : float
        Bytes behind the audio that no chunk claims, per byte of audio.
    """

    files: "tuple[io.BufferedReader[SplicedFile], ...]"
    n_promised: int = 0
    surplus: float = 0.0


class Stream(NamedTuple):
    """Audio while it is decoded.

    Parameters
    ----------
    sample_rate : int
        In Hz.
    n_channels : int
        Number of channels.
    n_promised : int
        Frames that the file promises, 0 if it does not.
    blocks : iterator of ndarray of float32, shape (n_samples, n_channels)
        The audio, full scale at 1. A block may be overwritten by the next one.
    """

    sample_rate: int
    n_channels: int
    n_promised: int
    blocks: Iterator[NDArray[np.float32]]


def make_source(
    file: io.FileIO,
    *pieces: bytes | range,
    n_promised: int = 0,
    surplus: float = 0.0,
) -> Source:
    """Make a source of one file from pieces.

    Parameters
    ----------
    file : FileIO
        The audio file.
    *pieces : bytes or range
        As for `SplicedFile`.
    n_promised, surplus
        As for `Source`.

    Returns
    -------
    Source
        The source.
    """
    reader = io.BufferedReader(SplicedFile(file, pieces), _BUFFER_BYTES)
    return Source((reader,), n_promised, surplus)


def read_at(file: io.FileIO, position: int, n_bytes: int) -> bytes:
    """Read bytes at an offset, padded with zeros behind the end of the file.

    Parameters
    ----------
    file : FileIO
        The file.
    position : int
        Offset in bytes, clipped to the file. File systems limit the offsets of a seek.
    n_bytes : int
        Length of the result.

    Returns
    -------
    bytes
        The bytes.
    """
    size = os.fstat(file.fileno()).st_size
    file.seek(max(0, min(position, size)))
    return file.read(n_bytes).ljust(n_bytes, b"\0")


def count_unclaimed(file: io.FileIO, position: int) -> int:
    """Count the bytes behind an offset that are neither chunks, nor a tag, nor zeros.

    Parameters
    ----------
    file : FileIO
        The file.
    position : int
        Offset where the audio ends according to the header.

    Returns
    -------
    int
        0, or the number of bytes to the end of the file.
    """
    rest = read_at(file, position - 1, WINDOW)
    is_zero = not rest[1:].strip(b"\0")
    if is_zero or _NEXT_CHUNK.match(rest):
        return 0
    return os.fstat(file.fileno()).st_size - position
