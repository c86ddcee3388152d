"""Audio files for the tests of this folder."""

from contextlib import contextmanager

import numpy as np
import pytest
import soundfile

from cqt2img.audio.decode import load_wave
from cqt2img.audio.reasons import REASONS
from cqt2img.errors import AudioError

RATE = 22050
FILE_RATE = 44100
# Suffix, format and subtype of libsndfile.
FORMATS = [
    ("wav", "WAV", "PCM_16"),
    ("wav", "WAV", "PCM_24"),
    ("wav", "WAV", "FLOAT"),
    ("wav", "WAV", "IMA_ADPCM"),
    ("wav", "WAVEX", "PCM_16"),
    ("rf64", "RF64", "PCM_16"),
    ("w64", "W64", "PCM_24"),
    ("aiff", "AIFF", "PCM_24"),
    ("aifc", "AIFF", "ULAW"),
    ("caf", "CAF", "PCM_16"),
    ("caf", "CAF", "ALAC_16"),
    ("au", "AU", "PCM_16"),
    ("flac", "FLAC", "PCM_16"),
    ("ogg", "OGG", "VORBIS"),
    ("opus", "OGG", "OPUS"),
    ("mp3", "MP3", "MPEG_LAYER_III"),
]
SUFFIXES = list(dict.fromkeys(suffix for suffix, _, _ in FORMATS))
# Formats in which a cut is found, wherever it is.
CHECKED_SUFFIXES = ["wav", "rf64", "w64", "aiff", "caf", "flac", "ogg", "opus", "mp3"]


def tone(seconds=1.0, rate=FILE_RATE, n_channels=2, hz=440.0):
    """Return a sine with a little noise, other noise in each channel."""
    rng = np.random.default_rng(0)
    time = np.arange(round(seconds * rate)) / rate
    wave = 0.3 * np.sin(2 * np.pi * hz * time)
    noise = 0.02 * rng.normal(size=(len(wave), n_channels))
    return (wave[:, None] + noise).astype(np.float32)


def write(path, sound=None, rate=FILE_RATE, form=None, subtype=None):
    sound = tone(rate=rate) if sound is None else sound
    soundfile.write(path, sound, rate, format=form, subtype=subtype)
    return path


def write_as(folder, suffix, seconds=2.0):
    """Write a tone in the first format of a suffix."""
    form, subtype = next((f, s) for name, f, s in FORMATS if name == suffix)
    rate = 48000 if suffix == "opus" else FILE_RATE
    return write(folder / f"x.{suffix}", tone(seconds, rate), rate, form, subtype)


def pitch(wave, rate=RATE):
    """Return the strongest frequency in Hz."""
    return np.argmax(np.abs(np.fft.rfft(wave))) * rate / len(wave)


def duration(path):
    """Return the length of what is decoded in seconds."""
    return len(load_wave(path, RATE)) / RATE


@contextmanager
def raises_audio_error(reason, path, *parts):
    """Expect an error with a reason, that names the file and all parts."""
    assert reason in REASONS
    with pytest.raises(AudioError) as caught:
        yield
    message = str(caught.value)
    assert (caught.value.reason, message) == (reason, caught.value.message)
    assert message.startswith(f"{str(path)!r} ")
    assert message.endswith(".")
    missing = [part for part in map(str, parts) if part not in message]
    assert not missing, f"{missing} not in {message!r}"


def check_error(path, reason, *parts, **options):
    """Check that a file cannot be loaded, and the error."""
    with raises_audio_error(reason, path, *parts):
        load_wave(path, RATE, **options)
