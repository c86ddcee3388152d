"""Findings of an audit: what is wrong, which files, and what to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["fault", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("fault", "warning", "note")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One problem that an audit found.

    Parameters
    ----------
    kind : str
        "leakage", "conflicting labels", "duplicates", "no groups", "single group",
        "shortcut", "shared channel", "similar names", "label errors", "album effect",
        "training groups", "robustness", "unreadable" or "small sample".
    severity : {"fault", "warning", "note"}
        A fault makes scores wrong, a warning may; a note is good to know.
    title : str
        What was found, in one sentence.
    advice : str
        What to do about it.
    files : tuple of str
        The recordings concerned; "one = other" for pairs.
    confound : str
        The confound that predicts the labels, if it is a shortcut.
    """

    kind: str
    severity: Severity
    title: str
    advice: str
    files: tuple[str, ...] = ()
    confound: str = ""


def count(n: int, noun: str) -> str:
    """Return a number with its noun.

    Parameters
    ----------
    n : int
        The number.
    noun : str
        The noun in the singular; its plural ends in s.

    Returns
    -------
    str
        Such as "1 group" or "2 groups".

    Examples
    --------
    >>> count(1, "group"), count(2, "group")
    ('1 group', '2 groups')
    """
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def join_names(names: Sequence[str], n_shown: int = 3) -> str:
    """Return the first names of a list, and the number of the others.

    Parameters
    ----------
    names : sequence of str
        The names.
    n_shown : int
        How many to show.

    Returns
    -------
    str
        The names with commas between them.

    Examples
    --------
    >>> join_names(["a", "b", "c"], n_shown=2)
    'a, b and 1 more'
    """
    shown = ", ".join(names[:n_shown])
    n_more = len(names) - n_shown
    return f"{shown} and {n_more} more" if n_more > 0 else shown
