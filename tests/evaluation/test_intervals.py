import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from cqt2img.evaluation.calibration import (
    calibrated_range,
    calibration_error,
    rising_bins,
)
from cqt2img.evaluation.intervals import (
    jackknife_interval,
    macro_f1_of,
    mean_interval,
    share_interval,
)


def draw_sets(groups, size, rho, p, sets, seed=0, equal=True):
    """Right answers and sizes of groups whose recordings stand or fall together."""
    rng = np.random.default_rng(seed)
    sizes = (
        np.full((sets, groups), size)
        if equal
        else rng.geometric(1 / size, (sets, groups))
    )
    chance = (
        rng.beta(p * (1 / rho - 1), (1 - p) * (1 / rho - 1), sizes.shape) if rho else p
    )
    return rng.binomial(sizes, chance), sizes


def coverage(interval, truth):
    low, high = interval
    return np.mean((low <= truth) & (truth <= high))


# shares


@pytest.mark.parametrize(
    ("right", "n"), [(1, 5), (0, 4), (4, 4), (3, 7), (40, 90), (0, 1), (1, 1)]
)
def test_groups_of_one_have_the_exact_binomial_interval(right, n):
    low, high = share_interval(np.arange(n) < right, np.ones(n))
    exact = binomtest(right, n).proportion_ci()
    assert (low, high) == pytest.approx((exact.low, exact.high), abs=1e-6)


def test_groups_that_stand_or_fall_as_one_count_as_one():
    together = share_interval(10 * (np.arange(12) < 7), np.full(12, 10))
    alone = share_interval(np.arange(12) < 7, np.ones(12))
    np.testing.assert_allclose(together, alone)
    apart = share_interval(
        np.full(12, 5), np.full(12, 10)
    )  # groups that do not differ: as if all were independent
    exact = binomtest(60, 120).proportion_ci()
    assert apart == pytest.approx((exact.low, exact.high), abs=1e-6)


