"""From a file to a wave: decode once, mix to mono, resample, and refuse what is not a whole recording."""

import importlib.util
import io
import itertools
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryFile
from typing import Any, NamedTuple

import numpy as np

from cqt2img.audio.integrity import (
    ASF,
    SLACK,
    Part,
    Source,
    corrupt,
    fault,
    open_whole,
    skip_tags,
    truncated,
)
from cqt2img.audio.levels import Meter
from cqt2img.errors import AudioError, InputError

_SNDFILE = ".aif .aifc .aiff .au .caf .flac .mp2 .mp3 .oga .ogg .opus .rf64 .snd .w64 .wav .wave"
AUDIO_SUFFIXES: frozenset[str] = frozenset(
    f"{_SNDFILE} .aac .m4a .m4b .mka .mp4 .webm .wma".split()
)
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
    "timeout": "Reading and rendering took longer than the time limit.",
    "worker_died": "The process that worked on the file was killed by the system.",
}
_SILENCE = 1e-4  # -80 dBFS
_BLOCK = 1 << 16
# The demuxer is named to ffmpeg: left to guess, it may take a text file for a list of other files to open.
_ADTS = ((0, b"\xff\xf1", "aac"), (0, b"\xff\xf9", "aac"))
_DEMUXERS = (
    (4, b"ftyp", "mov"),
    (0, ASF, "asf"),
    (0, b"\x1a\x45\xdf\xa3", "matroska"),
    *_ADTS,
)
_PATIENCE = 60  # seconds
_NO_LIBRARY = 3
# Second to ffmpeg. Like it, it writes the au format, but tells the number of frames where that has the encoding.
_TORCHCODEC = f"""
import struct, sys
try:
    from torchcodec.decoders import AudioDecoder
except (ImportError, OSError, RuntimeError):  # it has no ffmpeg of its own
    sys.exit({_NO_LIBRARY})
decoder, out, start = AudioDecoder(open(sys.argv[1], "rb")), sys.stdout.buffer, 0
told = decoder.metadata
rate, seconds = told.sample_rate, told.duration_seconds or 0
n_told = 0 if told.codec == "aac" and sys.argv[2] == "aac" else round(rate * seconds)
out.write(struct.pack(">4s5I", b".snd", 24, 0xFFFFFFFF, n_told, rate, told.num_channels))
n = rate * 10
while n == rate * 10:
    try:
        data = decoder.get_samples_played_in_range(float(start), float(start + 10)).data
    except RuntimeError as err:
        if start == 0 or "No audio frames were decoded" not in str(err):
            raise
        break
    n, start = data.shape[1], start + 10
    out.write(data.T.contiguous().numpy().astype(">f4").tobytes())
"""


class _Stream(NamedTuple):
    rate: int
    n_channels: int
    n_promised: int  # frames that the header tells, 0 if none
    blocks: Iterator[Any]


def load_wave(
    path: str | os.PathLike[str], sample_rate: int, max_seconds: float = 6 * 3600
) -> np.ndarray:
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
    libsndfile decodes all it can; only MP4, ADTS, ASF and Matroska go to ffmpeg, or where it is missing to torchcodec,
    at the rate and with the channels of the file. Memory holds the wave once.
    """
    wave = bytearray()  # bytes grow in place; a list of blocks would be held twice
    for block in read_wave(path, sample_rate, max_seconds):
        wave += block.tobytes()
    return np.frombuffer(wave, dtype=np.float32)


def read_wave(
    path: str | os.PathLike[str],
    sample_rate: int,
    max_seconds: float = 24 * 3600,
    meter: Meter | None = None,
) -> Iterator[np.ndarray]:
    """Decode a recording block by block; the blocks in a row are what `load_wave` gives.

    Parameters
    ----------
    path, sample_rate, max_seconds
        As for `load_wave`.
    meter : Meter, optional
        Measures the sound as it passes.

    Yields
    ------
    ndarray of float32, shape (n_samples,)
        The next samples, of about a second and a half.

    Raises
    ------
    InputError
        If an argument is not as above.
    AudioError
        As for `load_wave`; some faults show only after the last block.
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(
            f"load_wave: path must be a str or PathLike, got {path!r}. Pass the name of one file."
        )
    if (
        isinstance(sample_rate, bool)
        or not isinstance(sample_rate, int)
        or not 4000 <= sample_rate <= 768000
    ):
        rule = "be a whole number of Hz from 4000 to 768000"
        raise InputError(
            f"load_wave: sample_rate must {rule}, got {sample_rate!r}. Take it from a TileSpec."
        )
    if not max_seconds > 0:
        raise InputError(
            f"load_wave: max_seconds must be more than 0, got {max_seconds!r}. Leave it out for 6 hours."
        )
    name = os.fsdecode(path)
    with _open(name) as file:
        try:
            _, head = skip_tags(file)
            source = open_whole(file, name)
        except AudioError:
            raise
        except OSError as err:
            raise _unreadable(name, err) from err
        demuxer = next(
            (d for at, magic, d in _DEMUXERS if head.startswith(magic, at)), ""
        )
        with _child(name, demuxer) if demuxer else _sndfile(source, name) as stream:
            yield from _drain(stream, name, sample_rate, max_seconds, meter or Meter())


