import socket
import time
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from cqt2img.errors import InputError
from cqt2img.inference.model import FittedModel
from cqt2img.inference.model_io import load_model, save_model
from cqt2img.models.device import resolve_device, retain_freed_memory
from cqt2img.models.factory import TileNet, build_network
from cqt2img.tiles.png import palette
from tests.conftest import raises_exactly

LIGHT = [
    "resnet18",
    "efficientnet_b0",
    "tf_efficientnetv2_b0",
    "convnext_atto",
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "mobilenetv4_conv_small",
    "vit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "ast",
    "ast_tiny_s10",
    "yamnet",
    "efficientat_mn04",
    "test_resnet",
    "test_vit",
    "test_efficientnet",
    "test_convnext",
]
HEAVY = [
    "resnet50",
    "convnext_tiny",
    "vit_small_patch16_224",
    "efficientnetv2_rw_t",
    "ast_small_s10",
    "audiomae",
]
SOUND = ["yamnet", "efficientat_mn04", "audiomae"]
NAMES = LIGHT + [pytest.param(name, marks=pytest.mark.slow) for name in HEAVY]
FAMILIES = ["test_resnet", "test_vit", "test_efficientnet", "test_convnext"]
WAYS = (
    "Connect to the network once so that timm can fetch them, give a local file of weights, "
    "or start at random with weights=None (--weights none)."
)


def levels(spec, n=2, seed=0):
    return torch.from_numpy(
        np.random.default_rng(seed).integers(0, 256, (n, *spec.size), dtype=np.uint8)
    )


@pytest.fixture
def seven(tmp_path):
    """Weights of a backbone that knew seven other names."""
    torch.manual_seed(7)
    donor = timm.create_model("test_resnet", num_classes=7)
    save_file(donor.state_dict(), tmp_path / "seven.safetensors")
    return tmp_path / "seven.safetensors", donor


@pytest.mark.parametrize("in_chans", [1, 3])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_takes_tiles_of_any_shape(small, name, in_chans):
    network = build_network(name, 5, small, in_chans=in_chans).eval()
    logits = network(levels(small))
    assert isinstance(network, TileNet)
    assert (logits.shape, logits.dtype) == ((2, 5), torch.float32)
    assert torch.isfinite(logits).all()
    logits.sum().backward()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)


@pytest.fixture
def odd(small):
    """Tiles that no patch divides."""
    return replace(small, height=67, width=45)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("in_chans", [1, 3])
def test_backbone_by_name_learns_from_odd_tiles(odd, name, in_chans):
    if in_chans == 3 and name in SOUND:
        return  # they hear levels only, see test_audioset.py
    torch.manual_seed(0)
    network = build_network(name, 3, odd, in_chans=in_chans).train()
    logits = network(levels(odd, 4))
    assert logits.shape == (4, 3)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
    bad = [
        k
        for k, p in network.named_parameters()
        if p.grad is None or not torch.isfinite(p.grad).all()
    ]
    assert bad == []
    heads = network.backbone.get_classifier()
    assert [
        head.out_features for head in (heads if isinstance(heads, tuple) else (heads,))
    ] in ([3], [3, 3])


@pytest.mark.parametrize("name", NAMES)
def test_backbone_by_name_is_saved_and_opened(odd, name, tmp_path):
    network = build_network(name, 3, odd, in_chans=1).eval()
    fitted = FittedModel(network, name, 1, odd, np.array(["a", "b", "c"]))
    save_model(tmp_path / "model", fitted, {})
    again, _ = load_model(tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(again.network.eval()(levels(odd)), network(levels(odd)))


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "ast_tiny_s10", "yamnet", "test_vit"]
)
@pytest.mark.parametrize("row", [0, -1])
@pytest.mark.parametrize("column", [0, -1])
def test_every_corner_of_a_tile_is_heard(odd, name, row, column):
    """timm drops the rows and columns that fill no whole patch: the lowest notes, the last moments."""
    torch.manual_seed(0)
    network = build_network(name, 3, odd, in_chans=1).eval()
    silence = torch.zeros((1, *odd.size), dtype=torch.uint8)
    click = silence.clone()
    click[0, row, column] = 255
    with torch.no_grad():
        features = [
            network.backbone.forward_features(_input(network, tile))
            for tile in (silence, click)
        ]
    assert not torch.equal(*features)


