import struct

import pytest

from cqt2img.audio.decode import load_wave
from tests.audio.files import RATE, check_error, tone, write


@pytest.fixture
def wav(tmp_path):
    """A WAV of 1 s: 44 bytes of header, 176400 bytes of audio."""
    return write(tmp_path / "x.wav", tone(1.0), subtype="PCM_16")


def patch(path, offset, data):
    original = path.read_bytes()
    path.write_bytes(original[:offset] + data + original[offset + len(data) :])


def test_the_error_for_a_cut_file_has_both_sizes(wav):
    wav.write_bytes(wav.read_bytes()[: 44 + 44100])
    check_error(wav, "truncated", "44100 of 176400 bytes")


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x80000000, 0x7FFFF000])
def test_a_streamed_wav_of_unknown_size_is_complete(wav, size):
    patch(wav, 40, struct.pack("<I", size))
    assert len(load_wave(wav, RATE)) == RATE


def test_a_wav_must_not_hold_more_audio_than_it_promises(wav):
    patch(wav, 40, struct.pack("<I", 88200))
    check_error(wav, "unsupported_or_corrupt", "more audio than it promises")


def test_the_fields_of_a_wav_must_agree(wav):
    patch(wav, 24, struct.pack("<I", 22050))
    check_error(wav, "unsupported_or_corrupt", "22050 Hz", "16 bits", "176400")


def test_a_chunk_behind_the_audio_is_not_audio(wav):
    wav.write_bytes(wav.read_bytes() + b"LIST" + struct.pack("<I", 4) + b"INFO")
    assert len(load_wave(wav, RATE)) == RATE


def test_an_au_file_must_be_complete(tmp_path):
    path = write(tmp_path / "x.au", tone(1.0), subtype="PCM_16")
    path.write_bytes(path.read_bytes()[:-1000])
    check_error(path, "truncated", "175400 of 176400 bytes")
