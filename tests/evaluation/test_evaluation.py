import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from cqt2img.errors import InputError
from cqt2img.evaluation.calibration import calibrated_range, calibration_error
from cqt2img.evaluation.evaluation import evaluate_proba
from cqt2img.inference.calibration import log_loss, pool
from tests.conftest import raises_exactly


def draw(n=200, n_classes=6, seed=0, skill=1.0):
    rng = np.random.default_rng(seed)
    codes = rng.integers(n_classes, size=n)
    logits = rng.standard_normal((n, n_classes))
    logits[np.arange(n), codes] += skill
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return proba.astype(np.float32), codes


def names(n):
    return [f"player {k}" for k in range(n)]


def binary(right, groups=None):
    """Answers of two names, all by the first."""
    proba = np.where(
        np.asarray(right, bool)[:, None], [[0.9, 0.1]], [[0.2, 0.8]]
    ).astype(np.float32)
    return evaluate_proba(proba, np.zeros(len(right), int), names(2), groups)


# scores


@pytest.mark.parametrize(
    ("n", "n_classes", "seed"), [(200, 6, 0), (50, 2, 1), (30, 10, 2)]
)
def test_scores_against_sklearn(n, n_classes, seed):
    proba, codes = draw(n, n_classes, seed)
    scores = evaluate_proba(proba, codes, names(n_classes))
    named, every = proba.argmax(axis=1), np.arange(n_classes)
    assert scores.accuracy == pytest.approx(accuracy_score(codes, named))
    assert scores.macro_f1 == pytest.approx(
        f1_score(codes, named, labels=np.unique(codes), average="macro")
    )
    np.testing.assert_array_equal(
        scores.confusion, confusion_matrix(codes, named, labels=every)
    )
    assert (
        set(scores.top_k)
        == set(scores.top_k_interval)
        == {k for k in (1, 3, 5) if k < n_classes}
    )
    for k, value in scores.top_k.items():
        if n_classes > 2:
            assert value == pytest.approx(
                top_k_accuracy_score(codes, proba, k=k, labels=every)
            )
        assert scores.top_k_interval[k][0] < value < scores.top_k_interval[k][1]
    assert scores.top_k[1] == scores.accuracy
    assert scores.log_loss == pytest.approx(log_loss(proba, codes))
    assert scores.chance == 1 / n_classes
    assert scores.majority == np.bincount(codes).max() / n
    assert (scores.n_recordings, scores.n_groups, scores.n_failed) == (n, n, 0)
    trust = proba.max(axis=1).astype(np.float64)
    assert scores.overconfidence == pytest.approx(trust.mean() - scores.accuracy)
    assert scores.calibration_error == calibration_error(trust, named == codes)
    assert scores.calibrated_range == calibrated_range(trust)


def test_f1_counts_only_players_that_occur():
    proba = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    codes = np.array([0, 1, 1, 0])  # nobody is 2, but one is taken for 2
    assert evaluate_proba(proba, codes, names(3)).macro_f1 == pytest.approx(
        (1 + 2 / 3) / 2
    )


@pytest.mark.parametrize(("shift", "value"), [(0, 1), (1, 0)])
def test_perfect_and_hopeless(shift, value):
    codes = np.arange(30) % 3
    scores = evaluate_proba(
        np.eye(3, dtype=np.float32)[(codes + shift) % 3], codes, names(3)
    )
    exact = binomtest(30 * value, 30).proportion_ci()
    assert (scores.accuracy, scores.macro_f1, scores.aurc) == (value, value, 1 - value)
    # thirty of thirty are no certainty
    assert (
        scores.accuracy_interval
        == scores.macro_f1_interval
        == pytest.approx((exact.low, exact.high))
    )
    assert (scores.overconfidence, scores.calibration_error) == (1 - value, 1 - value)


def test_one_of_five():
    scores = binary([1, 0, 0, 0, 0])
    exact = binomtest(1, 5).proportion_ci()
    assert scores.accuracy_interval == pytest.approx((exact.low, exact.high))
    assert (
        "WARNING: 1 of 5 right, in 5 groups, means 0.5 to 72 %. Score recordings of more groups."
        in str(scores)
    )


