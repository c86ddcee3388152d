"""Where training runs: device, precision, processes, and what these cannot do."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import nn

from cqt2img.models.device import resolve_device


def make_accelerator(precision: str, device: str | None) -> Any:
    """Set Accelerate up, for one process or as many as were launched.

    Parameters
    ----------
    precision : {"auto", "fp32", "bf16"}
        "auto" is bf16 on a GPU that has it, else fp32.
    device : {None, "cpu", "cuda", "mps"}
        As for `resolve_device`.

    Returns
    -------
    Accelerator
        Knows device, precision and the other processes.

    Raises
    ------
    InputError
        If this machine has no such device.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()  # it keeps its precision, which a second fit must not meet
    where = resolve_device(device).type
    if precision == "auto":
        precision = (
            "bf16" if where == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
        )
    # said in so many words: else several processes without a GPU would each train alone
    return Accelerator(
        cpu=where == "cpu", mixed_precision="no" if precision == "fp32" else precision
    )


def choose_workers(workers: int | None, accelerator: Any) -> int:
    """Choose how many processes augment tiles.

    Parameters
    ----------
    workers : int, optional
        As asked for.
    accelerator : Accelerator
        Knows the device, and how many processes share the cores of this machine.

    Returns
    -------
    int
        As asked for; else 0 on a CPU, where augmentation is a fiftieth of a step, and beside a GPU, which is
        done with it much sooner, all cores but one, to 8.
    """
    if workers is not None:
        return workers
    n_cores = (os.cpu_count() or 1) // accelerator.num_processes
    return 0 if accelerator.device.type == "cpu" else min(8, max(0, n_cores - 1))


@contextmanager
def bf16_on_cpu(network: nn.Module, accelerator: Any) -> Iterator[None]:
    """Keep a network off what is slow in bfloat16 on a CPU, while it trains.

    Two steps backwards take five to sixteen times as long as in float32, and undo the gain of all
    others (`benchmarks/RESULTS.md`): those of depthwise convolutions with a stride, which stay in
    float32 here, and of the fused attention, which is taken apart.

    Parameters
    ----------
    network : Module
        The network; it is as it was in the end.
    accelerator : Accelerator
        Knows precision and device; for others this does nothing.
    """
    with ExitStack() as stack:
        if accelerator.mixed_precision == "bf16" and accelerator.device.type == "cpu":
            for module in network.modules():
                slow = cast(Any, module)
                if (
                    isinstance(module, nn.Conv2d)
                    and module.groups > 1
                    and max(module.stride) > 1
                ):
                    slow.forward = _in_float32(slow.forward)
                    stack.callback(delattr, module, "forward")
                elif getattr(module, "fused_attn", False):
                    slow.fused_attn = False
                    stack.callback(setattr, module, "fused_attn", True)
        yield


def _in_float32(
    forward: Callable[[torch.Tensor], torch.Tensor],
) -> Callable[[torch.Tensor], torch.Tensor]:
    def run(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            return forward(x.float())

    return run


def is_first_process() -> bool:
    """Tell whether this process is the one that writes and speaks, where several train together.

    Returns
    -------
    bool
        True where there is one process only.
    """
    from accelerate import PartialState

    return PartialState().is_main_process


def is_out_of_memory(err: BaseException) -> bool:
    """Tell whether an error means that memory ran out, on a GPU or a CPU.

    Parameters
    ----------
    err : BaseException
        What was raised.

    Returns
    -------
    bool
        Whether less at a time may help.
    """
    return isinstance(err, torch.OutOfMemoryError) or "not enough memory" in str(err)
