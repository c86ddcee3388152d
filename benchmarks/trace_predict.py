"""Print the modules of a package of which `cqt2img predict` calls a function, as JSON.

    PYTHONPATH=PARENT python benchmarks/trace_predict.py PARENT/cqt2img

A part of `codebase.py`, which also measures versions of before.
"""

import json
import sys
import tempfile
from pathlib import Path
from types import FrameType

import numpy as np

from cqt2img.classifier import Classifier

try:
    from cqt2img.cli.main import main
except ImportError:  # versions of before the packages
    from cqt2img.cli import main


def make_arguments(folder: Path) -> list[str]:
    """Fit a small model on noise; return arguments of `cqt2img`."""
    rng = np.random.default_rng(0)
    cqts = [rng.random((96, 200)) for _ in range(4)]
    model = Classifier(
        "test_resnet", weights=None, spec="fast", epochs=1, verbose=False
    )
    model.fit(cqts, ["a", "b"] * 2).save(folder / "model")
    np.save(folder / "clip.npy", cqts[0])
    return ["predict", str(folder / "clip.npy"), "-m", str(folder / "model"), "-q"]


def trace(package: Path) -> list[str]:
    """Return the files below the package of which a function was called."""
    entered: set[str] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        path = Path(frame.f_code.co_filename)
        is_function = event == "call" and frame.f_code.co_name != "<module>"
        if is_function and path.is_relative_to(package):
            entered.add(str(path.relative_to(package)))

    with tempfile.TemporaryDirectory() as folder:
        sys.argv = ["cqt2img", *make_arguments(Path(folder))]
        sys.setprofile(note)
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise
        finally:
            sys.setprofile(None)
    return sorted(entered)


if __name__ == "__main__":
    print(json.dumps(trace(Path(sys.argv[1]).resolve())))
