"""Tiles rendered from notes, so that their onsets are known."""

import numpy as np

from cqt2img.auditing.landmarks import Landmarks, compute_landmarks
from cqt2img.tiles.spec import TileSpec

FAST = TileSpec.preset("fast")
FINE = TileSpec(
    hop_length=384, bins_per_octave=36, n_bins=252, height=252, tuning="keep"
)
Notes = np.ndarray  # rows of onset and duration in s, semitone above f_min, level in dB


def make_notes(seed: int, seconds: float = 30) -> Notes:
    """Draw random notes of a major scale, five per second."""
    rng = np.random.default_rng(seed)
    n = round(5 * seconds)
    scale = np.array([0, 2, 4, 5, 7, 9, 11])
    tonic = 24 + rng.integers(-3, 4)
    pitch = tonic + 12 * rng.integers(0, 3, n) + rng.choice(scale, n)
    onset = np.sort(rng.uniform(0.2, seconds, n))
    duration = rng.uniform(0.2, 1, n)
    level = rng.uniform(-14, 0, n)
    return np.stack([onset, duration, pitch, level], axis=1)


def draw_tiles(
    notes: Notes, spec: TileSpec = FAST, noise: int = 0, gain_db: float = 0
) -> np.ndarray:
    """Draw the tiles of notes that decay by 20 dB per second."""
    bins_per_semitone = spec.bins_per_octave // 12
    step = spec.frame_seconds
    end = (notes[:, 0] + notes[:, 1]).max()
    n_tiles = int(np.ceil(end / spec.tile_seconds))
    shape = (spec.n_bins, n_tiles * spec.width)
    cqt = np.random.default_rng(1).integers(0, noise + 1, shape).astype(float)
    for onset, duration, pitch, level in notes:
        columns = np.arange(int(np.ceil(onset / step)), int((onset + duration) / step))
        decay_db = 20 * (columns * step - onset)
        levels = 200 + (level + gain_db - decay_db) / spec.step_db
        row = cqt[round(pitch * bins_per_semitone)]
        row[columns] = np.maximum(row[columns], levels)
    highest_first = cqt[::-1].reshape(spec.n_bins, n_tiles, spec.width)
    tiles = highest_first.swapaxes(0, 1).clip(0, 255).astype(np.uint8)
    return np.pad(tiles, ((0, 0), (spec.height - spec.n_bins, 0), (0, 0)))


def landmarks_of(notes: Notes, spec: TileSpec = FAST, **kwargs: float) -> Landmarks:
    """Compute the landmarks of notes."""
    return compute_landmarks(draw_tiles(notes, spec, **kwargs), spec)
