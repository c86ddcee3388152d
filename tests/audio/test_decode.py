import io
import os
import pickle
import re
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cqt2img.audio import decode as audio
from cqt2img.audio import integrity as container
from cqt2img.audio.decode import AUDIO_SUFFIXES, REASONS, load_wave
from cqt2img.errors import AudioError, InputError

RATE = 22050
COPY = "Copy it again from its source."
PLAY = "Play it to see if it is intact, or convert it to FLAC."
FFMPEG = shutil.which("ffmpeg")
needs_ffmpeg = pytest.mark.skipif(FFMPEG is None, reason="ffmpeg is not installed")
# Name, libsndfile format, subtype. Rates and lengths vary in the tests.
FORMATS = [
    ("wav", "WAV", "PCM_16"),
    ("wav", "WAV", "PCM_24"),
    ("wav", "WAV", "FLOAT"),
    ("wav", "WAV", "IMA_ADPCM"),
    ("wav", "WAVEX", "PCM_16"),
    ("rf64", "RF64", "PCM_16"),
    ("w64", "W64", "PCM_24"),
    ("aiff", "AIFF", "PCM_24"),
    ("aifc", "AIFF", "ULAW"),
    ("caf", "CAF", "PCM_16"),
    ("caf", "CAF", "ALAC_16"),
    ("au", "AU", "PCM_16"),
    ("flac", "FLAC", "PCM_16"),
    ("ogg", "OGG", "VORBIS"),
    ("opus", "OGG", "OPUS"),
    ("mp3", "MP3", "MPEG_LAYER_III"),
]
CUT = ["wav", "rf64", "w64", "aiff", "caf", "flac", "ogg", "opus", "mp3"]


def tone(seconds=1.0, rate=44100, n_channels=2, hz=440.0):
    rng = np.random.default_rng(0)
    wave = 0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)
    noise = 0.02 * rng.normal(size=(len(wave), n_channels))
    return (wave[:, None] + noise).astype(np.float32)


def write(path, sound=None, rate=44100, form=None, subtype=None):
    soundfile.write(
        path,
        tone(rate=rate) if sound is None else sound,
        rate,
        format=form,
        subtype=subtype,
    )
    return path


def write_as(folder, suffix, seconds=2.0):
    form, subtype = next((f, s) for n, f, s in FORMATS if n == suffix)
    rate = 48000 if suffix == "opus" else 44100
    return write(folder / f"x.{suffix}", tone(seconds, rate), rate, form, subtype)


def convert(source, target, *options):
    subprocess.run(
        [FFMPEG, "-nostdin", "-v", "error", "-y", "-i", source, *options, target],
        check=True,
    )
    return target


def refuse(path, reason, message, **options):
    with pytest.raises(AudioError) as caught:
        load_wave(path, RATE, **options)
    assert str(caught.value) == f"load_wave: path must {message}"
    assert caught.value.reason == reason
    assert caught.value.reason in REASONS


def pitch(wave, rate=RATE):
    return np.argmax(np.abs(np.fft.rfft(wave))) * rate / len(wave)


def strip_xing(data):
    # The first frame of such a file tells the count and has no sound.
    at = data.find(b"\xff\xfb")
    assert at >= 0
    n_bytes = container.mp3_frame(data[at : at + 4])[0]
    assert b"Xing" in data[at : at + 64] or b"Info" in data[at : at + 64]
    return data[at + n_bytes :]


def test_reasons_are_sentences():
    assert all(re.fullmatch("[a-z_]+", reason) for reason in REASONS)
    assert all(text.endswith(".") for text in REASONS.values())
    text = "".join(
        Path(module.__file__).read_text(encoding="utf-8")
        for module in (audio, container)
    )
    raised = set(re.findall(r'fault\(\s*"([a-z_]+)"', text)) | {"truncated"}
    assert raised | {"worker_died"} == set(REASONS)  # this one comes from jobs.py


