"""Let every write of a rendering in turn fail for want of space, and resume it.

python -m tests.programs.render_on_full_disk RECORDINGS FOLDER

Prints how many of the runs were stopped by the error.
"""

import errno
import os
import sys
from pathlib import Path

from cqt2img.data.render import render
from cqt2img.errors import InputError
from tests.interrupted_runs import contents, find_broken

N_RUNS = 50
WRITE_FLAGS = os.O_WRONLY | os.O_RDWR


class FullDisk:
    """Audit hook that lets one write below a folder fail."""

    def __init__(self, folder):
        self.folder = str(folder)
        self.n_left = 0  # 0 lets all writes pass

    def __call__(self, event, args):
        if not self.n_left or not self.is_write(event, args):
            return
        self.n_left -= 1
        if self.n_left == 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(args[0]))

    def is_write(self, event, args):
        is_new = event in ("os.mkdir", "os.rename")
        if event == "open":
            is_new = bool((args[2] or 0) & WRITE_FLAGS)
        return is_new and self.folder in str(args[0])


def main():
    takes = Path(sys.argv[1])
    folder = Path(sys.argv[2])
    disk = FullDisk(folder)
    sys.addaudithook(disk)
    render(takes, folder / "clean", "fast")
    clean = contents(folder / "clean")
    n_stopped = 0
    for n in range(1, N_RUNS + 1):
        out = folder / f"out {n}"
        disk.n_left = n
        try:
            render(takes, out, "fast")
        except InputError as error:
            n_stopped += 1
            message = str(error)
            if not message.startswith("render: the disk is full"):
                raise
            assert find_broken(out, clean) == []
        disk.n_left = 0
        render(takes, out, "fast")
        assert contents(out) == clean, n
    print(n_stopped)


if __name__ == "__main__":
    main()
