"""Recognised on a recording nobody has met: what the record is worth to a model, and what the player is.

    OMP_NUM_THREADS=1 python benchmarks/unseen.py SHARED WORK [--rows A B C D E controls] [--jobs 2]

Needs fluidsynth (Debian: apt-get install fluidsynth) for `make_audio.py`, and `pip install pretty_midi` for the notes
as they were written. WORK gets the recordings, tiles, features and `unseen.jsonl`; what is there is not made again.

Models: `plain`, frozen ImageNet MobileNetV2 on tiles of 5.9 s and logistic regression; `statistics`, mean, spread and
rise of every semitone of the CQT per recording, standardised, and logistic regression; `notes`, the default of
`Classifier`; `score`, the same as `notes` on the notes as they were written, which no sound can hide. All heads are
fitted to `train`, their regularisation is chosen on `valid`, and then they are fitted to both.

A: every album has a sound of its own, albums held out. B: the same test, trained where every recording has its own
sound. C: recordings at random. D: piano rolls, pieces held out. E: the same test as A, trained where all takes of a
player have one sound. Controls: the parameters of the channels alone; names shuffled by album.
"""

import argparse
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cqt2img import compare, render
from cqt2img.auditing.tile_statistics import sketch_tiles
from cqt2img.data.dataset import TrainingData
from cqt2img.data.labels import one_hot
from cqt2img.data.recordings import list_recordings
from cqt2img.data.tile_arrays import TileArrays, load_tile_arrays
from cqt2img.evaluation.evaluation import Evaluation, evaluate_proba
from cqt2img.inference.calibration import fit_temperature, log_loss, pool, to_proba
from cqt2img.models.factory import TileNet, build_network
from cqt2img.models.note_features import count_phrases, hash_phrases
from cqt2img.tiles.spec import TileSpec
from cqt2img.training.linear_probe import _embedder, fit_linear_probe

CPU = torch.device("cpu")
SETS = {  # name: corpus, options of make_audio.py
    "album": ("jazz", ["--channel", "album"]),
    "recording": ("jazz", ["--channel", "recording"]),
    "session": ("sessions", ["--channel", "album", "--salt", "E"]),
    "rolls": ("pianists", ["--channel", "album"]),
}


class Set:
    """The recordings of one set, drawn once, and what each model hears in them."""

    def __init__(self, name: str, a: argparse.Namespace) -> None:
        corpus, options = SETS[name]
        audio = a.work / f"audio-{name}"
        if not (audio / "recordings.csv").is_file():
            source = (
                sessions(a)
                if corpus == "sessions"
                else a.shared / "data" / corpus / "metadata.csv"
            )
            make = [
                sys.executable,
                a.shared / "data/make_audio.py",
                source,
                audio,
                *options,
                "--jobs",
                a.jobs,
            ]
            subprocess.run([str(word) for word in make], check=True)
        tiles = render(
            audio / "recordings.csv", a.work / f"tiles-{name}", "notes", n_jobs=a.jobs
        )
        self.name, self.corpus, self.a = name, corpus, a
        self.table = list_recordings(tiles)
        self.long, _ = load_tile_arrays(self.table, tiles.spec)
        self.table["group"] = (
            self.table["label"] + "/" + self.table["album"].astype(str)
        )
        self.short = shorter(self.long, TileSpec.preset("piano"))

    def side(self, *names: str) -> np.ndarray:
        """Give the places of the recordings on these sides of the corpus's own split."""
        return np.flatnonzero(self.table["split"].isin(names))


def sessions(a: argparse.Namespace) -> Path:
    """Write the list in which all takes of a player for training and validation are one album."""
    folder = a.shared / "data/jazz"
    table = pd.read_csv(folder / "metadata.csv")
    table["path"] = [str(folder / path) for path in table["path"]]
    table[table["split"] != "test"].assign(album="session").to_csv(
        a.work / "sessions.csv", index=False
    )
    return a.work / "sessions.csv"


def shorter(strips: TileArrays, spec: TileSpec) -> TileArrays:
    """Cut the same pictures into shorter tiles."""
    cut = []
    for strip, n in zip(strips.strips, strips.n_frames.tolist(), strict=True):
        whole, rest = divmod(min(n, strip.shape[1]), spec.width)
        n_tiles = max(1, whole + (rest >= spec.min_fill * spec.width))
        missing = max(0, n_tiles * spec.width - strip.shape[1])
        cut.append(np.pad(strip, ((0, 0), (0, missing)))[:, : n_tiles * spec.width])
    return TileArrays(spec, cut, strips.n_frames)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shared", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument(
        "--rows", nargs="+", default=["A", "B", "C", "E", "controls", "D"]
    )
    parser.add_argument(
        "--models", nargs="+", default=["plain", "statistics", "notes", "score"]
    )
    parser.add_argument("--jobs", type=int, default=2)
    a = parser.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore")
    opened: dict[str, Set] = {}

    def get(name: str) -> Set:
        if name not in opened:
            opened[name] = Set(name, a)
        return opened[name]

    found: dict[str, Evaluation] = {}
    for row in a.rows:
        for model in a.models if row != "controls" else ["notes"]:
            for name, scores in ROWS[row](get, model):
                found[f"{name} {model}"] = scores
                tell(a, name, model, scores)
    for name in ("A", "D"):
        for other in ("plain", "statistics"):
            if f"{name} notes" in found and f"{name} {other}" in found:
                print(
                    f"{name}, notes against {other}: {compare(found[f'{name} notes'], found[f'{name} {other}'])}"
                )