def test_suffixes_are_lower_case():
    assert {".wav", ".mp3", ".flac", ".m4a", ".wma"} <= AUDIO_SUFFIXES
    assert all(s.startswith(".") and s == s.lower() for s in AUDIO_SUFFIXES)


@pytest.mark.parametrize(("suffix", "form", "subtype"), FORMATS)
def test_every_format_keeps_pitch_and_duration(tmp_path, suffix, form, subtype):
    for rate, n_channels, seconds in [
        (48000, 2, 1.0),
        (48000, 1, 0.37),
        (24000, 2, 2.013),
        (16000, 1, 3.3),
    ]:
        path = write(
            tmp_path / f"x.{suffix}",
            tone(seconds, rate, n_channels),
            rate,
            form,
            subtype,
        )
        wave = load_wave(path, RATE)
        assert wave.dtype == np.float32
        assert wave.ndim == 1
        assert wave.flags.writeable
        assert len(wave) / RATE == pytest.approx(seconds, abs=0.1)
        assert pitch(wave) == pytest.approx(440, abs=1 / seconds)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 32000, 44100, 96000, 192000])
def test_resampling_keeps_length_and_level(tmp_path, rate):
    wave = load_wave(write(tmp_path / "x.flac", tone(1.0, rate), rate), RATE)
    assert abs(len(wave) - RATE) <= 1
    assert np.sqrt(np.mean(wave**2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.02)


def test_same_rate_is_the_mean_of_the_channels(tmp_path):
    sound = np.stack(
        [tone(n_channels=1, hz=440)[:, 0], tone(n_channels=1, hz=880)[:, 0]], 1
    )
    path = write(tmp_path / "x.wav", sound, 44100, subtype="FLOAT")
    np.testing.assert_allclose(load_wave(path, 44100), sound.mean(axis=1), atol=1e-7)
    np.testing.assert_allclose(
        load_wave(str(path), np.int64(44100).item()), sound.mean(axis=1), atol=1e-7
    )


def test_click_stays_in_its_place_across_blocks(tmp_path):
    sound = np.zeros((5 * 44100, 1), np.float32)
    sound[3 * 44100] = 0.9
    wave = load_wave(write(tmp_path / "x.wav", sound), RATE)
    assert np.argmax(np.abs(wave)) == 3 * RATE


@pytest.mark.parametrize(
    "name", ["a\nb.wav", "Brahms – Näck.wav", "-i.wav", os.fsdecode(b"\xff\xfe.wav")]
)
def test_odd_names(tmp_path, name):
    try:
        os.rename(write(tmp_path / "x.wav"), tmp_path / name)
    except OSError:
        pytest.skip("this file system does not take the name")
    assert len(load_wave(tmp_path / name, RATE)) == RATE
    (tmp_path / name).write_bytes(b"")
    refuse(
        tmp_path / name,
        "empty_file",
        f"hold audio, got {str(tmp_path / name)!r} which has 0 bytes. {COPY}",
    )


@pytest.mark.parametrize("suffix", CUT)
@pytest.mark.parametrize("part", [0.9, 0.7, 0.4])
def test_cut_file_is_truncated(tmp_path, suffix, part):
    path = write_as(tmp_path, suffix)
    load_wave(path, RATE)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(AudioError) as caught:
        load_wave(path, RATE)
    assert caught.value.reason == "truncated"
    pattern = r"(has \d+ of \d+ bytes of sound|gives [\d.]+ of 2\.\d s|stops (in the middle|before the mark) of .*)"
    start = re.escape(
        f"load_wave: path must be a whole recording, got {str(path)!r} which "
    )
    assert re.fullmatch(start + pattern + r"\. " + re.escape(COPY), str(caught.value))


def test_truncated_messages(tmp_path):
    rule = "be a whole recording, got"
    path = write(tmp_path / "x.wav", tone(1.0))
    path.write_bytes(path.read_bytes()[:44144])
    refuse(
        path,
        "truncated",
        f"{rule} {str(path)!r} which has 44100 of 176400 bytes of sound. {COPY}",
    )
    path = write_as(tmp_path, "flac", 1.0)
    data = bytearray(path.read_bytes())
    data[22:26] = struct.pack(">I", 3 * 44100)
    path.write_bytes(data)
    refuse(path, "truncated", f"{rule} {str(path)!r} which gives 1.0 of 3.0 s. {COPY}")
    path.write_bytes(data[:-50])
    refuse(
        path,
        "truncated",
        f"{rule} {str(path)!r} which stops in the middle of a frame. {COPY}",
    )
    path = write_as(tmp_path, "ogg", 1.0)
    path.write_bytes(path.read_bytes()[:-50])
    refuse(
        path,
        "truncated",
        f"{rule} {str(path)!r} which stops before the mark of its end. {COPY}",
    )
    path = write_as(tmp_path, "mp3", 4.0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(
        AudioError,
        match=r"which gives [12]\.\d of 4\.\d s\. Copy it again from its source\.$",
    ):
        load_wave(path, RATE)
    path.write_bytes(strip_xing(path.read_bytes()))
    refuse(
        path,
        "truncated",
        f"{rule} {str(path)!r} which stops in the middle of a frame. {COPY}",
    )


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x80000000, 0x7FFFF000])
def test_streamed_wav_of_unknown_size_is_whole(tmp_path, size):
    path = write(tmp_path / "x.wav")
    data = path.read_bytes()
    at = data.index(b"data") + 4
    path.write_bytes(data[:at] + struct.pack("<I", size) + data[at + 4 :])
    assert len(load_wave(path, RATE)) == RATE


