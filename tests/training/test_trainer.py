import re

import numpy as np
import pytest
import torch

from cqt2img.data.dataset import TrainingData
from cqt2img.data.labels import one_hot
from cqt2img.data.recordings import list_recordings
from cqt2img.data.tile_arrays import load_tile_arrays
from cqt2img.errors import Cqt2imgError, InputError
from cqt2img.inference.calibration import pool
from cqt2img.inference.predict import tile_log_proba
from cqt2img.models.factory import TileNet, build_network
from cqt2img.tiles.spec import TileSpec
from cqt2img.training import checkpoint as checkpoint_module
from cqt2img.training.callbacks import Callback, default_callbacks
from cqt2img.training.checkpoint import BEST, LAST
from cqt2img.training.config import TrainingConfig, resolve_config
from cqt2img.training.trainer import TrainingError, _mix, _settle_norms, train
from tests.conftest import make_cqt, raises_exactly

GOOD = {
    "epochs": 8,
    "batch_size": 8,
    "learning_rate": 3e-2,
    "weight_decay": 0.05,
    "augment": "none",
    "precision": "fp32",
    "seed": 0,
}
CODES = np.array([0, 1] * 6)
SIDES = np.arange(8), np.arange(8, 12)


def recipe(**changes):
    return TrainingConfig(**{**GOOD, **changes})


@pytest.fixture(scope="module")
def strips(small):
    """Twelve recordings, by turns with a low and with a high line."""
    cqts = [make_cqt((10, 45)[n % 2] + n % 3, 40 + n, seed=n) for n in range(12)]
    return load_tile_arrays(list_recordings(cqts), small)[0]


class Seen(Callback):
    def __init__(self):
        self.entries, self.losses, self.begun = [], [], None

    def begin(self, *words):
        self.begun = words

    def step(self, loss):
        self.losses.append(loss)

    def epoch(self, entry):
        self.entries.append(entry)


def make_network(strips, name="test_resnet"):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_network(name, 2, strips.spec)


def stopped(strips, folder, **words):
    """Train one epoch of three, and stop."""

    class Stopper(Seen):
        def step(self, loss):
            super().step(loss)
            if len(self.losses) == 6:  # an epoch has four steps
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(strips, watch=Stopper(), checkpoint=folder, epochs=3, batch_size=4, **words)


def make_corpus(strips, sides=SIDES, codes=CODES):
    return TrainingData(strips, one_hot(codes, 2), np.arange(12) // 4, *sides)


def run(
    strips,
    sides=SIDES,
    watch=None,
    codes=CODES,
    name="test_resnet",
    checkpoint=None,
    resume=False,
    **changes,
):
    network = make_network(strips, name)
    corpus = make_corpus(strips, sides, codes)
    return network, train(
        network, corpus, recipe(**changes), "cpu", watch, checkpoint, resume
    )


def same(one, other):
    history = [
        [{k: v for k, v in entry.items() if k != "seconds"} for entry in t.history]
        for t in (one, other)
    ]
    return (
        history[0] == history[1]
        and all(torch.equal(v, other.state[k]) for k, v in one.state.items())
        and np.array_equal(one.validation, other.validation)
    )


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext"]
)
def test_learns_low_from_high(strips, name):
    rate = (
        3e-4 if name == "test_vit" else 3e-3
    )  # at 3e-3 the transformer does not learn
    _, trained = run(strips, name=name, epochs=12, batch_size=4, learning_rate=rate)
    assert max(entry["valid_accuracy"] for entry in trained.history) == 1.0
    assert trained.history[-1]["loss"] < 0.5 * trained.history[0]["loss"]


def test_learns_through_augmentation(strips):
    _, trained = run(
        strips, augment="album", epochs=12, batch_size=4, learning_rate=1e-2
    )
    assert max(entry["valid_accuracy"] for entry in trained.history) == 1.0


