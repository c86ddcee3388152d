import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from cqt2img.inference.calibration import fit_temperature, log_loss, pool, to_proba
from cqt2img.inference.predict import (
    RecordingOutput,
    predict_recordings,
    tile_log_proba,
)
from cqt2img.inference.tables import answer, recording_table, tile_table
from cqt2img.models.factory import build_network
from cqt2img.tiles.extract import RecordingInfo, try_extract
from tests.conftest import make_cqt

CPU = torch.device("cpu")
NAMES = np.array(["Evans", "Monk", "Tatum"])


def random_log_proba(n, n_classes=3, scale=1.0, seed=0):
    logits = scale * np.random.default_rng(seed).standard_normal((n, n_classes))
    return log_softmax(logits, axis=1).astype(np.float32)


@pytest.fixture
def network(small):
    torch.manual_seed(0)
    return build_network("test_resnet", 3, small)


@pytest.fixture
def tiles(small):
    return np.random.default_rng(0).integers(0, 256, (5, *small.size), dtype=np.uint8)


def test_tile_log_proba_adds_up(network, tiles):
    rows = tile_log_proba(network, tiles, CPU)
    assert (rows.shape, rows.dtype) == ((5, 3), np.float32)
    np.testing.assert_allclose(np.exp(rows).sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_neighbours_in_a_batch_change_nothing(network, tiles, batch_size):
    expected = tile_log_proba(network, tiles, CPU)
    network.train()  # it must be set to evaluate
    np.testing.assert_allclose(
        tile_log_proba(network, tiles, CPU, batch_size), expected, atol=1e-5
    )
    assert not network.training


def test_order_of_tiles_is_kept(network, tiles):
    expected = tile_log_proba(network, tiles, CPU)[::-1]
    np.testing.assert_allclose(
        tile_log_proba(network, tiles[::-1].copy(), CPU, 2), expected, atol=1e-5
    )


def test_pool_of_one_tile_is_that_tile():
    row = random_log_proba(1)
    np.testing.assert_allclose(pool(row), row[0], atol=1e-6)


def test_pool_is_the_normalised_geometric_mean():
    rows = random_log_proba(7)
    mean = np.exp(rows.astype(float)).prod(axis=0) ** (1 / 7)
    np.testing.assert_allclose(np.exp(pool(rows)), mean / mean.sum(), atol=1e-6)


def test_pool_does_not_depend_on_order_or_repetition():
    rows = random_log_proba(4)
    np.testing.assert_allclose(pool(rows[::-1]), pool(rows), atol=1e-6)
    np.testing.assert_allclose(pool(np.repeat(rows, 9, axis=0)), pool(rows), atol=1e-6)


def test_pool_of_opposite_tiles_is_undecided():
    rows = np.log(np.array([[0.9, 0.1], [0.1, 0.9]], np.float32))
    np.testing.assert_allclose(np.exp(pool(rows)), [0.5, 0.5], atol=1e-6)


def test_temperature_one_changes_nothing():
    rows = random_log_proba(6)
    np.testing.assert_allclose(to_proba(rows), np.exp(rows), atol=1e-6)


@pytest.mark.parametrize("temperature", [0.25, 0.5, 2.0, 10.0])
def test_temperature_divides_the_logits(temperature):
    logits = np.random.default_rng(0).standard_normal((6, 3))
    rows = log_softmax(logits, axis=1).astype(np.float32)
    np.testing.assert_allclose(
        to_proba(rows, temperature), softmax(logits / temperature, axis=1), atol=1e-6
    )
    assert (to_proba(rows, temperature).argmax(axis=1) == logits.argmax(axis=1)).all()


def test_warmer_is_less_sure():
    row = random_log_proba(1, scale=3)[0]
    highest = [to_proba(row, t).max() for t in (0.25, 1, 4, 10, 1e6)]
    assert highest == sorted(highest, reverse=True)
    assert highest[-1] == pytest.approx(1 / 3, abs=1e-4)


def test_to_proba_of_the_very_sure():
    row = np.array([0, -1e4, -np.inf], np.float32)
    np.testing.assert_array_equal(to_proba(row, 0.25), [1, 0, 0])


@pytest.mark.parametrize("true", [0.5, 1.0, 2.5, 6.0])
def test_fit_temperature_finds_how_far_the_logits_were_blown_up(true):
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((6000, 4))
    proba = softmax(logits, axis=1)
    codes = np.array([rng.choice(4, p=p) for p in proba])
    found = fit_temperature(
        log_softmax(logits * true, axis=1).astype(np.float32), codes
    )
    assert found == pytest.approx(true, rel=0.06)


def test_fitted_temperature_calibrates():
    rng = np.random.default_rng(1)
    logits = 2 * rng.standard_normal((8000, 3))
    codes = np.array([rng.choice(3, p=p) for p in softmax(logits, axis=1)])
    blown = log_softmax(4 * logits, axis=1).astype(np.float32)

    def gap(temperature):  # expected calibration error in ten bins
        proba = to_proba(blown, temperature)
        sure, right = proba.max(axis=1), proba.argmax(axis=1) == codes
        bins = np.minimum(9, (sure * 10).astype(int))
        parts = [(bins == b) for b in range(10) if (bins == b).any()]
        return sum(
            part.mean() * abs(sure[part].mean() - right[part].mean()) for part in parts
        )

    fitted = fit_temperature(blown[:4000], codes[:4000])
    assert gap(1.0) > 0.1
    assert gap(fitted) < 0.02


def test_few_recordings_move_the_temperature_little_and_many_move_it_to_its_bound():
    sure = np.log(np.array([[0.7, 0.3], [0.3, 0.7]], np.float32))
    few = fit_temperature(sure, np.array([0, 1]))
    many = fit_temperature(np.tile(sure, (5000, 1)), np.tile([0, 1], 5000))
    assert 0.7 < few < 1
    assert many == pytest.approx(0.1, abs=0.06)
    assert many >= 0.1
    wrong = fit_temperature(np.tile(sure, (5000, 1)), np.tile([1, 0], 5000))
    assert wrong == pytest.approx(10, rel=0.01)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_log_loss_of_one_who_does_not_know(n_classes):
    proba = np.full((3, n_classes), 1 / n_classes, np.float32)
    assert log_loss(proba, np.array([0, 1, 1])) == pytest.approx(np.log(n_classes))


def test_log_loss_against_sklearn():
    from sklearn.metrics import log_loss as expected

    proba = np.exp(random_log_proba(50).astype(np.float64))
    proba /= proba.sum(axis=1, keepdims=True)
    codes = np.arange(50) % 3
    assert log_loss(proba.astype(np.float32), codes) == pytest.approx(
        expected(codes, proba), abs=1e-5
    )


def test_log_loss_of_one_who_is_sure():
    proba = np.array([[1, 0], [0, 1]], np.float32)
    assert log_loss(proba, np.array([0, 1])) == 0
    assert np.isfinite(log_loss(proba, np.array([1, 0])))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_listen_goes_on_after_a_bad_recording(small, network, place):
    cqts = [make_cqt(5, 100), make_cqt(9, 40)]
    cqts.insert(place, np.zeros((60, 40)))
    heard = list(
        predict_recordings(network, (try_extract(cqt, small) for cqt in cqts), CPU)
    )
    assert [one.tile_log_proba is None for one in heard] == [
        n == place for n in range(3)
    ]
    assert [one.log_proba is None for one in heard] == [n == place for n in range(3)]
    assert heard[place].info.reason == "silent"
    for cqt, one in zip(cqts, heard, strict=True):
        if one.tile_log_proba is not None:
            tiles, _ = try_extract(cqt, small)
            np.testing.assert_array_equal(
                one.tile_log_proba, tile_log_proba(network, tiles, CPU)
            )
            np.testing.assert_array_equal(one.log_proba, pool(one.tile_log_proba))


def heard(small, n_tiles=3):
    ok = RecordingInfo(seconds=4.0)
    bad = RecordingInfo("error", "silent", "It is silent.")
    rows = random_log_proba(n_tiles)
    return [RecordingOutput(ok, rows, pool(rows)), RecordingOutput(bad, None, None)]


def test_recording_answers(small):
    found = recording_table(["a.wav", "b.wav"], heard(small), NAMES, 2.0, 2)
    assert list(found) == [
        "path",
        "label",
        "probability",
        "label_2",
        "probability_2",
        "status",
        "reason",
        "message",
    ]
    proba = to_proba(pool(random_log_proba(3)), 2.0)
    order = np.argsort(-proba)
    assert found.iloc[0][["path", "label", "label_2", "status"]].tolist() == [
        "a.wav",
        *NAMES[order[:2]],
        "ok",
    ]
    assert found.iloc[0]["probability"] == pytest.approx(proba.max(), abs=1e-6)
    assert found.iloc[1].isna().tolist() == [
        False,
        True,
        True,
        True,
        True,
        False,
        False,
        False,
    ]
    assert found.iloc[1][["status", "reason", "message"]].tolist() == [
        "error",
        "silent",
        "It is silent.",
    ]


def test_tile_answers(small):
    found = tile_table(["a.wav", "b.wav"], heard(small), NAMES, 1.0, small, 1)
    assert found["path"].tolist() == ["a.wav"] * 3 + ["b.wav"]
    seconds = small.tile_seconds
    assert found["start_seconds"][:3].tolist() == pytest.approx(
        [0, seconds, 2 * seconds], abs=1e-3
    )
    assert found["end_seconds"][:3].tolist() == pytest.approx(
        [seconds, 2 * seconds, 4.0], abs=1e-3
    )
    rows = random_log_proba(3)
    assert found["label"][:3].tolist() == NAMES[rows.argmax(axis=1)].tolist()
    assert found["probability"][:3].tolist() == pytest.approx(
        np.exp(rows).max(axis=1).tolist(), abs=1e-5
    )
    assert (
        found.iloc[3][["start_seconds", "end_seconds", "label", "probability"]]
        .isna()
        .all()
    )
    assert found["reason"].tolist() == ["", "", "", "silent"]


def test_answer_of_whole_numbers_is_a_plain_value():
    words = answer(np.array([0.2, 0.5, 0.3], np.float32), np.array([7, 8, 9]), 9)
    assert words == {
        "label": 8,
        "probability": 0.5,
        "label_2": 9,
        "probability_2": 0.3,
        "label_3": 7,
        "probability_3": 0.2,
    }
    assert type(words["label"]) is int


def test_no_answer():
    assert answer(None, NAMES, 2) == {
        "label": None,
        "probability": None,
        "label_2": None,
        "probability_2": None,
    }
