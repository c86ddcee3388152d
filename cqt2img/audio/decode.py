"""Decode a recording to a mono wave, or raise if it is not a complete recording."""

import io
import itertools
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager

import numpy as np
from numpy.typing import NDArray

from cqt2img.audio.ffmpeg import find_demuxer, open_ffmpeg
from cqt2img.audio.integrity import check_file
from cqt2img.audio.levels import Meter
from cqt2img.audio.reasons import (
    corrupt_error,
    file_error,
    truncated_error,
    unreadable_error,
)
from cqt2img.audio.sndfile import open_sndfile
from cqt2img.audio.source import SLACK_SECONDS, Stream
from cqt2img.audio.tags import skip_tags
from cqt2img.errors import AudioError, InputError

_SNDFILE_SUFFIXES = (
    ".aif .aifc .aiff .au .caf .flac .mp2 .mp3 .oga .ogg .opus .rf64 .snd .w64 .wav "
    ".wave"
)
_FFMPEG_SUFFIXES = ".aac .m4a .m4b .mka .mp4 .webm .wma"
AUDIO_SUFFIXES = frozenset(_SNDFILE_SUFFIXES.split() + _FFMPEG_SUFFIXES.split())
_MIN_RATE = 4000  # Hz
_MAX_RATE = 768_000
_MAX_CHANNELS = 64
_SILENCE = 1e-4  # peak, -80 dBFS
_MAX_FINITE = 1e30  # squares of larger samples overflow


