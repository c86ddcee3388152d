import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from cqt2img.auditing.out_of_fold import (
    MIN_LOG_PROBA,
    ShrinkageLDA,
    predict_out_of_fold,
)


@pytest.fixture
def data():
    """Three classes of 20, 10 and 10 samples, apart by three standard deviations."""
    rng = np.random.default_rng(0)
    classes = np.repeat([0, 1, 2], [20, 10, 10])
    features = rng.standard_normal((40, 4)) + 3 * classes[:, None]
    return features.astype(np.float32), classes


def test_predictions_are_those_of_scikit_learn(data):
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(*data)
    expected = np.maximum(model.predict_log_proba(data[0]), MIN_LOG_PROBA)
    ours = ShrinkageLDA().fit(*data)
    np.testing.assert_allclose(ours.predict_log_proba(data[0]), expected, rtol=1e-4)
    np.testing.assert_array_equal(ours.predict(data[0]), model.predict(data[0]))


def test_equal_priors_do_not_depend_on_class_sizes(data):
    """Between two equally wide classes, the midpoint has even odds."""
    features = np.array([[-1.1], [-0.9], [-1.0], [-1.0], [0.9], [1.1]], np.float32)
    classes = np.array([0, 0, 0, 0, 1, 1])
    equal, by_size = (
        ShrinkageLDA(equal_priors=flag).fit(features, classes) for flag in (True, False)
    )
    midpoint = np.zeros((1, 1), np.float32)
    np.testing.assert_allclose(
        equal.predict_log_proba(midpoint), np.log([[0.5, 0.5]]), atol=1e-3
    )
    np.testing.assert_allclose(
        by_size.predict_log_proba(midpoint), np.log([[4 / 6, 2 / 6]]), atol=1e-3
    )


@pytest.mark.parametrize("classes", [[0, 0, 0], [0, 1, 2]])
def test_degenerate_training_data_predict_all_classes_equally(classes):
    features = np.eye(3, dtype=np.float32)
    log_proba = ShrinkageLDA().fit(features, classes).predict_log_proba(features)
    assert (log_proba == MIN_LOG_PROBA).all()


def test_a_class_missing_from_training_has_the_least_log_probability(data):
    features, classes = data
    others = np.flatnonzero(classes < 2)
    third = np.flatnonzero(classes == 2)
    folds = [(others, third), (third, others)]
    log_proba = predict_out_of_fold(features, classes, folds)
    assert (log_proba[third, 2] == MIN_LOG_PROBA).all()
    assert (log_proba[others] == MIN_LOG_PROBA).all()  # trained on one class only


def test_predictions_of_a_sample_do_not_depend_on_its_own_class(data):
    features, classes = data
    even = np.flatnonzero(np.arange(40) % 2 == 0)
    odd = np.flatnonzero(np.arange(40) % 2 == 1)
    before = predict_out_of_fold(features, classes, [(even, odd), (odd, even)])
    changed = classes.copy()
    changed[odd[0]] = 2
    after = predict_out_of_fold(features, changed, [(even, odd), (odd, even)])
    np.testing.assert_array_equal(after[odd], before[odd])
    assert not np.array_equal(after[even], before[even])


def test_standardized_predictions_do_not_depend_on_scale():
    """Without standardization they do, where a feature is constant within classes."""
    rng = np.random.default_rng(0)
    classes = np.arange(40) % 2
    noise = rng.standard_normal((40, 3))
    features = np.column_stack([noise, classes]).astype(np.float32)
    scaled = features * np.array([1, 10, 100, 0.01], np.float32)
    first_half = np.arange(20)
    second_half = np.arange(20, 40)
    folds = [(first_half, second_half), (second_half, first_half)]
    plain, rescaled = (
        predict_out_of_fold(values, classes, folds, standardize=True)
        for values in (features, scaled)
    )
    np.testing.assert_allclose(plain, rescaled, atol=1e-2)
    raw = predict_out_of_fold(scaled, classes, folds)
    assert not np.allclose(raw, rescaled, atol=1)