def test_intervals_are_over_groups():
    right = np.repeat(
        np.arange(10) < 7, 10
    )  # ten albums of ten takes that stand or fall together
    alone, grouped, mixed = (
        binary(right, g)
        for g in (None, np.arange(100) // 10, np.tile(np.arange(10), 10))
    )
    assert (alone.n_groups, grouped.n_groups, mixed.n_groups) == (100, 10, 10)
    for name in (
        "accuracy_interval",
        "macro_f1_interval",
        "log_loss_interval",
        "overconfidence_interval",
    ):
        width, over_groups, over_mixed = (
            np.diff(getattr(one, name))[0] for one in (alone, grouped, mixed)
        )
        assert over_groups > 2.2 * width, name
        assert over_mixed < 1.1 * width, name
    exact = binomtest(7, 10).proportion_ci()
    assert grouped.accuracy_interval == pytest.approx((exact.low, exact.high))


def test_intervals_hold_their_scores():
    proba, codes = draw(100)
    scores = evaluate_proba(proba, codes, names(6), np.arange(100) // 4)
    for name in ("accuracy", "macro_f1", "log_loss", "overconfidence"):
        low, high = getattr(scores, f"{name}_interval")
        assert low < getattr(scores, name) < high, name


def test_log_loss_interval_ends_where_log_loss_can():
    low, high = binary([1]).log_loss_interval
    assert 0 < low < high <= -np.log(1e-12)


def test_trust():
    rng = np.random.default_rng(0)
    trust = rng.uniform(0.5, 1, 2000)
    meant, too_sure = (
        evaluate_proba(
            np.column_stack([trust, 1 - trust]),
            (rng.random(2000) > trust - less) * 1,
            names(2),
        )
        for less in (0, 0.2)
    )
    assert meant.overconfidence_interval[0] < 0 < meant.overconfidence_interval[1]
    assert (
        meant.calibrated_range[0]
        <= meant.calibration_error
        <= meant.calibrated_range[1]
    )
    assert too_sure.overconfidence == pytest.approx(0.2, abs=0.03)
    assert too_sure.calibration_error == pytest.approx(0.2, abs=0.03)
    assert too_sure.calibration_error > too_sure.calibrated_range[1]
    assert "not clearly too sure or too unsure" in str(meant)
    assert ": too sure (" in str(too_sure)


def test_aurc_of_one_who_errs_where_unsure():
    proba = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]], np.float32)
    good = evaluate_proba(proba, np.array([0, 0, 0, 1]), names(2))
    bad = evaluate_proba(proba, np.array([1, 0, 0, 0]), names(2))
    assert good.aurc == pytest.approx((0 + 0 + 0 + 1 / 4) / 4)
    assert bad.aurc == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)


def test_same_input_same_scores():
    proba, codes = draw()
    one, two = (evaluate_proba(proba, codes, names(6)) for _ in range(2))
    assert one.to_dict() == two.to_dict()


def test_one_recording():
    scores = binary([1])
    assert (scores.accuracy, scores.macro_f1) == (1, 1)
    assert (
        scores.accuracy_interval
        == scores.macro_f1_interval
        == pytest.approx((0.025, 1))
    )
    assert scores.calibration_error == pytest.approx(0.1)


def test_nothing_to_score():
    message = "evaluate: X must hold a recording that can be read, got none. See the reasons with identify."
    with raises_exactly(InputError, message):
        evaluate_proba(np.zeros((0, 2), np.float32), np.zeros(0, int), names(2))


# tables


PROBA = np.array(
    [[0.9, 0.1, 0], [0.3, 0.6, 0.1], [0.2, 0.7, 0.1], [0.8, 0.2, 0]], np.float32
)


@pytest.fixture
def few():
    """Evans twice, once taken for Monk; Monk twice, once taken for Evans; Tatum never."""
    return evaluate_proba(
        PROBA,
        np.array([0, 0, 1, 1]),
        ["Evans", "Monk", "Tatum"],
        [7, 7, 8, 9],
        0,
        list("abcd"),
    )


def test_answers(few):
    table = few.answer_table()
    assert table["path"].tolist() == ["a", "b", "c", "d"]
    assert table["group"].tolist() == ["7", "7", "8", "9"]
    assert table["played"].tolist() == ["Evans", "Evans", "Monk", "Monk"]
    assert table["named"].tolist() == ["Evans", "Monk", "Monk", "Evans"]
    assert table["probability"].tolist() == pytest.approx([0.9, 0.6, 0.7, 0.8])
    assert table["played_probability"].tolist() == pytest.approx([0.9, 0.3, 0.7, 0.2])
    assert table["place"].tolist() == [1, 2, 1, 2]


def test_classes(few):
    table = few.class_table().set_index("label")
    assert table["n_recordings"].tolist() == [2, 2, 0]
    assert table["n_groups"].tolist() == [1, 2, 0]
    assert table.loc[["Evans", "Monk"], "taken_for"].tolist() == ["Monk", "Evans"]
    assert (
        table.loc["Tatum", ["recall", "low", "high", "precision", "f1", "taken_for"]]
        .isna()
        .all()
    )
    exact = binomtest(1, 2).proportion_ci()
    assert tuple(table.loc["Monk", ["low", "high"]]) == pytest.approx(
        (exact.low, exact.high)
    )
    assert table.loc["Evans", "high"] - table.loc["Evans", "low"] > 0.98  # one album