def load_wave(
    path: str | os.PathLike[str], sample_rate: int, max_seconds: float = 6 * 3600
) -> NDArray[np.float32]:
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
        Mean of the channels, full scale at 1. Finite, at least 0.1 s long and not
        silent.

    Raises
    ------
    InputError
        If an argument is invalid.
    AudioError
        If the file is not one complete recording with audible content. Its `reason` is
        a key of `cqt2img.audio.reasons.REASONS`.

    Notes
    -----
    libsndfile decodes every format that it supports. MP4, ADTS, ASF and Matroska are
    decoded by ffmpeg, or by torchcodec where ffmpeg is missing, at the rate and with
    the channels of the file. Memory holds the wave once.
    """
    wave = bytearray()  # grows in place; a list of blocks would be held twice
    for block in read_wave(path, sample_rate, max_seconds):
        wave += block.tobytes()
    return np.frombuffer(wave, dtype=np.float32)


def read_wave(
    path: str | os.PathLike[str],
    sample_rate: int,
    max_seconds: float = 24 * 3600,
    meter: Meter | None = None,
) -> Iterator[NDArray[np.float32]]:
    """Decode a recording block by block; joined, the blocks equal `load_wave`.

    Parameters
    ----------
    path, sample_rate, max_seconds
        As for `load_wave`.
    meter : Meter, optional
        Measures the audio at its original rate.

    Yields
    ------
    ndarray of float32, shape (n_samples,)
        The next samples, about 1.5 s.

    Raises
    ------
    InputError
        If an argument is invalid.
    AudioError
        As for `load_wave`; some faults are found only after the last block.
    """
    _check_arguments(path, sample_rate, max_seconds)
    name = os.fsdecode(path)
    with _open_file(name) as file, _open_stream(file, name) as stream:
        _check_header(stream, name)
        yield from _mix_and_resample(
            stream, name, sample_rate, max_seconds, meter or Meter()
        )


def _check_arguments(path: object, sample_rate: int, max_seconds: float) -> None:
    if not isinstance(path, str | os.PathLike):
        raise InputError(
            f"load_wave: path must be a str or PathLike, got {path!r}. "
            "Pass the name of one file."
        )
    is_integer = isinstance(sample_rate, int) and not isinstance(sample_rate, bool)
    if not is_integer or not _MIN_RATE <= sample_rate <= _MAX_RATE:
        raise InputError(
            f"load_wave: sample_rate must be an integer from {_MIN_RATE} to "
            f"{_MAX_RATE} Hz, got {sample_rate!r}. Take it from a TileSpec."
        )
    if not max_seconds > 0:
        raise InputError(
            f"load_wave: max_seconds must be more than 0, got {max_seconds!r}. "
            "Omit it for 6 hours."
        )


def _open_file(name: str) -> io.FileIO:
    try:
        status = os.stat(name)  # first, because opening a FIFO would hang
        file = io.FileIO(name) if stat.S_ISREG(status.st_mode) else None
    except (FileNotFoundError, NotADirectoryError) as err:
        raise file_error("vanished", name, "does not exist") from err
    except ValueError as err:  # NUL in the name
        raise file_error("vanished", name, "does not exist") from err
    except OSError as err:
        raise unreadable_error(name, err) from err
    if file is None:
        is_folder = stat.S_ISDIR(status.st_mode)
        problem = "is a folder" if is_folder else "is a pipe or a device"
        raise file_error("not_a_file", name, problem)
    if not status.st_size:
        file.close()
        raise file_error("empty_file", name, "has 0 bytes")
    return file


def _open_stream(file: io.FileIO, name: str) -> AbstractContextManager[Stream]:
    """Check a file, and open it with the decoder for its format."""
    try:
        _, head = skip_tags(file)
        source = check_file(file, name)
    except AudioError:
        raise
    except OSError as err:
        raise unreadable_error(name, err) from err
    demuxer = find_demuxer(head)
    if demuxer:
        return open_ffmpeg(name, demuxer)
    return open_sndfile(source, name)


def _check_header(stream: Stream, name: str) -> None:
    if not _MIN_RATE <= stream.sample_rate <= _MAX_RATE:
        problem = (
            f"claims a sample rate of {stream.sample_rate} Hz, "
            f"outside {_MIN_RATE} to {_MAX_RATE} Hz"
        )
        raise file_error("bad_sample_rate", name, problem)
    if not 1 <= stream.n_channels <= _MAX_CHANNELS:
        problem = f"has {stream.n_channels} channels, not 1 to {_MAX_CHANNELS}"
        raise file_error("bad_channels", name, problem)


def _mix_and_resample(
    stream: Stream, name: str, sample_rate: int, max_seconds: float, meter: Meter
) -> Iterator[NDArray[np.float32]]:
    """Yield mono blocks at the wanted rate, and check length and levels."""
    import soxr

    rate = stream.sample_rate
    resampler = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
    n_frames = 0
    no_frames = np.zeros((0, stream.n_channels), np.float32)
    for block in itertools.chain([no_frames], stream.blocks):
        n_frames += len(block)
        seconds = max(n_frames, stream.n_promised) / rate
        if max(n_frames, stream.n_promised) > max_seconds * rate:
            problem = f"lasts {seconds:.0f} s or more, above {max_seconds:g} s"
            raise file_error("too_long", name, problem)
        mono = meter.add(block, rate)
        if not meter.peak < _MAX_FINITE:
            problem = f"has NaN or infinity before {n_frames / rate:.1f} s"
            raise file_error("non_finite", name, problem)
        yield mono if rate == sample_rate else resampler.resample_chunk(mono)
    if rate != sample_rate:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
    _check_length(n_frames, stream, name)
    _check_level(meter, name)


def _check_length(n_frames: int, stream: Stream, name: str) -> None:
    slack = SLACK_SECONDS * stream.sample_rate
    seconds = n_frames / stream.sample_rate
    promised_seconds = stream.n_promised / stream.sample_rate
    if stream.n_promised - n_frames > slack:
        problem = f"holds {seconds:.1f} of {promised_seconds:.1f} s"
        raise truncated_error(name, problem)
    if stream.n_promised and n_frames - stream.n_promised > slack:
        problem = f"holds {seconds:.1f} s but promises {promised_seconds:.1f} s"
        raise corrupt_error(name, problem)
    if n_frames < slack:
        problem = f"lasts {seconds:.3f} s, less than {SLACK_SECONDS} s"
        raise file_error("too_short", name, problem)


def _check_level(meter: Meter, name: str) -> None:
    if meter.peak >= _SILENCE:
        return
    is_silent = meter.channel_peak < _SILENCE
    problem = "is silent" if is_silent else "has channels that cancel out"
    raise file_error("silent", name, f"{problem}, below -80 dBFS")