def _unreadable(name: str, err: OSError) -> AudioError:
    got = f"cannot be opened ({err.strerror})"
    return fault(
        "not_readable",
        name,
        "be a readable file",
        got,
        "Check its permissions and its disk.",
    )


def _open(name: str) -> io.FileIO:
    try:
        status = os.stat(name)  # before opening: to open a FIFO would hang
        file = io.FileIO(name) if stat.S_ISREG(status.st_mode) else None
    except (
        FileNotFoundError,
        NotADirectoryError,
        ValueError,
    ) as err:  # ValueError: NUL in the name
        advice = "Check the spelling, and that the disk is still there."
        raise fault(
            "vanished", name, "be an existing file", "is not there", advice
        ) from err
    except OSError as err:
        raise _unreadable(name, err) from err
    if file is None:
        got = "is a folder" if stat.S_ISDIR(status.st_mode) else "is a pipe or a device"
        raise fault(
            "not_a_file",
            name,
            "be one audio file",
            got,
            "Name a file in it, or copy it to a file.",
        )
    if status.st_size:
        return file
    file.close()
    raise fault(
        "empty_file",
        name,
        "hold audio",
        "has 0 bytes",
        "Copy it again from its source.",
    )


def _check_disk(source: Source, name: str) -> None:
    for part in (file.raw for file in source.files):
        if isinstance(part, Part) and part.error is not None:
            raise _unreadable(name, part.error) from part.error


@contextmanager
def _sndfile(source: Source, name: str) -> Iterator[_Stream]:
    import soundfile

    with ExitStack() as stack:
        try:
            sounds = [
                stack.enter_context(soundfile.SoundFile(file)) for file in source.files
            ]
        except (soundfile.SoundFileError, ValueError, TypeError) as err:
            _check_disk(source, name)
            raise corrupt(name, "libsndfile cannot open") from err
        rate, n_channels = sounds[0].samplerate, sounds[0].channels
        if any(
            (sound.samplerate, sound.channels) != (rate, n_channels) for sound in sounds
        ):
            raise corrupt(name, "changes its sample rate or its channels")
        n_frames = sum(sound.frames for sound in sounds)  # in FLAC, 2 ** 63 - 1
        if n_frames < 1 << 62 and n_frames * source.surplus > SLACK * rate:
            raise corrupt(name, "holds more sound than it promises")

        def blocks() -> Iterator[Any]:
            room = np.empty((_BLOCK, n_channels), np.float32)
            for file, sound in zip(source.files, sounds, strict=True):
                sound.seekable = lambda: (
                    False
                )  # else every read seeks, which fails in a FLAC of unknown length
                try:
                    while len(block := sound.read(out=room)):
                        yield block
                except (soundfile.SoundFileError, ValueError) as err:
                    _check_disk(source, name)
                    if file.read(1):
                        raise corrupt(name, "has a fault in the middle") from err
                    raise truncated(name, "stops in the middle of a frame") from err
            _check_disk(source, name)

        yield _Stream(
            rate,
            n_channels,
            source.n_told or (n_frames if n_frames < 1 << 62 else 0),
            blocks(),
        )


def _decoder(name: str, demuxer: str) -> list[str]:
    """Give the command of a child process that writes a file as sound in the au format."""
    if program := shutil.which("ffmpeg"):
        command = [
            program,
            "-nostdin",
            "-hide_banner",
            "-nostats",
            "-xerror",
            "-protocol_whitelist",
            "file",
        ]
        command += [
            "-f",
            demuxer,
            "-i",
            f"file:{name}",
            "-map",
            "0:a:0",
            "-c:a",
            "pcm_f32be",
            "-f",
            "au",
            "pipe:1",
        ]
        return command
    if importlib.util.find_spec("torchcodec"):
        return [sys.executable, "-P", "-c", _TORCHCODEC, name, demuxer]
    raise _needs_ffmpeg(name)


def _needs_ffmpeg(name: str) -> AudioError:
    advice = "Install ffmpeg, or convert the file to FLAC."
    return fault(
        "needs_ffmpeg",
        name,
        "be in a format that libsndfile reads",
        "needs ffmpeg",
        advice,
    )


