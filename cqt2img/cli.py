"""The command line: arguments become one call each."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cqt2img.errors import Cqt2imgError, InputError

SOME_FAILED, STOPPED = 3, 130


def check_jobs(jobs: int) -> int:
    """Refuse no process at all."""
    if jobs == 0:
        raise InputError(
            "--jobs must be 1 or more, or -1 for every core, got 0. Choose another number."
        )
    return jobs


Sources = Annotated[
    list[Path],
    typer.Argument(help="Folders or files of recordings, a tile folder, or a csv."),
]
Source = Annotated[
    Path,
    typer.Argument(
        help="A folder of recordings, a tile folder, or a csv with path,label."
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(help="A csv with the columns path,label for the recordings of SRC."),
]
GroupBy = Annotated[
    str | None,
    typer.Option(help="Column of the csv that names what was recorded together."),
]
Backbone = Annotated[
    str | None,
    typer.Option(help="Of `cqt2img backbones`, or any of timm. By default notes."),
]
Preset = Annotated[
    str | None,
    typer.Option(help="notes, piano, jazz, orchestra, fast, or a JSON file."),
]
Jobs = Annotated[
    int,
    typer.Option(
        "-j",
        "--jobs",
        callback=check_jobs,
        help="Processes that draw pictures; -1 for every core.",
    ),
]
Model = Annotated[
    Path, typer.Option("-m", "--model", help="A model folder made by fit.")
]
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
            raise InputError(
                f"fit: --param must be NAME=VALUE, got {pair!r}. Choose a name of {names}."
            )
        try:
            found[name] = literal_eval(value)
        except (SyntaxError, ValueError):  # a word
            found[name] = value
    return found


def one_or_all(sources: list[Path]) -> Any:
    """Give one source itself, so that a tile folder or a csv is known as such."""
    from cqt2img.data.recordings import tile_folder

    return (
        tile_folder(sources[0])
        if len(sources) == 1
        else [str(source) for source in sources]
    )


def spare_sources(target: Path, sources: list[Path]) -> None:
    """Refuse to write a table over what it is made from, before any work is done."""
    from cqt2img.data.recordings import RECORDINGS_FILE, SPEC_FILE

    folder = target.resolve().parent
    is_tiles = (folder / SPEC_FILE).is_file() and (
        (folder / RECORDINGS_FILE).is_file() or (folder / "tiles").is_dir()
    )
    if is_tiles or target.resolve() in [source.resolve() for source in sources]:
        what = "in a folder of tiles" if is_tiles else "which is a source"
        raise InputError(
            f"predict: a table must spare what is read, got {str(target)!r}, {what}. Choose another name."
        )


def labelled(source: Path, labels: Path | None, group_by: str | None) -> Any:
    """Give recordings with the labels of a csv, where there is one."""
    if labels is None:
        return one_or_all([source])
    from cqt2img.data.recordings import join_labels

    return join_labels(source, labels, group_by)


def end_with(table: Any) -> None:
    """Name every recording that failed, and say so with the exit code."""
    bad = table[table["status"] != "ok"]
    for row in bad.itertuples():
        typer.echo(f"{row.reason}: {row.message}", err=True)
    if len(bad):
        typer.echo(f"{len(bad)} of {len(table)} recordings could not be read", err=True)
        raise typer.Exit(SOME_FAILED)


app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Hear who is playing: pictures of recordings, and backbones that learn players from them.",
    epilog="Ends with 0 if all went well, 1 if it could not be done, 3 if some recordings could not be read.",
)


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=show_version, is_eager=True, help="Show it."
        ),
    ] = False,
) -> None:
    pass


@app.command("render")
def render_command(
    sources: Sources,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the tiles.")],
    preset: Preset = "piano",
    group_by: GroupBy = None,
    jobs: Jobs = 1,
    quiet: Quiet = False,
) -> None:
    """Render recordings to tiles, with a manifest. What is finished is not done again."""
    from cqt2img._utils.progress import progress_bar
    from cqt2img.data.render import render

    within = next(
        (
            source
            for source in sources
            if out.resolve() in (source.resolve(), *source.resolve().parents)
        ),
        None,
    )
    if within is not None:
        raise InputError(
            f"render: out must not hold its own sources, got {str(out)!r} with {str(within)!r} in it. "
            "Choose another folder."
        )
    try:
        found = render(
            one_or_all(sources),
            out,
            preset or "piano",
            jobs,
            group_by,
            None if quiet else progress_bar,
        )
    except KeyboardInterrupt:
        typer.echo(
            "cqt2img: stopped. Run the same command again; what is finished is not done again.",
            err=True,
        )
        raise typer.Exit(STOPPED) from None
    typer.echo(
        f"{len(found.tiles)} tiles of {(found.recordings['status'] == 'ok').sum()} recordings in {out}"
    )
    end_with(found.recordings)


@app.command("fit")
def fit_command(
    source: Source,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the model.")],
    labels: Labels = None,
    group_by: GroupBy = None,
    validation: Annotated[
        Path | None, typer.Option(help="Recordings to choose the epoch by, like SRC.")
    ] = None,
    backbone: Backbone = None,
    weights: Annotated[
        str, typer.Option(help="imagenet, none, a file, or a saved model.")
    ] = "imagenet",
    preset: Preset = None,
    finetune: Annotated[
        str, typer.Option(help="all: every layer. head: the last alone, in seconds.")
    ] = "all",
    epochs: Annotated[int, typer.Option(min=1)] = 12,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    learning_rate: Annotated[
        float | None, typer.Option(help="By default what suits the backbone.")
    ] = None,
    in_chans: Annotated[int, typer.Option(help="3: painted tiles. 1: levels.")] = 3,
    augment: Annotated[str, typer.Option(help="album or none.")] = "album",
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    device: Annotated[
        str | None, typer.Option(help="cpu, to keep off the GPU.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            "-p", "--param", help="Any other argument of Classifier: mixup=0.3."
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder for the state of the training.")
    ] = None,
    resume: Annotated[
        bool, typer.Option(help="Go on from the checkpoint, if there is one.")
    ] = False,
    seed: Seed = 0,
    jobs: Jobs = 1,
    skip_bad: Annotated[
        bool, typer.Option(help="Leave recordings out that cannot be read.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a backbone on recordings, labelled by their folders or a csv."""
    from cqt2img._utils.files import check_folder
    from cqt2img.classifier import Classifier
    from cqt2img.inference.model_io import check_model_path
    from cqt2img.training.accelerator import is_first_process

    check_model_path(out)
    check_folder(out.parent)
    if checkpoint is not None and out.resolve() in (
        checkpoint.resolve(),
        *checkpoint.resolve().parents,
    ):
        raise InputError(
            f"fit: --checkpoint must lie outside of the model {str(out)!r}, got {str(checkpoint)!r}. "
            "Choose another folder."
        )
    model = Classifier(
        backbone,
        weights=weights,
        spec=preset,
        in_chans=in_chans,
        finetune=finetune,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        augment=augment,
        precision=precision,
        device=device,
        n_jobs=jobs,
        on_error="skip" if skip_bad else "raise",
        random_state=seed,
        verbose=not quiet,
    ).set_params(**parse_params(param or []))
    table = labelled(source, labels, group_by)
    try:
        model.fit(
            table,
            group_by=group_by,
            validation=validation,
            checkpoint=checkpoint,
            resume=resume,
        )
    except KeyboardInterrupt:
        way = (
            "Run the same command again with --resume"
            if checkpoint is not None
            else "With --checkpoint it can go on"
        )
        typer.echo(f"cqt2img: stopped. {way}.", err=True)
        raise typer.Exit(STOPPED) from None
    if not is_first_process():
        return
    model.save(out)
    last = [entry for entry in model.history_ if entry["valid_accuracy"] is not None]
    if last:
        best = min(last, key=lambda entry: entry["valid_loss"])
        typer.echo(
            f"validation accuracy {best['valid_accuracy']:.3f} per recording, at epoch {best['epoch']}"
        )
    typer.echo(f"model of {len(model.classes_)} classes in {out}")
    for skipped in model.skipped_:
        typer.echo(f"left out: {skipped['message']}", err=True)
    if model.skipped_:
        raise typer.Exit(SOME_FAILED)