def test_classes_against_sklearn():
    proba, codes = draw(120, 4)
    table = evaluate_proba(proba, codes, names(4)).class_table()
    precision, recall, f1, n = precision_recall_fscore_support(
        codes, proba.argmax(axis=1), labels=range(4)
    )
    np.testing.assert_allclose(
        table[["precision", "recall", "f1"]], np.transpose([precision, recall, f1])
    )
    assert table["n_recordings"].tolist() == n.tolist()
    assert ((table["low"] < table["recall"]) & (table["recall"] < table["high"])).all()


def test_groups(few):
    assert few.group_table().to_dict("list") == {
        "group": ["7", "8", "9"],
        "played": ["Evans", "Monk", "Monk"],
        "n_recordings": [2, 1, 1],
        "n_right": [1, 1, 0],
        "most_named": ["Evans", "Monk", "Evans"],
    }


def test_reliability_adds_up_to_the_calibration_error():
    scores = evaluate_proba(*draw(150, 4), names(4))
    table = scores.reliability_table()
    assert len(table) > 1
    assert table["n_recordings"].sum() == 150
    gaps = (
        (table["probability"] - table["accuracy"]).abs() * table["n_recordings"] / 150
    )
    assert gaps.sum() == pytest.approx(scores.calibration_error)
    assert table["accuracy"].is_monotonic_increasing
    assert (
        (table["low"] <= table["accuracy"]) & (table["accuracy"] <= table["high"])
    ).all()


def test_risk(few):
    table = few.risk_table()
    assert table["answered"].tolist() == [0.25, 0.5, 0.75, 1]
    assert table["n_recordings"].tolist() == [1, 2, 3, 4]
    assert table["accuracy"].tolist() == pytest.approx([1, 1 / 2, 2 / 3, 1 / 2])
    assert table["probability"].tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6])
    full = evaluate_proba(*draw(200), names(6))
    assert full.risk_table()["answered"].tolist() == pytest.approx(
        np.arange(1, 21) / 20
    )
    last = full.risk_table().iloc[-1]
    assert (last["accuracy"], last["low"], last["high"]) == (
        full.accuracy,
        *full.accuracy_interval,
    )


def test_seconds_are_answers_pooled_over_the_first_tiles(few):
    rng = np.random.default_rng(0)
    lengths = (4, 1, 3, 2)
    tiles = tuple(
        np.log(rng.dirichlet(np.ones(3), n)).astype(np.float32) for n in lengths
    )
    table = replace(few, tiles=tiles, tile_seconds=2.5).seconds_table()
    assert table["seconds"].tolist() == [2.5, 5.0, 7.5, 10.0]
    assert table["n_recordings"].tolist() == [4, 3, 2, 1]
    for k, accuracy in enumerate(table["accuracy"], start=1):
        long = [n for n in range(4) if lengths[n] >= k]
        assert accuracy == np.mean(
            [pool(tiles[n][:k]).argmax() == few.codes[n] for n in long]
        )


def test_a_sure_tile_outvotes_an_unsure_one(few):
    unsure, sure = np.log([[0.4, 0.6, 1e-6]]), np.log([[0.9, 0.1, 1e-6]])
    tiles = tuple(
        np.concatenate([unsure, sure])[:, order]
        for order in ([0, 1, 2], [0, 1, 2], [1, 0, 2], [1, 0, 2])
    )
    assert replace(few, tiles=tiles, tile_seconds=1.0).seconds_table()[
        "accuracy"
    ].tolist() == [0, 1]


def test_seconds_of_long_recordings_are_a_dozen(few):
    tiles = tuple(np.zeros((500, 3), np.float32) for _ in range(4))
    table = replace(few, tiles=tiles, tile_seconds=6.0).seconds_table()
    assert 8 <= len(table) <= 12
    assert table["seconds"].iloc[[0, -1]].tolist() == [6.0, 3000.0]


def test_seconds_without_tiles(few):
    table = few.seconds_table()
    assert len(table) == 0
    assert list(table) == ["seconds", "accuracy", "low", "high", "n_recordings"]


# words


