import numpy as np

from cqt2img.inference.references import ReferenceSet


def make_references(n, n_classes=3):
    rng = np.random.default_rng(0)
    features = rng.standard_normal((n, 2)).astype(np.float32)
    return ReferenceSet(features, np.arange(n) % n_classes, np.arange(n) % 4 == 0)


def test_training_and_validation_features_are_separate():
    references = make_references(8)
    np.testing.assert_array_equal(
        references.validation_features, references.features[[0, 4]]
    )
    assert len(references.training_features) == 6


def test_a_new_class_moves_the_later_ones_up():
    references = make_references(6)
    added = np.ones((2, 2))
    wide = references.insert_class(1, added)
    assert wide.class_indices.tolist() == [0, 2, 3, 0, 2, 3, 1, 1]
    assert wide.is_validation.tolist()[-2:] == [False, False]
    np.testing.assert_array_equal(wide.features[:-2], references.features)
    assert wide.features.dtype == np.float32
    assert references.class_indices.tolist() == [0, 1, 2, 0, 1, 2]


def test_more_than_ten_thousand_references_are_thinned_evenly():
    few = make_references(10_000).limit_size()
    assert len(few.class_indices) == 10_000
    many = make_references(20_001)
    thinned = many.limit_size()
    np.testing.assert_array_equal(thinned.features, many.features[::3])
    np.testing.assert_array_equal(thinned.is_validation, many.is_validation[::3])