def test_history_has_one_entry_per_epoch(strips):
    seen = Seen()
    _, trained = run(strips, watch=seen, epochs=3)
    assert seen.entries == trained.history
    assert [entry["epoch"] for entry in seen.entries] == [1, 2, 3]
    names = [
        "epoch",
        "loss",
        "valid_accuracy",
        "valid_loss",
        "learning_rate",
        "seconds",
    ]
    assert all(list(entry) == names for entry in seen.entries)
    n_epochs, n_steps, done, _ = seen.begun
    assert (n_epochs, done) == (3, 0)
    assert len(seen.losses) == 3 * n_steps
    assert np.mean(seen.losses[:n_steps]) == pytest.approx(trained.history[0]["loss"])


def test_first_loss_is_that_of_one_who_does_not_know(strips):
    _, trained = run(strips, epochs=1, learning_rate=1e-6)
    assert trained.history[0]["loss"] == pytest.approx(np.log(2), abs=0.1)


def test_without_validation_the_last_epoch_is_kept(strips):
    network, trained = run(strips, (np.arange(12), np.arange(0)), epochs=2)
    assert [(e["valid_accuracy"], e["valid_loss"]) for e in trained.history] == [
        (None, None)
    ] * 2
    assert trained.validation.shape == (0, 0)
    assert all(
        torch.equal(v, trained.state[k]) for k, v in network.state_dict().items()
    )


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
    assert -np.log(proba[range(4), codes[8:]]).mean() == pytest.approx(
        best["valid_loss"], abs=1e-5
    )
    assert not all(
        torch.equal(v, trained.state[k]) for k, v in network.state_dict().items()
    )
    network.load_state_dict(trained.state)
    kept = [
        pool(tile_log_proba(network, strips.tiles(n), torch.device("cpu")))
        for n in SIDES[1]
    ]
    np.testing.assert_allclose(kept, trained.validation, atol=1e-5)


def test_same_seed_same_history(strips):
    first, second = (run(strips, epochs=3, augment="album")[1] for _ in range(2))
    other = run(strips, epochs=3, augment="album", seed=1)[1]
    losses = [
        [entry["loss"] for entry in one.history] for one in (first, second, other)
    ]
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
    with pytest.raises(TrainingError) as caught:
        train(network, make_corpus(strips), recipe(epochs=1), "cpu")
    assert re.fullmatch(
        r"fit: loss must stay a number, got nan at step 1 of epoch 1, with tiles of recording \d, recording \d, "
        r"recording \d and others\. Lower learning_rate, or set precision='fp32'\.",
        str(caught.value),
    )
    assert issubclass(TrainingError, (Cqt2imgError, RuntimeError))


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_any_batch_size(strips, batch_size):
    # batch norm cannot learn from a single value; layer norm can
    _, trained = run(strips, name="test_vit", epochs=1, batch_size=batch_size)
    assert np.isfinite(trained.history[0]["loss"])


def test_lower_precision_after_full_precision(strips):
    full, half, again = (
        run(strips, epochs=1, precision=p)[1] for p in ("fp32", "bf16", "fp32")
    )
    assert (
        full.history[0]["loss"] == again.history[0]["loss"] != half.history[0]["loss"]
    )
    assert half.history[0]["loss"] == pytest.approx(full.history[0]["loss"], abs=0.05)


@pytest.mark.parametrize("name", ["epochs", "batch_size"])
@pytest.mark.parametrize("bad", [0, -1, 1.5, "3", True, None])
def test_counts_are_whole_numbers(name, bad):
    with raises_exactly(
        InputError,
        f"fit: {name} must be a whole number from 1, got {bad!r}. Choose another.",
    ):
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
    with raises_exactly(
        InputError, f"fit: {name} must {rule}, got {bad!r}. Choose another."
    ):
        recipe(**{name: bad})


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay"])
@pytest.mark.parametrize("bad", ["fast", [], float("inf")])
def test_rates_are_numbers(name, bad):
    rule = {"learning_rate": "be above 0", "weight_decay": "be 0 or more"}[name]
    with raises_exactly(
        InputError, f"fit: {name} must {rule}, got {bad!r}. Choose another."
    ):
        recipe(**{name: bad})


