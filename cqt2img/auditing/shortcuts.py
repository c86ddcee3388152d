"""What gives the answer away without anybody listening: each clue as a score of its own."""

import os
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cqt2img.auditing.tile_statistics import semitones
from cqt2img.data.tile_arrays import TileArrays
from cqt2img.errors import InputError
from cqt2img.evaluation.intervals import share_interval

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = [
    "clue",
    "held_out",
    "accuracy",
    "low",
    "high",
    "chance",
    "p_value",
    "is_shortcut",
    "classes",
    "explanation",
    "advice",
]
# Part of the way from chance to certainty at which a clue is material. Half of it where the player has a hand in what
# is measured: on clean corpora (benchmarks/planted.py --seed 0) the register of a player alone came a third of the way.
_MATERIAL = {"tuning": 0.25, "duration": 0.25, "file format": 0.25, "piece": 0.25}
_MATERIAL_ELSE = 0.5
# Which notes are played moves what is measured of the tuning by a cent or two, all in one room; here in radians.
_BLUR = {"tuning": 2 * np.pi * 2 / 100}
_P_VALUE = 0.002  # eight clues of twenty clean corpora then raise a third of a false alarm, before what is material
_N_PERMUTATIONS = 1999
_FLOOR_BANDS = (
    (3000, 6000),
    (6000, 9000),
)  # Hz; above most of the music, so that quiet moments hold noise alone
_MOST_PIECES = 200
_MOST_RECORDINGS = 2000
_SHOWN = 5
_CHANNEL = ("mean spectrum", "noise floor")
_SAID = {
    "tuning": ("tuning", "Render with tuning='remove', or vary the pitch in training."),
    "level": ("level", "Bring all recordings to one level before rendering."),
    "bandwidth": ("bandwidth", "Low-pass all recordings alike, or draw fewer bins."),
    "noise floor": (
        "noise floor",
        "Get recordings of each class from several sources.",
    ),
    "mean spectrum": (
        "mean spectrum, which may be the room or the register,",
        "Train with the equaliser that augment='album' has, and listen whether a class has one sound.",
    ),
    "duration": (
        "duration",
        "Cut all recordings alike, and see that no class has a source of its own.",
    ),
    "file format": (
        "file format",
        "Get recordings of each class in every format, or all from one source.",
    ),
    "piece": (
        "piece played",
        "Hold pieces out as well as albums, or balance them among classes.",
    ),
    "channel": (
        "channel (tone and hiss, as if all albums of a class were made in one room or mastered by one hand)",
        "Get recordings of each class from several sources, or test on recordings through another channel.",
    ),
}


def find_shortcuts(
    strips: TileArrays, table: "pd.DataFrame", random_state: int = 0
) -> "pd.DataFrame":
    """Score what can be told from one clue alone, with albums held out.

    Parameters
    ----------
    strips : TileArrays
        Pictures of the recordings.
    table : DataFrame
        `path`, `label` and `group` of each, and what there is of `tuning_cents`, `loudness_dbfs`,
        `peak_dbfs`, `bandwidth_hz`, `seconds` and `piece`.
    random_state : int
        Seed of folds, permutations and intervals.

    Returns
    -------
    DataFrame
        One row for each clue that is known of most recordings, strongest first: `clue`, `held_out`
        ("groups", or "recordings" where there are none, or no two classes have two groups each),
        `accuracy` (0 to 1) with `low` and `high` (95 %, over groups), `chance` (part of the largest class),
        `p_value`, `is_shortcut`, `classes` (tuple of those it gives away), and in
        words `explanation` and `advice`.

    Raises
    ------
    InputError
        If the table and the strips are not of the same recordings, or there are fewer than two classes.

    Notes
    -----
    A clue is a shortcut if it is both significant and material. The p-value permutes labels among
    whole groups, as takes of one album are alike whoever plays; the statistic is the part of the
    variance between groups that classes explain. With few groups (four classes of two) no clue can
    be significant. What a player has a hand in (loudness, spectrum) must tell more than what only the
    engineer has. "channel" is one if mean spectrum and noise floor both are: then what tells classes apart
    is also there when nobody plays. Of more than 2000 recordings 2000 are looked at.

    References
    ----------
    Marti J. Anderson, "A new method for non-parametric multivariate analysis of variance", 2001.
    Bob L. Sturm, "A simple method to determine if a music information retrieval system is a 'horse'", 2014.
    """
    import pandas as pd

    if len(strips) != len(table):
        raise InputError(
            f"find_shortcuts: table must have one row per recording, got {len(table)} for {len(strips)}. "
            "Leave out what could not be read."
        )
    if table["label"].nunique() < 2:
        raise InputError(
            f"find_shortcuts: table must hold two classes or more, got {table['label'].nunique()}. "
            "Label the recordings."
        )
    if len(table) > _MOST_RECORDINGS:
        places = np.linspace(0, len(table) - 1, _MOST_RECORDINGS).astype(int)
        table = table.iloc[places]
        strips = strips.select(places)
    rows = []
    for clue, values in measure_clues(strips, table).items():
        known = np.isfinite(values).all(axis=1)
        part = table[known]
        if known.mean() > 0.5 and part["label"].nunique() > 1:
            rows.append(_judge(clue, values[known], part, random_state))
    found = pd.DataFrame(rows, columns=COLUMNS).set_index("clue", drop=False)
    if "channel" in found.index:
        found.loc["channel", "is_shortcut"] = bool(
            found.loc[list(_CHANNEL), "is_shortcut"].all()
        )
    above = (found["accuracy"] - found["chance"]) / (1 - found["chance"])
    order = np.lexsort([-above, ~found["is_shortcut"].astype(bool)])
    return found.iloc[order].reset_index(drop=True)


