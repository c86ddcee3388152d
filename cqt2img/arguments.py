"""What the commands have in common: their arguments, and what these stand for."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cqt2img.errors import InputError

SOME_FAILED, STOPPED = 3, 130


def check_jobs(jobs: int) -> int:
    """Refuse no process at all."""
    if jobs == 0:
        raise InputError("--jobs must be 1 or more, or -1 for every core, got 0. Choose another number.")
    return jobs


Sources = Annotated[list[Path], typer.Argument(help="Folders or files of recordings, a tile folder, or a csv.")]
Source = Annotated[Path, typer.Argument(help="A folder of recordings, a tile folder, or a csv with path,label.")]
Labels = Annotated[Path | None, typer.Option(help="A csv with the columns path,label for the recordings of SRC.")]
GroupBy = Annotated[str | None, typer.Option(help="Column of the csv that names what was recorded together.")]
Backbone = Annotated[str | None, typer.Option(help="Of `cqt2img backbones`, or any of timm. By default notes.")]
Preset = Annotated[str | None, typer.Option(help="notes, piano, jazz, orchestra, fast, or a JSON file.")]
Jobs = Annotated[
    int, typer.Option("-j", "--jobs", callback=check_jobs, help="Processes that draw pictures; -1 for every core.")
]
Model = Annotated[Path, typer.Option("-m", "--model", help="A model folder made by fit.")]
Seed = Annotated[int, typer.Option(min=0)]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Show no progress.")]


def show_version(wanted: bool) -> None:
    """Show the version and stop."""
    if wanted:
        from importlib.metadata import version

        typer.echo(f"cqt2img {version('cqt2img')}")
        raise typer.Exit


def parse_params(pairs: list[str]) -> dict[str, Any]:
    """Give arguments of `Classifier` that were written as NAME=VALUE."""
    from ast import literal_eval

    from cqt2img.classifier import Classifier

    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or name not in Classifier().get_params():
            names = ", ".join(Classifier().get_params())
            raise InputError(f"fit: --param must be NAME=VALUE, got {pair!r}. Choose a name of {names}.")
        try:
            found[name] = literal_eval(value)
        except (SyntaxError, ValueError):  # a word
            found[name] = value
    return found


def one_or_all(sources: list[Path]) -> Any:
    """Give one source itself, so that a tile folder or a csv is known as such."""
    from cqt2img.source import tile_folder

    return tile_folder(sources[0]) if len(sources) == 1 else [str(source) for source in sources]


def spare_sources(target: Path, sources: list[Path]) -> None:
    """Refuse to write a table over what it is made from, before any work is done."""
    from cqt2img.source import RECORDINGS_FILE, SPEC_FILE

    folder = target.resolve().parent
    is_tiles = (folder / SPEC_FILE).is_file() and ((folder / RECORDINGS_FILE).is_file() or (folder / "tiles").is_dir())
    if is_tiles or target.resolve() in [source.resolve() for source in sources]:
        what = "in a folder of tiles" if is_tiles else "which is a source"
        raise InputError(f"predict: a table must spare what is read, got {str(target)!r}, {what}. Choose another name.")


def labelled(source: Path, labels: Path | None, group_by: str | None) -> Any:
    """Give recordings with the labels of a csv, where there is one."""
    if labels is None:
        return one_or_all([source])
    from cqt2img.source import join_labels

    return join_labels(source, labels, group_by)


def end_with(table: Any) -> None:
    """Name every recording that failed, and say so with the exit code."""
    bad = table[table["status"] != "ok"]
    for row in bad.itertuples():
        typer.echo(f"{row.reason}: {row.message}", err=True)
    if len(bad):
        typer.echo(f"{len(bad)} of {len(table)} recordings could not be read", err=True)
        raise typer.Exit(SOME_FAILED)
