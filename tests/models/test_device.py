import pytest
import torch

from cqt2img.errors import InputError
from cqt2img.models import device as device_module
from cqt2img.models.device import resolve_device, retain_freed_memory
from tests.conftest import raises_with

# options of glibc's mallopt
TRIM_THRESHOLD = -1
MMAP_MAX = -4
SET = [(MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1)]
RESTORED = [(MMAP_MAX, 65_536), (TRIM_THRESHOLD, 131_072), "trim"]


@pytest.fixture
def _cpu_only(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)


@pytest.mark.usefixtures("_cpu_only")
@pytest.mark.parametrize("name", ["cpu", None])
def test_the_cpu_is_always_available(name):
    assert resolve_device(name) == torch.device("cpu")


@pytest.mark.usefixtures("_cpu_only")
@pytest.mark.parametrize(
    ("name", "module"), [("cuda", "torch.cuda"), ("mps", "torch.backends.mps")]
)
def test_a_gpu_is_the_default_if_there_is_one(monkeypatch, name, module):
    monkeypatch.setattr(f"{module}.is_available", lambda: True)
    assert resolve_device(None).type == name
    assert resolve_device("cpu").type == "cpu"


@pytest.mark.usefixtures("_cpu_only")
@pytest.mark.parametrize("name", ["cuda", "mps", "gpu", "", 0, ["cpu"]])
def test_a_missing_device_is_an_input_error(name):
    with raises_with(InputError, f"device={name!r}", "cpu"):
        resolve_device(name)


@pytest.fixture
def calls(monkeypatch):
    """Calls of glibc's functions, which are replaced."""
    made = []

    class FakeLibrary:
        def mallopt(self, option, value):
            made.append((option, value))

        def malloc_trim(self, pad):
            made.append("trim")

    monkeypatch.setattr(device_module.sys, "platform", "linux")
    monkeypatch.setattr(device_module.ctypes, "CDLL", lambda name: FakeLibrary())
    monkeypatch.delenv("MALLOC_MMAP_MAX_", raising=False)
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    return made


def test_allocator_settings_are_restored(calls):
    with retain_freed_memory():
        assert calls == SET
    assert calls == SET + RESTORED


def test_allocator_settings_are_restored_after_an_error(calls):
    with pytest.raises(KeyError), retain_freed_memory():
        raise KeyError
    assert calls == SET + RESTORED


def test_the_outermost_block_restores_the_allocator(calls):
    with retain_freed_memory():
        with retain_freed_memory():
            pass
        assert calls == SET
    assert calls == SET + RESTORED


def test_settings_in_the_environment_are_restored(calls, monkeypatch):
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "7")
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "8")
    with retain_freed_memory():
        pass
    assert calls[2:] == [(MMAP_MAX, 7), (TRIM_THRESHOLD, 8), "trim"]


def test_other_systems_are_not_changed(calls, monkeypatch):
    monkeypatch.setattr(device_module.sys, "platform", "darwin")
    with retain_freed_memory():
        pass
    assert calls == []


def test_a_c_library_without_these_functions_is_not_changed(calls, monkeypatch):
    monkeypatch.setattr(device_module.ctypes, "CDLL", lambda name: object())
    with retain_freed_memory():
        pass
    assert calls == []
