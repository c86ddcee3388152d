"""Files whole or not at all: what is half written has another name, and what was left so is cleared away."""

import errno
import logging
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cqt2img.errors import InputError

log = logging.getLogger(__name__)
_NO_LOCKS = {
    errno.EBADF,
    errno.EINVAL,
    errno.ENOLCK,
    errno.ENOTSUP,
    errno.ENOSYS,
}  # some network disks
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def write_atomic(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file under another name and move it, so that its own name never holds half of it.

    Parameters
    ----------
    path : Path
        The file.
    write : callable
        Gets the other name and writes there.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def check_folder(path: Path) -> None:
    """Refuse a folder that cannot be made or written, before any work is done.

    Parameters
    ----------
    path : Path
        Where files are to go; need not be there yet.

    Raises
    ------
    InputError
        If it is a file, lies below one, or may not be written.
    """
    try:
        nearest = next(
            place for place in (path, *path.absolute().parents) if place.exists()
        )
        good = (
            nearest.is_dir()
            and os.access(nearest, os.W_OK | os.X_OK)
            and "\0" not in str(path)
        )
    except (OSError, ValueError):  # a name that is too long, or that no file can have
        good = False
    if not good:
        raise InputError(
            f"check_folder: path must be a folder that can be written, got {str(path)!r}. Choose another place."
        )


@contextmanager
def disk_full_error(caller: str, folder: Path) -> Iterator[None]:
    """Say in one sentence that the disk is full, where something is written.

    Parameters
    ----------
    caller : str
        Name of the function, for the message.
    folder : Path
        Where files are written.

    Returns
    -------
    context manager
        To write in.

    Raises
    ------
    InputError
        If the disk is full.
    """
    try:
        yield
    except Exception as err:
        # torch and safetensors have errors of their own for it
        words = "No space left" in str(err) or (
            "inline_container" in str(err) and "unexpected pos" in str(err)
        )
        if getattr(err, "errno", None) not in _FULL and not words:
            raise
        raise InputError(
            f"{caller}: the disk must have room, got a full one at {str(getattr(err, 'filename', None) or folder)!r}. "
            "Free some space and run again; what is finished stays."
        ) from err


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold a folder of tiles, and clear away what killed runs left, before and after, if no other run holds it.

    Parameters
    ----------
    folder : Path
        With files that `write_atomic` writes, and folders `tiles/.part-*` that are moved when they are whole.

    Returns
    -------
    context manager
        To write in.
    """
    try:
        import fcntl
    except ImportError:  # Windows: nobody can tell, and what is left over stays
        yield
        return
    hold = os.open(folder, os.O_RDONLY)
    try:
        _sweep(folder, hold, fcntl)
        yield
    finally:
        try:
            _sweep(folder, hold, fcntl)
        finally:
            os.close(hold)


def _sweep(folder: Path, hold: int, fcntl: Any) -> None:
    try:
        fcntl.flock(hold, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for part in [*folder.glob(".*.part"), *folder.glob("tiles/.part-*")]:
            if re.fullmatch(
                r"\..*\.\d+\.part|\.part-\w{8}", part.name
            ):  # and not a recording with such a name
                _remove(part)
    except BlockingIOError:
        log.debug(
            "another run writes to %s, and what looks left over may be its own", folder
        )
    except OSError as err:
        if err.errno not in _NO_LOCKS:
            raise
        return
    fcntl.flock(hold, fcntl.LOCK_SH)


def _remove(part: Path) -> None:
    """Remove a file or a folder that a worker which outlived its run may be about to move to its final name."""
    doomed = part.with_name(
        f".part-{uuid.uuid4().hex[:8]}"
        if part.is_dir()
        else f".gone.{os.getpid()}.part"
    )
    try:
        os.rename(part, doomed)  # emptied only where nobody finds it
    except FileNotFoundError:
        return
    shutil.rmtree(doomed) if doomed.is_dir() else doomed.unlink()
