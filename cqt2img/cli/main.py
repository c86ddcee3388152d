"""Command line: parse options, call the library, print results."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cqt2img.cli.options import (
    PRESET_HELP,
    SETTINGS,
    AugmentChoice,
    FinetuneChoice,
    GroupByOption,
    JobsOption,
    LabelsOption,
    ModelOption,
    QuietOption,
    SeedOption,
    SkipBadOption,
    Source,
    Sources,
    name_options,
    read_config,
)
from cqt2img.errors import Cqt2imgError, InputError

if TYPE_CHECKING:
    import pandas as pd

    from cqt2img.classifier import Classifier
    from cqt2img.data.recordings import Recordings

SOME_FAILED = 3
INTERRUPTED = 130


def show_version(wanted: bool) -> None:
    """Print the version and exit."""
    if wanted:
        from importlib.metadata import version

        typer.echo(f"cqt2img {version('cqt2img')}")
        raise typer.Exit


def one_or_all(sources: list[Path]) -> Any:
    """Return a single source itself, so that a tile folder or csv is recognised."""
    from cqt2img.data.manifest import resolve_tile_folder

    if len(sources) == 1:
        return resolve_tile_folder(sources[0])
    return [str(source) for source in sources]


def list_labelled(
    command: str, source: Path, labels: Path | None, group_by: str | None
) -> "Path | Recordings":
    """Return a source, with the labels of a csv where one is given."""
    from cqt2img.data.recordings import join_labels

    if labels is None:
        return one_or_all([source])
    return join_labels(source, labels, group_by, caller=command)


def check_output_folder(option: str, folder: Path) -> None:
    """Raise InputError that names the option if a folder cannot be written."""
    from cqt2img._utils.files import check_folder

    try:
        check_folder(folder)
    except InputError as error:
        raise InputError(f"{option}: {error}") from error


def check_output_table(option: str, table: Path, sources: list[Path]) -> None:
    """Raise InputError if writing a table would overwrite what is read."""
    from cqt2img.data.manifest import RECORDINGS_FILE, SPEC_FILE
    from cqt2img.evaluation.report import check_table_name

    check_output_folder(option, table.parent)
    check_table_name(table, option)
    folder = table.resolve().parent
    has_tiles = (folder / RECORDINGS_FILE).is_file() or (folder / "tiles").is_dir()
    if (folder / SPEC_FILE).is_file() and has_tiles:
        raise InputError(
            f"{option} {str(table)!r}: lies in a tile folder. Choose another folder."
        )
    if table.resolve() in [source.resolve() for source in sources]:
        raise InputError(
            f"{option} {str(table)!r}: is one of the sources. Choose another name."
        )


def exit_with_failures(table: "pd.DataFrame") -> None:
    """Print every recording that failed; exit with 3 if there is one."""
    failed = table[table["status"] != "ok"]
    for row in failed.itertuples():
        typer.echo(f"{row.reason}: {row.message}", err=True)
    if len(failed):
        typer.echo(
            f"{len(failed)} of {len(table)} recordings could not be read", err=True
        )
        raise typer.Exit(SOME_FAILED)


def load_for_prediction(
    path: Path, jobs: int, quiet: bool, option: str = "--model"
) -> "Classifier":
    """Open a model with the process count and verbosity of the command line."""
    from cqt2img.classifier import load

    try:
        classifier = load(path)
    except InputError as error:
        raise InputError(str(error).replace("load:", f"{option}:", 1)) from error
    return classifier.set_params(n_jobs=jobs, verbose=not quiet)


app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Identify who is playing on a recording.",
    epilog=(
        "Exit codes: 0 success, 1 error, 2 wrong usage, "
        "3 some recordings could not be read, 130 interrupted."
    ),
)


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=show_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


@app.command("render")
def render_command(
    sources: Sources,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the tiles.")],
    preset: Annotated[str, typer.Option(help=PRESET_HELP)] = "piano",
    group_by: GroupByOption = None,
    jobs: JobsOption = 1,
    quiet: QuietOption = False,
) -> None:
    """Render recordings to PNG tiles with a manifest; finished ones are kept."""
    from cqt2img._utils.progress import progress_bar
    from cqt2img.data.render import render

    for source in sources:
        if out.resolve() in (source.resolve(), *source.resolve().parents):
            raise InputError(
                f"--out {str(out)!r}: holds the source {str(source)!r}. "
                "Choose another folder."
            )
    bar = None if quiet else progress_bar
    try:
        rendered = render(one_or_all(sources), out, preset, jobs, group_by, bar)
    except KeyboardInterrupt:
        typer.echo(
            "cqt2img: interrupted. Run the same command again to continue.", err=True
        )
        raise typer.Exit(INTERRUPTED) from None
    n_good = (rendered.recordings["status"] == "ok").sum()
    typer.echo(f"{len(rendered.tiles)} tiles of {n_good} recordings in {out}")
    exit_with_failures(rendered.recordings)


@app.command("fit", epilog=f"Settings for --config and --param: {SETTINGS}.")
def fit_command(
    source: Source,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the model.")],
    labels: LabelsOption = None,
    group_by: GroupByOption = None,
    validation: Annotated[
        Path | None,
        typer.Option(help="Validation recordings. Default: some groups of SOURCE."),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="See `cqt2img backbones`. Default: notes, where possible."),
    ] = None,
    weights: Annotated[
        str, typer.Option(help="imagenet, none, a file, or a model folder.")
    ] = "imagenet",
    preset: Annotated[str | None, typer.Option(help=PRESET_HELP)] = None,
    finetune: Annotated[
        FinetuneChoice, typer.Option(help="All layers, or the classifier head only.")
    ] = FinetuneChoice.all,
    epochs: Annotated[int, typer.Option(min=1, help="Number of epochs.")] = 12,
    batch_size: Annotated[int, typer.Option(min=1, help="Tiles per step.")] = 32,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak rate. Default: by backbone.")
    ] = None,
    augment: Annotated[
        AugmentChoice, typer.Option(help="Simulate other albums, or nothing.")
    ] = AugmentChoice.album,
    device: Annotated[
        str | None,
        typer.Option(help="cpu, cuda or mps. Default: a GPU, if any."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="JSON or TOML file with more settings.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("-p", "--param", help="One more setting: mixup=0.3."),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder for the state of training.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the checkpoint.")
    ] = False,
    seed: SeedOption = 0,
    jobs: JobsOption = 1,
    skip_bad: SkipBadOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train on recordings, labelled by their folders or by a csv."""
    from cqt2img.classifier import Classifier
    from cqt2img.inference.model_io import check_model_path
    from cqt2img.training.accelerator import is_first_process

    check_model_path(out)
    check_output_folder("--out", out.parent)
    if checkpoint is not None:
        _check_outside(checkpoint, out)
    classifier = Classifier(
        backbone,
        weights=weights,
        spec=preset,
        finetune=finetune.value,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        augment=augment.value,
        device=device,
        n_jobs=jobs,
        on_error="skip" if skip_bad else "raise",
        random_state=seed,
        verbose=not quiet,
        config=read_config(config, param or []),
    )
    try:
        classifier.fit(
            list_labelled("fit", source, labels, group_by),
            group_by=group_by,
            validation=validation,
            checkpoint=checkpoint,
            resume=resume,
        )
    except KeyboardInterrupt:
        advice = "Fit with --checkpoint to be able to continue"
        if checkpoint is not None:
            advice = "Run the same command again with --resume to continue"
        typer.echo(f"cqt2img: interrupted. {advice}.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if is_first_process():
        classifier.save(out)
        _report_fit(classifier, out)


def _check_outside(checkpoint: Path, out: Path) -> None:
    if out.resolve() in (checkpoint.resolve(), *checkpoint.resolve().parents):
        raise InputError(
            f"--checkpoint {str(checkpoint)!r}: lies in the model folder {str(out)!r}. "
            "Choose another folder."
        )


def _report_fit(classifier: "Classifier", out: Path) -> None:
    validated = [row for row in classifier.history_ if row["valid_loss"] is not None]
    if validated:
        best = min(validated, key=lambda row: row["valid_loss"])
        accuracy = f"validation accuracy {best['valid_accuracy']:.3f} per recording"
        typer.echo(f"{accuracy}, at epoch {best['epoch']}")
    typer.echo(f"model of {len(classifier.classes_)} classes in {out}")
    for skipped in classifier.skipped_:
        typer.echo(f"skipped: {skipped.message}", err=True)
    if classifier.skipped_:
        raise typer.Exit(SOME_FAILED)


@app.command("predict")
def predict_command(
    sources: Sources,
    model: ModelOption,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="A .csv, .jsonl or .parquet file."),
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Number of names per clip.")] = 3,
    tiles: Annotated[
        Path | None, typer.Option(help="Also write a table with one row per tile.")
    ] = None,
    audacity: Annotated[
        Path | None, typer.Option(help="Also write Audacity label tracks to a folder.")
    ] = None,
    unknown: Annotated[
        bool, typer.Option("--unknown", help="Also detect players not in the model.")
    ] = False,
    jobs: JobsOption = 1,
    quiet: QuietOption = False,
) -> None:
    """Predict the player of every clip: one row each, readable or not."""
    from cqt2img.evaluation.report import write_audacity, write_table

    for option, table in (("--out", out), ("--tiles", tiles)):
        if table is not None:
            check_output_table(option, table, sources)
    if out is not None and tiles is not None and out.resolve() == tiles.resolve():
        raise InputError(
            f"--tiles {str(tiles)!r}: is also the file of --out. Choose another name."
        )
    if audacity is not None:
        check_output_folder("--audacity", audacity)
    classifier = load_for_prediction(model, jobs, quiet)
    answers, by_tile = classifier.predict_tables(one_or_all(sources), top_k, unknown)
    if out is None:
        text = answers.drop(columns="message").to_string(index=False)
        # file names need not be UTF-8
        typer.echo(text.encode(errors="backslashreplace").decode())
    else:
        write_table(answers, out)
    if tiles is not None:
        write_table(by_tile, tiles)
    if audacity is not None:
        write_audacity(by_tile, audacity)
    exit_with_failures(answers)


