"""Program for a test: start a worker, print its process, and end without closing it.

python -m tests._utils.abandon_pool
"""

import os

from cqt2img._utils.worker_pool import WorkerPool


def main():
    print(WorkerPool().call(os.getpid, (), 600), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
