"""Augmentation of training tiles: how the same music sounds on another recording.

All changes are made on levels, that is in dB, where an equaliser adds a curve to the
rows and a reverberation tail falls linearly along the columns. Colours come later.
"""

import copy
import os
import sys
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from cqt2img.errors import InputError
from cqt2img.tiles.png import Tiles
from cqt2img.tiles.spec import TileSpec

STRENGTHS = ("album", "none")  # names of the built-in augmentations
# A name, an albumentations transform, or a function of one tile.
Augment = str | Callable[..., object]

_NOISE_DB = 5.6  # standard deviation of the power of noise


class TileAugment:
    """Augmentation of one tile at a time, with a seed per tile.

    Parameters
    ----------
    transform : callable
        An albumentations transform, or a callable that takes one tile as an array of
        shape (height, width) and dtype uint8 and returns such an array.
    """

    def __init__(self, transform: Callable[..., object]) -> None:
        self._is_albumentations = _is_albumentations(transform)
        self._transform: Any = transform
        if self._is_albumentations:
            # Seeding changes the state of a transform, which belongs to the caller.
            self._transform = copy.deepcopy(transform)

    def __call__(self, tile: Tiles, seed: int) -> Tiles:
        """Return a changed copy of a tile.

        Parameters
        ----------
        tile : ndarray of uint8, shape (height, width)
            Levels.
        seed : int
            Seed of an albumentations transform, 0 or more.

        Returns
        -------
        ndarray of uint8, shape (height, width)
            Levels.

        Raises
        ------
        InputError
            If the transform returns another shape or dtype.
        """
        result = self._apply(tile.copy(), seed)
        if not isinstance(result, np.ndarray):
            found = type(result).__name__
        elif result.shape != tile.shape or result.dtype != tile.dtype:
            found = f"shape {result.shape} and dtype {result.dtype}"
        else:
            return np.ascontiguousarray(result)
        raise InputError(
            f"fit: augment must return an array of shape {tile.shape} and dtype uint8, "
            f"got {found}."
        )

    def _apply(self, tile: Tiles, seed: int) -> object:
        if not self._is_albumentations:
            return self._transform(tile)
        self._transform.set_random_seed(seed)
        return self._transform(image=tile)["image"]


def make_augment(augment: Augment, spec: TileSpec) -> TileAugment | None:
    """Create the augmentation of training tiles.

    Parameters
    ----------
    augment : {"album", "none"}, albumentations transform or callable
        "album" imitates another album: equaliser, level, hiss, reverberation,
        transposition by up to two semitones, and masks. "none" changes nothing. An
        albumentations transform is called as `transform(image=tile)["image"]` and is
        seeded for every tile. Any other callable is called as `augment(tile)`; it must
        seed its own random numbers. `tile` has the shape (height, width) and the dtype
        uint8, and so must the result.
    spec : TileSpec
        Spec of the tiles.

    Returns
    -------
    TileAugment or None
        Callable with a tile and a seed; None for "none".

    Raises
    ------
    InputError
        If `augment` is an unknown name or not callable.

    References
    ----------
    Daniel S. Park et al., "SpecAugment: A Simple Data Augmentation Method for Automatic
    Speech Recognition", 2019.
    Alexander Buslaev et al., "Albumentations: Fast and Flexible Image Augmentations",
    2020.

    Examples
    --------
    A function of one tile:

    >>> import numpy as np
    >>> augment = make_augment(lambda tile: tile[:, ::-1], TileSpec.preset("fast"))
    >>> augment(np.array([[1, 2, 3]], np.uint8), seed=0)
    array([[3, 2, 1]], dtype=uint8)
    """
    if callable(augment):
        return TileAugment(augment)
    if augment == "none":
        return None
    if augment == "album":
        return TileAugment(_make_album_transform(spec))
    raise InputError(
        f"fit: augment must be one of {', '.join(STRENGTHS)}, an albumentations "
        f"transform or a callable, got {augment!r}."
    )


def equalise(tile: Tiles, spec: TileSpec, rng: Generator) -> Tiles:
    """Apply the timbre of another piano, another equaliser and another level.

    Parameters
    ----------
    tile : ndarray of uint8, shape (height, width)
        Levels.
    spec : TileSpec
        Spec of the tile.
    rng : Generator
        Draws a level (SD 4 dB), a slope (SD 2 dB per octave), four peaks (SD 5 dB) and,
        with probability 0.4, an upper cutoff frequency.

    Returns
    -------
    ndarray of uint8, shape (height, width)
        Levels. Level 0 stays 0.
    """
    rows = np.arange(spec.height - 1, -1, -1)  # row 0 is the highest frequency
    octaves = rows / spec.bins_per_octave
    n_octaves = spec.n_bins / spec.bins_per_octave
    level = rng.normal(0, 4)
    slope = rng.normal(0, 2)
    curve = level + slope * (octaves - n_octaves / 2)
    for _ in range(4):
        width = rng.uniform(0.15, 0.8)  # octaves
        gain = rng.normal(0, 5)
        distance = octaves - rng.uniform(0, n_octaves)
        curve = curve + gain * np.exp(-0.5 * (distance / width) ** 2)
    # Old records and lossy codecs end below the highest bin.
    if rng.random() < 0.4:
        cutoff = rng.uniform(0.6, 1.0) * n_octaves
        curve = curve - np.maximum(0, octaves - cutoff) * 60
    curve_levels = (curve / spec.step_db).astype(np.float32)
    is_sound = tile > 0
    shifted = tile + curve_levels[:, np.newaxis]
    return _to_levels(shifted) * is_sound


