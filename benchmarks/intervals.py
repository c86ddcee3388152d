"""Do 95 % intervals hold the truth 95 times of 100? Simulated test sets whose truth is known, groups and all.

    OMP_NUM_THREADS=1 python benchmarks/intervals.py [--sets 1000] [--choose]

Shares: groups of a beta-binomial. Other scores: two models that hear the same albums, with a bias for every album; the
truth is from thousands of albums. The method was chosen with `--choose`: other seeds and other places of the grid.
"""

import argparse
import itertools
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import beta, norm, t

from cqt2img.evaluation.calibration import calibration_error
from cqt2img.evaluation.intervals import (
    jackknife_interval,
    macro_f1_of,
    mean_interval,
    share_interval,
)

GRID = {
    True: {
        "groups": (4, 6, 10, 20, 50),
        "size": (1, 3, 10, 30),
        "rho": (0.0, 0.05, 0.2, 0.5),
        "p": (0.5, 0.75, 0.9, 0.95),
    },
    False: {
        "groups": (4, 5, 8, 15, 30, 60),
        "size": (1, 2, 6, 20, 30),
        "rho": (0.0, 0.1, 0.3, 0.5),
        "p": (0.05, 0.15, 0.4, 0.6, 0.85, 0.95),
    },
}
ALBUMS = {
    True: {
        "classes": (2, 6),
        "albums": (3, 8),
        "size": (1, 6),
        "bias": (0.0, 0.8),
        "skill": (1.0, 3.0),
    },
    False: {
        "classes": (3, 8),
        "albums": (2, 5, 10),
        "size": (1, 4, 12),
        "bias": (0.0, 0.5, 1.0),
        "skill": (0.7, 2.0),
    },
}
Interval = tuple[NDArray, NDArray]


# shares


def draw_shares(
    groups: int,
    size: int,
    equal: bool,
    rho: float,
    p: float,
    sets: int,
    rng: np.random.Generator,
):
    """Right answers and sizes of the groups of test sets; `rho` is the correlation within a group."""
    sizes = (
        np.full((sets, groups), size)
        if equal
        else rng.geometric(1 / size, (sets, groups)).clip(1, 60)
    )
    chance = (
        rng.beta(p * (1 / rho - 1), (1 - p) * (1 / rho - 1), sizes.shape)
        if rho
        else np.full(sizes.shape, p)
    )
    return rng.binomial(sizes, chance), sizes


def bootstrap(
    hits: NDArray, sizes: NDArray, expand: bool = False, draws: int = 1000
) -> Interval:
    """Percentiles over groups, Hesterberg's (2015) wider ones if asked."""
    groups = hits.shape[-1]
    times = (
        np.random.default_rng(0)
        .multinomial(groups, np.full(groups, 1 / groups), draws)
        .T
    )
    tail = (
        norm.cdf(-np.sqrt(groups / (groups - 1)) * t.ppf(0.975, groups - 1))
        if expand
        else 0.025
    )
    low, high = np.quantile((hits @ times) / (sizes @ times), [tail, 1 - tail], axis=-1)
    return low, high


def over_recordings(hits: NDArray, sizes: NDArray) -> Interval:
    """Percentiles over recordings, as if none had to do with another."""
    n = sizes.sum(axis=-1)
    draws = np.random.default_rng(0).binomial(
        n[..., None], (hits.sum(axis=-1) / n)[..., None], (len(n), 1000)
    )
    low, high = np.quantile(draws / n[..., None], [0.025, 0.975], axis=-1)
    return low, high


