import librosa
import numpy as np
import pytest

from cqt2img.errors import AudioError, InputError
from cqt2img.tiles.cqt import compute_cqt, estimate_tuning, to_db
from cqt2img.tiles.spec import PRESETS, TileSpec

RATE = 22050
SPEC = TileSpec()
NOTES = range(21, 109)  # the 88 keys of a piano


def hertz(midi):
    return 440 * 2 ** ((midi - 69) / 12)


def tone(midi, seconds=1.0):
    """Return a tone that fades in and out, so that it ends without a click."""
    t = np.arange(round(seconds * RATE)) / RATE
    fade = np.clip(np.minimum(t, t[::-1]) / 0.05, 0, 1)
    return (0.3 * fade * np.sin(2 * np.pi * hertz(midi) * t)).astype(np.float32)


def music(cents=0.0):
    return np.concatenate(
        [tone(midi + cents / 100, 0.5) for midi in (48, 55, 60, 64, 67, 72)]
    )


def refuse(kind, message, call, *args):
    with pytest.raises(kind) as caught:
        call(*args)
    assert str(caught.value) == message
    return caught.value


def loudest_row(cqt, spec, seconds):
    return spec.height - 1 - int(cqt[:, round(seconds / spec.frame_seconds)].argmax())


@pytest.mark.parametrize("cents", [-40, -20, 0, 20, 40])
def test_estimate_tuning(cents):
    assert estimate_tuning(music(cents), SPEC) == pytest.approx(cents, abs=0.5)


def test_estimate_tuning_of_what_has_no_pitch():
    assert estimate_tuning(np.zeros(RATE, np.float32), SPEC) == 0
    assert -50 <= estimate_tuning(tone(60, 0.02), SPEC) <= 50


