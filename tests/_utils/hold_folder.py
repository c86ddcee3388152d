"""Program for the tests of locks: hold a folder until standard input is closed.

python -m tests._utils.hold_folder FOLDER
"""

import sys
from pathlib import Path

from cqt2img._utils.files import folder_lock


def main(folder):
    with folder_lock(folder):
        print("held", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
