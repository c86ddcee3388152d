import numpy as np
import pytest

from cqt2img.audio.levels import Meter

RATE = 8000


def measured(sound, size=1000, rate=RATE):
    meter = Meter()
    sound = np.asarray(sound, np.float32)
    sound = sound.reshape(len(sound), -1)
    mono = np.concatenate(
        [meter.add(sound[i : i + size], rate) for i in range(0, len(sound), size)]
    )
    assert np.allclose(mono, sound.mean(axis=1), atol=1e-6)
    return meter


def sine(seconds=2.0, size=0.5):
    return size * np.sin(2 * np.pi * 440 * np.arange(int(seconds * RATE)) / RATE)


def test_a_sine_has_its_level():
    facts = measured(sine()).report()
    assert facts == {
        "peak_dbfs": pytest.approx(-6.0, abs=0.1),
        "clipped": 0.0,
        "silence": 0.0,
        "dc": 0.0,
        "mono_loss_db": 0.0,
        "loudness_dbfs": pytest.approx(-9.0, abs=0.1),
    }


@pytest.mark.parametrize("size", [1, 799, 800, 801, 16000])
def test_blocks_do_not_matter(size):
    sound = np.stack([sine(), 0.3 * sine() ** 2], axis=1)
    sound[4000:9000] = 0
    if size == 1:
        sound = sound[:1000]
    assert measured(sound, size).report() == measured(sound, len(sound)).report()


def test_silence_is_counted_and_does_not_lower_the_loudness():
    facts = measured(np.concatenate([sine(), np.zeros(3 * 2 * RATE)])).report()
    assert facts["silence"] == 0.75
    assert facts["loudness_dbfs"] == pytest.approx(-9.0, abs=0.1)
    quiet = measured(np.concatenate([sine(), sine(size=0.01)])).report()
    assert quiet["loudness_dbfs"] == pytest.approx(-9.0, abs=0.1), (
        "a tail far below the rest is left out"
    )


def test_clipping_and_dc():
    assert measured(np.clip(sine(size=2.0), -1, 1)).report()[
        "clipped"
    ] == pytest.approx(2 / 3, abs=0.01)
    assert measured(
        np.stack([sine(), np.clip(sine(size=2.0), -1, 1)], axis=1)
    ).report()["clipped"] == pytest.approx(1 / 3, abs=0.01)
    assert measured(sine() + 0.1).report()["dc"] == pytest.approx(0.1, abs=1e-4)


def test_what_mono_loses():
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(2, 4 * RATE)) * 0.1
    assert measured(np.stack([left, left], axis=1)).report()["mono_loss_db"] == 0.0
    assert measured(np.stack([left, right], axis=1)).report()[
        "mono_loss_db"
    ] == pytest.approx(3.0, abs=0.2)
    assert measured(np.stack([left, -0.9 * left], axis=1)).report()["mono_loss_db"] > 20


def test_a_nan_stays_in_the_peak():
    meter = Meter()
    for value in (0.5, np.nan, 0.2):
        meter.add(np.full((10, 2), value, np.float32), RATE)
    assert np.isnan(meter.peak)


def test_nothing_at_all():
    facts = measured(np.zeros((RATE, 1))).report()
    assert facts["loudness_dbfs"] is None
    assert facts["silence"] == 1.0
