import numpy as np
import pytest
from scipy.stats import binomtest

from cqt2img.errors import InputError
from cqt2img.evaluation.comparison import compare
from cqt2img.evaluation.evaluation import evaluate_proba
from tests.conftest import raises_with

NAMES = ["Evans", "Monk"]


def scores_of(is_correct, groups=None, paths=None):
    """Scores of a model on recordings that are all by Evans."""
    is_correct = np.asarray(is_correct, bool)
    proba = np.where(is_correct[:, None], [[0.9, 0.1]], [[0.2, 0.8]])
    class_indices = np.zeros(len(is_correct), int)
    return evaluate_proba(proba, class_indices, NAMES, groups, paths=paths)


def test_recordings_are_listed_by_the_model_that_is_correct():
    comparison = compare(scores_of([1, 1, 0, 1, 0]), scores_of([1, 0, 0, 0, 1]))
    assert comparison.difference == pytest.approx(0.2)
    assert comparison.only_first["path"].tolist() == ["1", "3"]
    assert comparison.only_second["path"].tolist() == ["4"]
    row = comparison.only_second.loc[0]
    assert (row["label"], row["first"], row["second"]) == ("Evans", "Monk", "Evans")
    columns = "path group label first second first_correct second_correct"
    assert comparison.table.columns.tolist() == columns.split()


def test_exchanging_the_models_changes_only_the_sign():
    rng, groups = np.random.default_rng(0), np.arange(40) // 4
    first = scores_of(rng.random(40) < 0.8, groups)
    second = scores_of(rng.random(40) < 0.5, groups)
    comparison, exchanged = compare(first, second), compare(second, first)
    low, high = exchanged.interval
    assert comparison.difference == -exchanged.difference
    assert comparison.interval == pytest.approx((-high, -low))
    assert comparison.p_value == exchanged.p_value


def test_the_order_of_the_recordings_does_not_matter():
    first = scores_of([1, 1, 0, 1], paths=["a", "b", "c", "d"])
    second = scores_of([1, 0, 1, 1], paths=["c", "a", "d", "b"])
    comparison = compare(first, second)
    assert comparison.only_first["path"].tolist() == ["a"]
    assert comparison.only_second["path"].tolist() == ["c"]


def test_paths_and_groups_need_not_be_unicode():
    paths, groups = ["a\udce9", "b", "c"], ["x\udce9", "x\udce9", "y"]
    first = scores_of([1, 1, 0], groups, paths)
    comparison = compare(first, scores_of([0, 1, 0], groups, paths))
    assert comparison.only_first["path"].tolist() == ["a\udce9"]
    assert "3 recordings in 2 groups" in str(comparison)
    other = scores_of([0, 1, 0], groups, ["d\udce9", "b", "c"])
    with raises_with(InputError, "compare", "2 in common"):
        compare(first, other)


@pytest.mark.parametrize(("wins", "losses"), [(1, 0), (5, 0), (8, 2), (3, 3), (0, 0)])
def test_p_value_of_independent_recordings_is_that_of_mcnemars_exact_test(wins, losses):
    first = np.r_[np.ones(wins), np.zeros(losses), np.ones(4)]
    second = np.r_[np.zeros(wins), np.ones(losses), np.ones(4)]
    exact = binomtest(wins, wins + losses).pvalue if wins + losses else 1
    p_value = compare(scores_of(first), scores_of(second)).p_value
    assert p_value == pytest.approx(exact)


def test_p_value_counts_all_sign_flips_of_groups():
    groups = [0, 0, 1, 1, 2, 2, 3, 3]
    first = scores_of([1, 1, 1, 0, 1, 1, 0, 0], groups)
    second = scores_of([0, 0, 1, 1, 0, 1, 0, 0], groups)  # gains 2, -1, 1 and 0
    sums = [a * 2 + b + c for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)]
    expected = np.mean(np.abs(sums) >= 2)
    assert compare(first, second).p_value == pytest.approx(expected)


def test_p_value_of_equal_models_is_valid_where_groups_are_correlated():
    """A test that ignores groups rejects too often."""
    rng, groups = np.random.default_rng(0), np.repeat(np.arange(20), 6)
    with_groups, without_groups = [], []
    for _ in range(40):
        first = (rng.random(20) < 0.5)[groups]
        second = (rng.random(20) < 0.5)[groups]
        grouped = compare(scores_of(first, groups), scores_of(second, groups))
        ungrouped = compare(scores_of(first), scores_of(second))
        with_groups.append(grouped.p_value < 0.05)
        without_groups.append(ungrouped.p_value < 0.05)
    assert np.mean(with_groups) <= 0.1
    assert np.mean(without_groups) > 0.2


def test_correlated_groups_widen_the_interval():
    first = np.repeat([1, 1, 0, 1, 0, 1], 5)
    second = np.repeat([0, 1, 1, 0, 0, 1], 5)
    groups = np.arange(30) // 5
    ungrouped = compare(scores_of(first), scores_of(second))
    grouped = compare(scores_of(first, groups), scores_of(second, groups))
    assert np.diff(grouped.interval)[0] > 1.5 * np.diff(ungrouped.interval)[0]
    assert grouped.difference == ungrouped.difference


def test_agreement_on_a_few_recordings_does_not_imply_equal_models():
    comparison = compare(scores_of([1, 1, 0]), scores_of([1, 1, 0]))
    low, high = comparison.interval
    assert (comparison.difference, comparison.p_value) == (0, 1)
    assert low < -0.3
    assert high > 0.3


@pytest.mark.parametrize(
    ("paths", "class_indices"),
    [
        (["a", "b", "x"], [0, 0, 0]),
        (["a", "b"], [0, 0]),
        (["a", "b", "c"], [0, 0, 1]),
    ],
    ids=["other path", "missing recording", "other label"],
)
def test_different_recordings_or_labels_are_an_error(paths, class_indices):
    n = len(paths)
    proba = np.full((n, 2), 0.5)
    second = evaluate_proba(proba, np.array(class_indices), NAMES, paths=paths)
    counts = f"3 and {n} recordings with 2 in common"
    with raises_with(InputError, "compare", "first", "second", counts):
        compare(scores_of([1, 0, 1], paths=["a", "b", "c"]), second)


def test_text_shows_counts_the_difference_and_the_result():
    comparison = compare(scores_of([1, 1, 0, 1]), scores_of([1, 0, 0, 1]))
    counts, difference, result = str(comparison).splitlines()
    assert counts.startswith("4 recordings in 4 groups: 3 correct by the first model")
    assert counts.endswith("2 by the second, 2 by both, 1 by neither")
    low, high = comparison.interval
    assert difference.startswith("difference +0.250  (95 % interval ")
    assert f"{low:+.3f} to {high:+.3f} over recordings; p = 1.000" in difference
    assert result == "These recordings do not show that either model is better."
    assert repr(comparison) == str(comparison)


def test_text_names_the_better_model():
    groups = np.arange(60) // 2
    good = scores_of(np.ones(60), groups)
    poor = scores_of(np.arange(60) % 3 > 0, groups)
    assert "over groups; p = 0.000" in str(compare(good, poor))
    assert "The first model is better" in str(compare(good, poor))
    assert "The second model is better" in str(compare(poor, good))


def test_a_better_model_needs_both_the_interval_and_the_p_value():
    comparison = compare(scores_of(np.ones(5)), scores_of(np.zeros(5)))
    assert comparison.interval[0] > 0
    assert comparison.p_value == 2 / 2**5
    assert str(comparison).endswith("do not show that either model is better.")
