"""Effects on signals whose result is known."""

import io

import numpy as np
import pytest
import soundfile

from cqt2img.audio import effects

RATE = 22050


def tone(hz: float = 440.0, seconds: float = 4.0) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    return (0.5 * np.sin(2 * np.pi * hz * time)).astype(np.float32)


def click(second: float) -> np.ndarray:
    wave = np.zeros(2 * RATE, np.float32)
    wave[round(second * RATE)] = 1
    return wave


def pitch(wave: np.ndarray) -> float:
    """Return the strongest frequency in Hz."""
    n_fft = 1 << 19
    spectrum = np.fft.rfft(wave * np.hanning(len(wave)), n_fft)
    return float(np.argmax(np.abs(spectrum)) * RATE / n_fft)


def cents(hz: float) -> float:
    """Return the distance from 440 Hz."""
    return 1200 * np.log2(hz / 440)


def power_db(signal: np.ndarray) -> float:
    return 10 * np.log10(np.mean(np.square(signal, dtype=np.float64)))


def make_rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_gain_is_in_decibels():
    wave = tone()
    np.testing.assert_allclose(effects.change_gain(wave, 20), 10 * wave, rtol=1e-6)
    assert effects.change_gain(wave, -6).dtype == np.float32


def test_trimming_cuts_both_ends():
    wave = np.arange(10 * RATE, dtype=np.float32)
    trimmed = effects.trim(wave, RATE, 2, 1)
    assert trimmed[0] == 2 * RATE
    assert trimmed[-1] == 9 * RATE - 1
    assert len(effects.trim(wave, RATE, 0, 0)) == len(wave)


@pytest.mark.parametrize("shift", [-50, 20])
def test_transposing_changes_the_pitch_and_keeps_the_length(shift):
    transposed = effects.transpose(tone(), RATE, shift)
    assert len(transposed) == 4 * RATE
    assert cents(pitch(transposed)) == pytest.approx(shift, abs=2)


def test_tempo_changes_the_length_and_keeps_the_pitch():
    faster = effects.change_tempo(tone(), 1.03)
    assert len(faster) == pytest.approx(4 * RATE / 1.03, abs=2)
    assert cents(pitch(faster)) == pytest.approx(0, abs=2)


@pytest.mark.parametrize("factor", [0.97, 1.03])
def test_speed_changes_pitch_and_length(factor):
    resampled = effects.change_speed(tone(), factor)
    assert len(resampled) == pytest.approx(4 * RATE / factor, abs=2)
    assert pitch(resampled) == pytest.approx(440 * factor, rel=1e-4)


def test_noise_has_the_wanted_ratio_to_the_signal():
    wave = tone()
    noise = effects.add_noise(wave, make_rng(), snr_db=20) - wave
    assert power_db(wave) - power_db(noise) == pytest.approx(20, abs=0.1)


def test_the_equaliser_keeps_within_its_depth_and_does_not_delay():
    filtered = effects.equalise(click(1.0), RATE, make_rng(), depth_db=6)
    assert np.argmax(np.abs(filtered)) == RATE
    gain_db = 20 * np.log10(np.abs(np.fft.rfft(filtered)))
    gain_db = gain_db[2 * 30 : 2 * 10_000]  # from 30 Hz to 10 kHz in steps of 0.5 Hz
    assert np.abs(gain_db).max() == pytest.approx(6, abs=1.5)
    assert np.abs(gain_db).max() < 6.1
    assert np.ptp(gain_db) > 4


def test_reverberation_decays_by_60_db_and_has_the_wanted_energy():
    wave = effects.add_room(click(0.0), RATE, make_rng(), rt60_seconds=1.0, wet=0.4)
    reflections = wave[1:]
    assert np.sum(reflections**2) == pytest.approx(0.4, rel=0.01)
    n = RATE // 10
    decay_db = power_db(reflections[:n]) - power_db(reflections[5 * n : 6 * n])
    assert decay_db == pytest.approx(30, abs=1)  # half of 60 dB in half a second
    assert np.abs(reflections[RATE + 10 :]).max() < 1e-6


@pytest.mark.parametrize("kbps", [64, 128])
def test_an_mp3_has_the_wanted_bitrate(kbps):
    wave = effects.add_noise(tone(seconds=10), make_rng(), 10)
    file = effects.encode_mp3(wave, RATE, kbps)
    with soundfile.SoundFile(io.BytesIO(file)) as sound:
        assert (sound.format, sound.samplerate, sound.channels) == ("MP3", 44_100, 1)
    assert 8 * len(file) / 10 / 1000 == pytest.approx(kbps, rel=0.02)


def test_an_mp3_keeps_the_time_of_a_tone():
    wave = tone()
    decoded = effects.reencode(wave, RATE)
    assert abs(len(decoded) - len(wave)) <= 1
    middle = slice(RATE, min(len(decoded), len(wave)) - RATE)
    assert np.corrcoef(decoded[middle], wave[middle])[0, 1] > 0.99


@pytest.mark.parametrize("name", effects.EFFECTS)
def test_named_effects_change_a_copy_and_repeat_with_their_seed(name):
    wave = effects.add_noise(tone(seconds=2), make_rng(), 15)
    original = wave.copy()
    apply_effect = effects.EFFECTS[name]
    first = apply_effect(wave, RATE, make_rng())
    second = apply_effect(wave, RATE, make_rng())
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(wave, original)
    assert first.dtype == np.float32
    assert first.ndim == 1
    assert np.isfinite(first).all()
    n = min(len(first), len(wave))
    assert not np.allclose(first[:n], wave[:n], atol=1e-4)