@pytest.mark.parametrize("right", [0, 10])
def test_ten_albums_all_right_are_ten_of_ten(right):
    exact = binomtest(right, 10).proportion_ci()
    assert share_interval(
        np.full(10, 3 * right // 10), np.full(10, 3)
    ) == pytest.approx((exact.low, exact.high))


def test_one_group_says_next_to_nothing():
    low, high = share_interval(np.array([5]), np.array([10]))
    assert low < 0.02
    assert high > 0.98
    assert share_interval(np.array([9, 1]), np.array([30, 1])) == pytest.approx(
        (0, 1), abs=0.05
    )


def test_interval_mirrors_right_and_wrong():
    hits, sizes = draw_sets(9, 6, 0.2, 0.8, 20, equal=False)
    low, high = share_interval(hits, sizes)
    np.testing.assert_allclose(
        share_interval(sizes - hits, sizes), (1 - high, 1 - low), atol=1e-6
    )


def test_groups_without_recordings_have_no_say():
    hits, sizes = np.array([3, 0, 1, 2]), np.array([4, 0, 2, 5])
    has = sizes > 0
    np.testing.assert_allclose(
        share_interval(hits, sizes), share_interval(hits[has], sizes[has])
    )
    np.testing.assert_allclose(
        mean_interval(hits, sizes, (-1, 1)),
        mean_interval(hits[has], sizes[has], (-1, 1)),
    )


@pytest.mark.parametrize(
    ("groups", "size", "rho", "p", "equal"),
    [
        (8, 6, 0.3, 0.6, True),
        (15, 20, 0.3, 0.4, False),
        (30, 6, 0.1, 0.85, False),
        (60, 2, 0.3, 0.6, True),
        (30, 20, 0.5, 0.4, True),
        (15, 1, 0.0, 0.7, True),
    ],
)
def test_share_interval_holds_the_truth(groups, size, rho, p, equal):
    hits, sizes = draw_sets(groups, size, rho, p, 1000, equal=equal)
    assert 0.93 <= coverage(share_interval(hits, sizes), p) <= 0.99


# the jackknife


def test_jackknife_of_a_share_is_its_interval():
    hits, sizes = draw_sets(20, 5, 0.2, 0.7, 1)
    totals = np.column_stack([hits[0], sizes[0]])
    found = jackknife_interval(
        lambda sums: sums[..., 0] / sums[..., 1], totals, sizes[0]
    )
    assert found == pytest.approx(
        [float(one[0]) for one in share_interval(hits, sizes)], abs=1e-9
    )


def test_jackknife_of_one_group_says_next_to_nothing():
    low, high = jackknife_interval(
        lambda sums: sums[..., 0] / sums[..., 1],
        np.array([[5.0, 10.0]]),
        np.array([10]),
    )
    assert low < 0.02
    assert high > 0.98


def test_macro_f1_against_sklearn():
    rng = np.random.default_rng(0)
    for n_classes, n in ((2, 30), (5, 40), (9, 12)):
        codes, named = rng.integers(n_classes, size=(2, n))
        one = np.eye(n_classes)
        counts = np.concatenate(
            [one[codes] * (codes == named)[:, None], one[codes], one[named]], axis=1
        ).sum(axis=0)
        assert macro_f1_of(counts) == pytest.approx(
            f1_score(codes, named, labels=np.unique(codes), average="macro")
        )
        stacked = macro_f1_of(np.stack([counts, counts]))
        np.testing.assert_allclose(stacked, macro_f1_of(counts))


def test_jackknife_interval_of_f1_holds_the_truth():
    rng, one, held = np.random.default_rng(0), np.eye(3), []
    codes, groups = np.repeat(np.arange(3), 40), np.repeat(np.arange(24), 5)
    for _ in range(200):
        kept = (rng.random(24) < 0.8)[groups] & (
            rng.random(120) < 0.9
        )  # albums fall as one, .72 are right
        named = np.where(kept, codes, (codes + rng.integers(1, 3, 120)) % 3)
        counts = np.zeros((24, 9))
        np.add.at(
            counts,
            groups,
            np.concatenate(
                [one[codes] * kept[:, None], one[codes], one[named]], axis=1
            ),
        )
        held.append(
            coverage(jackknife_interval(macro_f1_of, counts, np.full(24, 5)), 0.72)
        )
    assert 0.92 <= np.mean(held) <= 0.99


# means


def test_mean_interval_is_students_where_groups_are_many():
    values = np.random.default_rng(0).normal(0.1, 0.3, 2000)
    low, high = mean_interval(values, np.ones(2000), (-1, 1))
    half = 1.96 * values.std() / np.sqrt(2000)
    assert (low, high) == pytest.approx(
        (values.mean() - half, values.mean() + half), abs=1e-3
    )


def test_agreement_on_a_few_is_no_proof_of_agreement():
    low, high = mean_interval(np.zeros(5), np.ones(5), (-1, 1))
    assert low == pytest.approx(-high)
    assert 0.2 < high < 0.6
    assert mean_interval(np.zeros(500), np.ones(500), (-1, 1))[1] < 0.01


def test_mean_interval_stays_between_the_extremes():
    assert mean_interval(np.array([1.0]), np.ones(1), (-1, 1)) == (-1, 1)


@pytest.mark.parametrize(("groups", "size"), [(6, 4), (20, 1), (20, 8), (60, 3)])
def test_mean_interval_of_a_difference_holds_the_truth(groups, size):
    rng = np.random.default_rng(0)
    gains = rng.choice([-1, 0, 1], p=[0.1, 0.65, 0.25], size=(1000, groups, size))
    shared = rng.choice([-1, 0, 1], p=[0.1, 0.65, 0.25], size=(1000, groups, 1))
    gains = np.where(
        rng.random((1000, groups, 1)) < 0.3, shared, gains
    )  # some albums go one way as a whole
    held = coverage(
        mean_interval(gains.sum(axis=2), np.full((1000, groups), size), (-1, 1)), 0.15
    )
    assert 0.93 <= held <= 0.99


@pytest.mark.parametrize("groups", [6, 20, 60])
def test_mean_interval_of_a_skew_loss_holds_the_truth(groups):
    losses = np.random.default_rng(0).gamma(0.8, 1.0, (1000, groups))
    held = coverage(
        mean_interval(losses, np.ones((1000, groups)), (0, 2 * np.log(8)), log=True),
        0.8,
    )
    assert 0.92 <= held <= 0.985


def test_log_interval_is_above_zero():
    low, high = mean_interval(np.array([0.0, 0.1]), np.ones(2), (0, 2), log=True)
    assert 0 < low < high
    assert np.isfinite(high)


# calibration


def test_bins_rise_and_hold_all():
    trust = np.linspace(0.5, 1, 200)
    right = np.random.default_rng(0).random(200) < trust
    bins = rising_bins(trust, right)
    assert 1 < len(bins) <= 15
    assert sorted(np.concatenate(bins)) == list(range(200))
    assert np.all(np.diff([right[own].mean() for own in bins]) >= 0)
    assert np.ptp([len(own) for own in bins]) <= 1
    finer = np.array_split(np.arange(200), len(bins) + 1)
    assert np.any(np.diff([right[own].mean() for own in finer]) < 0)


def test_bins_hold_five_at_least():
    trust = np.linspace(0.5, 1, 12)
    assert [len(own) for own in rising_bins(trust, np.ones(12, bool))] == [6, 6]
    assert [len(own) for own in rising_bins(trust[:3], np.ones(3, bool))] == [3]
    assert len(rising_bins(np.linspace(0, 1, 500), np.ones(500, bool))) == 15


def test_calibration_error_from_theory():
    trust = np.repeat([0.6, 0.9], 100)
    right = np.concatenate([np.arange(100) < 50, np.arange(100) < 70])
    right[:100] = np.tile(
        np.arange(10) < 5, 10
    )  # half of each handful, so that finer bins do not rise
    assert calibration_error(trust, right) == pytest.approx((0.1 + 0.2) / 2, abs=0.02)
    assert calibration_error(np.ones(50), np.ones(50, bool)) == 0
    assert calibration_error(np.ones(50), np.zeros(50, bool)) == 1


def test_calibrated_range_holds_95_of_100_calibrated_models():
    rng = np.random.default_rng(1)
    trust = rng.uniform(0.3, 0.9, 80)
    low, high = calibrated_range(trust)
    drawn = np.array(
        [calibration_error(trust, rng.random(80) < trust) for _ in range(300)]
    )
    assert 0.91 <= np.mean((low <= drawn) & (drawn <= high)) <= 0.99
    assert calibrated_range(trust) == (low, high)


def test_rising_bins_are_less_biased_than_ten():
    """Where a calibrated model is scored on few recordings, all that is found is bias."""
    rng = np.random.default_rng(0)
    trust = rng.uniform(0.3, 0.9, (200, 60))
    right = rng.random(trust.shape) < trust
    ten = [
        np.mean(
            [
                abs((t - r)[own].sum()) * 10 / 60
                for own in np.array_split(np.argsort(t), 10)
            ]
        )
        for t, r in zip(trust, right, strict=True)
    ]
    ours = [calibration_error(t, r) for t, r in zip(trust, right, strict=True)]
    assert np.mean(ours) < 0.75 * np.mean(ten)
