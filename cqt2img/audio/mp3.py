"""Check of MPEG audio (MP3, layer 2) frame by frame before it is decoded.

Unless a frame at the start counts the others, libsndfile guesses their number from the
size of the first one, and drops the rest: a variable bitrate may lose half a recording.
"""

import functools
import io
import re
from typing import NamedTuple

from cqt2img.audio.reasons import corrupt_error, truncated_error
from cqt2img.audio.source import (
    SLACK_SECONDS,
    WINDOW,
    Source,
    make_source,
    read_at,
)
from cqt2img.audio.tags import tag_size

_HEADER_BYTES = 4
_HEAD_BYTES = 48  # of the first frame; a count of the frames is among them
_GARBAGE_BYTES = 1 << 16  # that may precede the first frame
_MAX_FRAME_BYTES = 4096
_SYNC = 0x7FF
_MPEG1 = 3
_RESERVED_VERSION = 1
# Size of the side information between header and data, by MPEG 1 and mono.
_SIDE_BYTES = {
    (True, False): 32,
    (True, True): 17,
    (False, False): 17,
    (False, True): 9,
}
_MIN_MISSING_FRAMES = 9  # fewer uncounted frames than this change nothing
_RATES = (44100, 48000, 32000)  # Hz
_RATE_SHIFTS = (2, 0, 1, 0)  # by version: MPEG 2.5, reserved, MPEG 2, MPEG 1
_KBPS_LOW = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_KBPS_LAYER_3 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBPS_LAYER_2 = (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)


class FrameHeader(NamedTuple):
    """Header of an MPEG audio frame.

    Parameters
    ----------
    n_bytes : int
        Size of the frame.
    n_samples : int
        Samples per channel.
    sample_rate : int
        In Hz.
    layer : int
        2 or 3.
    kind : tuple
        What all frames of a file share: version, layer, sample rate and mono.
    """

    n_bytes: int
    n_samples: int
    sample_rate: int
    layer: int
    kind: tuple[int, int, int, bool]


@functools.lru_cache(4096)
def parse_frame_header(head: bytes) -> FrameHeader | None:
    """Parse the header of a layer 2 or layer 3 frame.

    Parameters
    ----------
    head : bytes
        The first four bytes of the frame.

    Returns
    -------
    FrameHeader or None
        None if the bytes are not such a header.
    """
    if len(head) < _HEADER_BYTES:
        return None
    word = int.from_bytes(head[:_HEADER_BYTES], "big")
    version = _bits(word, 19, 2)
    layer = 4 - _bits(word, 17, 2)
    kbps_index = _bits(word, 12, 4)
    rate_index = _bits(word, 10, 2)
    is_valid = (
        _bits(word, 21, 11) == _SYNC
        and version != _RESERVED_VERSION
        and layer in (2, 3)
        and 0 < kbps_index < 15
        and rate_index < 3
    )
    if not is_valid:
        return None
    sample_rate = _RATES[rate_index] >> _RATE_SHIFTS[version]
    n_samples = 576
    if version == _MPEG1 or layer == 2:
        n_samples = 1152
    kbps = _kbps_table(version, layer)[kbps_index - 1]
    n_padding = _bits(word, 9, 1)
    return FrameHeader(
        n_bytes=n_samples * 125 * kbps // sample_rate + n_padding,
        n_samples=n_samples,
        sample_rate=sample_rate,
        layer=layer,
        kind=(version, layer, rate_index, _is_mono(word)),
    )


def _bits(word: int, start: int, n_bits: int) -> int:
    """Return some bits of a header of 32 bits; bit 31 is the first of the file."""
    return word >> start & (1 << n_bits) - 1


def _is_mono(word: int) -> bool:
    return _bits(word, 6, 2) == 3


def _kbps_table(version: int, layer: int) -> tuple[int, ...]:
    if version != _MPEG1:
        return _KBPS_LOW
    return _KBPS_LAYER_3 if layer == 3 else _KBPS_LAYER_2