@app.command("predict")
def predict_command(
    sources: Sources,
    model: Model,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="A .csv, .jsonl or .parquet file."),
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Names to list.")] = 3,
    tiles: Annotated[
        Path | None, typer.Option(help="Also write a table with one row per tile.")
    ] = None,
    audacity: Annotated[
        Path | None, typer.Option(help="Also write label tracks into this folder.")
    ] = None,
    unknown: Annotated[
        bool, typer.Option("--unknown", help="Also say if it may be none of these.")
    ] = False,
    jobs: Jobs = 1,
    quiet: Quiet = False,
) -> None:
    """Name the player of every clip: one row each, whether it can be read or not."""
    from cqt2img._utils.files import check_folder
    from cqt2img.classifier import load
    from cqt2img.evaluation.report import check_table_name, write_audacity, write_table

    for table in (out, tiles):
        if table is not None:
            check_table_name(table)
            spare_sources(table, sources)
    if out is not None and tiles is not None and out.resolve() == tiles.resolve():
        raise InputError(
            f"predict: --out and --tiles must be two files, got {str(out)!r} twice. Rename one."
        )
    if audacity is not None:
        check_folder(audacity)
    classifier = load(model).set_params(n_jobs=jobs, verbose=not quiet)
    clips = one_or_all(sources)
    answers, by_tile = classifier.answers(clips, top_k, unknown)
    if out is None:
        text = answers.drop(columns="message").to_string(index=False)
        typer.echo(
            text.encode(errors="backslashreplace").decode()
        )  # names of files need not be UTF-8
    else:
        write_table(answers, out)
    if tiles is not None:
        write_table(by_tile, tiles)
    if audacity is not None:
        write_audacity(by_tile, audacity)
    end_with(answers)