def test_text_for_people():
    proba, codes = draw(120, 6)
    scores = replace(
        evaluate_proba(proba, codes, names(6), np.arange(120) // 2), n_failed=2
    )
    lines = str(scores).splitlines()

    def between(interval):
        return f"{interval[0]:.3f} to {interval[1]:.3f}"

    low, high = scores.overconfidence_interval
    trust = f"{proba.max(axis=1).mean():.3f}"
    assert lines == [
        "120 recordings in 60 groups, 6 classes; 2 could not be read",
        f"accuracy  {scores.accuracy:.3f}  (95 % interval {between(scores.accuracy_interval)}, as all over groups)",
        f"top 3     {scores.top_k[3]:.3f}  ({between(scores.top_k_interval[3])})",
        f"top 5     {scores.top_k[5]:.3f}  ({between(scores.top_k_interval[5])})",
        f"macro F1  {scores.macro_f1:.3f}  ({between(scores.macro_f1_interval)})",
        f"chance    {1 / 6:.3f}",
        f"majority  {scores.majority:.3f}",
        f"log-loss  {scores.log_loss:.3f}  ({between(scores.log_loss_interval)}; of one who does not know 1.792)",
        f"trust     {trust}  is the mean probability of its answers: not clearly too sure or too unsure "
        f"({low:+.3f} to {high:+.3f})",
        f"calibration error {scores.calibration_error:.3f} (of one who means these probabilities "
        f"{between(scores.calibrated_range)})",
    ]
    assert repr(scores) == str(scores)


def warnings_of(scores):
    return [line for line in str(scores).splitlines() if line.startswith("WARNING")]


def test_warning_of_recordings_that_cannot_tell():
    codes = np.arange(200) % 2
    proba = np.where(
        (codes == (np.arange(200) // 2) % 2)[:, None], [[0.9, 0.1]], [[0.1, 0.9]]
    )
    guess = evaluate_proba(
        np.where(codes[:, None] == 0, proba, proba[:, ::-1]), codes, names(2)
    )
    assert guess.accuracy == 0.5
    assert warnings_of(guess) == [
        "WARNING: these recordings cannot tell this model from one that guesses, 0.500."
    ]


def test_warning_of_one_that_always_says_the_same():
    proba = np.tile([[0.8, 0.1, 0.1]], (200, 1))
    always = evaluate_proba(proba, np.where(np.arange(200) % 5 < 4, 0, 1), names(3))
    assert warnings_of(always) == [
        "WARNING: these recordings cannot tell this model from one that always says the most frequent name, 0.800."
    ]


def test_no_warning_where_there_is_nothing_to_warn_of():
    codes = np.arange(200) % 4
    assert warnings_of(evaluate_proba(np.eye(4)[codes], codes, names(4))) == []


def test_warning_about_groups_from_training():
    scores = replace(
        evaluate_proba(*draw(200), names(6)), known_groups=("Evans/Sunday", "Monk/Solo")
    )
    assert warnings_of(scores) == [
        "WARNING: 2 of these groups were in training, such as 'Evans/Sunday'. "
        "This score says nothing about recordings it never met."
    ]


# files


def test_save(tmp_path):
    scores = evaluate_proba(
        *draw(20), names(6), np.arange(20) // 2, 1, [f"{n}.wav" for n in range(20)]
    )
    scores = replace(
        scores,
        tiles=tuple(np.log(scores.proba[:, None])),
        tile_seconds=2.0,
        known_groups=("3",),
    )
    folder = tmp_path / "new" / "scores"
    scores.save(folder)
    files = [
        "answers.csv",
        "classes.csv",
        "confusion.csv",
        "evaluation.json",
        "groups.csv",
    ]
    assert sorted(p.name for p in folder.iterdir()) == files
    read = json.loads((folder / "evaluation.json").read_text())
    assert read == scores.to_dict()
    assert read["accuracy"] == scores.accuracy
    assert read["top_k"] == {
        "1": scores.accuracy,
        "3": scores.top_k[3],
        "5": scores.top_k[5],
    }
    assert read["seconds"][0]["accuracy"] == scores.accuracy
    assert (read["n_failed"], read["known_groups"]) == (1, ["3"])
    assert len(read["warnings"]) == len(warnings_of(scores))
    frame = pd.read_csv(folder / "confusion.csv", index_col=0)
    assert list(frame) == list(frame.index) == names(6)
    assert frame.index.name == "played \\ named"
    np.testing.assert_array_equal(frame.to_numpy(), scores.confusion)
    for name, table in (
        ("answers", scores.answer_table()),
        ("classes", scores.class_table()),
    ):
        read = pd.read_csv(folder / f"{name}.csv", dtype={"group": str})
        assert list(read) == list(table)
        for column in table:
            if read[column].dtype.kind in "fi":
                np.testing.assert_allclose(read[column], table[column], rtol=1e-6)
            else:
                assert (
                    read[column].fillna("").tolist()
                    == table[column].fillna("").tolist()
                )


def test_save_paths_that_are_not_unicode(tmp_path):
    replace(binary([1, 0]), paths=("old\udce9.wav", "b.wav")).save(tmp_path)
    assert b"old\xe9.wav" in (tmp_path / "answers.csv").read_bytes()


def test_json_is_plain(few):
    assert json.loads(json.dumps(few.to_dict(), allow_nan=False)) == few.to_dict()