def measure_clues(
    strips: TileArrays, table: "pd.DataFrame"
) -> dict[str, NDArray[np.float64]]:
    """Measure what may give recordings away.

    Parameters
    ----------
    strips, table
        As for `find_shortcuts`.

    Returns
    -------
    dict of str to ndarray of float64, shape (n_recordings, n_numbers)
        By the name of the clue; NaN where it is not known.
    """
    n = len(table)

    def column(name: str) -> NDArray[np.float64]:
        import pandas as pd

        return (
            pd.to_numeric(table[name], errors="coerce").to_numpy(float)
            if name in table
            else np.full(n, np.nan)
        )

    turn = 2 * np.pi * column("tuning_cents") / 100  # -50 and 50 cents are the same
    files = [_find_file(row) for row in table.to_dict("records")]
    clues = {
        "tuning": np.stack([np.cos(turn), np.sin(turn)], axis=1),
        "level": np.stack([column("loudness_dbfs"), column("peak_dbfs")], axis=1),
        "bandwidth": np.log2(np.maximum(column("bandwidth_hz"), 1))[:, None],
        "noise floor": np.reshape(
            [_noise_floor(file) for file in files], (n, len(_FLOOR_BANDS))
        ),
        "mean spectrum": np.stack([_spectrum(strips, place) for place in range(n)]),
        "duration": np.log2(np.maximum(column("seconds"), 0.1))[:, None],
        "file format": _one_column_each([_format(file) for file in files]),
    }
    if "piece" in table:
        clues["piece"] = _one_column_each([str(piece) for piece in table["piece"]])
    clues["channel"] = np.concatenate([clues[name] for name in _CHANNEL], axis=1)
    return clues


def permute_groups(
    values: NDArray[np.float64],
    labels: NDArray[Any],
    groups: NDArray[Any],
    random_state: int = 0,
) -> float:
    """Test whether classes differ by more than any other sorting of the same groups into classes.

    Parameters
    ----------
    values : ndarray of float64, shape (n_recordings, n_numbers)
        What was measured.
    labels, groups : ndarray, shape (n_recordings,)
        Of each.
    random_state : int
        Seed.

    Returns
    -------
    float
        p-value of 1999 permutations of the labels of whole groups, 1/2000 to 1. The statistic is the
        part of the sum of squares between groups that lies between classes.

    References
    ----------
    Marti J. Anderson, "A new method for non-parametric multivariate analysis of variance", 2001.

    Examples
    --------
    >>> levels = np.repeat([0.0, 0.1, 9.0, 9.1], 2)[:, None]
    >>> labels, groups = np.repeat(["a", "b"], 4), np.repeat([1, 2, 3, 4], 2)
    >>> bool(0.25 < permute_groups(levels, labels, groups) < 0.4)  # one of three ways to make two pairs
    True
    """
    import pandas as pd

    member, units = pd.factorize(pd.MultiIndex.from_arrays([groups, labels]))
    size = np.bincount(member)
    means = np.stack(
        [np.bincount(member, column) / size for column in values.T], axis=1
    )
    means -= means.mean(axis=0)
    codes = pd.factorize(np.asarray([label for _, label in units]))[0]
    per_class = np.bincount(codes)
    rng = np.random.default_rng(random_state)

    def between(codes: NDArray[np.int64]) -> float:
        sums = np.eye(len(per_class))[codes].T @ means
        return float(np.sum(np.square(sums).sum(axis=1) / per_class))

    mine = between(codes)
    others = [between(rng.permutation(codes)) for _ in range(_N_PERMUTATIONS)]
    return float(1 + np.sum(np.asarray(others) >= mine * (1 - 1e-9))) / (
        1 + _N_PERMUTATIONS
    )


