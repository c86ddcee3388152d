import numpy as np
import pytest
from scipy.stats import binomtest

from cqt2img.errors import InputError
from cqt2img.evaluation.comparison import compare
from cqt2img.evaluation.evaluation import evaluate_proba
from tests.conftest import raises_exactly

NAMES = ["Evans", "Monk"]


def scores_of(right, groups=None, paths=None):
    """A model that is right on some recordings, all by Evans."""
    proba = np.where(
        np.asarray(right, bool)[:, None], [[0.9, 0.1]], [[0.2, 0.8]]
    ).astype(np.float32)
    return evaluate_proba(proba, np.zeros(len(right), int), NAMES, groups, 0, paths)


def test_who_gets_what():
    found = compare(scores_of([1, 1, 0, 1, 0]), scores_of([1, 0, 0, 0, 1]))
    assert found.difference == pytest.approx(0.2)
    assert found.only_first["path"].tolist() == ["1", "3"]
    assert found.only_second["path"].tolist() == ["4"]
    assert found.only_second.loc[0, ["played", "first", "second"]].tolist() == [
        "Evans",
        "Monk",
        "Evans",
    ]
    assert found.table.columns.tolist() == [
        "path",
        "group",
        "played",
        "first",
        "second",
        "first_right",
        "second_right",
    ]


def test_the_other_way_round_is_the_same_with_the_other_sign():
    rng = np.random.default_rng(0)
    one, other = (scores_of(rng.random(40) < p, np.arange(40) // 4) for p in (0.8, 0.5))
    found, turned = compare(one, other), compare(other, one)
    assert found.difference == -turned.difference
    assert found.interval == pytest.approx((-turned.interval[1], -turned.interval[0]))
    assert found.p_value == turned.p_value


def test_recordings_may_come_in_another_order():
    right, other = np.array([1, 1, 0, 1]), np.array([0, 1, 1, 1])
    paths, order = ["a", "b", "c", "d"], np.array([2, 0, 3, 1])
    straight = compare(scores_of(right, None, paths), scores_of(other, None, paths))
    turned = scores_of(other[order], None, [paths[n] for n in order])
    mixed = compare(scores_of(right, None, paths), turned)
    assert (
        mixed.only_first["path"].tolist()
        == straight.only_first["path"].tolist()
        == ["a"]
    )
    assert mixed.only_second["path"].tolist() == ["c"]


@pytest.mark.parametrize(("wins", "losses"), [(1, 0), (5, 0), (8, 2), (3, 3), (0, 0)])
def test_groups_of_one_give_the_exact_test_of_mcnemar(wins, losses):
    first = np.r_[np.ones(wins), np.zeros(losses), np.ones(4)]
    second = np.r_[np.zeros(wins), np.ones(losses), np.ones(4)]
    exact = binomtest(wins, wins + losses).pvalue if wins + losses else 1
    assert compare(scores_of(first), scores_of(second)).p_value == pytest.approx(exact)


def test_p_against_all_flips_of_the_signs_of_groups():
    first, second = (
        np.array([1, 1, 1, 0, 1, 1, 0, 0]),
        np.array([0, 0, 1, 1, 0, 1, 0, 0]),
    )
    groups = [0, 0, 1, 1, 2, 2, 3, 3]  # gains 2, -1, 1, 0
    sums = [a * 2 + b * 1 + c * 1 for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)]
    by_hand = np.mean(np.abs(sums) >= 2)
    assert compare(
        scores_of(first, groups), scores_of(second, groups)
    ).p_value == pytest.approx(by_hand)


def test_p_is_right_where_albums_stand_or_fall_together():
    """Where no model is better, p is seldom below .05; a test that ignores albums is wrong more often."""
    rng, groups = np.random.default_rng(0), np.repeat(np.arange(20), 6)
    found, naive = [], []
    for _ in range(40):
        one, other = (rng.random(20) < 0.5)[groups], (rng.random(20) < 0.5)[groups]
        found.append(
            compare(scores_of(one, groups), scores_of(other, groups)).p_value < 0.05
        )
        naive.append(compare(scores_of(one), scores_of(other)).p_value < 0.05)
    assert np.mean(found) <= 0.1
    assert np.mean(naive) > 0.2


def test_albums_widen_the_interval():
    first, second = np.repeat([1, 1, 0, 1, 0, 1], 5), np.repeat([0, 1, 1, 0, 0, 1], 5)
    alone, grouped = (
        compare(scores_of(first, g), scores_of(second, g))
        for g in (None, np.arange(30) // 5)
    )
    assert np.diff(grouped.interval)[0] > 1.5 * np.diff(alone.interval)[0]
    assert grouped.difference == alone.difference


def test_two_models_that_agree_on_a_few():
    found = compare(scores_of([1, 1, 0]), scores_of([1, 1, 0]))
    assert (found.difference, found.p_value) == (0, 1)
    assert found.interval[0] < -0.3
    assert found.interval[1] > 0.3


@pytest.mark.parametrize(
    ("paths", "codes", "counts"),
    [
        (["a", "b", "x"], [0, 0, 0], "3 and 3 with 2"),
        (["a", "b"], [0, 0], "3 and 2 with 2"),
        (["a", "b", "c"], [0, 0, 1], "3 and 3 with 2"),
    ],
)
def test_other_recordings_are_refused(paths, codes, counts):
    other = evaluate_proba(
        np.full((len(paths), 2), 0.5, np.float32),
        np.array(codes),
        NAMES,
        None,
        0,
        paths,
    )
    message = (
        f"compare: first and second must score the same recordings with the same labels, got {counts} in common. "
        "Evaluate both models on the same."
    )
    with raises_exactly(InputError, message):
        compare(scores_of([1, 0, 1], None, ["a", "b", "c"]), other)


def test_text_for_people():
    found = compare(scores_of([1, 1, 0, 1]), scores_of([1, 0, 0, 1]))
    low, high = found.interval
    assert str(found).splitlines() == [
        "4 recordings in 4 groups: 3 right by the first model, 2 by the second, 2 by both, 1 by neither",
        f"difference +0.250  (95 % interval {low:+.3f} to {high:+.3f} over recordings; p = 1.000)",
        "On recordings like these either may be the better.",
    ]
    clear = compare(
        scores_of(np.ones(60), np.arange(60) // 2),
        scores_of(np.arange(60) % 3 > 0, np.arange(60) // 2),
    )
    assert " over groups; p = 0.000)" in str(clear)
    assert str(clear).endswith("On recordings like these the first is better.")
    turned = compare(scores_of(np.arange(60) % 3 > 0), scores_of(np.ones(60)))
    assert str(turned).endswith("On recordings like these the second is better.")
    assert repr(clear) == str(clear)


def test_better_takes_both_the_interval_and_p():
    found = compare(scores_of(np.ones(5)), scores_of(np.zeros(5)))
    assert found.interval[0] > 0
    assert found.p_value == 2 / 2**5
    assert str(found).endswith("either may be the better.")