@app.command("enroll")
def enroll_command(
    name: Annotated[str, typer.Argument(help="Name of the new player.")],
    sources: Annotated[
        list[Path],
        typer.Argument(help="Clips of the player, best in one folder per album."),
    ],
    model: ModelOption,
    out: Annotated[
        Path,
        typer.Option("-o", "--out", help="Folder for the new model; may be MODEL."),
    ],
    group_by: GroupByOption = None,
    jobs: JobsOption = 1,
    skip_bad: SkipBadOption = False,
    quiet: QuietOption = False,
) -> None:
    """Add a player to a model from a few clips, without training."""
    from cqt2img.data.recordings import list_recordings
    from cqt2img.inference.model_io import check_model_path

    check_model_path(out)
    check_output_folder("--out", out.parent)
    classifier = load_for_prediction(model, jobs, quiet)
    clips = list_recordings(one_or_all(sources), group_by=group_by, caller="enroll")
    if skip_bad:
        classifier.set_params(on_error="skip")
    classifier.enroll(name, clips).save(out)
    if classifier.enrolled_[-1].is_reliable:  # otherwise a warning was logged
        typer.echo(f"{classifier.enrolled_[-1]}.")
    typer.echo(f"model of {len(classifier.classes_)} classes in {out}")


@app.command("evaluate")
def evaluate_command(
    source: Source,
    model: ModelOption,
    labels: LabelsOption = None,
    group_by: GroupByOption = None,
    against: Annotated[
        Path | None,
        typer.Option(help="Second model, compared on the same recordings."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder for scores, tables and plots."),
    ] = None,
    jobs: JobsOption = 1,
    quiet: QuietOption = False,
) -> None:
    """Score a model on recordings absent from training, with 95 % intervals."""
    from cqt2img.evaluation.comparison import compare
    from cqt2img.evaluation.report import write_scores

    if out is not None:
        check_output_folder("--out", out)
    classifiers = [load_for_prediction(model, jobs, quiet)]
    if against is not None:
        classifiers.append(load_for_prediction(against, jobs, quiet, "--against"))
    recordings = list_labelled("evaluate", source, labels, group_by)
    scores = [one.evaluate(recordings, group_by=group_by) for one in classifiers]
    typer.echo("\n\n".join(map(str, scores)))
    if against is not None:
        typer.echo(f"\n{model} against {against}\n{compare(*scores)}")
    if out is not None:
        write_scores(out, *scores)
    if scores[0].n_failed:
        raise typer.Exit(SOME_FAILED)


@app.command("audit")
def audit_command(
    source: Source,
    model: Annotated[
        Path | None,
        typer.Option("-m", "--model", help="Fitted model, to be audited as well."),
    ] = None,
    labels: LabelsOption = None,
    group_by: GroupByOption = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder for the report: page, text, JSON."),
    ] = None,
    jobs: JobsOption = 1,
    quiet: QuietOption = False,
) -> None:
    """Check recordings for leaks, copies, shortcuts and wrong labels."""
    from cqt2img.auditing.audit import audit

    if out is not None:
        check_output_folder("--out", out)
    classifier = None if model is None else load_for_prediction(model, jobs, quiet)
    report = audit(
        list_labelled("audit", source, labels, group_by),
        group_by=group_by,
        model=classifier,
        n_jobs=jobs,
        verbose=not quiet,
    )
    typer.echo(str(report))
    if out is not None:
        report.save(out)
        typer.echo(f"\nFull report: {out / 'index.html'}")
    if report.n_failed:
        raise typer.Exit(SOME_FAILED)


