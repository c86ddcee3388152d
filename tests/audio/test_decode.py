import io
import os
import pickle

import numpy as np
import pytest

from cqt2img.audio import ffmpeg
from cqt2img.audio.decode import AUDIO_SUFFIXES, load_wave, read_wave
from cqt2img.audio.levels import Meter
from cqt2img.audio.reasons import REASONS
from cqt2img.errors import AudioError, InputError
from tests.audio.files import (
    CHECKED_SUFFIXES,
    FILE_RATE,
    FORMATS,
    RATE,
    SUFFIXES,
    check_error,
    pitch,
    tone,
    write,
    write_as,
)
from tests.conftest import raises_with


def test_suffixes_are_lower_case():
    assert {".wav", ".mp3", ".flac", ".m4a", ".wma"} <= AUDIO_SUFFIXES
    assert all(s.startswith(".") and s == s.lower() for s in AUDIO_SUFFIXES)


@pytest.mark.parametrize(("suffix", "form", "subtype"), FORMATS)
def test_every_format_keeps_pitch_and_duration(tmp_path, suffix, form, subtype):
    cases = [(48000, 2, 1.0), (48000, 1, 0.37), (24000, 2, 2.013), (16000, 1, 3.3)]
    for rate, n_channels, seconds in cases:
        sound = tone(seconds, rate, n_channels)
        path = write(tmp_path / f"x.{suffix}", sound, rate, form, subtype)
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


def test_at_the_same_rate_the_wave_is_the_mean_of_the_channels(tmp_path):
    channels = [tone(n_channels=1, hz=hz)[:, 0] for hz in (440, 880)]
    sound = np.stack(channels, axis=1)
    path = write(tmp_path / "x.wav", sound, subtype="FLOAT")
    for name in (path, str(path)):
        wave = load_wave(name, FILE_RATE)
        np.testing.assert_allclose(wave, sound.mean(axis=1), atol=1e-7)


def test_a_click_keeps_its_time_across_blocks(tmp_path):
    sound = np.zeros((5 * FILE_RATE, 1), np.float32)
    sound[3 * FILE_RATE] = 0.9
    wave = load_wave(write(tmp_path / "x.wav", sound), RATE)
    assert np.argmax(np.abs(wave)) == 3 * RATE


def test_joined_blocks_are_the_wave_and_the_meter_measures_the_file(tmp_path):
    path = write(tmp_path / "x.wav", tone(4.0), subtype="FLOAT")
    meter = Meter()
    blocks = list(read_wave(path, RATE, meter=meter))
    assert len(blocks) > 2
    np.testing.assert_array_equal(np.concatenate(blocks), load_wave(path, RATE))
    assert meter.channel_peak == np.abs(tone(4.0)).max()


NAMES = ["a\nb.wav", "Brahms – Näck.wav", "-i.wav", os.fsdecode(b"\xff\xfe.wav")]


@pytest.mark.parametrize("name", NAMES)
def test_names_may_have_any_characters(tmp_path, name):
    try:
        os.rename(write(tmp_path / "x.wav"), tmp_path / name)
    except OSError:
        pytest.skip("this file system does not take the name")
    assert len(load_wave(tmp_path / name, RATE)) == RATE
    (tmp_path / name).write_bytes(b"")
    check_error(tmp_path / name, "empty_file", "0 bytes")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ((7, RATE), ("path", "7")),
        (("x", 3999), ("sample_rate", "3999")),
        (("x", 768001), ("sample_rate", "768001")),
        (("x", 4e3), ("sample_rate", "4000.0")),
        (("x", True), ("sample_rate", "True")),
        (("x", RATE, 0), ("max_seconds", "0")),
        (("x", RATE, float("nan")), ("max_seconds", "nan")),
    ],
)
def test_arguments_are_checked_before_the_file(arguments, parts):
    with raises_with(InputError, "load_wave: ", *parts):
        load_wave(*arguments)


def test_a_missing_file_has_vanished(tmp_path):
    file = write(tmp_path / "x.wav")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for path in (tmp_path / "no.wav", file / "y.wav", tmp_path / "link", "a\0b"):
        check_error(path, "vanished", "does not exist")


def test_folders_pipes_and_devices_are_not_files(tmp_path):
    os.mkfifo(tmp_path / "fifo.wav")
    check_error(tmp_path, "not_a_file", "a folder")
    check_error(tmp_path / "fifo.wav", "not_a_file", "a pipe")
    check_error("/dev/zero", "not_a_file", "a device")


