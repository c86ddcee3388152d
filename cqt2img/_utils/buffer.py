"""Growing arrays that move from memory to a temporary file when they become large."""

import os
import tempfile
from bisect import bisect_left, bisect_right
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]  # of the type of the buffer
_MAX_BYTES = 1 << 26  # 12 minutes of audio at 22050 Hz


class DiskBuffer:
    """Array that grows at its end and may be larger than the memory.

    Up to `max_bytes` the appended blocks stay in memory; beyond that, all of them are
    in an unnamed temporary file, which the system removes when the buffer is closed
    or the process ends.

    Parameters
    ----------
    n_columns : int, optional
        Length of a row. By default the array has one dimension.
    folder : str or PathLike, optional
        Folder of the temporary file. By default the temporary folder of the system,
        which the environment variable `TMPDIR` sets.
    dtype : dtype, default float32
        Type of the array.
    max_bytes : int, default 64 MiB
        Largest size in memory.

    Examples
    --------
    >>> with DiskBuffer(2) as buffer:
    ...     buffer.append(np.zeros((3, 2), np.float32))
    ...     len(buffer), buffer[1:9].shape
    (3, (2, 2))
    """

    def __init__(
        self,
        n_columns: int | None = None,
        folder: str | os.PathLike[str] | None = None,
        *,
        dtype: DTypeLike = np.float32,
        max_bytes: int = _MAX_BYTES,
    ) -> None:
        self._row_shape = () if n_columns is None else (n_columns,)
        self._folder = folder
        self._dtype = np.dtype(dtype)
        self._max_bytes = max_bytes
        self._row_bytes = self._dtype.itemsize * (n_columns or 1)
        self._blocks: list[Array] = []  # empty once the rows are in the file
        self._ends = [0]  # number of rows up to and including each block
        self._file: IO[bytes] | None = None

    def __len__(self) -> int:
        return self._ends[-1]

    def __enter__(self) -> "DiskBuffer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, block: Array) -> None:
        """Add rows at the end.

        Parameters
        ----------
        block : ndarray, shape (n, n_columns) or (n,)
            The rows, of the type of the buffer. They are not copied, and must not be
            changed afterwards.
        """
        self._ends.append(len(self) + len(block))
        if self._file is None and len(self) * self._row_bytes > self._max_bytes:
            self._move_to_file()
        if self._file is None:
            self._blocks.append(block)
        else:
            self._write(block)

    def _move_to_file(self) -> None:
        self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
        for block in self._blocks:
            self._write(block)
        self._blocks = []

    def _write(self, block: Array) -> None:
        assert self._file is not None
        self._file.seek(0, os.SEEK_END)
        if block.size:  # an empty array cannot be cast to bytes
            self._file.write(np.ascontiguousarray(block).data.cast("B"))

    def __getitem__(self, rows: slice) -> Array:
        """Read a slice of rows."""
        start, stop, _ = rows.indices(len(self))
        stop = max(start, stop)
        if self._file is not None:
            return self._read(start, stop)
        first = bisect_right(self._ends, start) - 1
        last = bisect_left(self._ends, stop)
        parts = []
        for index in range(first, last):
            offset = self._ends[index]
            parts.append(self._blocks[index][max(0, start - offset) : stop - offset])
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([self._empty(), *parts])

    def _read(self, start: int, stop: int) -> Array:
        assert self._file is not None
        self._file.seek(start * self._row_bytes)
        data = self._file.read((stop - start) * self._row_bytes)
        return np.frombuffer(data, self._dtype).reshape(-1, *self._row_shape)

    def _empty(self) -> Array:
        return np.empty((0, *self._row_shape), self._dtype)

    def blocks(self) -> list[Array]:
        """Return the blocks as they were appended.

        Returns
        -------
        list of ndarray, shape (n, n_columns) or (n,)
            The appended arrays themselves, or read-only arrays mapped from the file.
            They stay valid after the buffer is closed.
        """
        if self._file is None:
            return list(self._blocks)
        self._file.flush()
        mapped = np.memmap(self._file, self._dtype, "r").reshape(-1, *self._row_shape)
        return np.split(mapped, self._ends[1:-1])

    def close(self) -> None:
        """Discard the rows."""
        self._blocks = []
        self._ends = [0]
        if self._file is not None:
            self._file.close()
