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


def fake_accelerator(precision, device="cpu"):
    return SimpleNamespace(mixed_precision=precision, device=torch.device(device))


def build(name):
    return build_network(name, 3, TileSpec.preset("fast"))


def slow_layers(network):
    """Depthwise convolutions with a stride, and attention."""
    modules = list(network.modules())
    strided = [
        m
        for m in modules
        if isinstance(m, torch.nn.Conv2d) and m.groups > 1 and max(m.stride) > 1
    ]
    return strided, [m for m in modules if hasattr(m, "fused_attn")]


@pytest.mark.parametrize("name", ["mobilenetv2_050", "test_vit", "ast_tiny"])
def test_slow_layers_are_replaced_in_bfloat16_and_restored(name):
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 256, (2, 96, 128), dtype=torch.uint8, generator=generator)
    network = build(name)
    strided, attention = slow_layers(network)
    assert strided or attention
    dtypes = []
    for module in strided:
        module.register_forward_hook(lambda module, x, y: dtypes.append(y.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        network(levels)
        assert set(dtypes) <= {torch.bfloat16}
        dtypes.clear()
        with bf16_on_cpu(network, fake_accelerator("bf16")):
            assert not any(module.fused_attn for module in attention)
            network(levels).sum().backward()
    assert dtypes == [torch.float32] * len(strided)
    assert all(module.fused_attn for module in attention)
    assert not any("forward" in vars(module) for module in network.modules())


@pytest.mark.parametrize(
    "accelerator", [fake_accelerator("no"), fake_accelerator("bf16", "cuda")]
)
def test_layers_are_kept_in_float32_and_on_a_gpu(accelerator):
    network = build("test_vit")
    _, attention = slow_layers(network)
    with bf16_on_cpu(network, accelerator):
        assert attention
        assert all(module.fused_attn for module in attention)


def test_slow_layers_are_restored_after_an_error():
    network = build("mobilenetv2_050")
    with (
        pytest.raises(ValueError, match="broken"),
        bf16_on_cpu(network, fake_accelerator("bf16")),
    ):
        raise ValueError("broken")
    assert not any("forward" in vars(module) for module in network.modules())


def test_every_accelerator_has_its_own_precision():
    for precision, expected in [
        ("fp32", "no"),
        ("bf16", "bf16"),
        ("auto", "no"),
        ("bf16", "bf16"),
    ]:
        accelerator = make_accelerator(precision, "cpu")
        assert accelerator.mixed_precision == expected
        assert accelerator.device.type == "cpu"


def test_an_unknown_device_is_an_error():
    with raises_with(InputError, "device", "cpu", "'tpu'"):
        make_accelerator("fp32", "tpu")


def test_a_single_process_is_the_first():
    assert is_first_process()


@pytest.mark.parametrize(
    ("err", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to"), True),
        (RuntimeError("shapes do not match"), False),
        (MemoryError(), False),
    ],
)
def test_errors_of_torch_for_full_memory_are_recognised(err, expected):
    assert is_out_of_memory(err) is expected


@pytest.mark.parametrize(
    ("num_workers", "device", "n_processes", "n_cores", "expected"),
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
def test_workers_share_the_cores_beside_a_gpu(
    monkeypatch, num_workers, device, n_processes, n_cores, expected
):
    monkeypatch.setattr("os.cpu_count", lambda: n_cores)
    accelerator = SimpleNamespace(
        device=torch.device(device), num_processes=n_processes
    )
    assert choose_workers(num_workers, accelerator) == expected
