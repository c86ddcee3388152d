"""Accuracy on albums absent from training, for several models and several sounds.

    OMP_NUM_THREADS=1 python benchmarks/unseen.py SHARED WORK [--rows A B] [--jobs 2]

Needs fluidsynth (Debian: apt-get install fluidsynth) for `make_audio.py`, and
`pip install pretty_midi` for the notes as written. WORK receives the recordings,
tiles, embeddings and `unseen.jsonl`; what exists there is not made again.

Models. `plain`: frozen ImageNet MobileNetV2 on tiles of 5.9 s and logistic
regression. `statistics`: mean, spread and rise of every semitone of the CQT per
recording, standardised, and logistic regression. `notes`: the default of
`Classifier`. `written`: the same as `notes` on the notes as written, which no sound
can hide. All heads are fitted to `train`, their regularisation is chosen on `valid`,
then they are fitted to both.

Rows. A: every album has a sound of its own, albums are held out. B: the same test,
trained where every recording has its own sound. C: recordings split at random. D:
piano rolls, pieces held out. E: the same test as A, trained where all recordings of a
player have one sound. Controls: the parameters of the sound only; labels shuffled by
album.
"""

import argparse
import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cqt2img import compare, render
from cqt2img.auditing.tile_statistics import compute_tile_statistics
from cqt2img.data.dataset import TrainingData
from cqt2img.data.labels import one_hot
from cqt2img.data.recordings import list_recordings
from cqt2img.data.tile_arrays import TileArrays, load_tile_arrays
from cqt2img.evaluation.evaluation import Evaluation, evaluate_proba
from cqt2img.inference.calibration import fit_temperature, log_loss, pool, to_proba
from cqt2img.models.factory import build_network
from cqt2img.models.note_features import count_phrases, hash_phrases
from cqt2img.tiles.spec import TileSpec
from cqt2img.training.embedding_cache import make_embedder
from cqt2img.training.linear_probe import fit_linear_probe

CPU = torch.device("cpu")
SETS = {  # name: folder of the data, options of make_audio.py
    "album": ("jazz", ["--channel", "album"]),
    "recording": ("jazz", ["--channel", "recording"]),
    "session": ("sessions", ["--channel", "album", "--salt", "E"]),
    "rolls": ("pianists", ["--channel", "album"]),
}
CHANNEL_NUMBERS = ("piano", "cents", "rt60", "wet", "tilt_db")
OTHER_NUMBERS = ("lowpass", "hiss_db", "level_db", "mp3")

Indices: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float32]
NamedScores: TypeAlias = Iterator[tuple[str, Evaluation]]


class RecordingSet:
    """The recordings of one set, rendered once."""

    def __init__(self, name: str, shared: Path, work: Path, n_jobs: int) -> None:
        folder, _ = SETS[name]
        self.shared = shared
        self.work = work
        self.midi = shared / "data" / folder.replace("sessions", "jazz") / "midi"
        audio = make_audio(name, shared, work, n_jobs)
        table = audio / "recordings.csv"
        tiles = render(table, work / f"tiles-{name}", "notes", n_jobs=n_jobs)
        recordings = list_recordings(tiles)
        self.paths = recordings.paths
        self.labels = np.array(recordings.labels)
        self.split = np.array(recordings.column("split"))
        self.channels = [json.loads(str(c)) for c in recordings.column("channel")]
        albums = recordings.column("album")
        self.groups = np.array(
            [
                f"{label}/{album}"
                for label, album in zip(self.labels, albums, strict=True)
            ]
        )
        self.notes_arrays, _ = load_tile_arrays(recordings, tiles.spec)

    @cached_property
    def piano_arrays(self) -> TileArrays:
        """The same pixels in shorter tiles."""
        return cut_tiles(self.notes_arrays, TileSpec.preset("piano"))

    def indices(self, *sides: str) -> Indices:
        """Return the recordings on some sides of the split of the data."""
        return np.flatnonzero(np.isin(self.split, sides))