def test_flac_of_unknown_or_lying_length(tmp_path):
    path = write_as(tmp_path, "flac", 1.0)
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path.write_bytes(data)
    assert len(load_wave(path, RATE)) == RATE
    data[21] |= 0x0F
    data[22:26] = b"\xff" * 4
    path.write_bytes(data)
    got = f"got {str(path)!r} which lasts 1558265 s or more"
    refuse(
        path, "too_long", f"last at most 21600 s, {got}. Cut it, or raise max_seconds."
    )


def id3(n_bytes):
    return (
        b"ID3\4\0\0"
        + bytes((n_bytes >> s & 127) for s in (21, 14, 7, 0))
        + b"\xff\xfb\x90\x64" * (n_bytes // 4)
    )


@pytest.mark.parametrize(
    "before", [b"", id3(4_000_000), id3(400) + id3(800), id3(400) + bytes(3000)]
)
@pytest.mark.parametrize(
    "after",
    [b"", b"TAG" + b"\xff" * 125, bytes(5000), b"APETAGEX" + b"\xff\xd8" * 4000],
)
@pytest.mark.parametrize("counted", [True, False])
def test_mp3_with_tags_is_whole(tmp_path, before, after, counted):
    path = write_as(tmp_path, "mp3", 1.0)
    data = path.read_bytes()
    path.write_bytes(before + (data if counted else strip_xing(data)) + after)
    wave = load_wave(path, RATE)
    assert len(wave) / RATE == pytest.approx(1.0, abs=0.1)
    assert pitch(wave) == pytest.approx(440, abs=1)


def test_vbr_mp3_without_count_keeps_its_quiet_half(tmp_path):
    # libsndfile alone guesses the length from the first, big frames, and drops the rest.
    sound = tone(6.0)
    sound[: 2 * 44100] = np.random.default_rng(0).uniform(-0.9, 0.9, (2 * 44100, 2))
    sound[2 * 44100 :] = (
        0.3 * np.sin(np.arange(4 * 44100) / 44100 * 2 * np.pi * 440)[:, None]
    )
    path = tmp_path / "x.mp3"
    soundfile.write(path, sound, 44100, bitrate_mode="VARIABLE", compression_level=0.0)
    path.write_bytes(strip_xing(path.read_bytes()))
    assert soundfile.info(path).frames < 5 * 44100
    assert len(load_wave(path, RATE)) / RATE == pytest.approx(6.0, abs=0.1)


def test_joined_mp3_is_read_to_its_end(tmp_path):
    path = write_as(tmp_path, "mp3", 1.0)
    path.write_bytes(path.read_bytes() * 3)
    assert len(load_wave(path, RATE)) / RATE == pytest.approx(3.0, abs=0.3)


def test_input_errors(tmp_path):
    rule = "sample_rate must be a whole number of Hz from 4000 to 768000, got"
    cases = [
        (
            (7, RATE),
            "path must be a str or PathLike, got 7. Pass the name of one file.",
        ),
        (("x", 3999), f"{rule} 3999. Take it from a TileSpec."),
        (("x", 4e3), f"{rule} 4000.0. Take it from a TileSpec."),
        (("x", True), f"{rule} True. Take it from a TileSpec."),
        (
            ("x", RATE, 0),
            "max_seconds must be more than 0, got 0. Leave it out for 6 hours.",
        ),
        (
            ("x", RATE, float("nan")),
            "max_seconds must be more than 0, got nan. Leave it out for 6 hours.",
        ),
    ]
    for arguments, message in cases:
        with pytest.raises(InputError) as caught:
            load_wave(*arguments)
        assert str(caught.value) == f"load_wave: {message}"


def test_vanished(tmp_path):
    file = write(tmp_path / "x.wav")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for path in (tmp_path / "no.wav", file / "y.wav", tmp_path / "link", "a\0b"):
        got = f"got {str(path)!r} which is not there"
        advice = "Check the spelling, and that the disk is still there."
        refuse(path, "vanished", f"be an existing file, {got}. {advice}")


def test_not_a_file(tmp_path):
    advice = "Name a file in it, or copy it to a file."
    refuse(
        tmp_path,
        "not_a_file",
        f"be one audio file, got {str(tmp_path)!r} which is a folder. {advice}",
    )
    os.mkfifo(tmp_path / "fifo.wav")
    for path in (str(tmp_path / "fifo.wav"), "/dev/zero"):
        refuse(
            path,
            "not_a_file",
            f"be one audio file, got {path!r} which is a pipe or a device. {advice}",
        )


def test_not_readable(tmp_path, monkeypatch):
    def deny(*_):
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path / "x.wav")
    monkeypatch.setattr(audio.io, "FileIO", deny)  # chmod does not stop root
    got = f"got {str(path)!r} which cannot be opened (Permission denied)"
    refuse(
        path,
        "not_readable",
        f"be a readable file, {got}. Check its permissions and its disk.",
    )


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"ID3",
        b"hello " * 99,
        b"RIFF",
        b"OggS"[:3],
        b"\xff\xfb",
        b"fLaC" + bytes(99),
    ],
)
def test_not_audio(tmp_path, data):
    path = tmp_path / "x.mp3"
    path.write_bytes(data)
    got = f"got {str(path)!r} which libsndfile cannot open"
    refuse(
        path, "unsupported_or_corrupt", f"be audio that can be decoded, {got}. {PLAY}"
    )