@app.command("enroll")
def enroll_command(
    name: Annotated[str, typer.Argument(help="Of the new player.")],
    sources: Annotated[
        list[Path],
        typer.Argument(help="Clips of the new player, best in one folder per album."),
    ],
    model: Model,
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", help="Folder for the new model; may be that of the old one."
        ),
    ],
    group_by: GroupBy = None,
    jobs: Jobs = 1,
    quiet: Quiet = False,
) -> None:
    """Add a player to a model from a few clips, without training it again."""
    from cqt2img._utils.files import check_folder
    from cqt2img.classifier import load
    from cqt2img.data.recordings import list_recordings
    from cqt2img.inference.enrollment import describe_enrollment
    from cqt2img.inference.model_io import check_model_path

    check_model_path(out)
    check_folder(out.parent)
    classifier = load(model).set_params(n_jobs=jobs, verbose=not quiet)
    classifier.enroll(
        name, list_recordings(one_or_all(sources), group_by=group_by)
    ).save(out)
    typer.echo(f"{describe_enrollment(classifier.enrolled_[-1])[1]}.")
    typer.echo(f"model of {len(classifier.classes_)} classes in {out}")


@app.command("evaluate")
def evaluate_command(
    source: Source,
    model: Model,
    labels: Labels = None,
    group_by: GroupBy = None,
    against: Annotated[
        Path | None,
        typer.Option(help="Another model, to compare with on the same recordings."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder for the scores, tables and plots."),
    ] = None,
    jobs: Jobs = 1,
    quiet: Quiet = False,
) -> None:
    """Score a model on recordings that training never met, with intervals over groups, beside chance."""
    from cqt2img._utils.files import check_folder
    from cqt2img.classifier import load
    from cqt2img.evaluation.comparison import compare
    from cqt2img.evaluation.report import write_scores

    if out is not None:
        check_folder(out)
    models = [
        load(path).set_params(n_jobs=jobs, verbose=not quiet)
        for path in (model, against)
        if path is not None
    ]
    both = [
        one.evaluate(labelled(source, labels, group_by), group_by=group_by)
        for one in models
    ]
    typer.echo("\n\n".join(str(scores) for scores in both))
    if against is not None:
        typer.echo(f"\n{model} against {against}\n{compare(*both)}")
    if out is not None:
        write_scores(out, *both)
    if both[0].n_failed:
        raise typer.Exit(SOME_FAILED)


@app.command("audit")
def audit_command(
    source: Source,
    model: Annotated[
        Path | None,
        typer.Option("-m", "--model", help="A fitted model, to be asked as well."),
    ] = None,
    labels: Labels = None,
    group_by: GroupBy = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder for the page, a text and JSON."),
    ] = None,
    jobs: Jobs = 1,
    quiet: Quiet = False,
) -> None:
    """Say whether a score on these recordings can be believed: leaks, copies, shortcuts, wrong labels."""
    from cqt2img._utils.files import check_folder
    from cqt2img.auditing.audit import audit
    from cqt2img.classifier import load

    if out is not None:
        check_folder(out)
    asked = (
        None
        if model is None
        else load(model).set_params(n_jobs=jobs, verbose=not quiet)
    )
    report = audit(
        labelled(source, labels, group_by),
        group_by=group_by,
        model=asked,
        n_jobs=jobs,
        verbose=not quiet,
    )
    typer.echo(str(report))
    if out is not None:
        report.save(out)
        typer.echo(f"\nThe whole of it is in {out / 'index.html'}")
    if report.n_failed:
        raise typer.Exit(SOME_FAILED)


@app.command("backbones")
def backbones_command() -> None:
    """List backbones to choose from: parameters (millions), work and time per tile, and what they are good for."""
    from cqt2img.models.registry import list_backbones

    form = "{:32}{:9}{:>10}{:>7}{:>6}  {}"
    typer.echo(
        form.format("backbone", "weights", "parameters", "GMACs", "time", "good for")
    )
    for row in list_backbones().itertuples():
        size = f"{row.parameters:.2f} M"
        typer.echo(
            form.format(
                row.name,
                row.weights,
                size,
                f"{row.gmacs:.2f}",
                f"{row.time:.1f}",
                row.good_for,
            )
        )


@app.command("demo")
def demo_command(
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder for the demo.")
    ] = Path("cqt2img-demo"),
    seed: Seed = 3,  # one of the five in benchmarks/RESULTS.md, not the best
    quiet: Quiet = False,
) -> None:
    """Tell the story of the album effect on synthetic players, in three minutes, without a network."""
    from cqt2img.demo import run_demo

    run_demo(out, seed, typer.echo, not quiet)


def main() -> None:
    """Run the command line; a known error is one line."""
    try:
        app()
    except (
        Cqt2imgError,
        OSError,
    ) as err:  # the last: a full disk, a folder that may not be written
        typer.echo(f"cqt2img: {err}", err=True)
        sys.exit(1)
