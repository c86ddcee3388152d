"""Checks of an audit: each turns measurements into findings.

To add one, see "How to add a check" in `cqt2img.auditing.audit`.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import NamedTuple

import numpy as np

from cqt2img.auditing.class_names import find_similar_names
from cqt2img.auditing.confounds import CHANNEL
from cqt2img.auditing.findings import Finding, Severity, count, join_names
from cqt2img.auditing.groups import find_keys_with_several
from cqt2img.auditing.label_errors import LabelError
from cqt2img.auditing.leakage import SplitScore
from cqt2img.auditing.matching import TakePair
from cqt2img.auditing.robustness import RobustnessScore
from cqt2img.auditing.shortcuts import ConfoundScore
from cqt2img.evaluation.comparison import compare
from cqt2img.evaluation.evaluation import Evaluation

_MIN_ALBUM_EFFECT = 0.02  # lower limit of the interval
_LARGE_ALBUM_EFFECT = 0.1
_MIN_CHANGED = 0.1  # share of predictions that a perturbation changes
_WIDE_INTERVAL = 0.25
_CLIP_NUMBER = re.compile(r"[-_. ]*(?:tile|clip|part|seg(?:ment)?|chunk)?[-_. ]*\d+$")


class Failure(NamedTuple):
    """A recording that could not be read.

    Parameters
    ----------
    path : str
        The recording.
    reason : str
        Short token of the error, such as "too_short".
    """

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """What an audit measured, for its checks.

    Parameters
    ----------
    paths, labels, groups : sequence of str
        One entry per recording that could be read.
    splits : sequence of str, optional
        Side of the split of each recording, such as "train" and "test".
    failures : sequence of Failure
        Recordings that could not be read.
    leakage : sequence of SplitScore
        A small model, scored with more and more held out.
    duplicates : sequence of TakePair
        Recordings of the same take.
    confounds : sequence of ConfoundScore
        How well each confound predicts the labels.
    label_errors : sequence of LabelError
        Labels that are probably wrong.
    scores : Evaluation, optional
        Scores of the user's model.
    robustness : sequence of RobustnessScore
        How its predictions change under perturbations; the first one only shifts the
        tiles.
    """

    paths: Sequence[str]
    labels: Sequence[str]
    groups: Sequence[str]
    splits: Sequence[str] | None = None
    failures: Sequence[Failure] = ()
    leakage: Sequence[SplitScore] = ()
    duplicates: Sequence[TakePair] = ()
    confounds: Sequence[ConfoundScore] = ()
    label_errors: Sequence[LabelError] = ()
    scores: Evaluation | None = None
    robustness: Sequence[RobustnessScore] = ()


def report_split_groups(measured: Measurements) -> Iterator[Finding]:
    """Report groups on more than one side of the split.

    Parameters
    ----------
    measured : Measurements
        Groups and splits.

    Yields
    ------
    Finding
        One for all groups.
    """
    if measured.splits is None:
        return
    crossing = find_keys_with_several(measured.groups, measured.splits)
    if crossing:
        files = _paths_of(measured.paths, measured.groups, crossing)
        verb = "is" if len(crossing) == 1 else "are"
        yield Finding(
            kind="leakage",
            severity="fault",
            title=f"{count(len(crossing), 'group')} {verb} on more than one side of "
            f"the split: {join_names(crossing)}. A model can recognise the album "
            "instead of the player.",
            advice="Put each group on one side: cqt2img.group_split(y, groups).",
            files=files,
        )


def report_split_clips(measured: Measurements) -> Iterator[Finding]:
    """Report clips of one recording on more than one side of the split.

    Only recordings without a group are checked, by the names of their files.

    Parameters
    ----------
    measured : Measurements
        Paths, groups and splits.

    Yields
    ------
    Finding
        One for all clips.
    """
    if measured.splits is None:
        return
    group_sizes = Counter(measured.groups)
    paths: list[str] = []
    splits: list[str] = []
    for path, group, split in zip(
        measured.paths, measured.groups, measured.splits, strict=True
    ):
        if group_sizes[group] == 1:
            paths.append(path)
            splits.append(split)
    sources = [_remove_clip_number(path) for path in paths]
    crossing = find_keys_with_several(sources, splits)
    if crossing:
        yield Finding(
            kind="leakage",
            severity="fault",
            title="Files whose names differ only in a number are on more than one side "
            f"of the split: {join_names(crossing)}. If they were cut from one "
            "recording, a model can recognise that recording.",
            advice="Give all clips of a recording the same group (groups= or a column "
            "of the table), and put each group on one side.",
            files=_paths_of(paths, sources, crossing),
        )


def report_duplicates(measured: Measurements) -> Iterator[Finding]:
    """Report recordings of the same take, by the worst effect on a score.

    Parameters
    ----------
    measured : Measurements
        Duplicates, labels, groups and splits.

    Yields
    ------
    Finding
        One for each effect.
    """
    files_of: dict[_DuplicateKind, list[str]] = {}
    for pair in measured.duplicates:
        kind = _classify_duplicate(pair, measured)
        first = measured.paths[pair.first]
        second = measured.paths[pair.second]
        files_of.setdefault(kind, []).append(f"{first} = {second}")
    for kind in _DUPLICATE_KINDS:
        files = files_of.get(kind)
        if files:
            verb = "is" if len(files) == 1 else "are"
            yield Finding(
                kind=kind.kind,
                severity=kind.severity,
                title=f"{count(len(files), 'pair')} of recordings {verb} the same take "
                f"{kind.where}.",
                advice=kind.advice,
                files=tuple(files),
            )


def report_missing_groups(measured: Measurements) -> Iterator[Finding]:
    """Report that no groups are known.

    Parameters
    ----------
    measured : Measurements
        Groups.

    Yields
    ------
    Finding
        If every recording has a group of its own.
    """
    if not _has_groups(measured):
        yield Finding(
            kind="no groups",
            severity="warning",
            title="No two recordings share a group, so the audit cannot check whether "
            "a score comes from the player or from the album.",
            advice="Define what was recorded together: one folder per album, a column "
            "such as album, or groups=.",
        )


def report_single_groups(measured: Measurements) -> Iterator[Finding]:
    """Report classes that have one group only, and cannot be scored.

    Parameters
    ----------
    measured : Measurements
        Labels and groups.

    Yields
    ------
    Finding
        One for all classes.
    """
    if not _has_groups(measured):
        return  # see report_missing_groups
    classes = set(measured.labels)
    several = find_keys_with_several(measured.labels, measured.groups)
    single = sorted(classes.difference(several))
    if single:
        verb = "has" if len(single) == 1 else "have"
        yield Finding(
            kind="single group",
            severity="fault",
            title=f"{len(single)} of {len(classes)} classes {verb} only one album: "
            f"{join_names(single)}. It cannot be held out, so a model may recognise "
            "the album instead of the player.",
            advice="Add recordings from another album of each, or leave them out.",
            files=_paths_of(measured.paths, measured.labels, single),
        )


def report_shortcuts(measured: Measurements) -> Iterator[Finding]:
    """Report confounds that predict the labels without the player.

    Parameters
    ----------
    measured : Measurements
        Confounds.

    Yields
    ------
    Finding
        One for each shortcut.
    """
    shortcuts = {s.confound: s for s in measured.confounds if s.is_shortcut}
    if "channel" in shortcuts:  # includes these
        for name in CHANNEL:
            shortcuts.pop(name, None)
    for name, score in shortcuts.items():
        holds_out_groups = score.held_out == "groups"
        severity: Severity = "fault"
        if not holds_out_groups:
            severity = "note"  # a property of the album, which every album has
        elif name in ("piece", "mean spectrum"):
            severity = "warning"  # may belong to the player
        is_channel = name == "channel" and holds_out_groups
        yield Finding(
            kind="shared channel" if is_channel else "shortcut",
            severity=severity,
            title=score.explanation,
            advice=score.advice,
            confound=name,
        )


def report_similar_names(measured: Measurements) -> Iterator[Finding]:
    """Report classes that are probably the same player.

    Parameters
    ----------
    measured : Measurements
        Labels.

    Yields
    ------
    Finding
        One for all pairs of names.
    """
    pairs = find_similar_names(measured.labels)
    if pairs:
        names = [f"{pair.first!r} and {pair.second!r}" for pair in pairs]
        yield Finding(
            kind="similar names",
            severity="warning",
            title=f"Class names that may mean the same player: {join_names(names)}.",
            advice="Use one spelling for each player.",
        )


def report_label_errors(measured: Measurements) -> Iterator[Finding]:
    """Report labels that are probably wrong.

    Parameters
    ----------
    measured : Measurements
        Label errors.

    Yields
    ------
    Finding
        One for all labels.
    """
    errors = measured.label_errors
    if errors:
        verb = "is" if len(errors) == 1 else "are"
        yield Finding(
            kind="label errors",
            severity="warning",
            title=f"{count(len(errors), 'label')} {verb} probably wrong.",
            advice="Play these recordings, and correct their labels or remove them.",
            files=tuple(
                f"{error.path}: labelled {error.label}, more likely "
                f"{error.likely_label}"
                for error in errors
            ),
        )


def report_album_effect(measured: Measurements) -> Iterator[Finding]:
    """Report how much too high a score is without held-out albums.

    Parameters
    ----------
    measured : Measurements
        Leakage, with a level beyond recordings.

    Yields
    ------
    Finding
        If the difference is above zero.
    """
    if len(measured.leakage) <= 2:
        return
    loose = measured.leakage[0]
    strict = measured.leakage[-1]
    effect = compare(loose.scores, strict.scores)
    low, high = effect.interval
    if low <= _MIN_ALBUM_EFFECT:
        return
    held_out = strict.held_out
    yield Finding(
        kind="album effect",
        severity="warning" if low > _LARGE_ALBUM_EFFECT else "note",
        title=f"A small model identifies {loose.scores.accuracy:.0%} of the "
        f"recordings if {loose.held_out} are split at random, but "
        f"{strict.scores.accuracy:.0%} if {held_out} are held out: "
        f"{100 * effect.difference:.0f} points (95% interval {100 * low:.0f} to "
        f"{100 * high:.0f}) come from recognising {held_out}, not players.",
        advice=f"Do not trust a score without held-out {held_out}: pass groups= "
        "(--group-by on the command line) to fit and evaluate.",
    )


def report_training_groups(measured: Measurements) -> Iterator[Finding]:
    """Report that the model is scored on groups that it was trained on.

    Parameters
    ----------
    measured : Measurements
        Scores of the model.

    Yields
    ------
    Finding
        One for all groups.
    """
    scores = measured.scores
    if scores is not None and scores.known_groups:
        known = scores.known_groups
        yield Finding(
            kind="training groups",
            severity="fault",
            title=f"The model was trained on {len(known)} of the {scores.n_groups} "
            "groups that it is scored on.",
            advice="Score the model on recordings that were not used for training.",
            files=known,
        )


def report_robustness(measured: Measurements) -> Iterator[Finding]:
    """Report perturbations that change predictions, but not the player.

    They are compared with the first one, which only shifts the tiles.

    Parameters
    ----------
    measured : Measurements
        Robustness of the model.

    Yields
    ------
    Finding
        One for all perturbations.
    """
    if not measured.robustness:
        return
    shifted = measured.robustness[0]
    usual = shifted.changed
    # two standard deviations of the difference of two fractions
    variance_of_one = max(usual, 0.02) * (1 - usual) / shifted.n_recordings
    tolerance = max(2 * np.sqrt(2 * variance_of_one), _MIN_CHANGED)
    unstable = []
    for score in measured.robustness:
        if score.changed - usual > tolerance:
            unstable.append(f"{score.perturbation} ({score.changed:.0%})")
    if unstable:
        yield Finding(
            kind="robustness",
            severity="warning",
            title="Effects that leave the player unchanged change many predictions: "
            f"{join_names(unstable)}. A start 1 s later changes {usual:.0%}.",
            advice="Train with augment='album', and on more albums.",
        )


def report_unreadable(measured: Measurements) -> Iterator[Finding]:
    """Report recordings that could not be read.

    Parameters
    ----------
    measured : Measurements
        Failures.

    Yields
    ------
    Finding
        One for all recordings.
    """
    failures = measured.failures
    if failures:
        verb = "was" if len(failures) == 1 else "were"
        yield Finding(
            kind="unreadable",
            severity="note",
            title=f"{count(len(failures), 'recording')} could not be read and {verb} "
            "left out.",
            advice="Repair or remove the files.",
            files=tuple(
                f"{failure.path}: {failure.reason.replace('_', ' ')}"
                for failure in failures
            ),
        )


def report_small_sample(measured: Measurements) -> Iterator[Finding]:
    """Report that there are too few groups for a precise score.

    Parameters
    ----------
    measured : Measurements
        Leakage.

    Yields
    ------
    Finding
        If the interval of the strictest score is wide.
    """
    if not measured.leakage:
        return
    strict = measured.leakage[-1]
    low, high = strict.scores.accuracy_interval
    if high - low > _WIDE_INTERVAL:
        n_recordings = count(len(measured.paths), "recording")
        n_groups = count(len(set(measured.groups)), "group")
        yield Finding(
            kind="small sample",
            severity="note",
            title=f"{n_recordings} in {n_groups} are few: the accuracy of "
            f"{strict.scores.accuracy:.0%} with {strict.held_out} held out is only "
            f"known to be between {low:.0%} and {high:.0%}.",
            advice="Add albums; more takes of the same albums help little.",
        )


# in the order of findings of one severity
CHECKS: tuple[Callable[[Measurements], Iterator[Finding]], ...] = (
    report_split_groups,
    report_split_clips,
    report_duplicates,
    report_shortcuts,
    report_missing_groups,
    report_single_groups,
    report_similar_names,
    report_label_errors,
    report_album_effect,
    report_training_groups,
    report_robustness,
    report_unreadable,
    report_small_sample,
)


@dataclass(frozen=True)
class _DuplicateKind:
    """The effect of a duplicate on a score."""

    kind: str
    severity: Severity
    where: str
    advice: str


_TWO_LABELS = _DuplicateKind(
    "conflicting labels",
    "fault",
    "under two labels",
    "Find out who plays, and remove one recording of each pair.",
)
_TWO_SIDES = _DuplicateKind(
    "leakage",
    "fault",
    "on two sides of the split",
    "Remove one recording of each pair, or put both in one group and split again.",
)
_TWO_GROUPS = _DuplicateKind(
    "duplicates",
    "fault",
    "in two groups, so that holding out one group does not hold out the take",
    "Remove one recording of each pair, or put both in one group.",
)
_ONE_GROUP = _DuplicateKind(
    "duplicates",
    "warning",
    "in one group, where it counts twice",
    "Remove one recording of each pair.",
)
_DUPLICATE_KINDS = (_TWO_LABELS, _TWO_SIDES, _TWO_GROUPS, _ONE_GROUP)


def _classify_duplicate(pair: TakePair, measured: Measurements) -> _DuplicateKind:
    """Return the worst effect of a pair."""
    first, second = pair.first, pair.second
    if measured.labels[first] != measured.labels[second]:
        return _TWO_LABELS
    splits = measured.splits
    if splits is not None and splits[first] != splits[second]:
        return _TWO_SIDES
    if measured.groups[first] != measured.groups[second]:
        return _TWO_GROUPS
    return _ONE_GROUP


def _has_groups(measured: Measurements) -> bool:
    """Check whether any two recordings share a group."""
    n_groups = len(set(measured.groups))
    return n_groups < len(measured.groups)


def _paths_of(
    paths: Sequence[str], keys: Sequence[str], chosen: Sequence[str]
) -> tuple[str, ...]:
    """Return the paths of the recordings whose key is among the chosen ones."""
    wanted = set(chosen)
    pairs = zip(paths, keys, strict=True)
    return tuple(path for path, key in pairs if key in wanted)


def _remove_clip_number(path: str) -> str:
    """Return a path without suffix, and without a number at the end of its name."""
    name = PurePath(path)
    stem = _CLIP_NUMBER.sub("", name.stem)
    return str(name.with_name(stem or "-"))
