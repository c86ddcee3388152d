"""Rules of the code base: layers, light import, public names, true docstrings."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import is_typeddict

import pytest

import cqt2img

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

import codebase  # noqa: E402

PACKAGE = ROOT / "cqt2img"
LAYERS = [
    "errors",
    "_utils",
    "audio",
    "tiles",
    "data",
    "models",
    "inference",
    "training",
    "evaluation",
    "classifier",
    "auditing",
    "cli",
]
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if not p.stem.startswith("__"))


def module_name(path: Path) -> str:
    """Dotted name below the package, such as `audio.decode`."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imports_of(source: str) -> set[str]:
    """Modules of the package that a source imports anywhere, without `cqt2img.`."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            "cqt2img"
        ):
            parent = node.module.removeprefix("cqt2img").removeprefix(".")
            for alias in node.names:
                child = f"{parent}.{alias.name}".removeprefix(".")
                is_module = (PACKAGE / f"{child.replace('.', '/')}.py").is_file()
                found.add(child if is_module or not parent else parent)
        elif isinstance(node, ast.Import):
            found |= {
                a.name.removeprefix("cqt2img.")
                for a in node.names
                if a.name.startswith("cqt2img.")
            }
    return found


def wrong_imports(name: str, source: str) -> set[str]:
    """Imports of a module that do not lie in its own package or to the left of it."""
    place = LAYERS.index(name.split(".")[0])
    packages = {module: module.split(".")[0] for module in imports_of(source)}
    return {
        m
        for m, package in packages.items()
        if package not in LAYERS or LAYERS.index(package) > place or m == name
    }


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, or none."""
    finished: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in finished:
            return []
        for other in sorted(graph.get(module, ())):
            if cycle := visit(other, [*path, module]):
                return cycle
        finished.add(module)
        return []

    return next((cycle for module in sorted(graph) if (cycle := visit(module, []))), [])


def test_every_module_has_its_place():
    assert len(MODULES) > 20
    assert {module_name(p).split(".")[0] for p in MODULES} == set(LAYERS)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_module_imports_only_from_its_left(path):
    assert wrong_imports(module_name(path), path.read_text(encoding="utf-8")) == set()


def test_no_modules_import_each_other_in_a_circle():
    graph = {
        module_name(path): imports_of(path.read_text(encoding="utf-8"))
        for path in MODULES
    }
    assert sum(map(len, graph.values())) > 100
    assert find_cycle(graph) == []


def test_the_guard_of_the_order_can_fail():
    assert wrong_imports(
        "audio.decode", "from cqt2img.classifier import Classifier"
    ) == {"classifier"}
    assert wrong_imports(
        "audio.decode", "def f():\n    from cqt2img.tiles.spec import TileSpec"
    ) == {"tiles.spec"}
    assert wrong_imports("audio.decode", "from cqt2img.tiles import spec") == {
        "tiles.spec"
    }
    assert wrong_imports("audio.decode", "from cqt2img import Classifier") == {
        "Classifier"
    }
    assert wrong_imports("audio.decode", "import cqt2img.cli") == {"cli"}
    assert wrong_imports(
        "audio.decode", "from cqt2img.audio.decode import load_wave"
    ) == {"audio.decode"}
    assert (
        wrong_imports("audio.decode", "from cqt2img.errors import InputError") == set()
    )
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_modules_and_functions_are_short(path):
    source = path.read_text(encoding="utf-8")
    assert codebase.code_lines(source) <= 480  # the guide is 400
    for node in ast.walk(ast.parse(source)):
        is_function = isinstance(node, ast.FunctionDef) and node.name != "__init__"
        if is_function and not node.decorator_list:
            assert codebase.code_lines(ast.unparse(node)) <= 60, node.name


def test_the_code_stays_readable():
    """Limits of `benchmarks/codebase.py`; skorch has 6.7 nodes per line, julius 9.4."""
    modules = codebase.modules_of(PACKAGE)
    text = "\n".join(modules.values())
    n_lines = sum(map(codebase.code_lines, modules.values()))
    n_nodes = sum(map(codebase.syntax_nodes, modules.values()))
    assert n_lines > 5000
    assert n_nodes / n_lines <= 8.5
    assert codebase.count_any(text) <= 83
    assert text.count("fmt: skip") == 0
    assert len(codebase.package_chain(modules)) <= 8


def test_the_measures_of_readability_can_fail():
    assert codebase.syntax_nodes("a, b = c(d), e(f)") > 2 * codebase.syntax_nodes(
        "a = c"
    )
    modules = {
        "a.x": "from cqt2img.b import y",
        "b": "from cqt2img.c import z",
        "c": "",
    }
    assert codebase.package_chain(modules) == ["a", "b", "c"]
    late = "def f():\n    from cqt2img.c import z"
    assert codebase.imports_at_load(late) == set()


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


HEAVY = {"albumentations", "librosa", "matplotlib", "numpy", "pandas", "sklearn"}
HEAVY |= {"soundfile", "timm", "torch"}


def loaded_by(*modules: str) -> set[str]:
    """Heavy packages that are loaded with modules, in a process of its own."""
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    return HEAVY & set(run_python(code).split())


