"""Is a score honest? What a corpus and a model give away, found before the disappointment."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from cqt2img._utils.files import write_atomic
from cqt2img._utils.progress import progress_bar
from cqt2img.auditing import findings as find
from cqt2img.auditing.duplicates import landmarks, match_takes
from cqt2img.auditing.findings import SEVERITIES, Finding
from cqt2img.auditing.label_errors import find_label_errors, lone_albums, near_names
from cqt2img.auditing.leakage import SplitScore, score_splits
from cqt2img.auditing.robustness import measure_robustness
from cqt2img.auditing.shortcuts import find_shortcuts
from cqt2img.auditing.tile_statistics import sketch
from cqt2img.classifier import Classifier
from cqt2img.data.labels import check_labelled, encode
from cqt2img.data.recordings import list_recordings
from cqt2img.data.specs import resolve_spec
from cqt2img.data.tile_arrays import load_tile_arrays
from cqt2img.errors import InputError
from cqt2img.evaluation.comparison import compare
from cqt2img.evaluation.evaluation import Evaluation
from cqt2img.evaluation.page import Notice, Section, render_page
from cqt2img.evaluation.plots import plot_shares
from cqt2img.tiles.extract import QUALITY

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Audit:
    """What an audit has found.

    Parameters
    ----------
    n_recordings, n_groups, n_failed : int
        Recordings that were looked at, groups among them, and recordings that could not be read.
    classes : tuple of str
        The names.
    findings : tuple of Finding
        Worst first.
    ladder : tuple of SplitScore
        One small model, scored with ever more held out.
    clues : DataFrame
        What each clue alone gives away.
    duplicates : DataFrame
        Pairs of recordings that are one take.
    suspects : DataFrame
        Recordings whose label is probably wrong.
    stability : DataFrame or None
        How far the answers of the model move when nothing of the player changes.
    scores : Evaluation or None
        Of the model, on the test side of the split, or on all.
    """

    n_recordings: int
    n_groups: int
    n_failed: int
    classes: tuple[str, ...]
    findings: tuple[Finding, ...]
    ladder: tuple[SplitScore, ...]
    clues: "pd.DataFrame"
    duplicates: "pd.DataFrame"
    suspects: "pd.DataFrame"
    stability: "pd.DataFrame | None" = None
    scores: Evaluation | None = None

    @property
    def verdict(self) -> str:
        """Whether a score on this corpus can be believed, in plain words."""
        worst = [
            sum(f.severity == severity for f in self.findings)
            for severity in SEVERITIES
        ]
        if worst[0]:
            return f"A score on these recordings cannot be believed: {_count(worst[0], 'fault')} found, worst first."
        if worst[1]:
            return f"A score on these recordings can be believed with care: {_count(worst[1], 'warning')} found."
        return "Nothing was found that would make a score on these recordings too good."

    def __str__(self) -> str:
        lines = [
            f"{self.n_recordings} recordings in {self.n_groups} groups, {len(self.classes)} classes"
            + (f"; {self.n_failed} could not be read" if self.n_failed else ""),
            "",
            self.verdict,
        ]
        for number, one in enumerate(self.findings, start=1):
            lines += [
                "",
                f"{number}. {one.severity.upper()}: {one.title}",
                f"   {one.advice}",
            ]
            lines += [f"     {name}" for name in one.files[:3]]
            if len(one.files) > 3:
                lines.append(f"     and {len(one.files) - 3} more, in audit.json")
        lines += [
            "",
            "What a small model names right, by what test and training do not share:",
        ]
        lines += [
            f"  {name:24}{_figure(value, low, high)}"
            for name, value, low, high in self.figures()
        ]
        return "\n".join(lines)

    def figures(self) -> list[tuple[str, float, float, float]]:
        """List what is told beside what: every rung of the ladder, every clue alone, and the model.

        Returns
        -------
        list of (str, float, float, float)
            Name, part of the recordings named right, and its 95 % interval over groups.
        """
        rungs = [
            (f"{rung.held_out} {'at random' if n < 2 else 'held out'}", rung.scores)
            for n, rung in enumerate(self.ladder)
        ]
        rows = [(name, one.accuracy, *one.accuracy_interval) for name, one in rungs]
        rows += [
            (f"{one.clue} alone", one.accuracy, one.low, one.high)
            for one in self.clues.itertuples()
        ]
        if self.scores is not None:
            rows.append(
                ("the model", self.scores.accuracy, *self.scores.accuracy_interval)
            )
        return rows

    def show(self) -> "Figure":
        """Draw the figures, beside chance.

        Returns
        -------
        matplotlib Figure
            In grey the rungs of the ladder that are not to be believed. A notebook shows it.
        """
        return plot_shares(
            self.figures(), 1 / len(self.classes), max(0, len(self.ladder) - 1)
        )

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain values.

        Returns
        -------
        dict
            Ready for JSON; NaN is None.
        """
        tables = {
            "clues": self.clues,
            "duplicates": self.duplicates,
            "suspects": self.suspects,
        }
        if self.stability is not None:
            tables["stability"] = self.stability
        figures = [
            dict(zip(("name", "accuracy", "low", "high"), row, strict=True))
            for row in self.figures()
        ]
        about = {
            "n_recordings": self.n_recordings,
            "n_groups": self.n_groups,
            "n_failed": self.n_failed,
            "classes": list(self.classes),
            "verdict": self.verdict,
            "chance": 1 / len(self.classes),
            "findings": [asdict(finding) for finding in self.findings],
            "figures": figures,
        }
        return about | {
            name: json.loads(frame.to_json(orient="records"))
            for name, frame in tables.items()
        }

    def save(self, folder: str | Path) -> None:
        """Write `audit.txt`, `audit.json` and `index.html`, a page that holds all it shows.

        Parameters
        ----------
        folder : str or Path
            Made if it is not there.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_dict(), indent=2) + "\n"
        write_atomic(
            folder / "audit.json", lambda part: part.write_text(text, encoding="utf-8")
        )
        write_atomic(
            folder / "audit.txt",
            lambda part: part.write_text(f"{self}\n", encoding="utf-8"),
        )
        _write_page(self, folder / "index.html")


def audit(
    X: Any,
    y: Sequence[Any] | None = None,
    groups: Sequence[Any] | None = None,
    *,
    group_by: str | None = None,
    model: Classifier | None = None,
    n_jobs: int = 1,
    verbose: bool = True,
) -> Audit:
    """Say whether a score on these recordings can be believed, and why not.

    Parameters
    ----------
    X : folder, table, TileSet, or sequence of paths or CQT arrays
        The recordings, as for `Classifier.fit`. Where a table has the column `split` (such as "train"
        and "test"), the split is looked at, too; where it has `piece`, pieces are held out.
    y : sequence, optional
        One label per recording; by default what the folders or the table say.
    groups : sequence, optional
        One group per recording.
    group_by : str, optional
        Column of a table that names the group.
    model : Classifier, optional
        A fitted model: it is scored on the side "test" of the split, or on all, and asked again
        after changes that are not the player's.
    n_jobs : int
        Processes that draw pictures, as joblib counts them.
    verbose : bool
        Whether long work shows how far it is.

    Returns
    -------
    Audit
        Print it, or `save` it as a page.

    Raises
    ------
    InputError
        If a label is missing or unknown to the model, or fewer than two classes have two recordings that can be read.

    Notes
    -----
    Recordings are drawn with the model's spec, or that of the tiles, or the preset "fast". Nothing is
    trained but small models on a few numbers per tile.

    References
    ----------
    Arthur Flexer, "A closer look on artist filters for musical genre classification", 2007.
    Bob L. Sturm, "A Simple Method to Determine if a Music Information Retrieval System is a 'Horse'", 2014.
    """
    bar = progress_bar if verbose else None
    if model is not None:
        check_is_fitted(model)
    recordings = list_recordings(X, y, groups, group_by, caller="audit")
    table = recordings.to_frame()
    check_labelled("audit", table["label"].tolist(), table["path"].tolist())
    if model is not None:
        encode(
            table["label"].tolist(), model.classes_
        )  # a name that it does not know should not cost the whole audit
    spec = resolve_spec(None if model is None else model.spec_, X, "audit", "fast")
    strips, infos = load_tile_arrays(recordings, spec, n_jobs, bar)
    bad = [not info.is_ok for info in infos]
    new = [name for name in ("seconds", *QUALITY) if name not in table]
    table = table.assign(
        **{name: [getattr(info, name) for info in infos] for name in new}
    )
    marks = [info.fingerprint for info in infos if info.is_ok]
    failed, table = table[bad], table[np.logical_not(bad)].reset_index(drop=True)
    n_each = table["label"].astype(str).value_counts()
    classes = sorted(n_each.index)
    if (n_each > 1).sum() < 2:
        raise InputError(
            "audit: X must hold two classes or more of two recordings that can be read, got "
            f"{(n_each > 1).sum()}. Add recordings."
        )
    sketches = sketch(strips)
    ladder = score_splits(sketches, table, _levels(table, group_by))
    measured: dict[str, Any] = {
        "duplicates": match_takes(
            [landmarks(strips.tiles(n), spec) for n in range(len(strips))], marks
        ),
        "clues": find_shortcuts(strips, table),
        "suspects": find_label_errors(sketches, table),
        "scores": None,
        "stability": None,
    }
    if model is not None:
        test = (
            table[table["split"].astype(str) == "test"] if "split" in table else table
        )
        asked = test if len(test) else table
        measured["scores"] = model.evaluate(asked, group_by="group")
        measured["stability"] = measure_robustness(
            model, asked, n_jobs=n_jobs, progress=bar
        )
    found = _judge(table, failed, measured, ladder)
    return Audit(
        len(table),
        table["group"].nunique(),
        len(failed),
        tuple(classes),
        found,
        tuple(ladder),
        **measured,
    )


def _levels(table: "pd.DataFrame", group_by: str | None) -> dict[str, NDArray[Any]]:
    """Give what can be held out beyond the recording, from fine to coarse, under the name that the table has for it."""
    called = group_by or next(
        (name for name in ("album", "session", "concert") if name in table), "group"
    )
    levels = {}
    if "piece" in table:
        unknown = [f"recording {n}" for n in range(len(table))]
        levels["pieces"] = (
            table["piece"].where(table["piece"].notna(), unknown).astype(str).to_numpy()
        )
    if table["group"].duplicated().any():
        levels[f"{called}s"] = table["group"].to_numpy()
    return levels


def _judge(
    table: "pd.DataFrame",
    failed: "pd.DataFrame",
    measured: dict[str, Any],
    ladder: Sequence[SplitScore],
) -> tuple[Finding, ...]:
    """Put what was measured into words, worst first."""
    gap = compare(ladder[0].scores, ladder[-1].scores) if len(ladder) > 2 else None
    found = [
        *find.find_leaks(table),
        *find.find_twice(measured["duplicates"], table),
        *find.find_clues(measured["clues"]),
        *find.find_bare_groups(table, lone_albums(table)),
        *find.find_names(near_names(table["label"])),
        *find.find_suspects(measured["suspects"]),
        *find.find_album_effect(ladder, gap),
        *find.find_met(measured["scores"]),
        *find.find_unstable(measured["stability"]),
        *find.find_unreadable(failed),
        *find.find_small(table, ladder),
    ]
    return tuple(sorted(found, key=lambda one: SEVERITIES.index(one.severity)))


def _figure(value: float, low: float, high: float) -> str:
    return f"{value:5.0%}  ({low:.0%} to {high:.0%})"


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'s' if n > 1 else ''}"


def _write_page(report: Audit, path: Path) -> None:
    """Write the audit as one page."""
    counts = f"{report.n_recordings} recordings in {report.n_groups} groups, {len(report.classes)} classes"
    if report.n_failed:
        counts += f"; {report.n_failed} could not be read"
    notices = [
        Notice(
            severity=finding.severity,
            title=finding.title,
            advice=finding.advice,
            files=finding.files,
        )
        for finding in report.findings
    ]
    sections = [
        Section(text=f"{counts}.", notices=notices),
        Section(
            title="What can be told, and from what",
            figure=report.show(),
            caption="The first bars are one small model, scored with ever more kept apart between training and test; "
            "what it loses from bar to bar it had from the recording, the piece or the album, and not from the player. "
            "The bars below are what one clue alone tells, with whole groups held out. Lines are 95 % intervals over "
            "groups.",
        ),
    ]
    if report.stability is not None and len(report.stability):
        sections.append(
            Section(
                title="What must not matter, and does it?",
                text="Part of the recordings that get another name after each change. The first row changes nothing "
                "but where the tiles begin, and is what to hold the others against.",
                table=_format_table(report.stability),
            )
        )
    render_page(path, "Can this score be believed?", sections, summary=report.verdict)


def _format_table(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Format shares as percentages and column names as words."""
    shares = frame.select_dtypes(float)
    percentages = {name: shares[name].map("{:.0%}".format) for name in shares}
    return frame.assign(**percentages).rename(
        columns=lambda name: name.replace("_", " ")
    )
