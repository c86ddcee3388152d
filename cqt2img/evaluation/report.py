"""What people keep: tables, label tracks, one page that holds everything."""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

TABLE_SUFFIXES = (".csv", ".jsonl", ".parquet")


def check_table_name(path: Path) -> None:
    """Refuse a table in a format that cannot be written, before any work is done.

    Parameters
    ----------
    path : Path
        Where a table is to go.

    Raises
    ------
    InputError
        If it does not end in .csv, .jsonl or .parquet, is a folder, or its folder cannot be written.
    """
    if path.suffix.lower() not in TABLE_SUFFIXES or path.is_dir():
        raise InputError(
            f"write_table: path must be a file that ends in {', '.join(TABLE_SUFFIXES)}, got {str(path)!r}. Rename it."
        )
    check_folder(path.parent)


def write_table(frame: "pd.DataFrame", path: Path) -> None:
    """Write a table as csv, JSON lines or parquet, whole or not at all.

    Parameters
    ----------
    frame : DataFrame
        The table.
    path : Path
        Its ending says the format.

    Raises
    ------
    InputError
        If the ending is another one.
    """
    check_table_name(path)
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(part: Path) -> None:
        if path.suffix.lower() == ".csv":
            frame.to_csv(part, index=False, encoding="utf-8", errors="surrogateescape")
        elif path.suffix.lower() == ".jsonl":
            rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
            part.write_text(
                "".join(json.dumps(row) + "\n" for row in rows), encoding="ascii"
            )
        else:
            legible = frame.map(
                lambda v: (
                    v.encode(errors="backslashreplace").decode()
                    if isinstance(v, str)
                    else v
                )
            )
            legible.to_parquet(
                part, index=False
            )  # Arrow has no text that is not UTF-8, such as some names of files

    write_atomic(path, write)


def write_audacity(frame: "pd.DataFrame", folder: Path) -> list[Path]:
    """Write label tracks that Audacity imports: who plays when, one file per recording.

    Parameters
    ----------
    frame : DataFrame
        What `Classifier.predict_tiles` gives.
    folder : Path
        Made if it is not there.

    Returns
    -------
    list of Path
        The files; neighbouring tiles of one name are one label.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    good = frame[frame["status"] == "ok"]
    by_path: dict[str, list[Any]] = {}
    for row in good.itertuples():
        by_path.setdefault(str(row.path), []).append(row)
    for path, tiles in by_path.items():
        lines: list[list[Any]] = []
        for row in tiles:
            if lines and lines[-1][2] == row.label:
                lines[-1][1] = row.end_seconds
                lines[-1][3].append(row.probability)
            else:
                lines.append(
                    [row.start_seconds, row.end_seconds, row.label, [row.probability]]
                )
        text = "".join(
            f"{a:.3f}\t{b:.3f}\t{' '.join(str(name).split())} {np.mean(p):.2f}\n"
            for a, b, name, p in lines
        )
        target, n = folder / f"{Path(path).name}.txt", 1
        while target in written:  # two folders may hold files of one name
            n += 1
            target = folder / f"{Path(path).name}~{n}.txt"
        write_atomic(
            target,
            partial(
                Path.write_text, data=text, encoding="utf-8", errors="surrogateescape"
            ),
        )
        written.append(target)
    return written


def write_scores(
    folder: Path, scores: Evaluation, other: Evaluation | None = None
) -> None:
    """Write scores as tables and pictures.

    Parameters
    ----------
    folder : Path
        Gets what `Evaluation.save` writes, and `confusion`, `classes`, `reliability`, `risk-coverage` and
        `seconds`, each a .png.
    scores : Evaluation
        What `Classifier.evaluate` gives.
    other : Evaluation, optional
        Of another model on the same recordings; both go into `comparison.csv`.
    """
    scores.save(folder)
    if other is not None:
        write_table(compare(scores, other).table, folder / "comparison.csv")
    drawn = {
        "confusion": plot_confusion,
        "classes": plot_classes,
        "reliability": plot_reliability,
        "risk-coverage": plot_risk_coverage,
        "seconds": plot_seconds,
    }
    for name, plot in drawn.items():
        write_atomic(
            folder / f"{name}.png", partial(Path.write_bytes, data=to_png(plot(scores)))
        )
