"""Where training runs: device, precision and processes."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from cqt2img.models.device import resolve_device

if TYPE_CHECKING:
    from accelerate import Accelerator

_MAX_WORKERS = 8


def make_accelerator(precision: str, device: str | None) -> "Accelerator":
    """Set up Accelerate, for one process or as many as were launched.

    Parameters
    ----------
    precision : {"auto", "fp32", "bf16"}
        "auto" is bf16 on a GPU that supports it, else fp32.
    device : {None, "cpu", "cuda", "mps"}
        As for `resolve_device`.

    Returns
    -------
    Accelerator
        Device, precision and the other processes.

    Raises
    ------
    InputError
        If this machine does not have the device.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # else a second fit would keep the precision of the first
    AcceleratorState._reset_state()
    kind = resolve_device(device).type
    if precision == "auto":
        is_bf16 = kind == "cuda" and torch.cuda.is_bf16_supported()
        precision = "bf16" if is_bf16 else "fp32"
    # without cpu=True, several processes on a machine without a GPU would each train
    # a network of their own
    return Accelerator(
        cpu=kind == "cpu", mixed_precision="no" if precision == "fp32" else precision
    )


def choose_workers(num_workers: int | None, accelerator: "Accelerator") -> int:
    """Choose the number of processes that augment tiles.

    Parameters
    ----------
    num_workers : int, optional
        The number if the user chose one.
    accelerator : Accelerator
        Device, and the number of processes that share the cores.

    Returns
    -------
    int
        `num_workers`; by default 0 on a CPU, where augmentation takes a fiftieth of
        a step, and with a GPU all cores but one, up to 8.
    """
    if num_workers is not None:
        return num_workers
    if accelerator.device.type == "cpu":
        return 0
    n_cores = (os.cpu_count() or 1) // accelerator.num_processes
    return min(_MAX_WORKERS, max(0, n_cores - 1))


@contextmanager
def bf16_on_cpu(network: nn.Module, accelerator: "Accelerator") -> Iterator[None]:
    """Replace the layers that are slow in bfloat16 on a CPU while a network trains.

    The gradients of two layers take five to sixteen times as long in bfloat16 as in
    float32, and cancel the gain of all others (`benchmarks/RESULTS.md`): depthwise
    convolutions with a stride, which run in float32 here, and fused attention, which
    is replaced by its separate steps.

    Parameters
    ----------
    network : Module
        The network; it is restored at the end.
    accelerator : Accelerator
        Precision and device. With any other than bf16 on a CPU, this does nothing.
    """
    is_bf16 = accelerator.mixed_precision == "bf16"
    if not is_bf16 or accelerator.device.type != "cpu":
        yield
        return
    with ExitStack() as stack:
        for module in network.modules():
            if _is_strided_depthwise(module):
                module.forward = _in_float32(module.forward)
                stack.callback(delattr, module, "forward")
            elif getattr(module, "fused_attn", False):
                setattr(module, "fused_attn", False)  # noqa: B010
                stack.callback(setattr, module, "fused_attn", True)
        yield


def _is_strided_depthwise(module: nn.Module) -> bool:
    if not isinstance(module, nn.Conv2d):
        return False
    return module.groups > 1 and max(module.stride) > 1


def _in_float32(
    forward: Callable[[torch.Tensor], torch.Tensor],
) -> Callable[[torch.Tensor], torch.Tensor]:
    def run(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            return forward(x.float())

    return run


def is_first_process() -> bool:
    """Check whether this process is the main one of those that train together.

    Returns
    -------
    bool
        True for a single process. Only the main process writes and logs.
    """
    from accelerate import PartialState

    return PartialState().is_main_process


def is_out_of_memory(err: BaseException) -> bool:
    """Check whether an error means that a GPU or a CPU is out of memory.

    Parameters
    ----------
    err : BaseException
        The error.

    Returns
    -------
    bool
        Whether smaller batches may help.
    """
    is_gpu_error = isinstance(err, torch.OutOfMemoryError)
    return is_gpu_error or "not enough memory" in str(err)
