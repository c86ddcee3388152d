"""Files that are cut, in all formats, and files that are not audio."""

import pytest

from cqt2img.audio.decode import load_wave
from tests.audio.files import (
    CHECKED_SUFFIXES,
    RATE,
    check_error,
    raises_audio_error,
    write_as,
)


@pytest.mark.parametrize("suffix", CHECKED_SUFFIXES)
@pytest.mark.parametrize("fraction", [0.9, 0.7, 0.4])
def test_a_cut_file_is_truncated(tmp_path, suffix, fraction):
    path = write_as(tmp_path, suffix)
    load_wave(path, RATE)
    data = path.read_bytes()
    path.write_bytes(data[: int(fraction * len(data))])
    with raises_audio_error("truncated", path):
        load_wave(path, RATE)


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"ID3",
        b"hello " * 99,
        b"RIFF",
        b"Ogg",
        b"\xff\xfb",
        b"fLaC" + bytes(99),
    ],
)
def test_a_file_that_is_not_audio_is_unsupported(tmp_path, data):
    path = tmp_path / "x.mp3"
    path.write_bytes(data)
    check_error(path, "unsupported_or_corrupt", "cannot be opened by libsndfile")
