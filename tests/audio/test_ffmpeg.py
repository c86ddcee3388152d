import shutil
import struct
import subprocess
import sys

import pytest

from cqt2img.audio import ffmpeg
from cqt2img.audio.decode import load_wave
from tests.audio.files import RATE, check_error, duration, pitch, tone, write

FFMPEG = shutil.which("ffmpeg")
needs_ffmpeg = pytest.mark.skipif(FFMPEG is None, reason="ffmpeg is not installed")


def convert(source, target, *options):
    command = [FFMPEG, "-nostdin", "-v", "error", "-y", "-i", source, *options, target]
    subprocess.run(command, check=True)
    return target


@pytest.fixture
def m4a(tmp_path):
    """The head of an MP4, which only ffmpeg decodes."""
    (tmp_path / "x.m4a").write_bytes(struct.pack(">I", 24) + b"ftypM4A " + bytes(12))
    return tmp_path / "x.m4a"


@pytest.fixture
def no_ffmpeg(monkeypatch):
    monkeypatch.setattr(ffmpeg.shutil, "which", lambda _: None)


def test_without_decoders_the_error_asks_for_ffmpeg(m4a, no_ffmpeg, monkeypatch):
    monkeypatch.setattr(ffmpeg.importlib.util, "find_spec", lambda _: None)
    check_error(m4a, "needs_ffmpeg", "Install ffmpeg")


def test_a_decoder_that_hangs_is_stopped(m4a, tmp_path, monkeypatch):
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)
    monkeypatch.setattr(ffmpeg.shutil, "which", lambda _: str(program))
    monkeypatch.setattr(ffmpeg, "_TIMEOUT_SECONDS", 0.2)
    check_error(m4a, "timeout", "0.2 s")


@pytest.fixture
def fake_torchcodec(no_ffmpeg, monkeypatch, tmp_path):
    """Install a stand-in for torchcodec, and return the folder of the package.

    benchmarks/odd_files.py was run with the real one.
    """
    package = tmp_path / "packages" / "torchcodec"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "decoders.py").write_text(
        "from tests.audio.fake_decoder import FakeDecoder\n"
        "AudioDecoder = FakeDecoder.from_environment\n"
    )
    monkeypatch.syspath_prepend(package.parent)
    return package


@pytest.mark.parametrize("seconds", [20, 23.5])
def test_torchcodec_is_the_second_decoder(m4a, fake_torchcodec, monkeypatch, seconds):
    monkeypatch.setenv("FAKE_DECODER", f"{seconds} {seconds}")
    wave = load_wave(m4a, RATE)
    assert len(wave) == pytest.approx(seconds * RATE, abs=1)
    assert pitch(wave) == pytest.approx(440, abs=0.1)


@pytest.mark.parametrize(
    ("decoder", "reason", "part"),
    [
        ("20 30", "truncated", "20.0 of 30.0 s"),
        ("30 30 10", "unsupported_or_corrupt", "cannot be decoded to its end"),
        ("30 30 0", "unsupported_or_corrupt", "cannot be decoded to its end"),
    ],
)
def test_faults_that_torchcodec_finds(
    m4a, fake_torchcodec, monkeypatch, decoder, reason, part
):
    monkeypatch.setenv("FAKE_DECODER", decoder)
    check_error(m4a, reason, part)


def test_torchcodec_without_its_libraries_needs_ffmpeg(m4a, fake_torchcodec):
    decoders = fake_torchcodec / "decoders.py"
    decoders.write_text("raise RuntimeError('Could not load libtorchcodec')")
    check_error(m4a, "needs_ffmpeg", "Install ffmpeg")


