"""Print how many MB rendering needs, apart from the imports.

python -m tests.data.measure_memory RECORDING TILE_FOLDER
"""

import importlib
import re
import sys
from pathlib import Path

from cqt2img import render

LIBRARIES = (
    "PIL.Image",
    "PIL.PngImagePlugin",
    "cqt2img.data.render",
    "filelock",
    "joblib",
    "matplotlib.colors",
    "pandas",
    "soundfile",
    "soxr",
    "threadpoolctl",
)


def peak_megabytes():
    """Return the largest size of this process so far."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+)", status)[1]) / 1024


if __name__ == "__main__":
    for library in LIBRARIES:
        importlib.import_module(library)
    before = peak_megabytes()
    tiles = render([sys.argv[1]], sys.argv[2])
    assert tiles.recordings["status"].tolist() == ["ok"]
    print(peak_megabytes() - before)
