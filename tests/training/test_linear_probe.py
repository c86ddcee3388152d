import numpy as np
import pytest
import torch

from cqt2img.data.dataset import TrainingData
from cqt2img.data.labels import one_hot
from cqt2img.errors import InputError, TrainingError
from cqt2img.inference.calibration import fit_temperature, log_loss, pool, to_proba
from cqt2img.inference.predict import embed_tiles, tile_log_proba
from cqt2img.training import linear_probe
from cqt2img.training.linear_probe import fit_linear_probe
from cqt2img.training.trainer import train_linear_probe
from tests.conftest import raises_with
from tests.training.conftest import (
    CPU,
    Recorder,
    make_network,
    make_settings,
    make_tile_arrays,
)

N_RECORDINGS = 18
CLASS_INDICES = np.arange(N_RECORDINGS) % 3
TRAINING = np.arange(12)
VALIDATION = np.arange(12, 18)


@pytest.fixture(scope="module")
def data(small):
    """Eighteen recordings of three classes with a loud row each, in groups of three."""
    rows = [10 + 15 * (n % 3) + n // 6 for n in range(N_RECORDINGS)]
    arrays = make_tile_arrays(small, rows, [1 + n % 2 for n in range(N_RECORDINGS)])
    return make_data(arrays)


def make_data(arrays, training=TRAINING, validation=VALIDATION, n_classes=3):
    targets = one_hot(CLASS_INDICES % n_classes, n_classes)
    groups = np.arange(N_RECORDINGS) // 3
    return TrainingData(arrays, targets, groups, training, validation)


def network_of(data, name="test_resnet", n_classes=3):
    return make_network(data.arrays.spec, name, n_classes)


def predict(network, data, recordings):
    tiles = [data.arrays.tiles(int(n)) for n in recordings]
    return np.stack([pool(tile_log_proba(network, one, CPU)) for one in tiles])


def parameters_of_head(network):
    return {id(p) for layer in network.heads for p in layer.parameters()}


def test_embeddings_are_the_inputs_of_the_head(data):
    network = network_of(data).eval()
    tiles = data.arrays.tiles(1)
    features = embed_tiles(network, tiles, CPU)
    assert features.dtype == np.float32
    layer = network.backbone.get_classifier()
    with torch.no_grad():
        logits = layer(torch.from_numpy(features)).numpy()
        expected = network(torch.from_numpy(np.ascontiguousarray(tiles))).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    ["test_resnet", "test_vit", "test_convnext", "test_efficientnet", "ast_tiny"],
)
def test_the_head_is_the_logistic_regression_and_nothing_else_changes(data, name):
    network = network_of(data, name)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    probe = fit_linear_probe(network, data, CPU)
    # of the regression in scikit-learn, and of the head inside the network
    rows = predict(network, data, VALIDATION)
    np.testing.assert_allclose(probe.validation, rows, atol=2e-3)
    # a regression without any coefficient has this loss, so the best one has less
    assert probe.loss < np.log(3)
    head = parameters_of_head(network)
    changed = {
        k for k, v in network.state_dict().items() if not torch.equal(v, before[k])
    }
    assert changed == {k for k, v in network.named_parameters() if id(v) in head}


def test_two_classes_have_two_rows(data):
    two = make_data(data.arrays, n_classes=2)
    network = network_of(data, n_classes=2)
    probe = fit_linear_probe(network, two, CPU)
    assert probe.validation.shape == (6, 2)
    rows = predict(network, two, VALIDATION)
    np.testing.assert_allclose(probe.validation, rows, atol=2e-3)


@pytest.fixture
def separable(monkeypatch):
    """Embeddings with one high feature per class, instead of those of a network."""

    def embedder(network, device, cache_dir=None):
        def embed(tiles):
            rows = tiles.shape[1] - 1 - tiles.mean(axis=2).argmax(axis=1)
            class_indices = (rows - 10) // 15
            n_features = network.backbone.get_classifier().in_features
            return np.eye(n_features, dtype=np.float32)[class_indices]

        return embed

    monkeypatch.setattr(linear_probe, "make_embedder", embedder)


def test_separable_embeddings_are_classified_without_error(data, separable):
    probe = fit_linear_probe(network_of(data), data, CPU)
    predicted = probe.validation.argmax(axis=1)
    assert predicted.tolist() == CLASS_INDICES[VALIDATION].tolist()


def test_without_validation_recordings_the_middle_strength_is_used(data):
    only = make_data(data.arrays, np.arange(18), np.arange(0))
    probe = fit_linear_probe(network_of(data), only, CPU)
    assert probe.validation.shape == (0, 0)
    assert probe.strength == linear_probe._DEFAULT_STRENGTH
    assert probe.strength == np.median(linear_probe._STRENGTHS)


def test_the_strength_has_the_lowest_calibrated_log_loss(data, monkeypatch):
    chosen = fit_linear_probe(network_of(data), data, CPU).strength
    wanted = CLASS_INDICES[VALIDATION]
    losses = {}
    for strength in linear_probe._STRENGTHS:
        monkeypatch.setattr(linear_probe, "_STRENGTHS", (strength,))
        rows = fit_linear_probe(network_of(data), data, CPU).validation
        proba = to_proba(rows, fit_temperature(rows, wanted))
        losses[strength] = log_loss(proba, wanted)
    assert chosen == min(losses, key=losses.get)


