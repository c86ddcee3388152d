"""Compare which epoch to keep: the best validation accuracy, the lowest validation log-loss, or the last.

    python benchmarks/epoch_choice.py WORK SEED [SEED ...]

Synthetic corpora, one per seed: 5 players, 6 albums of 5 takes each. Four albums train and validate, two are the test.
The test is scored after every epoch, which no user may do: this compares rules, it does not report a score.
"""

import sys
from pathlib import Path

import numpy as np

from cqt2img import Classifier, TileSpec, render
from cqt2img.data.labels import encode, find_classes
from cqt2img.data.recordings import list_recordings
from cqt2img.data.splits import validation_split
from cqt2img.data.synthetic import make_corpus
from cqt2img.data.tile_arrays import load_tile_arrays
from cqt2img.inference.calibration import fit_temperature, log_loss, to_proba
from cqt2img.training import trainer as train


def main(work: Path, seed: int) -> None:
    make_corpus(work / f"{seed}/recordings", 5, 6, 5, 12, seed)
    table = list_recordings(
        render(work / f"{seed}/recordings", work / f"{seed}/tiles", "fast")
    ).to_frame()
    is_test = table["group"].str[-1].astype(int) > 4
    classes = find_classes(table["label"].tolist())
    test, _ = load_tile_arrays(list_recordings(table[is_test]), TileSpec.preset("fast"))
    truth = encode(table.loc[is_test, "label"].tolist(), classes)
    codes, groups = (
        encode(table.loc[~is_test, "label"].tolist(), classes),
        table.loc[~is_test, "group"].tolist(),
    )
    codes = codes[validation_split(codes, groups, 0.2, 0)[1]]
    plain, seen = train._validate, []

    def validate_and_keep(network, strips, places, device):
        found = plain(network, strips, places, device)
        seen.append(
            (
                found,
                (
                    plain(network, test, np.arange(len(test)), device).argmax(axis=1)
                    == truth
                ).mean(),
            )
        )
        return found

    train._validate = validate_and_keep
    Classifier(
        "test_resnet",
        weights=None,
        spec="fast",
        epochs=40,
        learning_rate=3e-3,
        verbose=False,
    ).fit(table[~is_test])
    train._validate = plain
    accuracy = [(found.argmax(axis=1) == codes).mean() for found, _ in seen]
    loss = [log_loss(to_proba(found), codes) for found, _ in seen]
    warm = [
        log_loss(to_proba(found, fit_temperature(found, codes)), codes)
        for found, _ in seen
    ]
    by_accuracy = max(range(len(seen)), key=lambda n: (accuracy[n], -loss[n]))
    kept = {
        "accuracy": by_accuracy,
        "log-loss": np.argmin(loss),
        "calibrated": np.argmin(warm),
        "last": -1,
    }
    print(
        f"seed {seed}",
        {rule: round(float(seen[n][1]), 2) for rule, n in kept.items()},
        flush=True,
    )


if __name__ == "__main__":
    for word in sys.argv[2:]:
        main(Path(sys.argv[1]), int(word))
