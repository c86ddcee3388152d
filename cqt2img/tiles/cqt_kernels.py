"""Constant-Q transform of a wave of any length, block by block.

A cascade of octaves: the sampling rate is halved from one octave to the one below it,
so that one set of kernel lengths serves all octaves. Each octave multiplies overlapping
windows of the wave by a dense matrix of kernels. Kernels and sampling rates are those
of librosa, which are reimplemented here because importing `librosa.filters` takes
longer than rendering a recording.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from cqt2img.tiles.spec import TileSpec

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

FloatArray = NDArray[np.float32]
_Float64Array = NDArray[np.float64]
_ComplexArray = NDArray[np.complex128]

# Frames of one matrix product. All products have the same number of rows, so that no
# pixel depends on the block size; only the last product may have fewer.
N_ROWS = 256
_BLOCK_SIZE = 1 << 18  # samples
# Fraction of the magnitude of a kernel that may be cut off at either end. Caused errors
# of at most 0.05 dB at -60 dB.
_TAIL = 3e-6
_KERNELS_PER_PRODUCT = 18  # kernels that are cut to a common length
_HANN_BANDWIDTH = 1.50018310546875  # equivalent noise bandwidth in bins, from librosa


class Samples(Protocol):
    """A mono wave, either an array or a DiskBuffer."""

    def __len__(self) -> int: ...

    def __getitem__(self, where: slice, /) -> FloatArray: ...


@dataclass(frozen=True)
class _KernelMatrix:
    """Kernels of some neighbouring bins, cut to a common length."""

    first_bin: int
    end_bin: int  # exclusive
    reach: int  # samples on either side of the centre
    matrix: FloatArray  # (2 * reach + 1, 2 * n_bins), real parts before imaginary parts


@dataclass
class _Octave:
    """An octave of the cascade, with the samples that it has not used yet."""

    decimation: int  # relative to the octave above
    hop: int  # samples at the sampling rate of this octave
    matrices: list[_KernelMatrix]
    reach: int = field(init=False)
    samples: FloatArray = field(init=False)
    n_products: int = 0  # finished so far

    def __post_init__(self) -> None:
        self.reach = max(kernels.reach for kernels in self.matrices)
        # Silence before the first sample.
        self.samples = np.zeros(self.reach, np.float32)

    def append(self, samples: FloatArray) -> None:
        self.samples = np.concatenate([self.samples, samples])

    def append_silence(self, n_frames: int) -> None:
        """Append silence up to the end of the windows of the last frames."""
        n_remaining = max(0, n_frames - self.n_products * N_ROWS)
        n_samples = n_remaining * self.hop + 2 * self.reach
        self.append(np.zeros(n_samples, np.float32))

    def n_next_rows(self, n_frames: int | None) -> int:
        """Return the number of frames of the next product."""
        if n_frames is None:
            return N_ROWS
        return min(N_ROWS, n_frames - self.n_products * N_ROWS)


def transform(
    wave: Samples, spec: TileSpec, tuning_cents: float
) -> Iterator[FloatArray]:
    """Compute the power of every bin in every frame.

    Parameters
    ----------
    wave : ndarray of float32 or DiskBuffer, shape (n_samples,)
        Mono audio at `spec.sample_rate`.
    spec : TileSpec
        Defines bins and frames.
    tuning_cents : float
        Shift of the bins from A4 = 440 Hz, in cents.

    Yields
    ------
    ndarray of float32, shape (n_frames, n_bins)
        Power of the next frames, `N_ROWS` or, at the end, fewer, in total
        `1 + n_samples // spec.hop_length`. Frame t is centred on sample
        `t * spec.hop_length`. The square root is the magnitude of
        `librosa.vqt(..., sparsity=0)`.

    References
    ----------
    Christian Schörkhuber and Anssi Klapuri, "Constant-Q transform toolbox for music
    processing", 2010.
    Brian McFee et al., "librosa: Audio and music signal analysis in Python", 2015.
    """
    n_frames = 1 + len(wave) // spec.hop_length
    cascade = _Cascade(spec, tuning_cents)
    with _limit_to_one_thread():
        for start in range(0, len(wave), _BLOCK_SIZE):
            end = start + _BLOCK_SIZE
            is_last = end >= len(wave)
            cascade.process(wave[start:end], n_frames if is_last else None)
            yield from cascade.pop_finished()


class _Cascade:
    """The octaves from the highest to the lowest, and the resamplers between them.

    Parameters
    ----------
    spec : TileSpec
        Defines bins and frames.
    tuning_cents : float
        Shift of the bins from A4 = 440 Hz, in cents.
    """

    def __init__(self, spec: TileSpec, tuning_cents: float) -> None:
        import soxr

        self.n_bins = spec.n_bins
        self.octaves = _make_octaves(spec, round(tuning_cents, 3))
        self.resamplers = []
        for octave in self.octaves:
            resampler = soxr.ResampleStream(
                octave.decimation, 1, 1, dtype="float32", quality="HQ"
            )
            self.resamplers.append(resampler)
        # Power by the number of its product, until the slowest octave has added to it.
        self.pending: dict[int, FloatArray] = {}
        self.n_popped = 0

    def process(self, samples: FloatArray, n_frames: int | None) -> None:
        """Process the next samples.

        Parameters
        ----------
        samples : ndarray of float32
            The next block of the wave.
        n_frames : int or None
            Number of frames of the whole wave with the last block, otherwise None.
        """
        is_last = n_frames is not None
        for octave, resampler in zip(self.octaves, self.resamplers, strict=True):
            if octave.decimation > 1:
                samples = resampler.resample_chunk(samples, last=is_last)
            octave.append(samples)
            if n_frames is not None:
                octave.append_silence(n_frames)
            self._multiply(octave, n_frames)

    def _multiply(self, octave: _Octave, n_frames: int | None) -> None:
        """Compute all products of an octave for which it has enough samples."""
        width = 2 * octave.reach + 1
        buffer = np.empty((N_ROWS, width), np.float32)
        start = 0
        while True:
            n_rows = octave.n_next_rows(n_frames)
            end = start + (n_rows - 1) * octave.hop + width
            if n_rows <= 0 or len(octave.samples) < end:
                break
            windows = buffer[:n_rows]
            samples = octave.samples[start:end]
            all_windows = np.lib.stride_tricks.sliding_window_view(samples, width)
            windows[:] = all_windows[:: octave.hop]
            power = self._pending_power(octave.n_products, n_rows)
            for kernels in octave.matrices:
                _compute_power(windows, kernels, power)
            octave.n_products += 1
            start += N_ROWS * octave.hop
        octave.samples = octave.samples[start:]

    def _pending_power(self, index: int, n_rows: int) -> FloatArray:
        """Return the array for the power of one product of all octaves."""
        if index not in self.pending:
            self.pending[index] = np.empty((n_rows, self.n_bins), np.float32)
        return self.pending[index]

    def pop_finished(self) -> Iterator[FloatArray]:
        """Yield the power of the products that all octaves have finished."""
        n_finished = min(octave.n_products for octave in self.octaves)
        while self.n_popped < n_finished:
            yield self.pending.pop(self.n_popped)
            self.n_popped += 1


def _compute_power(
    windows: FloatArray, kernels: _KernelMatrix, out: FloatArray
) -> None:
    """Write the power of some bins into their columns of `out`."""
    centre = windows.shape[1] // 2
    inner = slice(centre - kernels.reach, centre + kernels.reach + 1)
    product = windows[:, inner] @ kernels.matrix
    np.multiply(product, product, out=product)
    n_bins = kernels.end_bin - kernels.first_bin
    real = product[:, :n_bins]
    imaginary = product[:, n_bins:]
    bins = slice(kernels.first_bin, kernels.end_bin)
    np.add(real, imaginary, out=out[:, bins])


def _make_octaves(spec: TileSpec, tuning_cents: float) -> list[_Octave]:
    """Return the octaves from the highest to the lowest, at the rates of librosa."""
    frequencies = _compute_frequencies(spec, tuning_cents)
    bandwidth = _relative_bandwidth(spec)
    n_halvings = _count_early_halvings(spec, frequencies[-1])
    decimation = 2**n_halvings
    hop = spec.hop_length
    end_bin = spec.n_bins
    octaves: list[_Octave] = []
    # Without gamma all complete octaves have the same kernels.
    cache: dict[tuple[float, int], _ComplexArray] = {}
    while end_bin > 0:
        first_bin = max(0, end_bin - spec.bins_per_octave)
        octave_frequencies = frequencies[first_bin:end_bin]
        hop = hop // decimation
        total_decimation = spec.hop_length / hop
        rate = spec.sample_rate / total_decimation
        lowest = octave_frequencies[0] / rate
        key = (
            round(lowest, 9) if spec.gamma == 0 else -rate,
            len(octave_frequencies),
        )
        if key not in cache:
            cache[key] = _make_kernels(octave_frequencies, rate, spec.gamma, bandwidth)
        kernels = cache[key] * np.sqrt(total_decimation)
        matrices = _cut_kernels(kernels, first_bin)
        octaves.append(_Octave(decimation, hop, matrices))
        end_bin = first_bin
        decimation = 2 if hop % 2 == 0 else 1
    return octaves


def _compute_frequencies(spec: TileSpec, tuning_cents: float) -> _Float64Array:
    """Return the centre frequencies of the bins in Hz."""
    octaves = np.arange(spec.n_bins) / spec.bins_per_octave
    return spec.f_min * 2 ** (octaves + tuning_cents / 1200)


def _relative_bandwidth(spec: TileSpec) -> float:
    """Return the bandwidth of a bin relative to its frequency, without gamma."""
    ratio = 2 ** (2 / spec.bins_per_octave)
    return (ratio - 1) / (ratio + 1)


def _count_early_halvings(spec: TileSpec, highest: float) -> int:
    """Return how often the wave can be halved before the highest octave."""
    bandwidth = _HANN_BANDWIDTH * _relative_bandwidth(spec)
    cutoff = highest * (1 + bandwidth / 2) + spec.gamma / 2
    nyquist = spec.sample_rate / 2
    n_octaves_above = np.ceil(np.log2(nyquist / cutoff))
    n_by_cutoff = int(n_octaves_above) - 2
    n_octaves = -(-spec.n_bins // spec.bins_per_octave)
    power_of_two = spec.hop_length & -spec.hop_length  # the largest in hop_length
    n_by_hop = power_of_two.bit_length() - n_octaves
    return max(0, min(n_by_cutoff, n_by_hop))


def _make_kernels(
    frequencies: _Float64Array, rate: float, gamma: float, bandwidth: float
) -> _ComplexArray:
    """Return the kernels of an octave in time, of odd length and centred."""
    frequencies = frequencies[:, np.newaxis]
    lengths = rate / (bandwidth * frequencies + gamma)
    exponent = np.ceil(np.log2(lengths.max()))
    half = 1 << int(exponent) >> 1
    time = np.arange(-half, half)
    window = _make_windows(lengths, time)
    window *= np.sqrt(lengths) / window.sum(axis=1, keepdims=True)
    phase = -2j * np.pi * frequencies / rate * time
    kernels = window * np.exp(phase)
    # librosa multiplies spectra and drops the negative frequencies, into which the
    # short windows of low bins extend.
    spectrum = np.fft.fft(kernels, axis=1)
    spectrum[:, 1:half] = 0
    kernels = np.fft.ifft(spectrum, axis=1)
    return np.pad(kernels, ((0, 0), (0, 1)))


def _make_windows(lengths: _Float64Array, time: NDArray[np.int64]) -> _Float64Array:
    """Return Hann windows of the given lengths, shape (n_bins, n_samples).

    They are reversed because a product with the wave is a correlation, not a
    convolution.
    """
    time = -time
    start = np.floor(-lengths / 2)
    end = np.floor(lengths / 2)
    phase = 2 * np.pi * (time - start) / (end - start)
    window = 0.5 - 0.5 * np.cos(phase)
    window[time < start] = 0
    window[time >= end] = 0
    return window


def _cut_kernels(kernels: _ComplexArray, first_bin: int) -> list[_KernelMatrix]:
    """Cut the kernels of an octave where they have faded, the higher ones earlier."""
    centre = kernels.shape[1] // 2
    magnitude = np.abs(kernels)
    left = magnitude[:, : centre + 1]
    right = magnitude[:, : centre - 1 : -1]
    total = magnitude.sum(axis=1, keepdims=True)
    larger = np.maximum(left, right)
    tails = larger.cumsum(axis=1) / total
    n_faded = (tails < _TAIL).sum(axis=1)
    reaches = centre - n_faded
    matrices = []
    for start in range(0, len(kernels), _KERNELS_PER_PRODUCT):
        end = start + _KERNELS_PER_PRODUCT
        reach = int(reaches[start:end].max())
        inner = slice(centre - reach, centre + reach + 1)
        part = kernels[start:end, inner]
        columns = np.concatenate([part.real, part.imag])
        matrix = columns.T.astype(np.float32, order="C")
        end_bin = first_bin + start + len(part)
        matrices.append(_KernelMatrix(first_bin + start, end_bin, reach, matrix))
    return matrices


@lru_cache(maxsize=1)
def _thread_controller() -> "ThreadpoolController":
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _limit_to_one_thread() -> AbstractContextManager[object]:
    """Limit BLAS to one thread: products are small, and files are done in parallel."""
    return _thread_controller().limit(limits=1, user_api="blas")
