"""Audit of a collection of recordings and a model: whether a score can be trusted.

How to add a check
------------------
1. Write a function in `cqt2img.auditing.checks` that takes `Measurements` and yields a
   `Finding` for each problem, and add it to the list `CHECKS` in that module.
2. If it needs something that is not measured yet, write a function that measures it in
   a module of its own, add a field to `Measurements`, and fill it in `_measure` below.
3. Describe the new kind of finding in the docstring of `Finding`.

Text, JSON and page show all findings, and need no change.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from cqt2img._utils.array_types import Float64Array
from cqt2img._utils.files import write_atomic
from cqt2img._utils.progress import Progress, progress_bar
from cqt2img._utils.tables import is_missing, make_table
from cqt2img.auditing.checks import CHECKS, Failure, Measurements
from cqt2img.auditing.confounds import QUALITIES, measure_confounds
from cqt2img.auditing.duplicates import tabulate_pairs
from cqt2img.auditing.findings import SEVERITIES, Finding, count
from cqt2img.auditing.label_errors import LabelError, find_label_errors
from cqt2img.auditing.landmarks import compute_landmarks
from cqt2img.auditing.leakage import SplitScore, score_splits
from cqt2img.auditing.matching import match_takes
from cqt2img.auditing.robustness import RobustnessScore, measure_robustness
from cqt2img.auditing.shortcuts import ConfoundScore, find_shortcuts
from cqt2img.auditing.tile_statistics import compute_all_tile_statistics
from cqt2img.data.labels import check_labelled, encode
from cqt2img.data.recordings import (
    Label,
    Recording,
    Recordings,
    RecordingsLike,
    list_recordings,
)
from cqt2img.data.specs import resolve_spec
from cqt2img.data.tile_arrays import TileArrays, load_tile_arrays
from cqt2img.errors import InputError
from cqt2img.evaluation.evaluation import Evaluation
from cqt2img.evaluation.page import Notice, Section, render_page
from cqt2img.evaluation.plots import plot_shares
from cqt2img.tiles.extract import RecordingInfo

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from cqt2img.classifier import Classifier

_GROUP_COLUMNS = ("album", "session", "concert")
_MAX_CONFOUND_RECORDINGS = 2000
_N_FILES_SHOWN = 3
_Row = LabelError | ConfoundScore | RobustnessScore


class Accuracy(NamedTuple):
    """An accuracy of an audit, with its 95 % interval over groups.

    Parameters
    ----------
    name : str
        What was predicted, or from what.
    accuracy : float
        0 to 1.
    low, high : float
        Ends of the interval.
    """

    name: str
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Result of `audit`; print it, or `save` it as a page.

    Parameters
    ----------
    n_recordings, n_groups, n_failed : int
        Number of recordings that could be read, of groups among them, and of recordings
        that could not be read.
    classes : tuple of str
        Names of the classes.
    findings : tuple of Finding
        Worst first.
    leakage : tuple of SplitScore
        A small model, scored with more and more held out.
    confounds : DataFrame
        How well each confound alone predicts the labels; see `ConfoundScore`.
    duplicates : DataFrame
        Pairs of recordings of the same take; see `find_duplicates`.
    label_errors : DataFrame
        Recordings whose label is probably wrong; see `LabelError`.
    robustness : DataFrame or None
        How the predictions of the model change under perturbations; see
        `RobustnessScore`.
    scores : Evaluation or None
        Scores of the model on the side "test" of the split, or on all recordings.
    """

    n_recordings: int
    n_groups: int
    n_failed: int
    classes: tuple[str, ...]
    findings: tuple[Finding, ...]
    leakage: tuple[SplitScore, ...]
    confounds: "pd.DataFrame"
    duplicates: "pd.DataFrame"
    label_errors: "pd.DataFrame"
    robustness: "pd.DataFrame | None" = None
    scores: Evaluation | None = None

    @property
    def verdict(self) -> str:
        """Whether a score on these recordings can be trusted, in one sentence."""
        severities = [finding.severity for finding in self.findings]
        n_faults = severities.count("fault")
        n_warnings = severities.count("warning")
        if n_faults:
            return (
                "A score on these recordings cannot be trusted: "
                f"{count(n_faults, 'fault')} found."
            )
        if n_warnings:
            return (
                "A score on these recordings can be trusted with care: "
                f"{count(n_warnings, 'warning')} found."
            )
        return "Nothing was found that would make a score on these recordings too high."

    def __str__(self) -> str:
        lines = [self.describe_size(), "", self.verdict]
        for number, finding in enumerate(self.findings, start=1):
            severity = finding.severity.upper()
            lines += ["", f"{number}. {severity}: {finding.title}"]
            lines.append(f"   What to do: {finding.advice}")
            lines += [f"     {name}" for name in finding.files[:_N_FILES_SHOWN]]
            n_more = len(finding.files) - _N_FILES_SHOWN
            if n_more > 0:
                lines.append(f"     and {n_more} more, see audit.json")
        lines += ["", *self._describe_accuracies()]
        return "\n".join(lines)

    def accuracies(self) -> list[Accuracy]:
        """List all accuracies: of every split, of every confound, and of the model.

        Returns
        -------
        list of Accuracy
            Each with its 95 % interval over groups.
        """
        rows = []
        for index, score in enumerate(self.leakage):
            how = "at random" if index < 2 else "held out"
            name = f"{score.held_out} {how}"
            rows.append(_accuracy_of(name, score.scores))
        for row in self.confounds.itertuples():
            name = f"{row.confound} alone"
            rows.append(Accuracy(name, row.accuracy, row.low, row.high))
        if self.scores is not None:
            rows.append(_accuracy_of("the model", self.scores))
        return rows

    def show(self) -> "Figure":
        """Plot the accuracies and chance.

        Returns
        -------
        matplotlib Figure
            A bar for each accuracy; grey if training and test share recordings or
            groups. Displayed by notebooks.
        """
        n_grey = max(0, len(self.leakage) - 1)
        return plot_shares(self.accuracies(), 1 / len(self.classes), n_grey)

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain values.

        Returns
        -------
        dict
            Ready for JSON; NaN is None.
        """
        values: dict[str, object] = {
            "n_recordings": self.n_recordings,
            "n_groups": self.n_groups,
            "n_failed": self.n_failed,
            "classes": list(self.classes),
            "verdict": self.verdict,
            "chance": 1 / len(self.classes),
            "findings": [asdict(finding) for finding in self.findings],
            "accuracies": [row._asdict() for row in self.accuracies()],
        }
        for name in ("confounds", "duplicates", "label_errors", "robustness"):
            table = getattr(self, name)
            if table is not None:
                values[name] = json.loads(table.to_json(orient="records"))
        return values

    def save(self, folder: str | Path) -> None:
        """Write `audit.txt`, `audit.json` and the page `index.html`.

        Parameters
        ----------
        folder : str or Path
            Created if it does not exist.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        _write_text(folder / "audit.json", json.dumps(self.to_dict(), indent=2))
        _write_text(folder / "audit.txt", str(self))
        _write_page(self, folder / "index.html")

    def _describe_accuracies(self) -> list[str]:
        rows = []
        for name, accuracy, low, high in self.accuracies():
            rows.append(f"  {name:24}{accuracy:5.0%}  ({low:.0%} to {high:.0%})")
        n_splits = len(self.leakage)
        n_first = n_splits + len(self.confounds)
        chance = 1 / len(self.classes)
        lines = [
            f"Accuracy, with 95% intervals (random guessing: {chance:.0%})",
            "of a small model, by how training and test are split:",
            *rows[:n_splits],
            "of one property of the recordings, which should be close to guessing:",
            *rows[n_splits:n_first],
        ]
        if self.scores is not None:
            lines += ["of the model that was passed:", *rows[n_first:]]
        return lines

    def describe_size(self) -> str:
        """Describe the audited recordings.

        Returns
        -------
        str
            Numbers of recordings, groups, classes and failures.
        """
        recordings = count(self.n_recordings, "recording")
        groups = count(self.n_groups, "group")
        text = f"{recordings} in {groups}, {len(self.classes)} classes"
        if self.n_failed:
            text += f"; {self.n_failed} could not be read"
        return text


