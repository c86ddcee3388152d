import librosa
import numpy as np
import pytest

from cqt2img._utils.buffer import DiskBuffer
from cqt2img.tiles import cqt_kernels as module
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
    """Tones that come and go over noise, loud and soft."""
    rng = np.random.default_rng(seed)
    time = np.arange(n_samples) / RATE
    sound = 1e-3 * rng.normal(size=n_samples)
    for midi in rng.integers(24, 100, 40):
        start, strength = rng.uniform(0, max(time[-1], 0.1)), 10 ** rng.uniform(-2, 0)
        tone = np.sin(2 * np.pi * 440 * 2 ** ((midi - 69) / 12) * time)
        sound += (
            strength * tone * np.exp(-3 * np.maximum(time - start, 0)) * (time > start)
        )
    return sound.astype(np.float32)


def reference(wave, spec, cents=0.0):
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


def ours(wave, spec, cents=0.0):
    return 10 * np.log10(np.concatenate(list(transform(wave, spec, cents))).T + 1e-20)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("cents", [0.0, -37.5])
def test_it_is_librosa_s_within_a_tenth_of_a_decibel_from_the_first_frame_to_the_last(
    name, cents
):
    spec, wave = SPECS[name], music(7 * RATE + 123)
    expected, got = reference(wave, spec, cents), ours(wave, spec, cents)
    assert (
        got.shape == (spec.n_bins, 1 + len(wave) // spec.hop_length) == expected.shape
    )
    heard = expected > np.percentile(expected, 99.9) - 60
    assert heard.mean() > 0.3
    assert np.abs(got - expected)[heard].max() < 0.1


@pytest.mark.filterwarnings("ignore:n_fft=:UserWarning")
@pytest.mark.parametrize("n_samples", [64, 300, 2205, 131_072, 131_073])
def test_short_waves(n_samples):
    spec, wave = TileSpec(), music(131_073)[:n_samples]
    expected, got = reference(wave, spec), ours(wave, spec)
    assert got.shape == (192, 1 + n_samples // 512)
    heard = expected > expected.max() - 60
    assert np.abs(got - expected)[heard].max() < 0.1


@pytest.mark.parametrize("name", ["piano", "jazz", "odd hop"])
def test_blocks_leave_no_seam(monkeypatch, name):
    spec, wave = SPECS[name], music(40 * RATE)
    whole = np.concatenate(list(transform(wave, spec, 12.0)))
    assert len(whole) > 3 * N_ROWS
    for size in (1 << 30, 70_001, 4096):
        monkeypatch.setattr(module, "_BLOCK", size)
        assert np.array_equal(
            np.concatenate(list(transform(wave, spec, 12.0))), whole
        ), "to the bit"


def test_a_spool_is_as_good_as_an_array():
    wave, spec = music(3 * RATE), TileSpec()
    with DiskBuffer() as spool:
        spool.append(wave)
        pairs = zip(
            transform(spool, spec, 0.0), transform(wave, spec, 0.0), strict=True
        )
        assert all(np.array_equal(a, b) for a, b in pairs)


def test_a_semitone_is_a_whole_number_of_rows_and_a_hop_one_column():
    spec = TileSpec(bins_per_octave=36, n_bins=264, height=264)
    time = np.arange(3 * RATE) / RATE
    rows = []
    for midi in (57, 58, 69):
        tone = np.sin(2 * np.pi * 440 * 2 ** ((midi - 69) / 12) * time).astype(
            np.float32
        )
        rows.append(int(compute_cqt(tone, spec, 0.0)[:, 60].argmax()))
    assert rows[1] - rows[0] == 3
    assert rows[2] - rows[0] == 36
    wave = music(5 * RATE)
    later = np.concatenate([np.zeros(7 * spec.hop_length, np.float32), wave])
    there, here = ours(later, spec)[:, 107:200], ours(wave, spec)[:, 100:193]
    assert np.abs(there - here)[here > -60].max() < 0.02
