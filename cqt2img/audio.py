"""From a file to a wave: decode once, mix to mono, resample, and refuse what is not a whole recording."""

import io
import itertools
import os
import shutil
import stat
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from cqt2img.errors import AudioError, InputError

_Bytes = io.FileIO | io.BytesIO
_SNDFILE = ".aif .aifc .aiff .au .caf .flac .mp2 .mp3 .oga .ogg .opus .rf64 .snd .w64 .wav .wave"
AUDIO_SUFFIXES: frozenset[str] = frozenset(f"{_SNDFILE} .aac .m4a .m4b .mka .mp4 .webm .wma".split())
REASONS: dict[str, str] = {
    "vanished": "There is no file of this name.",
    "not_a_file": "The name stands for a folder, a pipe or a device.",
    "not_readable": "The system does not let us read the file.",
    "empty_file": "The file has no bytes.",
    "needs_ffmpeg": "Only ffmpeg can read this format, and it is not installed.",
    "unsupported_or_corrupt": "The file is not audio, is damaged, or is in a format that cannot be read.",
    "truncated": "The file holds less sound than it promises, or stops in the middle of it.",
    "bad_sample_rate": "The file claims a sample rate outside 4000 to 768000 Hz.",
    "bad_channels": "The file has more than 64 channels.",
    "non_finite": "The file holds numbers that are not finite: NaN or infinity.",
    "too_short": "The recording is shorter than 0.1 s.",
    "too_long": "The recording is longer than max_seconds.",
    "silent": "The mono mix never rises above -80 dBFS.",
}
_SLACK = 0.1  # seconds; encoders disagree on padding by up to four MP3 frames
_SILENCE = 1e-4  # -80 dBFS
_BLOCK = 1 << 16
_ASF, _EBML = b"\x30\x26\xb2\x75", b"\x1a\x45\xdf\xa3"
# The demuxer is named to ffmpeg: left to guess, it may take a text file for a list of other files to open.
_ADTS = ((0, b"\xff\xf1", "aac"), (0, b"\xff\xf9", "aac"))
_DEMUXERS = ((4, b"ftyp", "mov"), (0, _ASF, "asf"), (0, _EBML, "matroska"), *_ADTS)
# Magic -> first chunk, chunk header, bytes of it the size leaves out, alignment, chunks that must be whole.
_CONTAINERS: dict[bytes, tuple[int, str, int, int, tuple[bytes, ...]]] = {
    b"RIFF": (12, "<4sI", 8, 2, (b"data",)),
    b"RF64": (12, "<4sI", 8, 2, (b"data",)),
    b"FORM": (12, ">4sI", 8, 2, (b"SSND",)),
    b"caff": (8, ">4sQ", 12, 1, (b"data",)),
    b"riff": (40, "<16sQ", 0, 8, (bytes.fromhex("64617461f3acd3118cd100c04f8edb8a"),)),
    _ASF: (0, "<16sQ", 0, 1, (bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c"),)),
    b"ftyp": (0, ">I4s", 0, 1, (b"mdat", b"moov")),
}
_KBPS = (  # of layer 3: MPEG 2 and 2.5, then MPEG 1
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)


class _File(io.FileIO):
    def seek(self, offset: int, whence: int = 0, /) -> int:
        try:
            return super().seek(offset, whence)
        except OSError:  # a damaged header may send libsndfile before the start; it prints what its callback raises
            return self.tell()


class _Stream(NamedTuple):
    rate: int
    n_channels: int
    n_promised: int  # frames that the header tells, 0 if none
    blocks: Iterator[Any]


def load_wave(path: str | os.PathLike[str], sample_rate: int, max_seconds: float = 6 * 3600) -> np.ndarray:
    """Decode a recording to one mono wave at `sample_rate`.

    Parameters
    ----------
    path : str or PathLike
        The recording. Its content decides the format, not its name.
    sample_rate : int
        Rate of the result in Hz, 4000 to 768000.
    max_seconds : float, default 21600
        Longest recording to accept, in seconds, more than 0.

    Returns
    -------
    ndarray of float32, shape (n_samples,)
        Mean of the channels, full scale at 1. Finite, at least 0.1 s long and not silent.

    Raises
    ------
    InputError
        If an argument is not as above.
    AudioError
        If the file is not one whole recording with sound in it. Its `reason` is a key of `REASONS`.

    Notes
    -----
    libsndfile decodes all it can; only MP4, ADTS, ASF and Matroska go to ffmpeg, at the rate and with the channels of
    the file. Memory holds the wave once, and an MP3 file beside it.
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"load_wave: path must be a str or PathLike, got {path!r}. Pass the name of one file.")
    if isinstance(sample_rate, bool) or not isinstance(sample_rate, int) or not 4000 <= sample_rate <= 768000:
        rule = "be a whole number of Hz from 4000 to 768000"
        raise InputError(f"load_wave: sample_rate must {rule}, got {sample_rate!r}. Take it from a TileSpec.")
    if not max_seconds > 0:
        raise InputError(f"load_wave: max_seconds must be more than 0, got {max_seconds!r}. Leave it out for 6 hours.")
    name = os.fsdecode(path)
    with _open(name) as file:
        _check_whole(file, name)
        start, head = _skip_id3(file)
        demuxer = next((d for at, magic, d in _DEMUXERS if head.startswith(magic, at)), "")
        source = _open_mp3(file, start, name) if _frame(head) or (start and not head.strip(b"\0")) else file
        with _ffmpeg(name, demuxer) if demuxer else _sndfile(source, name) as stream:
            return _drain(stream, name, sample_rate, max_seconds)


def _fault(reason: str, name: str, rule: str, got: str, advice: str) -> AudioError:
    return AudioError(reason, f"load_wave: path must {rule}, got {name!r} which {got}. {advice}")


def _truncated(name: str, got: str) -> AudioError:
    return _fault("truncated", name, "be a whole recording", got, "Copy it again from its source.")


def _corrupt(name: str, got: str) -> AudioError:
    advice = "Play it to see if it is intact, or convert it to FLAC."
    return _fault("unsupported_or_corrupt", name, "be audio that can be decoded", got, advice)


def _open(name: str) -> _Bytes:
    try:
        status = os.stat(name)  # before opening: to open a FIFO would hang
        file = _File(name) if stat.S_ISREG(status.st_mode) else None
    except (FileNotFoundError, NotADirectoryError, ValueError) as err:  # ValueError: NUL in the name
        advice = "Check the spelling, and that the disk is still there."
        raise _fault("vanished", name, "be an existing file", "is not there", advice) from err
    except OSError as err:
        got = f"cannot be opened ({err.strerror})"
        raise _fault("not_readable", name, "be a readable file", got, "Check its permissions and its disk.") from err
    if file is None:
        got = "is a folder" if stat.S_ISDIR(status.st_mode) else "is a pipe or a device"
        raise _fault("not_a_file", name, "be one audio file", got, "Name a file in it, or copy it to a file.")
    if status.st_size:
        return file
    file.close()
    raise _fault("empty_file", name, "hold audio", "has 0 bytes", "Copy it again from its source.")


def _check_whole(file: _Bytes, name: str) -> None:
    # libsndfile shortens a cut file without a word, so what it promises is read here.
    size, head = os.fstat(file.fileno()).st_size, file.read(36)
    if head[:4] == b"OggS":
        file.seek(max(0, size - (1 << 17)))  # a page has at most 65307 bytes
        page = file.read().rpartition(b"OggS")[2]
        if len(page) < 23 or len(page) < 23 + page[22] + sum(page[23 : 23 + page[22]]) or not page[1] & 4:
            raise _truncated(name, "stops before the mark of its end")
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
            raise _truncated(name, f"has {size - pos - extra} of {length} bytes of sound")
        pos += -(-(length + extra) // align) * align


def _skip_id3(file: _Bytes) -> tuple[int, bytes]:
    start, head = 0, b"ID3"
    while head.startswith(b"ID3"):
        file.seek(start)
        head = file.read(16)
        if len(head) < 16:
            break
        if head.startswith(b"ID3"):
            start += 10 + sum(n << s for n, s in zip(head[6:10], (21, 14, 7, 0), strict=True)) + (head[5] & 16 and 10)
    return start, head


def _frame(head: bytes) -> tuple[int, int, int] | None:
    """Size in bytes, length in samples and rate in Hz of the layer 3 frame that begins here."""
    if len(head) < 4 or head[0] != 255 or head[1] & 0xE6 != 0xE2:
        return None
    version, kbps, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or not 0 < kbps < 15 or rate == 3:
        return None
    hz, n_samples = (44100, 48000, 32000)[rate] >> (2, 0, 1, 0)[version], 1152 if version == 3 else 576
    return n_samples * 125 * _KBPS[version == 3][kbps - 1] // hz + (head[2] >> 1 & 1), n_samples, hz


def _open_mp3(file: _Bytes, start: int, name: str) -> _Bytes:
    # Not told the number of frames, libsndfile stops where a guess from the first one says: VBR may lose half.
    file.seek(start)
    data = file.read().lstrip(b"\0")
    pos = end = n_frames = 0
    first, n_samples, hz = b"", 0, 1
    while 0 <= pos < len(data) - 3:
        frame = _frame(data[pos : pos + 4])
        alike = frame and (not first or frame[1:] == (n_samples, hz))
        if frame and alike and (pos == end or _frame(data[pos + frame[0] : pos + frame[0] + 4])):
            first, (_, n_samples, hz) = first or data[pos : pos + frame[0]], frame
            pos = end = pos + frame[0]
            n_frames += 1
        else:
            pos = data.find(b"\xff", pos + 1)
    mark = max(first[:48].find(b"Xing"), first[:48].find(b"Info"))
    n_told = int.from_bytes(first[mark + 8 : mark + 12], "big") if mark > 0 and first[mark + 7] & 1 else 0
    if (n_told - n_frames) * n_samples > _SLACK * hz:
        raise _truncated(name, f"gives {n_frames * n_samples / hz:.1f} of {n_told * n_samples / hz:.1f} s")
    if end > len(data) and not n_told:
        raise _truncated(name, "stops in the middle of a frame")
    if not first or n_frames - n_told < 9:
        return io.BytesIO(data[:end] or data)
    return io.BytesIO(_counting_frame(first, n_frames) + data[:end])


def _counting_frame(first: bytes, n_frames: int) -> bytes:
    mpeg1, mono = first[1] & 8 > 0, first[3] >= 0xC0
    head = bytes((255, first[1] | 1, 0x80 | first[2] & 12, first[3]))
    info = bytes((17 if mono else 32) if mpeg1 else (9 if mono else 17)) + b"Xing\0\0\0\1"
    return (head + info + n_frames.to_bytes(4, "big")).ljust((_frame(head) or (0,))[0], b"\0")


@contextmanager
def _sndfile(file: _Bytes, name: str) -> Iterator[_Stream]:
    import soundfile

    def blocks(sound: Any) -> Iterator[Any]:
        try:
            while len(block := sound.read(_BLOCK, dtype="float32", always_2d=True)):
                yield block
        except (soundfile.SoundFileError, ValueError) as err:
            if file.read(1):
                raise _corrupt(name, "has a fault in the middle") from err
            raise _truncated(name, "stops in the middle of a frame") from err

    file.seek(0)
    try:
        sound = soundfile.SoundFile(file)
    except (soundfile.SoundFileError, ValueError, TypeError) as err:
        raise _corrupt(name, "libsndfile cannot open") from err
    with sound:
        sound.seekable = lambda: False  # else every read seeks, which fails in a FLAC of unknown length
        yield _Stream(sound.samplerate, sound.channels, sound.frames if sound.frames < 1 << 62 else 0, blocks(sound))


@contextmanager
def _ffmpeg(name: str, demuxer: str) -> Iterator[_Stream]:
    program = shutil.which("ffmpeg")
    if program is None:
        advice = "Install ffmpeg, or convert the file to FLAC."
        raise _fault("needs_ffmpeg", name, "be in a format that libsndfile reads", "needs ffmpeg", advice)
    command = [program, "-nostdin", "-v", "error", "-xerror", "-protocol_whitelist", "file", "-f", demuxer]
    command += ["-i", f"file:{name}", "-map", "0:a:0", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        pipe = process.stdout or io.BytesIO()

        def blocks(n_channels: int) -> Iterator[Any]:
            while data := pipe.read(_BLOCK * n_channels * 4):
                whole = len(data) // (4 * n_channels) * n_channels
                yield np.frombuffer(data, ">f4", whole).reshape(-1, n_channels)
            if process.wait():
                raise _corrupt(name, "ffmpeg cannot decode to its end")

        try:
            head = pipe.read(24)  # the au format: six numbers
            if len(head) < 24:
                raise _corrupt(name, "ffmpeg cannot open")
            _, offset, _, _, rate, n_channels = struct.unpack(">6I", head)
            pipe.read(offset - 24)
            yield _Stream(rate, n_channels, 0, blocks(n_channels))
        finally:
            process.kill()


def _drain(stream: _Stream, name: str, sample_rate: int, max_seconds: float) -> np.ndarray:
    import soxr

    rate, n_channels, n_promised, blocks = stream
    if not 4000 <= rate <= 768000:
        rule, got = "have a sample rate from 4000 to 768000 Hz", f"claims {rate} Hz"
        raise _fault("bad_sample_rate", name, rule, got, "Resample it, or correct its header.")
    if not 1 <= n_channels <= 64:
        raise _fault("bad_channels", name, "have at most 64 channels", f"has {n_channels}", "Mix it down.")
    resampler = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
    wave, n, peak, loud = bytearray(), 0, 0.0, 0.0  # bytes grow in place; a list of blocks would be held twice
    for block in itertools.chain([np.zeros((0, n_channels), np.float32)], blocks):
        n += len(block)
        if max(n, n_promised) > max_seconds * rate:
            got = f"lasts {max(n, n_promised) / rate:.0f} s or more"
            raise _fault("too_long", name, f"last at most {max_seconds:g} s", got, "Cut it, or raise max_seconds.")
        with np.errstate(invalid="ignore", over="ignore"):
            mono = block.mean(axis=1, dtype=np.float32)
        highest = float(np.abs(mono).max(initial=0))
        if not highest < 1e30:
            got = f"has NaN or infinity before {n / rate:.1f} s"
            raise _fault("non_finite", name, "hold finite numbers only", got, "Export it again as 16 or 24 bit.")
        peak, loud = max(peak, highest), max(loud, float(np.abs(block).max(initial=0)))
        wave += (mono if rate == sample_rate else resampler.resample_chunk(mono)).tobytes()
    if rate != sample_rate:
        wave += resampler.resample_chunk(mono[:0], last=True).tobytes()
    if n_promised - n > _SLACK * rate:
        raise _truncated(name, f"gives {n / rate:.1f} of {n_promised / rate:.1f} s")
    if n < _SLACK * rate:
        got = f"lasts {n / rate:.3f} s"
        raise _fault("too_short", name, "last at least 0.1 s", got, "Leave it out, or use a longer take.")
    if peak < _SILENCE:
        got = "is silent" if loud < _SILENCE else "has channels that cancel out"
        raise _fault("silent", name, "rise above -80 dBFS", got, "Check the recording, or export one channel of it.")
    return np.frombuffer(wave, dtype=np.float32)