@pytest.mark.parametrize(
    ("name", "pretrained", "rates"),
    [
        ("test_resnet", False, (1e-3, 1.0)),
        ("test_resnet", True, (1e-3, 1.0)),
        ("test_vit", False, (1e-4, 1.0)),
        ("test_vit", True, (1e-4, 0.75)),
        ("test_convnext", True, (1e-4, 0.75)),
        ("ast_tiny", True, (1e-4, 0.75)),
    ],
)
def test_rates_suit_the_backbone(name, pretrained, rates):
    network = build_network(name, 3, TileSpec.preset("fast"))
    assert not network.is_pretrained
    network.is_pretrained = pretrained
    found = resolve_config(TrainingConfig(), network)
    assert (found.learning_rate, found.layer_decay) == rates
    asked = resolve_config(TrainingConfig(learning_rate=0.5, layer_decay=0.25), network)
    assert (asked.learning_rate, asked.layer_decay) == (0.5, 0.25)


def test_weights_from_a_file_are_known_to_be_pretrained(tmp_path):
    spec = TileSpec.preset("fast")
    torch.save(
        build_network("test_resnet", 3, spec).backbone.state_dict(), tmp_path / "w.pth"
    )
    assert build_network("test_resnet", 2, spec, tmp_path / "w.pth").is_pretrained
    assert not build_network("test_resnet", 2, spec, "none").is_pretrained


def test_recipe_takes_numpy_numbers():
    assert recipe(epochs=np.int64(3), learning_rate=np.float32(0.1)).epochs == 3


@pytest.mark.parametrize("visible", [True, False])
def test_the_bar_is_silent_where_nobody_looks(visible, capsys):
    with default_callbacks(visible) as watch:
        watch.begin(2, 1, 0)
        for n, score in enumerate((0.5, None)):
            watch.step(0.5)
            watch.epoch(
                {
                    "epoch": n + 1,
                    "loss": 0.5,
                    "valid_accuracy": score,
                    "valid_loss": score,
                }
            )
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("seed", [-1, "now", None, 1.5, 2**32])
def test_a_seed_that_is_none(seed):
    with raises_exactly(
        InputError,
        f"fit: random_state must be a whole number from 0, got {seed!r}. Choose another.",
    ):
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


WAYS = [
    {},
    {"ema": 0.9, "mixup": 0.2},
    {"layer_decay": 0.7, "head_first": True, "augment": "album"},
    {"balance": "group", "accumulate": 2},
]


@pytest.mark.parametrize("changes", WAYS, ids=str)
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_killed_anywhere_and_resumed_it_is_the_same_to_the_bit(
    strips, tmp_path, monkeypatch, changes, name
):
    monkeypatch.setattr(checkpoint_module, "_EVERY_SECONDS", 0.0)  # after every step
    undisturbed = run(strips, name=name, epochs=3, batch_size=4, **changes)[1]

    class Killer(Seen):
        def step(self, loss):
            super().step(loss)
            if len(self.losses) == self.last:
                raise KeyboardInterrupt

    for last in (
        1,
        3,
        2,
        100,
    ):  # the first, one later in the first or second epoch, and so on to the end
        killer = Killer()
        killer.last = last
        try:
            resumed = run(
                strips,
                name=name,
                watch=killer,
                checkpoint=tmp_path,
                resume=True,
                epochs=3,
                batch_size=4,
                **changes,
            )
        except KeyboardInterrupt:
            continue
    assert killer.begun[2] > 0, "it went on where it was"
    assert same(resumed[1], undisturbed)


