"""Robustness of predictions to changes that leave the player unchanged."""

import copy
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cqt2img._utils.array_types import Float32Array, IntArray
from cqt2img._utils.parallel import run_parallel
from cqt2img._utils.progress import Progress
from cqt2img.audio.decode import AUDIO_SUFFIXES, load_wave
from cqt2img.audio.effects import add_noise, add_room, change_speed, equalise, reencode
from cqt2img.data.labels import encode
from cqt2img.errors import Cqt2imgError
from cqt2img.tiles.cqt import compute_cqt
from cqt2img.tiles.spec import TileSpec

if TYPE_CHECKING:
    from cqt2img.classifier import Classifier

PERTURBATIONS = (
    "starts 1 s later",
    "equaliser 6 dB",
    "mp3 64 kbit/s",
    "pitch 20 cents",
    "tempo 3 %",
    "room",
    "noise 20 dB",
)


class RobustnessScore(NamedTuple):
    """How predictions change under one perturbation.

    Parameters
    ----------
    perturbation : str
        One of `PERTURBATIONS`.
    changed : float
        Fraction of the recordings whose predicted class changes.
    mean_distance : float
        Mean total variation distance of the probabilities, 0 to 1.
    accuracy_before, accuracy_after : float
        Accuracy without and with the perturbation.
    n_recordings : int
        Number of recordings.
    """

    perturbation: str
    changed: float
    mean_distance: float
    accuracy_before: float
    accuracy_after: float
    n_recordings: int


def measure_robustness(
    model: "Classifier",
    sources: Sequence[object],
    labels: Sequence[object],
    *,
    n_recordings: int = 40,
    n_jobs: int = 1,
    progress: Progress | None = None,
) -> list[RobustnessScore]:
    """Compare the predictions of a model before and after every perturbation.

    Parameters
    ----------
    model : Classifier
        A fitted model.
    sources : sequence of Path or ndarray
        The recordings; those that are not audio files are left out.
    labels : sequence
        The label of each recording.
    n_recordings : int
        Number of recordings to use, from every class in turn.
    n_jobs : int
        Number of processes, as in joblib.
    progress : callable, optional
        Called with an iterator, its length and a title; returns the iterator.

    Returns
    -------
    list of RobustnessScore
        One per perturbation. Empty if no recording is an audio file that can be read.
    """
    files, file_labels = _select_files(sources, labels, n_recordings)
    jobs = ((file, model.spec_) for file in files)
    results = run_parallel(
        compute_perturbed_cqts,
        jobs,
        len(files),
        n_jobs=n_jobs,
        progress=progress,
        title="perturbing",
    )
    quiet_model = copy.copy(model)
    quiet_model.verbose = False
    proba = []
    tested_labels = []
    for cqts, label in zip(results, file_labels, strict=True):
        if cqts:
            proba.append(quiet_model.predict_proba(cqts))
            tested_labels.append(label)
    if not proba:
        return []
    class_indices = encode(tested_labels, model.classes_)
    return _compare(np.stack(proba), class_indices)


def compute_perturbed_cqts(path: Path, spec: TileSpec) -> list[Float32Array]:
    """Compute the CQT of a recording, and that after every perturbation.

    This is the job that worker processes run.

    Parameters
    ----------
    path : Path
        The recording.
    spec : TileSpec
        The transform.

    Returns
    -------
    list of ndarray of float32, shape (n_bins, n_frames)
        The unchanged CQT, then one for each of `PERTURBATIONS`. Empty if the recording
        cannot be read.
    """
    name = path.name.encode(errors="surrogateescape")
    rng = np.random.default_rng(zlib.crc32(name))
    rate = spec.sample_rate
    try:
        wave = load_wave(path, rate)
        pitch_factor = 2 ** (20 / 1200 * rng.choice([-1, 1]))
        tempo_factor = 1.03 ** rng.choice([-1, 1])
        plain = compute_cqt(wave, spec)
        equalised = compute_cqt(equalise(wave, rate, rng), spec)
        encoded = compute_cqt(reencode(wave, rate), spec)
        faster = compute_cqt(change_speed(wave, pitch_factor), spec)
        reverberant = compute_cqt(add_room(wave, rate, rng), spec)
        noisy = compute_cqt(add_noise(wave, rng), spec)
    except Cqt2imgError:  # reported by the audit before
        return []
    # A phase vocoder would smear the attacks, which belong to the player: time is
    # stretched in the CQT.
    return [
        plain,
        _skip_second(plain, spec),
        equalised,
        encoded,
        stretch_time(faster, pitch_factor),
        stretch_time(plain, 1 / tempo_factor),
        reverberant,
        noisy,
    ]


def stretch_time(cqt: Float32Array, factor: float) -> Float32Array:
    """Stretch a CQT in time by linear interpolation.

    Parameters
    ----------
    cqt : ndarray of float32, shape (n_bins, n_frames)
        Levels in dB.
    factor : float
        New length relative to the old one.

    Returns
    -------
    ndarray of float32, shape (n_bins, round(n_frames * factor))
        The stretched CQT.
    """
    n_frames = cqt.shape[1]
    last = n_frames - 1
    position = np.arange(round(n_frames * factor)) / factor
    position = np.minimum(position, last)
    before = np.minimum(position.astype(int), max(last - 1, 0))
    after = np.minimum(before + 1, last)
    fraction = (position - before).astype(np.float32)
    left = cqt[:, before] * (1 - fraction)
    right = cqt[:, after] * fraction
    return left + right


def _select_files(
    sources: Sequence[object], labels: Sequence[object], n_recordings: int
) -> tuple[list[Path], list[object]]:
    """Select audio files, from every class in turn, and their labels."""
    n_of_class: dict[object, int] = {}
    ranked = []
    for source, label in zip(sources, labels, strict=True):
        if isinstance(source, Path) and source.suffix.lower() in AUDIO_SUFFIXES:
            rank = n_of_class.get(label, 0)
            n_of_class[label] = rank + 1
            ranked.append((rank, source, label))
    ranked.sort(key=lambda entry: entry[0])
    files = []
    file_labels = []
    for _, file, label in ranked[:n_recordings]:
        files.append(file)
        file_labels.append(label)
    return files, file_labels


def _skip_second(cqt: Float32Array, spec: TileSpec) -> Float32Array:
    """Remove the first second, if the recording is longer than two."""
    if cqt.shape[1] * spec.frame_seconds <= 2:
        return cqt
    return cqt[:, round(1 / spec.frame_seconds) :]


def _compare(proba: Float32Array, class_indices: IntArray) -> list[RobustnessScore]:
    """Compare every perturbation with the unchanged recordings.

    `proba` has shape (n_recordings, 1 + n_perturbations, n_classes).
    """
    plain = proba[:, 0]
    before = plain.argmax(axis=1)
    scores = []
    for index, perturbation in enumerate(PERTURBATIONS, start=1):
        perturbed = proba[:, index]
        after = perturbed.argmax(axis=1)
        distance = np.abs(perturbed - plain).sum(axis=1) / 2
        scores.append(
            RobustnessScore(
                perturbation=perturbation,
                changed=float((before != after).mean()),
                mean_distance=float(distance.mean()),
                accuracy_before=float((before == class_indices).mean()),
                accuracy_after=float((after == class_indices).mean()),
                n_recordings=len(proba),
            )
        )
    return scores
