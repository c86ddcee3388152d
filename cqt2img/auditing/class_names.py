"""Class names that probably mean the same player."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from itertools import combinations
from typing import NamedTuple

_MIN_LETTERS = 5  # of a name in which one other letter is a typing error


class SimilarNames(NamedTuple):
    """Two class names that probably mean the same player.

    Parameters
    ----------
    first : str
        The more frequent name.
    second : str
        The other name.
    difference : {"spelling", "one letter"}
        "spelling": case, accents, spaces, punctuation or the order of the words.
    """

    first: str
    second: str
    difference: str


def find_similar_names(labels: Iterable[object]) -> list[SimilarNames]:
    """Find pairs of class names that probably mean the same player.

    Parameters
    ----------
    labels : iterable
        The label of every recording, as the frequency of a name matters.

    Returns
    -------
    list of SimilarNames
        Most frequent names first.

    Notes
    -----
    One other letter counts as a typing error only if the rarer name has at most half as
    many recordings as the other, has five letters or more, and the letter is not a
    digit: player 1 and player 2 are two players.

    Examples
    --------
    >>> labels = ["Bill Evans"] * 9 + ["Evans, Bill", "Bil Evans"] + ["Gil Evans"] * 8
    >>> for pair in find_similar_names(labels):
    ...     print(pair.first, "|", pair.second)
    Bill Evans | Bil Evans
    Bill Evans | Evans, Bill
    Gil Evans | Bil Evans
    """
    counts = Counter(str(label) for label in labels)
    names = sorted(counts, key=lambda name: (-counts[name], name))
    words = {name: _split_words(name) for name in names}
    pairs = []
    for first, second in combinations(names, 2):
        is_rare = 2 * counts[second] <= counts[first]
        if _is_respelling(words[first], words[second]):
            pairs.append(SimilarNames(first, second, "spelling"))
        elif is_rare and _differ_in_one_letter(words[first], words[second]):
            pairs.append(SimilarNames(first, second, "one letter"))
    return pairs


def _split_words(name: str) -> list[str]:
    """Split a name into words without case, accents and punctuation.

    A name without letters and digits is returned as it is.
    """
    decomposed = unicodedata.normalize("NFKD", name.casefold())
    plain = "".join(
        character for character in decomposed if not unicodedata.combining(character)
    )
    return re.findall(r"[^\W_]+", plain) or [name]


def _is_respelling(first: list[str], second: list[str]) -> bool:
    has_same_words = sorted(first) == sorted(second)
    has_same_letters = "".join(first) == "".join(second)
    return has_same_words or has_same_letters


def _differ_in_one_letter(first: list[str], second: list[str]) -> bool:
    """Check for one missing, added or other letter, or two exchanged neighbours."""
    short, long = sorted(("".join(first), "".join(second)), key=len)
    n_missing = len(long) - len(short)
    if len(short) < _MIN_LETTERS or n_missing > 1:
        return False
    start = _common_prefix_length(short, long)
    short_rest = short[start:]
    long_rest = long[start:]
    if short_rest[:1].isdigit() or long_rest[:1].isdigit():
        return False
    if n_missing:
        return short_rest == long_rest[1:]
    exchanged = long_rest[1:2] + long_rest[:1] + long_rest[2:]
    return short_rest[1:] == long_rest[1:] or short_rest == exchanged


def _common_prefix_length(short: str, long: str) -> int:
    for index, letter in enumerate(short):
        if letter != long[index]:
            return index
    return len(short)
