import json
import logging
import pickle
from dataclasses import asdict, replace

import pytest
import timm
import torch
from safetensors.torch import save_file

from cqt2img.errors import InputError
from cqt2img.models.architecture import WEIGHT_SOURCES
from cqt2img.models.factory import build_network
from cqt2img.models.weights import read_saved_model_info, training_provenance
from tests.conftest import raises_with
from tests.models.position_embeddings import check_positions, make_positions


def save_weights(state, path):
    save_file({name: value.contiguous() for name, value in state.items()}, path)


def save_folder(folder, network, name, spec, in_chans=3):
    """Write the files of a saved model that weights are read from."""
    folder.mkdir()
    save_weights(network.state_dict(), folder / "model.safetensors")
    description = {
        "made_by": "cqt2img",
        "architecture": {"backbone": name, "in_chans": in_chans},
        "spec": asdict(spec),
        "training_groups": ["album 1"],
        "fingerprints": ["f1"],
    }
    (folder / "model.json").write_text(json.dumps(description))


def change_description(folder, **changes):
    path = folder / "model.json"
    description = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in description.items() if v is not None}))


@pytest.fixture
def save(tmp_path):
    """Save a network with random weights as a model folder."""

    def save_network(name, spec, in_chans=3, positions=None):
        network = build_network(name, 4, spec, in_chans=in_chans)
        if positions is not None:
            network.backbone.pos_embed.data = positions
        save_folder(tmp_path / "model", network, name, spec, in_chans)
        return tmp_path / "model", network.backbone.state_dict()

    return save_network


@pytest.fixture
def wide(small):
    """Tiles of 4 x 9 patches of 16 pixels, as many as in a square of 6 x 6."""
    return replace(small, width=144)


@pytest.mark.parametrize("file", ["", "model.safetensors"])
@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "ast_tiny_s10"])
def test_training_continues_from_a_saved_model(save, small, name, file, caplog):
    folder, stored = save(name, small)
    loaded = build_network(name, 3, small, folder / file).backbone.state_dict()
    trunk = [key for key in stored if stored[key].shape == loaded[key].shape]
    assert len(trunk) >= len(stored) - 4  # weights and biases of two heads
    for key in trunk:
        assert torch.equal(loaded[key], stored[key]), key
    assert caplog.records == []


def test_training_continues_from_a_model_of_a_classifier(saved, small):
    network = build_network("test_resnet", 2, small, saved)
    info = read_saved_model_info(saved)
    assert (info.backbone, info.in_chans, info.spec) == ("test_resnet", 3, small)
    assert len(info.training_groups) == 9
    assert training_provenance(saved) == (info.training_groups, info.fingerprints)
    assert network.is_pretrained


@pytest.mark.parametrize("in_chans", [(3, 1), (1, 1), (1, 3)])
def test_kernels_are_converted_to_other_channels(save, small, in_chans):
    before, after = in_chans
    folder, stored = save("test_resnet", small, before)
    network = build_network("test_resnet", 3, small, folder, after)
    kernel = next(key for key, value in stored.items() if value.ndim == 4)
    loaded = network.backbone.state_dict()[kernel]
    torch.testing.assert_close(loaded.sum(dim=1), stored[kernel].sum(dim=1))


def test_positions_of_a_saved_model_are_resampled(save, small, wide, caplog):
    """From 4 x 9 to 6 x 6 patches: the number is equal, but rows stay rows."""
    folder, _ = save("ast", wide, positions=make_positions(4, 9))
    square = replace(small, height=96, width=96)
    with caplog.at_level(logging.WARNING):
        network = build_network("ast", 3, square, folder)
    assert network.backbone.patch_embed.grid_size == (6, 6)
    check_positions(network.backbone.pos_embed, (6, 6), old_grid=(4, 9))
    (record,) = caplog.records
    for part in (str(folder), "64 x 144", "96 x 96"):
        assert part in record.getMessage()


