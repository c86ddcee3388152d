"""Where a network runs, and how its memory is kept steady."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from cqt2img.errors import InputError

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # numbers of glibc's malloc.h


def resolve_device(device: str | None) -> torch.device:
    """Choose where a network runs.

    Parameters
    ----------
    device : {None, "cpu", "cuda", "mps"}
        None takes the GPU if there is one.

    Returns
    -------
    torch.device
        The device.

    Raises
    ------
    InputError
        If this machine has no such device.
    """
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if device is None:
        return torch.device(
            "cuda" if there["cuda"] else "mps" if there["mps"] else "cpu"
        )
    if not isinstance(device, str) or not there.get(device):
        names = ", ".join(name for name, is_there in there.items() if is_there)
        raise InputError(
            f"Classifier: device must be None or one of {names} here, got {device!r}. Choose one of these."
        )
    return torch.device(device)


@contextmanager
def retain_freed_memory() -> Iterator[None]:
    """Keep the memory of one step for the next, while a network works on a CPU under Linux.

    glibc gives large arrays back to the system at once, and gets them anew, page by page, in the
    next step: that took a third of a training step and more (`benchmarks/RESULTS.md`). Elsewhere
    this does nothing. The defaults of glibc come back at the end.
    """
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        yield
        return
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_MAX, 65_536)
        libc.mallopt(_TRIM_THRESHOLD, 128 * 1024)
        libc.malloc_trim(0)