def _input(network, tile):
    """What the backbone gets for a tile."""
    seen = []
    hook = network.backbone.register_forward_pre_hook(
        lambda module, args: seen.append(args[0])
    )
    network(tile)
    hook.remove()
    return seen[0]


def test_margin_is_silence_above_and_after(odd):
    network = build_network("test_vit", 3, odd, in_chans=1).eval()
    with torch.no_grad():
        seen = _input(network, torch.full((1, *odd.size), 200, dtype=torch.uint8))[0, 0]
    assert seen.shape == (80, 48)
    assert torch.equal(seen[13:, :45], network.table[200, 0].expand(67, 45))
    assert torch.equal(seen[:13], network.table[0, 0].expand(13, 48))
    assert torch.equal(seen[:, 45:], network.table[0, 0].expand(80, 3))


def test_vision_transformer_covers_the_whole_tile(small):
    network = build_network("test_vit", 3, small)
    assert network.backbone.patch_embed.grid_size == (
        small.height // 16,
        small.width // 16,
    )
    assert network.backbone.patch_embed.grid_size == (4, 2)


@pytest.mark.parametrize("name", FAMILIES)
def test_random_head_starts_undecided(small, name):
    with torch.no_grad():
        logits = build_network(name, 10, small).eval()(levels(small, 4))
    proba = torch.softmax(logits, dim=1)
    assert float(-proba.log().mean()) == pytest.approx(np.log(10), abs=0.2)


@pytest.mark.parametrize("name", FAMILIES)
def test_three_channels_are_painted_and_normalised(small, name):
    network = build_network(name, 3, small)
    config = network.backbone.pretrained_cfg
    mean, std = np.array(config["mean"]), np.array(config["std"])
    assert network.table.shape == (256, 3)
    np.testing.assert_allclose(
        network.table, (palette(small.colour_map) / 255 - mean) / std, atol=1e-6
    )


def test_one_channel_is_the_level(small):
    network = build_network("test_resnet", 3, small, in_chans=1)
    config = network.backbone.pretrained_cfg
    expected = (np.arange(256) / 255 - np.mean(config["mean"])) / np.mean(config["std"])
    np.testing.assert_allclose(network.table[:, 0], expected, atol=1e-6)


