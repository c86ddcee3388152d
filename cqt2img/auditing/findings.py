"""What an audit has found, in words: what is wrong, which files, and what to do."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

from cqt2img.auditing.leakage import SplitScore
from cqt2img.evaluation.comparison import Comparison
from cqt2img.evaluation.evaluation import Evaluation

if TYPE_CHECKING:
    import pandas as pd

SEVERITIES = ("fault", "warning", "note")
_SHOWN = 5  # names in a sentence


@dataclass(frozen=True)
class Finding:
    """One thing that an audit has found.

    Parameters
    ----------
    kind : str
        "leak", "duplicate labels", "duplicates", "shared channel", "shortcut", "one album",
        "labels", "names", "no groups", "met", "transformations", "album effect", "unreadable" or "small".
    severity : {"fault", "warning", "note"}
        A fault makes scores false. A warning may. A note is good to know.
    title : str
        What was found, in one sentence.
    advice : str
        What to do about it.
    files : tuple of str
        The recordings concerned; of pairs "one = other".
    clue : str
        What gives the answer away, where it is a shortcut.
    """

    kind: str
    severity: str
    title: str
    advice: str
    files: tuple[str, ...] = ()
    clue: str = ""


def find_leaks(table: "pd.DataFrame") -> Iterator[Finding]:
    """Find what stands on two sides of the split that the table gives.

    Parameters
    ----------
    table : DataFrame
        `path`, `label`, `group` and, where there is a split, `split`.

    Yields
    ------
    Finding
        Groups on two sides, and clips of one recording on two sides.
    """
    if "split" not in table:
        return
    crossing = _crossing(table, table["group"])
    if crossing:
        yield Finding(
            "leak",
            "fault",
            f"{len(crossing)} {_s('group', crossing)} on two sides of the split: "
            f"{_list(crossing)}. A model that knows the album knows the answer.",
            "Give each group to one side: cqt2img.group_split(y, groups).",
            tuple(table["path"][table["group"].isin(crossing)]),
        )
    alone = table[
        table.groupby("group")["path"].transform("size") == 1
    ]  # of these nobody said what belongs together
    stems = alone["path"].map(_stem)
    crossing = _crossing(alone, stems)
    if crossing:
        yield Finding(
            "leak",
            "fault",
            f"Clips whose names differ by a number only stand on two sides of the split: "
            f"{_list(crossing)}. If they are cut from one recording, a model that knows it knows the answer.",
            "Say what each clip is cut from (groups=), and give all of it to one side.",
            tuple(alone["path"][stems.isin(crossing)]),
        )


def find_twice(pairs: "pd.DataFrame", table: "pd.DataFrame") -> Iterator[Finding]:
    """Sort the takes that are there twice by what they spoil.

    Parameters
    ----------
    pairs : DataFrame
        `first` and `second`: rows of the table that are the same take.
    table : DataFrame
        `path`, `label`, `group` and perhaps `split` of every recording.

    Yields
    ------
    Finding
        One for each way in which a score is spoiled.
    """
    one, other = (
        table.iloc[pairs[name].to_numpy()].reset_index(drop=True)
        for name in ("first", "second")
    )
    left = one["path"].notna()
    two_labels = left & (one["label"].astype(str) != other["label"].astype(str))
    two_sides = (
        left & (one["split"].astype(str) != other["split"].astype(str))
        if "split" in table
        else ~left
    )
    two_groups = left & (one["group"] != other["group"])
    for kind, severity, which, title, advice in (
        (
            "duplicate labels",
            "fault",
            two_labels,
            "under two labels",
            "Find out who plays, and remove one of each.",
        ),
        (
            "leak",
            "fault",
            two_sides,
            "on two sides of the split",
            "Remove one of each, or put both into one group, and split anew.",
        ),
        (
            "duplicates",
            "fault",
            two_groups,
            "in two groups, so that holding one out does not hold out the take",
            "Remove one of each, or put both into one group.",
        ),
        (
            "duplicates",
            "warning",
            left,
            "in one group, where it counts double",
            "Remove one of each.",
        ),
    ):
        mine = which & left
        left &= ~mine
        if mine.any():
            files = tuple(
                f"{a} = {b}"
                for a, b in zip(one["path"][mine], other["path"][mine], strict=True)
            )
            count = (
                "2 recordings are"
                if len(files) == 1
                else f"{len(files)} pairs of recordings are each"
            )
            yield Finding(
                kind, severity, f"{count} the same take, {title}.", advice, files
            )


def find_bare_groups(table: "pd.DataFrame", lone: Iterable[str]) -> Iterator[Finding]:
    """Find what cannot be judged for want of albums.

    Parameters
    ----------
    table : DataFrame
        `path`, `label` and `group` of every recording.
    lone : iterable of str
        Classes with one album.

    Yields
    ------
    Finding
        No groups at all, or classes of one.
    """
    if (table["group"].value_counts() == 1).all():
        yield Finding(
            "no groups",
            "warning",
            "No two recordings share a group, so nobody can tell whether a score "
            "comes from the player or from the album.",
            "Say what was recorded together: a folder per album, a column, or groups=.",
        )
        return
    lone = list(lone)
    if lone:
        n = table["label"].nunique()
        yield Finding(
            "one album",
            "fault",
            f"{len(lone)} of {n} classes have one album only: {_list(lone)}. For them "
            "player and album are the same thing, and no split can hold the album out.",
            "Add another album of each, or leave them out.",
            tuple(table["path"][table["label"].astype(str).isin(lone)]),
        )


def find_clues(clues: "pd.DataFrame") -> Iterator[Finding]:
    """Find what gives the player away and is not the player.

    Parameters
    ----------
    clues : DataFrame
        What `find_shortcuts` gives.

    Yields
    ------
    Finding
        One for each shortcut.
    """
    found = clues[clues["is_shortcut"].astype(bool)]
    if "channel" in set(found["clue"]):  # says what these two say
        found = found[~found["clue"].isin(["mean spectrum", "noise floor"])]
    for one in found.itertuples():
        if one.clue == "channel" and one.held_out == "groups":
            yield Finding(
                "shared channel", "fault", one.explanation, one.advice, clue=one.clue
            )
        else:
            severity = "warning" if one.clue in ("piece", "mean spectrum") else "fault"
            severity = (
                severity if one.held_out == "groups" else "note"
            )  # a clue to the album, which all have
            yield Finding(
                "shortcut", severity, one.explanation, one.advice, clue=one.clue
            )


def find_names(pairs: "pd.DataFrame") -> Iterator[Finding]:
    """Find classes that are probably one.

    Parameters
    ----------
    pairs : DataFrame
        What `near_names` gives.

    Yields
    ------
    Finding
        One for all pairs.
    """
    if len(pairs):
        names = [f"{one.first!r} and {one.second!r}" for one in pairs.itertuples()]
        yield Finding(
            "names",
            "warning",
            f"Names of classes that may be one player: {_list(names)}.",
            "Write each name in one way.",
        )


def find_suspects(suspects: "pd.DataFrame") -> Iterator[Finding]:
    """Find labels that are probably wrong.

    Parameters
    ----------
    suspects : DataFrame
        What `find_label_errors` gives.

    Yields
    ------
    Finding
        One for all.
    """
    if len(suspects):
        files = tuple(
            f"{one.path}: {one.label}, rather {one.likely}"
            for one in suspects.itertuples()
        )
        yield Finding(
            "labels",
            "warning",
            f"{len(files)} of the labels are probably wrong: {_list(files, 2)}.",
            "Listen to these and put their labels right, or remove them.",
            files,
        )


def find_album_effect(
    ladder: Sequence[SplitScore], gap: Comparison | None
) -> Iterator[Finding]:
    """Say what a loose split promises too much.

    Parameters
    ----------
    ladder : sequence of SplitScore
        One small model, with ever more held out.
    gap : Comparison, or None
        The first rung against the last.

    Yields
    ------
    Finding
        If the difference is above nothing.
    """
    if gap is None or gap.interval[0] <= 0.02:
        return
    first, last, (low, high) = ladder[0], ladder[-1], gap.interval
    yield Finding(
        "album effect",
        "warning" if low > 0.1 else "note",
        f"With {first.held_out} split at random a small model names {first.scores.accuracy:.0%} of the "
        f"recordings, with {last.held_out} held out {last.scores.accuracy:.0%}: {100 * gap.difference:.0f} "
        f"points ({100 * low:.0f} to {100 * high:.0f}) come from how {last.held_out} sound.",
        f"Believe no score without {last.held_out} held out. Pass groups= to fit and evaluate.",
    )


def find_met(scores: Evaluation | None) -> Iterator[Finding]:
    """Say when the model is asked about what it learned.

    Parameters
    ----------
    scores : Evaluation or None
        Of the model.

    Yields
    ------
    Finding
        If it met some of the groups.
    """
    if scores is not None and scores.known_groups:
        yield Finding(
            "met",
            "fault",
            f"The model was trained on {len(scores.known_groups)} of the {scores.n_groups} "
            f"groups that it is asked about: {_list(scores.known_groups)}.",
            "Ask it about recordings that it never met.",
            scores.known_groups,
        )


def find_unstable(stability: "pd.DataFrame | None") -> Iterator[Finding]:
    """Find changes that are not the player's and move the answer all the same.

    Parameters
    ----------
    stability : DataFrame or None
        What `measure_robustness` gives; its first row changes nothing but where tiles begin.

    Yields
    ------
    Finding
        One for all changes.
    """
    if stability is None or not len(stability):
        return
    usual = stability["changed"].iloc[0]
    noise = 2 * np.sqrt(2 * max(usual, 0.02) * (1 - usual) / stability["n"])
    moved = stability[stability["changed"] - usual > np.maximum(noise, 0.1)]
    if len(moved):
        words = [f"{one.disturbance} ({one.changed:.0%})" for one in moved.itertuples()]
        yield Finding(
            "transformations",
            "warning",
            f"Changes that are not the player's give recordings another name: "
            f"{_list(words)}; tiles that begin elsewhere do so for {usual:.0%}.",
            "Train with augment='album', on more albums, or through more rooms.",
        )


def find_unreadable(failed: "pd.DataFrame") -> Iterator[Finding]:
    """Name what could not be read.

    Parameters
    ----------
    failed : DataFrame
        `path` of each.

    Yields
    ------
    Finding
        One for all.
    """
    if len(failed):
        yield Finding(
            "unreadable",
            "note",
            f"{len(failed)} recordings could not be read and were left out: "
            f"{_list(failed['path'])}.",
            "Mend or remove them.",
            tuple(failed["path"]),
        )


def find_small(
    table: "pd.DataFrame", ladder: Sequence[SplitScore]
) -> Iterator[Finding]:
    """Say when there is too little to say anything.

    Parameters
    ----------
    table : DataFrame
        `label` and `group` of every recording.
    ladder : sequence of SplitScore
        One small model, with ever more held out.

    Yields
    ------
    Finding
        If the interval of the last rung is wide.
    """
    low, high = ladder[-1].scores.accuracy_interval if ladder else (0.0, 0.0)
    if high - low > 0.25:
        yield Finding(
            "small",
            "note",
            f"{len(table)} recordings in {table['group'].nunique()} groups are few: the "
            f"figure of {ladder[-1].scores.accuracy:.0%} may as well be {low:.0%} or {high:.0%}.",
            "Add albums; more takes of the same albums help little.",
        )


def _crossing(table: "pd.DataFrame", keys: "pd.Series") -> list[str]:
    """Give what stands on two sides of the split."""
    sides = table["split"].astype(str).groupby(keys).nunique()
    return sorted(map(str, sides.index[sides > 1]))


def _s(word: str, items: Iterable[str]) -> str:
    """Give the verb with the word: one group stands, two groups stand."""
    return f"{word} stands" if len(list(items)) == 1 else f"{word}s stand"


def _stem(path: str) -> str:
    """Give the name of what a clip may be cut from: the file without a number, or a time, at its end."""
    name = PurePath(path)
    return str(
        name.with_name(
            re.sub(
                r"[-_. ]*(?:tile|clip|part|seg(?:ment)?|chunk)?[-_. ]*\d+$",
                "",
                name.stem,
            )
            or "-"
        )
    )


def _list(names: Iterable[str], most: int = _SHOWN) -> str:
    names = list(map(str, names))
    return ", ".join(names[:most]) + (
        f" and {len(names) - most} more" if len(names) > most else ""
    )
