import os

import numpy as np
import pytest

from cqt2img._utils import buffer as spool
from cqt2img._utils.buffer import DiskBuffer


@pytest.mark.parametrize("limit", [1 << 26, 100])
@pytest.mark.parametrize("n_columns", [None, 3])
def test_it_gives_back_what_was_put_in(monkeypatch, tmp_path, limit, n_columns):
    monkeypatch.setattr(spool, "_IN_MEMORY", limit)
    rng = np.random.default_rng(0)
    blocks = [
        rng.random((n,) if n_columns is None else (n, n_columns), dtype=np.float32)
        for n in (5, 0, 70, 1)
    ]
    whole = np.concatenate(blocks)
    with DiskBuffer(n_columns, tmp_path) as rows:
        for n, block in enumerate(blocks):
            rows.append(block)
            assert np.array_equal(
                rows[:2], whole[:2]
            )  # reading in between does no harm
            assert len(rows) == sum(map(len, blocks[: n + 1]))
        for where in (
            slice(None),
            slice(3, 9),
            slice(70, 200),
            slice(200, 300),
            slice(-2, None),
        ):
            assert np.array_equal(rows[where], whole[where])
        assert (rows._file is not None) == (limit == 100)
    assert os.listdir(tmp_path) == []


def test_it_takes_what_is_not_contiguous():
    array = np.arange(12, dtype=np.float32).reshape(3, 4).T
    with DiskBuffer(3) as rows:
        rows.append(array)
        assert np.array_equal(rows[:], array)
