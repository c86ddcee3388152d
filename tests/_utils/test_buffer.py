import os
import tempfile

import numpy as np
import pytest

from cqt2img._utils.buffer import DiskBuffer

SLICES = [slice(None), slice(3, 9), slice(70, 200), slice(200, 300), slice(-2, None)]


def make_blocks(n_columns, dtype=np.float32):
    rng = np.random.default_rng(0)
    row_shape = () if n_columns is None else (n_columns,)
    return [(99 * rng.random((n, *row_shape))).astype(dtype) for n in (5, 0, 70, 1)]


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
@pytest.mark.parametrize("max_bytes", [0, 20, 1 << 20])
@pytest.mark.parametrize("n_columns", [None, 3])
def test_slices_equal_those_of_an_array(tmp_path, n_columns, max_bytes, dtype):
    blocks = make_blocks(n_columns, dtype)
    array = np.concatenate(blocks)
    buffer = DiskBuffer(n_columns, tmp_path, dtype=dtype, max_bytes=max_bytes)
    with buffer:
        for n, block in enumerate(blocks):
            buffer.append(block)
            # reading between two appends must not move the end of the file
            assert np.array_equal(buffer[:2], array[:2])
            assert len(buffer) == sum(map(len, blocks[: n + 1]))
        for rows in SLICES:
            assert np.array_equal(buffer[rows], array[rows])
            assert buffer[rows].dtype == dtype


@pytest.mark.parametrize("max_bytes", [0, 20, 1 << 20])
@pytest.mark.parametrize("n_columns", [None, 3])
def test_blocks_outlive_the_buffer(tmp_path, n_columns, max_bytes):
    appended = make_blocks(n_columns)
    with DiskBuffer(n_columns, tmp_path, max_bytes=max_bytes) as buffer:
        for block in appended:
            buffer.append(block)
        blocks = buffer.blocks()
    assert len(blocks) == len(appended)
    assert all(map(np.array_equal, blocks, appended))


def test_blocks_in_memory_are_not_copied_and_those_in_a_file_are_mapped():
    appended = [block for block in make_blocks(3) if len(block)]
    for max_bytes in (0, 1 << 20):
        with DiskBuffer(3, max_bytes=max_bytes) as buffer:
            for block in appended:
                buffer.append(block)
            blocks = buffer.blocks()
        for block, original in zip(blocks, appended, strict=True):
            assert isinstance(block, np.memmap) == (max_bytes == 0)
            assert (block is original) == (max_bytes > 0)
            assert block.flags.writeable == (max_bytes > 0)


@pytest.mark.parametrize("max_bytes", [99, 100])
def test_a_file_is_used_beyond_the_limit_and_has_no_name(
    tmp_path, monkeypatch, max_bytes
):
    folders = []
    temporary_file = tempfile.TemporaryFile

    def record_folder(dir):
        folders.append(dir)
        return temporary_file(dir=dir)

    monkeypatch.setattr("tempfile.TemporaryFile", record_folder)
    with DiskBuffer(5, tmp_path, max_bytes=max_bytes) as buffer:
        buffer.append(np.zeros((5, 5), np.float32))
        assert folders == ([tmp_path] if max_bytes < 100 else [])
        assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("max_bytes", [0, 1 << 20])
def test_an_empty_buffer_has_no_rows_and_no_blocks(max_bytes):
    with DiskBuffer(3, max_bytes=max_bytes) as buffer:
        assert len(buffer) == 0
        assert buffer[:].shape == (0, 3)
        assert buffer.blocks() == []


@pytest.mark.parametrize("max_bytes", [0, 1 << 20])
def test_an_array_may_be_transposed(max_bytes):
    array = np.arange(12, dtype=np.float32).reshape(3, 4).T
    with DiskBuffer(3, max_bytes=max_bytes) as buffer:
        buffer.append(array)
        assert np.array_equal(buffer[:], array)