def test_resume_of_nothing_begins_and_of_the_end_ends(strips, tmp_path):
    first = run(strips, checkpoint=tmp_path / "new", resume=True, epochs=2)[1]
    seen = Seen()
    again = run(strips, watch=seen, checkpoint=tmp_path / "new", resume=True, epochs=2)[
        1
    ]
    assert same(first, again)
    assert seen.losses == []
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [BEST, LAST]


def test_without_resume_it_begins_anew(strips, tmp_path):
    run(strips, checkpoint=tmp_path, epochs=2)
    seen = Seen()
    run(strips, watch=seen, checkpoint=tmp_path, epochs=2)
    assert seen.begun[2] == 0


def test_the_best_weights_lie_in_a_file_of_their_own(strips, tmp_path):
    from safetensors.torch import load_file

    trained = run(strips, checkpoint=tmp_path, epochs=4)[1]
    best = load_file(tmp_path / BEST)
    assert all(torch.equal(v, best[k]) for k, v in trained.state.items())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"learning_rate": 1e-4}, "learning_rate=0.03"),
        ({"seed": 1, "epochs": 3}, "epochs=2, random_state=0"),
        ({"sides": (np.arange(7), np.arange(8, 12))}, "other recordings"),
    ],
)
def test_a_checkpoint_of_another_training(strips, tmp_path, change, told):
    run(strips, checkpoint=tmp_path, epochs=2)
    message = (
        f"fit: checkpoint must be of the same recordings and the same arguments, got {told} in "
        f"{str(tmp_path)!r}. Choose another folder, or fit without resume."
    )
    with raises_exactly(InputError, message):
        run(strips, checkpoint=tmp_path, resume=True, **{"epochs": 2, **change})


def test_a_checkpoint_of_another_network(strips, tmp_path):
    run(strips, checkpoint=tmp_path, epochs=2)
    message = (
        "fit: checkpoint must be of the same recordings and the same arguments, got another backbone or other weights "
        f"in {str(tmp_path)!r}. Choose another folder, or fit without resume."
    )
    for name in ("test_vit", "test_efficientnet"):
        with raises_exactly(InputError, message):
            run(strips, name=name, checkpoint=tmp_path, resume=True, epochs=2)


def test_parts_of_a_batch_may_be_smaller_after_a_stop(strips, tmp_path, monkeypatch):
    stopped(strips, tmp_path)
    sizes = []
    real = TileNet.forward
    monkeypatch.setattr(
        TileNet,
        "forward",
        lambda net, x: sizes.append((net.training, len(x))) or real(net, x),
    )
    run(strips, checkpoint=tmp_path, resume=True, epochs=3, batch_size=4, accumulate=2)
    assert {n for training, n in sizes if training} == {2}


@pytest.mark.parametrize(
    "text", ["", "epoch;loss\n1;2\n", "\ufeffepoch,note\n1.0,mine\n"]
)
def test_the_table_of_the_history_is_not_read(strips, tmp_path, text):
    stopped(strips, tmp_path)
    (tmp_path / "history.csv").write_text(text, encoding="utf-8")
    with default_callbacks(False, tmp_path) as watch:
        run(
            strips,
            checkpoint=tmp_path,
            resume=True,
            epochs=3,
            batch_size=4,
            watch=watch,
        )
    lines = (tmp_path / "history.csv").read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", "1", "2", "3"]


def test_a_damaged_checkpoint(strips, tmp_path):
    run(strips, checkpoint=tmp_path, epochs=1)
    data = (tmp_path / LAST).read_bytes()
    for damaged in (
        data[:1000],
        b"",
        b"hello" * 100,
        data[:5000] + bytes(5000) + data[10_000:],
    ):
        (tmp_path / LAST).write_bytes(damaged)
        with pytest.raises(
            InputError,
            match=r"fit: checkpoint must be undamaged, got .* Remove it to start anew\.",
        ):
            run(strips, checkpoint=tmp_path, resume=True, epochs=1)


