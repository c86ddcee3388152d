from types import SimpleNamespace

import pytest
import torch

from cqt2img.errors import InputError
from cqt2img.models.factory import build_network
from cqt2img.tiles.spec import TileSpec
from cqt2img.training.accelerator import (
    bf16_on_cpu,
    choose_workers,
    is_first_process,
    is_out_of_memory,
    make_accelerator,
)
from tests.conftest import raises_with

LEVELS = torch.randint(
    0, 256, (2, 96, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


def engine(precision, device="cpu"):
    return SimpleNamespace(mixed_precision=precision, device=torch.device(device))


def slow_parts(network):
    """Depthwise convolutions with a stride, and attention."""
    modules = list(network.modules())
    strided = [
        m
        for m in modules
        if isinstance(m, torch.nn.Conv2d) and m.groups > 1 and max(m.stride) > 1
    ]
    return strided, [m for m in modules if hasattr(m, "fused_attn")]


@pytest.mark.parametrize("name", ["mobilenetv2_050", "test_vit", "ast_tiny"])
def test_slow_parts_are_kept_off_bfloat16_and_given_back(name):
    network = build_network(name, 3, TileSpec.preset("fast"))
    strided, attention = slow_parts(network)
    assert strided or attention
    kinds = []
    for module in strided:
        module.register_forward_hook(lambda module, x, y: kinds.append(y.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        network(LEVELS)
        assert set(kinds) <= {torch.bfloat16}
        kinds.clear()
        with bf16_on_cpu(network, engine("bf16")):
            assert not any(module.fused_attn for module in attention)
            network(LEVELS).sum().backward()
    assert kinds == [torch.float32] * len(strided)
    assert all(module.fused_attn for module in attention)
    assert not any("forward" in vars(module) for module in network.modules())


@pytest.mark.parametrize("where", [engine("no"), engine("bf16", "cuda")])
def test_others_are_left_alone(where):
    network = build_network("test_vit", 3, TileSpec.preset("fast"))
    _, attention = slow_parts(network)
    with bf16_on_cpu(network, where):
        assert all(module.fused_attn for module in attention)


def test_parts_are_given_back_after_an_error():
    network = build_network("mobilenetv2_050", 3, TileSpec.preset("fast"))
    with (
        pytest.raises(ValueError, match="astray"),
        bf16_on_cpu(network, engine("bf16")),
    ):
        raise ValueError("astray")
    assert not any("forward" in vars(module) for module in network.modules())


@pytest.mark.parametrize(
    ("precision", "expected"), [("fp32", "no"), ("bf16", "bf16"), ("auto", "no")]
)
def test_precision_on_a_cpu(precision, expected):
    accelerator = make_accelerator(precision, "cpu")
    assert (accelerator.mixed_precision, accelerator.device.type) == (expected, "cpu")


def test_a_second_fit_may_have_another_precision():
    assert make_accelerator("bf16", "cpu").mixed_precision == "bf16"
    assert make_accelerator("fp32", "cpu").mixed_precision == "no"


def test_a_device_that_is_not_here():
    with raises_with(InputError, "device='tpu'", "cpu"):
        make_accelerator("fp32", "tpu")


def test_one_process_is_the_first():
    assert is_first_process()


@pytest.mark.parametrize(
    ("err", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (
            RuntimeError(
                "DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes."
            ),
            True,
        ),
        (RuntimeError("shapes do not match"), False),
        (MemoryError(), False),
    ],
)
def test_out_of_memory(err, expected):
    assert is_out_of_memory(err) is expected


@pytest.mark.parametrize(
    ("asked", "device", "n_processes", "n_cores", "expected"),
    [
        (None, "cpu", 1, 64, 0),
        (None, "cuda", 1, 64, 8),
        (None, "cuda", 1, 4, 3),
        (None, "cuda", 4, 16, 3),
        (None, "cuda", 8, 4, 0),
        (0, "cuda", 1, 64, 0),
        (5, "cpu", 1, 2, 5),
    ],
)
def test_workers_where_they_pay(
    monkeypatch, asked, device, n_processes, n_cores, expected
):
    monkeypatch.setattr("os.cpu_count", lambda: n_cores)
    where = SimpleNamespace(device=torch.device(device), num_processes=n_processes)
    assert choose_workers(asked, where) == expected
