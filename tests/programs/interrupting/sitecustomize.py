"""Send Ctrl-C to a rendering when its first recording is finished.

Python imports this module at startup if its folder is in PYTHONPATH. The environment
variable INTERRUPT_MARKER names a file that does not exist; it is created to make sure
that the signal is sent once, whichever process finishes first.
"""

import os
import signal
import sys


def interrupt(event, args):
    if event != "os.rename" or "/.part-" not in str(args[0]):
        return
    try:
        with open(os.environ["INTERRUPT_MARKER"], "x"):
            pass
    except FileExistsError:
        return
    is_worker = "cqt2img._utils.worker" in sys.orig_argv
    os.kill(os.getppid() if is_worker else os.getpid(), signal.SIGINT)


if "INTERRUPT_MARKER" in os.environ:
    sys.addaudithook(interrupt)
