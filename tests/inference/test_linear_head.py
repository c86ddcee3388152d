import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from cqt2img.inference.linear_head import LinearHead, read_head, widen_head
from cqt2img.models.factory import build_network


@pytest.fixture(scope="module")
def tiles(small):
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (4, *small.size), dtype=np.uint8))


PLAIN = ["test_resnet", "test_vit", "test_efficientnet", "mobilenetv2_035"]
DISTILLED = ["deit_tiny_distilled_patch16_224"]  # has two heads


@pytest.fixture(scope="module", params=PLAIN + DISTILLED)
def network(request, small):
    torch.manual_seed(0)
    return build_network(request.param, 3, small, weights=None).eval()


def compute(function, tiles):
    with torch.inference_mode():
        return function(tiles).numpy()


@pytest.mark.parametrize("network", PLAIN, indirect=True)
def test_the_head_maps_embeddings_to_the_logits_of_the_network(network, tiles):
    head = read_head(network)
    features = compute(network.embed, tiles)
    logits = compute(network, tiles)
    np.testing.assert_allclose(head(features), logits, atol=1e-3)


@pytest.mark.parametrize("index", [0, 1, 3])
def test_a_wider_head_keeps_the_other_logits(network, tiles, index):
    before = compute(network, tiles)
    features = compute(network.embed, tiles)
    row = np.random.default_rng(1).standard_normal(features.shape[1])
    wide = widen_head(network, index, row, 0.5).eval()
    after = compute(wide, tiles)
    np.testing.assert_allclose(np.delete(after, index, axis=1), before, atol=1e-6)
    np.testing.assert_allclose(after[:, index], features @ row + 0.5, atol=1e-3)
    np.testing.assert_allclose(compute(network, tiles), before, atol=1e-6)


def test_widening_the_head_draws_no_random_numbers(network):
    state = torch.get_rng_state()
    row = np.zeros(read_head(network).weight.shape[1])
    widen_head(network, 0, row, 0.0)
    assert torch.equal(state, torch.get_rng_state())


def test_a_class_is_inserted_at_its_index():
    head = LinearHead(np.eye(2), np.array([1.0, 2.0]))
    wide = head.insert_class(1, np.array([5.0, 6.0]), 7.0)
    np.testing.assert_array_equal(wide.weight, [[1, 0], [5, 6], [0, 1]])
    np.testing.assert_array_equal(wide.bias, [1, 7, 2])


@pytest.mark.parametrize("make", [torch.nn.Sequential, torch.nn.Identity])
def test_a_head_that_is_not_linear_is_not_read(fitted, make):
    fitted.network.backbone.head = make()
    assert read_head(fitted.network) is None


def test_a_head_without_bias_is_not_read(fitted):
    fitted.network.backbone.head = torch.nn.Linear(64, 4, bias=False)
    assert read_head(fitted.network) is None


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_head_from_a_regression_predicts_the_same(n_classes):
    rng = np.random.default_rng(0)
    classes = np.arange(60) % n_classes
    features = 5 + 3 * rng.standard_normal((60, 4)) + classes[:, None]
    scaler = StandardScaler().fit(features)
    model = LogisticRegression().fit(scaler.transform(features), classes)
    head = LinearHead.from_regression(model, scaler)
    logits = head(features)
    log_sum = np.logaddexp.reduce(logits, axis=1, keepdims=True)
    expected = model.predict_log_proba(scaler.transform(features))
    np.testing.assert_allclose(logits - log_sum, expected, atol=1e-9)
