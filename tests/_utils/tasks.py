"""Functions for worker processes. Imports nothing heavy, because every worker does."""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

from cqt2img.errors import AudioError

FOREVER = 1000  # seconds


class UnpicklableError(Exception):
    """Cannot be made again from its arguments."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def work(item, action=""):
    """Return the item, or fail in the way of the action."""
    if isinstance(item, AudioError):
        return item.reason, item.message
    if action == "SIGSEGV":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif action == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "exit code 5":
        os._exit(5)
    elif action == "hang":
        time.sleep(FOREVER)
    elif action == "hang with the lock of the interpreter":
        ctypes.PyDLL(None).sleep(FOREVER)
    elif action == "disk full":
        raise OSError(28, "No space left on device", "x.png")
    elif action == "unpicklable error":
        raise UnpicklableError(1, 2)
    elif action == "print":
        print("hello", flush=True)
        os.write(1, b"from a C library")
    elif action == "read":
        return sys.stdin.read()
    elif action == "slow":
        time.sleep(0.05)
    elif action == "process":
        return os.getpid()
    elif isinstance(action, Path) and not action.exists():
        action.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def loaded_modules():
    """Return the names of all modules that this process has imported."""
    return sorted(sys.modules)


def search_path():
    """Return where this process imports from."""
    return sys.path


def wait_for(path):
    """Wait until a file exists."""
    while not path.exists():
        time.sleep(0.01)


def work_in_folder(n, folder):
    """Mark the beginning and the end; from the third job on, wait in between."""
    (folder / f"{n}.begun").touch()
    if n >= 2:
        wait_for(folder / "go")
    (folder / f"{n}.done").touch()
    return n
