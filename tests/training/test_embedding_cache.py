import numpy as np
import pytest
import torch

from cqt2img.inference.predict import embed_tiles
from cqt2img.training import embedding_cache
from cqt2img.training.batch_norm import recompute_batch_norms
from cqt2img.training.embedding_cache import make_embedder
from tests.training.conftest import CPU, make_data, make_network


@pytest.fixture
def network(small):
    return make_network(small)


@pytest.fixture
def count(monkeypatch):
    """One entry for every time that tiles are embedded."""
    calls = []

    def spy(*args):
        calls.append(1)
        return embed_tiles(*args)

    monkeypatch.setattr(embedding_cache, "embed_tiles", spy)
    return calls


def embed_all(network, tile_arrays, cache_dir):
    embed = make_embedder(network, CPU, cache_dir)
    return [
        embed(np.ascontiguousarray(tile_arrays.tiles(recording)))
        for recording in range(3)
    ]


def test_without_a_folder_tiles_are_embedded_every_time(network, tile_arrays, count):
    for _ in range(2):
        embed_all(network, tile_arrays, None)
    assert len(count) == 6


def test_embeddings_are_computed_once_and_read_to_the_bit(
    network, tile_arrays, tmp_path, count
):
    expected = embed_all(network, tile_arrays, None)
    count.clear()
    for _ in range(2):
        found = embed_all(network, tile_arrays, tmp_path)
        assert len(count) == 3
        for one, other in zip(found, expected, strict=True):
            assert np.array_equal(one, other)


def test_another_head_finds_the_embeddings(network, tile_arrays, tmp_path, count):
    embed_all(network, tile_arrays, tmp_path)
    with torch.no_grad():
        network.backbone.get_classifier().weight.add_(1.0)
    embed_all(network, tile_arrays, tmp_path)
    assert len(count) == 3


def change_weights(network, data):
    with torch.no_grad():
        next(network.backbone.parameters()).add_(1e-3)


def change_batch_norms(network, data):
    recompute_batch_norms(network, data, CPU, seed=0)


def change_table(network, data):
    network.table.add_(1e-3)


@pytest.mark.parametrize("change", [change_weights, change_batch_norms, change_table])
def test_another_backbone_does_not(network, tile_arrays, tmp_path, count, change):
    embed_all(network, tile_arrays, tmp_path)
    change(network, make_data(tile_arrays))
    embed_all(network, tile_arrays, tmp_path)
    assert len(count) == 6


def test_damaged_files_are_computed_again(network, tile_arrays, tmp_path, count):
    expected = embed_all(network, tile_arrays, tmp_path)
    files = list(tmp_path.rglob("output.pkl"))
    assert len(files) == 3
    import joblib

    joblib.dump(np.zeros((1, 3)), files[0])
    joblib.dump("no features", files[1])
    found = embed_all(network, tile_arrays, tmp_path)
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one, other)
