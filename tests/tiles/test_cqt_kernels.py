import librosa
import numpy as np
import pytest

from cqt2img._utils.buffer import DiskBuffer
from cqt2img.tiles import cqt_kernels
from cqt2img.tiles.cqt import compute_cqt
from cqt2img.tiles.cqt_kernels import N_ROWS, transform
from cqt2img.tiles.spec import PRESETS, TileSpec

RATE = 22_050
SPECS = {name: TileSpec.preset(name) for name in PRESETS} | {
    "84 bins": TileSpec(n_bins=84, bins_per_octave=12, f_min=32.7, gamma=0.0),
    "252 bins": TileSpec(
        n_bins=252, bins_per_octave=36, f_min=32.7, gamma=0.0, height=252
    ),
    "half an octave": TileSpec(n_bins=30, bins_per_octave=24, f_min=220.0),
    "one bin of an octave": TileSpec(n_bins=25, bins_per_octave=24, f_min=220.0),
    "short windows": TileSpec(gamma=4.0),
    "shorter windows": TileSpec(bins_per_octave=12, n_bins=96, gamma=20.0),
    "odd hop": TileSpec(hop_length=441),
    "hop halves once": TileSpec(hop_length=250),
    "halved before the first octave": TileSpec(n_bins=48, f_min=55.0, hop_length=1024),
    "44.1 kHz": TileSpec(sample_rate=44_100, hop_length=1024),
}


def music(n_samples, seed=0):
    """Return decaying tones of different levels over noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(n_samples) / RATE
    sound = 1e-3 * rng.normal(size=n_samples)
    for midi in rng.integers(24, 100, 40):
        start = rng.uniform(0, max(time[-1], 0.1))
        strength = 10 ** rng.uniform(-2, 0)
        tone = np.sin(2 * np.pi * librosa.midi_to_hz(midi) * time)
        decay = np.exp(-3 * np.maximum(time - start, 0)) * (time > start)
        sound += strength * tone * decay
    return sound.astype(np.float32)


def librosa_db(wave, spec, cents=0.0):
    cqt = librosa.vqt(
        wave.astype(np.float64),
        sr=spec.sample_rate,
        hop_length=spec.hop_length,
        fmin=spec.f_min,
        n_bins=spec.n_bins,
        bins_per_octave=spec.bins_per_octave,
        gamma=spec.gamma,
        tuning=cents / 100 * spec.bins_per_octave / 12,
        sparsity=0,
        dtype=np.complex128,
    )
    return 20 * np.log10(np.abs(cqt) + 1e-20)


def transform_all(wave, spec, cents=0.0):
    return np.concatenate(list(transform(wave, spec, cents)))


def transform_db(wave, spec, cents=0.0):
    return 10 * np.log10(transform_all(wave, spec, cents).T + 1e-20)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("cents", [0.0, -37.5])
def test_transform_agrees_with_librosa_from_the_first_frame_to_the_last(name, cents):
    spec, wave = SPECS[name], music(7 * RATE + 123)
    expected, found = librosa_db(wave, spec, cents), transform_db(wave, spec, cents)
    assert expected.shape == (spec.n_bins, 1 + len(wave) // spec.hop_length)
    assert found.shape == expected.shape
    in_range = expected > np.percentile(expected, 99.9) - 60
    assert in_range.mean() > 0.3
    assert np.abs(found - expected)[in_range].max() < 0.1


@pytest.mark.filterwarnings("ignore:n_fft=:UserWarning")
@pytest.mark.parametrize("n_samples", [64, 300, 2205, 131_072, 131_073])
def test_transform_of_a_short_wave_agrees_with_librosa(n_samples):
    spec, wave = TileSpec(), music(131_073)[:n_samples]
    expected, found = librosa_db(wave, spec), transform_db(wave, spec)
    assert found.shape == (192, 1 + n_samples // 512)
    in_range = expected > expected.max() - 60
    assert np.abs(found - expected)[in_range].max() < 0.1


@pytest.mark.parametrize("name", ["piano", "jazz", "odd hop"])
def test_transform_does_not_depend_on_the_block_size(monkeypatch, name):
    spec, wave = SPECS[name], music(40 * RATE)
    whole = transform_all(wave, spec, 12.0)
    assert len(whole) > 3 * N_ROWS
    for block_size in (1 << 30, 70_001, 4096):
        monkeypatch.setattr(cqt_kernels, "_BLOCK_SIZE", block_size)
        assert np.array_equal(transform_all(wave, spec, 12.0), whole)


def test_transform_of_a_disk_buffer_is_that_of_its_array():
    wave, spec = music(3 * RATE), TileSpec()
    with DiskBuffer() as buffer:
        buffer.append(wave)
        assert np.array_equal(transform_all(buffer, spec), transform_all(wave, spec))


def test_semitone_is_three_rows_of_36_bins_per_octave():
    spec = TileSpec(bins_per_octave=36, n_bins=264, height=264)
    time = np.arange(3 * RATE) / RATE
    rows = []
    for midi in (57, 58, 69):
        tone = np.sin(2 * np.pi * librosa.midi_to_hz(midi) * time)
        cqt = compute_cqt(tone.astype(np.float32), spec, 0.0)
        rows.append(int(cqt[:, 60].argmax()))
    assert rows[1] - rows[0] == 3
    assert rows[2] - rows[0] == 36


def test_delay_of_seven_hops_shifts_the_transform_by_seven_columns():
    spec, wave = TileSpec(), music(5 * RATE)
    delayed = np.pad(wave, (7 * spec.hop_length, 0))
    expected = transform_db(wave, spec)[:, 100:193]
    found = transform_db(delayed, spec)[:, 107:200]
    assert np.abs(found - expected)[expected > -60].max() < 0.02
