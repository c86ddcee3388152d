"""What can be said of the sound of a file while it passes: level, clipping, silence, what mixing to mono loses."""

from typing import Any

import numpy as np

_WINDOW_SECONDS = 0.1
_SILENT = 1e-6  # -60 dBFS, as power
_FULL = 0.999  # of full scale; a sample that high was most likely cut off


class Meter:
    """Measures blocks of sound one after the other, and mixes them to mono on the way.

    Attributes
    ----------
    peak, channel_peak : float
        Highest magnitude of the mono mix and of the channels so far; full scale is 1.
    """

    def __init__(self) -> None:
        self.peak = self.channel_peak = 0.0
        self._n_frames = self._n_samples = self._n_clipped = 0
        self._mono_sum = self._mono_power = self._channel_power = 0.0
        self._rest = np.zeros(0, np.float32)
        self._windows: list[np.ndarray] = []

    def add(self, block: np.ndarray, rate: int) -> np.ndarray:
        """Measure the next block.

        Parameters
        ----------
        block : ndarray of float32, shape (n_samples, n_channels)
            Sound; full scale at 1.
        rate : int
            Its sample rate in Hz.

        Returns
        -------
        ndarray of float32, shape (n_samples,)
            Mean of the channels.
        """
        n_channels = block.shape[1]
        with np.errstate(invalid="ignore", over="ignore"):
            # numpy's mean over so short an axis takes ten times as long
            mono = block[:, 0].copy() if n_channels == 1 else block[:, 0] + block[:, 1]
            for channel in range(2, n_channels):
                mono += block[:, channel]
            mono *= np.float32(1 / n_channels)
            highest = _peak(block)
            self.peak = float(
                np.maximum(self.peak, _peak(mono) if n_channels > 1 else highest)
            )  # keeps a NaN
            self.channel_peak = max(self.channel_peak, highest)
            if highest >= _FULL:
                self._n_clipped += int(np.count_nonzero(np.abs(block) >= _FULL))
            self._n_frames += len(block)
            self._n_samples += block.size
            self._mono_sum += float(mono.sum())
            self._channel_power += float(np.vdot(block, block)) / n_channels
            sound = np.concatenate([self._rest, mono]) if len(self._rest) else mono
            window = round(_WINDOW_SECONDS * rate)
            whole = len(sound) // window
            cut = sound[: whole * window].reshape(whole, window)
            power = np.einsum("ij,ij->i", cut, cut)
            self._mono_power += float(np.vdot(mono, mono))
            self._windows.append(power / np.float32(window))
            self._rest = sound[whole * window :].copy()
        return mono

    def report(self) -> dict[str, Any]:
        """Say what was measured.

        Returns
        -------
        dict
            `peak_dbfs` (of the channels), `clipped` (part of the samples at full scale, 0 to 1), `silence` (part of
            the time, in tenths of a second, below -60 dBFS), `dc` (mean of the samples), `mono_loss_db` (what mixing
            to mono loses: 0 for equal channels, 3 for unrelated ones, more where they cancel), and `loudness_dbfs`
            (mean power of the tenths of a second within 10 dB of the mean of all that sounds: the gates of ITU-R
            BS.1770-4 without its filter, so that it is not LUFS).
        """
        power = np.concatenate(self._windows) if self._windows else np.zeros(0)
        loud = power[power > _SILENT]
        loud = loud[loud > loud.mean() / 10] if len(loud) else loud
        lost = self._channel_power / self._mono_power if self._mono_power else 1.0
        return {
            "peak_dbfs": _decibel(self.channel_peak**2),
            "clipped": round(self._n_clipped / max(1, self._n_samples), 6),
            "silence": round(float(np.mean(power <= _SILENT)), 3)
            if len(power)
            else 0.0,
            "dc": round(self._mono_sum / max(1, self._n_frames), 5),
            "mono_loss_db": max(0.0, _decibel(lost)),
            "loudness_dbfs": _decibel(float(loud.mean())) if len(loud) else None,
        }


def _peak(sound: np.ndarray) -> float:
    return float(np.maximum(sound.max(initial=0), -sound.min(initial=0)))


def _decibel(power: float) -> float:
    return round(10 * float(np.log10(max(power, 1e-20))), 1)