def tell(a: argparse.Namespace, row: str, model: str, scores: Evaluation) -> None:
    low, high = scores.accuracy_interval
    entry = {
        "row": row,
        "model": model,
        "accuracy": scores.accuracy,
        "low": low,
        "high": high,
        "top_3": scores.top_k.get(3),
        "macro_f1": scores.macro_f1,
        "log_loss": scores.log_loss,
        "calibration_error": scores.calibration_error,
        "n_recordings": scores.n_recordings,
        "n_groups": scores.n_groups,
        "chance": scores.chance,
    }
    print(
        f"{row:12} {model:10} {scores.accuracy:.3f} ({low:.3f} to {high:.3f}) top 3 {entry['top_3']:.3f}",
        flush=True,
    )
    with (a.work / "unseen.jsonl").open("a") as file:
        file.write(json.dumps(entry) + "\n")


Rows = list[tuple[str, Evaluation]]


def held_out(
    name: str, train: str, test: str
) -> Callable[[Callable[[str], Set], str], Rows]:
    """Train and choose on one set, test on the test recordings of another."""

    def row(get: Callable[[str], Set], model: str) -> Rows:
        return [
            (
                name,
                fit_and_score(
                    model,
                    get(train),
                    get(train).side("train"),
                    get(train).side("valid"),
                    get(test),
                    get(test).side("test"),
                ),
            )
        ]

    return row


def at_random(get: Callable[[str], Set], model: str) -> Rows:
    """Deal recordings out at random, as many to each side as in A, three times."""
    one, rows = get("album"), []
    n_test, n_valid = len(one.side("test")), len(one.side("valid"))
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(one.table))
        test, valid, train = np.split(order, [n_test, n_test + n_valid])
        rows.append(
            (f"C seed {seed}", fit_and_score(model, one, train, valid, one, test))
        )
    return rows


def controls(get: Callable[[str], Set], model: str) -> Rows:
    """Score what must be at chance."""
    one = get("album")
    train, test = one.side("train", "valid"), one.side("test")
    y = one.table["label"].to_numpy()
    channels = [json.loads(text) for text in one.table["channel"]]
    x = np.array(
        [
            [
                c["piano"],
                c["cents"],
                c["rt60"],
                c["wet"],
                c["tilt_db"],
                *np.ravel(c["peaks"]),
                c["lowpass"],
                c["hiss_db"],
                c["level_db"],
                c["mp3"],
            ]
            for c in channels
        ],
        float,
    )
    judge = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(
        x[train], y[train]
    )
    classes = np.unique(y)
    codes = np.searchsorted(classes, y)
    groups = one.table["group"].to_numpy()
    rows = [
        (
            "channel",
            evaluate_proba(
                judge.predict_proba(x[test]).astype("f4"),
                codes[test],
                classes,
                groups[test],
            ),
        )
    ]
    for seed in range(3):
        rng = np.random.default_rng(seed)
        names = dict(
            zip(
                np.unique(groups),
                rng.permutation([g.split("/")[0] for g in np.unique(groups)]),
                strict=True,
            )
        )
        shuffled = np.array([names[g] for g in groups])
        sides = one.side("train"), one.side("valid")
        rows.append(
            (f"shuffled {seed}", fit_and_score(model, one, *sides, one, test, shuffled))
        )
    return rows


ROWS = {
    "A": held_out("A", "album", "album"),
    "B": held_out("B", "recording", "album"),
    "C": at_random,
    "D": held_out("D", "rolls", "rolls"),
    "E": held_out("E", "session", "album"),
    "controls": controls,
}


def fit_and_score(
    model: str,
    one: Set,
    train: np.ndarray,
    valid: np.ndarray,
    other: Set,
    test: np.ndarray,
    y: Any = None,
) -> Evaluation:
    y = one.table["label"].to_numpy() if y is None else y
    classes = np.unique(y)
    codes = np.searchsorted(classes, y)
    log_proba, warmth = NETS[model](one, codes, train, valid, other, test)
    truth = np.searchsorted(classes, other.table["label"].to_numpy()[test])
    return evaluate_proba(
        to_proba(log_proba, warmth),
        truth,
        classes,
        other.table["group"].to_numpy()[test],
    )


