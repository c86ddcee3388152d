import numpy as np
import pytest

from cqt2img.evaluation.calibration import (
    calibrated_range,
    calibration_error,
    monotonic_bins,
)


def test_bins_are_monotonic_equally_full_and_complete():
    confidence = np.linspace(0.5, 1, 200)
    is_correct = np.random.default_rng(0).random(200) < confidence
    bins = monotonic_bins(confidence, is_correct)
    assert 1 < len(bins) <= 15
    assert sorted(np.concatenate(bins)) == list(range(200))
    assert np.all(np.diff([is_correct[subset].mean() for subset in bins]) >= 0)
    assert np.ptp([len(subset) for subset in bins]) <= 1


def test_one_more_bin_would_not_be_monotonic():
    confidence = np.linspace(0.5, 1, 200)
    is_correct = np.random.default_rng(0).random(200) < confidence
    n_bins = len(monotonic_bins(confidence, is_correct))
    finer = np.array_split(np.arange(200), n_bins + 1)
    assert np.any(np.diff([is_correct[subset].mean() for subset in finer]) < 0)


@pytest.mark.parametrize(("n", "sizes"), [(3, [3]), (12, [6, 6]), (14, [7, 7])])
def test_bins_hold_five_recordings_or_more(n, sizes):
    bins = monotonic_bins(np.linspace(0.5, 1, n), np.ones(n, bool))
    assert [len(subset) for subset in bins] == sizes


def test_there_are_fifteen_bins_at_most():
    assert len(monotonic_bins(np.linspace(0, 1, 500), np.ones(500, bool))) == 15


def test_calibration_error_of_two_levels_of_confidence_is_their_mean_gap():
    confidence = np.repeat([0.6, 0.9], 100)
    # half of every ten correct, so that finer bins are not monotonic
    lower = np.tile(np.arange(10) < 5, 10)
    upper = np.arange(100) < 70
    error = calibration_error(confidence, np.concatenate([lower, upper]))
    assert error == pytest.approx((0.1 + 0.2) / 2, abs=0.02)


@pytest.mark.parametrize("is_correct", [True, False])
def test_calibration_error_of_certain_predictions_is_their_error_rate(is_correct):
    error = calibration_error(np.ones(50), np.full(50, is_correct))
    assert error == 1 - is_correct


def test_calibration_error_is_the_weighted_gap_of_the_bins():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 1, 157)
    is_correct = rng.random(157) < confidence
    gaps = [
        abs((confidence[subset] - is_correct[subset]).sum())
        for subset in monotonic_bins(confidence, is_correct)
    ]
    assert calibration_error(confidence, is_correct) == pytest.approx(sum(gaps) / 157)


def test_calibrated_range_covers_95_of_100_calibrated_models():
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.3, 0.9, 80)
    low, high = calibrated_range(confidence)
    errors = np.array(
        [calibration_error(confidence, rng.random(80) < confidence) for _ in range(300)]
    )
    assert 0.91 <= np.mean((low <= errors) & (errors <= high)) <= 0.99


def test_calibrated_range_is_reproducible():
    confidence = np.random.default_rng(1).uniform(0.3, 0.9, 80)
    assert calibrated_range(confidence) == calibrated_range(confidence[::-1])


def test_monotonic_bins_are_less_biased_than_ten_bins():
    """The error of a calibrated model on few recordings is nothing but bias."""
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 0.9, (200, 60))
    is_correct = rng.random(confidence.shape) < confidence
    with_ten, with_monotonic = [], []
    for row, correct in zip(confidence, is_correct, strict=True):
        bins = np.array_split(np.argsort(row), 10)
        gaps = [abs((row - correct)[subset].sum()) for subset in bins]
        with_ten.append(sum(gaps) / 60)
        with_monotonic.append(calibration_error(row, correct))
    assert np.mean(with_monotonic) < 0.75 * np.mean(with_ten)
