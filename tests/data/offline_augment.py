"""Create the album augmentation and print a line if that uses the network.

Run by `test_augment.py` in a process of its own.
"""

import socket
import sys
import warnings


def fail(*args, **options):
    print("network")
    raise OSError("no network")


warnings.simplefilter("error")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = fail

from cqt2img.data.augment import make_augment  # noqa: E402
from cqt2img.tiles.spec import TileSpec  # noqa: E402

assert make_augment("none", TileSpec()) is None
assert make_augment(lambda tile: tile, TileSpec()) is not None
assert "albumentations" not in sys.modules
assert make_augment("album", TileSpec()) is not None
assert "albumentations" in sys.modules
