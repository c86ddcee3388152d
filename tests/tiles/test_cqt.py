import librosa
import numpy as np
import pytest

from cqt2img.errors import AudioError, InputError
from cqt2img.tiles.cqt import compute_cqt, estimate_tuning, measure_spectrum, to_db
from cqt2img.tiles.spec import PRESETS, TileSpec
from tests.conftest import raises_with

RATE = 22050
SPEC = TileSpec()
PIANO_KEYS = range(21, 109)
CHORD = (48, 55, 60, 64, 67, 72)


def tone(midi, seconds=1.0):
    """Return a tone that fades in and out, so that it has no click."""
    t = np.arange(round(seconds * RATE)) / RATE
    fade = np.clip(np.minimum(t, t[::-1]) / 0.05, 0, 1)
    phase = 2 * np.pi * librosa.midi_to_hz(midi) * t
    return (0.3 * fade * np.sin(phase)).astype(np.float32)


def arpeggio(cents=0.0):
    """Return the notes of CHORD, half a second each."""
    return np.concatenate([tone(midi + cents / 100, 0.5) for midi in CHORD])


def with_noise(wave, level, seed=0):
    noise = np.random.default_rng(seed).normal(size=len(wave))
    return wave + np.float32(level) * noise.astype(np.float32)


def loudest_row(cqt, spec, seconds):
    return spec.height - 1 - int(cqt[:, round(seconds / spec.frame_seconds)].argmax())


def loudest_rows(cqt):
    """Return the loudest row in the middle of each note of `arpeggio`."""
    return [loudest_row(cqt, SPEC, 0.25 + n / 2) for n in range(len(CHORD))]


@pytest.mark.parametrize("cents", [-40, -20, 0, 20, 40])
def test_estimated_tuning_is_the_deviation_of_the_notes(cents):
    assert estimate_tuning(arpeggio(cents), SPEC) == pytest.approx(cents, abs=0.5)


@pytest.mark.parametrize("cents", [-30, 10])
def test_estimated_tuning_agrees_with_librosa(cents):
    wave = with_noise(arpeggio(cents), 0.001)
    expected = librosa.estimate_tuning(y=wave, sr=RATE, n_fft=4096, fmin=150)
    assert estimate_tuning(wave, SPEC) == pytest.approx(100 * expected, abs=3)


def test_estimated_tuning_without_pitch_is_in_range():
    assert estimate_tuning(np.zeros(RATE, np.float32), SPEC) == 0
    assert -50 <= estimate_tuning(tone(60, 0.02), SPEC) <= 50


@pytest.mark.parametrize("cutoff", [2000, 5000])
def test_bandwidth_is_the_cutoff_of_filtered_noise(cutoff):
    spectrum = np.fft.rfft(np.random.default_rng(0).normal(size=4 * RATE))
    spectrum[np.fft.rfftfreq(4 * RATE, 1 / RATE) > cutoff] = 0
    wave = np.fft.irfft(spectrum).astype(np.float32)
    _, bandwidth = measure_spectrum(wave, SPEC)
    assert bandwidth == pytest.approx(cutoff, abs=100)  # side lobes of the window
    assert measure_spectrum(np.zeros(RATE, np.float32), SPEC) == (0, 0)