def add_reverberation(tile: Tiles, spec: TileSpec, rng: Generator) -> Tiles:
    """Add a reverberation tail to every sound, a linear decay in dB.

    Parameters
    ----------
    tile : ndarray of uint8, shape (height, width)
        Levels.
    spec : TileSpec
        Spec of the tile.
    rng : Generator
        Draws a reverberation time of 0.3 to 2.5 s and a tail that starts 6 to 20 dB
        below the sound.

    Returns
    -------
    ndarray of uint8, shape (height, width)
        Levels, nowhere lower than before.
    """
    seconds = rng.uniform(0.3, 2.5)
    decay = 60 * spec.frame_seconds / seconds / spec.step_db  # levels per column
    offset = rng.uniform(6, 20) / spec.step_db
    # A tail is the maximum of all earlier levels, each decayed since then. Without the
    # decay this is a running maximum.
    columns = np.arange(tile.shape[1], dtype=np.float32)
    ramp = columns * np.float32(decay)
    tail = np.maximum.accumulate(tile + ramp, axis=1)
    tail -= ramp
    tail -= np.float32(offset)
    return _to_levels(np.maximum(tile, tail))


def add_hiss(tile: Tiles, spec: TileSpec, rng: Generator) -> Tiles:
    """Add noise that rises with frequency, like the bandwidth of the bins.

    Parameters
    ----------
    tile : ndarray of uint8, shape (height, width)
        Levels.
    spec : TileSpec
        Spec of the tile.
    rng : Generator
        Draws a level of -70 to -35 dB in the highest row, a slope of 1 to 5 dB per
        octave and the variation of every pixel.

    Returns
    -------
    ndarray of uint8, shape (height, width)
        Levels, nowhere lower than before.
    """
    octaves_below_top = np.arange(spec.height) / spec.bins_per_octave
    top_db = rng.uniform(-70, -35)
    slope = rng.uniform(1, 5)
    mean_db = top_db - slope * octaves_below_top - spec.min_db
    mean_levels = (mean_db / spec.step_db).astype(np.float32)
    noise = _make_noise(tile.size)
    start = int(rng.integers(3 * tile.size))
    noise = noise[start : start + tile.size]
    noise_levels = noise * np.float32(1 / spec.step_db)
    noise_levels = noise_levels.reshape(tile.shape)
    noise_levels += mean_levels[:, np.newaxis]
    return np.maximum(tile, _to_levels(noise_levels))


def _to_levels(values: NDArray[np.floating]) -> Tiles:
    """Clip values to the range of levels, in place, and drop the fraction."""
    np.clip(values, 0, 255, out=values)
    return values.astype(np.uint8)


@lru_cache(maxsize=4)
def _make_noise(size: int) -> NDArray[np.float32]:
    """Return noise in dB, four times `size` values.

    Tiles take a random part of it, because drawing new noise took longer than all other
    changes together.
    """
    rng = np.random.default_rng(0)
    return _NOISE_DB * rng.standard_normal(4 * size, dtype=np.float32)


def _make_album_transform(spec: TileSpec) -> Callable[..., object]:
    """Return the albumentations transform of `augment="album"`."""
    A = _import_albumentations()

    class TileTransform(A.ImageOnlyTransform):  # type: ignore[name-defined]
        """A change of levels as an albumentations transform."""

        def __init__(self, change: Callable[..., Tiles], p: float) -> None:
            super().__init__(p=p)
            self.change = change

        def apply(self, img: Tiles, **params: object) -> Tiles:
            return self.change(img, spec, self.random_generator)

    two_semitones = 2 * (spec.bins_per_octave // 12)
    transpose = A.Affine(
        translate_px={"x": (0, 0), "y": (-two_semitones, two_semitones)},
        interpolation=0,
        fill=0,
        p=0.7,
    )
    mask = A.XYMasking(
        num_masks_x=(0, 2),
        num_masks_y=(0, 2),
        mask_x_length=(1, max(2, spec.width // 10)),
        mask_y_length=(1, max(2, spec.height // 10)),
        fill=0,
        p=0.5,
    )
    return A.Compose(
        [
            transpose,
            TileTransform(add_reverberation, p=0.5),
            TileTransform(equalise, p=0.9),
            TileTransform(add_hiss, p=0.5),
            mask,
        ]
    )


def _is_albumentations(transform: object) -> bool:
    """Whether an object is an albumentations transform, without importing the library.

    Nobody can pass a transform of a library that has not been imported.
    """
    A = sys.modules.get("albumentations")
    return A is not None and isinstance(transform, A.BasicTransform | A.BaseCompose)


def _import_albumentations() -> ModuleType:
    """Import albumentations without its check for updates over the network."""
    name = "NO_ALBUMENTATIONS_UPDATE"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        import albumentations
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
    return albumentations
