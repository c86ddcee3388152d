"""Run the command line as from a terminal, where Ctrl-C has its default handler.

A shell disables Ctrl-C for processes that it starts in the background.
"""

import signal

from cqt2img.cli.main import main

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
