import numpy as np
import pytest
import torch
from conftest import make_cqt, refused

from cqt2img.backbone import build_network
from cqt2img.dataset import load_strips
from cqt2img.errors import Cqt2imgError, InputError
from cqt2img.labels import one_hot
from cqt2img.predict import pool, tile_log_proba
from cqt2img.source import list_recordings
from cqt2img.train import Recipe, TrainingError, _settle_norms, epoch_bar, train

GOOD = {"epochs": 8, "batch_size": 8, "learning_rate": 3e-2, "weight_decay": 0.05, "augment": "none",
        "precision": "fp32", "seed": 0}  # fmt: skip
CODES = np.array([0, 1] * 6)
SIDES = np.arange(8), np.arange(8, 12)


def recipe(**changes):
    return Recipe(**{**GOOD, **changes})


@pytest.fixture(scope="module")
def strips(small):
    """Twelve recordings, by turns with a low and with a high line."""
    cqts = [make_cqt((10, 45)[n % 2] + n % 3, 40 + n, seed=n) for n in range(12)]
    return load_strips(list_recordings(cqts), small)[0]


def run(strips, sides=SIDES, on_epoch=None, codes=CODES, name="test_resnet", **changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(name, 2, strips.spec)
    return network, train(network, strips, one_hot(codes, 2), sides, recipe(**changes), "cpu", on_epoch)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext"])
def test_learns_low_from_high(strips, name):
    rate = 1e-3 if name == "test_vit" else 3e-3  # at 3e-3 the transformer does not learn
    _, trained = run(strips, name=name, epochs=12, batch_size=4, learning_rate=rate)
    assert max(entry["valid_accuracy"] for entry in trained.history) == 1.0
    assert trained.history[-1]["loss"] < 0.5 * trained.history[0]["loss"]


def test_learns_through_augmentation(strips):
    _, trained = run(strips, augment="album", epochs=12, batch_size=4, learning_rate=1e-2)
    assert max(entry["valid_accuracy"] for entry in trained.history) == 1.0


def test_history_has_one_entry_per_epoch(strips):
    seen = []
    _, trained = run(strips, on_epoch=seen.append, epochs=3)
    assert seen == trained.history
    assert [entry["epoch"] for entry in seen] == [1, 2, 3]
    assert all(list(e) == ["epoch", "loss", "valid_accuracy", "valid_loss", "seconds"] for e in seen)


def test_first_loss_is_that_of_one_who_does_not_know(strips):
    _, trained = run(strips, epochs=1, learning_rate=1e-6)
    assert trained.history[0]["loss"] == pytest.approx(np.log(2), abs=0.1)


def test_without_validation_the_last_epoch_is_kept(strips):
    network, trained = run(strips, (np.arange(12), np.arange(0)), epochs=2)
    assert [(e["valid_accuracy"], e["valid_loss"]) for e in trained.history] == [(None, None)] * 2
    assert trained.validation.shape == (0, 0)
    assert all(torch.equal(v, trained.state[k]) for k, v in network.state_dict().items())


def rank(entry):
    return entry["valid_accuracy"], -entry["valid_loss"]


def test_best_epoch_is_kept(strips):
    # the validation labels are turned round: the more it learns, the worse it gets
    codes = np.concatenate([CODES[:8], 1 - CODES[8:]])
    network, trained = run(strips, codes=codes, epochs=12)
    best = max(trained.history, key=rank)
    assert best["epoch"] < 12
    assert rank(trained.history[-1]) < rank(best)
    proba = np.exp(trained.validation)
    assert (proba.argmax(axis=1) == codes[8:]).mean() == best["valid_accuracy"]
    assert -np.log(proba[range(4), codes[8:]]).mean() == pytest.approx(best["valid_loss"], abs=1e-5)
    assert not all(torch.equal(v, trained.state[k]) for k, v in network.state_dict().items())
    network.load_state_dict(trained.state)
    kept = [pool(tile_log_proba(network, strips.tiles(n), torch.device("cpu"))) for n in SIDES[1]]
    np.testing.assert_allclose(kept, trained.validation, atol=1e-5)


def test_same_seed_same_history(strips):
    first, second = (run(strips, epochs=3, augment="album")[1] for _ in range(2))
    other = run(strips, epochs=3, augment="album", seed=1)[1]
    losses = [[entry["loss"] for entry in one.history] for one in (first, second, other)]
    assert losses[0] == losses[1] != losses[2]
    assert all(torch.equal(v, second.state[k]) for k, v in first.state.items())


def test_the_draws_of_the_caller_are_untouched(strips):
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    run(strips, epochs=1, augment="album")
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


def test_the_draws_of_the_caller_change_nothing(strips):
    torch.manual_seed(1)
    first = run(strips, epochs=2, name="test_vit")[1]
    torch.manual_seed(2)
    second = run(strips, epochs=2, name="test_vit")[1]
    assert [e["loss"] for e in first.history] == [e["loss"] for e in second.history]


def test_loss_that_is_no_number(strips):
    torch.manual_seed(0)
    network = build_network("test_resnet", 2, strips.spec)
    with torch.no_grad():
        next(network.parameters()).fill_(np.nan)
    message = "fit: loss must stay a number, got nan at step 1. Lower learning_rate, or set precision='fp32'."
    with refused(TrainingError, message):
        train(network, strips, one_hot(CODES, 2), SIDES, recipe(epochs=1), "cpu")
    assert issubclass(TrainingError, (Cqt2imgError, RuntimeError))


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_any_batch_size(strips, batch_size):
    # batch norm cannot learn from a single value; layer norm can
    _, trained = run(strips, name="test_vit", epochs=1, batch_size=batch_size)
    assert np.isfinite(trained.history[0]["loss"])


def test_lower_precision_after_full_precision(strips):
    full, half, again = (run(strips, epochs=1, precision=p)[1] for p in ("fp32", "bf16", "fp32"))
    assert full.history[0]["loss"] == again.history[0]["loss"] != half.history[0]["loss"]
    assert half.history[0]["loss"] == pytest.approx(full.history[0]["loss"], abs=0.05)


@pytest.mark.parametrize("name", ["epochs", "batch_size"])
@pytest.mark.parametrize("bad", [0, -1, 1.5, "3", True, None])
def test_counts_are_whole_numbers(name, bad):
    with refused(InputError, f"fit: {name} must be a whole number from 1, got {bad!r}. Choose another."):
        recipe(**{name: bad})


@pytest.mark.parametrize(
    ("name", "bad", "rule"),
    [
        ("learning_rate", 0, "be above 0"),
        ("learning_rate", -1e-3, "be above 0"),
        ("learning_rate", float("nan"), "be above 0"),
        ("weight_decay", -0.1, "be 0 or more"),
        ("augment", "strong", "be one of album, none"),
        ("augment", None, "be one of album, none"),
        ("precision", "fp16", "be one of auto, fp32, bf16"),
    ],
)
def test_recipe_refuses(name, bad, rule):
    with refused(InputError, f"fit: {name} must {rule}, got {bad!r}. Choose another."):
        recipe(**{name: bad})


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay"])
@pytest.mark.parametrize("bad", ["fast", None, float("inf")])
def test_rates_are_numbers(name, bad):
    rule = {"learning_rate": "be above 0", "weight_decay": "be 0 or more"}[name]
    with refused(InputError, f"fit: {name} must {rule}, got {bad!r}. Choose another."):
        recipe(**{name: bad})


def test_recipe_takes_numpy_numbers():
    assert recipe(epochs=np.int64(3), learning_rate=np.float32(0.1)).epochs == 3


@pytest.mark.parametrize("visible", [True, False])
def test_epoch_bar_is_silent_where_nobody_looks(visible, capsys):
    with epoch_bar(2, visible) as bar:
        bar({"epoch": 1, "loss": 0.5, "valid_accuracy": 0.5, "valid_loss": 0.5})
        bar({"epoch": 2, "loss": 0.5, "valid_accuracy": None, "valid_loss": None})
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("seed", [-1, "now", None, 1.5, 2**32])
def test_a_seed_that_is_none(seed):
    with refused(InputError, f"fit: random_state must be a whole number from 0, got {seed!r}. Choose another."):
        recipe(seed=seed)


def test_norms_average_over_all_steps_until_their_own_memory_is_as_long():
    """The mean of the first three batches, which lie at 1, 2 and 3, is 2."""
    norm = torch.nn.BatchNorm2d(1)
    for step, level in enumerate((1.0, 2.0, 3.0)):
        _settle_norms([(norm, 0.1)], step)
        norm(torch.full((2, 1, 4, 4), level))
    assert norm.running_mean.item() == pytest.approx(2)
    _settle_norms([(norm, 0.1)], 100)
    assert norm.momentum == 0.1