def make_audio(name: str, shared: Path, work: Path, n_jobs: int) -> Path:
    """Synthesise the recordings of a set, unless they exist."""
    folder, options = SETS[name]
    audio = work / f"audio-{name}"
    if not (audio / "recordings.csv").is_file():
        source = shared / "data" / folder / "metadata.csv"
        if folder == "sessions":
            source = write_sessions(shared, work)
        script = shared / "data/make_audio.py"
        command = [sys.executable, script, source, audio, *options, "--jobs", n_jobs]
        subprocess.run([str(word) for word in command], check=True)
    return audio


def write_sessions(shared: Path, work: Path) -> Path:
    """Write a table in which all training recordings of a player are one album."""
    folder = shared / "data/jazz"
    table = pd.read_csv(folder / "metadata.csv")
    table["path"] = [str(folder / path) for path in table["path"]]
    training = table[table["split"] != "test"]
    training.assign(album="session").to_csv(work / "sessions.csv", index=False)
    return work / "sessions.csv"


def cut_tiles(arrays: TileArrays, spec: TileSpec) -> TileArrays:
    """Divide the same pixels into shorter tiles."""
    cut = []
    for array, n_frames in zip(arrays.arrays, arrays.n_frames.tolist(), strict=True):
        n_full, rest = divmod(min(n_frames, array.shape[1]), spec.width)
        n_tiles = max(1, n_full + (rest >= spec.min_fill * spec.width))
        n_columns = n_tiles * spec.width
        missing = max(0, n_columns - array.shape[1])
        padded = np.pad(array, ((0, 0), (0, missing)))
        cut.append(padded[:, :n_columns])
    return TileArrays(spec, cut, arrays.n_frames)


@dataclass(frozen=True)
class Task:
    """Train and choose on some recordings, test on others, perhaps of another set."""

    training_set: RecordingSet
    train: Indices
    valid: Indices
    test_set: RecordingSet
    test: Indices
    shuffled_labels: NDArray | None = None

    @property
    def labels(self) -> NDArray:
        """Label of each recording of the training set."""
        if self.shuffled_labels is not None:
            return self.shuffled_labels
        return self.training_set.labels

    @property
    def classes(self) -> NDArray:
        """Labels, sorted."""
        return np.unique(self.labels)

    @property
    def class_indices(self) -> Indices:
        """Class of each recording of the training set."""
        return np.searchsorted(self.classes, self.labels)


# Returns log-probabilities of the test recordings, and their temperature.
Model: TypeAlias = Callable[[Task], tuple[Floats, float]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shared", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument(
        "--models", nargs="+", default=list(MODELS), choices=list(MODELS)
    )
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore")
    opened: dict[str, RecordingSet] = {}

    def get_set(name: str) -> RecordingSet:
        if name not in opened:
            opened[name] = RecordingSet(
                name, options.shared, options.work, options.jobs
            )
        return opened[name]

    found: dict[tuple[str, str], Evaluation] = {}
    for row in options.rows:
        models = ["notes"] if row == "controls" else options.models
        for model in models:
            for name, scores in ROWS[row](get_set, model):
                found[name, model] = scores
                report(options.work, name, model, scores)
    for row in ("A", "D"):
        for other in ("plain", "statistics"):
            if (row, "notes") in found and (row, other) in found:
                difference = compare(found[row, "notes"], found[row, other])
                print(f"{row}, notes against {other}: {difference}")


def report(work: Path, row: str, model: str, scores: Evaluation) -> None:
    """Print the scores of a row, and append them to the results."""
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
    interval = f"{scores.accuracy:.3f} ({low:.3f} to {high:.3f})"
    print(f"{row:12} {model:10} {interval} top 3 {entry['top_3']:.3f}", flush=True)
    with (work / "unseen.jsonl").open("a") as file:
        file.write(json.dumps(entry) + "\n")


# rows

GetSet: TypeAlias = Callable[[str], RecordingSet]
RowFunction: TypeAlias = Callable[[GetSet, str], NamedScores]