def test_resume_needs_a_folder(strips):
    with raises_exactly(
        InputError,
        "fit: checkpoint must name a folder to resume from, got None. Pass checkpoint=.",
    ):
        run(strips, resume=True)


def test_parts_of_a_batch_add_up_to_it(strips):
    # without batch norm, which looks at a part alone
    whole, parts = (
        run(strips, name="test_convnext", epochs=1, accumulate=n)[1] for n in (1, 4)
    )
    assert parts.history[0]["loss"] == pytest.approx(whole.history[0]["loss"], abs=1e-4)


def test_memory_that_runs_out_once(strips, monkeypatch, caplog):
    whole = run(strips, name="test_convnext", epochs=1)[1]
    calls = []
    forward = type(make_network(strips)).forward

    def narrow(self, levels):
        calls.append(len(levels))
        if len(levels) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, levels)

    monkeypatch.setattr(type(make_network(strips)), "forward", narrow)
    parts = run(strips, (SIDES[0], SIDES[1]), name="test_convnext", epochs=1)[1]
    assert calls[:3] == [8, 4, 4]
    assert 8 not in calls[1:]
    assert [r.message for r in caplog.records if "memory" in r.message] == [
        "fit: memory ran out; every batch goes through the network in 2 parts from now on"
    ]
    assert parts.history[0]["loss"] == pytest.approx(whole.history[0]["loss"], abs=1e-4)


def test_memory_that_is_never_enough(strips, monkeypatch):
    def narrow(self, levels):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(make_network(strips)), "forward", narrow)
    with pytest.raises(torch.OutOfMemoryError):
        run(strips, epochs=1)


def test_mix_is_in_levels_and_in_targets_alike():
    levels = torch.tensor([0, 100, 200, 255], dtype=torch.uint8).reshape(4, 1, 1)
    target = torch.eye(4)
    mixed, wanted = _mix(levels, target, 0.5, [0, 1, 2])
    assert mixed.dtype == torch.uint8
    assert torch.equal(wanted.sum(dim=1), torch.ones(4))
    expected = (wanted @ levels.reshape(4).float()).round()
    assert torch.equal(mixed.reshape(4).float(), expected)
    assert not torch.equal(mixed, levels)
    assert _mix(levels, target, 0.0, [0]) == (levels, target)


def test_patience_ends_what_gets_worse(strips):
    codes = np.concatenate([CODES[:8], 1 - CODES[8:]])
    trained = run(strips, codes=codes, epochs=30, patience=2)[1]
    losses = [entry["valid_loss"] for entry in trained.history]
    assert len(losses) < 30
    assert int(np.argmin(losses)) == len(losses) - 3


def test_the_average_of_the_weights_is_what_is_kept(strips):
    network, trained = run(strips, epochs=3, ema=0.99)
    assert not all(
        torch.equal(v, trained.state[k]) for k, v in network.state_dict().items()
    )
    network.load_state_dict(trained.state)
    best = min(trained.history, key=lambda entry: entry["valid_loss"])
    kept = [
        pool(tile_log_proba(network, strips.tiles(n), torch.device("cpu")))
        for n in SIDES[1]
    ]
    np.testing.assert_allclose(kept, trained.validation, atol=1e-5)
    assert best["valid_loss"] == pytest.approx(
        -trained.validation[range(4), CODES[8:]].mean(), abs=1e-4
    )


def test_lower_layers_learn_more_slowly(strips):
    before = {k: v.clone() for k, v in make_network(strips).state_dict().items()}

    def moved(decay):
        after = run(
            strips, epochs=1, layer_decay=decay, learning_rate=1e-3, weight_decay=0.0
        )[0].state_dict()
        first = next(k for k, v in before.items() if v.ndim == 4)
        return (after[first] - before[first]).abs().mean().item()

    assert moved(0.5) < 0.5 * moved(1.0)
