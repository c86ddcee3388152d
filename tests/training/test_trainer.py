import numpy as np
import pytest
import torch

from cqt2img.errors import Cqt2imgError, TrainingError
from cqt2img.inference.calibration import pool
from cqt2img.inference.predict import tile_log_proba
from cqt2img.models.factory import TileNet
from cqt2img.training import trainer as trainer_module
from cqt2img.training.callbacks import EpochMetrics
from cqt2img.training.trainer import train
from tests.conftest import raises_with
from tests.training.conftest import (
    CLASS_INDICES,
    CPU,
    N_TRAINING_TILES,
    VALIDATION,
    Recorder,
    fit,
    is_same,
    make_data,
    make_network,
    make_settings,
)


@pytest.mark.parametrize(("name", "rate"), [("test_resnet", 1e-3), ("test_vit", 1e-4)])
def test_small_steps_lower_the_loss_of_all_tiles(tile_arrays, name, rate):
    """Every step is on all tiles, so that the gradient of the loss is exact."""
    recorder = Recorder()
    fit(
        tile_arrays,
        name=name,
        callback=recorder,
        epochs=4,
        batch_size=N_TRAINING_TILES,
        learning_rate=rate,
    )
    assert len(recorder.losses) == 4
    assert recorder.losses[-1] < recorder.losses[0]


def test_the_history_has_one_entry_per_epoch(tile_arrays):
    recorder = Recorder()
    _, result = fit(tile_arrays, callback=recorder, epochs=3)
    assert recorder.entries == result.history
    assert [entry["epoch"] for entry in result.history] == [1, 2, 3]
    for entry in result.history:
        assert list(entry) == list(EpochMetrics.__annotations__)
    n_epochs, n_steps, n_done, _ = recorder.begun
    assert (n_epochs, n_steps, n_done) == (3, 2, 0)
    assert len(recorder.losses) == 6
    assert np.mean(recorder.losses[:2]) == pytest.approx(result.history[0]["loss"])


def test_the_first_loss_is_that_of_uniform_guessing(tile_arrays):
    _, result = fit(tile_arrays, epochs=1, learning_rate=1e-6)
    assert result.history[0]["loss"] == pytest.approx(np.log(2), abs=0.1)


def test_without_validation_recordings_the_last_epoch_is_kept(tile_arrays, caplog):
    data = make_data(tile_arrays, np.arange(12), np.arange(0))
    network, result = fit(tile_arrays, data=data, patience=1)
    assert len(result.history) == 2
    for entry in result.history:
        assert entry["valid_accuracy"] is None
        assert entry["valid_loss"] is None
    assert result.validation.shape == (0, 0)
    state = network.state_dict()
    assert all(torch.equal(value, result.state[name]) for name, value in state.items())
    assert ["patience" in record.getMessage() for record in caplog.records] == [True]


@pytest.fixture
def planned(monkeypatch):
    """Plan the probability of the right class in validation, one for each epoch."""

    def plan(probabilities):
        epochs = iter(probabilities)

        def predict(network, data, recordings, device):
            right = next(epochs)
            proba = np.full((len(recordings), 2), 1 - right, np.float32)
            rows = np.arange(len(recordings))
            proba[rows, data.targets[recordings].argmax(axis=1)] = right
            return np.log(proba)

        monkeypatch.setattr(trainer_module, "_predict", predict)

    return plan


class Snapshots(Recorder):
    """Keep the weights after every epoch."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.states = []

    def on_epoch_end(self, entry):
        super().on_epoch_end(entry)
        state = self.network.state_dict()
        self.states.append({name: value.clone() for name, value in state.items()})


def test_the_epoch_with_the_lowest_validation_loss_is_kept(tile_arrays, planned):
    planned([0.55, 0.9, 0.6, 0.8])
    network = make_network(tile_arrays.spec)
    snapshots = Snapshots(network)
    data = make_data(tile_arrays)
    result = train(
        network, data, make_settings(epochs=4), device="cpu", callback=snapshots
    )
    losses = [entry["valid_loss"] for entry in result.history]
    assert losses == pytest.approx(-np.log([0.55, 0.9, 0.6, 0.8]), abs=1e-6)
    assert {entry["valid_accuracy"] for entry in result.history} == {1.0}
    np.testing.assert_allclose(np.exp(result.validation).max(axis=1), 0.9, atol=1e-6)
    kept = snapshots.states[1]
    assert all(torch.equal(value, kept[name]) for name, value in result.state.items())


@pytest.mark.parametrize(("patience", "n_epochs"), [(1, 3), (2, 6), (3, 7)])
def test_patience_counts_epochs_without_a_lower_loss(
    tile_arrays, planned, patience, n_epochs
):
    planned([0.5, 0.8, 0.6, 0.9, 0.7, 0.9, 0.8])
    _, result = fit(tile_arrays, epochs=7, patience=patience)
    assert len(result.history) == n_epochs


def test_results_depend_on_the_seed_only(tile_arrays):
    """Neither on the caller's random state, nor is that changed."""
    options = {"name": "test_vit", "epochs": 1, "augment": "album", "mixup": 0.2}
    torch.manual_seed(1)
    np.random.seed(5)  # noqa: NPY002
    torch_state = torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    first = fit(tile_arrays, **options)[1]
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002
    torch.manual_seed(2)
    second = fit(tile_arrays, **options)[1]
    assert is_same(first, second)
    other = fit(tile_arrays, seed=1, **options)[1]
    assert other.history[0]["loss"] != first.history[0]["loss"]