@app.command("backbones")
def backbones_command() -> None:
    """List backbones: weights, millions of parameters, GMACs and time per tile."""
    from cqt2img.models.registry import list_backbones

    layout = "{:32}{:9}{:>10}{:>7}{:>6}  {}"
    header = ("backbone", "weights", "parameters", "GMACs", "time", "good for")
    typer.echo(layout.format(*header))
    for row in list_backbones().itertuples():
        parameters = f"{row.parameters:.2f} M"
        gmacs = f"{row.gmacs:.2f}"
        time = f"{row.time:.1f}"
        line = (row.name, row.weights, parameters, gmacs, time, row.good_for)
        typer.echo(layout.format(*line))


@app.command("demo")
def demo_command(
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder for the demo.")
    ] = Path("cqt2img-demo"),
    seed: SeedOption = 3,  # one of the five in benchmarks/RESULTS.md, not the best
    quiet: QuietOption = False,
) -> None:
    """Show the album effect on synthetic players, offline, in three minutes."""
    from cqt2img.cli.demo import run_demo

    run_demo(out, seed, typer.echo, progress=not quiet)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    typer.echo(f"cqt2img: warning: {name_options(str(message))}", err=True)


def main() -> None:
    """Run the command line; print a known error as one line."""
    import warnings

    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            app()
        except Cqt2imgError as error:
            typer.echo(f"cqt2img: {name_options(str(error))}", err=True)
            sys.exit(1)
        except OSError as error:  # such as a full disk, or a missing permission
            typer.echo(f"cqt2img: {error}", err=True)
            sys.exit(1)