def test_a_decoder_does_not_execute_files_in_the_current_folder(
    m4a, fake_torchcodec, monkeypatch, tmp_path
):
    monkeypatch.setenv("FAKE_DECODER", "1 1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "struct.py").write_text("raise SystemExit(7)")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    assert duration(m4a) == pytest.approx(1.0, abs=0.01)


@needs_ffmpeg
def test_audio_shorter_than_its_film_is_complete(tmp_path):
    source = write(tmp_path / "x.wav", tone(2.0))
    picture = ("-f", "lavfi", "-i", "color=s=32x32:d=4")
    streams = ("-map", "0:a", "-map", "1:v")
    film = convert(source, tmp_path / "x.mp4", *picture, *streams)
    assert duration(film) == pytest.approx(2.0, abs=0.1)


@needs_ffmpeg
@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("m4a", ()),
        ("m4a", ("-c:a", "alac")),
        ("m4a", ("-movflags", "faststart")),
        ("aac", ()),
        ("wma", ()),
        ("mka", ()),
    ],
)
def test_formats_of_ffmpeg_are_decoded_and_cuts_are_found(tmp_path, suffix, options):
    source = write(tmp_path / "x.wav", tone(2.0))
    path = convert(source, tmp_path / f"-y\n:é.{suffix}", *options)
    wave = load_wave(path, RATE)
    assert len(wave) / RATE == pytest.approx(2.0, abs=0.1)
    assert pitch(wave) == pytest.approx(440, abs=1)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    check_error(path, "unsupported_or_corrupt" if suffix == "aac" else "truncated")


@needs_ffmpeg
def test_faults_that_ffmpeg_finds(tmp_path, m4a):
    path = convert(write(tmp_path / "x.wav", tone(2.0)), tmp_path / "x.aac")
    path.write_bytes(path.read_bytes()[:5000])
    check_error(path, "unsupported_or_corrupt", "cannot be decoded to its end")
    check_error(m4a, "unsupported_or_corrupt", "cannot be opened by ffmpeg")


@needs_ffmpeg
@pytest.mark.parametrize(
    "options",
    [
        ("x.wav",),
        ("x.aiff",),
        ("x.flac",),
        ("x.ogg",),
        ("x.opus",),
        ("x.caf",),
        ("x.w64",),
        ("-b:a", "64k", "x.mp3"),
        ("-q:a", "0", "x.mp3"),
        ("-q:a", "9", "-write_xing", "0", "x.mp3"),
        ("-b:a", "8k", "-ar", "8000", "-ac", "1", "-write_xing", "0", "x.mp3"),
        ("-write_xing", "0", "-id3v2_version", "0", "-write_id3v1", "1", "x.mp3"),
        ("-f", "wav", "pipe:1"),
        ("-f", "flac", "pipe:1"),
        ("-f", "mp3", "pipe:1"),
        ("-f", "ogg", "pipe:1"),
        ("-f", "aiff", "pipe:1"),
        ("-rf64", "always", "x.wav"),
    ],
)
def test_files_that_ffmpeg_writes_are_complete(tmp_path, options):
    *options, name = options
    source = write(tmp_path / "source.wav", tone(1.3))
    path = tmp_path / name
    if name == "pipe:1":
        command = [FFMPEG, "-nostdin", "-v", "error", "-i", source, *options, name]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        path.write_bytes(output)
    else:
        convert(source, path, *options)
    wave = load_wave(path, RATE)
    assert len(wave) / RATE == pytest.approx(1.3, abs=0.15)
    assert pitch(wave) == pytest.approx(440, abs=1)


def test_the_logged_duration_is_used_only_if_it_is_reliable():
    log = b"""
  Duration: 01:02:03.50, start: 0.000000, bitrate: 129 kb/s
  Stream #0:0[0x1](und): Audio: aac (LC) (mp4a / 0x6134706D), 44100 Hz, stereo
"""
    cover = b"  Stream #0:1[0x0]: Video: mjpeg, 300x300 (attached pic)\n"
    film = b"  Stream #0:1[0x2](und): Video: h264 (High), 32x32\n"
    estimate = b"Estimating duration from bitrate, this may be inaccurate\n"
    assert ffmpeg._parse_duration(log) == 3723.5
    assert ffmpeg._parse_duration(log + cover) == 3723.5
    assert ffmpeg._parse_duration(log + film) == 0
    assert ffmpeg._parse_duration(log + estimate) == 0
    assert ffmpeg._parse_duration(log.replace(b"01:02:03.50", b"N/A")) == 0
