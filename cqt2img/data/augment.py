"""What an unseen recording may look like: another piano, room, equaliser, tuning and level.

Every change is made on levels, that is in dB, where an equaliser is a curve added to the rows and the
tail of a room is a straight fall along the columns. Colours come last.
"""

import os
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cqt2img.errors import InputError
from cqt2img.tiles.spec import TileSpec

STRENGTHS = ("album", "none")


def make_augment(strength: str, spec: TileSpec) -> Any:
    """Build the changes for training tiles.

    Parameters
    ----------
    strength : {"album", "none"}
        "album": equaliser, level, hiss, room, a semitone or two up or down, and masks.
        "none": nothing is changed.
    spec : TileSpec
        Says what a level, a row and a column mean.

    Returns
    -------
    albumentations.Compose or None
        Call it with `image=` a uint8 array of shape (height, width), levels; None for "none".

    Raises
    ------
    InputError
        If `strength` is neither.

    References
    ----------
    Daniel S. Park et al., "SpecAugment: A Simple Data Augmentation Method for Automatic Speech
    Recognition", 2019.
    Alexander Buslaev et al., "Albumentations: Fast and Flexible Image Augmentations", 2020.
    """
    if strength not in STRENGTHS:
        raise InputError(
            f"make_augment: augment must be one of {', '.join(STRENGTHS)}, got {strength!r}. Choose one."
        )
    if strength == "none":
        return None
    A = _albumentations()
    transforms = _transforms()
    semitone = spec.bins_per_octave // 12
    return A.Compose(
        [
            A.Affine(
                translate_px={"x": (0, 0), "y": (-2 * semitone, 2 * semitone)},
                interpolation=0,
                fill=0,
                p=0.7,
            ),
            transforms["Room"](spec, p=0.5),
            transforms["Equaliser"](spec, p=0.9),
            transforms["Hiss"](spec, p=0.5),
            A.XYMasking(
                num_masks_x=(0, 2),
                num_masks_y=(0, 2),
                fill=0,
                p=0.5,
                mask_x_length=(1, max(2, spec.width // 10)),
                mask_y_length=(1, max(2, spec.height // 10)),
            ),
        ]
    )


def equalise(
    tile: NDArray[np.uint8], spec: TileSpec, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Send a tile through another piano's colour, another equaliser and another level.

    Parameters
    ----------
    tile : ndarray of uint8, shape (height, width)
        Levels.
    spec : TileSpec
        Says what a level is.
    rng : Generator
        Draws a slope (SD 2 dB per octave), four bumps (SD 5 dB), a level (SD 4 dB) and perhaps an
        upper limit.

    Returns
    -------
    ndarray of uint8, shape (height, width)
        Levels. The floor stays the floor.
    """
    octave = (
        np.arange(spec.height - 1, -1, -1) / spec.bins_per_octave
    )  # row 0 is the highest
    n_octaves = spec.n_bins / spec.bins_per_octave
    curve = rng.normal(0, 4) + rng.normal(0, 2) * (octave - n_octaves / 2)
    for _ in range(4):
        width = rng.uniform(0.15, 0.8)
        curve = curve + rng.normal(0, 5) * np.exp(
            -0.5 * ((octave - rng.uniform(0, n_octaves)) / width) ** 2
        )
    if rng.random() < 0.4:  # an old disc or a lossy codec ends below the picture
        curve = curve - np.maximum(0, octave - rng.uniform(0.6, 1.0) * n_octaves) * 60
    shifted = tile + (curve / spec.step_db).astype(np.float32)[:, None]
    return np.clip(shifted, 0, 255, out=shifted).astype(np.uint8) * (tile > 0)


def add_room(
    tile: NDArray[np.uint8], spec: TileSpec, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Let every sound ring on, as in a room: in dB the tail is a straight fall.

    Parameters
    ----------
    tile : ndarray of uint8, shape (height, width)
        Levels.
    spec : TileSpec
        Says what a level and a column are.
    rng : Generator
        Draws a reverberation time of 0.3 to 2.5 s and a tail 6 to 20 dB below the sound.

    Returns
    -------
    ndarray of uint8, shape (height, width)
        Levels, nowhere lower than they were.
    """
    fall = 60 * spec.frame_seconds / rng.uniform(0.3, 2.5) / spec.step_db
    below = rng.uniform(6, 20) / spec.step_db
    # the tail at t is the highest of all earlier sounds, each fallen since; undoing the fall makes it a running maximum
    ramp = np.arange(tile.shape[1], dtype=np.float32) * np.float32(fall)
    tail = np.maximum.accumulate(tile + ramp, axis=1) - ramp - np.float32(below)
    return np.clip(np.maximum(tile, tail), 0, 255).astype(np.uint8)


def add_hiss(
    tile: NDArray[np.uint8], spec: TileSpec, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Lay noise under a tile, rising with pitch as the bands of a CQT grow wider.

    Parameters
    ----------
    tile : ndarray of uint8, shape (height, width)
        Levels.
    spec : TileSpec
        Says what a level is.
    rng : Generator
        Draws a level of -70 to -35 dB at the top, and how each pixel departs from it.

    Returns
    -------
    ndarray of uint8, shape (height, width)
        Levels, nowhere lower than they were.
    """
    octave_down = np.arange(spec.height) / spec.bins_per_octave
    floor = (
        rng.uniform(-70, -35) - rng.uniform(1, 5) * octave_down - spec.min_db
    ) / spec.step_db
    start = int(rng.integers(3 * tile.size))
    levels = _noise(tile.size)[start : start + tile.size].reshape(
        tile.shape
    ) * np.float32(1 / spec.step_db)
    levels += floor.astype(np.float32)[:, None]
    return np.maximum(tile, np.clip(levels, 0, 255, out=levels).astype(np.uint8))


@lru_cache(maxsize=4)
def _noise(size: int) -> NDArray[np.float32]:
    """Give noise in dB, from which tiles are cut anywhere: to draw it anew took longer than all other changes."""
    return 5.6 * np.random.default_rng(0).standard_normal(
        4 * size, dtype=np.float32
    )  # SD of noise power in dB


def _albumentations() -> Any:
    """Import albumentations without its look for updates over the network."""
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


@lru_cache(maxsize=1)
def _transforms() -> dict[str, Any]:
    """Make albumentations transforms of the changes above; here, since it is slow to import."""
    A = _albumentations()

    def transform(name: str, change: Any) -> Any:
        class Transform(A.ImageOnlyTransform):  # type: ignore[name-defined]
            def __init__(self, spec: TileSpec, p: float = 0.5) -> None:
                super().__init__(p=p)
                self.spec = spec

            def apply(self, img: NDArray[np.uint8], **params: Any) -> NDArray[np.uint8]:
                return change(img, self.spec, self.random_generator)

        Transform.__name__ = Transform.__qualname__ = name
        return Transform

    return {
        "Equaliser": transform("Equaliser", equalise),
        "Room": transform("Room", add_room),
        "Hiss": transform("Hiss", add_hiss),
    }