def test_positions_of_overlapping_patches_are_resampled(save, small):
    """From 12 x 5, which is no square, to 9 x 13 patches."""
    spec = replace(small, height=126, width=56)
    folder, _ = save("ast_tiny_s10", spec, positions=make_positions(12, 5))
    spec = replace(small, height=96, width=136)
    network = build_network("ast_tiny_s10", 3, spec, folder)
    assert network.backbone.patch_embed.grid_size == (9, 13)
    grid = network.backbone.pos_embed[0, 2:].reshape(9, 13, 192)
    assert (grid[:, :, 0].diff(dim=0) > 0).all()
    assert (grid[:, :, 1].diff(dim=1) > 0).all()


def test_positions_for_larger_images_are_resampled(tmp_path, small):
    """From 24 x 24 patches under the name of the network with 14 x 14."""
    network = timm.create_model("deit_tiny_distilled_patch16_224", img_size=384)
    path = tmp_path / "large.safetensors"
    save_weights({**network.state_dict(), "pos_embed": make_positions(24, 24)}, path)
    spec = replace(small, height=192, width=256)
    network = build_network("ast", 3, spec, path)
    check_positions(network.backbone.pos_embed, (12, 16), old_grid=(24, 24))


def test_positions_of_an_unknown_grid_are_an_input_error(tmp_path, small):
    path = tmp_path / "bare.safetensors"
    network = build_network("ast", 3, replace(small, width=80))  # 4 x 5 patches
    save_weights(network.backbone.state_dict(), path)
    with raises_with(InputError, f"fit: weights={str(path)!r}", "square", "20"):
        build_network("ast", 3, small, path)


def test_positions_that_contradict_the_description_are_an_input_error(
    save, small, wide
):
    folder, _ = save("ast", wide)
    change_description(folder, spec=asdict(replace(wide, width=32)))
    with raises_with(InputError, f"fit: weights={str(folder)!r}", "4 x 2", "36"):
        build_network("ast", 3, small, folder)


def test_a_model_of_another_backbone_is_an_input_error(save, small):
    folder, _ = save("test_resnet", small)
    parts = [f"fit: weights={str(folder)!r}", "'test_vit'", "backbone='test_resnet'"]
    with raises_with(InputError, *parts):
        build_network("test_vit", 3, small, folder)


@pytest.mark.parametrize("key", ["architecture", "spec", "fingerprints"])
def test_an_incomplete_description_is_an_input_error(save, small, key):
    folder, _ = save("test_resnet", small)
    change_description(folder, **{key: None})
    with raises_with(InputError, f"fit: weights={str(folder)!r}", "Copy it again"):
        build_network("test_resnet", 3, small, folder)
    with raises_with(InputError, f"fit: weights={str(folder)!r}", "Copy it again"):
        training_provenance(folder)


def test_a_folder_that_is_not_a_model_is_an_input_error(tmp_path, small):
    parts = [f"fit: weights={str(tmp_path)!r}", "folder", WEIGHT_SOURCES]
    with raises_with(InputError, *parts):
        build_network("test_resnet", 3, small, tmp_path)


@pytest.mark.parametrize("description", [None, "{}", '{"made_by": "others"}', "["])
def test_a_file_of_the_hub_may_have_the_name_of_ours(tmp_path, small, description):
    """Files of the hub are named model.safetensors, some beside a model.json."""
    stored = timm.create_model("test_resnet", num_classes=9).state_dict()
    path = tmp_path / "model.safetensors"
    save_weights(stored, path)
    if description is not None:
        (tmp_path / "model.json").write_text(description)
    assert read_saved_model_info(path) is None
    loaded = build_network("test_resnet", 3, small, path).backbone.state_dict()
    assert torch.equal(loaded["layer1.0.conv1.weight"], stored["layer1.0.conv1.weight"])


@pytest.mark.parametrize("weights", [None, "none", "imagenet", "None"])
def test_other_weights_have_no_provenance(weights):
    assert training_provenance(weights) == ([], [])


def test_the_provenance_is_that_of_the_description(save, small):
    folder, _ = save("test_resnet", small)
    assert training_provenance(folder) == (["album 1"], ["f1"])


@pytest.fixture
def resnet_file(tmp_path):
    """Weights of a backbone with seven classes, its state and the name of its head."""
    torch.manual_seed(7)
    network = timm.create_model("test_resnet", num_classes=7)
    path = tmp_path / "seven.safetensors"
    save_file(network.state_dict(), path)
    return path, network.state_dict(), network.default_cfg["classifier"]


