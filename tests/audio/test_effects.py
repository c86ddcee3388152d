"""What happens to a recording that is not the player, checked on sounds whose answer is known."""

import io

import numpy as np
import pytest
import soundfile

from cqt2img.audio import effects as disturb

RATE = 22050


def tone(hz: float = 440.0, seconds: float = 4.0) -> np.ndarray:
    """Give a sine."""
    return (
        0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)
    ).astype(np.float32)


def pitch(wave: np.ndarray) -> float:
    """Give the loudest frequency of a wave in Hz."""
    n = 1 << 19
    return float(
        np.argmax(np.abs(np.fft.rfft(wave * np.hanning(len(wave)), n))) * RATE / n
    )


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_gain_is_decibels():
    wave = tone()
    np.testing.assert_allclose(disturb.change_gain(wave, 20), 10 * wave, rtol=1e-6)
    assert disturb.change_gain(wave, -6).dtype == np.float32


def test_trim_cuts_both_ends():
    wave = np.arange(10 * RATE, dtype=np.float32)
    cut = disturb.trim(wave, RATE, 2, 1)
    assert cut[0] == 2 * RATE
    assert cut[-1] == 9 * RATE - 1
    assert len(disturb.trim(wave, RATE, 0, 0)) == len(wave)


@pytest.mark.parametrize("cents", [-50, 20])
def test_transposing_moves_pitch_and_keeps_time(cents):
    moved = disturb.transpose(tone(), RATE, cents)
    assert len(moved) == 4 * RATE
    assert 1200 * np.log2(pitch(moved) / 440) == pytest.approx(cents, abs=2)


def test_tempo_keeps_pitch():
    faster = disturb.change_tempo(tone(), 1.03)
    assert len(faster) == pytest.approx(4 * RATE / 1.03, abs=2)
    assert 1200 * np.log2(pitch(faster) / 440) == pytest.approx(0, abs=2)


@pytest.mark.parametrize("factor", [0.97, 1.03])
def test_speed_moves_both(factor):
    spun = disturb.change_speed(tone(), factor)
    assert len(spun) == pytest.approx(4 * RATE / factor, abs=2)
    assert pitch(spun) == pytest.approx(440 * factor, rel=1e-4)


def test_noise_has_its_level():
    wave = tone()
    noise = disturb.add_noise(wave, rng(), snr_db=20) - wave
    assert 10 * np.log10(np.mean(wave**2) / np.mean(noise**2)) == pytest.approx(
        20, abs=0.1
    )


def test_equaliser_stays_within_its_depth_and_does_not_delay():
    click = np.zeros(2 * RATE, np.float32)
    click[RATE] = 1
    heard = disturb.equalise(click, RATE, rng(), depth_db=6)
    assert np.argmax(np.abs(heard)) == RATE
    gain_db = 20 * np.log10(np.abs(np.fft.rfft(heard)))
    inner = gain_db[2 * 30 : 2 * 10_000]  # two lines to the Hz
    assert np.abs(inner).max() == pytest.approx(6, abs=1.5)
    assert np.abs(inner).max() < 6.1
    assert np.ptp(inner) > 4


def test_room_decays_by_60_db_and_has_its_energy():
    click = np.zeros(2 * RATE, np.float32)
    click[0] = 1
    tail = disturb.add_room(click, RATE, rng(), rt60_seconds=1.0, wet=0.4)[1:]
    assert np.sum(tail**2) == pytest.approx(0.4, rel=0.01)
    part = RATE // 10
    fall = 10 * np.log10(
        np.sum(tail[:part] ** 2) / np.sum(tail[5 * part : 6 * part] ** 2)
    )
    assert fall == pytest.approx(30, abs=1)  # half a second is half of 60 dB
    assert np.abs(tail[RATE + 10 :]).max() < 1e-6


@pytest.mark.parametrize("kbps", [64, 128])
def test_mp3_has_its_bitrate(kbps):
    wave = disturb.add_noise(tone(seconds=10), rng(), 10)
    file = disturb.encode_mp3(wave, RATE, kbps)
    with soundfile.SoundFile(io.BytesIO(file)) as sound:
        assert (sound.format, sound.samplerate, sound.channels) == ("MP3", 44_100, 1)
    assert 8 * len(file) / 10 / 1000 == pytest.approx(kbps, rel=0.02)


def test_mp3_keeps_a_tone_in_its_place():
    wave = tone()
    heard = disturb.reencode(wave, RATE)
    assert abs(len(heard) - len(wave)) <= 1
    n = min(len(heard), len(wave))
    middle = slice(RATE, n - RATE)
    assert np.corrcoef(heard[:n][middle], wave[:n][middle])[0, 1] > 0.99


@pytest.mark.parametrize("name", disturb.EFFECTS)
def test_named_disturbances_repeat_with_their_seed(name):
    wave = disturb.add_noise(tone(seconds=2), rng(), 15)
    kept = wave.copy()
    change = disturb.EFFECTS[name]
    once, again = (change(wave, RATE, rng()) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    np.testing.assert_array_equal(wave, kept)
    assert once.dtype == np.float32
    assert once.ndim == 1
    assert np.isfinite(once).all()
    n = min(len(once), len(wave))
    assert not np.allclose(once[:n], wave[:n], atol=1e-4)