def test_network_sees_the_painted_picture(small):
    network = build_network("test_resnet", 3, small).eval()
    config, tiles = network.backbone.pretrained_cfg, levels(small)
    colours = (
        torch.from_numpy(palette(small.colour_map)[tiles.numpy()])
        .permute(0, 3, 1, 2)
        .float()
        / 255
    )
    mean, std = (torch.tensor(config[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    torch.testing.assert_close(
        network(tiles), network.backbone((colours - mean) / std), atol=1e-5, rtol=1e-4
    )


def test_table_is_not_saved(small):
    assert "table" not in build_network("test_resnet", 3, small).state_dict()


@pytest.mark.parametrize("bad", [2, 0, "3", None])
def test_channels_are_one_or_three(small, bad):
    message = (
        f"Classifier: in_chans must be 1 or 3, got {bad!r}. Take 3 for painted tiles."
    )
    with raises_exactly(InputError, message):
        build_network("test_resnet", 3, small, in_chans=bad)


def test_unknown_name_lists_the_nearest(small):
    with pytest.raises(InputError) as caught:
        build_network("resnet81", 3, small)
    start, near = str(caught.value).split(" Did you mean ")
    assert start == "Classifier: backbone must be a model of timm, got 'resnet81'."
    names = near.removesuffix("?").split(", ")
    assert 1 <= len(names) <= 3
    assert all(timm.is_model(name) and name.startswith("resnet") for name in names)


def test_name_like_none(small):
    message = "Classifier: backbone must be a model of timm, got '0'. List them with timm.list_models()."
    with raises_exactly(InputError, message):
        build_network("0", 3, small)


def test_backbone_that_does_not_fit_the_tiles(small):
    message = "Classifier: backbone must build for these tiles, got 'gcvit_xxtiny': division by zero. Try another backbone."
    with raises_exactly(InputError, message):
        build_network("gcvit_xxtiny", 3, replace(small, width=1))


@pytest.mark.parametrize("word", [None, "none", "None"])
def test_none_starts_at_random(small, word):
    torch.manual_seed(1)
    one = build_network("test_resnet", 3, small, word)
    torch.manual_seed(1)
    two = build_network("test_resnet", 3, small, word)
    three = build_network("test_resnet", 3, small, word)
    name = next(k for k, v in one.state_dict().items() if v.ndim == 4)
    assert torch.equal(one.state_dict()[name], two.state_dict()[name])
    assert not torch.equal(one.state_dict()[name], three.state_dict()[name])


def test_file_of_weights_fills_the_trunk(small, seven):
    path, donor = seven
    network = build_network("test_resnet", 3, small, path)
    mine, theirs = network.backbone.state_dict(), donor.state_dict()
    trunk = [
        name for name in theirs if not name.startswith(donor.default_cfg["classifier"])
    ]
    assert len(trunk) > 10
    assert all(torch.equal(mine[name], theirs[name]) for name in trunk)
    head = donor.default_cfg["classifier"] + ".weight"
    assert mine[head].shape[0] == 3


def test_file_of_weights_as_a_string_with_one_channel(small, seven):
    path, donor = seven
    network = build_network("test_resnet", 3, small, str(path), in_chans=1)
    first = next(k for k, v in donor.state_dict().items() if v.ndim == 4)
    expected = donor.state_dict()[first].sum(dim=1, keepdim=True)
    torch.testing.assert_close(network.backbone.state_dict()[first], expected)


def test_file_of_weights_is_missing(small, tmp_path):
    path = tmp_path / "gone.safetensors"
    message = f"Classifier: weights must be 'imagenet', None or a file, got no file {str(path)!r}. {WAYS}"
    with raises_exactly(InputError, message):
        build_network("test_resnet", 3, small, path)


def test_a_word_that_is_no_file(small):
    message = f"Classifier: weights must be 'imagenet', None or a file, got no file 'audioset'. {WAYS}"
    with raises_exactly(InputError, message):
        build_network("test_resnet", 3, small, "audioset")


def test_weights_of_another_backbone(small, seven):
    path, _ = seven
    with pytest.raises(InputError) as caught:
        build_network("test_convnext", 3, small, path)
    assert str(caught.value).startswith(
        f"Classifier: weights must fit 'test_convnext', got {str(path)!r}: "
    )
    assert str(caught.value).endswith(WAYS)


def test_weights_without_a_head(small, seven, tmp_path):
    _, donor = seven
    head = donor.default_cfg["classifier"]
    trunk = {k: v for k, v in donor.state_dict().items() if not k.startswith(head)}
    save_file(trunk, tmp_path / "trunk.safetensors")
    mine = build_network(
        "test_resnet", 3, small, tmp_path / "trunk.safetensors"
    ).backbone.state_dict()
    assert all(torch.equal(mine[name], value) for name, value in trunk.items())
    assert mine[head + ".weight"].shape[0] == 3


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_weights_that_fill_only_a_part_are_no_weights(small, seven, tmp_path, change):
    """timm leaves at random what a file does not hold, where the number of classes differs."""
    state = dict(seven[1].state_dict())
    if change == "missing":
        del state["layer4.0.conv1.weight"]
    else:
        state["layer5.0.conv1.weight"] = torch.zeros(3)
    path = tmp_path / "part.safetensors"
    save_file(state, path)
    with pytest.raises(InputError) as caught:
        build_network("test_resnet", 3, small, path)
    start = f"Classifier: weights must fit 'test_resnet', got {str(path)!r}: Error(s) in loading state_dict for ResNet:"
    assert str(caught.value).startswith(start)
    assert f"{change.capitalize()} key(s)" in str(caught.value)


def test_weights_are_not_carried_along(small, seven):
    network = build_network("test_resnet", 3, small, seven[0])
    assert not any(
        isinstance(value, dict) for value in network.backbone.pretrained_cfg.values()
    )


@pytest.mark.parametrize("content", [b"", b"no weights", b"\0" * 400])
@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_file_that_holds_no_weights(small, tmp_path, content, name):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        build_network("test_resnet", 3, small, path)
    assert str(caught.value).startswith(
        f"Classifier: weights must fit 'test_resnet', got {str(path)!r}: "
    )
    assert str(caught.value).endswith(WAYS)


def test_pickled_code_in_a_file_of_weights_is_not_run(small, tmp_path):
    import pickle

    target = tmp_path / "touched"

    class Evil:
        def __reduce__(self):
            return open, (str(target), "w")

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth", pickle_module=pickle)
    with pytest.raises(InputError, match="weights must fit"):
        build_network("test_resnet", 3, small, tmp_path / "evil.pth")
    assert not target.exists()


def test_imagenet_without_a_network_is_an_error_at_once(small, monkeypatch, tmp_path):
    from huggingface_hub import constants

    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for name in (
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    before, start = constants.HF_HUB_OFFLINE, time.perf_counter()
    with pytest.raises(InputError) as caught:
        build_network("test_resnet", 3, small, "imagenet")
    assert time.perf_counter() - start < 10
    assert str(caught.value).startswith(
        "Classifier: weights must be at hand, got none for 'test_resnet' ("
    )
    assert str(caught.value).endswith(f"). {WAYS}")
    assert before == constants.HF_HUB_OFFLINE


def test_backbone_without_weights_in_timm_is_no_random_start(small):
    # timm only warns here and gives a random network
    name = next(
        name
        for name in timm.list_models("resnet*")
        if timm.get_pretrained_cfg(name)
        and not timm.get_pretrained_cfg(name).has_weights
    )
    with pytest.raises(InputError) as caught:
        build_network(name, 3, small, "imagenet")
    assert str(caught.value).startswith(
        f"Classifier: weights must be at hand, got none for {name!r} ("
    )


def test_find_device():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device(None).type in ("cpu", "cuda", "mps")


def test_steady_memory_gives_back_what_it_held(monkeypatch):
    """The settings of glibc are set, and its defaults come back, even after an error."""
    calls = []

    class Libc:
        def mallopt(self, name, value):
            calls.append((name, value))

        def malloc_trim(self, pad):
            calls.append("trim")

    monkeypatch.setattr("cqt2img.models.device.sys.platform", "linux")
    monkeypatch.setattr("cqt2img.models.device.ctypes.CDLL", lambda name: Libc())
    seen = []

    def work():
        with retain_freed_memory():
            seen.extend(calls)
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert seen == [(-4, 0), (-1, 2**31 - 1)]
    assert calls[2:] == [(-4, 65_536), (-1, 131_072), "trim"]


def test_steady_memory_is_nothing_elsewhere(monkeypatch):
    monkeypatch.setattr("cqt2img.models.device.sys.platform", "darwin")
    monkeypatch.setattr(
        "cqt2img.models.device.ctypes.CDLL",
        lambda name: pytest.fail("touched the system"),
    )
    with retain_freed_memory():
        pass
