"""Labels that are probably wrong, names that are probably one, and classes that cannot be judged."""

import re
import unicodedata
import warnings
from collections.abc import Iterable
from itertools import combinations
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cqt2img.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

SUSPECTS = ["row", "path", "label", "likely", "by_group", "by_sound"]
NEAR = ["first", "second", "difference"]
_PURE = 0.8  # part of the recordings that must have the label of most of their group before a group has a say
_HEARD = 0.8  # part of the labels that the sound must confirm before it has a say
_MANY = 12  # tiles of an album from which its sound can be learned: on clean corpora 10 were too few
_MANY_OF_CLASS = (
    30  # recordings of a class, where there are no such albums; with 15 it accused
)
_PER_NUMBER, _POOLED = (
    4,
    3,
)  # with fewer tiles for each number, three semitones share one
_ALBUMS = ("album", "session", "concert")
_N_SPLITS, _N_REPEATS = (
    10,
    3,
)  # 5 folds, drawn once, accused 4 right labels in 20 corpora, these 1
_LEAST = -30.0  # of a log-probability: one tile must not decide for all others
_LETTERS = 5  # of a name in which one wrong letter is a typing error


def find_label_errors(
    sketches: list[NDArray[np.float32]], table: "pd.DataFrame", random_state: int = 0
) -> "pd.DataFrame":
    """List the recordings whose label is probably wrong.

    Parameters
    ----------
    sketches : list of ndarray of float32, shape (n_tiles, n_features)
        What `sketch` gives, one for each recording.
    table : DataFrame
        `path`, `label` and `group` of each.
    random_state : int
        Seed of the folds.

    Returns
    -------
    DataFrame
        Surest first: `row` of the table, `path`, `label`, the `likely` label, `by_group` (bool: nearly all
        others of its group, or of its folder and album, have it), and `by_sound` (how much more it sounds like
        the likely label than like its own; 1 is as much as right labels are on average the other way round;
        NaN where sound could not tell).

    Raises
    ------
    InputError
        If there is not one sketch per recording.

    Notes
    -----
    Recordings are held out, and albums are not: a recording that sounds like an album of somebody
    else was recorded there. As in confident learning, a label is doubted if a model that never met the
    recording is as sure of another one as it is on average of right ones. It is asked for the album where
    albums have 12 tiles or more, else for the class where classes have 30 recordings, and not listened to
    if it does not confirm four labels of five. Of 15 that were filed in a wrong album among 799 of ten
    pianists it heard 13 and 14 and accused nobody else; without wrong ones it accused nobody. Where every
    take has a channel of its own it hears nothing.

    References
    ----------
    Curtis G. Northcutt, Lu Jiang and Isaac L. Chuang, "Confident learning: estimating uncertainty in
    dataset labels", 2021.
    """
    import pandas as pd

    if len(sketches) != len(table):
        raise InputError(
            f"find_label_errors: sketches must be one each, got {len(sketches)} for {len(table)}. "
            "Sketch the recordings of the table."
        )
    labels, groups = (table[name].astype(str).to_numpy() for name in ("label", "group"))
    most, by_group = _outvoted(labels, groups)
    is_pure = float(np.mean(labels == _majority(labels, groups))) >= _PURE
    # by its label a recording may have been made an album of its own; where it lies still tells
    elsewhere, misplaced = _outvoted(labels, _shelves(table))
    most, by_group = np.where(by_group, most, elsewhere), by_group | misplaced
    n_tiles = pd.Series([len(one) for one in sketches]).groupby(groups).sum().median()
    n_of_class = pd.Series(labels).value_counts().median()
    units = (
        groups
        if is_pure and n_tiles >= _MANY
        else labels
        if n_of_class >= _MANY_OF_CLASS
        else None
    )
    margin, heard = np.full(len(labels), np.nan), labels
    if units is not None:
        margin, heard = _listen(sketches, labels, units, random_state)
    rows = np.flatnonzero(by_group | (margin >= 1))
    likely = np.where(by_group, most, heard)[rows]
    found = pd.DataFrame(
        {
            "row": rows,
            "path": table["path"].to_numpy()[rows],
            "label": labels[rows],
            "likely": likely,
            "by_group": by_group[rows],
            "by_sound": margin[rows],
        },
        columns=SUSPECTS,
    )
    sure = found["by_group"] + found["by_sound"].fillna(0).clip(-1, 3)
    return found.iloc[np.argsort(-sure.to_numpy(), kind="stable")].reset_index(
        drop=True
    )


