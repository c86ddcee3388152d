"""Level, clipping, silence and phase of a recording, measured while it is decoded."""

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

_WINDOW_SECONDS = 0.1
_SILENT_POWER = 1e-6  # -60 dBFS
_FULL_SCALE = 0.999  # a sample that high was most likely clipped
_GATE = 10  # ratio of powers: 10 dB


class LevelReport(TypedDict):
    """Measured levels of a recording.

    Attributes
    ----------
    peak_dbfs : float
        Highest sample of all channels in dB.
    clipped : float
        Fraction of the samples at full scale.
    silence : float
        Fraction of the time, in steps of 0.1 s, below -60 dBFS.
    dc : float
        Mean of the samples.
    mono_loss_db : float
        Power that is lost by mixing to mono in dB: 0 for equal channels, 3 for
        uncorrelated ones, more where they cancel out.
    loudness_dbfs : float or None
        Mean power in dB of the steps of 0.1 s within 10 dB of the mean of those that
        are not silent: the gates of ITU-R BS.1770-4 without its filter, so that it is
        not LUFS. None if all is silent.
    """

    peak_dbfs: float
    clipped: float
    silence: float
    dc: float
    mono_loss_db: float
    loudness_dbfs: float | None


class Meter:
    """Measures blocks of audio one after the other, and mixes them to mono.

    Attributes
    ----------
    peak, channel_peak : float
        Highest magnitude of the mono mix and of the channels so far; full scale is 1.
    """

    def __init__(self) -> None:
        self.peak = 0.0
        self.channel_peak = 0.0
        self._n_frames = 0
        self._n_samples = 0
        self._n_clipped = 0
        self._mono_sum = 0.0
        self._mono_power = 0.0
        self._channel_power = 0.0
        self._remainder = np.zeros(0, np.float32)  # shorter than a window
        self._window_powers: list[NDArray[np.float32]] = []

    def add(self, block: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
        """Measure the next block.

        Parameters
        ----------
        block : ndarray of float32, shape (n_samples, n_channels)
            Audio, full scale at 1.
        rate : int
            Its sample rate in Hz.

        Returns
        -------
        ndarray of float32, shape (n_samples,)
            Mean of the channels.
        """
        n_channels = block.shape[1]
        # NaN and overflows are found by the caller, who checks the peak.
        with np.errstate(invalid="ignore", over="ignore"):
            mono = _mix_to_mono(block)
            channel_peak = _peak(block)
            mono_peak = _peak(mono) if n_channels > 1 else channel_peak
            self.peak = float(np.maximum(self.peak, mono_peak))  # keeps a NaN
            self.channel_peak = max(self.channel_peak, channel_peak)
            if channel_peak >= _FULL_SCALE:
                is_clipped = np.abs(block) >= _FULL_SCALE
                self._n_clipped += int(np.count_nonzero(is_clipped))
            self._n_frames += len(block)
            self._n_samples += block.size
            self._mono_sum += float(mono.sum())
            self._mono_power += float(np.vdot(mono, mono))
            self._channel_power += float(np.vdot(block, block)) / n_channels
            self._add_windows(mono, rate)
        return mono

    def _add_windows(self, mono: NDArray[np.float32], rate: int) -> None:
        """Add the mean power of each complete step of 0.1 s."""
        samples = mono
        if len(self._remainder):
            samples = np.concatenate([self._remainder, mono])
        window_length = round(_WINDOW_SECONDS * rate)
        n_windows = len(samples) // window_length
        end = n_windows * window_length
        windows = samples[:end].reshape(n_windows, window_length)
        energy = np.einsum("ij,ij->i", windows, windows)
        self._window_powers.append(energy / np.float32(window_length))
        self._remainder = samples[end:].copy()

    def report(self) -> LevelReport:
        """Summarise the measurements.

        Returns
        -------
        LevelReport
            The levels.
        """
        powers = np.concatenate([np.zeros(0, np.float32), *self._window_powers])
        is_silent = powers <= _SILENT_POWER
        silence = float(np.mean(is_silent)) if len(powers) else 0.0
        power_ratio = 1.0
        if self._mono_power:
            power_ratio = self._channel_power / self._mono_power
        return {
            "peak_dbfs": _decibel(self.channel_peak**2),
            "clipped": round(self._n_clipped / max(1, self._n_samples), 6),
            "silence": round(silence, 3),
            "dc": round(self._mono_sum / max(1, self._n_frames), 5),
            "mono_loss_db": max(0.0, _decibel(power_ratio)),
            "loudness_dbfs": _loudness(powers[~is_silent]),
        }


def _mix_to_mono(block: NDArray[np.float32]) -> NDArray[np.float32]:
    # numpy's mean over so short an axis takes ten times as long
    mono = block[:, 0].copy()
    n_channels = block.shape[1]
    for channel in range(1, n_channels):
        mono += block[:, channel]
    mono *= np.float32(1 / n_channels)
    return mono


def _peak(samples: NDArray[np.float32]) -> float:
    highest = samples.max(initial=0)
    lowest = samples.min(initial=0)
    return float(np.maximum(highest, -lowest))


def _loudness(powers: NDArray[np.float32]) -> float | None:
    """Compute the gated loudness in dB from the powers of windows with sound."""
    if not len(powers):
        return None
    is_loud = powers > powers.mean() / _GATE
    return _decibel(float(powers[is_loud].mean()))


def _decibel(power: float) -> float:
    return round(10 * float(np.log10(max(power, 1e-20))), 1)
