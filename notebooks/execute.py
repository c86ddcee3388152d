"""Execute the notebooks and store their outputs, as a code host shows them.

    python notebooks/execute.py [NAME ...]

`tests/test_notebooks.py` executes them, too, and checks that the stored outputs are
current: the same kinds of output, and the same text but for digits.
"""

import sys
import tempfile
from pathlib import Path

import nbclient
import nbformat

FOLDER = Path(__file__).parent


def execute(path: Path, seconds: int = 600) -> nbformat.NotebookNode:
    """Return a notebook with new outputs, executed in a temporary folder."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        nbclient.NotebookClient(
            notebook, timeout=seconds, resources=resources
        ).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of execution
    return notebook


def main() -> None:
    """Execute the named notebooks, or all."""
    names = sys.argv[1:] or [path.stem for path in sorted(FOLDER.glob("*.ipynb"))]
    for name in names:
        path = FOLDER / f"{name}.ipynb"
        nbformat.write(execute(path), path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