def test_refitting_uses_the_validation_recordings_too(data, monkeypatch):
    n_tiles = []
    fit_regression = linear_probe._fit_regression

    def spy(samples, strength, seed):
        n_tiles.append(len(samples.features))
        return fit_regression(samples, strength, seed)

    monkeypatch.setattr(linear_probe, "_fit_regression", spy)
    held_out = fit_linear_probe(network_of(data), data, CPU).validation
    n_training = sum(len(data.arrays.tiles(n)) for n in TRAINING)
    n_all = sum(len(data.arrays.tiles(n)) for n in range(N_RECORDINGS))
    n_strengths = len(linear_probe._STRENGTHS)
    assert n_tiles == [n_training] * n_strengths
    n_tiles.clear()
    refitted = fit_linear_probe(network_of(data), data, CPU, refit=True).validation
    assert n_tiles == [n_training] * n_strengths + [n_all]
    # predictions are of the regression that has not seen the recordings
    assert np.array_equal(refitted, held_out)


def test_classes_and_their_groups_have_equal_weights(small):
    arrays = make_tile_arrays(small, [20] * 6, [1, 2, 3, 4, 5, 6])
    class_indices = np.array([0, 0, 0, 1, 1, 1])
    groups = np.array(["a", "a", "b", "a", "c", "d"])
    data = TrainingData(
        arrays, one_hot(class_indices, 2), groups, np.arange(6), np.arange(0)
    )
    features = [np.zeros((n, 4), np.float32) for n in range(1, 7)]
    samples = linear_probe._make_samples(features, np.arange(6), data, 1)
    n_tiles = [1, 2, 3, 4, 5, 6]
    owner = np.repeat(np.arange(6), n_tiles)
    assert samples.class_indices.tolist() == class_indices[owner].tolist()
    assert samples.weights.mean() == pytest.approx(1)
    total = samples.weights.sum()
    for class_index in (0, 1):
        is_class = class_indices[owner] == class_index
        assert samples.weights[is_class].sum() == pytest.approx(total / 2)
        own_groups = set(groups[class_indices == class_index])
        share = total / 2 / len(own_groups)
        for group in own_groups:
            is_group = is_class & (groups[owner] == group)
            assert samples.weights[is_group].sum() == pytest.approx(share)
            assert np.ptp(samples.weights[is_group]) == pytest.approx(0)


def test_of_many_tiles_the_solver_sees_some_of_every_recording(data, monkeypatch):
    seen = []
    make_samples = linear_probe._make_samples

    def spy(features, recordings, data, step):
        samples = make_samples(features, recordings, data, step)
        seen.append((step, len(samples.features)))
        return samples

    monkeypatch.setattr(linear_probe, "_make_samples", spy)
    monkeypatch.setattr(linear_probe, "_MAX_TILES", 12)
    fit_linear_probe(network_of(data), data, CPU)
    assert seen == [(2, 12)]


def test_progress_counts_recordings(data, separable):
    seen = []

    def progress(steps, n, title):
        seen.append((n, title))
        return steps

    fit_linear_probe(network_of(data), data, CPU, progress=progress)
    assert seen == [(18, "embedding")]


def test_a_head_that_is_not_linear_is_an_error(data):
    network = network_of(data)
    # as some networks of timm have
    network.backbone.get_classifier = torch.nn.Conv2d(1, 1, 1).requires_grad_
    with raises_with(InputError, "fit: finetune='head'", "head_first=True", "Conv2d"):
        fit_linear_probe(network, data, CPU)


@pytest.mark.parametrize(
    ("value", "problem"), [(0.0, "the same for all tiles"), (np.nan, "not finite")]
)
def test_embeddings_that_cannot_be_fitted_are_an_error(
    data, monkeypatch, value, problem
):
    def embedder(network, device, cache_dir=None):
        return lambda tiles: np.full((len(tiles), 8), value, np.float32)

    monkeypatch.setattr(linear_probe, "make_embedder", embedder)
    with raises_with(InputError, "fit", problem, "Choose other weights"):
        fit_linear_probe(network_of(data), data, CPU)


def test_a_linear_probe_is_an_epoch_with_its_own_metrics(data):
    network = network_of(data)
    recorder = Recorder()
    result = train_linear_probe(network, data, make_settings(), callback=recorder)
    assert recorder.entries == result.history
    assert recorder.begun is None
    (entry,) = result.history
    assert (entry["epoch"], entry["learning_rate"]) == (1, 0.0)
    right = result.validation[range(6), CLASS_INDICES[VALIDATION]]
    assert entry["valid_loss"] == pytest.approx(-right.mean(), abs=1e-5)
    means = [
        embed_tiles(network, data.arrays.tiles(n), CPU).mean(axis=0)
        for n in range(N_RECORDINGS)
    ]
    np.testing.assert_allclose(result.features, means, atol=1e-5)
    state = network.state_dict()
    assert all(torch.equal(value, result.state[name]) for name, value in state.items())


def test_a_linear_probe_with_a_loss_that_is_not_finite_is_an_error(data, monkeypatch):
    monkeypatch.setattr(linear_probe, "_weighted_loss", lambda *args: float("nan"))
    with raises_with(TrainingError, "fit: the loss", "nan"):
        train_linear_probe(network_of(data), data, make_settings())
