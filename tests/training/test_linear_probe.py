import numpy as np
import pytest
import torch

from cqt2img.data.dataset import TrainingData
from cqt2img.data.labels import one_hot
from cqt2img.data.recordings import list_recordings
from cqt2img.data.tile_arrays import load_tile_arrays
from cqt2img.errors import InputError
from cqt2img.inference.calibration import pool
from cqt2img.inference.predict import embed_tiles, tile_log_proba
from cqt2img.models.factory import build_network
from cqt2img.training.linear_probe import fit_linear_probe, settle_norms
from tests.conftest import raises_exactly

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def corpus(small):
    """Eighteen recordings of three players, with one, six or twenty voices, in groups of three."""
    rng = np.random.default_rng(0)
    cqts = []
    for n in range(18):
        cqt = 1e-3 * rng.random((60, 40 + n))
        cqt[rng.permutation(60)[: (1, 6, 20)[n % 3]]] += 1
        cqts.append(cqt)
    strips = load_tile_arrays(list_recordings(cqts), small)[0]
    targets = one_hot(np.arange(18) % 3, 3)
    return TrainingData(
        strips, targets, np.arange(18) // 3, np.arange(12), np.arange(12, 18)
    )


def make_network(corpus, name="test_resnet", n_classes=3):
    torch.manual_seed(0)
    return build_network(name, n_classes, corpus.arrays.spec)


def test_features_are_what_the_head_gets(corpus):
    network = make_network(corpus).eval()
    tiles = corpus.arrays.tiles(0)
    features = embed_tiles(network, tiles, CPU)
    assert features.dtype == np.float32
    layer = network.backbone.get_classifier()
    with torch.no_grad():
        logits = layer(torch.from_numpy(features)).numpy()
        expected = network(torch.from_numpy(np.ascontiguousarray(tiles))).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def heard(network, corpus, places):
    return np.stack(
        [
            pool(tile_log_proba(network, corpus.arrays.tiles(int(n)), CPU))
            for n in places
        ]
    )


@pytest.mark.parametrize(
    "name",
    ["test_resnet", "test_vit", "test_convnext", "test_efficientnet", "ast_tiny"],
)
def test_a_head_tells_players_apart_that_the_body_hears(corpus, name):
    network = make_network(corpus, name)
    body = {k: v.clone() for k, v in network.state_dict().items()}
    fitted = fit_linear_probe(network, corpus, CPU)
    rows = heard(network, corpus, corpus.validation_index)
    codes = corpus.targets[corpus.validation_index].argmax(axis=1)
    assert (
        rows.argmax(axis=1) == codes
    ).mean() > 0.6  # chance is 1/3, and the body knows nothing
    np.testing.assert_allclose(fitted.validation, rows, atol=2e-3)
    assert fitted.loss < np.log(3)
    heads = network.backbone.get_classifier()
    mine = {
        id(p)
        for head in (heads if isinstance(heads, tuple) else (heads,))
        for p in head.parameters()
    }
    moved = {k for k, v in network.state_dict().items() if not torch.equal(v, body[k])}
    assert moved == {
        k for k, v in network.named_parameters() if id(v) in mine
    }  # no norm has moved, either


def test_two_players(corpus):
    two = TrainingData(
        corpus.arrays,
        one_hot(np.arange(18) % 3 // 2, 2),
        corpus.groups,
        corpus.train_index,
        np.arange(0),
    )
    network = make_network(corpus, n_classes=2)
    assert fit_linear_probe(network, two, CPU).validation.shape == (0, 0)
    rows = heard(network, corpus, range(18))
    assert (rows.argmax(axis=1) == np.arange(18) % 3 // 2).mean() > 0.8


def test_a_head_that_is_not_linear(corpus):
    network = make_network(corpus)
    network.backbone.get_classifier = torch.nn.Conv2d(
        1, 1, 1
    ).requires_grad_  # what some of timm have
    message = (
        "fit: the head must be linear to be fitted on its own, got Conv2d. "
        "Pass finetune='all' and head_first=False, or choose another backbone."
    )
    with raises_exactly(InputError, message):
        fit_linear_probe(network, corpus, CPU)


@pytest.fixture
def count(monkeypatch):
    """How often tiles are embedded."""
    calls = []
    monkeypatch.setattr(
        "cqt2img.training.linear_probe.embed_tiles",
        lambda *args: calls.append(1) or embed_tiles(*args),
    )
    return calls


def test_a_memory_knows_network_and_tiles(corpus, tmp_path, count):
    plain = make_network(corpus)
    fit_linear_probe(plain, corpus, CPU)
    assert len(count) == 18
    count.clear()
    first, again = make_network(corpus), make_network(corpus)
    fit_linear_probe(first, corpus, CPU, memory=tmp_path)
    assert len(count) == 18
    fit_linear_probe(again, corpus, CPU, memory=tmp_path)
    assert len(count) == 18
    for one in (first, again):
        assert all(
            torch.equal(a, b)
            for a, b in zip(one.parameters(), plain.parameters(), strict=True)
        )
    fit_linear_probe(
        again, corpus, CPU, memory=tmp_path
    )  # another head on the same body
    assert len(count) == 18
    fewer = TrainingData(
        corpus.arrays,
        corpus.targets,
        corpus.groups,
        np.arange(3, 12),
        corpus.validation_index,
    )
    fit_linear_probe(make_network(corpus), fewer, CPU, memory=tmp_path)  # other sides
    assert len(count) == 18
    other = make_network(corpus)
    with torch.no_grad():
        next(other.backbone.parameters()).add_(1e-3)
    fit_linear_probe(other, corpus, CPU, memory=tmp_path)  # another body
    assert len(count) == 36


def test_statistics_of_norms_are_part_of_the_body(corpus, tmp_path, count):
    fit_linear_probe(make_network(corpus), corpus, CPU, memory=tmp_path)
    other = make_network(corpus)
    settle_norms(other, corpus, CPU, seed=0)
    fit_linear_probe(other, corpus, CPU, memory=tmp_path)
    assert len(count) == 36


def test_most_tiles(corpus, monkeypatch):
    network = make_network(corpus)
    monkeypatch.setattr("cqt2img.training.linear_probe._MOST_TILES", 8)
    assert sum(len(corpus.arrays.tiles(n)) for n in range(12)) > 12
    fit_linear_probe(network, corpus, CPU)  # one tile of every recording at least
    codes = corpus.targets[corpus.validation_index].argmax(axis=1)
    assert (
        heard(network, corpus, corpus.validation_index).argmax(axis=1) == codes
    ).mean() > 0.6


def test_progress_counts_recordings(corpus):
    seen = []

    def progress(steps, n, title):
        seen.append((n, title))
        return steps

    fit_linear_probe(make_network(corpus), corpus, CPU, progress=progress)
    assert seen == [(18, "embedding")]


def test_norms_measure_tiles(corpus):
    network = make_network(corpus)
    norm = next(
        m
        for m in network.modules()
        if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)
    )
    before, momentum = norm.running_mean.clone(), norm.momentum
    weights = {k: v.clone() for k, v in network.named_parameters()}
    settle_norms(network, corpus, CPU, seed=0)
    assert not torch.equal(before, norm.running_mean)
    assert norm.momentum == momentum
    assert all(torch.equal(v, weights[k]) for k, v in network.named_parameters())