def find_first_frame(file: io.FileIO, start: int) -> int | None:
    """Find the first frame behind the tags.

    Parameters
    ----------
    file : FileIO
        The file.
    start : int
        Offset behind the tags.

    Returns
    -------
    int or None
        `start`, or the offset of the first frame behind a tag with a wrong size or
        behind a little garbage; None if the file is not MPEG audio.
    """
    window = read_at(file, start, _GARBAGE_BYTES)
    if parse_frame_header(window[:_HEADER_BYTES]):
        return start
    for match in re.finditer(b"\xff", window):
        if _starts_two_frames(window, match.start()):
            return start + match.start()
    return None


def _starts_two_frames(window: bytes, offset: int) -> bool:
    """Whether a frame begins at an offset, followed by another one of its kind."""
    frame = _frame_at(window, offset)
    if frame is None:
        return False
    following = _frame_at(window, offset + frame.n_bytes)
    return following is not None and following.kind == frame.kind


def _frame_at(window: bytes, offset: int) -> FrameHeader | None:
    return parse_frame_header(window[offset : offset + _HEADER_BYTES])


class _Window:
    """Part of a file around a position that moves forward."""

    def __init__(self, file: io.FileIO, span: range) -> None:
        self._file = file
        self._stop = span.stop
        self.start = span.start
        self.data = b""

    def locate(self, position: int) -> int:
        """Return the offset of a position in `data`, which is read if necessary."""
        offset = position - self.start
        has_more = self.start + len(self.data) < self._stop
        if has_more and offset + _MAX_FRAME_BYTES > len(self.data):
            self._file.seek(position)
            self.data = self._file.read(WINDOW)
            self.start = position
            offset = 0
        return offset


class _Scan(NamedTuple):
    """Result of reading all frames of a file."""

    n_frames: int
    end: int  # offset behind the last frame
    gap_bytes: int  # between frames that belong to neither a frame nor a tag
    tail_bytes: int  # behind the last frame that do not belong to a tag
    is_cut: bool  # whether the last frame is incomplete


def _scan_frames(file: io.FileIO, span: range, first: FrameHeader) -> _Scan:
    """Read all frames of the kind of the first one."""
    window = _Window(file, span)
    position = span.start
    known_end = position  # of the last frame or tag
    end = position  # of the last frame
    n_frames = 0
    gap_bytes = 0
    while (offset := window.locate(position)) <= len(window.data) - _HEADER_BYTES:
        follows = position == known_end
        frame = _frame_at(window.data, offset)
        if frame is not None and frame.kind != first.kind:
            frame = None
        if not follows and not _starts_two_frames(window.data, offset):
            frame = None
        n_tag_bytes = tag_size(window.data[offset : offset + 16]) if follows else 0
        if frame is not None:
            gap_bytes += position - known_end
            n_frames += 1
            position += frame.n_bytes
            known_end = position
            end = position
        elif n_tag_bytes:
            position += n_tag_bytes
            known_end = position
        else:
            offset = window.data.find(b"\xff", offset + 1)
            if offset < 0:
                offset = len(window.data)
            position = window.start + offset
    tail = read_at(file, known_end, min(WINDOW, max(0, span.stop - known_end)))
    is_tag = not tail.strip(b"\0") or tail.startswith(b"LYRICSBEGIN")
    tail_bytes = 0 if is_tag else span.stop - known_end
    is_cut = end > span.stop or _contains_frame(tail, first)
    return _Scan(
        n_frames=n_frames,
        end=end,
        gap_bytes=gap_bytes,
        tail_bytes=tail_bytes,
        is_cut=is_cut,
    )


def _contains_frame(tail: bytes, first: FrameHeader) -> bool:
    """Whether the header of a frame is near the start of the tail."""
    n_offsets = min(_MAX_FRAME_BYTES, len(tail) - _HEADER_BYTES + 1)
    frames = (_frame_at(tail, offset) for offset in range(n_offsets))
    return any(frame is not None and frame.kind == first.kind for frame in frames)