def korn_graubard(hits: NDArray, sizes: NDArray) -> Interval:
    """As in 1998; all right or all wrong counts as one group each."""
    n, groups = sizes.sum(axis=-1), sizes.shape[-1]
    p = hits.sum(axis=-1) / n
    variance = (
        groups / (groups - 1) * ((hits - p[:, None] * sizes) ** 2).sum(axis=-1) / n**2
    )
    few = t.ppf(0.975, np.maximum(1, n - 1)) / t.ppf(0.975, groups - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        alone = np.minimum(
            n, np.where(variance > 0, p * (1 - p) / variance * few**2, groups)
        )
    low, high = (
        beta.ppf(0.025, p * alone, (1 - p) * alone + 1),
        beta.ppf(0.975, p * alone + 1, (1 - p) * alone),
    )
    return np.where(p == 0, 0, low), np.where(p == 1, 1, high)


SHARES: dict[str, Callable[[NDArray, NDArray], Interval]] = {
    "percentiles over recordings": over_recordings,
    "percentiles over groups": bootstrap,
    "expanded percentiles over groups": partial(bootstrap, expand=True),
    "Korn-Graubard 1998": korn_graubard,
    "cqt2img": share_interval,
}


def score_shares(choose: bool, sets: int) -> pd.DataFrame:
    """One row per method and place of the grid."""
    grid, rng, rows = GRID[choose], np.random.default_rng(not choose), []
    for groups, size, equal, rho, p in itertools.product(
        *list(grid.values())[:2], (True, False), grid["rho"], grid["p"]
    ):
        if size == 1 and (rho or not equal):
            continue
        hits, sizes = draw_shares(groups, size, equal, rho, p, sets, rng)
        for name, method in SHARES.items():
            few = (
                sets // 4 if "percentiles" in name else sets
            )  # slow, and far enough off
            low, high = method(hits[:few], sizes[:few])
            rows.append(
                (
                    name,
                    groups,
                    size,
                    equal,
                    rho,
                    p,
                    np.mean((low <= p) & (p <= high)),
                    np.mean(high - low),
                )
            )
    return pd.DataFrame(
        rows,
        columns=["method", "groups", "size", "equal", "rho", "p", "coverage", "width"],
    )


def score_any_share(choose: bool, sets: int) -> pd.DataFrame:
    """As many test sets, each from anywhere: 4 to 60 groups of 1 to 30, correlation 0 to .5, truth .05 to .95."""
    rng, rows = np.random.default_rng(2 + choose), []
    for _ in range(sets):
        groups, size, p = (
            rng.integers(4, 61),
            rng.integers(1, 31),
            rng.uniform(0.05, 0.95),
        )
        drawn = draw_shares(
            groups, size, bool(rng.integers(2)), rng.uniform(0, 0.5), p, 1, rng
        )
        for name, method in SHARES.items():
            low, high = method(*drawn)
            rows.append((name, bool(low[0] <= p <= high[0]), high[0] - low[0]))
    return (
        pd.DataFrame(rows, columns=["method", "coverage", "width"])
        .groupby("method", sort=False)
        .mean()
    )


# other scores


def draw_answers(
    classes: int,
    albums: int,
    size: int,
    bias: float,
    skill: float,
    equal: bool,
    rng: np.random.Generator,
):
    """Draw the album and the player of every recording, and the logits of two models that hear the same."""
    n_groups = classes * albums
    sizes = np.full(n_groups, size) if equal else rng.geometric(1 / size, n_groups)
    group = np.repeat(np.arange(n_groups), sizes)
    codes, n = group // albums, len(group)

    def noise() -> NDArray:
        return bias * rng.standard_normal((n_groups, classes))[
            group
        ] + rng.standard_normal((n, classes))

    shared = noise()
    return (
        group,
        codes,
        [
            shared + 0.7 * noise() + skill * (1 + 0.15 * k) * np.eye(classes)[codes]
            for k in range(2)
        ],
    )


def softmax(logits: NDArray) -> NDArray:
    return np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))


def draw_albums(*place: float, **words) -> NDArray:
    """Sum over the recordings of each album: recordings, loss, difference of two models, surplus of trust, counts."""
    group, codes, logits = draw_answers(*place, **words)
    n, one = len(group), np.eye(logits[0].shape[1])
    named = [z.argmax(axis=1) for z in logits]
    proba, right = softmax(logits[0]), named[0] == codes
    loss = -np.log(proba[np.arange(n), codes])
    columns = [
        np.ones(n),
        loss,
        right * 1.0 - (named[1] == codes),
        proba.max(axis=1) - right,
    ]
    counts = [one[codes] * right[:, None], one[codes], one[named[0]]]
    totals = np.zeros((group.max() + 1, 4 + 3 * len(one)))
    np.add.at(totals, group, np.column_stack([*columns, *counts]))
    return totals