@pytest.mark.parametrize("name", PRESETS)
def test_every_piano_key_is_loudest_in_its_row(name):
    spec = TileSpec.preset(name)
    cqt = compute_cqt(np.concatenate([tone(midi) for midi in PIANO_KEYS]), spec)
    assert cqt.dtype == np.float32
    n_samples = len(PIANO_KEYS) * RATE
    assert cqt.shape == (spec.n_bins, 1 + n_samples // spec.hop_length)
    assert cqt.min() >= spec.min_db
    assert cqt.max() <= spec.max_db
    rows = [loudest_row(cqt, spec, n + 0.5) for n in range(len(PIANO_KEYS))]
    assert rows == [spec.row_of_note(midi) for midi in PIANO_KEYS]


def test_delay_of_one_hop_shifts_the_cqt_by_one_column():
    noise = 0.1 * np.random.default_rng(0).normal(size=RATE)
    wave = np.pad(noise, RATE // 2).astype(np.float32)
    early = compute_cqt(np.pad(wave, (0, 512)), SPEC, 0.0)
    late = compute_cqt(np.pad(wave, (512, 0)), SPEC, 0.0)
    loud = early[:, :-1] > -40
    assert loud.mean() > 0.3
    assert np.abs(late[:, 1:] - early[:, :-1])[loud].max() < 0.1
    assert np.abs(late - early)[:, :-1][loud].max() > 3


def test_cqt_does_not_depend_on_the_level_of_the_recording():
    wave = with_noise(arpeggio(), 0.001)
    loud, soft = compute_cqt(wave, SPEC), compute_cqt(np.float32(0.1) * wave, SPEC)
    assert np.abs(loud - soft).max() < 0.01
    reference = np.percentile(loud, SPEC.reference_percentile)
    assert reference == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("cents", [-30, 30])
def test_tuning_is_removed_or_kept(cents):
    wave = arpeggio(cents)
    rows = [SPEC.row_of_note(midi) for midi in CHORD]
    assert loudest_rows(compute_cqt(wave, SPEC)) == rows
    assert loudest_rows(compute_cqt(wave, SPEC, cents)) == rows
    kept = compute_cqt(wave, TileSpec(tuning="keep"))
    assert loudest_rows(kept) == [row - np.sign(cents) for row in rows]
    assert np.array_equal(kept, compute_cqt(wave, SPEC, 0.0))


@pytest.mark.parametrize("name", PRESETS)
def test_cqt_is_that_of_librosa_relative_to_its_percentile(name):
    spec = TileSpec.preset(name)
    wave = with_noise(arpeggio(), 0.01)
    transform = librosa.vqt(
        wave.astype(np.float64),
        sr=RATE,
        hop_length=spec.hop_length,
        fmin=spec.f_min,
        n_bins=spec.n_bins,
        bins_per_octave=spec.bins_per_octave,
        gamma=spec.gamma,
        tuning=0.0,
        sparsity=0,
        dtype=np.complex128,
    )
    expected = 20 * np.log10(np.abs(transform) + 1e-20)
    expected -= np.percentile(expected, spec.reference_percentile)
    in_range = (expected > -60) & (expected < spec.max_db)
    assert in_range.mean() > 0.5
    error = np.abs(compute_cqt(wave, spec, 0.0) - expected)
    assert error[in_range].max() < 0.1


def test_wave_shorter_than_its_windows_is_padded():
    assert compute_cqt(tone(69, 0.1), SPEC).shape == (192, 5)


def test_compute_cqt_leaves_the_wave_unchanged():
    wave = tone(69, 0.2)
    before = wave.copy()
    compute_cqt(wave, SPEC)
    assert np.array_equal(wave, before)


def test_wave_of_two_channels_is_an_error():
    with raises_with(InputError, "compute_cqt", "wave", (2, 100)):
        compute_cqt(np.ones((2, 100), np.float32), SPEC)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_wave_that_is_not_finite_is_an_error(value):
    wave = tone(69)
    wave[7] = value
    with pytest.raises(AudioError, match="compute_cqt: wave") as caught:
        compute_cqt(wave, SPEC)
    assert caught.value.reason == "non_finite"


@pytest.mark.parametrize("n_samples", [0, RATE])
def test_silent_wave_is_an_error(n_samples):
    with pytest.raises(AudioError, match="compute_cqt: wave") as caught:
        compute_cqt(np.zeros(n_samples), SPEC)
    assert caught.value.reason == "silent"


def test_to_db_accepts_magnitudes_complex_values_and_decibels():
    rng = np.random.default_rng(0)
    magnitude = 10 ** rng.uniform(-2, 0, (192, 50))
    db = 20 * np.log10(magnitude)
    expected = db - np.percentile(db, 99.9)
    complex_cqt = magnitude * np.exp(2j * np.pi * rng.random((192, 50)))
    forms = [
        magnitude,
        7 * magnitude,
        complex_cqt,
        complex_cqt.astype(np.complex64),
        db,
        db - 100,
        db.astype(np.float32),
    ]
    for cqt in forms:
        before = cqt.copy()
        levels = to_db(cqt, SPEC)
        assert levels.dtype == np.float32
        np.testing.assert_allclose(levels, expected, atol=1e-3)
        assert np.array_equal(cqt, before)
    half = to_db(magnitude.astype(np.float16), SPEC)
    np.testing.assert_allclose(half, expected, atol=0.1)
    integer = to_db((1000 * magnitude).astype(int), SPEC)
    np.testing.assert_allclose(integer, expected, atol=1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, int])
def test_to_db_of_digital_silence_is_the_lowest_level(dtype):
    cqt = np.zeros((192, 20), dtype)
    cqt[100, 5:] = 1
    assert np.array_equal(to_db(cqt, SPEC), np.where(cqt, 0, -60))


def test_to_db_of_one_note_in_a_long_silence_is_relative_to_the_note():
    # Less than a thousandth of the values sounds, so that the percentile is silence.
    cqt = np.zeros((192, 1000))
    cqt[100, 5:8] = 1
    assert np.array_equal(to_db(cqt, SPEC), np.where(cqt, 0, -60))


def test_to_db_of_levels_with_the_same_reference_changes_nothing():
    once = compute_cqt(arpeggio(), SPEC)
    assert np.array_equal(to_db(once, SPEC), once)


@pytest.mark.parametrize(
    ("cqt", "found"),
    [([[1.0]], "list"), (np.array([["a"]]), "dtype <U1"), (None, "NoneType")],
)
def test_cqt_that_is_not_numeric_is_an_error(cqt, found):
    with raises_with(InputError, "cqt must", found):
        to_db(cqt, SPEC)


@pytest.mark.parametrize("shape", [(60, 431), (192,), (1, 192, 5)])
def test_cqt_of_another_shape_is_an_error(shape):
    with raises_with(InputError, "cqt must", "192 rows", shape):
        to_db(np.ones(shape), SPEC)


NAN = np.full((192, 3), np.nan)
INFINITE = np.full((192, 3), 1j * np.inf)


@pytest.mark.parametrize(
    ("cqt", "reason"),
    [
        (np.ones((192, 0)), "too_short"),
        (NAN, "non_finite"),
        (-np.abs(INFINITE), "non_finite"),
        (INFINITE, "non_finite"),
        (np.zeros((192, 3)), "silent"),
        (np.full((192, 3), 1e-12), "silent"),
        (np.zeros((192, 3), complex), "silent"),
        (np.full((192, 3), -80.0), "silent"),
    ],
)
def test_cqt_without_usable_sound_is_an_error_with_its_reason(cqt, reason):
    with pytest.raises(AudioError, match="cqt must") as caught:
        to_db(cqt, SPEC)
    assert caught.value.reason == reason