def audit(
    X: RecordingsLike,
    y: Iterable[Label] | None = None,
    groups: Iterable[object] | None = None,
    *,
    group_by: str | None = None,
    model: "Classifier | None" = None,
    n_jobs: int = 1,
    verbose: bool = True,
) -> Audit:
    """Check whether a score on these recordings can be trusted.

    Looks for leakage between the sides of a split, for duplicates, shortcuts and label
    errors, and measures how much of a score comes from albums instead of players.

    Parameters
    ----------
    X : folder, table, TileSet, or sequence of paths or CQT arrays
        The recordings, as for `Classifier.fit`. If a table has the column `split` (such
        as "train" and "test"), the split is checked, too; if it has the column `piece`,
        pieces are held out as well.
    y : sequence, optional
        One label per recording; by default those of the folders or the table.
    groups : sequence, optional
        One group per recording.
    group_by : str, optional
        Column of a table that contains the group.
    model : Classifier, optional
        A fitted model. It is scored on the side "test" of the split, or on all
        recordings, before and after changes that leave the player unchanged.
    n_jobs : int
        Number of processes, as in joblib.
    verbose : bool
        Whether to show progress bars.

    Returns
    -------
    Audit
        Print it, or `save` it as a page.

    Raises
    ------
    InputError
        If a label is missing or unknown to the model, or fewer than two classes have
        two recordings that can be read.

    Notes
    -----
    Recordings are rendered with the spec of the model or of the tiles, else with the
    preset "fast". Only small models on a few numbers per tile are trained.

    References
    ----------
    Arthur Flexer, "A closer look on artist filters for musical genre classification",
    2007.
    Bob L. Sturm, "A Simple Method to Determine if a Music Information Retrieval System
    is a 'Horse'", 2014.
    """
    progress = progress_bar if verbose else None
    if model is not None:
        check_is_fitted(model)
    recordings = list_recordings(X, y, groups, group_by, caller="audit")
    check_labelled("audit", recordings.labels, recordings.paths)
    if model is not None:
        # an unknown label is reported before the long work starts
        encode(recordings.labels, model.classes_, caller="audit")
    spec = resolve_spec(None if model is None else model.spec_, X, "audit", "fast")
    arrays, infos = load_tile_arrays(recordings, spec, n_jobs, progress)
    readable = recordings.select([info.is_ok for info in infos])
    _check_enough(readable)
    measured = Measurements(
        paths=readable.paths,
        labels=[str(label) for label in readable.labels],
        groups=readable.groups,
        splits=_read_column(readable, "split"),
        failures=[
            Failure(recording.path, info.reason)
            for recording, info in zip(recordings, infos, strict=True)
            if not info.is_ok
        ],
    )
    readable_infos = [info for info in infos if info.is_ok]
    measured = _measure(measured, readable, readable_infos, arrays, group_by)
    if model is not None:
        measured = _measure_model(measured, readable, model, n_jobs, progress)
    return _summarise(measured, has_model=model is not None)


