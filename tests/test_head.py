import numpy as np
import pytest
import torch
from conftest import refused

from cqt2img.backbone import build_network
from cqt2img.dataset import Corpus, load_strips
from cqt2img.errors import InputError
from cqt2img.head import embed_tiles, fit_head, settle_norms
from cqt2img.labels import one_hot
from cqt2img.predict import pool, tile_log_proba
from cqt2img.source import list_recordings

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
    strips = load_strips(list_recordings(cqts), small)[0]
    targets = one_hot(np.arange(18) % 3, 3)
    return Corpus(strips, targets, np.arange(18) // 3, np.arange(12), np.arange(12, 18))


def make_network(corpus, name="test_resnet", n_classes=3):
    torch.manual_seed(0)
    return build_network(name, n_classes, corpus.strips.spec)


def test_features_are_what_the_head_gets(corpus):
    network = make_network(corpus).eval()
    tiles = corpus.strips.tiles(0)
    features = embed_tiles(network, tiles, CPU)
    assert features.dtype == np.float32
    layer = network.backbone.get_classifier()
    with torch.no_grad():
        logits = layer(torch.from_numpy(features)).numpy()
        expected = network(torch.from_numpy(np.ascontiguousarray(tiles))).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_a_head_tells_players_apart_that_the_body_hears(corpus, name):
    network = make_network(corpus, name)
    body = {k: v.clone() for k, v in network.state_dict().items() if v.dtype.is_floating_point}
    facts = fit_head(network, corpus, CPU)
    rows = np.stack([pool(tile_log_proba(network, corpus.strips.tiles(n), CPU)) for n in corpus.validation])
    codes = corpus.targets[corpus.validation].argmax(axis=1)
    assert (rows.argmax(axis=1) == codes).mean() > 0.6  # chance is 1/3, and the body knows nothing
    assert facts["valid_loss"] == pytest.approx(-rows[range(6), codes].mean(), abs=1e-3)
    head = {id(p) for p in network.backbone.get_classifier().parameters()}
    moved = {k for k, v in network.named_parameters() if not torch.equal(v, body[k])}
    assert moved == {k for k, v in network.named_parameters() if id(v) in head}


def test_two_players(corpus):
    two = Corpus(corpus.strips, one_hot(np.arange(18) % 3 // 2, 2), corpus.groups, corpus.training, np.arange(0))
    network = make_network(corpus, n_classes=2)
    assert fit_head(network, two, CPU)["valid_loss"] is None
    rows = np.stack([pool(tile_log_proba(network, corpus.strips.tiles(n), CPU)) for n in range(18)])
    assert (rows.argmax(axis=1) == np.arange(18) % 3 // 2).mean() > 0.8


def test_a_head_that_is_not_one_layer(corpus):
    message = "fit: the head must be one linear layer to be fitted first, got tuple. Pass head_first=False."
    with refused(InputError, message):
        fit_head(make_network(corpus, "ast"), corpus, CPU)


def test_norms_measure_tiles(corpus):
    network = make_network(corpus)
    norm = next(m for m in network.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm))
    before, momentum = norm.running_mean.clone(), norm.momentum
    weights = {k: v.clone() for k, v in network.named_parameters()}
    settle_norms(network, corpus, CPU, seed=0)
    assert not torch.equal(before, norm.running_mean)
    assert norm.momentum == momentum
    assert all(torch.equal(v, weights[k]) for k, v in network.named_parameters())
