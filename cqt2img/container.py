"""Is a file whole? What the containers of audio promise, against what lies in them.

libsndfile silently gives less where a file was cut, so the promises are read here, before it decodes.
"""

import io
import os
import struct

from cqt2img.errors import AudioError

ASF = b"\x30\x26\xb2\x75"
Bytes = io.FileIO | io.BytesIO


SLACK = 0.1  # seconds; encoders disagree on padding by up to four MP3 frames


# Magic -> first chunk, chunk header, bytes of it the size leaves out, alignment, chunks that must be whole.
_CONTAINERS: dict[bytes, tuple[int, str, int, int, tuple[bytes, ...]]] = {
    b"RIFF": (12, "<4sI", 8, 2, (b"data",)),
    b"RF64": (12, "<4sI", 8, 2, (b"data",)),
    b"FORM": (12, ">4sI", 8, 2, (b"SSND",)),
    b"caff": (8, ">4sQ", 12, 1, (b"data",)),
    b"riff": (40, "<16sQ", 0, 8, (bytes.fromhex("64617461f3acd3118cd100c04f8edb8a"),)),
    ASF: (0, "<16sQ", 0, 1, (bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c"),)),
    b"ftyp": (0, ">I4s", 0, 1, (b"mdat", b"moov")),
}


_KBPS = (  # of layer 3: MPEG 2 and 2.5, then MPEG 1
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)


def fault(reason: str, name: str, rule: str, got: str, advice: str) -> AudioError:
    """Make the error for a file, in the words of all errors."""
    return AudioError(reason, f"load_wave: path must {rule}, got {name!r} which {got}. {advice}")


def truncated(name: str, got: str) -> AudioError:
    """Make the error for a file that ends too early."""
    return fault("truncated", name, "be a whole recording", got, "Copy it again from its source.")


def corrupt(name: str, got: str) -> AudioError:
    """Make the error for a file that cannot be decoded."""
    advice = "Play it to see if it is intact, or convert it to FLAC."
    return fault("unsupported_or_corrupt", name, "be audio that can be decoded", got, advice)


def check_whole(file: Bytes, name: str) -> None:
    """Refuse a file that has fewer bytes of sound than its container promises, and an Ogg without its end."""
    size, head = os.fstat(file.fileno()).st_size, file.read(36)
    if head[:4] == b"OggS":
        file.seek(max(0, size - (1 << 17)))  # a page has at most 65307 bytes
        page = file.read().rpartition(b"OggS")[2]
        if len(page) < 23 or len(page) < 23 + page[22] + sum(page[23 : 23 + page[22]]) or not page[1] & 4:
            raise truncated(name, "stops before the mark of its end")
    magic = b"ftyp" if head[4:8] == b"ftyp" else head[:4]
    pos, form, extra, align, must = _CONTAINERS.get(magic, (size, "<4sI", 0, 1, ()))
    while pos + struct.calcsize(form) <= size:
        file.seek(pos)
        pair = struct.unpack(form, file.read(struct.calcsize(form)))
        chunk, length = pair[::-1] if magic == b"ftyp" else pair
        if magic == b"RF64" and length == 0xFFFFFFFF:
            length = int.from_bytes(head[28:36], "little")
        elif magic == b"ftyp" and length == 1:
            length = int.from_bytes(file.read(8), "big")
        # Who cannot know the size writes 0, or the largest number that he dares.
        if length == 0 or 0x7FFF0000 <= length <= 0x80000000 or length in (0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF):
            return
        if chunk in must and pos + extra + length > size + 64:  # some writers count their header
            raise truncated(name, f"has {size - pos - extra} of {length} bytes of sound")
        pos += -(-(length + extra) // align) * align


def skip_id3(file: Bytes) -> tuple[int, bytes]:
    """Find where the tags before an MP3 end, and the 16 bytes from there."""
    start, head = 0, b"ID3"
    while head.startswith(b"ID3"):
        file.seek(start)
        head = file.read(16)
        if len(head) < 16:
            break
        if head.startswith(b"ID3"):
            start += 10 + sum(n << s for n, s in zip(head[6:10], (21, 14, 7, 0), strict=True)) + (head[5] & 16 and 10)
    return start, head


def mp3_frame(head: bytes) -> tuple[int, int, int] | None:
    """Size in bytes, length in samples and rate in Hz of the layer 3 frame that begins here."""
    if len(head) < 4 or head[0] != 255 or head[1] & 0xE6 != 0xE2:
        return None
    version, kbps, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or not 0 < kbps < 15 or rate == 3:
        return None
    hz, n_samples = (44100, 48000, 32000)[rate] >> (2, 0, 1, 0)[version], 1152 if version == 3 else 576
    return n_samples * 125 * _KBPS[version == 3][kbps - 1] // hz + (head[2] >> 1 & 1), n_samples, hz


def open_mp3(file: Bytes, start: int, name: str) -> Bytes:
    """Give an MP3 in memory, with a first frame that counts the others.

    Not told their number, libsndfile stops where a guess from the first frame says: VBR may lose half.
    """
    file.seek(start)
    data = file.read().lstrip(b"\0")
    pos = end = n_frames = 0
    first, n_samples, hz = b"", 0, 1
    while 0 <= pos < len(data) - 3:
        frame = mp3_frame(data[pos : pos + 4])
        alike = frame and (not first or frame[1:] == (n_samples, hz))
        if frame and alike and (pos == end or mp3_frame(data[pos + frame[0] : pos + frame[0] + 4])):
            first, (_, n_samples, hz) = first or data[pos : pos + frame[0]], frame
            pos = end = pos + frame[0]
            n_frames += 1
        else:
            pos = data.find(b"\xff", pos + 1)
    mark = max(first[:48].find(b"Xing"), first[:48].find(b"Info"))
    n_told = int.from_bytes(first[mark + 8 : mark + 12], "big") if mark > 0 and first[mark + 7] & 1 else 0
    if (n_told - n_frames) * n_samples > SLACK * hz:
        raise truncated(name, f"gives {n_frames * n_samples / hz:.1f} of {n_told * n_samples / hz:.1f} s")
    if end > len(data) and not n_told:
        raise truncated(name, "stops in the middle of a frame")
    if not first or n_frames - n_told < 9:
        return io.BytesIO(data[:end] or data)
    return io.BytesIO(_counting_frame(first, n_frames) + data[:end])


def _counting_frame(first: bytes, n_frames: int) -> bytes:
    mpeg1, mono = first[1] & 8 > 0, first[3] >= 0xC0
    head = bytes((255, first[1] | 1, 0x80 | first[2] & 12, first[3]))
    info = bytes((17 if mono else 32) if mpeg1 else (9 if mono else 17)) + b"Xing\0\0\0\1"
    return (head + info + n_frames.to_bytes(4, "big")).ljust((mp3_frame(head) or (0,))[0], b"\0")