def _check_enough(recordings: Recordings) -> None:
    sizes = Counter(str(label) for label in recordings.labels)
    n_classes = sum(size > 1 for size in sizes.values())
    if n_classes < 2:
        raise InputError(
            "audit: X must contain two classes or more with two recordings that can be "
            f"read, got {n_classes}. Add recordings."
        )


def _measure(
    measured: Measurements,
    recordings: Recordings,
    infos: Sequence[RecordingInfo],
    arrays: TileArrays,
    group_by: str | None,
) -> Measurements:
    """Add everything that is measured without a model."""
    labels = measured.labels
    groups = measured.groups
    statistics = compute_all_tile_statistics(arrays)
    landmarks = [
        compute_landmarks(arrays.tiles(index), arrays.spec)
        for index in range(len(arrays))
    ]
    group_column = _find_group_column(recordings)
    albums = None
    if group_column is not None:
        albums = _read_column(recordings, group_column)
    levels = _list_levels(recordings, group_by or group_column or "group")
    return replace(
        measured,
        leakage=score_splits(statistics, labels, groups, levels),
        duplicates=match_takes(landmarks, [info.fingerprint for info in infos]),
        confounds=_score_confounds(recordings, infos, arrays),
        label_errors=find_label_errors(
            statistics, labels, groups, measured.paths, albums
        ),
    )


def _measure_model(
    measured: Measurements,
    recordings: Recordings,
    model: "Classifier",
    n_jobs: int,
    progress: Progress | None,
) -> Measurements:
    """Add what is measured of a model, on the side "test" if there is one."""
    tested = recordings
    if measured.splits is not None and "test" in measured.splits:
        tested = recordings.select([split == "test" for split in measured.splits])
    return replace(
        measured,
        scores=model.evaluate(tested),
        robustness=measure_robustness(
            model,
            [recording.source for recording in tested],
            tested.labels,
            n_jobs=n_jobs,
            progress=progress,
        ),
    )


def _summarise(measured: Measurements, *, has_model: bool) -> Audit:
    """Run all checks, and collect the results for the user."""
    findings = [finding for check in CHECKS for finding in check(measured)]
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    robustness = None
    if has_model:
        robustness = _tabulate(measured.robustness, RobustnessScore._fields)
    return Audit(
        n_recordings=len(measured.paths),
        n_groups=len(set(measured.groups)),
        n_failed=len(measured.failures),
        classes=tuple(sorted(set(measured.labels))),
        findings=tuple(findings),
        leakage=tuple(measured.leakage),
        confounds=_tabulate(measured.confounds, ConfoundScore._fields),
        duplicates=tabulate_pairs(measured.duplicates, measured.paths),
        label_errors=_tabulate(measured.label_errors, LabelError._fields),
        robustness=robustness,
        scores=measured.scores,
    )


