import numpy as np
import pytest

from cqt2img.audio.decode import load_wave
from tests.audio.files import RATE, check_error, tone, write, write_as


@pytest.fixture
def ogg(tmp_path):
    return write_as(tmp_path, "ogg", 2.0)


def split_pages(data):
    pages = [b"OggS" + page for page in data.split(b"OggS")[1:]]
    assert len(pages) > 4
    return pages


def test_a_missing_page_is_found(ogg):
    pages = split_pages(ogg.read_bytes())
    ogg.write_bytes(b"".join(pages[:3] + pages[4:]))
    check_error(ogg, "unsupported_or_corrupt", "fault in page 4")


def test_a_single_wrong_bit_is_found(ogg):
    pages = split_pages(ogg.read_bytes())
    pages[3] = pages[3][:-1] + bytes([pages[3][-1] ^ 1])
    ogg.write_bytes(b"".join(pages))
    check_error(ogg, "unsupported_or_corrupt", "fault in page 3")


def test_bytes_between_pages_are_found(ogg):
    pages = split_pages(ogg.read_bytes())
    pages[3] = b"oggs" + pages[3][4:]
    ogg.write_bytes(b"".join(pages))
    check_error(ogg, "unsupported_or_corrupt", "fault in the middle")


def test_a_file_without_its_last_page_is_truncated(ogg):
    data = ogg.read_bytes()
    ogg.write_bytes(data[:-50])
    check_error(ogg, "truncated", "last page")
    ogg.write_bytes(b"".join(split_pages(data)[:-1]))
    check_error(ogg, "truncated", "last page")


def test_streams_that_follow_one_another_are_decoded_one_after_the_other(ogg):
    ogg.write_bytes(2 * ogg.read_bytes())
    wave = load_wave(ogg, RATE)
    assert len(wave) == 4 * RATE
    first, second = wave[RATE : RATE + 9000], wave[3 * RATE : 3 * RATE + 9000]
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_streams_that_follow_one_another_must_have_one_sample_rate(tmp_path, ogg):
    other = write(tmp_path / "y.ogg", tone(1.0, 32000), 32000)
    ogg.write_bytes(ogg.read_bytes() + other.read_bytes())
    check_error(ogg, "unsupported_or_corrupt", "changes its sample rate")
