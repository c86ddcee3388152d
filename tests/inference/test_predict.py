import numpy as np
import pytest
import torch

from cqt2img.inference.calibration import pool
from cqt2img.inference.predict import (
    embed_recordings,
    embed_tiles,
    predict_recordings,
    stack_embeddings,
    tile_batches,
    tile_log_proba,
)
from cqt2img.models.factory import build_network
from cqt2img.tiles.extract import try_extract
from tests.conftest import make_cqt
from tests.inference.conftest import CPU, NEW_ROW, SILENCE, new_cqts, run


@pytest.fixture(scope="module")
def network(small):
    torch.manual_seed(0)
    return build_network("test_resnet", 3, small, weights=None)


@pytest.fixture(scope="module")
def tiles(small):
    return np.random.default_rng(0).integers(0, 256, (5, *small.size), dtype=np.uint8)


def test_the_probabilities_of_a_tile_sum_to_one(network, tiles):
    rows = tile_log_proba(network, tiles, CPU)
    assert (rows.shape, rows.dtype) == ((5, 3), np.float32)
    np.testing.assert_allclose(np.exp(rows).sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_the_batch_size_does_not_change_the_result(network, tiles, batch_size):
    expected = tile_log_proba(network, tiles, CPU)
    network.train()  # the function must set evaluation mode
    found = tile_log_proba(network, tiles, CPU, batch_size)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not network.training


def test_the_order_of_tiles_is_kept(network, tiles):
    expected = tile_log_proba(network, tiles, CPU)[::-1]
    found = tile_log_proba(network, tiles[::-1].copy(), CPU, 2)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_batches_hold_all_tiles_once(tiles):
    batches = list(tile_batches(tiles, 2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    np.testing.assert_array_equal(torch.cat(batches).numpy(), tiles)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_an_unreadable_recording_does_not_stop_the_others(small, network, index):
    cqts = [make_cqt(5, 100), make_cqt(9, 40)]
    cqts.insert(index, SILENCE)
    extracted = [try_extract(cqt, small) for cqt in cqts]
    outputs = list(predict_recordings(network, extracted, CPU))
    for n, (output, (tiles, info)) in enumerate(zip(outputs, extracted, strict=True)):
        assert output.info == info
        assert output.embedding is None
        if n == index:
            assert output.tile_log_proba is None
            assert output.log_proba is None
        else:
            rows = tile_log_proba(network, tiles, CPU)
            np.testing.assert_array_equal(output.tile_log_proba, rows)
            np.testing.assert_array_equal(output.log_proba, pool(rows))


def test_the_embedding_is_the_mean_over_the_tiles(fitted):
    cqt = new_cqts(1)[0]
    tiles, _ = try_extract(cqt, fitted.spec)
    assert len(tiles) > 1
    expected = (tiles / 255).mean(axis=(0, 2))
    output = run(fitted, [cqt])[0]
    np.testing.assert_allclose(output.embedding, expected, atol=1e-5)
    assert output.embedding.argmax() == 63 - NEW_ROW  # row 0 is the highest pitch


@pytest.mark.parametrize(
    "backbone", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext"]
)
def test_predictions_with_embeddings_are_those_without(small, backbone):
    network = build_network(backbone, 3, small, weights=None)
    extracted = [try_extract(make_cqt(5, 100), small)]
    plain = next(predict_recordings(network, extracted, CPU))
    both = next(predict_recordings(network, extracted, CPU, with_embeddings=True))
    np.testing.assert_allclose(both.tile_log_proba, plain.tile_log_proba, atol=1e-4)
    expected = embed_tiles(network, extracted[0][0], CPU).mean(axis=0)
    np.testing.assert_allclose(both.embedding, expected, atol=1e-5)


def test_a_head_that_is_not_linear_is_applied_as_a_whole(small, fitted):
    head = fitted.network.backbone.head
    fitted.network.backbone.head = torch.nn.Sequential(head, torch.nn.Sigmoid())
    extracted = [try_extract(cqt, small) for cqt in new_cqts(2)]
    plain = predict_recordings(fitted.network, extracted, CPU)
    for one, both in zip(plain, run(fitted, new_cqts(2)), strict=True):
        np.testing.assert_array_equal(one.log_proba, both.log_proba)


def test_recordings_are_embedded_one_by_one(small, fitted):
    cqts = [*new_cqts(1), SILENCE]
    extracted = [try_extract(cqt, small) for cqt in cqts]
    (row, info), (nothing, failure) = embed_recordings(fitted.network, extracted, CPU)
    np.testing.assert_array_equal(row, run(fitted, cqts)[0].embedding)
    assert nothing is None
    assert (info, failure) == (extracted[0][1], extracted[1][1])


def test_embeddings_of_readable_recordings_are_stacked(fitted):
    outputs = run(fitted, [SILENCE, *new_cqts(2), SILENCE])
    readable, features = stack_embeddings(outputs)
    assert readable.tolist() == [1, 2]
    np.testing.assert_array_equal(features[1], outputs[2].embedding)
    readable, features = stack_embeddings(outputs[:1])
    assert len(readable) == len(features) == 0