def test_fault_in_the_middle(tmp_path):
    path = write_as(tmp_path, "flac", 20.0)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4000] = bytes(4000)
    path.write_bytes(data)
    got = f"got {str(path)!r} which has a fault in the middle"
    refuse(
        path, "unsupported_or_corrupt", f"be audio that can be decoded, {got}. {PLAY}"
    )


def test_noise_bytes_never_escape(tmp_path):
    rng = np.random.default_rng(0)
    path, reasons = tmp_path / "x", set()
    for suffix in (
        "wav",
        "aiff",
        "caf",
        "flac",
        "ogg",
        "opus",
        "mp3",
        "w64",
        "rf64",
        "au",
    ):
        good = write_as(tmp_path, suffix, 0.3).read_bytes()
        for _ in range(12):
            data = bytearray(good)
            for at in rng.integers(0, min(300, len(data)), 6):
                data[at] = rng.integers(256)
            path.write_bytes(data)
            try:
                assert np.isfinite(load_wave(path, RATE)).all()
            except AudioError as err:
                reasons.add(err.reason)
    assert reasons
    assert reasons <= set(REASONS)


def test_header_that_contradicts_itself(tmp_path):
    rule = "be audio that can be decoded, got"
    path = write(tmp_path / "x.wav")
    data = path.read_bytes()
    path.write_bytes(data[:24] + struct.pack("<I", 22050) + data[28:])
    got = "which claims 22050 Hz and 2 channels of 16 bits, but 4 bytes and 176400 a second"
    refuse(path, "unsupported_or_corrupt", f"{rule} {str(path)!r} {got}. {PLAY}")
    path.write_bytes(data[:40] + struct.pack("<I", 88200) + data[44:])
    refuse(
        path,
        "unsupported_or_corrupt",
        f"{rule} {str(path)!r} which holds more sound than it promises. {PLAY}",
    )
    path = write_as(tmp_path, "flac", 2.0)
    data = path.read_bytes()
    path.write_bytes(data[:22] + struct.pack(">I", 44100) + data[26:])
    refuse(
        path,
        "unsupported_or_corrupt",
        f"{rule} {str(path)!r} which gives 2.0 s where it promises 1.0 s. {PLAY}",
    )
    path.write_bytes(data[:18] + struct.pack(">H", 22050 >> 4) + data[20:])
    got = "which claims 22052 Hz, but 44100 Hz in its sound"
    refuse(path, "unsupported_or_corrupt", f"{rule} {str(path)!r} {got}. {PLAY}")


