"""Decoding by libsndfile."""

import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cqt2img.audio.reasons import corrupt_error, truncated_error, unreadable_error
from cqt2img.audio.source import SLACK_SECONDS, Source, SplicedFile, Stream
from cqt2img.errors import AudioError

if TYPE_CHECKING:
    from soundfile import SoundFile

_BLOCK_FRAMES = 1 << 16
_UNKNOWN_FRAMES = 1 << 62  # libsndfile reports 2 ** 63 - 1


@contextmanager
def open_sndfile(source: Source, name: str) -> Iterator[Stream]:
    """Decode a source by libsndfile.

    Parameters
    ----------
    source : Source
        What the integrity check returned.
    name : str
        Path of the file, for errors.

    Yields
    ------
    Stream
        The audio at the sample rate of the file.

    Raises
    ------
    AudioError
        If libsndfile cannot decode it, or the disk fails.
    """
    import soundfile

    with ExitStack() as stack:
        sounds: list[SoundFile] = []
        try:
            for file in source.files:
                sounds.append(stack.enter_context(soundfile.SoundFile(file)))
        except (soundfile.SoundFileError, ValueError, TypeError) as err:
            _raise_disk_error(source, name)
            raise corrupt_error(name, "cannot be opened by libsndfile") from err
        rate = sounds[0].samplerate
        n_channels = sounds[0].channels
        for sound in sounds:
            if (sound.samplerate, sound.channels) != (rate, n_channels):
                raise corrupt_error(name, "changes its sample rate or its channels")
        n_frames = sum(sound.frames for sound in sounds)
        is_known = n_frames < _UNKNOWN_FRAMES
        if is_known and n_frames * source.surplus > SLACK_SECONDS * rate:
            raise corrupt_error(name, "holds more audio than it promises")
        n_promised = source.n_promised
        if not n_promised and is_known:
            n_promised = n_frames
        yield Stream(rate, n_channels, n_promised, _read_blocks(source, sounds, name))


def _read_blocks(
    source: Source, sounds: "list[SoundFile]", name: str
) -> Iterator[NDArray[np.float32]]:
    from soundfile import SoundFileError

    buffer = np.empty((_BLOCK_FRAMES, sounds[0].channels), np.float32)
    for file, sound in zip(source.files, sounds, strict=True):
        # Otherwise every read seeks, which fails in a FLAC of unknown length.
        sound.seekable = lambda: False
        try:
            while len(block := sound.read(out=buffer)):
                yield block
        except (SoundFileError, ValueError) as err:
            _raise_disk_error(source, name)
            raise _decoding_error(file, name) from err
    _raise_disk_error(source, name)


def _decoding_error(file: "io.BufferedReader[SplicedFile]", name: str) -> AudioError:
    if file.read(1):
        return corrupt_error(name, "has a fault in the middle")
    return truncated_error(name, "stops in the middle of a frame")


def _raise_disk_error(source: Source, name: str) -> None:
    """Raise the read error, if any, that libsndfile took for the end of the file."""
    for file in source.files:
        error = file.raw.error
        if error is not None:
            raise unreadable_error(name, error) from error
