import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from cqt2img.inference.calibration import fit_temperature, log_loss, pool, to_proba


def random_log_proba(n, n_classes=3, scale=1.0, seed=0):
    logits = scale * np.random.default_rng(seed).standard_normal((n, n_classes))
    return log_softmax(logits, axis=1).astype(np.float32)


def test_pooling_a_single_tile_returns_it():
    row = random_log_proba(1)
    np.testing.assert_allclose(pool(row), row[0], atol=1e-6)


def test_pooling_returns_the_normalised_geometric_mean():
    rows = random_log_proba(7)
    mean = np.exp(rows.astype(float)).prod(axis=0) ** (1 / 7)
    np.testing.assert_allclose(np.exp(pool(rows)), mean / mean.sum(), atol=1e-6)


def test_pooling_does_not_depend_on_order_or_repetition():
    rows = random_log_proba(4)
    np.testing.assert_allclose(pool(rows[::-1]), pool(rows), atol=1e-6)
    repeated = np.repeat(rows, 9, axis=0)
    np.testing.assert_allclose(pool(repeated), pool(rows), atol=1e-6)


def test_pooling_opposite_tiles_gives_even_probabilities():
    rows = np.log(np.array([[0.9, 0.1], [0.1, 0.9]], np.float32))
    np.testing.assert_allclose(np.exp(pool(rows)), [0.5, 0.5], atol=1e-6)


@pytest.mark.parametrize("temperature", [0.25, 1.0, 2.0, 10.0])
def test_the_temperature_divides_the_logits(temperature):
    logits = np.random.default_rng(0).standard_normal((6, 3))
    rows = log_softmax(logits, axis=1).astype(np.float32)
    proba = to_proba(rows, temperature)
    expected = softmax(logits / temperature, axis=1)
    np.testing.assert_allclose(proba, expected, atol=1e-6)
    assert (proba.argmax(axis=1) == logits.argmax(axis=1)).all()


def test_a_higher_temperature_gives_more_even_probabilities():
    row = random_log_proba(1, scale=3)[0]
    highest = [to_proba(row, t).max() for t in (0.25, 1, 4, 10, 1e6)]
    assert highest == sorted(highest, reverse=True)
    assert highest[-1] == pytest.approx(1 / 3, abs=1e-4)


def test_probabilities_of_infinite_logits_are_finite():
    row = np.array([0, -1e4, -np.inf], np.float32)
    np.testing.assert_array_equal(to_proba(row, 0.25), [1, 0, 0])


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.5, 6.0])
def test_the_fitted_temperature_is_the_scale_of_the_logits(scale):
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((6000, 4))
    proba = softmax(logits, axis=1)
    class_indices = np.array([rng.choice(4, p=p) for p in proba])
    scaled = log_softmax(logits * scale, axis=1).astype(np.float32)
    assert fit_temperature(scaled, class_indices) == pytest.approx(scale, rel=0.06)


def calibration_error(proba, class_indices):
    confidence = proba.max(axis=1)
    is_correct = proba.argmax(axis=1) == class_indices
    bins = np.minimum(9, (confidence * 10).astype(int))
    parts = [bins == b for b in range(10) if (bins == b).any()]
    gaps = [abs(confidence[part].mean() - is_correct[part].mean()) for part in parts]
    return sum(part.mean() * gap for part, gap in zip(parts, gaps, strict=True))


def test_the_fitted_temperature_calibrates_other_recordings():
    rng = np.random.default_rng(1)
    logits = 2 * rng.standard_normal((8000, 3))
    classes = np.array([rng.choice(3, p=p) for p in softmax(logits, axis=1)])
    scaled = log_softmax(4 * logits, axis=1).astype(np.float32)
    fitted = fit_temperature(scaled[:4000], classes[:4000])
    rest, truth = scaled[4000:], classes[4000:]
    assert calibration_error(to_proba(rest), truth) > 0.1
    assert calibration_error(to_proba(rest, fitted), truth) < 0.03


def test_few_recordings_change_the_temperature_less_than_many():
    correct = np.log(np.array([[0.7, 0.3], [0.3, 0.7]], np.float32))
    many = np.tile(correct, (5000, 1))
    assert 0.7 < fit_temperature(correct, np.array([0, 1])) < 1
    lowest = fit_temperature(many, np.tile([0, 1], 5000))
    assert 0.1 <= lowest < 0.16
    wrong = fit_temperature(many, np.tile([1, 0], 5000))
    assert wrong == pytest.approx(10, rel=0.01)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_the_log_loss_of_even_probabilities_is_log_n_classes(n_classes):
    proba = np.full((3, n_classes), 1 / n_classes, np.float32)
    loss = log_loss(proba, np.array([0, 1, 1]))
    assert loss == pytest.approx(np.log(n_classes))


def test_the_log_loss_is_that_of_scikit_learn():
    from sklearn.metrics import log_loss as expected

    proba = np.exp(random_log_proba(50).astype(np.float64))
    proba /= proba.sum(axis=1, keepdims=True)
    classes = np.arange(50) % 3
    loss = log_loss(proba.astype(np.float32), classes)
    assert loss == pytest.approx(expected(classes, proba), abs=1e-5)


def test_the_log_loss_of_certain_predictions_is_zero_or_finite():
    proba = np.array([[1, 0], [0, 1]], np.float32)
    assert log_loss(proba, np.array([0, 1])) == 0
    assert np.isfinite(log_loss(proba, np.array([1, 0])))
