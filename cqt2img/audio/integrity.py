"""Is a file whole? What the containers of audio promise, against what lies in them.

libsndfile silently gives less where a file was cut, stops where a header promises less than there is, and skips a
damaged page of Ogg; so the promises are read here, before it decodes.
"""

import functools
import io
import os
import re
import struct
import zlib
from typing import Any, NamedTuple

from cqt2img.errors import AudioError

ASF = b"\x30\x26\xb2\x75"
SLACK = 0.1  # seconds; encoders disagree on padding by up to four MP3 frames

# Magic -> first chunk, chunk header, bytes of it the size leaves out, alignment, chunks that must be whole.
_CONTAINERS: dict[bytes, tuple[int, str, int, int, tuple[bytes, ...]]] = {
    b"RIFF": (12, "<4sI", 8, 2, (b"data",)),
    b"RIFX": (12, ">4sI", 8, 2, (b"data",)),
    b"RF64": (12, "<4sI", 8, 2, (b"data",)),
    b"FORM": (12, ">4sI", 8, 2, (b"SSND",)),
    b"caff": (8, ">4sQ", 12, 1, (b"data",)),
    b"riff": (40, "<16sQ", 0, 8, (bytes.fromhex("64617461f3acd3118cd100c04f8edb8a"),)),
    ASF: (0, "<16sQ", 0, 1, (bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c"),)),
    b"ftyp": (0, ">I4s", 0, 1, (b"mdat", b"moov")),
}
_KBPS = (  # of layer 3 and 2 of MPEG 2 and 2.5, layer 3 of MPEG 1, layer 2 of it
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
)
_FLAC_RATES = (
    0,
    88200,
    176400,
    192000,
    8000,
    16000,
    22050,
    24000,
    32000,
    44100,
    48000,
    96000,
)
_MIRROR = bytes(int(f"{n:08b}"[::-1], 2) for n in range(256))
_NEXT = re.compile(
    rb".?([\w() ]{4}|ID3|TAG)", re.S
)  # what may follow the sound; some writers forget a pad byte
_WINDOW = 1 << 20


class Part(io.RawIOBase):
    """Some bytes and some spans of a file, read as one file."""

    error: OSError | None = (
        None  # of the disk; a callback of libsndfile cannot raise it
    )

    def __init__(self, file: io.FileIO, *pieces: bytes | range) -> None:
        self._file, self._pieces, self._at = file, pieces, 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it knows where it is."""
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go somewhere."""
        # A damaged header may send libsndfile before the start; it prints what its callback raises.
        self._at = max(0, offset + (0, self._at, sum(map(len, self._pieces)))[whence])
        return self._at

    def readinto(self, room: Any, /) -> int:
        """Read on, to the end of the piece or of the room."""
        at = self._at
        for piece in self._pieces:
            if at < len(piece):
                data = piece[at : at + len(room)]
                if isinstance(data, range):
                    try:
                        self._file.seek(data.start)
                        data = self._file.read(len(data))
                    except OSError as err:
                        self.error, data = err, b""
                room[: len(data)] = data
                self._at += len(data)
                return len(data)
            at -= len(piece)
        return 0


class Source(NamedTuple):
    """What is to be decoded: files in a row, the frames they hold if told, and bytes left over for one of sound."""

    files: tuple[io.BufferedReader, ...]
    n_told: int = 0
    surplus: float = 0.0


def fault(reason: str, name: str, rule: str, got: str, advice: str) -> AudioError:
    """Make the error for a file, in the words of all errors."""
    return AudioError(
        reason, f"load_wave: path must {rule}, got {name!r} which {got}. {advice}"
    )


def truncated(name: str, got: str) -> AudioError:
    """Make the error for a file that ends too early."""
    return fault(
        "truncated", name, "be a whole recording", got, "Copy it again from its source."
    )


def corrupt(name: str, got: str) -> AudioError:
    """Make the error for a file that cannot be decoded."""
    advice = "Play it to see if it is intact, or convert it to FLAC."
    return fault(
        "unsupported_or_corrupt", name, "be audio that can be decoded", got, advice
    )


def open_whole(file: io.FileIO, name: str) -> Source:
    """Refuse a file that is not what its container promises, and give it as libsndfile reads it best."""
    size = os.fstat(file.fileno()).st_size
    start, head = skip_tags(file)
    span, magic = range(start, size), b"ftyp" if head[4:8] == b"ftyp" else head[:4]
    doors = {
        b"OggS": _open_ogg,
        b"fLaC": _open_flac,
        b".snd": _open_au,
        b"dns.": _open_au,
    }
    if magic in doors:
        return doors[magic](file, span, name)
    if magic in _CONTAINERS:
        return _walk(file, span, magic, name)
    begin = _first_frame(file, start)
    return (
        _source(file, range(size))
        if begin is None
        else _open_mp3(file, range(begin, size), name)
    )


def _source(
    file: io.FileIO, *pieces: bytes | range, n_told: int = 0, surplus: float = 0.0
) -> Source:
    return Source((io.BufferedReader(Part(file, *pieces), 1 << 16),), n_told, surplus)


def _read(file: io.FileIO, pos: int, n_bytes: int) -> bytes:
    """Read so many bytes, with zeros after the end."""
    file.seek(max(0, min(pos, 1 << 62)))
    return file.read(n_bytes).ljust(n_bytes, b"\0")


def _unclaimed(file: io.FileIO, pos: int) -> int:
    """Count the bytes from here, if they are neither chunks, nor a tag, nor zeros."""
    rest = _read(file, pos - 1, _WINDOW)
    return (
        0
        if _NEXT.match(rest) or not rest[1:].strip(b"\0")
        else os.fstat(file.fileno()).st_size - pos
    )


def _walk(file: io.FileIO, span: range, magic: bytes, name: str) -> Source:
    """Go from chunk to chunk, to the sound."""
    first, form, extra, align, must = _CONTAINERS[magic]
    n_head, pos, n_told = struct.calcsize(form), span.start + first, 0
    while pos + n_head <= span.stop:
        head = _read(file, pos, n_head + 40)
        pair = struct.unpack(form, head[:n_head])
        (chunk, length), body = pair[::-1] if magic == b"ftyp" else pair, head[n_head:]
        if magic == b"RF64" and length == 0xFFFFFFFF:
            length = int.from_bytes(_read(file, span.start + 28, 8), "little")
        elif magic == b"ftyp" and length == 1:
            length = int.from_bytes(body[:8], "big")
        there, is_box = span.stop - pos - extra, magic in (ASF, b"ftyp")
        if chunk[:4] == b"fmt ":
            _check_fmt(struct.unpack(form[0] + "HHIIHH", body[:16]), name)
        elif chunk == b"COMM" and body[18:22] not in (
            b"ima4",
            b"GSM ",
        ):  # these count packets
            n_told = int.from_bytes(body[2:6], "big") % 0xFFFFFFFF
        # Who cannot know the size writes 0, or the largest number that he dares.
        streamed = 0x7FFF0000 <= length <= 0x80000000 or length in (
            0xFFFFFFFF,
            0xFFFFFFFFFFFFFFFF,
        )
        if length + extra < (1 if extra else n_head) or (is_box and streamed):
            break  # a box to the end of the file, or no box
        if chunk in must and (
            streamed or (not length and _unclaimed(file, pos + n_head))
        ):
            width = struct.calcsize(form[-1])
            said = struct.pack(form[0] + form[-1], min(there, 256**width - 1))
            at = pos + n_head - width
            return _source(
                file,
                range(span.start, at),
                said,
                range(at + width, span.stop),
                n_told=n_told,
            )
        if chunk in must and length > there + 64:  # some writers count their header
            raise truncated(name, f"has {there} of {length} bytes of sound")
        pos += -(-(length + extra) // align) * align
        if chunk in must and not is_box:
            return _source(
                file,
                span,
                n_told=n_told,
                surplus=_unclaimed(file, pos) / max(1, length),
            )
    return _source(file, span, n_told=n_told)


def _check_fmt(fmt: tuple[int, ...], name: str) -> None:
    """Refuse a WAV that says one thing twice, but not the same."""
    tag, n_channels, rate, per_second, align, bits = fmt
    whole = n_channels * -(-bits // 8)
    # Known slips of writers: 24 bits in four bytes; bits for bytes, one channel for all, or nothing in the byte rate.
    slips = (
        0,
        rate * align % 2**32,
        rate * align * 8 % 2**32,
        rate * align // max(1, n_channels),
    )
    padded = bits > 16 and align == 4 * n_channels
    if tag in (1, 3, 6, 7, 0xFFFE) and (
        per_second not in slips or (align != whole and not padded)
    ):
        got = f"claims {rate} Hz and {n_channels} channels of {bits} bits, but {align} bytes and {per_second} a second"
        raise corrupt(name, got)


def _open_au(file: io.FileIO, span: range, name: str) -> Source:
    head = _read(file, span.start, 12)
    offset, length = struct.unpack(">II" if head[:1] == b"." else "<II", head[4:])
    if length > (there := len(span) - offset) and length != 0xFFFFFFFF:
        raise truncated(name, f"has {max(0, there)} of {length} bytes of sound")
    return _source(
        file,
        span,
        surplus=_unclaimed(file, span.start + offset + length) / max(1, length),
    )


def _open_flac(file: io.FileIO, span: range, name: str) -> Source:
    """Give a FLAC that does not tell its length, so that libsndfile reads what is there."""
    head, pos, last = _read(file, span.start, 26), span.start + 4, 0
    numbers = int.from_bytes(
        head[18:], "big"
    )  # rate: 20 bits, channels: 3, bits: 5, frames: 36
    while not last and pos < span.stop:
        block = _read(file, pos, 4)
        last, pos = block[0] & 128, pos + 4 + int.from_bytes(block[1:], "big")
    frame, rate = _read(file, pos, 3), numbers >> 44
    code = frame[2] & 15 if frame[0] == 255 and frame[1] & 0xFC == 0xF8 else 0
    if 0 < code < 12 and _FLAC_RATES[code] != rate:
        raise corrupt(
            name, f"claims {rate} Hz, but {_FLAC_RATES[code]} Hz in its sound"
        )
    n_told = numbers & (1 << 36) - 1
    told = (numbers - n_told).to_bytes(8, "big")
    stop = span.stop - 128 * (_read(file, max(0, span.stop - 128), 3) == b"TAG")
    return _source(file, head[:18], told, range(span.start + 26, stop), n_told=n_told)


def _open_ogg(file: io.FileIO, span: range, name: str) -> Source:
    """Check page by page, and give each of the streams that follow one another as a file of its own."""
    begins: list[int] = []
    running: dict[
        bytes, int
    ] = {}  # the streams that have begun, and the number of their next page
    pos = span.start
    while (head := _read(file, pos, 27))[:4] == b"OggS":
        page = head + _read(file, pos + 27, head[26])
        page += file.read(sum(page[27:]))
        if pos + 27 + head[26] + sum(page[27 : 27 + head[26]]) > span.stop:
            raise truncated(name, "stops before the mark of its end")
        serial, number = page[14:18], int.from_bytes(page[18:22], "little")
        if page[5] & 2:
            begins += [] if running else [pos]
            running[serial] = number
        mirrored = (page[:22] + bytes(4) + page[26:]).translate(
            _MIRROR
        )  # zlib's sum runs the other way
        total = (
            (zlib.crc32(mirrored, 0xFFFFFFFF) ^ 0xFFFFFFFF)
            .to_bytes(4, "little")
            .translate(_MIRROR)
        )
        if total[::-1] != page[22:26] or running.get(serial) != number:
            raise corrupt(name, f"has a fault in page {number}")
        running[serial] = number + 1
        if page[5] & 4:
            del running[serial]
        pos += len(page)
    if b"OggS" in _read(file, pos, _WINDOW):
        raise corrupt(name, "has a fault in the middle")
    if running or not begins:
        raise truncated(name, "stops before the mark of its end")
    spans = map(range, begins, [*begins[1:], pos])
    return Source(
        tuple(source for part in spans for source in _source(file, part).files)
    )


def skip_tags(file: io.FileIO) -> tuple[int, bytes]:
    """Find where the tags before the sound end, and the 16 bytes from there."""
    start = 0
    while n_bytes := _tag(_read(file, start, 16)):
        start += n_bytes
    return start, _read(file, start, 16)


def _tag(head: bytes) -> int:
    """Size in bytes of the tag that begins here, or 0."""
    if head[:3] == b"ID3":
        return (
            10
            + sum(n << s for n, s in zip(head[6:10], (21, 14, 7, 0), strict=True))
            + (head[5] & 16 and 10)
        )
    ape = 32 + int.from_bytes(head[12:16], "little")
    return 128 if head[:3] == b"TAG" else ape if head[:8] == b"APETAGEX" else 0


@functools.lru_cache(4096)
def mp3_frame(head: bytes) -> tuple[int, int, int, bytes] | None:
    """Size in bytes, samples, rate in Hz, and what all frames of a file share, of the layer 2 or 3 frame of a head."""
    if len(head) < 4 or head[0] != 255 or head[1] & 0xE0 != 0xE0:
        return None
    version, layer, kbps, rate = (
        head[1] >> 3 & 3,
        4 - (head[1] >> 1 & 3),
        head[2] >> 4,
        head[2] >> 2 & 3,
    )
    if version == 1 or layer not in (2, 3) or not 0 < kbps < 15 or rate == 3:
        return None
    hz, n_samples = (
        (44100, 48000, 32000)[rate] >> (2, 0, 1, 0)[version],
        1152 if version == 3 or layer == 2 else 576,
    )
    table = _KBPS[(version == 3) * (4 - layer)]
    shared = bytes((head[1] & 0xFE, rate, head[3] >= 0xC0))
    return (
        n_samples * 125 * table[kbps - 1] // hz + (head[2] >> 1 & 1),
        n_samples,
        hz,
        shared,
    )


def _again(window: bytes, at: int) -> bool:
    """Whether an MP3 frame begins here, and another of its kind after it."""
    frame = mp3_frame(window[at : at + 4])
    return (
        frame is not None
        and (mp3_frame(window[at + frame[0] : at + frame[0] + 4]) or (0,))[-1]
        == frame[3]
    )


def _first_frame(file: io.FileIO, start: int) -> int | None:
    """Find the first MP3 frame: here, or after a tag that lies about its size, or after a bit of garbage."""
    window = _read(file, start, 1 << 16)
    if mp3_frame(window[:4]):
        return start
    return next(
        (
            start + m.start()
            for m in re.finditer(b"\xff", window)
            if _again(window, m.start())
        ),
        None,
    )


class _Frames:
    """The frames of an MP3 from the first to the last, and the bytes between and behind them that are none."""

    def __init__(self, file: io.FileIO, span: range) -> None:
        self.count, self.gaps, self.first, window = (
            0,
            0,
            _read(file, span.start, 48),
            b"",
        )
        self.end = base = pos = clean = span.start
        shared = (mp3_frame(self.first[:4]) or (b"",))[-1]
        while True:
            at = pos - base
            if at + 4096 > len(window) and base + len(window) < span.stop:
                file.seek(pos)
                window, base, at = file.read(_WINDOW), pos, 0
            if at > len(window) - 4:
                break
            frame = mp3_frame(window[at : at + 4])
            if frame and shared == frame[3] and (pos == clean or _again(window, at)):
                self.gaps += pos - clean
                self.count += 1
                pos = clean = self.end = pos + frame[0]
            elif pos == clean and (n_bytes := _tag(window[at : at + 16])):
                pos = clean = pos + n_bytes
            else:
                at = window.find(b"\xff", at + 1)
                pos = base + (at if at >= 0 else len(window))
        tail = _read(file, clean, min(_WINDOW, max(0, span.stop - clean)))
        is_tag = not tail.strip(b"\0") or tail.startswith(b"LYRICSBEGIN")
        self.tail = 0 if is_tag else span.stop - clean
        heads = (mp3_frame(tail[i : i + 4]) for i in range(min(4096, len(tail) - 3)))
        self.is_cut = self.end > span.stop or any(
            frame and shared == frame[3] for frame in heads
        )


def _open_mp3(file: io.FileIO, span: range, name: str) -> Source:
    """Give an MP3 with a first frame that counts the others.

    Not told their number, libsndfile stops where a guess from the first frame says: VBR may lose half.
    """
    frames = _Frames(file, span)
    first, n_frames = frames.first, frames.count
    _, n_samples, hz, shared = mp3_frame(first[:4]) or (0, 0, 1, b"\0")
    mark = max(first.find(b"Xing"), first.find(b"Info"))
    # Where other bytes than zeros come before the mark, libsndfile takes it for sound.
    is_told = (
        mark > 0
        and first[mark + 7 : mark + 8] > b"\0"
        and not first[4:mark].strip(b"\0")
    )
    n_told = int.from_bytes(first[mark + 8 : mark + 12], "big") if is_told else 0
    if (n_told - n_frames) * n_samples > SLACK * hz:
        raise truncated(
            name,
            f"gives {n_frames * n_samples / hz:.1f} of {n_told * n_samples / hz:.1f} s",
        )
    if frames.gaps or frames.tail * n_frames * n_samples > SLACK * hz * (
        frames.end - span.start
    ):
        raise corrupt(
            name,
            f"has {frames.gaps + frames.tail} bytes that are no frames like its first",
        )
    if frames.is_cut and not n_told:
        raise truncated(name, "stops in the middle of a frame")
    sound = range(span.start, min(frames.end, span.stop))
    is_layer_2 = (
        shared[0] >> 1 & 3 == 2
    )  # which has no such frame, and no variable rate
    counting = (
        ()
        if is_layer_2 or n_frames - n_told < 9
        else (_counting_frame(first, n_frames),)
    )
    return _source(file, *counting, sound, n_told=n_frames * n_samples * is_layer_2)


def _counting_frame(first: bytes, n_frames: int) -> bytes:
    mpeg1, mono = first[1] & 8 > 0, first[3] >= 0xC0
    head = bytes((255, first[1] | 1, 0x80 | first[2] & 12, first[3]))
    info = (
        bytes((17 if mono else 32) if mpeg1 else (9 if mono else 17)) + b"Xing\0\0\0\1"
    )
    return (head + info + n_frames.to_bytes(4, "big")).ljust(
        (mp3_frame(head) or (0,))[0], b"\0"
    )