def near_names(labels: Iterable[Any]) -> "pd.DataFrame":
    """List pairs of class names that are probably one.

    Parameters
    ----------
    labels : iterable
        The label of every recording. (Of a mere list of classes nobody can tell which one is rare.)

    Returns
    -------
    DataFrame
        `first` (the more frequent one), `second`, and `difference`: "spelling" (case, accents, spaces,
        punctuation or the order of the names) or "one letter".

    Notes
    -----
    One letter is a typing error only if the rarer name has at most half the recordings of the other, it is
    not a number, and the name has five letters or more: players 1 and 2 are two.

    Examples
    --------
    >>> labels = ["Bill Evans"] * 9 + ["Evans, Bill", "Bil Evans"] + ["Gil Evans"] * 8
    >>> [(one.first, one.second) for one in near_names(labels).itertuples()]
    [('Bill Evans', 'Bil Evans'), ('Bill Evans', 'Evans, Bill'), ('Gil Evans', 'Bil Evans')]
    """
    import pandas as pd

    counts = pd.Series([str(label) for label in labels], dtype=object).value_counts()
    names = sorted(counts.index, key=lambda name: (-counts[name], name))
    rows = [
        {"first": one, "second": other, "difference": difference}
        for one, other in combinations(names, 2)
        if (difference := _difference(one, other, counts))
    ]
    return pd.DataFrame(rows, columns=NEAR)


def lone_albums(table: "pd.DataFrame") -> list[str]:
    """List the classes that have one group only, and so cannot be judged.

    Parameters
    ----------
    table : DataFrame
        `label` and `group` of every recording.

    Returns
    -------
    list of str
        Their names, sorted.

    Examples
    --------
    >>> import pandas as pd
    >>> lone_albums(pd.DataFrame({"label": ["Monk", "Monk", "Evans", "Evans"], "group": [1, 1, 2, 3]}))
    ['Monk']
    """
    n_groups = table["group"].astype(str).groupby(table["label"].astype(str)).nunique()
    return sorted(map(str, n_groups.index[n_groups == 1]))


def _majority(labels: NDArray, groups: NDArray) -> NDArray:
    """Give the most frequent label of the group of each recording."""
    import pandas as pd

    return (
        pd.Series(labels)
        .groupby(groups)
        .transform(lambda part: part.mode().iloc[0])
        .to_numpy()
    )


def _outvoted(labels: NDArray, groups: NDArray) -> tuple[NDArray, NDArray[np.bool_]]:
    """Give the most frequent label of each one's group, and tell whose own is alone in it, or of a quarter at most."""
    import pandas as pd

    most = _majority(labels, groups)
    frame = pd.DataFrame({"label": labels, "group": groups})
    n_same = frame.groupby(["group", "label"])["label"].transform("size").to_numpy()
    n_all = frame.groupby("group")["label"].transform("size").to_numpy()
    has_say = (
        (n_all >= 3)
        & ((n_same == 1) | (n_same <= n_all / 4))
        & (np.mean(labels == most) >= _PURE)
    )
    return most, has_say & (labels != most)


def _shelves(table: "pd.DataFrame") -> NDArray:
    """Give the folder and the album of each recording, whatever its label says."""
    folders = np.asarray(
        [str(PurePath(str(path)).parent) for path in table["path"]], dtype=object
    )
    named = next((name for name in _ALBUMS if name in table), None)
    albums = np.asarray(
        ["" if named is None else str(album) for album in table[named or "path"]],
        dtype=object,
    )
    return (folders + "|" + albums).astype(str)


