"""Program for the tests of Ctrl-C: run many jobs, and print their results.

python -m tests._utils.interrupted_run FOLDER N_JOBS
"""

import signal
import sys
import threading
import time
from pathlib import Path

from cqt2img._utils.parallel import run_parallel
from tests._utils.tasks import wait_for, work_in_folder


def main(folder, n_jobs):
    # A shell ignores the signal for programs in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    printed = []
    watcher = threading.Thread(target=mark_ready, args=(folder, printed), daemon=True)
    watcher.start()
    jobs = ((n, folder) for n in range(100))
    try:
        for n in run_parallel(work_in_folder, jobs, 100, n_jobs=n_jobs):
            print(n, flush=True)
            printed.append(n)
    except KeyboardInterrupt:
        print("stopped", flush=True)


def mark_ready(folder, printed):
    """Create a file when the main thread waits for the third result."""
    wait_for(folder / "2.begun")
    handler = signal.default_int_handler
    while len(printed) < 2 or signal.getsignal(signal.SIGINT) is handler:
        time.sleep(0.01)
    (folder / "ready").touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
