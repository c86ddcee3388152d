import numpy as np
import pytest
import soundfile

from cqt2img.audio.decode import load_wave
from cqt2img.audio.mp3 import make_counting_frame, parse_frame_header
from tests.audio.files import FILE_RATE, RATE, check_error, duration, pitch, tone
from tests.audio.files import write_as as write_format


@pytest.fixture
def mp3(tmp_path):
    """An MP3 of 4 s whose first frame counts the others, and has no audio."""
    return write_format(tmp_path, "mp3", 4.0)


def remove_count(data):
    """Remove the first frame, which counts the others."""
    offset = data.find(b"\xff\xfb")
    assert offset >= 0
    assert (
        b"Xing" in data[offset : offset + 64] or b"Info" in data[offset : offset + 64]
    )
    return data[offset + parse_frame_header(data[offset : offset + 4]).n_bytes :]


def id3(n_bytes):
    """Make an ID3v2 tag that holds what looks like frames."""
    size = bytes((n_bytes >> shift & 127) for shift in (21, 14, 7, 0))
    return b"ID3\4\0\0" + size + b"\xff\xfb\x90\x64" * (n_bytes // 4)


def test_a_frame_header_is_read_as_the_standard_tells():
    # MPEG 1, layer 3, 128 kbit/s, 44100 Hz, joint stereo: 144 * 128000 / 44100 bytes
    frame = parse_frame_header(b"\xff\xfb\x90\x64")
    assert frame[:4] == (417, 1152, 44100, 3)
    padded = parse_frame_header(b"\xff\xfb\x92\x64")
    assert padded == frame._replace(n_bytes=418)
    # MPEG 2, layer 3, 64 kbit/s, 16000 Hz, mono: 72 * 64000 / 16000 bytes
    assert parse_frame_header(b"\xff\xf3\x88\xc0")[:4] == (288, 576, 16000, 3)
    # MPEG 1, layer 2, 192 kbit/s, 48000 Hz: 144 * 192000 / 48000 bytes
    assert parse_frame_header(b"\xff\xfd\xa4\x00")[:4] == (576, 1152, 48000, 2)


@pytest.mark.parametrize(
    "head",
    [
        b"\xff\xfb\x90",  # too short
        b"\xff\xdb\x90\x64",  # no synchronisation
        b"\xff\xeb\x90\x64",  # reserved version
        b"\xff\xff\x90\x64",  # layer 1
        b"\xff\xfb\x00\x64",  # free bitrate
        b"\xff\xfb\xf0\x64",  # invalid bitrate
        b"\xff\xfb\x9c\x64",  # reserved sample rate
    ],
)
def test_other_bytes_are_not_a_frame_header(head):
    assert parse_frame_header(head) is None


def test_only_frames_that_differ_in_bitrate_padding_and_checksum_are_of_one_kind():
    kind = parse_frame_header(b"\xff\xfb\x90\x64").kind
    for head in (b"\xff\xfa\x90\x64", b"\xff\xfb\xb2\x64", b"\xff\xfb\x90\x00"):
        assert parse_frame_header(head).kind == kind
    for head in (b"\xff\xf3\x90\x64", b"\xff\xfb\x94\x64", b"\xff\xfb\x90\xc0"):
        assert parse_frame_header(head).kind != kind


@pytest.mark.parametrize(
    "before", [b"", id3(4_000_000), id3(400) + id3(800), id3(400) + bytes(3000)]
)
@pytest.mark.parametrize(
    "after",
    [
        b"",
        b"TAG" + b"\xff" * 125,
        bytes(5000),
        b"APETAGEX" + b"\xff\xd8" * 4000,
        b"ID3\4",  # of a tag that was cut
    ],
)
@pytest.mark.parametrize("is_counted", [True, False])
def test_tags_are_not_audio(tmp_path, before, after, is_counted):
    path = write_format(tmp_path, "mp3", 1.0)
    data = path.read_bytes()
    path.write_bytes(before + (data if is_counted else remove_count(data)) + after)
    wave = load_wave(path, RATE)
    assert len(wave) / RATE == pytest.approx(1.0, abs=0.1)
    assert pitch(wave) == pytest.approx(440, abs=1)


def test_a_variable_bitrate_without_a_count_is_decoded_to_its_end(tmp_path):
    # By itself, libsndfile guesses the length from the first, large frames.
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, 2 * FILE_RATE)
    time = np.arange(4 * FILE_RATE) / FILE_RATE
    sine = 0.3 * np.sin(2 * np.pi * 440 * time)
    sound = np.concatenate([noise, sine])
    path = tmp_path / "x.mp3"
    options = {"bitrate_mode": "VARIABLE", "compression_level": 0.0}
    soundfile.write(path, sound, FILE_RATE, **options)
    path.write_bytes(remove_count(path.read_bytes()))
    assert soundfile.info(path).frames < 5 * FILE_RATE
    assert duration(path) == pytest.approx(6.0, abs=0.1)


def test_joined_files_are_decoded_to_the_end(mp3):
    mp3.write_bytes(3 * mp3.read_bytes())
    assert duration(mp3) == pytest.approx(12.0, abs=0.3)


def test_a_cut_file_is_truncated_with_and_without_a_count(mp3):
    data = mp3.read_bytes()
    half = data[: len(data) // 2]
    mp3.write_bytes(half)
    check_error(mp3, "truncated", "of 4.0 s")
    mp3.write_bytes(remove_count(half))
    check_error(mp3, "truncated", "middle of a frame")


def test_bytes_that_are_not_frames_are_counted(mp3):
    data = mp3.read_bytes()
    garbage = b"garbage " * 4000
    mp3.write_bytes(data + garbage)
    check_error(mp3, "unsupported_or_corrupt", "32000 bytes that are not frames")
    mp3.write_bytes(data + garbage[:800] + data)
    check_error(mp3, "unsupported_or_corrupt", "800 bytes that are not frames")
    mp3.write_bytes(garbage + data + b"\r\n")
    assert duration(mp3) == pytest.approx(4.0, abs=0.1)


def test_frames_must_be_of_one_kind(tmp_path, mp3):
    mono = tmp_path / "mono.mp3"
    soundfile.write(mono, tone(1.0, n_channels=1), FILE_RATE)
    mp3.write_bytes(mp3.read_bytes() + mono.read_bytes())
    check_error(mp3, "unsupported_or_corrupt", "bytes that are not frames")


@pytest.mark.parametrize("mode", [0x00, 0xC0])
@pytest.mark.parametrize("second", [0xFB, 0xFA, 0xF3, 0xE3])
def test_a_counting_frame_is_a_frame_with_the_count(second, mode):
    frame = make_counting_frame(bytes((255, second, 0x90, mode)), 1234)
    assert len(frame) == parse_frame_header(frame[:4]).n_bytes
    assert (1234).to_bytes(4, "big") in frame