def score_calibration(choose: bool, sets: int) -> pd.DataFrame:
    """Bias of the calibration error: bins that rise, and fixed numbers of equally full bins."""
    rng, rows = np.random.default_rng(6 + choose), []

    def of_bins(trust: NDArray, right: NDArray, n: int) -> float:
        return sum(
            abs((trust - right)[own].sum())
            for own in np.array_split(np.argsort(trust), n)
        ) / len(trust)

    def draw(
        albums: int,
        size: int,
        bias: float,
        skill: float,
        warmth: float,
        rng: np.random.Generator,
    ):
        _, codes, logits = draw_answers(4, albums, size, bias, skill, True, rng)
        proba = softmax(logits[0] / warmth)
        return proba.max(axis=1), proba.argmax(axis=1) == codes

    for albums, size, bias, skill, warmth in itertools.product(
        (3, 10, 30), (1, 5), (0.0, 0.8), (1.0, 3.0), (1, 2, 3)
    ):
        if size == 1 and bias:
            continue
        truth = of_bins(
            *draw(6000, size, bias, skill, warmth, np.random.default_rng(9)), 60
        )
        for _ in range(sets):
            trust, right = draw(albums, size, bias, skill, warmth, rng)
            found = {
                "rising": calibration_error(trust, right),
                **{n: of_bins(trust, right, n) for n in (5, 10, 15)},
            }
            rows += [
                (4 * albums * size, str(name), value - truth)
                for name, value in found.items()
            ]
    frame = pd.DataFrame(rows, columns=["n", "bins", "bias"])
    return frame.pivot_table(
        index="bins", columns="n", values="bias", sort=False
    ).sort_index(axis=1)


def score_albums(choose: bool, sets: int) -> pd.DataFrame:
    """One row per score and place of the grid; fewer sets, for each is a set of its own."""
    grid, rng, rows = ALBUMS[choose], np.random.default_rng(4 + choose), []
    for classes, albums, size, bias, skill, equal in itertools.product(
        *grid.values(), (True, False)
    ):
        if size == 1 and (bias or not equal):
            continue
        make = partial(
            draw_albums, classes, size=size, bias=bias, skill=skill, equal=equal
        )
        truth = make(albums=16_000 // size, rng=np.random.default_rng(9)).sum(axis=0)
        held: dict[str, list[tuple[bool, float]]] = {}
        for _ in range(sets):
            totals = make(albums=albums, rng=rng)
            sizes = totals[:, 0]
            found = {
                "log-loss": (
                    truth[1] / truth[0],
                    mean_interval(totals[:, 1], sizes, (0, 2 * np.log(classes)), True),
                ),
                "difference": (
                    truth[2] / truth[0],
                    mean_interval(totals[:, 2], sizes, (-1, 1)),
                ),
                "overconfidence": (
                    truth[3] / truth[0],
                    mean_interval(totals[:, 3], sizes, (-1, 1)),
                ),
                "macro F1": (
                    macro_f1_of(truth[4:]),
                    jackknife_interval(macro_f1_of, totals[:, 4:], sizes),
                ),
            }
            for name, (true, (low, high)) in found.items():
                held.setdefault(name, []).append(
                    (bool(low <= true <= high), min(float(high - low), 27.6))
                )
        for name, results in held.items():
            rows.append(
                (
                    name,
                    classes * albums,
                    size,
                    bias,
                    skill,
                    equal,
                    *np.mean(results, axis=0),
                )
            )
    return pd.DataFrame(
        rows,
        columns=[
            "score",
            "groups",
            "size",
            "bias",
            "skill",
            "equal",
            "coverage",
            "width",
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--choose", action="store_true")
    a = parser.parse_args()
    pd.set_option("display.width", 200)
    pd.set_option("display.max_columns", 20)
    print(
        f"Shares, {a.sets} test sets from anywhere\n",
        score_any_share(a.choose, a.sets).round(3),
    )
    shares = score_shares(a.choose, a.sets)
    print(
        f"\nShares, {a.sets} test sets at each place of the grid\n",
        summary(shares, "method"),
    )
    for name in ("groups", "size", "equal", "rho", "p"):
        print(
            "\n",
            shares.pivot_table(
                index="method", columns=name, values="coverage", sort=False
            ).round(3),
        )
    print(
        "\nCalibration error, bias by number of recordings\n",
        score_calibration(a.choose, a.sets // 10).round(3),
    )
    albums = score_albums(a.choose, a.sets // 5)
    print(
        f"\nOther scores, {a.sets // 5} test sets at each place\n",
        summary(albums, "score"),
    )
    print(
        "\n",
        albums.pivot_table(index="score", columns="groups", values="coverage").round(3),
    )


def summary(frame: pd.DataFrame, by: str) -> pd.DataFrame:
    """Coverage and width over the grid."""
    of = frame.groupby(by, sort=False)
    parts = {
        "coverage": of["coverage"].mean(),
        "worst": of["coverage"].min(),
        "width": of["width"].mean(),
        "below 93 %": of["coverage"].agg(lambda c: (c < 0.93).mean()),
        "above 97 %": of["coverage"].agg(lambda c: (c > 0.97).mean()),
    }
    return pd.DataFrame(parts).round(3)


if __name__ == "__main__":
    main()
