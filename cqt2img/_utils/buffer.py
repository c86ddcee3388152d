"""Rows of numbers that stay in memory while they are few, and lie in a temporary file when they are many."""

import os
import tempfile
from bisect import bisect_left, bisect_right
from types import TracebackType
from typing import IO

import numpy as np
from numpy.typing import NDArray

_IN_MEMORY = 1 << 26  # bytes: 12 minutes of sound at 22050 Hz


class DiskBuffer:
    """An array of float32 that grows at its end, is read by slices, and may be larger than the memory.

    Parameters
    ----------
    n_columns : int, optional
        Length of a row; by default the array has one dimension.
    folder : str or Path, optional
        Where the temporary file goes; by default where the system keeps such files.

    Examples
    --------
    >>> with DiskBuffer(2) as spool:
    ...     spool.append(np.zeros((3, 2), np.float32))
    ...     len(spool), spool[1:9].shape
    (3, (2, 2))
    """

    def __init__(
        self, n_columns: int | None = None, folder: str | os.PathLike[str] | None = None
    ) -> None:
        self.shape_of_row = () if n_columns is None else (n_columns,)
        self._row_bytes = 4 * (n_columns or 1)
        self._ends = [0]  # row after each block in memory
        self._blocks: list[NDArray[np.float32]] = []
        self._folder = folder
        self._file: IO[bytes] | None = None

    def __len__(self) -> int:
        return self._ends[-1]

    def __enter__(self) -> "DiskBuffer":
        return self

    def __exit__(
        self,
        kind: type | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def append(self, rows: NDArray[np.float32]) -> None:
        """Add rows at the end.

        Parameters
        ----------
        rows : ndarray of float32, shape (n, n_columns) or (n,)
            The rows; they are kept, and must not be changed afterwards.
        """
        end = len(self) + len(rows)
        if self._file is None and end * self._row_bytes > _IN_MEMORY:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
            for block in self._blocks:
                self._file.write(np.ascontiguousarray(block).data.cast("B"))
            self._blocks, self._ends = [], self._ends[-1:]
        if self._file is not None and len(rows):
            self._file.seek(0, os.SEEK_END)
            self._file.write(np.ascontiguousarray(rows).data.cast("B"))
            self._ends = [end]
        elif len(rows):
            self._blocks.append(rows)
            self._ends.append(end)

    def __getitem__(self, where: slice) -> NDArray[np.float32]:
        """Read a slice of rows."""
        start, stop, _ = where.indices(len(self))
        stop = max(start, stop)
        if self._file is not None:
            self._file.seek(start * self._row_bytes)
            data = self._file.read((stop - start) * self._row_bytes)
            return np.frombuffer(data, np.float32).reshape(-1, *self.shape_of_row)
        first, last = bisect_right(self._ends, start) - 1, bisect_left(self._ends, stop)
        parts = [
            b[max(0, start - at) : stop - at]
            for b, at in zip(self._blocks[first:last], self._ends[first:], strict=False)
        ]
        return (
            parts[0]
            if len(parts) == 1
            else np.concatenate([np.empty((0, *self.shape_of_row), np.float32), *parts])
        )

    def close(self) -> None:
        """Forget the rows."""
        self._blocks, self._ends = [], [0]
        if self._file is not None:
            self._file.close()
