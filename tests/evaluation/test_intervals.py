import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from cqt2img.evaluation.intervals import (
    jackknife_interval,
    macro_f1_from_counts,
    mean_interval,
    share_interval,
)


def exact_interval(n_correct, n):
    """Clopper-Pearson interval."""
    interval = binomtest(n_correct, n).proportion_ci()
    return interval.low, interval.high


def draw_sets(n_groups, size, correlation, share, n_sets, seed=0, equal=True):
    """Correct recordings and sizes of groups with correlated recordings."""
    rng = np.random.default_rng(seed)
    shape = (n_sets, n_groups)
    sizes = np.full(shape, size) if equal else rng.geometric(1 / size, shape)
    if correlation:
        weight = 1 / correlation - 1
        share = rng.beta(share * weight, (1 - share) * weight, shape)
    return rng.binomial(sizes, share), sizes


def coverage(interval, truth):
    low, high = interval
    return np.mean((low <= truth) & (truth <= high))


def ratio(sums):
    return sums[..., 0] / sums[..., 1]


# proportions


@pytest.mark.parametrize(
    ("n_correct", "n"), [(1, 5), (0, 4), (4, 4), (3, 7), (40, 90), (0, 1), (1, 1)]
)
def test_one_recording_per_group_gives_the_exact_binomial_interval(n_correct, n):
    interval = share_interval(np.arange(n) < n_correct, np.ones(n))
    assert interval == pytest.approx(exact_interval(n_correct, n), abs=1e-6)


def test_groups_of_equal_recordings_count_as_one_recording_each():
    is_correct = np.arange(12) < 7
    together = share_interval(10 * is_correct, np.full(12, 10))
    np.testing.assert_allclose(together, exact_interval(7, 12), atol=1e-6)


def test_groups_that_do_not_differ_count_as_independent_recordings():
    interval = share_interval(np.full(12, 5), np.full(12, 10))
    assert interval == pytest.approx(exact_interval(60, 120), abs=1e-6)