def _promised_seconds(said: bytes) -> float:
    """Read from what ffmpeg says of a file how long its only stream is; 0 if it does not know."""
    streams = re.findall(
        rb"^  Stream #0:\d.*", said.partition(b"\nStream mapping")[0], re.M
    )
    found = re.search(rb"^  Duration: (\d+):(\d+):([\d.]+)", said, re.M)
    if (
        not found
        or b"Estimating duration" in said
        or sum(b"(attached pic)" not in text for text in streams) != 1
    ):
        return 0.0
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])


@contextmanager
def _child(name: str, demuxer: str) -> Iterator[_Stream]:
    command = _decoder(name, demuxer)
    with (
        TemporaryFile() as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said) as process,
    ):
        late = threading.Event()

        def give_up() -> None:
            late.set()
            process.kill()

        def receive(n_bytes: int) -> bytes:
            watch = threading.Timer(_PATIENCE, give_up)
            watch.start()
            data = process.stdout.read(n_bytes) if process.stdout else b""
            watch.cancel()
            if late.is_set():
                rule, got = f"give sound every {_PATIENCE} s", "hangs its decoder"
                raise fault("timeout", name, rule, got, "Convert the file to FLAC.")
            return data

        def blocks(n_channels: int) -> Iterator[Any]:
            while data := receive(_BLOCK * n_channels * 4):
                whole = len(data) // (4 * n_channels) * n_channels
                yield (
                    np.frombuffer(data, ">f4", whole)
                    .reshape(-1, n_channels)
                    .astype(np.float32)
                )
            if process.wait():
                raise corrupt(name, "ffmpeg cannot decode to its end")

        try:
            head = receive(24)  # the au format: six numbers
            if len(head) < 24:
                raise (
                    _needs_ffmpeg(name)
                    if process.wait() == _NO_LIBRARY
                    else corrupt(name, "ffmpeg cannot open")
                )
            _, offset, _, n_told, rate, n_channels = struct.unpack(">6I", head)
            receive(offset - 24)
            if n_told == 6:  # the encoding, as ffmpeg writes it
                n_told = round(
                    rate * _promised_seconds(os.pread(said.fileno(), 1 << 20, 0))
                )
            yield _Stream(rate, n_channels, n_told, blocks(n_channels))
        finally:
            process.kill()


def _drain(
    stream: _Stream, name: str, sample_rate: int, max_seconds: float, meter: Meter
) -> Iterator[np.ndarray]:
    """Mix and resample the blocks of a stream, and refuse what turns out not to be a whole recording."""
    import soxr

    rate, n_channels, n_promised, blocks = stream
    if not 4000 <= rate <= 768000:
        rule, got = "have a sample rate from 4000 to 768000 Hz", f"claims {rate} Hz"
        raise fault(
            "bad_sample_rate", name, rule, got, "Resample it, or correct its header."
        )
    if not 1 <= n_channels <= 64:
        raise fault(
            "bad_channels",
            name,
            "have at most 64 channels",
            f"has {n_channels}",
            "Mix it down.",
        )
    resampler = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
    n = 0
    for block in itertools.chain([np.zeros((0, n_channels), np.float32)], blocks):
        n += len(block)
        if max(n, n_promised) > max_seconds * rate:
            got = f"lasts {max(n, n_promised) / rate:.0f} s or more"
            raise fault(
                "too_long",
                name,
                f"last at most {max_seconds:g} s",
                got,
                "Cut it, or raise max_seconds.",
            )
        mono = meter.add(block, rate)
        if not meter.peak < 1e30:
            got = f"has NaN or infinity before {n / rate:.1f} s"
            raise fault(
                "non_finite",
                name,
                "hold finite numbers only",
                got,
                "Export it again as 16 or 24 bit.",
            )
        yield mono if rate == sample_rate else resampler.resample_chunk(mono)
    if rate != sample_rate:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
    if n_promised - n > SLACK * rate:
        raise truncated(name, f"gives {n / rate:.1f} of {n_promised / rate:.1f} s")
    if n - n_promised > SLACK * rate and n_promised:
        raise corrupt(
            name, f"gives {n / rate:.1f} s where it promises {n_promised / rate:.1f} s"
        )
    if n < SLACK * rate:
        got = f"lasts {n / rate:.3f} s"
        raise fault(
            "too_short",
            name,
            "last at least 0.1 s",
            got,
            "Leave it out, or use a longer take.",
        )
    if meter.peak < _SILENCE:
        got = (
            "is silent"
            if meter.channel_peak < _SILENCE
            else "has channels that cancel out"
        )
        raise fault(
            "silent",
            name,
            "rise above -80 dBFS",
            got,
            "Check the recording, or export one channel of it.",
        )
