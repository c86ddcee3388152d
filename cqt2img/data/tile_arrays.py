"""Tiles of many recordings, in memory or mapped from a temporary file."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.buffer import DiskBuffer
from cqt2img._utils.progress import Progress
from cqt2img.data.extraction import extract_recordings
from cqt2img.data.recordings import Recordings
from cqt2img.tiles.extract import RecordingInfo
from cqt2img.tiles.spec import TileSpec

_IN_MEMORY = 2**31  # bytes of tiles: 70 hours of sound with the preset "piano"


@dataclass(frozen=True)
class TileArrays:
    """Tiles of recordings; those of one recording are joined in time.

    Parameters
    ----------
    spec : TileSpec
        The meaning of a pixel.
    arrays : list of ndarray of uint8, shape (height, n_tiles * width)
        Levels, one array per recording.
    n_frames : ndarray of int64, shape (n_recordings,)
        Number of columns of each array that contain sound.
    """

    spec: TileSpec
    arrays: list[NDArray[np.uint8]]
    n_frames: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of recordings."""
        return len(self.arrays)

    def n_tiles(self, index: int) -> int:
        """Return the number of tiles of one recording.

        Parameters
        ----------
        index : int
            Index of the recording.

        Returns
        -------
        int
            1 or more.
        """
        n_columns = self.arrays[index].shape[1]
        return n_columns // self.spec.width

    def tiles(self, index: int) -> NDArray[np.uint8]:
        """Return the tiles of one recording, as they were rendered.

        Parameters
        ----------
        index : int
            Index of the recording.

        Returns
        -------
        ndarray of uint8, shape (n_tiles, height, width)
            Levels.
        """
        height, width = self.spec.size
        array = self.arrays[index]
        return array.reshape(height, -1, width).swapaxes(0, 1)

    def crop(self, index: int, start: int) -> NDArray[np.uint8]:
        """Cut one tile that starts at any column.

        Parameters
        ----------
        index : int
            Index of the recording.
        start : int
            First column; moved so that a whole tile of sound follows, if there is one.

        Returns
        -------
        ndarray of uint8, shape (height, width)
            Levels.
        """
        array = self.arrays[index]
        width = self.spec.width
        n_columns = min(int(self.n_frames[index]), array.shape[1])
        last = max(0, n_columns - width)
        start = min(max(start, 0), last)
        return array[:, start : start + width]

    def select(self, indices: NDArray[np.int64]) -> "TileArrays":
        """Select recordings.

        Parameters
        ----------
        indices : ndarray of int64
            Indices of the recordings.

        Returns
        -------
        TileArrays
            Their tiles; the arrays are not copied.
        """
        arrays = [self.arrays[index] for index in indices.tolist()]
        return TileArrays(self.spec, arrays, self.n_frames[indices])


def load_tile_arrays(
    recordings: Recordings,
    spec: TileSpec,
    n_jobs: int = 1,
    progress: Progress | None = None,
) -> tuple[TileArrays, list[RecordingInfo]]:
    """Extract the tiles of recordings into memory, or into a file mapped to it.

    Parameters
    ----------
    recordings : Recordings
        The recordings.
    spec : TileSpec
        The meaning of a pixel.
    n_jobs : int
        Number of processes, as in joblib.
    progress : callable, optional
        Called with an iterator, its length and a title; returns the iterator.

    Returns
    -------
    arrays : TileArrays
        Tiles of the recordings that could be read, in their order.
    infos : list of RecordingInfo
        One per recording, whether it could be read or not.

    Notes
    -----
    Tiles beyond 2 GiB are written to an unnamed temporary file (in `TMPDIR`) that is
    removed with the process.
    """
    n_frames: list[int] = []
    infos: list[RecordingInfo] = []
    with DiskBuffer(dtype=np.uint8, max_bytes=_IN_MEMORY) as buffer:
        for tiles, info in extract_recordings(recordings, spec, n_jobs, progress):
            infos.append(info)
            if tiles is not None:
                in_time = tiles.swapaxes(0, 1)
                buffer.append(in_time.reshape(-1))
                n_frames.append(info.n_frames or 0)
        arrays = [block.reshape(spec.height, -1) for block in buffer.blocks()]
    loaded = TileArrays(spec, arrays, np.array(n_frames, dtype=np.int64))
    return loaded, infos