def by_network(name: str) -> Callable:
    """Fit the head of a network whose body stays as it is, as `Classifier` does."""

    def run(
        one: Set, codes: Any, train: Any, valid: Any, other: Set, test: Any
    ) -> tuple[np.ndarray, float]:
        a = one.a
        strips = {
            "notes": (one.long, other.long),
            "mobilenetv2_100": (one.short, other.short),
        }[name]
        weights = (
            "imagenet"
            if name == "notes"
            else a.shared / "weights/mobilenetv2_100.safetensors"
        )
        torch.manual_seed(0)
        network: TileNet = build_network(
            name, codes.max() + 1, strips[0].spec, weights
        ).eval()
        corpus = TrainingData(
            strips[0],
            one_hot(codes, codes.max() + 1, 0.0),
            one.table["group"].to_numpy(),
            train,
            valid,
        )
        fitted = fit_linear_probe(
            network, corpus, CPU, 0, a.work / "features", refit=True
        )
        head: Any = network.backbone.get_classifier()
        embed = _embedder(network, CPU, a.work / "features")
        rows = []
        with torch.inference_mode():
            for n in test:
                features = torch.from_numpy(
                    embed(np.ascontiguousarray(strips[1].tiles(int(n))))
                )
                rows.append(pool(torch.log_softmax(head(features), dim=1).numpy()))
        return np.stack(rows), fit_temperature(fitted.validation, codes[valid])

    return run


def by_statistics(
    one: Set, codes: Any, train: Any, valid: Any, other: Set, test: Any
) -> tuple[np.ndarray, float]:
    def table_of(of: Set) -> np.ndarray:
        strips = of.long
        return np.concatenate(
            [
                sketch_tiles(s[None], strips.spec, int(min(n, s.shape[1])))
                for s, n in zip(strips.strips, strips.n_frames, strict=True)
            ]
        )

    x, x_test = table_of(one), table_of(other)[test]
    return regress(x, codes, train, valid, x_test, (1e-4, 1e-3, 1e-2, 1e-1), scale=True)


def by_score(
    one: Set, codes: Any, train: Any, valid: Any, other: Set, test: Any
) -> tuple[np.ndarray, float]:
    """Hear the notes as they were written, in as many parts as `notes` has tiles."""
    x, x_test = written(one), written(other)[test]
    return regress(x, codes, train, valid, x_test, (1.0, 10.0, 100.0), scale=False)


def regress(
    x: Any,
    codes: Any,
    train: Any,
    valid: Any,
    x_test: Any,
    strengths: tuple[float, ...],
    scale: bool,
) -> tuple[np.ndarray, float]:
    """Choose a regularisation on the validation recordings, then fit to these, too."""

    def fit(strength: float, places: Any) -> Any:
        head = LogisticRegression(C=strength, max_iter=1000, class_weight="balanced")
        return (make_pipeline(StandardScaler(), head) if scale else head).fit(
            x[places], codes[places]
        )

    found = []
    for strength in strengths:
        rows = fit(strength, train).predict_log_proba(x[valid]).astype("f4")
        warmth = fit_temperature(rows, codes[valid])
        found.append((log_loss(to_proba(rows, warmth), codes[valid]), strength, warmth))
    _, strength, warmth = min(found)
    return fit(strength, np.concatenate([train, valid])).predict_log_proba(
        x_test
    ).astype("f4"), warmth


def written(one: Set) -> np.ndarray:
    """Give the phrases of every performance as it was written."""
    import pretty_midi

    folder = (
        one.a.shared
        / "data"
        / ("pianists" if one.corpus == "pianists" else "jazz")
        / "midi"
    )
    spec, rows = one.long.spec, []
    for path, strip in zip(one.table["path"], one.long.strips, strict=True):
        midi = pretty_midi.PrettyMIDI(str(folder / f"{Path(path).stem}.mid"))
        notes = np.array(
            sorted(
                (n.start, n.pitch, n.end)
                for part in midi.instruments
                for n in part.notes
            ),
            float,
        )
        starts = np.arange(strip.shape[1] // spec.width) * spec.tile_seconds
        parts = [
            notes[(notes[:, 0] >= s) & (notes[:, 0] < s + spec.tile_seconds)]
            for s in starts
        ]
        rows.append(
            hash_phrases([count_phrases(part) for part in parts]).mean(axis=0)
        )
    return np.stack(rows)


NETS: dict[str, Callable] = {
    "plain": by_network("mobilenetv2_100"),
    "statistics": by_statistics,
    "notes": by_network("notes"),
    "score": by_score,
}

if __name__ == "__main__":
    main()
