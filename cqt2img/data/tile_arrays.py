"""The pictures of all recordings, each as one long strip, in memory or mapped from a file."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.buffer import DiskBuffer
from cqt2img._utils.parallel import run_parallel
from cqt2img._utils.progress import Progress
from cqt2img.tiles.extract import try_extract
from cqt2img.tiles.spec import TileSpec

if TYPE_CHECKING:
    import pandas as pd


_IN_MEMORY = 2**31  # bytes of tiles: 70 hours of sound with the preset "piano"


@dataclass(frozen=True)
class TileArrays:
    """The pictures of all recordings that could be read, each as one long strip.

    Parameters
    ----------
    spec : TileSpec
        What a pixel means.
    strips : list of ndarray of uint8, shape (height, n_tiles * width)
        Levels, one array per recording.
    n_frames : ndarray of int64, shape (n_recordings,)
        Columns of each strip that hold sound.
    """

    spec: TileSpec
    strips: list[NDArray[np.uint8]]
    n_frames: NDArray[np.int64]

    def __len__(self) -> int:
        """Count the recordings."""
        return len(self.strips)

    def tiles(self, recording: int) -> NDArray[np.uint8]:
        """Give the tiles of one recording, as they were cut.

        Parameters
        ----------
        recording : int
            Its place.

        Returns
        -------
        ndarray of uint8, shape (n_tiles, height, width)
            Levels.
        """
        height, width = self.spec.size
        return self.strips[recording].reshape(height, -1, width).swapaxes(0, 1)

    def crop(self, recording: int, start: int) -> NDArray[np.uint8]:
        """Cut one tile from a strip at any column.

        Parameters
        ----------
        recording : int
            Its place.
        start : int
            First column; brought back to where a whole tile of sound follows, if there is one.

        Returns
        -------
        ndarray of uint8, shape (height, width)
            Levels.
        """
        last = (
            min(self.n_frames[recording], self.strips[recording].shape[1])
            - self.spec.width
        )
        start = int(np.clip(start, 0, max(0, last)))
        return self.strips[recording][:, start : start + self.spec.width]


def load_tile_arrays(
    table: "pd.DataFrame",
    spec: TileSpec,
    n_jobs: int = 1,
    progress: Progress | None = None,
) -> tuple[TileArrays, list[dict[str, Any]]]:
    """Make the pictures of all recordings of a table, and keep them in memory or in a file mapped to it.

    Parameters
    ----------
    table : DataFrame
        What `list_recordings` gives.
    spec : TileSpec
        What a pixel means.
    n_jobs : int
        Processes, as joblib counts them.
    progress : callable, optional
        Gets an iterator, its length and a title, and gives the iterator back.

    Returns
    -------
    strips : TileArrays
        Of the recordings that could be read, in their order.
    infos : list of dict
        For every row of the table its `status`, `reason` and `message`.

    Notes
    -----
    Tiles beyond 2 GiB lie in an unnamed temporary file (`TMPDIR` says where) that goes with the process.
    """
    jobs = zip(table["item"], [spec] * len(table), table["tiles"], strict=True)
    n_frames, infos = [], []
    with DiskBuffer(dtype=np.uint8, max_bytes=_IN_MEMORY) as buffer:
        for tiles, info in run_parallel(
            try_extract,
            jobs,
            len(table),
            n_jobs=n_jobs,
            progress=progress,
            title="pictures",
        ):
            infos.append(info)
            if tiles is not None:
                buffer.append(tiles.swapaxes(0, 1).reshape(-1))
                n_frames.append(info["n_frames"])
        strips = [block.reshape(spec.height, -1) for block in buffer.blocks()]
    return TileArrays(spec, strips, np.asarray(n_frames, dtype=np.int64)), infos