def test_ogg_page_by_page(tmp_path):
    rule = "be audio that can be decoded, got"
    path = write_as(tmp_path, "ogg", 2.0)
    data = path.read_bytes()
    pages = [b"OggS" + page for page in data.split(b"OggS")[1:]]
    assert len(pages) > 4
    for bad in (
        b"".join(pages[:3] + pages[4:]),
        data.replace(pages[3], pages[3][:-1] + bytes([pages[3][-1] ^ 1])),
    ):
        path.write_bytes(bad)
        with pytest.raises(
            AudioError, match=r"which has a fault in page [34]\. Play it"
        ):
            load_wave(path, RATE)
    path.write_bytes(data.replace(pages[3], b"oggs" + pages[3][4:]))
    refuse(
        path,
        "unsupported_or_corrupt",
        f"{rule} {str(path)!r} which has a fault in the middle. {PLAY}",
    )
    path.write_bytes(data + data)
    wave = load_wave(path, RATE)
    assert len(wave) == 4 * RATE
    np.testing.assert_allclose(
        wave[RATE : RATE + 9000], wave[3 * RATE : 3 * RATE + 9000], atol=1e-5
    )
    other = write(tmp_path / "y.ogg", tone(1.0, 32000), 32000)
    path.write_bytes(data + other.read_bytes())
    got = "which changes its sample rate or its channels"
    refuse(path, "unsupported_or_corrupt", f"{rule} {str(path)!r} {got}. {PLAY}")


