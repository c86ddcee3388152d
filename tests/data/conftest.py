"""Fixtures for the tests of data."""

import numpy as np
import pytest

from cqt2img.data.recordings import list_recordings
from cqt2img.data.tile_arrays import load_tile_arrays


def make_ramp(n_frames):
    """Return a CQT in dB with a level of its own in each frame."""
    return np.tile(np.linspace(-60, -1, n_frames), (60, 1))


@pytest.fixture
def tile_arrays(small):
    """Five recordings of 20, 32, 70, 100 and 300 frames: 1, 1, 2, 3 and 10 tiles."""
    cqts = [make_ramp(n_frames) for n_frames in (20, 32, 70, 100, 300)]
    arrays, _ = load_tile_arrays(list_recordings(cqts), small)
    return arrays