def test_all_weights_but_the_head_come_from_the_file(small, resnet_file):
    path, stored, head = resnet_file
    network = build_network("test_resnet", 3, small, path)
    loaded = network.backbone.state_dict()
    trunk = [name for name in stored if not name.startswith(head)]
    assert len(trunk) > 10
    for name in trunk:
        assert torch.equal(loaded[name], stored[name]), name
    assert len(loaded[f"{head}.weight"]) == 3


def test_kernels_are_summed_over_the_colours_for_one_channel(small, resnet_file):
    path, stored, _ = resnet_file
    network = build_network("test_resnet", 3, small, str(path), in_chans=1)
    kernel = next(name for name, value in stored.items() if value.ndim == 4)
    expected = stored[kernel].sum(dim=1, keepdim=True)
    torch.testing.assert_close(network.backbone.state_dict()[kernel], expected)


def test_a_file_may_lack_the_head(small, resnet_file, tmp_path):
    _, stored, head = resnet_file
    trunk = {k: v for k, v in stored.items() if not k.startswith(head)}
    path = tmp_path / "trunk.safetensors"
    save_file(trunk, path)
    loaded = build_network("test_resnet", 3, small, path).backbone.state_dict()
    for name, value in trunk.items():
        assert torch.equal(loaded[name], value), name
    assert len(loaded[f"{head}.weight"]) == 3


@pytest.mark.parametrize("kind", ["Missing", "Unexpected"])
def test_a_file_that_fits_only_in_part_is_an_input_error(
    small, resnet_file, tmp_path, kind
):
    """timm keeps random weights for missing ones if the number of classes differs."""
    state = dict(resnet_file[1])
    if kind == "Missing":
        del state["layer4.0.conv1.weight"]
    else:
        state["layer5.0.conv1.weight"] = torch.zeros(3)
    path = tmp_path / "part.safetensors"
    save_file(state, path)
    with raises_with(InputError, f"fit: weights={str(path)!r}", f"{kind} key(s)"):
        build_network("test_resnet", 3, small, path)


def test_a_file_of_another_backbone_is_an_input_error(small, resnet_file):
    path = resnet_file[0]
    parts = [f"fit: weights={str(path)!r}", "'test_convnext'", WEIGHT_SOURCES]
    with raises_with(InputError, *parts):
        build_network("test_convnext", 3, small, path)


@pytest.mark.parametrize("word", ["gone.safetensors", "audioset"])
def test_a_missing_file_is_an_input_error(small, word):
    parts = [f"fit: weights={word!r}", WEIGHT_SOURCES]
    with raises_with(InputError, *parts):
        build_network("test_resnet", 3, small, word)


@pytest.mark.parametrize("word", ["imagnet", "ImageNet"])
def test_a_misspelt_word_has_a_suggestion(small, word):
    with raises_with(InputError, f"fit: weights={word!r}", "did you mean 'imagenet'?"):
        build_network("test_resnet", 3, small, word)


@pytest.mark.parametrize("content", [b"", b"no weights", b"\0" * 400])
@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_a_file_without_weights_is_an_input_error(small, tmp_path, content, name):
    path = tmp_path / name
    path.write_bytes(content)
    parts = [f"fit: weights={str(path)!r}", "'test_resnet'", WEIGHT_SOURCES]
    with raises_with(InputError, *parts):
        build_network("test_resnet", 3, small, path)


def test_pickled_code_in_a_file_is_not_run(small, tmp_path):
    target = tmp_path / "touched"
    path = tmp_path / "evil.pth"

    class Evil:
        def __reduce__(self):
            return open, (str(target), "w")

    torch.save({"state_dict": Evil()}, path, pickle_module=pickle)
    with raises_with(InputError, f"fit: weights={str(path)!r}"):
        build_network("test_resnet", 3, small, path)
    assert not target.exists()


def test_weights_are_not_copied_with_the_network(small, resnet_file):
    network = build_network("test_resnet", 3, small, resnet_file[0])
    config = network.backbone.pretrained_cfg
    assert not any(isinstance(value, dict) for value in config.values())