def check_mp3(file: io.FileIO, span: range, name: str) -> Source:
    """Check that all frames of an MP3 or layer 2 file are present.

    Parameters
    ----------
    file : FileIO
        The file.
    span : range
        Offsets from the first frame to the end of the file.
    name : str
        Path of the file, for errors.

    Returns
    -------
    Source
        The frames, behind a new first frame with their number where it was missing.

    Raises
    ------
    AudioError
        If frames are missing, damaged or of several kinds.
    """
    head = read_at(file, span.start, _HEAD_BYTES)
    first = parse_frame_header(head[:_HEADER_BYTES])
    if first is None:  # changed by another program
        raise corrupt_error(name, "does not begin with an MP3 frame")
    scan = _scan_frames(file, span, first)
    n_promised = _read_count(head)
    frame_seconds = first.n_samples / first.sample_rate
    if (n_promised - scan.n_frames) * frame_seconds > SLACK_SECONDS:
        seconds = scan.n_frames * frame_seconds
        promised_seconds = n_promised * frame_seconds
        problem = f"holds {seconds:.1f} of {promised_seconds:.1f} s"
        raise truncated_error(name, problem)
    # Seconds of audio that the bytes behind the last frame could hold.
    n_bytes = scan.end - span.start
    is_tail_long = (
        scan.tail_bytes * scan.n_frames * frame_seconds > SLACK_SECONDS * n_bytes
    )
    if scan.gap_bytes or is_tail_long:
        n_unknown = scan.gap_bytes + scan.tail_bytes
        problem = f"has {n_unknown} bytes that are not frames like its first one"
        raise corrupt_error(name, problem)
    if scan.is_cut and not n_promised:
        raise truncated_error(name, "stops in the middle of a frame")
    frames = range(span.start, min(scan.end, span.stop))
    if first.layer == 2:  # does not have a counting frame, nor a variable bitrate
        n_samples = scan.n_frames * first.n_samples
        return make_source(file, frames, n_promised=n_samples)
    if scan.n_frames - n_promised < _MIN_MISSING_FRAMES:
        return make_source(file, frames)
    return make_source(file, make_counting_frame(head, scan.n_frames), frames)


def _read_count(head: bytes) -> int:
    """Read the number of frames from a first frame that counts the others, or 0."""
    mark = max(head.find(b"Xing"), head.find(b"Info"))
    if mark <= 0:
        return 0
    has_count = head[mark + 7 : mark + 8] > b"\0"
    # libsndfile decodes the frame as audio if other bytes than zeros precede the mark.
    is_empty = not head[_HEADER_BYTES:mark].strip(b"\0")
    if not has_count or not is_empty:
        return 0
    return int.from_bytes(head[mark + 8 : mark + 12], "big")


def make_counting_frame(head: bytes, n_frames: int) -> bytes:
    """Make a silent frame that holds the number of the frames behind it.

    Parameters
    ----------
    head : bytes
        Header of one of the other frames.
    n_frames : int
        Their number.

    Returns
    -------
    bytes
        The frame, with a Xing header.
    """
    word = int.from_bytes(head[:_HEADER_BYTES], "big")
    is_mpeg1 = _bits(word, 19, 2) == _MPEG1
    n_side_bytes = _SIDE_BYTES[is_mpeg1, _is_mono(word)]
    # No checksum, no padding, and bitrate number 8, which all versions have.
    header = bytes((0xFF, head[1] | 1, 0x80 | head[2] & 12, head[3]))
    count = b"Xing\0\0\0\1" + n_frames.to_bytes(4, "big")
    frame = parse_frame_header(header)
    assert frame is not None
    return (header + bytes(n_side_bytes) + count).ljust(frame.n_bytes, b"\0")