def _tabulate(rows: Iterable[_Row], columns: tuple[str, ...]) -> "pd.DataFrame":
    """Return named tuples as a table."""
    return make_table([row._asdict() for row in rows], columns)


def _read_column(recordings: Recordings, name: str) -> list[str] | None:
    """Return a further column as text, or None if there is none."""
    if name not in recordings.column_names:
        return None
    return [str(value) for value in recordings.column(name)]


def _find_group_column(recordings: Recordings) -> str | None:
    for name in _GROUP_COLUMNS:
        if name in recordings.column_names:
            return name
    return None


def _list_levels(recordings: Recordings, noun: str) -> dict[str, NDArray[np.str_]]:
    """Return what can be held out beyond recordings, from fine to coarse, by name."""
    levels = {}
    if "piece" in recordings.column_names:
        pieces = [
            f"recording {index}" if is_missing(piece) else str(piece)
            for index, piece in enumerate(recordings.column("piece"))
        ]
        levels["pieces"] = np.asarray(pieces)
    groups = recordings.groups
    if len(set(groups)) < len(groups):
        levels[f"{noun}s"] = np.asarray(groups)
    return levels


def _score_confounds(
    recordings: Recordings, infos: Sequence[RecordingInfo], arrays: TileArrays
) -> list[ConfoundScore]:
    """Measure and score confounds, of a part of the recordings if there are many."""
    n = len(recordings)
    chosen = np.arange(n)
    if n > _MAX_CONFOUND_RECORDINGS:
        chosen = np.linspace(0, n - 1, _MAX_CONFOUND_RECORDINGS).astype(int)
    part = recordings.select(chosen)
    part_infos = [infos[index] for index in chosen.tolist()]
    confounds = measure_confounds(
        arrays.select(chosen),
        [_find_file(recording) for recording in part],
        {name: _read_quality(part, part_infos, name) for name in QUALITIES},
        _read_column(part, "piece"),
    )
    return find_shortcuts(confounds, part.labels, part.groups)


def _find_file(recording: Recording) -> Path:
    source = recording.source
    return source if isinstance(source, Path) else Path(recording.path)


def _read_quality(
    recordings: Recordings, infos: Sequence[RecordingInfo], name: str
) -> Float64Array:
    """Return a measurement of each recording, from the table if it has the column."""
    import pandas as pd

    if name in recordings.column_names:
        values = recordings.column(name)
    else:
        values = [getattr(info, name) for info in infos]
    column = pd.Series(values, dtype=object)
    return pd.to_numeric(column, errors="coerce").to_numpy(float)


def _accuracy_of(name: str, scores: Evaluation) -> Accuracy:
    return Accuracy(name, scores.accuracy, *scores.accuracy_interval)


def _write_text(path: Path, text: str) -> None:
    write_atomic(path, lambda part: part.write_text(f"{text}\n", encoding="utf-8"))


def _write_page(report: Audit, path: Path) -> None:
    """Write the page of an audit."""
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
        Section(text=f"{report.describe_size()}.", notices=notices),
        Section(
            title="Where the accuracy comes from",
            figure=report.show(),
            caption="The first bars show one small model, scored with more and more "
            "held out: what it loses from bar to bar came from the recording, the "
            "piece or the album, and not from the player. The bars below show the "
            "accuracy of one property of the recordings alone, with whole groups held "
            "out. Lines are 95% intervals over groups.",
        ),
    ]
    if report.robustness is not None and len(report.robustness):
        sections.append(
            Section(
                title="Changes that leave the player unchanged",
                text="The fraction of the recordings whose predicted class changes. "
                "The first row only shifts the tiles; compare the others with it.",
                table=_format_table(report.robustness),
            )
        )
    render_page(path, "Can this score be trusted?", sections, summary=report.verdict)


def _format_table(table: "pd.DataFrame") -> "pd.DataFrame":
    """Format fractions as percentages and column names as words."""
    fractions = table.select_dtypes(float)
    percentages = {name: fractions[name].map("{:.0%}".format) for name in fractions}
    words = {name: name.replace("_", " ") for name in table.columns}
    return table.assign(**percentages).rename(columns=words)
