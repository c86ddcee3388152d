"""Notebooks and examples run in an empty folder, and stored outputs are current."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def read_notebook(path):
    import nbformat

    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_notebooks_and_examples_are_found():
    assert len(NOTEBOOKS) >= 3
    assert len(EXAMPLES) >= 3


def describe_outputs(cell):
    """Return the kinds of the outputs of a cell; numbers depend on the machine."""
    kinds = [tuple(sorted(output.get("data", {}))) for output in cell.outputs]
    return [kind or ("text",) for kind in kinds]


def printed_errors(cells):
    outputs = [output for cell in cells for output in cell.outputs]
    return [one.text for one in outputs if one.get("name") == "stderr"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_are_of_one_run_without_warnings(path):
    cells = code_cells(read_notebook(path))
    assert cells
    counts = [cell.execution_count for cell in cells]
    assert counts == [*range(1, len(cells) + 1)]
    assert printed_errors(cells) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_has_the_outputs_that_are_stored(path, tmp_path):
    import nbclient

    notebook = read_notebook(path)
    stored = [describe_outputs(cell) for cell in code_cells(notebook)]
    resources = {"metadata": {"path": str(tmp_path)}}
    client = nbclient.NotebookClient(notebook, timeout=1200, resources=resources)
    client.execute()
    cells = code_cells(notebook)
    found = [describe_outputs(cell) for cell in cells]
    n_figures = sum("image/png" in kind for kinds in found for kind in kinds)
    assert n_figures >= 2
    assert printed_errors(cells) == []
    assert found == stored, "run python notebooks/execute.py"


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_prints(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(path)])
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out