def test_a_loss_that_is_not_finite_names_step_and_recordings(tile_arrays):
    network = make_network(tile_arrays.spec)
    with torch.no_grad():
        next(network.parameters()).fill_(np.nan)
    parts = ("fit: the loss", "nan", "step 1 of epoch 1", "recording ", "and others")
    with raises_with(TrainingError, *parts, "Lower learning_rate"):
        train(network, make_data(tile_arrays), make_settings(), device="cpu")
    assert issubclass(TrainingError, Cqt2imgError)
    assert issubclass(TrainingError, RuntimeError)


def test_outputs_that_are_not_finite_name_the_epoch(tile_arrays, monkeypatch):
    def predict(network, data, recordings, device):
        return np.full((len(recordings), 2), np.nan, np.float32)

    monkeypatch.setattr(trainer_module, "_predict", predict)
    with raises_with(TrainingError, "fit: the outputs", "NaN", "epoch 1"):
        fit(tile_arrays)


@pytest.mark.parametrize("batch_size", [1, 1000])
def test_any_batch_size_works(tile_arrays, batch_size):
    # a layer norm works on a single tile, a batch norm does not
    recorder = Recorder()
    fit(
        tile_arrays,
        name="test_vit",
        callback=recorder,
        epochs=1,
        batch_size=batch_size,
    )
    assert len(recorder.losses) == max(1, N_TRAINING_TILES // batch_size)
    assert np.isfinite(recorder.losses).all()


def test_each_fit_has_its_own_precision(tile_arrays, monkeypatch):
    seen = []
    forward = torch.nn.Linear.forward

    def spy(layer, x):
        output = forward(layer, x)
        if layer.training:
            seen.append(output.dtype)
        return output

    monkeypatch.setattr(torch.nn.Linear, "forward", spy)
    # not test_resnet: with its maps of one column, torch 2.14 has random gradients in
    # bfloat16 on processors with AMX
    for precision in ("fp32", "bf16", "fp32"):
        seen.clear()
        _, result = fit(tile_arrays, name="test_vit", epochs=1, precision=precision)
        assert set(seen) == {torch.bfloat16 if precision == "bf16" else torch.float32}
        # the first losses are near log(2) whatever the precision
        assert result.history[0]["loss"] == pytest.approx(np.log(2), abs=0.1)


def first_loss(tile_arrays, **changes):
    recorder = Recorder()
    # without batch norms, which normalise every part on its own
    fit(tile_arrays, name="test_convnext", callback=recorder, epochs=1, **changes)
    return recorder.losses[0]


def test_parts_of_a_batch_add_up_to_it(tile_arrays):
    whole = first_loss(tile_arrays)
    parts = first_loss(tile_arrays, accumulation_steps=4)
    assert parts == pytest.approx(whole, abs=1e-5)


@pytest.fixture
def small_memory(monkeypatch):
    """A network that has memory for a number of tiles; records the batches it gets."""
    sizes = []
    forward = TileNet.forward

    def limit(n_tiles):
        def limited(self, levels):
            sizes.append(len(levels))
            if len(levels) > n_tiles:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(self, levels)

        monkeypatch.setattr(TileNet, "forward", limited)
        return sizes

    return limit


def test_a_batch_is_halved_once_when_memory_runs_out(tile_arrays, small_memory, caplog):
    whole = first_loss(tile_arrays)
    sizes = small_memory(4)
    parts = first_loss(tile_arrays)
    assert parts == pytest.approx(whole, abs=1e-5)
    assert sizes[:5] == [8, 4, 4, 4, 4]
    assert 8 not in sizes[1:]
    messages = [record.getMessage() for record in caplog.records]
    assert ["out of memory" in message for message in messages] == [True]


def test_memory_that_is_never_enough_is_an_error(tile_arrays, small_memory):
    sizes = small_memory(0)
    with pytest.raises(torch.OutOfMemoryError):
        fit(tile_arrays, epochs=1)
    assert sizes == [8, 4]


def test_the_average_of_the_weights_is_validated_and_kept(tile_arrays):
    network, result = fit(tile_arrays, ema_decay=0.99)
    state = network.state_dict()
    assert not all(torch.equal(value, result.state[k]) for k, value in state.items())
    network.load_state_dict(result.state)
    kept = [
        pool(tile_log_proba(network, tile_arrays.tiles(n), CPU)) for n in VALIDATION
    ]
    np.testing.assert_allclose(kept, result.validation, atol=1e-5)
    best = min(entry["valid_loss"] for entry in result.history)
    right = result.validation[range(4), CLASS_INDICES[VALIDATION]]
    assert best == pytest.approx(-right.mean(), abs=1e-5)


class FirstMomentum(Recorder):
    """Record the momentum of a batch norm in the first step."""

    def __init__(self, network):
        super().__init__()
        self.norm = next(
            m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)
        )
        self.momentum = None

    def on_step_end(self, loss):
        if self.momentum is None:
            self.momentum = self.norm.momentum


@pytest.mark.parametrize(("head_first", "momentum"), [(False, 1.0), (True, 0.1)])
def test_recomputed_batch_norms_are_not_forgotten(tile_arrays, head_first, momentum):
    network = make_network(tile_arrays.spec)
    first = FirstMomentum(network)
    settings = make_settings(epochs=1, head_first=head_first)
    train(network, make_data(tile_arrays), settings, device="cpu", callback=first)
    assert first.momentum == momentum


def test_the_head_is_fitted_first_without_moving_the_backbone(tile_arrays):
    """With a learning rate of nearly 0, only the head has changed after training."""
    before = make_network(tile_arrays.spec).state_dict()
    network, _ = fit(tile_arrays, epochs=1, learning_rate=1e-12, head_first=True)
    for name, value in network.named_parameters():
        distance = (value - before[name]).abs().max().item()
        is_head = "fc" in name.split(".")
        assert (distance > 1e-4) == is_head, name
