"""Groups of recordings."""

from collections.abc import Iterable


def collect_values(
    keys: Iterable[object], values: Iterable[object]
) -> dict[str, set[str]]:
    """Collect the distinct values of every key, such as the groups of every class.

    Parameters
    ----------
    keys, values : iterable
        One entry per recording.

    Returns
    -------
    dict of str to set of str
        In the order of the keys.

    Examples
    --------
    >>> groups = collect_values(["Monk", "Evans", "Monk"], ["solo", "trio", "quartet"])
    >>> sorted(groups["Monk"])
    ['quartet', 'solo']
    """
    collected: dict[str, set[str]] = {}
    for key, value in zip(keys, values, strict=True):
        found = collected.setdefault(str(key), set())
        found.add(str(value))
    return collected


def find_keys_with_several(
    keys: Iterable[object], values: Iterable[object]
) -> list[str]:
    """Find the keys with two values or more, such as classes with two groups.

    Parameters
    ----------
    keys, values : iterable
        One entry per recording.

    Returns
    -------
    list of str
        Sorted keys.

    Examples
    --------
    >>> find_keys_with_several(["Monk", "Evans", "Monk"], ["solo", "trio", "quartet"])
    ['Monk']
    """
    collected = collect_values(keys, values)
    return sorted(key for key, found in collected.items() if len(found) > 1)
