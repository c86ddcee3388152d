"""How far the answer moves when nothing changes that has to do with the player."""

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cqt2img._utils.parallel import run_parallel
from cqt2img._utils.progress import Progress
from cqt2img._utils.tables import make_table
from cqt2img.audio.decode import AUDIO_SUFFIXES, load_wave
from cqt2img.audio.effects import add_noise, add_room, change_speed, equalise, reencode
from cqt2img.classifier import Classifier
from cqt2img.errors import Cqt2imgError
from cqt2img.tiles.cqt import compute_cqt
from cqt2img.tiles.spec import TileSpec

if TYPE_CHECKING:
    import pandas as pd

KINDS = (
    "starts 1 s later",
    "equaliser 6 dB",
    "mp3 64 kbit/s",
    "20 cents",
    "tempo 3 %",
    "room",
    "noise 20 dB",
)


def measure_robustness(
    model: Classifier,
    table: "pd.DataFrame",
    n_recordings: int = 40,
    n_jobs: int = 1,
    progress: Progress | None = None,
) -> "pd.DataFrame":
    """Ask the model again after each change that is not the player's.

    Parameters
    ----------
    model : Classifier
        A fitted `Classifier`.
    table : DataFrame
        `path` and `label` of recordings, and `item`, the file.
    n_recordings : int
        How many to ask about, of every class in turn.
    n_jobs : int
        Processes that change and draw them.
    progress : callable, optional
        Gets an iterator, its length and a title, and gives the iterator back.

    Returns
    -------
    DataFrame
        One row for each change: `disturbance`, `changed` (part of the recordings that get another
        name), `moved` (mean total variation distance of the probabilities, 0 to 1), `right_before`,
        `right_after` (parts named right), `n` (recordings). Empty where no recording is a file of sound.
    """
    is_sound = [
        isinstance(item, Path) and item.suffix.lower() in AUDIO_SUFFIXES
        for item in table["item"]
    ]
    sounds = table[np.asarray(is_sound, dtype=bool)]
    turn = sounds.groupby("label", sort=False).cumcount().sort_values(kind="stable")
    chosen = sounds.loc[turn.index[:n_recordings]]
    jobs = ((path, model.spec_) for path in chosen["item"])
    asked, labels = [], []
    for cqts, label in zip(
        run_parallel(
            _disturb,
            jobs,
            len(chosen),
            n_jobs=n_jobs,
            progress=progress,
            title="changing",
        ),
        chosen["label"],
        strict=True,
    ):
        if cqts:
            asked.append(_ask(model, cqts))
            labels.append(label)
    return _tell(np.asarray(asked), np.asarray(labels), model.classes_)


def _disturb(path: Path, spec: TileSpec) -> list[NDArray[np.float32]]:
    """Draw a recording as it is, and after every change; nothing where it cannot be read."""
    try:
        wave = load_wave(path, spec.sample_rate)
        rng = np.random.default_rng(
            zlib.crc32(path.name.encode(errors="surrogateescape"))
        )
        cents, tempo = (
            2 ** (20 / 1200 * rng.choice([-1, 1])),
            1.03 ** rng.choice([-1, 1]),
        )
        plain = compute_cqt(wave, spec)
        waves = (
            equalise(wave, spec.sample_rate, rng),
            reencode(wave, spec.sample_rate),
            change_speed(wave, cents),
            add_room(wave, spec.sample_rate, rng),
            add_noise(wave, rng),
        )
        loud, coded, tuned, wet, noisy = (compute_cqt(one, spec) for one in waves)
    except Cqt2imgError:  # the audit has named it already
        return []
    # a phase vocoder would smear the touch, which is the player's: time is stretched in the picture
    later = (
        plain[:, round(1 / spec.frame_seconds) :]
        if plain.shape[1] * spec.frame_seconds > 2
        else plain
    )
    return [
        plain,
        later,
        loud,
        coded,
        _stretch(tuned, cents),
        _stretch(plain, 1 / tempo),
        wet,
        noisy,
    ]


def _stretch(cqt: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """Make a picture longer, between its columns."""
    n = cqt.shape[1]
    place = np.minimum(np.arange(round(n * factor)) / factor, n - 1)
    left = np.minimum(place.astype(int), max(n - 2, 0))
    part = (place - left).astype(np.float32)
    return cqt[:, left] * (1 - part) + cqt[:, np.minimum(left + 1, n - 1)] * part


def _ask(model: Classifier, cqts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    was, model.verbose = model.verbose, False
    try:
        return model.predict_proba(cqts)
    finally:
        model.verbose = was


def _tell(
    proba: NDArray[np.float32], labels: NDArray, classes: NDArray
) -> "pd.DataFrame":
    """Hold every change against the recording as it is; `proba` has shape (n_recordings, 1 + n_changes, n_classes)."""
    rows: list[dict[str, Any]] = []
    for n, kind in enumerate(KINDS if len(proba) else (), start=1):
        before, after = (classes[proba[:, place].argmax(axis=1)] for place in (0, n))
        moved = np.abs(proba[:, n] - proba[:, 0]).sum(axis=1).mean() / 2
        rows.append(
            {
                "disturbance": kind,
                "changed": float((before != after).mean()),
                "moved": float(moved),
                "right_before": float((before == labels).mean()),
                "right_after": float((after == labels).mean()),
                "n": len(proba),
            }
        )
    return make_table(
        rows, ["disturbance", "changed", "moved", "right_before", "right_after", "n"]
    )