def hold_out(name: str, training_set: str, test_set: str) -> RowFunction:
    """Train and choose on one set, test on the test recordings of another."""

    def score(get_set: GetSet, model: str) -> NamedScores:
        first = get_set(training_set)
        second = get_set(test_set)
        train = first.indices("train")
        valid = first.indices("valid")
        task = Task(first, train, valid, second, second.indices("test"))
        yield name, fit_and_score(model, task)

    return score


def split_at_random(get_set: GetSet, model: str) -> NamedScores:
    """Split recordings at random, as many to each side as in A, three times."""
    one = get_set("album")
    n_test = len(one.indices("test"))
    n_valid = len(one.indices("valid"))
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(one.labels))
        test, valid, train = np.split(order, [n_test, n_test + n_valid])
        task = Task(one, train, valid, one, test)
        yield f"C seed {seed}", fit_and_score(model, task)


def score_controls(get_set: GetSet, model: str) -> NamedScores:
    """Score what must be at chance."""
    one = get_set("album")
    yield "channel", score_channel_parameters(one)
    train = one.indices("train")
    valid = one.indices("valid")
    test = one.indices("test")
    albums = np.unique(one.groups)
    players = [album.split("/")[0] for album in albums]
    for seed in range(3):
        shuffled = np.random.default_rng(seed).permutation(players)
        player_of = dict(zip(albums, shuffled, strict=True))
        labels = np.array([player_of[group] for group in one.groups])
        task = Task(one, train, valid, one, test, labels)
        yield f"shuffled {seed}", fit_and_score(model, task)


def score_channel_parameters(one: RecordingSet) -> Evaluation:
    """Predict the player from the parameters of the sound only."""
    train = one.indices("train", "valid")
    test = one.indices("test")
    rows = []
    for channel in one.channels:
        row = [channel[name] for name in CHANNEL_NUMBERS]
        row += np.ravel(channel["peaks"]).tolist()
        row += [channel[name] for name in OTHER_NUMBERS]
        rows.append(row)
    x = np.array(rows, float)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(x[train], one.labels[train])
    proba = model.predict_proba(x[test]).astype(np.float32)
    classes = np.unique(one.labels)
    class_indices = np.searchsorted(classes, one.labels[test])
    return evaluate_proba(proba, class_indices, classes, one.groups[test])


ROWS: dict[str, RowFunction] = {
    "A": hold_out("A", "album", "album"),
    "B": hold_out("B", "recording", "album"),
    "C": split_at_random,
    "E": hold_out("E", "session", "album"),
    "controls": score_controls,
    "D": hold_out("D", "rolls", "rolls"),
}


def fit_and_score(model: str, task: Task) -> Evaluation:
    """Fit a model and score it on the test recordings."""
    log_proba, temperature = MODELS[model](task)
    proba = to_proba(log_proba, temperature)
    labels = task.test_set.labels[task.test]
    class_indices = np.searchsorted(task.classes, labels)
    groups = task.test_set.groups[task.test]
    return evaluate_proba(proba, class_indices, task.classes, groups)


# models


def predict_plain(task: Task) -> tuple[Floats, float]:
    """Fit a linear head on a frozen ImageNet network."""
    arrays = task.training_set.piano_arrays
    test_arrays = task.test_set.piano_arrays
    weights = task.training_set.shared / "weights/mobilenetv2_100.safetensors"
    return probe_network("mobilenetv2_100", weights, task, arrays, test_arrays)


def predict_notes(task: Task) -> tuple[Floats, float]:
    """Fit a linear head on transcribed notes, as `Classifier` does by default."""
    arrays = task.training_set.notes_arrays
    test_arrays = task.test_set.notes_arrays
    return probe_network("notes", "imagenet", task, arrays, test_arrays)


