"""Result files: tables, Audacity label tracks, and scores with plots."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from cqt2img._utils.files import check_folder, write_atomic
from cqt2img.errors import InputError
from cqt2img.evaluation.comparison import compare
from cqt2img.evaluation.evaluation import Evaluation
from cqt2img.evaluation.page import to_png
from cqt2img.evaluation.plots import (
    plot_classes,
    plot_confusion,
    plot_reliability,
    plot_risk_coverage,
    plot_seconds,
)

if TYPE_CHECKING:
    import pandas as pd


_PLOTS = {
    "confusion": plot_confusion,
    "classes": plot_classes,
    "reliability": plot_reliability,
    "risk-coverage": plot_risk_coverage,
    "seconds": plot_seconds,
}


def check_table_name(path: Path, argument: str = "path") -> None:
    """Check that a table can be written, before any work is done.

    Parameters
    ----------
    path : Path
        File of the table.
    argument : str
        What the user set to `path`, for the message, such as "predict: --out".

    Raises
    ------
    InputError
        If the suffix is not one of `TABLE_WRITERS`, if the path is a folder, or if its
        folder cannot be written.
    """
    if path.suffix.lower() not in TABLE_WRITERS or path.is_dir():
        raise InputError(
            f"{argument} must be a file that ends in {', '.join(TABLE_WRITERS)}, got "
            f"{str(path)!r}. Rename it."
        )
    check_folder(path.parent)


def write_table(frame: "pd.DataFrame", path: Path) -> None:
    """Write a table as csv, JSON lines or Parquet, atomically.

    Parameters
    ----------
    frame : DataFrame
        The table; the index is left out.
    path : Path
        File; its suffix selects the format.

    Raises
    ------
    InputError
        If the suffix is not one of `TABLE_WRITERS`.

    Notes
    -----
    Text that is not valid Unicode, such as some file names, is kept as the original
    bytes in csv, and written with escapes in the other formats.
    """
    check_table_name(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write = TABLE_WRITERS[path.suffix.lower()]
    write_atomic(path, partial(write, frame))


def _write_csv(frame: "pd.DataFrame", path: Path) -> None:
    frame.to_csv(path, index=False, encoding="utf-8", errors="surrogateescape")


def _write_jsonl(frame: "pd.DataFrame", path: Path) -> None:
    values = frame.astype(object).where(frame.notna(), None)
    lines = [json.dumps(row) + "\n" for row in values.to_dict("records")]
    path.write_text("".join(lines), encoding="ascii")


def _write_parquet(frame: "pd.DataFrame", path: Path) -> None:
    frame.map(_escape_surrogates).to_parquet(path, index=False)


TABLE_WRITERS: dict[str, Callable[["pd.DataFrame", Path], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}


def _escape_surrogates(value: object) -> object:
    """Replace surrogates in text, which Arrow cannot encode."""
    if not isinstance(value, str):
        return value
    return value.encode(errors="backslashreplace").decode()


class _Tile(Protocol):
    """One row of `Classifier.predict_tiles`."""

    path: str
    start_seconds: float
    end_seconds: float
    label: object
    probability: float


@dataclass
class _Label:
    """One label of an Audacity label track."""

    start_seconds: float
    end_seconds: float
    name: object
    probabilities: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        name = " ".join(str(self.name).split())
        probability = np.mean(self.probabilities)
        times = f"{self.start_seconds:.3f}\t{self.end_seconds:.3f}"
        return f"{times}\t{name} {probability:.2f}\n"


def write_audacity(frame: "pd.DataFrame", folder: Path) -> list[Path]:
    """Write an Audacity label track with the predictions for each recording.

    Parameters
    ----------
    frame : DataFrame
        Result of `Classifier.predict_tiles`.
    folder : Path
        Created if it does not exist.

    Returns
    -------
    list of Path
        One file per recording that could be read. Consecutive tiles with the same
        prediction share one label, with their mean probability.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # groupby of pandas fails for paths that are not valid Unicode
    tiles_of_path: dict[str, list[_Tile]] = {}
    for tile in frame[frame["status"] == "ok"].itertuples():
        tiles_of_path.setdefault(tile.path, []).append(tile)

    written: list[Path] = []
    for path, tiles in tiles_of_path.items():
        labels = "".join(str(label) for label in _merge_tiles(tiles))
        target = _find_free_name(folder, Path(path).name, written)
        write = partial(
            Path.write_text, data=labels, encoding="utf-8", errors="surrogateescape"
        )
        write_atomic(target, write)
        written.append(target)
    return written


def _merge_tiles(tiles: Sequence[_Tile]) -> list[_Label]:
    """Merge consecutive tiles with the same prediction."""
    labels: list[_Label] = []
    for tile in tiles:
        if not labels or labels[-1].name != tile.label:
            label = _Label(tile.start_seconds, tile.end_seconds, tile.label)
            labels.append(label)
        labels[-1].end_seconds = tile.end_seconds
        labels[-1].probabilities.append(tile.probability)
    return labels


def _find_free_name(folder: Path, name: str, taken: list[Path]) -> Path:
    """Return a path that is not taken: recordings of two folders may share a name."""
    path = folder / f"{name}.txt"
    number = 1
    while path in taken:
        number += 1
        path = folder / f"{name}~{number}.txt"
    return path


def write_scores(
    folder: Path, scores: Evaluation, other: Evaluation | None = None
) -> None:
    """Write scores as tables and plots.

    Writes the files of `Evaluation.save`, and `confusion.png`, `classes.png`,
    `reliability.png`, `risk-coverage.png` and `seconds.png`.

    Parameters
    ----------
    folder : Path
        Created if it does not exist.
    scores : Evaluation
        Result of `Classifier.evaluate`.
    other : Evaluation, optional
        Scores of another model on the same recordings, for `comparison.csv`.
    """
    scores.save(folder)
    if other is not None:
        write_table(compare(scores, other).table, folder / "comparison.csv")
    for name, plot in _PLOTS.items():
        png = to_png(plot(scores))
        write_atomic(folder / f"{name}.png", partial(Path.write_bytes, data=png))