def _listen(
    sketches: list[NDArray[np.float32]],
    labels: NDArray,
    units: NDArray,
    random_state: int,
) -> tuple[NDArray[np.float64], NDArray]:
    """Say how much more each recording sounds like another label than like its own, and like which."""
    import pandas as pd

    nothing = np.full(len(labels), np.nan)
    spared = pd.Series(units).groupby(units).transform("size").to_numpy() > 1
    features = np.concatenate(sketches)
    if len(features) < _PER_NUMBER * features.shape[1]:
        features = np.add.reduceat(
            features, range(0, features.shape[1], _POOLED), axis=1
        )
    if (
        len(set(labels[spared])) < 2 or len(features) < features.shape[1]
    ):  # from so little nothing can be learned
        return nothing, labels
    owner = np.repeat(np.arange(len(sketches)), [len(one) for one in sketches])
    called, codes = np.unique(units, return_inverse=True)
    log_proba = _held_out(features, owner, codes, spared, random_state)
    names, label_codes = np.unique(labels, return_inverse=True)
    label_of = np.searchsorted(
        names,
        pd.Series(_majority(labels, units)).groupby(units).first()[called].to_numpy(),
    )
    best = np.full((len(labels), len(names)), _LEAST)
    for unit, name in enumerate(label_of):
        best[:, name] = np.maximum(best[:, name], log_proba[:, unit])
    rows = np.arange(len(labels))
    own = best[rows, label_codes]
    best[rows, label_codes] = -np.inf
    margin = best.max(axis=1) - own
    right = margin < 0
    if right.mean() < _HEARD:
        return nothing, labels
    return margin / -margin[right].mean(), names[best.argmax(axis=1)]


def _held_out(
    features: NDArray[np.float32],
    owner: NDArray,
    codes: NDArray,
    spared: NDArray[np.bool_],
    random_state: int,
) -> NDArray[np.float64]:
    """Give the mean log-probability of each unit over the tiles of each recording, by models that never met it."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.model_selection import StratifiedKFold

    total = np.zeros((len(features), codes.max() + 1))
    n_splits = min(_N_SPLITS, int(np.bincount(codes).max()))
    for repeat in range(_N_REPEATS):
        folds = StratifiedKFold(
            n_splits, shuffle=True, random_state=random_state + repeat
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The least populated class")
            parts = list(folds.split(codes, codes))
        for training, test in parts:
            learned, asked = (
                np.isin(owner, training) & spared[owner],
                np.isin(owner, test),
            )
            model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
            told = model.fit(
                features[learned], codes[owner[learned]]
            ).predict_log_proba(features[asked])
            log_proba = np.full((len(told), total.shape[1]), _LEAST)
            log_proba[:, model.classes_] = np.maximum(told, _LEAST)
            total[asked] += log_proba / _N_REPEATS
    n_tiles = np.bincount(owner)
    return np.stack(
        [np.bincount(owner, column) / n_tiles for column in total.T], axis=1
    )


def _difference(one: str, other: str, counts: "pd.Series") -> str:
    """Say how two names differ, if that may be an error."""
    a, b = _words(one), _words(other)
    if sorted(a) == sorted(b) or "".join(a) == "".join(b):
        return "spelling"
    rare = 2 * min(counts[one], counts[other]) <= max(counts[one], counts[other])
    return "one letter" if rare and _one_letter("".join(a), "".join(b)) else ""


def _words(name: str) -> list[str]:
    """Give the words of a name without case, accents and punctuation; of signs that are not letters, the name."""
    plain = "".join(
        c
        for c in unicodedata.normalize("NFKD", name.casefold())
        if not unicodedata.combining(c)
    )
    return re.findall(r"[^\W_]+", plain) or [name]


def _one_letter(one: str, other: str) -> bool:
    """Tell whether one letter is too much, too few, another, or changed places with its neighbour."""
    short, long = sorted((one, other), key=len)
    if len(short) < _LETTERS or len(long) - len(short) > 1:
        return False
    at = next(
        (n for n, (a, b) in enumerate(zip(short, long, strict=False)) if a != b),
        len(short),
    )
    if short[at : at + 1].isdigit() or long[at : at + 1].isdigit():
        return False
    if len(short) < len(long):
        return short[at:] == long[at + 1 :]
    return (
        short[at + 1 :] == long[at + 1 :]
        or short[at:] == long[at + 1 : at + 2] + long[at] + long[at + 2 :]
    )