def _judge(
    clue: str, values: NDArray[np.float64], table: "pd.DataFrame", random_state: int
) -> dict[str, Any]:
    """Score one clue."""
    import pandas as pd

    labels, groups = (table[name].astype(str).to_numpy() for name in ("label", "group"))
    n_groups = pd.Series(groups).groupby(labels).transform("nunique").to_numpy()
    spared = n_groups > 1  # the others have one album each, which cannot be held out
    held_out = (
        "groups"
        if len(set(labels[spared])) > 1 and len(set(groups)) < len(groups)
        else "recordings"
    )
    if held_out == "groups":
        values, labels, groups = values[spared], labels[spared], groups[spared]
    else:
        groups = np.arange(len(labels)).astype(str)
    values = values + np.random.default_rng(random_state).normal(
        0, _BLUR.get(clue, 0), values.shape
    )
    if clue not in ("file format", "piece"):  # which are zeros and ones
        values = (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-9)
    right = _guess(values, labels, groups, random_state) == labels
    _, member = np.unique(groups, return_inverse=True)
    low, high = map(
        float, share_interval(np.bincount(member, right), np.bincount(member))
    )
    chance = float(pd.Series(labels).value_counts(normalize=True).iloc[0])
    p_value = permute_groups(values, labels, groups, random_state)
    needed = chance + _MATERIAL.get(clue, _MATERIAL_ELSE) * (1 - chance)
    recall = pd.Series(right).groupby(labels).mean()
    given = tuple(recall.index[recall >= (1 + chance) / 2])
    accuracy = float(right.mean())
    is_shortcut = accuracy >= needed and p_value <= _P_VALUE and low > chance
    most = (
        f", above all of {', '.join(given[:_SHOWN])}"
        + (" and others" if len(given) > _SHOWN else "")
        if given
        else ""
    )
    what, advice = _SAID[clue]
    return {
        "clue": clue,
        "held_out": held_out,
        "accuracy": accuracy,
        "low": low,
        "high": high,
        "chance": chance,
        "p_value": p_value,
        "is_shortcut": is_shortcut,
        "classes": given,
        "explanation": f"The {what} alone names {accuracy:.0%} of the recordings ({low:.0%} to {high:.0%}; chance "
        f"{chance:.0%}), with {held_out} held out{most}.",
        "advice": advice,
    }


def _guess(
    values: NDArray[np.float64], labels: NDArray, groups: NDArray, random_state: int
) -> NDArray:
    """Name recordings by models that never met their groups."""
    import warnings

    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.naive_bayes import GaussianNB

    # a class of exactly one value is a class of its own: what LDA makes of no variance is nothing
    model = GaussianNB(var_smoothing=0.01)
    guesses = np.empty_like(labels)
    n_groups = min(
        len({g for g, y in zip(groups, labels, strict=True) if y == label})
        for label in set(labels)
    )
    folds = StratifiedGroupKFold(
        max(2, min(5, n_groups)), shuffle=True, random_state=random_state
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        for training, test in folds.split(values, labels, groups):
            if np.ptp(values[training], axis=0).any():
                guesses[test] = model.fit(values[training], labels[training]).predict(
                    values[test]
                )
            else:  # what is the same for all tells nothing
                guesses[test] = statistics.mode(labels[training].tolist())
    return guesses


def _spectrum(strips: TileArrays, place: int) -> NDArray[np.float64]:
    """Give the mean level of every half octave, against the mean of them all, in dB."""
    rows = np.concatenate(list(semitones(strips.tiles(place), strips.spec)), axis=1)[
        :, : strips.n_frames[place]
    ]
    bands = np.array(
        [
            band.mean()
            for band in np.array_split(rows.mean(axis=1), max(1, len(rows) // 6))
        ]
    )
    return bands - bands.mean()


def _find_file(row: dict[str, Any]) -> Path:
    item = row.get("item")
    return item if isinstance(item, Path) else Path(str(row["path"]))


def _noise_floor(file: Path, seconds: float = 30) -> list[float]:
    """Give the level in quiet moments in the bands above the music, in dB against full scale."""
    import soundfile
    from scipy.fft import rfft  # stays in single precision

    try:
        with soundfile.SoundFile(os.fspath(file)) as sound:
            rate = sound.samplerate
            wave = sound.read(
                round(seconds * rate), dtype="float32", always_2d=True
            ).mean(axis=1)
    except (OSError, soundfile.LibsndfileError, TypeError):
        return [np.nan] * len(
            _FLOOR_BANDS
        )  # what cannot be opened here was drawn from elsewhere
    n = 2 ** round(np.log2(rate / 20))  # 46 ms at 22,050 and 44,100 Hz
    if len(wave) < 2 * n:
        return [np.nan] * len(_FLOOR_BANDS)
    windows = wave[: len(wave) // n * n].reshape(-1, n) * np.hanning(n).astype(
        np.float32
    )
    power, hz = np.square(np.abs(rfft(windows))), np.fft.rfftfreq(n, 1 / rate)
    bands = [
        power[:, (hz >= low) & (hz < high)].sum(axis=1) / n**2
        for low, high in _FLOOR_BANDS
    ]
    return [10 * float(np.log10(np.percentile(band, 5) + 1e-12)) for band in bands]


def _format(file: Path) -> str:
    """Name suffix, rate, channels and encoding of a file, as far as these can be read."""
    import soundfile

    try:
        info = soundfile.info(os.fspath(file))
    except (OSError, soundfile.LibsndfileError, TypeError):
        return file.suffix.lower()
    return f"{file.suffix.lower()} {info.samplerate} {info.channels} {info.subtype}"


def _one_column_each(names: list[str]) -> NDArray[np.float64]:
    """Turn names into zeros and ones, those that are frequent."""
    kinds, counts = np.unique(names, return_counts=True)
    kept = kinds[np.argsort(-counts, kind="stable")[:_MOST_PIECES]]
    return (np.asarray(names)[:, None] == kept).astype(float)