@pytest.mark.parametrize("name", PRESETS)
def test_a_tone_lights_its_row(name):
    spec = TileSpec.preset(name)
    cqt = compute_cqt(np.concatenate([tone(midi) for midi in NOTES]), spec)
    assert cqt.dtype == np.float32
    assert cqt.shape == (spec.n_bins, 1 + len(NOTES) * RATE // spec.hop_length)
    assert cqt.min() >= spec.min_db
    assert cqt.max() <= spec.max_db
    rows = [loudest_row(cqt, spec, n + 0.5) for n in range(len(NOTES))]
    assert rows == [spec.row_of_note(midi) for midi in NOTES]


def test_a_hop_of_delay_shifts_one_column():
    rng = np.random.default_rng(0)
    wave = np.concatenate(
        [np.zeros(RATE // 2), 0.1 * rng.normal(size=RATE), np.zeros(RATE // 2)]
    ).astype(np.float32)
    early, late = (compute_cqt(np.pad(wave, (n, 512 - n)), SPEC, 0.0) for n in (0, 512))
    loud = early[:, :-1] > -40
    assert loud.mean() > 0.3
    assert np.abs(late[:, 1:] - early[:, :-1])[loud].max() < 0.1
    assert np.abs(late - early)[:, :-1][loud].max() > 3


def test_the_level_of_a_recording_does_not_show():
    wave = music() + 0.001 * np.random.default_rng(0).normal(size=3 * RATE).astype(
        np.float32
    )
    loud, soft = compute_cqt(wave, SPEC), compute_cqt(np.float32(0.1) * wave, SPEC)
    assert np.abs(loud - soft).max() < 0.01
    assert np.percentile(loud, SPEC.reference_percentile) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("cents", [-30, 30])
def test_tuning_is_removed_or_kept(cents):
    wave = music(cents)
    rows = [SPEC.row_of_note(midi) for midi in (48, 55, 60, 64, 67, 72)]
    at = [0.25 + n / 2 for n in range(6)]
    assert [loudest_row(compute_cqt(wave, SPEC), SPEC, s) for s in at] == rows
    kept = compute_cqt(wave, TileSpec(tuning="keep"))
    assert [loudest_row(kept, SPEC, s) for s in at] == [
        row - np.sign(cents) for row in rows
    ]
    assert np.array_equal(kept, compute_cqt(wave, SPEC, 0.0))
    assert [loudest_row(compute_cqt(wave, SPEC, cents), SPEC, s) for s in at] == rows


@pytest.mark.parametrize("name", PRESETS)
def test_it_is_the_transform_of_librosa(name):
    spec = TileSpec.preset(name)
    wave = music() + 0.01 * np.random.default_rng(1).normal(size=3 * RATE).astype(
        np.float32
    )
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
    db = 20 * np.log10(np.abs(transform) + 1e-20)
    db -= np.percentile(db, spec.reference_percentile)
    heard = (db > -60) & (db < spec.max_db)
    assert heard.mean() > 0.5
    assert np.abs(compute_cqt(wave, spec, 0.0) - db)[heard].max() < 0.1


def test_a_wave_shorter_than_its_windows_is_padded():
    assert compute_cqt(tone(69, 0.1), SPEC).shape == (192, 5)


def test_the_wave_stays_as_it_is():
    wave = tone(69, 0.2)
    before = wave.copy()
    compute_cqt(wave, SPEC)
    assert np.array_equal(wave, before)


def test_compute_cqt_of_two_channels():
    message = "compute_cqt: wave must be mono, got shape (2, 100). Average its channels first."
    refuse(InputError, message, compute_cqt, np.ones((2, 100), np.float32), SPEC)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_compute_cqt_of_what_is_not_finite(value):
    message = (
        "compute_cqt: wave must be finite, got NaN or infinity. Repair the recording."
    )
    wave = tone(69)
    wave[7] = value
    assert refuse(AudioError, message, compute_cqt, wave, SPEC).reason == "non_finite"


@pytest.mark.parametrize("n_samples", [0, RATE])
def test_compute_cqt_of_silence(n_samples):
    message = "compute_cqt: wave must hold sound, got silence. Leave the recording out."
    assert (
        refuse(AudioError, message, compute_cqt, np.zeros(n_samples), SPEC).reason
        == "silent"
    )


def test_to_db_takes_every_usual_form():
    rng = np.random.default_rng(0)
    magnitude = 10 ** rng.uniform(-2, 0, (192, 50))
    db = 20 * np.log10(magnitude)
    expected = db - np.percentile(db, 99.9)
    complex_ = magnitude * np.exp(2j * np.pi * rng.random((192, 50)))
    given = [
        magnitude,
        7 * magnitude,
        complex_,
        complex_.astype(np.complex64),
        db,
        db - 100,
        db.astype(np.float32),
    ]
    for cqt in given:
        before = cqt.copy()
        out = to_db(cqt, SPEC)
        assert out.dtype == np.float32
        np.testing.assert_allclose(out, expected, atol=1e-3)
        assert np.array_equal(cqt, before)
    np.testing.assert_allclose(
        to_db(magnitude.astype(np.float16), SPEC), expected, atol=0.1
    )
    np.testing.assert_allclose(
        to_db((1000 * magnitude).astype(int), SPEC), expected, atol=1
    )


def test_to_db_of_digital_silence_between_sounds():
    for dtype in (np.float16, np.float32, int):
        cqt = np.zeros((192, 20), dtype)
        cqt[100, 5:] = 1
        assert np.array_equal(to_db(cqt, SPEC), np.where(cqt, 0, -60))


def test_to_db_of_one_note_in_a_long_silence():
    # less than a thousandth of the picture sounds, so that the percentile lies in the silence
    cqt = np.zeros((192, 1000))
    cqt[100, 5:8] = 1
    assert np.array_equal(to_db(cqt, SPEC), np.where(cqt, 0, -60))


def test_to_db_twice_is_to_db_once():
    once = compute_cqt(music(), SPEC)
    assert np.array_equal(to_db(once, SPEC), once)


@pytest.mark.parametrize(
    ("cqt", "kind"),
    [([[1.0]], "list"), (np.array([["a"]]), "ndarray"), (None, "NoneType")],
)
def test_to_db_of_no_numbers(cqt, kind):
    message = f"to_db: cqt must be an array of numbers, got {kind}. Use numpy.asarray."
    refuse(InputError, message, to_db, cqt, SPEC)


@pytest.mark.parametrize("shape", [(60, 431), (192,), (1, 192, 5)])
def test_to_db_of_another_shape(shape):
    message = f"to_db: cqt must have 192 rows, got shape {shape}. Compute it with the same spec."
    refuse(InputError, message, to_db, np.ones(shape), SPEC)


def test_to_db_of_nothing():
    message = (
        "to_db: cqt must have one frame or more, got none. Leave the recording out."
    )
    assert (
        refuse(AudioError, message, to_db, np.ones((192, 0)), SPEC).reason
        == "too_short"
    )


@pytest.mark.parametrize("value", [np.nan, -np.inf, 1j * np.inf])
def test_to_db_of_what_is_not_finite(value):
    message = "to_db: cqt must be finite, got NaN or infinity. Repair the recording."
    cqt = np.ones((192, 3), type(value) if isinstance(value, complex) else float)
    cqt[0, 0] = value
    assert refuse(AudioError, message, to_db, cqt, SPEC).reason == "non_finite"


def test_to_db_of_silence():
    message = "to_db: cqt must hold sound, got silence. Leave the recording out."
    for cqt in (
        np.zeros((192, 3)),
        np.full((192, 3), 1e-12),
        np.zeros((192, 3), complex),
    ):
        assert refuse(AudioError, message, to_db, cqt, SPEC).reason == "silent"
    message = (
        "to_db: cqt must hold sound, got one value throughout. Leave the recording out."
    )
    assert (
        refuse(AudioError, message, to_db, np.full((192, 3), -80.0), SPEC).reason
        == "silent"
    )
