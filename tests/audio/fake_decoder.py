"""Stands for `torchcodec.decoders.AudioDecoder`, without its dependencies."""

import os
from types import SimpleNamespace

import numpy as np

RATE = 16000
N_CHANNELS = 2


class FakeTensor:
    """The few methods of a tensor that are used."""

    def __init__(self, values):
        self.values = values
        self.shape = values.shape

    @property
    def T(self):
        return FakeTensor(self.values.T)

    def contiguous(self):
        return FakeTensor(np.ascontiguousarray(self.values))

    def numpy(self):
        return self.values


class FakeDecoder:
    """Decodes any file to a tone of 440 Hz.

    `seconds` is its length, `promised_seconds` the length in its metadata, and from
    `failing_seconds` on it fails.
    """

    def __init__(self, seconds, promised_seconds, failing_seconds=99):
        self.seconds = seconds
        self.failing_seconds = failing_seconds
        self.metadata = SimpleNamespace(
            sample_rate=RATE,
            num_channels=N_CHANNELS,
            codec="aac",
            duration_seconds=promised_seconds,
        )

    @classmethod
    def from_environment(cls, file):
        """Make the decoder that the variable FAKE_DECODER describes."""
        assert file.read(8)[4:] == b"ftyp"
        return cls(*map(float, os.environ["FAKE_DECODER"].split()))

    def get_samples_played_in_range(self, start, stop):
        stop = min(stop, self.seconds)
        if start >= stop:
            raise RuntimeError("No audio frames were decoded. start_seconds is high")
        if start >= self.failing_seconds:
            raise RuntimeError("Could not decode")
        time = np.arange(round(start * RATE), round(stop * RATE)) / RATE
        wave = np.sin(2 * np.pi * 440 * time).astype(np.float32)
        return SimpleNamespace(data=FakeTensor(np.tile(wave, (N_CHANNELS, 1))))
