"""Coverage of 95 % intervals on simulated test sets with known scores.

    OMP_NUM_THREADS=1 python benchmarks/intervals.py [--sets 1000] [--choose]

Proportions: groups with a beta-binomial number of correct recordings. Other scores:
two models on the same albums, with a bias of each album; the truth is estimated from
thousands of albums. The method was chosen with `--choose`, which uses other seeds and
other points of the grid.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import beta, norm, t

from cqt2img.evaluation.calibration import calibration_error
from cqt2img.evaluation.intervals import (
    jackknife_interval,
    macro_f1_from_counts,
    mean_interval,
    share_interval,
)

Limits: TypeAlias = tuple[NDArray, NDArray]

N_RESAMPLES = 1000
MAX_GROUP_SIZE = 60
# limits of the log-loss of one recording, in nats
MAX_LOG_LOSS = 27.6
N_TRUTH_RECORDINGS = 16_000
N_TRUTH_BINS = 60

SHARE_GRID_CHOOSE = {
    "n_groups": (4, 6, 10, 20, 50),
    "size": (1, 3, 10, 30),
    "equal": (True, False),
    "correlation": (0.0, 0.05, 0.2, 0.5),
    "share": (0.5, 0.75, 0.9, 0.95),
}
SHARE_GRID_REPORT = {
    "n_groups": (4, 5, 8, 15, 30, 60),
    "size": (1, 2, 6, 20, 30),
    "equal": (True, False),
    "correlation": (0.0, 0.1, 0.3, 0.5),
    "share": (0.05, 0.15, 0.4, 0.6, 0.85, 0.95),
}
ALBUM_GRID_CHOOSE = {
    "n_classes": (2, 6),
    "n_albums": (3, 8),
    "size": (1, 6),
    "bias": (0.0, 0.8),
    "skill": (1.0, 3.0),
    "equal": (True, False),
}
ALBUM_GRID_REPORT = {
    "n_classes": (3, 8),
    "n_albums": (2, 5, 10),
    "size": (1, 4, 12),
    "bias": (0.0, 0.5, 1.0),
    "skill": (0.7, 2.0),
    "equal": (True, False),
}


# proportions


class ShareCase(NamedTuple):
    """Distribution of test sets: groups, correlation within groups, true share."""

    n_groups: int
    size: int
    equal: bool
    correlation: float
    share: float

    def draw(self, n_sets: int, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
        """Draw correct recordings and sizes of groups, shape (n_sets, n_groups)."""
        shape = (n_sets, self.n_groups)
        sizes = np.full(shape, self.size)
        if not self.equal:
            sizes = rng.geometric(1 / self.size, shape).clip(1, MAX_GROUP_SIZE)
        share_of_group = np.full(shape, self.share)
        if self.correlation:
            weight = 1 / self.correlation - 1
            alpha = self.share * weight
            share_of_group = rng.beta(alpha, (1 - self.share) * weight, shape)
        return rng.binomial(sizes, share_of_group), sizes


def bootstrap_groups(
    hits: NDArray, sizes: NDArray, *, expand: bool = False, n_draws: int = N_RESAMPLES
) -> Limits:
    """Percentile bootstrap over groups, optionally expanded (Hesterberg 2015)."""
    n_groups = hits.shape[-1]
    tail = 0.025
    if expand:
        factor = np.sqrt(n_groups / (n_groups - 1))
        tail = norm.cdf(-factor * t.ppf(0.975, n_groups - 1))
    rng = np.random.default_rng(0)
    uniform = np.full(n_groups, 1 / n_groups)
    weights = rng.multinomial(n_groups, uniform, n_draws).T
    shares = (hits @ weights) / (sizes @ weights)
    low, high = np.quantile(shares, [tail, 1 - tail], axis=-1)
    return low, high


def bootstrap_recordings(hits: NDArray, sizes: NDArray) -> Limits:
    """Percentile bootstrap over recordings, which ignores groups."""
    n_recordings = sizes.sum(axis=-1, keepdims=True)
    share = hits.sum(axis=-1, keepdims=True) / n_recordings
    rng = np.random.default_rng(0)
    draws = rng.binomial(n_recordings, share, (len(hits), N_RESAMPLES))
    low, high = np.quantile(draws / n_recordings, [0.025, 0.975], axis=-1)
    return low, high


def korn_graubard(hits: NDArray, sizes: NDArray) -> Limits:
    """Interval of Korn and Graubard (1998); one recording per group without errors."""
    n_recordings = sizes.sum(axis=-1)
    n_groups = sizes.shape[-1]
    share = hits.sum(axis=-1) / n_recordings
    residuals = hits - share[:, np.newaxis] * sizes
    squares = (residuals**2).sum(axis=-1)
    variance = n_groups / (n_groups - 1) * squares / n_recordings**2
    t_of_recordings = t.ppf(0.975, np.maximum(1, n_recordings - 1))
    correction = (t_of_recordings / t.ppf(0.975, n_groups - 1)) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        n_effective = share * (1 - share) / variance * correction
        n_effective = np.where(variance > 0, n_effective, n_groups)
        n_effective = np.minimum(n_recordings, n_effective)
    n_correct = share * n_effective
    n_wrong = (1 - share) * n_effective
    low = beta.ppf(0.025, n_correct, n_wrong + 1)
    high = beta.ppf(0.975, n_correct + 1, n_wrong)
    return np.where(share == 0, 0, low), np.where(share == 1, 1, high)


SHARE_METHODS: dict[str, Callable[[NDArray, NDArray], Limits]] = {
    "percentiles over recordings": bootstrap_recordings,
    "percentiles over groups": bootstrap_groups,
    "expanded percentiles over groups": partial(bootstrap_groups, expand=True),
    "Korn-Graubard 1998": korn_graubard,
    "cqt2img": share_interval,
}


def list_share_cases(choose: bool) -> Iterator[ShareCase]:
    """List the points of the grid, without duplicates."""
    grid = SHARE_GRID_CHOOSE if choose else SHARE_GRID_REPORT
    for values in product(*grid.values()):
        case = ShareCase(*values)
        if case.size == 1 and (case.correlation or not case.equal):
            continue
        yield case


def score_shares(choose: bool, n_sets: int) -> pd.DataFrame:
    """Measure coverage and width of each method at each point of the grid."""
    rng = np.random.default_rng(not choose)
    rows = []
    for case in list_share_cases(choose):
        hits, sizes = case.draw(n_sets, rng)
        for name, method in SHARE_METHODS.items():
            # the bootstrap is slow, and differs clearly
            n_used = n_sets // 4 if "percentiles" in name else n_sets
            low, high = method(hits[:n_used], sizes[:n_used])
            is_covered = (low <= case.share) & (case.share <= high)
            row = {
                "method": name,
                **case._asdict(),
                "coverage": np.mean(is_covered),
                "width": np.mean(high - low),
            }
            rows.append(row)
    return pd.DataFrame(rows)


def score_random_shares(choose: bool, n_sets: int) -> pd.DataFrame:
    """Measure coverage on test sets of 4 to 60 groups of 1 to 30 recordings.

    The correlation is 0 to .5 and the true share .05 to .95, both uniform.
    """
    rng = np.random.default_rng(2 + choose)
    rows = []
    for _ in range(n_sets):
        n_groups = rng.integers(4, 61)
        size = rng.integers(1, 31)
        share = rng.uniform(0.05, 0.95)
        equal = bool(rng.integers(2))
        correlation = rng.uniform(0, 0.5)
        case = ShareCase(n_groups, size, equal, correlation, share)
        hits, sizes = case.draw(1, rng)
        for name, method in SHARE_METHODS.items():
            (low,), (high,) = method(hits, sizes)
            row = {
                "method": name,
                "coverage": bool(low <= share <= high),
                "width": high - low,
            }
            rows.append(row)
    return pd.DataFrame(rows).groupby("method", sort=False).mean()


# other scores


class AlbumCase(NamedTuple):
    """Distribution of test sets: classes, albums, bias of albums, skill of models."""

    n_classes: int
    n_albums: int
    size: int
    bias: float
    skill: float
    equal: bool


class Answers(NamedTuple):
    """Logits of two models for the same recordings."""

    group_index: NDArray
    class_index: NDArray
    first_logits: NDArray
    second_logits: NDArray


def draw_answers(case: AlbumCase, rng: np.random.Generator) -> Answers:
    """Draw the logits of two models; the second has 15 % more skill."""
    n_groups = case.n_classes * case.n_albums
    sizes = np.full(n_groups, case.size)
    if not case.equal:
        sizes = rng.geometric(1 / case.size, n_groups)
    group_index = np.repeat(np.arange(n_groups), sizes)
    class_index = group_index // case.n_albums
    is_class = np.eye(case.n_classes)[class_index]

    def draw_noise() -> NDArray:
        of_groups = case.bias * rng.standard_normal((n_groups, case.n_classes))
        return of_groups[group_index] + rng.standard_normal(is_class.shape)

    shared = draw_noise()
    first = shared + 0.7 * draw_noise() + case.skill * is_class
    second = shared + 0.7 * draw_noise() + case.skill * 1.15 * is_class
    return Answers(group_index, class_index, first, second)


def softmax(logits: NDArray) -> NDArray:
    return np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))


class AlbumSums(NamedTuple):
    """Sums over the recordings of each album."""

    sizes: NDArray
    losses: NDArray
    gains: NDArray  # of the first model over the second
    excess_confidence: NDArray
    f1_counts: NDArray

    def add(self) -> "AlbumSums":
        """Sum over the albums."""
        return AlbumSums(*(values.sum(axis=0) for values in self))


def draw_albums(case: AlbumCase, rng: np.random.Generator) -> AlbumSums:
    """Draw a test set."""
    answers = draw_answers(case, rng)
    proba = softmax(answers.first_logits)
    predicted = answers.first_logits.argmax(axis=1)
    is_correct = predicted == answers.class_index
    second_is_correct = answers.second_logits.argmax(axis=1) == answers.class_index
    recordings = np.arange(len(predicted))
    one_hot = np.eye(case.n_classes)
    is_class = one_hot[answers.class_index]
    is_predicted = one_hot[predicted]
    f1_counts = np.hstack([is_class * is_predicted, is_class, is_predicted])

    def sum_by_album(values: NDArray) -> NDArray:
        n_groups = answers.group_index.max() + 1
        sums = np.zeros((n_groups, *values.shape[1:]))
        np.add.at(sums, answers.group_index, values)
        return sums

    return AlbumSums(
        sizes=sum_by_album(np.ones(len(predicted))),
        losses=sum_by_album(-np.log(proba[recordings, answers.class_index])),
        gains=sum_by_album(is_correct * 1.0 - second_is_correct),
        excess_confidence=sum_by_album(proba.max(axis=1) - is_correct),
        f1_counts=sum_by_album(f1_counts),
    )


def compute_truths(case: AlbumCase) -> dict[str, float]:
    """Estimate the true scores from thousands of albums."""
    many = case._replace(n_albums=N_TRUTH_RECORDINGS // case.size)
    total = draw_albums(many, np.random.default_rng(9)).add()
    return {
        "log-loss": total.losses / total.sizes,
        "difference": total.gains / total.sizes,
        "overconfidence": total.excess_confidence / total.sizes,
        "macro F1": float(macro_f1_from_counts(total.f1_counts)),
    }


def compute_intervals(case: AlbumCase, sums: AlbumSums) -> dict[str, Limits]:
    """Compute the intervals of all scores of a test set."""
    sizes = sums.sizes
    loss_bounds = (0, 2 * np.log(case.n_classes))
    return {
        "log-loss": mean_interval(sums.losses, sizes, loss_bounds, log_scale=True),
        "difference": mean_interval(sums.gains, sizes, (-1, 1)),
        "overconfidence": mean_interval(sums.excess_confidence, sizes, (-1, 1)),
        "macro F1": jackknife_interval(macro_f1_from_counts, sums.f1_counts, sizes),
    }


def score_albums(choose: bool, n_sets: int) -> pd.DataFrame:
    """Measure coverage and width for each score at each point of the grid."""
    grid = ALBUM_GRID_CHOOSE if choose else ALBUM_GRID_REPORT
    rng = np.random.default_rng(4 + choose)
    rows = []
    for values in product(*grid.values()):
        case = AlbumCase(*values)
        if case.size == 1 and (case.bias or not case.equal):
            continue
        truths = compute_truths(case)
        for _ in range(n_sets):
            intervals = compute_intervals(case, draw_albums(case, rng))
            for name, (low, high) in intervals.items():
                row = {
                    "score": name,
                    **case._asdict(),
                    "coverage": bool(low <= truths[name] <= high),
                    "width": min(float(high - low), MAX_LOG_LOSS),
                }
                rows.append(row)
    frame = pd.DataFrame(rows)
    frame["groups"] = frame["n_classes"] * frame["n_albums"]
    keys = ["score", "groups", *AlbumCase._fields]
    return frame.groupby(keys, sort=False).mean().reset_index()


# calibration error


class CalibrationCase(NamedTuple):
    """Distribution of test sets of four classes; `temperature` scales the logits."""

    n_albums: int
    size: int
    bias: float
    skill: float
    temperature: float

    def draw(self, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
        """Draw the confidence of predictions and whether they are correct."""
        case = AlbumCase(4, self.n_albums, self.size, self.bias, self.skill, True)
        answers = draw_answers(case, rng)
        proba = softmax(answers.first_logits / self.temperature)
        return proba.max(axis=1), proba.argmax(axis=1) == answers.class_index


def equal_bins_error(confidence: NDArray, is_correct: NDArray, n_bins: int) -> float:
    """Compute the calibration error with equally full bins."""
    excess = confidence - is_correct
    bins = np.array_split(np.argsort(confidence), n_bins)
    return sum(abs(excess[subset].sum()) for subset in bins) / len(confidence)


def score_calibration(choose: bool, n_sets: int) -> pd.DataFrame:
    """Measure the bias of the calibration error with several kinds of bins."""
    rng = np.random.default_rng(6 + choose)
    rows = []
    grid = product((3, 10, 30), (1, 5), (0.0, 0.8), (1.0, 3.0), (1, 2, 3))
    for values in grid:
        case = CalibrationCase(*values)
        if case.size == 1 and case.bias:
            continue
        many = case._replace(n_albums=6000)
        truth = equal_bins_error(*many.draw(np.random.default_rng(9)), N_TRUTH_BINS)
        for _ in range(n_sets):
            confidence, is_correct = case.draw(rng)
            errors = {"monotonic": calibration_error(confidence, is_correct)}
            for n_bins in (5, 10, 15):
                errors[str(n_bins)] = equal_bins_error(confidence, is_correct, n_bins)
            for bins, error in errors.items():
                row = {"n": len(confidence), "bins": bins, "bias": error - truth}
                rows.append(row)
    frame = pd.DataFrame(rows)
    table = frame.pivot_table(index="bins", columns="n", values="bias", sort=False)
    return table.sort_index(axis=1)


# report


def summarize(frame: pd.DataFrame, by: str) -> pd.DataFrame:
    """Summarize coverage and width over the grid."""
    groups = frame.groupby(by, sort=False)
    coverage = groups["coverage"]
    columns = {
        "coverage": coverage.mean(),
        "worst": coverage.min(),
        "width": groups["width"].mean(),
        "below 93 %": coverage.agg(lambda values: (values < 0.93).mean()),
        "above 97 %": coverage.agg(lambda values: (values > 0.97).mean()),
    }
    return pd.DataFrame(columns).round(3)


def print_table(title: str, table: pd.DataFrame) -> None:
    print(f"{title}\n{table.round(3)}\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--choose", action="store_true")
    args = parser.parse_args()
    pd.set_option("display.width", 200)
    pd.set_option("display.max_columns", 20)

    random_shares = score_random_shares(args.choose, args.sets)
    print_table(f"Proportions, {args.sets} random test sets", random_shares)

    shares = score_shares(args.choose, args.sets)
    title = f"Proportions, {args.sets} test sets at each point of the grid"
    print_table(title, summarize(shares, "method"))
    for name in ShareCase._fields:
        by_value = shares.pivot_table(
            index="method", columns=name, values="coverage", sort=False
        )
        print_table(f"Coverage by {name}", by_value)

    calibration = score_calibration(args.choose, args.sets // 10)
    print_table("Bias of the calibration error by number of recordings", calibration)

    n_sets = args.sets // 5
    albums = score_albums(args.choose, n_sets)
    title = f"Other scores, {n_sets} test sets at each point of the grid"
    print_table(title, summarize(albums, "score"))
    by_groups = albums.pivot_table(index="score", columns="groups", values="coverage")
    print_table("Coverage by number of groups", by_groups)


if __name__ == "__main__":
    main()
