"""The constant-Q transform itself: a cascade of octaves that takes a wave of any length, block by block.

Every octave is half the rate of the one above it, so that all octaves share one length of kernel; each is the product
of overlapping windows of the wave with a dense matrix of kernels. Kernels and decimation are librosa's.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cqt2img.tiles.spec import TileSpec

N_ROWS = 256  # frames of one product, so that no pixel depends on where a block ends; only the last may have fewer
_BLOCK = 1 << 18
_TAIL = 3e-6  # part of a kernel's magnitude that may be cut off at either end: at most 0.05 dB at -60 dB was seen
_PART = 18  # kernels of one length in a product
_HANN = 1.50018310546875  # equivalent noise bandwidth of a Hann window in bins, as librosa has it


class _Samples(Protocol):
    """An array or a DiskBuffer."""

    def __len__(self) -> int: ...

    def __getitem__(self, where: slice, /) -> NDArray[np.float32]: ...


@dataclass
class _Octave:
    low: int  # first bin
    top: int  # one beyond the last
    decimation: int  # of the sound of the octave above
    hop: int  # samples at the rate of this octave
    kernels: list[
        tuple[int, int, int, NDArray[np.float32]]
    ]  # first bin, one beyond the last, half width, matrix
    sound: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    n_done: int = 0  # products

    @property
    def reach(self) -> int:
        return max(reach for _, _, reach, _ in self.kernels)


def transform(
    wave: _Samples, spec: TileSpec, tuning_cents: float
) -> Iterator[NDArray[np.float32]]:
    """Transform a wave to the power of every bin in every frame.

    Parameters
    ----------
    wave : ndarray of float32 or DiskBuffer, shape (n_samples,)
        Mono audio at `spec.sample_rate`.
    spec : TileSpec
        Says which bins and frames.
    tuning_cents : float
        How far the bins move from A4 = 440 Hz, in cents.

    Yields
    ------
    ndarray of float32, shape (n_frames, n_bins)
        The next frames, `N_ROWS` or, at the end, fewer. In all there are `1 + n_samples // spec.hop_length`; frame t
        is centred on sample `t * spec.hop_length`. Magnitudes are those of `librosa.vqt(..., sparsity=0)`.

    References
    ----------
    Christian Schörkhuber and Anssi Klapuri, "Constant-Q transform toolbox for music processing", 2010.
    Brian McFee et al., "librosa: Audio and music signal analysis in Python", 2015.
    """
    n_frames = 1 + len(wave) // spec.hop_length
    cascade = _Cascade(spec, tuning_cents)
    with _one_thread():
        for start in range(0, len(wave), _BLOCK):
            end = start + _BLOCK >= len(wave)
            cascade.feed(wave[start : start + _BLOCK], n_frames if end else None)
            yield from cascade.ready()


class _Cascade:
    """The octaves, the streams that halve the rate between them, and the products that wait for the slowest one."""

    def __init__(self, spec: TileSpec, tuning_cents: float) -> None:
        import soxr

        self.n_bins = spec.n_bins
        self.octaves = _octaves(spec, round(tuning_cents, 3))
        for octave in self.octaves:
            octave.sound = np.zeros(octave.reach, np.float32)  # before the first sample
        self.streams = [
            soxr.ResampleStream(o.decimation, 1, 1, dtype="float32", quality="HQ")
            for o in self.octaves
        ]
        self.waiting: dict[int, NDArray[np.float32]] = {}
        self.n_ready = 0

    def feed(self, samples: NDArray[np.float32], n_frames: int | None) -> None:
        """Give the next samples; with the last ones, the number of frames that they all make."""
        for octave, stream in zip(self.octaves, self.streams, strict=True):
            if octave.decimation > 1:
                samples = stream.resample_chunk(samples, last=n_frames is not None)
            parts = [octave.sound, samples]
            if (
                n_frames is not None
            ):  # silence behind the last sample, as far as its frames reach
                n_missing = (
                    max(0, n_frames - octave.n_done * N_ROWS) * octave.hop
                    + 2 * octave.reach
                )
                parts.append(np.zeros(n_missing, np.float32))
            octave.sound = np.concatenate(parts)
            self._multiply(octave, n_frames)

    def _multiply(self, octave: _Octave, n_frames: int | None) -> None:
        """Make all products for which there is sound; the last one, and only that, may have fewer rows."""
        width, first = 2 * octave.reach + 1, 0
        room = np.empty((N_ROWS, width), np.float32)
        while True:
            n_rows = (
                N_ROWS
                if n_frames is None
                else min(N_ROWS, n_frames - octave.n_done * N_ROWS)
            )
            need = (n_rows - 1) * octave.hop + width
            if n_rows <= 0 or len(octave.sound) - first < need:
                break
            windows, sound = room[:n_rows], octave.sound[first : first + need]
            windows[:] = np.lib.stride_tricks.sliding_window_view(sound, width)[
                :: octave.hop
            ]
            if octave.n_done not in self.waiting:
                self.waiting[octave.n_done] = np.empty(
                    (n_rows, self.n_bins), np.float32
                )
            power = self.waiting[octave.n_done]
            for low, top, reach, matrix in octave.kernels:
                inner = slice(octave.reach - reach, octave.reach + reach + 1)
                product = windows[:, inner] @ matrix
                np.multiply(product, product, out=product)
                np.add(
                    product[:, : top - low],
                    product[:, top - low :],
                    out=power[:, low:top],
                )
            octave.n_done += 1
            first += N_ROWS * octave.hop
        octave.sound = octave.sound[first:]

    def ready(self) -> Iterator[NDArray[np.float32]]:
        """Give the products that every octave has made."""
        while self.n_ready < min(octave.n_done for octave in self.octaves):
            yield self.waiting.pop(self.n_ready)
            self.n_ready += 1


def _octaves(spec: TileSpec, tuning_cents: float) -> list[_Octave]:
    """Lay out the octaves from the highest down, each at the rate that librosa gives it."""
    ratio = 2 ** (2 / spec.bins_per_octave)
    bandwidth = (ratio - 1) / (ratio + 1)  # relative to the frequency
    frequencies = spec.f_min * 2 ** (
        np.arange(spec.n_bins) / spec.bins_per_octave + tuning_cents / 1200
    )
    octaves: list[_Octave] = []
    known: dict[
        tuple[float, int], NDArray[np.complex128]
    ] = {}  # without gamma all whole octaves have the same kernels
    top, decimation, hop = (
        spec.n_bins,
        2 ** _early_halvings(spec, frequencies[-1], bandwidth),
        spec.hop_length,
    )
    while top > 0:
        low, hop = max(0, top - spec.bins_per_octave), hop // decimation
        slower = spec.hop_length / hop
        rate = spec.sample_rate / slower
        key = round(frequencies[low] / rate, 9) if spec.gamma == 0 else -rate, top - low
        if key not in known:
            known[key] = _kernels(frequencies[low:top], rate, spec.gamma, bandwidth)
        kernels = known[key]
        octaves.append(
            _Octave(
                low, top, decimation, hop, _in_parts(kernels * np.sqrt(slower), low)
            )
        )
        top, decimation = low, 1 + (hop % 2 == 0)
    return octaves


def _early_halvings(spec: TileSpec, highest: float, bandwidth: float) -> int:
    """Count how often the wave can be halved before the highest octave."""
    end = highest * (1 + _HANN * bandwidth / 2) + spec.gamma / 2
    n_octaves = -(-spec.n_bins // spec.bins_per_octave)
    n_twos = (spec.hop_length & -spec.hop_length).bit_length() - 1
    room = int(np.ceil(np.log2(spec.sample_rate / 2 / end))) - 2
    return max(0, min(room, n_twos - n_octaves + 1))


def _kernels(
    frequencies: NDArray[np.float64], rate: float, gamma: float, bandwidth: float
) -> NDArray[np.complex128]:
    """Give the kernels of an octave in time, with an odd length and their centre in the middle."""
    lengths = rate / (bandwidth * frequencies + gamma)
    half = 1 << int(np.ceil(np.log2(lengths.max()))) >> 1
    time = np.arange(-half, half)
    first, end = (
        np.floor(-lengths / 2)[:, np.newaxis],
        np.floor(lengths / 2)[:, np.newaxis],
    )
    # the kernels run backwards, for a product with the sound is not a convolution
    window = 0.5 - 0.5 * np.cos(2 * np.pi * (-time - first) / (end - first))  # Hann
    window[(-time < first) | (-time >= end)] = 0
    window *= (np.sqrt(lengths) / window.sum(axis=1))[:, np.newaxis]
    kernels = window * np.exp(-2j * np.pi * frequencies[:, np.newaxis] / rate * time)
    # librosa multiplies spectra and leaves out one side, to which a short window of the bass reaches
    spectrum = np.fft.fft(kernels, axis=1)
    spectrum[:, 1:half] = 0
    kernels = np.fft.ifft(spectrum, axis=1)
    return np.pad(kernels, ((0, 0), (0, 1)))


def _in_parts(
    kernels: NDArray[np.complex128], low: int
) -> list[tuple[int, int, int, NDArray[np.float32]]]:
    """Cut the kernels of an octave where they have faded, higher ones earlier."""
    centre = kernels.shape[1] // 2
    size = np.abs(kernels)
    tails = np.maximum(size[:, : centre + 1], size[:, : centre - 1 : -1]).cumsum(
        axis=1
    ) / size.sum(axis=1, keepdims=True)
    reaches = centre - (tails < _TAIL).sum(axis=1)
    parts = []
    for first in range(0, len(kernels), _PART):
        reach = int(reaches[first : first + _PART].max())
        part = kernels[first : first + _PART, centre - reach : centre + reach + 1]
        matrix = np.concatenate([part.real, part.imag]).T.astype(np.float32, order="C")
        parts.append((low + first, low + first + len(part), reach, matrix))
    return parts


@lru_cache(maxsize=1)
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _one_thread() -> AbstractContextManager[Any]:
    """Multiply with one thread: the products are too small to share, and files are what is done in parallel."""
    return _controller().limit(limits=1, user_api="blas")
