import io
import os

import pytest

from cqt2img.audio.source import SplicedFile, count_unclaimed, read_at


@pytest.fixture
def file(tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")
    with io.FileIO(tmp_path / "file") as file:
        yield file


def test_a_spliced_file_reads_like_its_pieces_joined(file):
    pieces = [b"head", range(2, 5), b"", range(8, 10)]
    expected = io.BytesIO(b"head" + b"234" + b"89")
    spliced = io.BufferedReader(SplicedFile(file, pieces), 4)
    assert spliced.read() == expected.read()
    for offset, whence in [(3, os.SEEK_SET), (2, os.SEEK_CUR), (-4, os.SEEK_END)]:
        assert spliced.seek(offset, whence) == expected.seek(offset, whence)
        assert spliced.read(3) == expected.read(3)
        assert spliced.tell() == expected.tell()


def test_an_offset_before_the_start_is_the_start(file):
    spliced = SplicedFile(file, [range(10)])
    assert spliced.seek(-5) == 0
    assert spliced.seek(-100, os.SEEK_END) == 0
    assert spliced.read(2) == b"01"


def test_a_read_error_is_kept_and_looks_like_the_end(file):
    spliced = SplicedFile(file, [b"head", range(10)])
    file.close()
    assert spliced.read(4) == b"head"
    with pytest.raises(ValueError, match="closed"):
        spliced.read(4)


def test_bytes_behind_the_end_are_zeros(file):
    assert read_at(file, 8, 4) == b"89\0\0"
    assert read_at(file, 1 << 70, 2) == b"\0\0"
    assert read_at(file, -1, 2) == b"01"


@pytest.mark.parametrize(
    ("rest", "n_unclaimed"),
    [
        (b"", 0),
        (bytes(9), 0),
        (b"LIST\4\0\0\0", 0),
        (b"ID3\4", 0),
        (b"\x01\xff\x03\x04", 4),
    ],
)
def test_bytes_that_are_neither_chunk_nor_tag_nor_zero_are_unclaimed(
    tmp_path, rest, n_unclaimed
):
    (tmp_path / "file").write_bytes(b"audio\x80" + rest)
    with io.FileIO(tmp_path / "file") as file:
        assert count_unclaimed(file, 6) == n_unclaimed
