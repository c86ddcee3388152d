"""Scores for the tests of this package."""

import numpy as np

from cqt2img.evaluation.evaluation import evaluate_proba


def draw_predictions(n=200, n_classes=6, seed=0):
    """Draw probabilities of a model that is better than chance, and true classes."""
    rng = np.random.default_rng(seed)
    class_indices = rng.integers(n_classes, size=n)
    logits = rng.standard_normal((n, n_classes))
    logits[np.arange(n), class_indices] += 1
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return proba.astype(np.float32), class_indices


def class_names(n_classes):
    return [f"player {index}" for index in range(n_classes)]


def draw_scores(n=200, n_classes=6, seed=0, groups=None, **kwargs):
    proba, class_indices = draw_predictions(n, n_classes, seed)
    names = class_names(n_classes)
    return evaluate_proba(proba, class_indices, names, groups, **kwargs)


def scores_of_two_classes(is_correct, groups=None):
    """Scores on recordings that are all of the first of two classes."""
    is_correct = np.asarray(is_correct, bool)
    proba = np.where(is_correct[:, None], [[0.9, 0.1]], [[0.2, 0.8]])
    class_indices = np.zeros(len(is_correct), int)
    return evaluate_proba(
        proba.astype(np.float32), class_indices, class_names(2), groups
    )


def few_scores():
    """Evans twice and Monk twice, each confused once with the other; Tatum never."""
    proba = [[0.9, 0.1, 0], [0.3, 0.6, 0.1], [0.2, 0.7, 0.1], [0.8, 0.2, 0]]
    return evaluate_proba(
        np.array(proba, np.float32),
        np.array([0, 0, 1, 1]),
        ["Evans", "Monk", "Tatum"],
        [7, 7, 8, 9],
        paths=list("abcd"),
    )
