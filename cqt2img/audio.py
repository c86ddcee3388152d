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

from cqt2img.container import ASF, SLACK, Bytes, check_whole, corrupt, fault, mp3_frame, open_mp3, skip_id3, truncated
from cqt2img.errors import InputError

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
_SILENCE = 1e-4  # -80 dBFS
_BLOCK = 1 << 16
_EBML = b"\x1a\x45\xdf\xa3"
# The demuxer is named to ffmpeg: left to guess, it may take a text file for a list of other files to open.
_ADTS = ((0, b"\xff\xf1", "aac"), (0, b"\xff\xf9", "aac"))
_DEMUXERS = ((4, b"ftyp", "mov"), (0, ASF, "asf"), (0, _EBML, "matroska"), *_ADTS)


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
        check_whole(file, name)
        start, head = skip_id3(file)
        demuxer = next((d for at, magic, d in _DEMUXERS if head.startswith(magic, at)), "")
        source = open_mp3(file, start, name) if mp3_frame(head) or (start and not head.strip(b"\0")) else file
        with _ffmpeg(name, demuxer) if demuxer else _sndfile(source, name) as stream:
            return _drain(stream, name, sample_rate, max_seconds)


def _open(name: str) -> Bytes:
    try:
        status = os.stat(name)  # before opening: to open a FIFO would hang
        file = _File(name) if stat.S_ISREG(status.st_mode) else None
    except (FileNotFoundError, NotADirectoryError, ValueError) as err:  # ValueError: NUL in the name
        advice = "Check the spelling, and that the disk is still there."
        raise fault("vanished", name, "be an existing file", "is not there", advice) from err
    except OSError as err:
        got = f"cannot be opened ({err.strerror})"
        raise fault("not_readable", name, "be a readable file", got, "Check its permissions and its disk.") from err
    if file is None:
        got = "is a folder" if stat.S_ISDIR(status.st_mode) else "is a pipe or a device"
        raise fault("not_a_file", name, "be one audio file", got, "Name a file in it, or copy it to a file.")
    if status.st_size:
        return file
    file.close()
    raise fault("empty_file", name, "hold audio", "has 0 bytes", "Copy it again from its source.")


@contextmanager
def _sndfile(file: Bytes, name: str) -> Iterator[_Stream]:
    import soundfile

    def blocks(sound: Any) -> Iterator[Any]:
        try:
            while len(block := sound.read(_BLOCK, dtype="float32", always_2d=True)):
                yield block
        except (soundfile.SoundFileError, ValueError) as err:
            if file.read(1):
                raise corrupt(name, "has a fault in the middle") from err
            raise truncated(name, "stops in the middle of a frame") from err

    file.seek(0)
    try:
        sound = soundfile.SoundFile(file)
    except (soundfile.SoundFileError, ValueError, TypeError) as err:
        raise corrupt(name, "libsndfile cannot open") from err
    with sound:
        sound.seekable = lambda: False  # else every read seeks, which fails in a FLAC of unknown length
        yield _Stream(sound.samplerate, sound.channels, sound.frames if sound.frames < 1 << 62 else 0, blocks(sound))


@contextmanager
def _ffmpeg(name: str, demuxer: str) -> Iterator[_Stream]:
    program = shutil.which("ffmpeg")
    if program is None:
        advice = "Install ffmpeg, or convert the file to FLAC."
        raise fault("needs_ffmpeg", name, "be in a format that libsndfile reads", "needs ffmpeg", advice)
    command = [program, "-nostdin", "-v", "error", "-xerror", "-protocol_whitelist", "file", "-f", demuxer]
    command += ["-i", f"file:{name}", "-map", "0:a:0", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        pipe = process.stdout or io.BytesIO()

        def blocks(n_channels: int) -> Iterator[Any]:
            while data := pipe.read(_BLOCK * n_channels * 4):
                whole = len(data) // (4 * n_channels) * n_channels
                yield np.frombuffer(data, ">f4", whole).reshape(-1, n_channels)
            if process.wait():
                raise corrupt(name, "ffmpeg cannot decode to its end")

        try:
            head = pipe.read(24)  # the au format: six numbers
            if len(head) < 24:
                raise corrupt(name, "ffmpeg cannot open")
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
        raise fault("bad_sample_rate", name, rule, got, "Resample it, or correct its header.")
    if not 1 <= n_channels <= 64:
        raise fault("bad_channels", name, "have at most 64 channels", f"has {n_channels}", "Mix it down.")
    resampler = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
    wave, n, peak, loud = bytearray(), 0, 0.0, 0.0  # bytes grow in place; a list of blocks would be held twice
    for block in itertools.chain([np.zeros((0, n_channels), np.float32)], blocks):
        n += len(block)
        if max(n, n_promised) > max_seconds * rate:
            got = f"lasts {max(n, n_promised) / rate:.0f} s or more"
            raise fault("too_long", name, f"last at most {max_seconds:g} s", got, "Cut it, or raise max_seconds.")
        with np.errstate(invalid="ignore", over="ignore"):
            mono = block.mean(axis=1, dtype=np.float32)
        highest = float(np.abs(mono).max(initial=0))
        if not highest < 1e30:
            got = f"has NaN or infinity before {n / rate:.1f} s"
            raise fault("non_finite", name, "hold finite numbers only", got, "Export it again as 16 or 24 bit.")
        peak, loud = max(peak, highest), max(loud, float(np.abs(block).max(initial=0)))
        wave += (mono if rate == sample_rate else resampler.resample_chunk(mono)).tobytes()
    if rate != sample_rate:
        wave += resampler.resample_chunk(mono[:0], last=True).tobytes()
    if n_promised - n > SLACK * rate:
        raise truncated(name, f"gives {n / rate:.1f} of {n_promised / rate:.1f} s")
    if n < SLACK * rate:
        got = f"lasts {n / rate:.3f} s"
        raise fault("too_short", name, "last at least 0.1 s", got, "Leave it out, or use a longer take.")
    if peak < _SILENCE:
        got = "is silent" if loud < _SILENCE else "has channels that cancel out"
        raise fault("silent", name, "rise above -80 dBFS", got, "Check the recording, or export one channel of it.")
    return np.frombuffer(wave, dtype=np.float32)
