"""Decoding by ffmpeg, or by torchcodec where ffmpeg is not installed.

Both run in a process of their own and write the AU format, so that a crash or a hang
of the decoder costs one file.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.python_process import module_command, module_environment
from cqt2img.audio.containers import ASF_MAGIC, MP4_MAGIC
from cqt2img.audio.reasons import corrupt_error, file_error
from cqt2img.audio.source import Stream
from cqt2img.audio.torchcodec_decoder import AU_HEADER, NO_TORCHCODEC
from cqt2img.errors import AudioError

_TIMEOUT_SECONDS = 60.0  # for a block of audio
_BLOCK_FRAMES = 1 << 16
_MAX_LOG_BYTES = 1 << 20
_AU_FLOAT = 6  # encoding in the header that ffmpeg writes
# Offset, magic number, demuxer. The demuxer is named to ffmpeg because it might take a
# text file for a list of other files to open.
_DEMUXERS = (
    (4, MP4_MAGIC, "mov"),
    (0, ASF_MAGIC, "asf"),
    (0, b"\x1a\x45\xdf\xa3", "matroska"),
    (0, b"\xff\xf1", "aac"),
    (0, b"\xff\xf9", "aac"),
)


def find_demuxer(head: bytes) -> str:
    """Find out whether a file is for ffmpeg.

    Parameters
    ----------
    head : bytes
        The first bytes behind its tags.

    Returns
    -------
    str
        Name of the demuxer of ffmpeg, empty if libsndfile reads the format.
    """
    for offset, magic, demuxer in _DEMUXERS:
        if head.startswith(magic, offset):
            return demuxer
    return ""


@contextmanager
def open_ffmpeg(name: str, demuxer: str) -> Iterator[Stream]:
    """Decode a file by ffmpeg or torchcodec.

    Parameters
    ----------
    name : str
        Path of the file.
    demuxer : str
        Name of the demuxer of ffmpeg.

    Yields
    ------
    Stream
        The audio at the sample rate of the file.

    Raises
    ------
    AudioError
        If neither program is installed, the file cannot be decoded, or the decoder
        hangs.
    """
    command = _decoder_command(name, demuxer)
    with (
        TemporaryFile() as log,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=module_environment(),
        ) as process,
    ):
        try:
            header = _read(process, AU_HEADER.size, name)
            if len(header) < AU_HEADER.size:
                if process.wait() == NO_TORCHCODEC:
                    raise _needs_ffmpeg(name)
                raise corrupt_error(name, "cannot be opened by ffmpeg")
            _, offset, _, n_promised, rate, n_channels = AU_HEADER.unpack(header)
            _read(process, offset - AU_HEADER.size, name)
            if n_promised == _AU_FLOAT:
                log_text = os.pread(log.fileno(), _MAX_LOG_BYTES, 0)
                n_promised = round(rate * _parse_duration(log_text))
            blocks = _read_blocks(process, n_channels, name)
            yield Stream(rate, n_channels, n_promised, blocks)
        finally:
            process.kill()


def _decoder_command(name: str, demuxer: str) -> list[str]:
    program = shutil.which("ffmpeg")
    if program is None:
        if importlib.util.find_spec("torchcodec") is None:
            raise _needs_ffmpeg(name)
        return module_command("cqt2img.audio.torchcodec_decoder", name, demuxer)
    options = "-nostdin -hide_banner -nostats -xerror -protocol_whitelist file"
    source = ["-f", demuxer, "-i", f"file:{name}"]
    target = "-map 0:a:0 -c:a pcm_f32be -f au pipe:1"
    return [program, *options.split(), *source, *target.split()]


def _needs_ffmpeg(name: str) -> AudioError:
    return file_error("needs_ffmpeg", name, "has a format that requires ffmpeg")


def _read(process: "subprocess.Popen[bytes]", n_bytes: int, name: str) -> bytes:
    """Read from a decoder, which is killed if it takes too long."""
    is_late = threading.Event()

    def kill() -> None:
        is_late.set()
        process.kill()

    assert process.stdout is not None
    timer = threading.Timer(_TIMEOUT_SECONDS, kill)
    timer.start()
    data = process.stdout.read(n_bytes)
    timer.cancel()
    if is_late.is_set():
        problem = f"produces no audio within {_TIMEOUT_SECONDS:g} s of decoding"
        raise file_error("timeout", name, problem)
    return data


def _read_blocks(
    process: "subprocess.Popen[bytes]", n_channels: int, name: str
) -> Iterator[NDArray[np.float32]]:
    frame_bytes = 4 * n_channels
    while data := _read(process, _BLOCK_FRAMES * frame_bytes, name):
        n_values = len(data) // frame_bytes * n_channels
        samples = np.frombuffer(data, ">f4", n_values)
        yield samples.reshape(-1, n_channels).astype(np.float32)
    if process.wait():
        raise corrupt_error(name, "cannot be decoded to its end by ffmpeg")


def _parse_duration(log: bytes) -> float:
    """Return the duration in seconds that ffmpeg logs, 0 if it is not reliable."""
    duration = re.search(rb"^  Duration: (\d+):(\d+):([\d.]+)", log, re.M)
    if duration is None or b"Estimating duration" in log:
        return 0.0
    # A film may be longer than its audio. A cover picture is a stream as well.
    description = log.partition(b"\nStream mapping")[0]
    streams = re.findall(rb"^  Stream #0:\d.*", description, re.M)
    n_streams = sum(b"(attached pic)" not in stream for stream in streams)
    if n_streams != 1:
        return 0.0
    hours, minutes, seconds = duration.groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
