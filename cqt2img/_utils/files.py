"""Files that are written completely or not at all, and checks of folders and disks."""

import errno
import logging
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cqt2img.errors import InputError

if TYPE_CHECKING:
    from filelock import BaseFileLock

log = logging.getLogger(__name__)
_DISK_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
# What a killed run leaves; a recording may have a similar name.
_LEFTOVER = re.compile(r"\..*\.\d+\.part|\.part-\w{8}")
_LOCK_SECONDS = 10.0  # another run holds the lock while it checks whether it is in use


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under a temporary name, and move it to its own name when complete.

    Parameters
    ----------
    path : Path
        The file.
    write : callable
        Called with the temporary name; writes the file.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def check_folder(path: Path) -> None:
    """Check that files can be written to a folder, before any work is done.

    Parameters
    ----------
    path : Path
        The folder. It need not exist.

    Raises
    ------
    InputError
        If the path is a file, is below one, or is not writable.
    """
    try:
        is_writable = _is_writable(path)
    except (OSError, ValueError):  # a name that is too long or has a NUL
        is_writable = False
    if not is_writable:
        raise InputError(
            f"{str(path)!r} is not a folder that can be written. Choose another one."
        )


def _is_writable(path: Path) -> bool:
    """Whether the path, or the nearest existing folder above it, is writable."""
    if "\0" in str(path):
        return False
    nearest = path
    while not nearest.exists():
        nearest = nearest.absolute().parent
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)


@contextmanager
def disk_full_error(caller: str, folder: Path) -> Iterator[None]:
    """Replace the errors of a full disk by one that names the folder.

    Parameters
    ----------
    caller : str
        Public method or command, for the message.
    folder : Path
        Where files are written.

    Raises
    ------
    InputError
        If the disk is full.
    """
    try:
        yield
    except Exception as err:
        if not _is_disk_full(err):
            raise
        path = getattr(err, "filename", None) or folder
        raise InputError(
            f"{caller}: the disk is full at {str(path)!r}. Free some space and run "
            "again; finished work is kept."
        ) from err


def _is_disk_full(err: Exception) -> bool:
    if getattr(err, "errno", None) in _DISK_FULL:
        return True
    message = str(err)
    is_torch = "inline_container" in message and "unexpected pos" in message
    return is_torch or "No space left" in message  # the latter from safetensors


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold a folder, and remove the unfinished files of runs that were killed.

    Several runs may hold a folder at the same time. Unfinished files are removed
    before and after, unless another run holds the folder. On disks without locks, they
    are not removed.

    Parameters
    ----------
    folder : Path
        Contains files of `write_atomic`, and folders `tiles/.part-*` that are moved
        when they are complete.
    """
    from filelock import FileLock

    marker = folder / f".run-{uuid.uuid4().hex[:8]}.lock"
    lock = FileLock(marker)
    if not _try_lock(lock, timeout=_LOCK_SECONDS):
        log.debug("%s has no locks; unfinished files stay", folder)
        yield
        return
    try:
        _remove_leftovers(folder, marker)
        yield
    finally:
        _unlock(lock, marker)
        _remove_leftovers(folder, marker)


def _try_lock(lock: "BaseFileLock", timeout: float) -> bool:
    try:
        lock.acquire(timeout=timeout)
    except (OSError, NotImplementedError):  # held by another run, or no locks here
        return False
    return True


def _unlock(lock: "BaseFileLock", marker: Path) -> None:
    # First, so that no other run locks the file before it is gone. On Windows, where an
    # open file cannot be removed, filelock removes it.
    with suppress(OSError):
        marker.unlink()
    lock.release()


def _remove_leftovers(folder: Path, own_marker: Path) -> None:
    """Remove unfinished files unless another run holds the folder."""
    from filelock import FileLock

    # Listed before the locks are checked: a run that starts after that is not found by
    # the check, and its files are not in the list.
    leftovers = [
        path
        for path in (*folder.glob(".*.part"), *folder.glob("tiles/.part-*"))
        if _LEFTOVER.fullmatch(path.name)
    ]
    for marker in folder.glob(".run-*.lock"):
        if marker == own_marker:
            continue
        lock = FileLock(marker)
        if not _try_lock(lock, timeout=0):
            log.debug("another run writes to %s; unfinished files stay", folder)
            return
        _unlock(lock, marker)  # of a run that was killed
    for path in leftovers:
        _remove(path)


def _remove(path: Path) -> None:
    """Remove a file or a folder, or nothing if it has been moved meanwhile.

    A worker that outlived its run may be about to move it to its final name.
    """
    name = f".gone.{os.getpid()}.part"
    if path.is_dir():
        name = f".part-{uuid.uuid4().hex[:8]}"
    doomed = path.with_name(name)
    try:
        os.rename(path, doomed)  # a folder must not be emptied under its own name
    except FileNotFoundError:
        return
    if doomed.is_dir():
        shutil.rmtree(doomed)
    else:
        doomed.unlink()
