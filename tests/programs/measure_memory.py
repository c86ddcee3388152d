"""Measure the memory and the time of rendering one recording, apart from the imports.

python -m tests.programs.measure_memory RECORDING TILE_FOLDER [PRESET]

Prints the megabytes and the seconds as JSON.
"""

import importlib
import json
import re
import sys
import time
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


def main():
    recording, folder, *preset = sys.argv[1:]
    for library in LIBRARIES:
        importlib.import_module(library)
    before = peak_megabytes()
    start = time.perf_counter()
    tiles = render([recording], folder, *preset)
    seconds = time.perf_counter() - start
    (status,) = tiles.recordings["status"]
    if status != "ok":
        raise SystemExit(tiles.recordings["message"][0])
    print(json.dumps([peak_megabytes() - before, seconds]))


if __name__ == "__main__":
    main()
