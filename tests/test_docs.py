"""README and documentation pages: links, names and options in them exist."""

import ast
import re
from pathlib import Path

import click
import pytest
import typer

import cqt2img
from cqt2img.cli.main import app

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
COMMANDS = typer.main.get_command(app).commands


def page_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def anchors(path: Path) -> set[str]:
    """Anchors that a code host makes of the headings of a page."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.S)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.M)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.strip().replace(" ", "-") for heading in plain}


def broken_links(path: Path) -> list[str]:
    """Relative links of a page whose file or heading does not exist."""
    text = path.read_text(encoding="utf-8")
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = path if not name else path.parent / name
        is_page = file.suffix == ".md" and file.is_file()
        if not file.exists() or (anchor and is_page and anchor not in anchors(file)):
            broken.append(target)
    return broken


def python_blocks(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.S | re.M)


def command_lines(path: Path) -> list[str]:
    """Indented lines of a page that call the program."""
    text = path.read_text(encoding="utf-8")
    return re.findall(r"^    (cqt2img [a-z].*)$", text, flags=re.M)


def unknown_options(line: str) -> list[str]:
    words = line.split("#")[0].split()
    command = COMMANDS.get(words[1])
    if command is None:
        return [words[1]]
    known = {"--help"}
    for parameter in command.params:
        if isinstance(parameter, click.Option) or parameter.opts:
            known |= {*parameter.opts, *parameter.secondary_opts}
    options = [word for word in words if re.match(r"--?[a-z]", word)]
    return [option for option in options if option.split("=")[0] not in known]


def test_pages_are_found():
    names = [page_name(path) for path in PAGES]
    assert len(names) >= 10
    assert "README.md" in names
    assert sum(len(python_blocks(path)) for path in PAGES) >= 4
    assert sum(len(command_lines(path)) for path in PAGES) >= 10


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_links_lead_somewhere(path):
    assert broken_links(path) == []


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_python_code_uses_public_names(path):
    for block in python_blocks(path):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module == "cqt2img":
                names = {alias.name for alias in node.names}
                assert names <= set(cqt2img.__all__), block


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_commands_and_options_exist(path):
    for line in command_lines(path):
        assert unknown_options(line) == [], line


def test_the_checks_of_pages_can_fail(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One thing\n[a](gone.md) [b](#one-thing) [c](page.md#two)\n")
    assert broken_links(page) == ["gone.md", "page.md#two"]
    assert unknown_options("cqt2img predict clips --modle x") == ["--modle"]
    assert unknown_options("cqt2img listen clips") == ["listen"]


def test_the_front_page_is_short():
    words = (ROOT / "README.md").read_text(encoding="utf-8").split()
    assert 300 < len(words) <= 900
