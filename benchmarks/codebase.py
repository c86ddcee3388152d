"""Measure how easy the package is to read.

    python benchmarks/codebase.py [PACKAGE_FOLDER ...]

Prints for each package folder the entries at its top level, the longest chain of
imports between packages at import time, the modules that `cqt2img predict` enters,
syntax nodes per line of code, `# fmt: skip`, `Any` and `dict[str, Any]`.
`tests/test_architecture.py` holds the limits.
"""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "cqt2img"
_WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def modules_of(package: Path) -> dict[str, str]:
    """Return the source of every module, by its dotted name below the package."""
    paths = sorted(p for p in package.rglob("*.py") if not p.stem.startswith("__"))
    return {
        ".".join(path.relative_to(package).with_suffix("").parts): path.read_text(
            encoding="utf-8"
        )
        for path in paths
    }


def docstring_nodes(tree: ast.AST) -> list[ast.stmt]:
    """Return the statements of a tree that are docstrings."""
    return [
        node.body[0]
        for node in ast.walk(tree)
        if isinstance(node, _WITH_DOCSTRING) and ast.get_docstring(node) is not None
    ]


def code_lines(source: str) -> int:
    """Count the lines that are neither blank nor comment nor docstring."""
    documentation = set()
    for node in docstring_nodes(ast.parse(source)):
        documentation |= set(range(node.lineno, node.end_lineno + 1))
    lines = enumerate(source.splitlines(), start=1)
    return sum(
        bool(text.strip()) and not text.strip().startswith("#")
        for number, text in lines
        if number not in documentation
    )


def syntax_nodes(source: str) -> int:
    """Count the nodes of the syntax tree outside docstrings."""
    tree = ast.parse(source)
    documentation = {
        id(node) for text in docstring_nodes(tree) for node in ast.walk(text)
    }
    return sum(id(node) not in documentation for node in ast.walk(tree))


def imports_at_load(source: str) -> set[str]:
    """Return the modules of the package that are imported when a module is loaded."""
    found = set()
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            "cqt2img."
        ):
            found.add(node.module.removeprefix("cqt2img."))
        elif isinstance(node, ast.ImportFrom) and node.module == "cqt2img":
            found |= {alias.name for alias in node.names}
        waiting += ast.iter_child_nodes(node)
    return found


def longest_chain(graph: dict[str, set[str]]) -> list[str]:
    """Return the longest path through a graph without cycles."""
    known: dict[str, list[str]] = {}

    def chain_from(node: str) -> list[str]:
        if node not in known:
            tails = [chain_from(other) for other in graph.get(node, ())]
            known[node] = [node, *max(tails, key=len, default=[])]
        return known[node]

    return max((chain_from(node) for node in sorted(graph)), key=len)


def package_chain(modules: dict[str, str]) -> list[str]:
    """Return the longest chain of packages that import each other at import time."""
    graph: dict[str, set[str]] = {}
    for name, source in modules.items():
        own = name.split(".")[0]
        targets = {module.split(".")[0] for module in imports_at_load(source)}
        graph.setdefault(own, set()).update(targets - {own})
    return longest_chain(graph)


def module_chain(modules: dict[str, str]) -> list[str]:
    """Return the longest chain of modules that import each other at import time."""
    graph = {name: imports_at_load(source) for name, source in modules.items()}
    return longest_chain(graph)


def entered_by_predict(package: Path) -> list[str]:
    """Return the modules of which `cqt2img predict` calls a function."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("trace_predict.py"), package],
        env={**os.environ, "PYTHONPATH": str(package.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def count_any(text: str) -> int:
    """Count the uses of `typing.Any`."""
    return len(re.findall(r"\bAny\b", text))


def describe(package: Path) -> str:
    """Return the measures of a package as text."""
    modules = modules_of(package)
    text = "\n".join(modules.values())
    lines = sum(map(code_lines, modules.values()))
    nodes = sum(map(syntax_nodes, modules.values()))
    chain = package_chain(modules)
    entered = entered_by_predict(package)
    folders = {name.split("/")[0] for name in entered}
    measures = {
        "entries at the top level": len({name.split(".")[0] for name in modules}),
        "longest chain of packages": f"{len(chain)} ({' > '.join(chain)})",
        "longest chain of modules": len(module_chain(modules)),
        "modules entered by predict": f"{len(entered)} of {len(folders)} entries",
        "lines of code": lines,
        "syntax nodes per line": f"{nodes / lines:.2f}",
        "fmt: skip": text.count("fmt: skip"),
        "Any": count_any(text),
        "dict[str, Any]": text.count("dict[str, Any]"),
    }
    rows = [f"  {name:28}{value}" for name, value in measures.items()]
    return "\n".join([str(package), *rows])


def main() -> None:
    """Measure the packages that the command line names."""
    packages = [Path(name).resolve() for name in sys.argv[1:]] or [PACKAGE]
    for package in packages:
        print(describe(package))


if __name__ == "__main__":
    main()
