import struct

import pytest

from cqt2img.audio.decode import load_wave
from tests.audio.files import RATE, check_error, write_as


@pytest.fixture
def flac(tmp_path):
    """A FLAC of 2 s: bytes 18 to 25 have the sample rate and the number of frames."""
    return write_as(tmp_path, "flac", 2.0)


def patch(path, offset, data):
    original = path.read_bytes()
    path.write_bytes(original[:offset] + data + original[offset + len(data) :])


def test_a_flac_of_unknown_length_is_complete(flac):
    patch(flac, 21, bytes([flac.read_bytes()[21] & 0xF0]) + bytes(4))
    assert len(load_wave(flac, RATE)) == 2 * RATE


def test_a_promised_length_beyond_the_limit_is_too_long(flac):
    patch(flac, 21, bytes([flac.read_bytes()[21] | 0x0F]) + b"\xff" * 4)
    check_error(flac, "too_long", "1558265 s", "21600 s")


def test_a_flac_must_hold_what_it_promises(flac):
    patch(flac, 22, struct.pack(">I", 6 * 44100))
    check_error(flac, "truncated", "2.0 of 6.0 s")
    patch(flac, 22, struct.pack(">I", 44100))
    check_error(flac, "unsupported_or_corrupt", "2.0 s", "1.0 s")


def test_a_flac_cut_in_a_frame_is_truncated(flac):
    flac.write_bytes(flac.read_bytes()[:-50])
    check_error(flac, "truncated", "middle of a frame")


def test_the_sample_rate_of_the_frames_must_be_that_of_the_header(flac):
    patch(flac, 18, struct.pack(">H", 22050 >> 4))
    check_error(flac, "unsupported_or_corrupt", "22052 Hz", "44100 Hz")


def test_damage_in_the_middle_is_found(tmp_path):
    path = write_as(tmp_path, "flac", 20.0)
    patch(path, path.stat().st_size // 2, bytes(4000))
    check_error(path, "unsupported_or_corrupt", "fault in the middle")


def test_an_id3v1_tag_at_the_end_is_not_audio(flac):
    flac.write_bytes(flac.read_bytes() + b"TAG" + b"\xff" * 125)
    assert len(load_wave(flac, RATE)) == 2 * RATE
