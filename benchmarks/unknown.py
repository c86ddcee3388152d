"""Unknown players, enrolled players, and calibration: ten jazz pianists.

    python benchmarks/unknown.py TILES WEIGHTS WORK EXPERIMENT [--finetune all]

EXPERIMENT is `open-set`, `enroll` or `calibration`; albums are held out in each.
TILES are those of `benchmarks/jazz.py` (preset fast); WEIGHTS is the file of
EfficientAT mn04; WORK receives the models, which are opened if they exist, and
`unknown.jsonl`. Every pair of players is left out once (five models of eight players),
and one model is trained on all ten. Choices were made on the validation albums; the
test albums were used once, at the end. Run it with OMP_NUM_THREADS=1. A fit takes 3
minutes with `--finetune all`, half a minute with `head`.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from cqt2img import Classifier, TrainingConfig, load, open_tiles
from cqt2img.data.recordings import Recordings, list_recordings
from cqt2img.inference.calibration import to_proba
from cqt2img.inference.enrollment import fit_new_row
from cqt2img.inference.linear_head import LinearHead, read_head
from cqt2img.inference.open_set import SCORE_NAMES, compute_score
from cqt2img.inference.references import ReferenceSet

N_DRAWS = 10
N_CLIPS = 5
N_PAIRS = 5
SIDES = ("valid", "test")

Floats: TypeAlias = NDArray[np.float64]
Row: TypeAlias = dict[str, object]
RowFit: TypeAlias = Callable[
    [LinearHead, ReferenceSet, NDArray, NDArray], tuple[Floats, float]
]


@dataclass(frozen=True)
class Experiment:
    """The recordings, and where models are kept."""

    recordings: Recordings
    weights: Path
    work: Path
    finetune: str

    @property
    def labels(self) -> NDArray:
        """Player of each recording."""
        return np.array(self.recordings.labels)

    @property
    def groups(self) -> NDArray:
        """Album of each recording."""
        return np.array(self.recordings.groups)

    @property
    def split(self) -> NDArray:
        """Side of each recording: train, valid or test."""
        return np.array(self.recordings.column("split"))

    @property
    def players(self) -> list[str]:
        """The ten players, sorted."""
        return np.unique(self.labels).tolist()

    def pair(self, k: int) -> list[str]:
        """Return two of the ten players."""
        return [self.players[k], self.players[k + N_PAIRS]]

    def fit(
        self, name: str, training: Recordings, validation: Recordings | None
    ) -> Classifier:
        """Fit a model, or open it if it was fitted before."""
        folder = self.work / f"{self.finetune}-{name}"
        if not folder.exists():
            model = Classifier(
                "efficientat_mn04",
                weights=self.weights,
                spec="fast",
                epochs=8,
                finetune=self.finetune,
                verbose=False,
                config=TrainingConfig(in_chans=1),
            )
            model.fit(training, validation=validation).save(folder)
        return load(folder).set_params(verbose=False)

    def fit_without(self, left_out: list[str], name: str) -> Classifier:
        """Fit a model to all players but some."""
        is_kept = ~np.isin(self.labels, left_out)
        training = self.recordings.select(is_kept & (self.split == "train"))
        validation = self.recordings.select(is_kept & (self.split == "valid"))
        return self.fit(name, training, validation)

    def fit_all(self) -> Classifier:
        """Fit a model to all ten players."""
        return self.fit_without([], "-1")

    def fit_pairs(self) -> Iterator[tuple[list[str], Classifier]]:
        """Fit a model without each pair of players in turn."""
        for k in range(N_PAIRS):
            yield self.pair(k), self.fit_without(self.pair(k), str(k))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tiles", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("experiment", choices=list(EXPERIMENTS))
    parser.add_argument("--finetune", default="all", choices=["all", "head"])
    options = parser.parse_args()
    recordings = list_recordings(open_tiles(options.tiles))
    experiment = Experiment(recordings, options.weights, options.work, options.finetune)
    with (options.work / "unknown.jsonl").open("a") as file:
        for row in EXPERIMENTS[options.experiment](experiment):
            print(json.dumps(row), flush=True)
            named = {
                "experiment": options.experiment,
                "finetune": options.finetune,
                **row,
            }
            file.write(json.dumps(named) + "\n")


def require_head(model: Classifier) -> LinearHead:
    head = read_head(model.model_.network)
    assert head is not None
    return head


def require_references(model: Classifier) -> ReferenceSet:
    references = model.model_.references
    assert references is not None
    return references


# open-set detection


def detect_unknown(experiment: Experiment) -> Iterator[Row]:
    """Measure how well players left out are detected, by every score."""
    yield from detect_trained_pairs(experiment)
    found: dict[str, list[float]] = defaultdict(list)
    for left_out, model in experiment.fit_pairs():
        detector = model.model_.open_set
        yield {
            "left_out": left_out,
            "score": detector.score_name,
            "rejection_rate": detector.rejection_rate,
            "auroc_estimated_by_fit": detector.auroc,
        }
        measured = measure_detection(experiment, left_out, model)
        for name, value in measured.items():
            found[name].append(value)
    for name, values in found.items():
        each = np.round(values, 3).tolist()
        yield {"name": name, "mean": float(np.mean(values)), "each": each}


def measure_detection(
    experiment: Experiment, left_out: list[str], model: Classifier
) -> dict[str, float]:
    """Return AUROC, detection rate and false alarm rate on both sides."""
    detector = model.model_.open_set
    head = require_head(model)
    references = require_references(model)
    features = model.embed(experiment.recordings)
    scores = {
        name: compute_score(name, features, head, references) for name in SCORE_NAMES
    }
    scores["chosen"] = scores[detector.score_name]
    p_values = detector.score(features, head, references)
    is_rejected = p_values < detector.rejection_rate
    is_known = ~np.isin(experiment.labels, left_out)
    found = {}
    for side in SIDES:
        rows = experiment.split == side
        for name, values in scores.items():
            auroc = roc_auc_score(is_known[rows], values[rows])
            found[f"{side} {name}"] = float(auroc)
        false_alarms = is_rejected[rows & is_known]
        detected = is_rejected[rows & ~is_known]
        found[f"{side} known rejected"] = float(false_alarms.mean())
        found[f"{side} unknown detected"] = float(detected.mean())
    return found


def detect_trained_pairs(experiment: Experiment) -> Iterator[Row]:
    """Measure how well a model trained on a pair separates it from the others.

    The upper bound of detection: the sum of the probabilities of both players.
    """
    model = experiment.fit_all()
    logits = require_head(model)(model.embed(experiment.recordings))
    log_sum = np.logaddexp.reduce(logits, axis=1)
    proba = np.exp(logits - log_sum[:, None])
    for side in SIDES:
        rows = experiment.split == side
        aurocs = []
        for k in range(N_PAIRS):
            is_pair = np.isin(experiment.labels[rows], experiment.pair(k))
            pair_proba = proba[rows][:, [k, k + N_PAIRS]].sum(axis=1)
            aurocs.append(roc_auc_score(is_pair, pair_proba))
        yield {"side": side, "auroc_if_trained": float(np.mean(aurocs))}


# enrollment


def enroll_pairs(experiment: Experiment) -> Iterator[Row]:
    """Enroll two players with five half-minutes each, by two methods.

    The references are a model without them, and one trained on all of their clips.
    """
    full = experiment.fit_all()
    features = full.embed(experiment.recordings)
    trained = full.classes_[require_head(full)(features).argmax(axis=1)]
    found: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    for new_players, model in experiment.fit_pairs():
        features = model.embed(experiment.recordings)
        before = model.classes_[require_head(model)(features).argmax(axis=1)]
        for seed in range(N_DRAWS):
            clips = draw_clips(experiment, new_players, seed)
            for method, fit_row in ROW_FITS.items():
                enrolled = predict_enrolled(experiment, model, features, clips, fit_row)
                predicted = {"enrolled": enrolled, "trained": trained, "before": before}
                for side in SIDES:
                    accuracies = measure_accuracies(
                        experiment, side, new_players, predicted
                    )
                    found[side, method].append(accuracies)
    for (side, method), rows in found.items():
        means = {}
        for name in rows[0]:
            mean = float(np.mean([row[name] for row in rows]))
            means[name] = round(mean, 3)
        yield {"side": side, "method": method, **means}


def draw_clips(
    experiment: Experiment, players: list[str], seed: int
) -> dict[str, NDArray[np.int64]]:
    """Draw five training clips of each player."""
    rng = np.random.default_rng(seed)
    clips = {}
    for player in players:
        is_candidate = (experiment.labels == player) & (experiment.split == "train")
        candidates = np.flatnonzero(is_candidate)
        clips[player] = rng.choice(candidates, N_CLIPS, replace=False)
    return clips


def predict_enrolled(
    experiment: Experiment,
    model: Classifier,
    features: NDArray[np.float32],
    clips: dict[str, NDArray[np.int64]],
    fit_row: RowFit,
) -> NDArray:
    """Return the labels of all recordings after an enrollment."""
    head = require_head(model)
    references = require_references(model)
    names = model.classes_.tolist()
    for player, indices in clips.items():
        albums = experiment.groups[indices]
        row, bias = fit_row(head, references, features[indices], albums)
        references = references.insert_class(len(names), features[indices])
        head = head.insert_class(len(names), row, bias)
        names.append(player)
    return np.array(names)[head(features).argmax(axis=1)]


def measure_accuracies(
    experiment: Experiment,
    side: str,
    new_players: list[str],
    predicted: dict[str, NDArray],
) -> dict[str, float]:
    """Return the accuracy on all, the new and the other players."""
    is_new = np.isin(experiment.labels, new_players)
    is_side = experiment.split == side
    accuracies = {}
    for name, labels in predicted.items():
        is_correct = labels == experiment.labels
        accuracies[f"overall {name}"] = float(is_correct[is_side].mean())
        accuracies[f"new {name}"] = float(is_correct[is_side & is_new].mean())
        accuracies[f"others {name}"] = float(is_correct[is_side & ~is_new].mean())
    return accuracies


def fit_calibrated_row(
    head: LinearHead, references: ReferenceSet, clips: NDArray, albums: NDArray
) -> tuple[Floats, float]:
    """Fit the row as `Classifier.enroll` does."""
    row, bias, _ = fit_new_row(head, references, clips, albums)
    return row, bias


def imprint_row(
    head: LinearHead, references: ReferenceSet, clips: NDArray, albums: NDArray
) -> tuple[Floats, float]:
    """Take the mean of the clips, scaled to the mean norm of the other rows.

    Hang Qi, Matthew Brown and David G. Lowe, "Low-Shot Learning with Imprinted
    Weights", 2018.
    """
    training = references.training_features
    mean = training.mean(axis=0)
    scale = training.std(axis=0)
    scale = np.maximum(scale, 0.01 * scale.max())
    direction = ((clips - mean) / scale).mean(axis=0).astype(float)
    norm = np.linalg.norm(head.weight * scale, axis=1).mean()
    row = direction * norm / np.linalg.norm(direction) / scale
    mean_logit = (head.bias + head.weight @ mean).mean()
    return row, float(mean_logit - row @ mean)


ROW_FITS: dict[str, RowFit] = {"fitted": fit_calibrated_row, "imprinted": imprint_row}


# calibration


def measure_calibration(experiment: Experiment) -> Iterator[Row]:
    """Measure the calibration error by cross-validation over albums."""
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    labels = experiment.labels
    confidences: dict[str, list[Floats]] = {"before": [], "after": []}
    correct: list[Floats] = []
    for k, (training, test) in enumerate(
        folds.split(labels, labels, experiment.groups)
    ):
        recordings = experiment.recordings
        model = experiment.fit(f"fold-{k}", recordings.select(training), None)
        calibrated = model.predict_proba(recordings.select(test))
        log_proba = np.log(calibrated) * np.float32(model.temperature_)
        uncalibrated = to_proba(log_proba)
        predicted = model.classes_[calibrated.argmax(axis=1)]
        confidences["before"].append(uncalibrated.max(axis=1))
        confidences["after"].append(calibrated.max(axis=1))
        correct.append(predicted == labels[test])
        yield {"fold": k, "temperature": model.temperature_}
    rng = np.random.default_rng(0)
    is_correct = np.concatenate(correct)
    for name, parts in confidences.items():
        confidence = np.concatenate(parts)
        calibrated_errors = []
        for _ in range(200):
            drawn = rng.random(len(confidence)) < confidence
            calibrated_errors.append(calibration_error(confidence, drawn))
        yield {
            "name": name,
            "accuracy": float(is_correct.mean()),
            "confidence": float(confidence.mean()),
            "error": calibration_error(confidence, is_correct),
            "mean error of a calibrated model": float(np.mean(calibrated_errors)),
            "95 % quantile": float(np.quantile(calibrated_errors, 0.95)),
        }


def calibration_error(confidence: Floats, is_correct: NDArray) -> float:
    """Return the calibration error over ten bins of equal size."""
    order = np.argsort(confidence, kind="stable")
    total = 0.0
    for rows in np.array_split(order, 10):
        gap = confidence[rows].mean() - is_correct[rows].mean()
        total += len(rows) * abs(gap)
    return total / len(confidence)


EXPERIMENTS: dict[str, Callable[[Experiment], Iterator[Row]]] = {
    "open-set": detect_unknown,
    "enroll": enroll_pairs,
    "calibration": measure_calibration,
}

if __name__ == "__main__":
    main()
