import numpy as np
import pytest

from cqt2img.audio.levels import Meter

RATE = 8000


def measure(sound, block_length=1000):
    """Measure a sound in blocks, and check the mono mix."""
    meter = Meter()
    sound = np.asarray(sound, np.float32)
    sound = sound.reshape(len(sound), -1)
    starts = range(0, len(sound), block_length)
    mono = [meter.add(sound[start : start + block_length], RATE) for start in starts]
    assert np.allclose(np.concatenate(mono), sound.mean(axis=1), atol=1e-6)
    return meter.report()


def sine(seconds=2.0, peak=0.5):
    time = np.arange(int(seconds * RATE)) / RATE
    return peak * np.sin(2 * np.pi * 440 * time)


def test_a_sine_has_its_level():
    assert measure(sine()) == {
        "peak_dbfs": pytest.approx(-6.0, abs=0.1),
        "clipped": 0.0,
        "silence": 0.0,
        "dc": 0.0,
        "mono_loss_db": 0.0,
        "loudness_dbfs": pytest.approx(-9.0, abs=0.1),
    }


@pytest.mark.parametrize("block_length", [1, 799, 800, 801, 16000])
def test_the_report_does_not_depend_on_the_blocks(block_length):
    sound = np.stack([sine(), 0.3 * sine() ** 2], axis=1)
    sound[4000:9000] = 0
    if block_length == 1:
        sound = sound[:1000]
    assert measure(sound, block_length) == measure(sound, len(sound))


def test_silence_is_counted_and_does_not_lower_the_loudness():
    report = measure(np.concatenate([sine(), np.zeros(3 * 2 * RATE)]))
    assert report["silence"] == 0.75
    assert report["loudness_dbfs"] == pytest.approx(-9.0, abs=0.1)


def test_a_much_softer_part_does_not_lower_the_loudness():
    report = measure(np.concatenate([sine(), sine(peak=0.01)]))
    assert report["loudness_dbfs"] == pytest.approx(-9.0, abs=0.1)


def test_clipping_is_counted_in_all_channels():
    # a sine of twice full scale is beyond it for two thirds of the time
    clipped = np.clip(sine(peak=2.0), -1, 1)
    assert measure(clipped)["clipped"] == pytest.approx(2 / 3, abs=0.01)
    one_channel = np.stack([sine(), clipped], axis=1)
    assert measure(one_channel)["clipped"] == pytest.approx(1 / 3, abs=0.01)


def test_dc_is_the_mean():
    assert measure(sine() + 0.1)["dc"] == pytest.approx(0.1, abs=1e-4)


def test_mixing_to_mono_loses_what_the_channels_do_not_share():
    left, right = np.random.default_rng(0).normal(size=(2, 4 * RATE)) * 0.1

    def loss_db(*channels):
        return measure(np.stack(channels, axis=1))["mono_loss_db"]

    assert loss_db(left, left) == 0.0
    assert loss_db(left, right) == pytest.approx(3.0, abs=0.2)
    assert loss_db(left, -0.9 * left) > 20


def test_a_nan_stays_in_the_peak():
    meter = Meter()
    for value in (0.5, np.nan, 0.2):
        meter.add(np.full((10, 2), value, np.float32), RATE)
    assert np.isnan(meter.peak)


def test_silence_has_no_loudness():
    report = measure(np.zeros((RATE, 1)))
    assert report["loudness_dbfs"] is None
    assert report["silence"] == 1.0


def test_a_recording_shorter_than_a_window_has_no_silence():
    report = measure(np.zeros((RATE // 100, 1)))
    assert report["loudness_dbfs"] is None
    assert report["silence"] == 0.0