def probe_network(
    name: str,
    weights: str | Path,
    task: Task,
    arrays: TileArrays,
    test_arrays: TileArrays,
) -> tuple[Floats, float]:
    """Fit the head of a network whose backbone stays fixed."""
    class_indices = task.class_indices
    n_classes = len(task.classes)
    cache_dir = task.training_set.work / "features"
    torch.manual_seed(0)
    network = build_network(name, n_classes, arrays.spec, weights).eval()
    data = TrainingData(
        arrays,
        one_hot(class_indices, n_classes, 0.0),
        task.training_set.groups,
        task.train,
        task.valid,
    )
    fitted = fit_linear_probe(network, data, CPU, cache_dir=cache_dir, refit=True)
    (head,) = network.heads
    embed = make_embedder(network, CPU, cache_dir)
    rows = []
    with torch.inference_mode():
        for index in task.test:
            tiles = np.ascontiguousarray(test_arrays.tiles(int(index)))
            logits = head(torch.from_numpy(embed(tiles)))
            rows.append(pool(torch.log_softmax(logits, dim=1).numpy()))
    temperature = fit_temperature(fitted.validation, class_indices[task.valid])
    return np.stack(rows), temperature


def predict_statistics(task: Task) -> tuple[Floats, float]:
    """Fit logistic regression on the statistics of the CQT."""
    x = compute_statistics(task.training_set)
    x_test = compute_statistics(task.test_set)[task.test]
    strengths = (1e-4, 1e-3, 1e-2, 1e-1)
    return regress(task, x, x_test, strengths, standardise=True)


def compute_statistics(recordings: RecordingSet) -> Floats:
    """Return mean, spread and rise of every semitone of each recording."""
    arrays = recordings.notes_arrays
    rows = []
    for array, n_frames in zip(arrays.arrays, arrays.n_frames.tolist(), strict=True):
        n_columns = min(n_frames, array.shape[1])
        rows.append(compute_tile_statistics(array[None], arrays.spec, n_columns))
    return np.concatenate(rows)


def predict_written(task: Task) -> tuple[Floats, float]:
    """Fit logistic regression on the notes as written, one part per tile."""
    x = read_written_notes(task.training_set)
    x_test = read_written_notes(task.test_set)[task.test]
    return regress(task, x, x_test, (1.0, 10.0, 100.0), standardise=False)


def read_written_notes(recordings: RecordingSet) -> Floats:
    """Return the phrase features of every performance as written."""
    import pretty_midi

    arrays = recordings.notes_arrays
    spec = arrays.spec
    rows = []
    for path, array in zip(recordings.paths, arrays.arrays, strict=True):
        file = recordings.midi / f"{Path(path).stem}.mid"
        notes = []
        for instrument in pretty_midi.PrettyMIDI(str(file)).instruments:
            notes += [(note.start, note.pitch, note.end) for note in instrument.notes]
        written = np.array(sorted(notes), float)
        onset = written[:, 0]
        counts = []
        for n in range(array.shape[1] // spec.width):
            start = n * spec.tile_seconds
            is_in_tile = (onset >= start) & (onset < start + spec.tile_seconds)
            counts.append(count_phrases(written[is_in_tile]))
        rows.append(hash_phrases(counts).mean(axis=0))
    return np.stack(rows)


def regress(
    task: Task,
    x: Floats,
    x_test: Floats,
    strengths: tuple[float, ...],
    *,
    standardise: bool,
) -> tuple[Floats, float]:
    """Choose a regularisation on the validation recordings, then fit to both sides."""
    class_indices = task.class_indices

    def predict(strength: float, indices: Indices, x_new: Floats) -> Floats:
        model = LogisticRegression(C=strength, max_iter=1000, class_weight="balanced")
        if standardise:
            model = make_pipeline(StandardScaler(), model)
        model.fit(x[indices], class_indices[indices])
        return model.predict_log_proba(x_new).astype(np.float32)

    found = []
    for strength in strengths:
        log_proba = predict(strength, task.train, x[task.valid])
        temperature = fit_temperature(log_proba, class_indices[task.valid])
        proba = to_proba(log_proba, temperature)
        loss = log_loss(proba, class_indices[task.valid])
        found.append((loss, strength, temperature))
    _, strength, temperature = min(found)
    both = np.concatenate([task.train, task.valid])
    return predict(strength, both, x_test), temperature


MODELS: dict[str, Model] = {
    "plain": predict_plain,
    "statistics": predict_statistics,
    "notes": predict_notes,
    "written": predict_written,
}

if __name__ == "__main__":
    main()
