"""None of these, a player more, and calibration: ten jazz pianists, albums held out.

    python benchmarks/unknown.py TILES WEIGHTS WORK {strangers,enroll,calibration} [--finetune all]

TILES are those of `benchmarks/jazz.py` (preset fast); WEIGHTS is the file of EfficientAT mn04; WORK gets the models,
which are opened if they are there, and `unknown.jsonl`. Every pair of players is left out once, five models of
eight, and one of all ten is beside them. Valid was chosen by, test was looked at in the end. Run it with
OMP_NUM_THREADS=1. The fits take 3 minutes each with `--finetune all`, half a minute with `head`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from cqt2img import Classifier, load, open_tiles
from cqt2img.data.recordings import list_recordings
from cqt2img.inference.calibration import to_proba
from cqt2img.inference.enrollment import Head, ReferenceSet, fit_new_row, read_head
from cqt2img.inference.open_set import SCORES, measure

DRAWS, CLIPS = 10, 5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tiles", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("what", choices=["strangers", "enroll", "calibration"])
    parser.add_argument("--finetune", default="all", choices=["all", "head"])
    a = parser.parse_args()
    table = list_recordings(open_tiles(a.tiles)).to_frame()
    for row in {"strangers": strangers, "enroll": enroll, "calibration": calibration}[
        a.what
    ](table, a):
        print(json.dumps(row), flush=True)
        with (a.work / "unknown.jsonl").open("a") as file:
            file.write(
                json.dumps({"what": a.what, "finetune": a.finetune, **row}) + "\n"
            )


def fit(
    a: argparse.Namespace,
    name: str,
    training: pd.DataFrame,
    validation: pd.DataFrame | None,
) -> Classifier:
    folder = a.work / f"{a.finetune}-{name}"
    if not folder.exists():
        model = Classifier(
            "efficientat_mn04",
            weights=a.weights,
            in_chans=1,
            spec="fast",
            epochs=8,
            finetune=a.finetune,
            verbose=False,
        )
        model.fit(training, validation=validation).save(folder)
    return load(folder).set_params(verbose=False)


def worlds(table: pd.DataFrame, a: argparse.Namespace) -> Any:
    """Give the model of all ten, and every model without two."""
    players = sorted(table["label"].unique())
    for k in range(-1, len(players) // 2):
        out = [] if k < 0 else [players[k], players[k + 5]]
        rest = table[~table["label"].isin(out)]
        yield (
            out,
            fit(
                a,
                str(k),
                rest[rest["split"] == "train"],
                rest[rest["split"] == "valid"],
            ),
        )


def strangers(table: pd.DataFrame, a: argparse.Namespace) -> Any:
    """How well players that were left out are told from the others, by every score; what `fit` believed."""
    found: dict[str, list[list[float]]] = {}
    for out, model in worlds(table, a):
        familiarity, head, features = (
            model.open_set_,
            read_head(model.network_),
            model.embed(table),
        )
        assert head is not None and model.references_ is not None  # noqa: PT018
        yield {
            "out": out,
            "score": familiarity.score,
            "lost": familiarity.lost,
            "believed": familiarity.auroc,
        }
        if not out:
            # who met them: how well the sum of their probabilities tells the same pairs
            proba = np.exp(
                head(features) - np.logaddexp.reduce(head(features), axis=1)[:, None]
            )
            for side in ("valid", "test"):
                rows = (table["split"] == side).to_numpy()
                pairs = [[k, k + 5] for k in range(5)]
                met = [
                    roc_auc_score(
                        np.isin(table["label"][rows], model.classes_[p]),
                        proba[rows][:, p].sum(axis=1),
                    )
                    for p in pairs
                ]
                yield {
                    "side": side,
                    "auroc of a model that was trained on the pair": float(
                        np.mean(met)
                    ),
                }
            continue
        values = {
            score: measure(score, features, head, model.references_) for score in SCORES
        }
        values["chosen"] = values[familiarity.score]
        known = ~table["label"].isin(out).to_numpy()
        called = familiarity.judge(features, head, model.references_) < familiarity.lost
        for side in ("valid", "test"):
            rows = (table["split"] == side).to_numpy()
            for score, value in values.items():
                found.setdefault(f"{side} {score}", []).append(
                    [roc_auc_score(known[rows], value[rows])]
                )
            found.setdefault(f"{side} known lost", []).append(
                [called[rows & known].mean()]
            )
            found.setdefault(f"{side} strangers found", []).append(
                [called[rows & ~known].mean()]
            )
    for name, values_ in found.items():
        yield {
            "name": name,
            "mean": float(np.mean(values_)),
            "each": np.round(np.ravel(values_), 3).tolist(),
        }


def enroll(table: pd.DataFrame, a: argparse.Namespace) -> Any:
    """Two players from five half-minutes each, beside a model that was trained on all of theirs."""
    label, split, full = table["label"].to_numpy(), table["split"].to_numpy(), None
    albums, found = table["group"].to_numpy(), {}  # type: ignore[var-annotated]
    for out, model in worlds(table, a):
        features = model.embed(table)
        head = read_head(model.network_)
        assert head is not None
        if not out:
            full = model.classes_[head(features).argmax(axis=1)]
            continue
        new = np.isin(label, out)
        for draw in range(DRAWS):
            rng = np.random.default_rng(draw)
            clips = {
                n: rng.choice(
                    np.flatnonzero((label == n) & (split == "train")),
                    CLIPS,
                    replace=False,
                )
                for n in out
            }
            ways = {"enroll": fit_new_row, "imprint": imprint}
            for way, row_of in ways.items():
                wide, gallery, names = head, model.references_, [*model.classes_]
                for name in out:
                    row, bias, _ = row_of(
                        wide, gallery, features[clips[name]], albums[clips[name]]
                    )
                    gallery = gallery.enroll(len(names), features[clips[name]])
                    wide, names = wide.insert(len(names), row, bias), [*names, name]
                said = np.array(names)[wide(features).argmax(axis=1)]
                for side in ("valid", "test"):
                    rows = split == side
                    scores = [
                        (x == label)[rows & part].mean()
                        for x in (said, full)
                        for part in (rows, new, ~new)
                    ]
                    before = model.classes_[head(features).argmax(axis=1)]
                    scores.append((before == label)[rows & ~new].mean())
                    found.setdefault((side, way), []).append(scores)
    words = (
        "overall",
        "new",
        "others",
        "overall if trained",
        "new if trained",
        "others if trained",
        "others before",
    )
    for (side, way), values in found.items():
        yield {
            "side": side,
            "way": way,
            **dict(zip(words, np.mean(values, axis=0).round(3).tolist(), strict=True)),
        }


def imprint(
    head: Head, gallery: ReferenceSet, clips: np.ndarray, albums: np.ndarray
) -> tuple[np.ndarray, float, None]:
    """Take the direction of the mean of the clips, as long as the other rows (Qi, Brown & Lowe 2018)."""
    mine = gallery.features[~gallery.held]
    mean, scale = (
        mine.mean(axis=0),
        np.maximum(mine.std(axis=0), 0.01 * mine.std(axis=0).max()),
    )
    row = ((clips - mean) / scale).mean(axis=0).astype(float)
    row *= np.linalg.norm(head.weight * scale, axis=1).mean() / np.linalg.norm(row)
    return (
        row / scale,
        float((head.bias + head.weight @ mean).mean() - (row / scale) @ mean),
        None,
    )


def calibration(table: pd.DataFrame, a: argparse.Namespace) -> Any:
    """Calibration error over all recordings, each said by the model of five that did not meet its album."""
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(
        table, table["label"], table["group"]
    )
    sides: dict[str, list[np.ndarray]] = {"before": [], "after": []}
    for k, (training, test) in enumerate(folds):
        model = fit(a, f"fold-{k}", table.iloc[training], None)
        after = model.predict_proba(table.iloc[test])
        before = to_proba(np.log(after) * model.temperature_)
        for name, proba in (("before", before), ("after", after)):
            right = (
                model.classes_[proba.argmax(axis=1)]
                == table["label"].iloc[test].to_numpy()
            )
            sides[name].append(np.stack([proba.max(axis=1), right]))
        yield {"fold": k, "temperature": model.temperature_}
    rng = np.random.default_rng(0)
    for name, parts in sides.items():
        sure, right = np.concatenate(parts, axis=1)
        meant = [error(sure, rng.random(len(sure)) < sure) for _ in range(200)]
        yield {
            "name": name,
            "accuracy": right.mean(),
            "confidence": sure.mean(),
            "error": error(sure, right),
            "of one who means it": np.mean(meant),
            "95 %": np.quantile(meant, 0.95),
        }


def error(sure: np.ndarray, right: np.ndarray) -> float:
    """Calibration error over ten bins of as many recordings each."""
    bins = np.array_split(np.argsort(sure, kind="stable"), 10)
    return float(
        sum(len(b) * abs(sure[b].mean() - right[b].mean()) for b in bins) / len(sure)
    )


if __name__ == "__main__":
    main()