@pytest.mark.parametrize("n_correct", [0, 10])
def test_ten_groups_without_an_error_or_a_success_are_ten_recordings(n_correct):
    interval = share_interval(np.full(10, 3 * n_correct // 10), np.full(10, 3))
    assert interval == pytest.approx(exact_interval(n_correct, 10))


@pytest.mark.parametrize(("hits", "sizes"), [([5], [10]), ([9, 1], [30, 1])])
def test_the_interval_of_one_dominant_group_is_almost_everything(hits, sizes):
    low, high = share_interval(hits, sizes)
    assert low < 0.05
    assert high > 0.95


def test_the_interval_of_errors_mirrors_that_of_successes():
    hits, sizes = draw_sets(9, 6, 0.2, 0.8, 20, equal=False)
    low, high = share_interval(hits, sizes)
    mirrored = share_interval(sizes - hits, sizes)
    np.testing.assert_allclose(mirrored, (1 - high, 1 - low), atol=1e-6)


def test_empty_groups_are_ignored():
    hits, sizes = np.array([3, 0, 1, 2]), np.array([4, 0, 2, 5])
    kept = sizes > 0
    np.testing.assert_allclose(
        share_interval(hits, sizes), share_interval(hits[kept], sizes[kept])
    )
    np.testing.assert_allclose(
        mean_interval(hits, sizes, (-1, 1)),
        mean_interval(hits[kept], sizes[kept], (-1, 1)),
    )


@pytest.mark.parametrize(
    ("n_groups", "size", "correlation", "share", "equal"),
    [
        (8, 6, 0.3, 0.6, True),
        (15, 20, 0.3, 0.4, False),
        (30, 6, 0.1, 0.85, False),
        (60, 2, 0.3, 0.6, True),
        (30, 20, 0.5, 0.4, True),
        (15, 1, 0.0, 0.7, True),
    ],
)
def test_share_interval_covers_the_truth(n_groups, size, correlation, share, equal):
    hits, sizes = draw_sets(n_groups, size, correlation, share, 1000, equal=equal)
    assert 0.93 <= coverage(share_interval(hits, sizes), share) <= 0.99


# jackknife


def test_the_jackknife_of_a_proportion_equals_its_interval():
    hits, sizes = draw_sets(20, 5, 0.2, 0.7, 1)
    totals = np.column_stack([hits[0], sizes[0]])
    interval = jackknife_interval(ratio, totals, sizes[0])
    np.testing.assert_allclose(interval, share_interval(hits[0], sizes[0]), atol=1e-9)


def test_the_jackknife_interval_of_one_group_is_almost_everything():
    low, high = jackknife_interval(ratio, [[5.0, 10.0]], [10])
    assert low < 0.02
    assert high > 0.98


def count_for_f1(class_indices, predicted, n_classes):
    one_hot = np.eye(n_classes)
    is_class, is_predicted = one_hot[class_indices], one_hot[predicted]
    return np.concatenate([is_class * is_predicted, is_class, is_predicted], axis=1)


@pytest.mark.parametrize(("n_classes", "n"), [(2, 30), (5, 40), (9, 12)])
def test_macro_f1_agrees_with_scikit_learn(n_classes, n):
    rng = np.random.default_rng(n)
    class_indices, predicted = rng.integers(n_classes, size=(2, n))
    counts = count_for_f1(class_indices, predicted, n_classes).sum(axis=0)
    occurring = np.unique(class_indices)
    expected = f1_score(class_indices, predicted, labels=occurring, average="macro")
    assert macro_f1_from_counts(counts) == pytest.approx(expected)
    both = macro_f1_from_counts(np.stack([counts, counts]))
    np.testing.assert_allclose(both, expected)


def test_the_jackknife_interval_of_macro_f1_covers_the_truth():
    rng = np.random.default_rng(0)
    class_indices, groups = np.repeat(np.arange(3), 40), np.repeat(np.arange(24), 5)
    covered = []
    for _ in range(200):
        # errors of whole groups and of single recordings; .8 * .9 are correct
        is_correct = (rng.random(24) < 0.8)[groups] & (rng.random(120) < 0.9)
        wrong = (class_indices + rng.integers(1, 3, 120)) % 3
        predicted = np.where(is_correct, class_indices, wrong)
        counts = np.zeros((24, 9))
        np.add.at(counts, groups, count_for_f1(class_indices, predicted, 3))
        interval = jackknife_interval(macro_f1_from_counts, counts, np.full(24, 5))
        covered.append(coverage(interval, 0.72))
    assert 0.92 <= np.mean(covered) <= 0.99


# means


def test_the_interval_of_a_mean_of_many_groups_is_students():
    values = np.random.default_rng(0).normal(0.1, 0.3, 2000)
    margin = 1.96 * values.std() / np.sqrt(2000)
    interval = mean_interval(values, np.ones(2000), (-1, 1))
    expected = values.mean() - margin, values.mean() + margin
    assert interval == pytest.approx(expected, abs=1e-3)


def test_equal_values_of_a_few_recordings_do_not_imply_certainty():
    low, high = mean_interval(np.zeros(5), np.ones(5), (-1, 1))
    assert low == pytest.approx(-high)
    assert 0.2 < high < 0.6
    assert mean_interval(np.zeros(500), np.ones(500), (-1, 1))[1] < 0.01


def test_the_interval_of_a_mean_stays_within_the_bounds():
    assert mean_interval([1.0], [1.0], (-1, 1)) == (-1, 1)


@pytest.mark.parametrize(("n_groups", "size"), [(6, 4), (20, 1), (20, 8), (60, 3)])
def test_the_interval_of_a_difference_covers_the_truth(n_groups, size):
    rng = np.random.default_rng(0)
    shares = [0.1, 0.65, 0.25]  # mean .15
    gains = rng.choice([-1, 0, 1], p=shares, size=(1000, n_groups, size))
    # all recordings of some groups have the same gain
    shared = rng.choice([-1, 0, 1], p=shares, size=(1000, n_groups, 1))
    gains = np.where(rng.random((1000, n_groups, 1)) < 0.3, shared, gains)
    sizes = np.full((1000, n_groups), size)
    interval = mean_interval(gains.sum(axis=2), sizes, (-1, 1))
    assert 0.93 <= coverage(interval, 0.15) <= 0.99


@pytest.mark.parametrize("n_groups", [6, 20, 60])
def test_the_log_scale_interval_of_a_skewed_mean_covers_the_truth(n_groups):
    losses = np.random.default_rng(0).gamma(0.8, 1.0, (1000, n_groups))
    bounds = (0, 2 * np.log(8))
    interval = mean_interval(losses, np.ones(losses.shape), bounds, log_scale=True)
    assert 0.92 <= coverage(interval, 0.8) <= 0.985


def test_the_log_scale_interval_is_positive_and_finite():
    low, high = mean_interval([0.0, 0.1], [1, 1], (0, 2), log_scale=True)
    assert 0 < low < high < np.inf
