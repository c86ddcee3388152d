"""Device selection and settings of the memory allocator."""

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cqt2img.errors import InputError

# option numbers of glibc's malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4

_lock = threading.Lock()
_n_active = 0  # open `retain_freed_memory` blocks; the last one to end restores glibc


def resolve_device(device: str | None) -> torch.device:
    """Return the torch device for a device name.

    Parameters
    ----------
    device : {None, "cpu", "cuda", "mps"}
        None selects the GPU if there is one, else the CPU.

    Returns
    -------
    torch.device
        The device.

    Raises
    ------
    InputError
        If this machine has no such device.
    """
    available = ["cpu"]
    if torch.cuda.is_available():
        available.append("cuda")
    if torch.backends.mps.is_available():
        available.append("mps")
    if device is None:
        preferred = next(name for name in ("cuda", "mps", "cpu") if name in available)
        return torch.device(preferred)
    if device not in available:
        raise InputError(
            f"device={device!r} is not available on this machine. "
            f"Leave it out, or choose one of: {', '.join(available)}."
        )
    return torch.device(device)


@contextmanager
def retain_freed_memory() -> Iterator[None]:
    """Let the C library keep freed memory for reuse while a network runs on a CPU.

    This changes global state, two settings of glibc's allocator that hold for all
    threads of the process. The settings from before are restored when the outermost
    block ends, also after an error. On systems without glibc nothing is changed.

    Notes
    -----
    By default, glibc returns large arrays to the operating system as soon as they are
    freed and requests them again, page by page, in the next step, which took a third
    of a training step and more (`benchmarks/RESULTS.md`). glibc has no function that
    reads the settings, so its defaults, or the values in the environment variables
    `MALLOC_MMAP_MAX_` and `MALLOC_TRIM_THRESHOLD_`, are what is restored.
    """
    global _n_active
    with _lock:
        if _n_active == 0:
            _set_allocator(mmap_max=0, trim_threshold=2**31 - 1)
        _n_active += 1
    try:
        yield
    finally:
        with _lock:
            _n_active -= 1
            if _n_active == 0:
                _restore_allocator()


def _set_allocator(*, mmap_max: int, trim_threshold: int) -> None:
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_M_MMAP_MAX, mmap_max)
        libc.mallopt(_M_TRIM_THRESHOLD, trim_threshold)


def _restore_allocator() -> None:
    _set_allocator(
        mmap_max=_environment_integer("MALLOC_MMAP_MAX_", 65_536),
        trim_threshold=_environment_integer("MALLOC_TRIM_THRESHOLD_", 128 * 1024),
    )
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """Return the C library of the process if it is glibc."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    is_glibc = hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim")
    return libc if is_glibc else None


def _environment_integer(name: str, default: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else default
