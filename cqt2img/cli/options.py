"""Options that commands share, and how they turn into Python arguments."""

import re
from collections.abc import Sequence
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cqt2img.errors import InputError
from cqt2img.tiles.spec import PRESETS
from cqt2img.training.config import TrainingConfig

SETTINGS = ", ".join(field.name for field in fields(TrainingConfig))
# Python arguments in messages of the library, and the options that stand for them
_OPTION_NAMES = {
    "X": "SOURCE",
    "augment": "--augment",
    "backbone": "--backbone",
    "batch_size": "--batch-size",
    "checkpoint": "--checkpoint",
    "config": "--config or --param",
    "device": "--device",
    "epochs": "--epochs",
    "finetune": "--finetune",
    "group_by": "--group-by",
    "labels": "--labels",
    "learning_rate": "--learning-rate",
    "n_jobs": "--jobs",
    "out": "--out",
    "random_state": "--seed",
    "resume": "--resume",
    "spec": "--preset",
    "top_k": "--top-k",
    "unknown": "--unknown",
    "validation": "--validation",
    "weights": "--weights",
    "y": "the labels",
}
_OPTION_PHRASES = {
    "on_error='skip'": "--skip-bad",
    "pass y or a csv file": "pass --labels with a csv file",
    "resume=True": "--resume",
    "save: path": "--out",
}


class FinetuneChoice(StrEnum):
    """Values of `--finetune`."""

    all = "all"
    head = "head"


class AugmentChoice(StrEnum):
    """Values of `--augment`."""

    album = "album"
    none = "none"


def check_jobs(jobs: int) -> int:
    """Raise InputError for zero processes."""
    if jobs == 0:
        raise InputError(
            "--jobs 0: no process would run. Use 1 or more, or -1 for every core."
        )
    return jobs


Sources = Annotated[
    list[Path],
    typer.Argument(help="Folders or files of recordings, a tile folder, or a csv."),
]
Source = Annotated[
    Path,
    typer.Argument(help="Folder of recordings, tile folder, or csv with path,label."),
]
LabelsOption = Annotated[
    Path | None,
    typer.Option("--labels", help="Csv with the columns path,label for SOURCE."),
]
GroupByOption = Annotated[
    str | None,
    typer.Option("--group-by", help="Csv column that names the album or session."),
]
JobsOption = Annotated[
    int,
    typer.Option(
        "-j",
        "--jobs",
        callback=check_jobs,
        help="Number of rendering processes; -1 for every core.",
    ),
]
ModelOption = Annotated[
    Path, typer.Option("-m", "--model", help="Model folder made by fit.")
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Random seed.")]
SkipBadOption = Annotated[
    bool, typer.Option("--skip-bad", help="Skip recordings that cannot be read.")
]
QuietOption = Annotated[
    bool, typer.Option("-q", "--quiet", help="Show no progress bars.")
]
PRESET_HELP = f"{', '.join(PRESETS)}, or a JSON file."


def read_config(file: Path | None, pairs: Sequence[str]) -> TrainingConfig | None:
    """Return the training configuration of `--config` and `--param`.

    Parameters
    ----------
    file : Path, optional
        JSON or TOML file with names and values of `TrainingConfig`.
    pairs : sequence of str
        NAME=VALUE; takes precedence over the file.

    Returns
    -------
    TrainingConfig or None
        None where neither was given.

    Raises
    ------
    InputError
        If the file cannot be parsed, or a name or value is not valid.
    """
    values = {} if file is None else _read_settings(file)
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise InputError(
                f"--param {pair!r}: write NAME=VALUE, as in --param mixup=0.3."
            )
        values[name] = _parse_value(value)
    return TrainingConfig.from_dict(values) if values else None


def _read_settings(file: Path) -> dict[str, Any]:
    import json
    import tomllib

    try:
        text = file.read_text(encoding="utf-8")
        values = tomllib.loads(text) if file.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--config {str(file)!r}: cannot be read ({error}). "
            "Write a JSON or TOML file of names and values."
        ) from error
    if not isinstance(values, dict):
        raise InputError(
            f"--config {str(file)!r}: holds no table of names and values. "
            f"Names are {SETTINGS}."
        )
    return values


def _parse_value(text: str) -> Any:
    from ast import literal_eval

    try:
        return literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def name_options(message: str) -> str:
    """Replace Python argument names in a message by command-line options.

    Parameters
    ----------
    message : str
        Message of an error or a warning of the library.

    Returns
    -------
    str
        The same with `--group-by` for `group_by` and so on.

    Examples
    --------
    >>> name_options("fit: batch_size=0 must be 1 or more. Set another batch_size=.")
    'fit: --batch-size 0 must be 1 or more. Set another --batch-size.'
    >>> name_options("embed: broken.mp3. Remove it, or pass on_error='skip'.")
    'embed: broken.mp3. Remove it, or pass --skip-bad.'
    """
    for phrase, option in _OPTION_PHRASES.items():
        message = message.replace(phrase, option)
    names = "|".join(_OPTION_NAMES)
    message = re.sub(
        rf"(?<![\w'\"/.-])({names})=(?=[\w'\"-])",
        lambda match: f"{_OPTION_NAMES[match[1]]} ",
        message,
    )
    message = re.sub(
        rf"(?<![\w'\"/.-])({names})(=|(?= must\b))",
        lambda match: _OPTION_NAMES[match[1]],
        message,
    )
    # at the start of a sentence only: "No space left on device: ..." is no argument
    return re.sub(
        rf"^(\w+: )?({names})(?=:)",
        lambda match: f"{match[1] or ''}{_OPTION_NAMES[match[2]]}",
        message,
    )
