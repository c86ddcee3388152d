"""A label set of your own, scored by scikit-learn with whole albums held out.

    python examples/cross_validate.py [FOLDER]

FOLDER holds one folder per label, and in it one per album. By default, a small
synthetic one is made.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from sklearn.metrics import classification_report
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

from cqt2img import Classifier
from cqt2img.data.recordings import list_recordings
from cqt2img.data.synthetic import make_corpus


def main(folder: str) -> None:
    """Print precision and recall of every player, with albums held out."""
    recordings = list_recordings(folder)
    model = Classifier(
        "test_resnet",
        weights=None,
        spec="fast",
        epochs=8,
        learning_rate=3e-3,
        verbose=False,
    )
    folds = StratifiedGroupKFold(n_splits=2, shuffle=True, random_state=0)
    labels = np.array(recordings.labels)
    predicted = cross_val_predict(
        model, recordings.paths, labels, groups=recordings.groups, cv=folds
    )
    print(classification_report(labels, predicted, zero_division=np.nan))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with TemporaryDirectory() as folder:
            make_corpus(Path(folder), n_players=2, n_albums=4, n_takes=2, seconds=6)
            main(folder)