def test_a_file_without_permission_is_not_readable(tmp_path, monkeypatch):
    def deny(*_):
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path / "x.wav")
    monkeypatch.setattr("cqt2img.audio.decode.io.FileIO", deny)  # chmod spares root
    check_error(path, "not_readable", "Permission denied")


class FailingDisk(io.FileIO):
    """File that can be read a limited number of times."""

    n_reads = 0
    limit = 10**9

    def read(self, size=-1):
        FailingDisk.n_reads += 1
        if FailingDisk.n_reads > FailingDisk.limit:
            raise OSError(5, "Input/output error")
        return super().read(size)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_a_disk_that_fails_while_reading_is_not_readable(
    tmp_path, monkeypatch, suffix, capfd
):
    path = write_as(tmp_path, suffix, 20.0)
    monkeypatch.setattr("cqt2img.audio.decode.io.FileIO", FailingDisk)
    monkeypatch.setattr(FailingDisk, "n_reads", 0)
    load_wave(path, RATE)
    n_reads = FailingDisk.n_reads
    for limit in (0, 3, n_reads // 2, n_reads - 2):
        FailingDisk.n_reads = 0
        monkeypatch.setattr(FailingDisk, "limit", limit)
        check_error(path, "not_readable", "Input/output error")
    assert "Traceback" not in capfd.readouterr().err  # of a callback


@pytest.mark.parametrize("rate", [3999, 768001])
def test_the_sample_rate_of_a_file_is_limited(tmp_path, rate):
    path = write(tmp_path / "x.wav", tone(1.0), rate)
    check_error(path, "bad_sample_rate", f"{rate} Hz")


def test_the_number_of_channels_is_limited(tmp_path):
    path = write(tmp_path / "x.wav", tone(0.2, n_channels=64))
    assert len(load_wave(path, RATE)) == RATE // 5
    write(path, tone(0.2, n_channels=65))
    check_error(path, "bad_channels", "65 channels")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_must_be_finite(tmp_path, value):
    sound = tone(0.5)
    sound[-1] = value, -value
    path = write(tmp_path / "x.wav", sound, subtype="FLOAT")
    check_error(path, "non_finite", "NaN or infinity", "0.5 s")


def test_a_recording_has_a_shortest_length(tmp_path):
    path = write(tmp_path / "x.wav", tone(0.1))
    assert len(load_wave(path, RATE)) == 2205
    write(path, tone(0.099))
    check_error(path, "too_short", "0.099 s")


def test_a_recording_has_a_longest_length(tmp_path):
    path = write(tmp_path / "x.wav", tone(2.0))
    assert len(load_wave(path, RATE, max_seconds=2)) == 2 * RATE
    check_error(path, "too_long", "2 s", "1.5 s", "max_seconds", max_seconds=1.5)


def test_a_recording_must_not_be_silent(tmp_path):
    path = tmp_path / "x.wav"
    for level in (0, 5e-5):
        write(path, level * tone(), subtype="FLOAT")
        check_error(path, "silent", "is silent")
    write(path, tone()[:, :1] * [1, -1], subtype="FLOAT")
    check_error(path, "silent", "channels that cancel out")


def test_an_error_has_a_pickle(tmp_path):
    with pytest.raises(AudioError) as caught:
        load_wave(tmp_path, RATE)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.reason, str(copy)) == (caught.value.reason, str(caught.value))


def test_random_damage_raises_audio_errors_only(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "x"
    reasons = set()
    for suffix in SUFFIXES:
        good = write_as(tmp_path, suffix, 0.3).read_bytes()
        for _ in range(12):
            data = bytearray(good)
            for offset in rng.integers(0, min(300, len(data)), 6):
                data[offset] = rng.integers(256)
            path.write_bytes(data)
            try:
                assert np.isfinite(load_wave(path, RATE)).all()
            except AudioError as err:
                reasons.add(err.reason)
    assert reasons
    assert reasons <= set(REASONS)


def test_formats_of_libsndfile_do_not_need_ffmpeg(tmp_path, monkeypatch):
    def fail(_):
        pytest.fail("looked for ffmpeg")

    monkeypatch.setattr(ffmpeg.shutil, "which", fail)
    for suffix in CHECKED_SUFFIXES:
        load_wave(write_as(tmp_path, suffix, 0.3), RATE)