def test_mp3_with_bytes_that_are_no_frames(tmp_path):
    path = write_as(tmp_path, "mp3", 4.0)
    data, garbage = path.read_bytes(), b"garbage " * 4000
    for bad, n_bytes in ((data + garbage, 32000), (data + garbage[:800] + data, 800)):
        path.write_bytes(bad)
        rule, got = (
            "be audio that can be decoded, got",
            f"which has {n_bytes} bytes that are no frames like its first",
        )
        refuse(path, "unsupported_or_corrupt", f"{rule} {str(path)!r} {got}. {PLAY}")
    path.write_bytes(garbage + data + b"\r\n")
    assert len(load_wave(path, RATE)) / RATE == pytest.approx(4.0, abs=0.1)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_disk_that_fails_half_way(tmp_path, monkeypatch, suffix, capfd):
    class Failing(io.FileIO):
        n_reads, limit = 0, 10**9

        def read(self, size=-1):
            Failing.n_reads += 1
            if Failing.n_reads > Failing.limit:
                raise OSError(5, "Input/output error")
            return super().read(size)

    path = write_as(tmp_path, suffix, 20.0)
    monkeypatch.setattr(audio.io, "FileIO", Failing)
    load_wave(path, RATE)
    n_reads = Failing.n_reads
    got = f"got {str(path)!r} which cannot be opened (Input/output error)"
    for limit in (0, 3, n_reads // 2, n_reads - 2):
        Failing.n_reads, Failing.limit = 0, limit
        refuse(
            path,
            "not_readable",
            f"be a readable file, {got}. Check its permissions and its disk.",
        )
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("rate", [3999, 768001])
def test_bad_sample_rate(tmp_path, rate):
    path = write(tmp_path / "x.wav", tone(1.0), rate)
    got = f"got {str(path)!r} which claims {rate} Hz"
    rule = "have a sample rate from 4000 to 768000 Hz"
    refuse(
        path, "bad_sample_rate", f"{rule}, {got}. Resample it, or correct its header."
    )


def test_bad_channels(tmp_path):
    assert (
        len(load_wave(write(tmp_path / "x.wav", tone(0.2, n_channels=64)), RATE))
        == RATE // 5
    )
    path = write(tmp_path / "x.wav", tone(0.2, n_channels=65))
    refuse(
        path,
        "bad_channels",
        f"have at most 64 channels, got {str(path)!r} which has 65. Mix it down.",
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite(tmp_path, value):
    sound = tone(0.5)
    sound[-1] = value, -value
    path = write(tmp_path / "x.wav", sound, subtype="FLOAT")
    got = f"got {str(path)!r} which has NaN or infinity before 0.5 s"
    refuse(
        path,
        "non_finite",
        f"hold finite numbers only, {got}. Export it again as 16 or 24 bit.",
    )


def test_too_short(tmp_path):
    assert len(load_wave(write(tmp_path / "x.wav", tone(0.1)), RATE)) == 2205
    path = write(tmp_path / "x.wav", tone(0.099))
    got = f"got {str(path)!r} which lasts 0.099 s"
    refuse(
        path,
        "too_short",
        f"last at least 0.1 s, {got}. Leave it out, or use a longer take.",
    )


def test_too_long(tmp_path):
    path = write(tmp_path / "x.wav", tone(2.0))
    assert len(load_wave(path, RATE, max_seconds=2)) == 2 * RATE
    got = f"got {str(path)!r} which lasts 2 s or more"
    refuse(
        path,
        "too_long",
        f"last at most 1.5 s, {got}. Cut it, or raise max_seconds.",
        max_seconds=1.5,
    )


def test_silent(tmp_path):
    advice = "Check the recording, or export one channel of it."
    sound = tone()
    for quiet in (0 * sound, 5e-5 * sound):
        path = write(tmp_path / "x.wav", quiet, subtype="FLOAT")
        refuse(
            path,
            "silent",
            f"rise above -80 dBFS, got {str(path)!r} which is silent. {advice}",
        )
    path = write(tmp_path / "x.wav", sound[:, :1] * [1, -1], subtype="FLOAT")
    refuse(
        path,
        "silent",
        f"rise above -80 dBFS, got {str(path)!r} which has channels that cancel out. {advice}",
    )


def test_error_survives_pickling(tmp_path):
    with pytest.raises(AudioError) as caught:
        load_wave(tmp_path, RATE)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.reason, str(again)) == (caught.value.reason, str(caught.value))


def test_what_libsndfile_reads_never_meets_ffmpeg(tmp_path, monkeypatch):
    monkeypatch.setattr(
        audio.shutil, "which", lambda _: pytest.fail("looked for ffmpeg")
    )
    for suffix in CUT:
        load_wave(write_as(tmp_path, suffix, 0.3), RATE)


@pytest.fixture
def m4a(tmp_path):
    (tmp_path / "x.m4a").write_bytes(struct.pack(">I", 24) + b"ftypM4A " + bytes(12))
    return tmp_path / "x.m4a"


def refuse_without_ffmpeg(path):
    got, advice = (
        f"got {str(path)!r} which needs ffmpeg",
        "Install ffmpeg, or convert the file to FLAC.",
    )
    refuse(
        path, "needs_ffmpeg", f"be in a format that libsndfile reads, {got}. {advice}"
    )


def test_needs_ffmpeg(m4a, monkeypatch):
    monkeypatch.setattr(audio.shutil, "which", lambda _: None)
    monkeypatch.setattr(audio.importlib.util, "find_spec", lambda _: None)
    refuse_without_ffmpeg(m4a)


def test_decoder_that_hangs(m4a, tmp_path, monkeypatch):
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(audio.shutil, "which", lambda _: str(program))
    monkeypatch.setattr(audio, "_PATIENCE", 0.2)
    got = f"got {str(m4a)!r} which hangs its decoder"
    refuse(m4a, "timeout", f"give sound every 0.2 s, {got}. Convert the file to FLAC.")


TORCHCODEC = """
import numpy as np
class Data:
    def __init__(self, sound): self.sound, self.shape, self.T = sound, sound.shape, self
    def contiguous(self): return self
    def numpy(self): return self.sound.T
class Samples: pass
class AudioDecoder:
    def __init__(self, file):
        assert file.read(8)[4:] == b"ftyp"
        self.metadata = Samples()
        self.metadata.__dict__ = dict(sample_rate=16000, num_channels=2, codec="aac", duration_seconds=TOLD)
    def get_samples_played_in_range(self, start, stop):
        at = np.arange(round(start * 16000), round(min(stop, SECONDS) * 16000))
        if not len(at):
            raise RuntimeError("No audio frames were decoded. This is probably because start_seconds is too high")
        if start >= BROKEN:
            raise RuntimeError("Could not decode")
        samples = Samples()
        samples.data = Data(np.tile(np.sin(2 * np.pi * 440 * at / 16000).astype(np.float32), (2, 1)))
        return samples
"""


def test_torchcodec_is_the_second_decoder(m4a, tmp_path, monkeypatch):
    # a stand-in for the package; benchmarks/odd_files.py was read with the real one
    home = tmp_path / "torchcodec"
    home.mkdir()
    (home / "__init__.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(audio.shutil, "which", lambda _: None)
    monkeypatch.setattr(audio.importlib.util, "find_spec", lambda _: True)

    def pretend(seconds, told, broken=99):
        code = f"SECONDS, TOLD, BROKEN = {seconds}, {told}, {broken}\n"
        (home / "decoders.py").write_text(code + TORCHCODEC)

    for seconds in (20, 23.5):
        pretend(seconds, seconds)
        wave = load_wave(m4a, RATE)
        assert len(wave) == pytest.approx(seconds * RATE, abs=1)
        assert pitch(wave) == pytest.approx(440, abs=0.1)
    pretend(20, None)
    assert len(load_wave(m4a, RATE)) == 20 * RATE
    pretend(20, 30)
    refuse(
        m4a,
        "truncated",
        f"be a whole recording, got {str(m4a)!r} which gives 20.0 of 30.0 s. {COPY}",
    )
    rule = "be audio that can be decoded, got"
    pretend(30, 30, broken=10)
    refuse(
        m4a,
        "unsupported_or_corrupt",
        f"{rule} {str(m4a)!r} which ffmpeg cannot decode to its end. {PLAY}",
    )
    pretend(30, 30, broken=0)
    refuse(
        m4a,
        "unsupported_or_corrupt",
        f"{rule} {str(m4a)!r} which ffmpeg cannot decode to its end. {PLAY}",
    )
    (home / "decoders.py").write_text(
        "raise RuntimeError('Could not load libtorchcodec')"
    )
    refuse_without_ffmpeg(m4a)


@needs_ffmpeg
def test_sound_shorter_than_its_film_is_whole(tmp_path):
    film = tmp_path / "x.mp4"
    picture = ("-f", "lavfi", "-i", "color=s=32x32:d=4")
    convert(
        write(tmp_path / "x.wav", tone(2.0)),
        film,
        *picture,
        "-map",
        "0:a",
        "-map",
        "1:v",
    )
    assert len(load_wave(film, RATE)) / RATE == pytest.approx(2.0, abs=0.1)


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
def test_formats_of_ffmpeg(tmp_path, suffix, options):
    path = convert(
        write(tmp_path / "x.wav", tone(2.0)), tmp_path / f"-y\n:é.{suffix}", *options
    )
    wave = load_wave(path, RATE)
    assert len(wave) / RATE == pytest.approx(2.0, abs=0.1)
    assert pitch(wave) == pytest.approx(440, abs=1)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AudioError) as caught:
        load_wave(path, RATE)
    assert caught.value.reason == (
        "unsupported_or_corrupt" if suffix == "aac" else "truncated"
    )


@needs_ffmpeg
def test_faults_that_ffmpeg_finds(tmp_path):
    path = convert(write(tmp_path / "x.wav", tone(2.0)), tmp_path / "x.aac")
    path.write_bytes(path.read_bytes()[:5000])
    rule = "be audio that can be decoded, got"
    refuse(
        path,
        "unsupported_or_corrupt",
        f"{rule} {str(path)!r} which ffmpeg cannot decode to its end. {PLAY}",
    )
    path.write_bytes(struct.pack(">I", 24) + b"ftypM4A " + bytes(12))
    refuse(
        path,
        "unsupported_or_corrupt",
        f"{rule} {str(path)!r} which ffmpeg cannot open. {PLAY}",
    )


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
        (
            "-b:a",
            "160k",
            "-write_xing",
            "0",
            "-id3v2_version",
            "0",
            "-write_id3v1",
            "1",
            "x.mp3",
        ),
        ("-f", "wav", "pipe"),
        ("-f", "flac", "pipe"),
        ("-f", "mp3", "pipe"),
        ("-f", "ogg", "pipe"),
        ("-f", "aiff", "pipe"),
        ("-rf64", "always", "x.wav"),
    ],
)
def test_files_of_ffmpeg_are_whole(tmp_path, options):
    source = write(tmp_path / "source.wav", tone(1.3))
    path = tmp_path / options[-1]
    if path.name == "pipe":
        command = [FFMPEG, "-nostdin", "-v", "error", "-i", source, *options[:-1], "-"]
        path.write_bytes(
            subprocess.run(command, check=True, capture_output=True).stdout
        )
    else:
        convert(source, path, *options[:-1])
    wave = load_wave(path, RATE)
    assert len(wave) / RATE == pytest.approx(1.3, abs=0.15)
    assert pitch(wave) == pytest.approx(440, abs=1)


def test_counting_frame_is_a_frame():
    for mode in (0x00, 0xC0):
        for head in (0xFB, 0xFA, 0xF3, 0xE3):
            made = container._counting_frame(bytes((255, head, 0x90, mode)), 1234)
            assert len(made) == container.mp3_frame(made)[0]
            assert (1234).to_bytes(4, "big") in made