def test_the_import_is_light():
    assert loaded_by("cqt2img") == set()
    assert len(run_python("import sys, cqt2img; print(*sys.modules)").split()) < 150


def test_slow_packages_are_imported_inside_the_functions_that_need_them():
    modules = ("cli.main", "cli.demo", "data.render", "classifier", "evaluation.report")
    slow = HEAVY - {"numpy", "pandas", "sklearn", "torch"}
    assert loaded_by(*(f"cqt2img.{module}" for module in modules)) & slow == set()


def test_the_help_loads_nothing_heavy():
    assert loaded_by("cqt2img.cli.main") == set()


def test_loaded_packages_are_found():
    assert loaded_by("numpy") == {"numpy"}


def test_public_names_load_from_the_module_that_the_stub_names():
    stub = (PACKAGE / "__init__.pyi").read_text(encoding="utf-8")
    homes = {
        name: module
        for module, name in re.findall(
            r"^from \.([\w.]+) import (\w+) as \2$", stub, re.M
        )
    }
    assert sorted(homes) == sorted(cqt2img.__all__) == dir(cqt2img)
    for name, module in homes.items():
        assert getattr(cqt2img, name).__module__ == f"cqt2img.{module}", name
    with pytest.raises(AttributeError, match="nothing"):
        _ = cqt2img.nothing


def overrides(owner: type, name: str) -> bool:
    """Check whether a method has a documented method of the same name in a base."""
    return any(getattr(base, name, None) is not None for base in owner.__mro__[1:])


def public_functions():
    """Functions, classes and methods without underscore, of all modules but `cli`.

    Docstrings of commands are their help texts. A method that overrides another one is
    documented there.
    """
    for path in MODULES:
        module = module_name(path)
        if module.startswith("cli."):
            continue
        home = importlib.import_module(f"cqt2img.{module}")
        for name, value in vars(home).items():
            is_foreign = getattr(value, "__module__", None) != home.__name__
            if name.startswith("_") or is_foreign:
                continue
            if inspect.isfunction(value):
                yield f"{module}.{name}", value
            elif inspect.isclass(value) and not getattr(value, "_is_protocol", False):
                yield f"{module}.{name}", value
                for method, attribute in vars(value).items():
                    function = getattr(attribute, "__func__", attribute)
                    is_public = inspect.isfunction(function) and method[0] != "_"
                    if is_public and not overrides(value, method):
                        yield f"{module}.{name}.{method}", function


def documented(doc: str, section: str) -> list[str]:
    """Names in a section of a numpydoc docstring."""
    found = re.search(
        rf"^{section}\n-+\n(.*?)(?=^\w[\w ]*\n-+\n|\Z)",
        inspect.cleandoc(doc),
        flags=re.S | re.M,
    )
    if not found:
        return []
    heads = [
        line for line in found[1].splitlines() if line and not line.startswith(" ")
    ]
    return [name.strip() for head in heads for name in head.split(":")[0].split(",")]


def doc_faults(value: object) -> list[str]:
    """What the docstring of a function or class says that is not so."""
    doc = getattr(value, "__doc__", None) or ""
    if not doc.strip():
        return ["has no docstring"]
    faults = []
    if not inspect.cleandoc(doc).splitlines()[0].endswith("."):
        faults.append("summary has no full stop")
    if inspect.isclass(value) and issubclass(value, Exception | dict):
        return faults
    if is_typeddict(value):
        return faults
    parameters = inspect.signature(value).parameters.values()
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    names = [
        stars.get(p.kind, "") + p.name
        for p in parameters
        if p.name not in ("self", "cls")
    ]
    if names == documented(doc, "Parameters"):
        return faults
    return [*faults, f"documents {documented(doc, 'Parameters')}, takes {names}"]


def test_docstrings_name_what_signatures_take():
    checked = dict(public_functions())
    assert len(checked) > 60
    assert {
        name: f for name, value in checked.items() if (f := doc_faults(value))
    } == {}


def test_the_guard_of_docstrings_can_fail():
    def good(wave):
        """Play.

        Parameters
        ----------
        wave : ndarray
            Sound.
        """

    def renamed(cqt):
        """Play.

        Parameters
        ----------
        wave : ndarray
            Sound.
        """

    def silent(wave): ...

    assert doc_faults(good) == []
    assert doc_faults(renamed) == ["documents ['wave'], takes ['cqt']"]
    assert doc_faults(silent) == ["has no docstring"]


@pytest.mark.parametrize(
    "name", [n for n in cqt2img.__all__ if not n.endswith("Error")]
)
def test_public_docstrings_pass_numpydoc(name):
    from numpydoc.validate import validate

    # not required: extended summary, See Also and examples; wording of types
    ignore = {
        "ES01",
        "SA01",
        "EX01",
        "GL08",
        "PR01",
        "PR06",
        "PR08",
        "PR09",
        "RT02",
        "RT03",
        "RT04",
        "YD01",
    }
    faults = [f for f in validate(f"cqt2img.{name}")["errors"] if f[0] not in ignore]
    assert faults == []
