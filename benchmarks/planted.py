"""Plant faults in corpora, and see whether the audit finds them and leaves the others alone.

    python benchmarks/planted.py WORK [--seed 100] [--only NAME ...] [--make] [--jobs 2]

Makes corpora of synthetic pianists with one planted fault each, and as many clean ones of all shapes, in WORK (kept, so
that a second run is quick), audits each, and prints what was found. A fault counts as found if the audit names it: a
finding of the right kind, of severity "fault" or "warning". On a clean corpus each such finding is a false alarm, but
for "album effect", which any corpus with albums has, and "small", which these are. Thresholds were chosen with
--seed 0.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
from joblib import Parallel, delayed

import cqt2img
from cqt2img.audio.effects import EFFECTS
from cqt2img.data.synthetic import (
    MELODIES,
    PLAYERS,
    SAMPLE_RATE,
    Album,
    make_album,
    perform,
    play,
    record,
)

EVERYWHERE = {"album effect", "small"}  # kinds that are no false alarm
Rows = list[dict[str, Any]]


class TrainingData:
    """A corpus in the making: what each take sounds like, how it is stored, and what becomes of the list.

    The albums' sounds, the lengths and the formats are drawn without regard to who plays, unless a fault says so.
    """

    def __init__(
        self,
        seed: int,
        n_players: int = 5,
        n_albums: int = 4,
        n_takes: int = 3,
        channel: str = "album",
    ):
        self.seed, self.n_players, self.n_albums, self.n_takes = (
            seed,
            n_players,
            n_albums,
            n_takes,
        )
        self.rng = np.random.default_rng(seed)
        self.channel = channel
        self.order = self.rng.permutation(
            n_players
        )  # which class gets which of the values planted
        self.sound: Callable[[Album, int], Album] = lambda album, player: album
        self.seconds: Callable[[int], float] = lambda player: float(
            self.rng.uniform(9, 15)
        )
        self.suffix: Callable[[int], str] = lambda player: ".flac"
        self.finish: Callable[[np.ndarray, int], np.ndarray] = lambda wave, player: wave
        self.then: Callable[[Path, Rows, np.random.Generator], Rows] = (
            lambda root, rows, rng: rows
        )

    def take(self, player: int, album: int, take: int, seconds: float) -> np.ndarray:
        """Play one take and record it."""
        own = {"album": (album,), "recording": (album, take), "one": ()}[self.channel]
        who = () if self.channel == "one" else (player,)
        sound = self.sound(make_album("planted", self.seed, *who, *own), player)
        rng = np.random.default_rng([self.seed, player, album, take])
        notes = perform(
            MELODIES[rng.integers(len(MELODIES))], PLAYERS[player], rng, seconds
        )
        return self.finish(record(play(notes, sound, seconds), sound, rng), player)

    def write(self, root: Path) -> pd.DataFrame:
        """Write the recordings and their list, if that was not done before."""
        table = root / "recordings.csv"
        if not table.is_file():
            rows = []
            for player in range(self.n_players):
                for album in range(self.n_albums):
                    suffix = self.suffix(player)
                    for take in range(self.n_takes):
                        name = PLAYERS[player].name
                        path = Path(
                            name, f"{name} {album + 1}", f"take {take + 1}{suffix}"
                        )
                        save(
                            root / path,
                            self.take(player, album, take, self.seconds(player)),
                        )
                        rows.append(
                            {
                                "path": str(path),
                                "label": name,
                                "album": str(path.parent.name),
                            }
                        )
            rows = self.then(root, rows, self.rng)
            pd.DataFrame(rows).to_csv(table, index=False)
        return pd.read_csv(table).assign(
            path=lambda t: [str(root / p) for p in t["path"]]
        )


def save(path: Path, wave: np.ndarray) -> None:
    """Write a wave; the suffix says how."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.clip(wave, -1, 1), SAMPLE_RATE)


def copy_take(
    disguise: str, root: Path, rows: Rows, rng: np.random.Generator, to: str = "label"
) -> Rows:
    """Put one take into another album of the same player, or of another one, changed and under another name."""
    source = rows[int(rng.integers(len(rows)))]
    other = [
        r
        for r in rows
        if r["album"] != source["album"]
        and (r["label"] == source["label"]) == (to == "label")
    ]
    target = other[int(rng.integers(len(other)))]
    wave, rate = soundfile.read(root / source["path"], dtype="float32")
    path = Path(target["path"]).with_name("another take.flac")
    save(root / path, EFFECTS[disguise](wave, rate, rng))
    return [*rows, {**target, "path": str(path)}]


def split_albums(rows: Rows, rng: np.random.Generator) -> Rows:
    """Hold out the last album of every player."""
    last = {row["label"]: row["album"] for row in rows}
    return [
        {**row, "split": "test" if last[row["label"]] == row["album"] else "train"}
        for row in rows
    ]


def copy_across(root: Path, rows: Rows, rng: np.random.Generator) -> Rows:
    """Put a training take into a test album."""
    rows = split_albums(rows, rng)
    source = next(row for row in rows if row["split"] == "train")
    target = next(
        row
        for row in rows
        if row["split"] == "test" and row["label"] == source["label"]
    )
    wave, rate = soundfile.read(root / source["path"], dtype="float32")
    path = Path(target["path"]).with_name("another take.flac")
    save(root / path, EFFECTS["mp3, trimmed, gain"](wave, rate, rng))
    return [*rows, {**target, "path": str(path)}]


def torn_album(root: Path, rows: Rows, rng: np.random.Generator) -> Rows:
    """Hold out whole albums, but for one take."""
    rows = split_albums(rows, rng)
    row = next(row for row in rows if row["split"] == "test")
    return [{**r, "split": "train"} if r is row else r for r in rows]


def cut_clips(root: Path, rows: Rows, rng: np.random.Generator) -> Rows:
    """Cut every recording into clips of 4 seconds and part these at random."""
    clips = []
    for row in rows:
        wave, rate = soundfile.read(root / row["path"], dtype="float32")
        for n, start in enumerate(range(0, len(wave) - 2 * rate, 4 * rate)):
            path = Path(row["path"]).with_suffix("") / f"{n:04d}.flac"
            save(root / path, wave[start : start + 4 * rate])
            clips.append(
                {
                    **row,
                    "path": str(path),
                    "split": "test" if rng.random() < 0.25 else "train",
                }
            )
        (root / row["path"]).unlink()
    return clips


def swap_labels(root: Path, rows: Rows, rng: np.random.Generator) -> Rows:
    """Give each of two pairs of recordings the other's name; the albums stay."""
    for _ in range(2):
        one, two = rng.choice(len(rows), 2, replace=False)
        while rows[one]["label"] == rows[two]["label"]:
            two = rng.integers(len(rows))
        rows[one]["label"], rows[two]["label"] = rows[two]["label"], rows[one]["label"]
    return rows


def misfile(root: Path, rows: Rows, rng: np.random.Generator) -> Rows:
    """Move one take into an album of another player: name, album and folder are all wrong."""
    row = rows[int(rng.integers(len(rows)))]
    others = [other for other in rows if other["label"] != row["label"]]
    target = others[int(rng.integers(len(others)))]
    path = Path(target["path"]).with_name("bonus take.flac")
    (root / row["path"]).rename(root / path)
    return [{**target, "path": str(path)} if r is row else r for r in rows]


def misspell(root: Path, rows: Rows, rng: np.random.Generator) -> Rows:
    """Write the name of one player another way on one of the albums."""
    name = rows[0]["label"]
    first, last = name.split()
    other = [
        f"{last}, {first}",
        name.lower(),
        f"{first}_{last}",
        name.replace("o", "ó", 1),
        name[:-1] + name[-1] * 2,
    ]
    written = other[int(rng.integers(len(other)))]
    album = rows[0]["album"]
    return [{**row, "label": written} if row["album"] == album else row for row in rows]


def spread(corpus: TrainingData, low: float, high: float) -> Callable[[int], float]:
    """Give each class a value of its own."""
    values = np.linspace(low, high, corpus.n_players)
    return lambda player: float(values[corpus.order[player]])


def shared_channel(corpus: TrainingData) -> None:
    """Record every album of a class in one room, with one equaliser and hiss; pianos, tunings and levels differ."""

    def sound(album: Album, player: int) -> Album:
        one = make_album("shared", corpus.seed, player)
        kept = ("rt60_seconds", "wet", "eq_tilt_db", "lowpass_hz", "hiss_db", "peaks")
        return album._replace(**{name: getattr(one, name) for name in kept})

    corpus.sound = sound


def shortcut(name: str, corpus: TrainingData) -> None:
    """Give every class one tuning, level, bandwidth, noise, length or format of its own, give or take a little."""
    rng = np.random.default_rng([corpus.seed, 1])
    if name == "tuning":
        cents = spread(corpus, -30, 30)
        corpus.sound = lambda album, player: album._replace(
            cents=cents(player) + 0.15 * album.cents
        )
    elif name == "level":
        level = spread(corpus, -22, -2)
        corpus.sound = lambda album, player: album._replace(
            level_db=level(player) + 0.1 * (album.level_db + 6)
        )
    elif name == "bandwidth":
        octaves = spread(corpus, 0, 1.8)
        corpus.finish = lambda wave, player: low_pass(wave, 2800 * 2 ** octaves(player))
    elif name == "noise floor":
        hiss = spread(corpus, -75, -35)
        corpus.sound = lambda album, player: album._replace(
            hiss_db=hiss(player) + 0.1 * (album.hiss_db + 55)
        )
    elif name == "duration":
        length = spread(corpus, 7, 19)
        corpus.seconds = lambda player: length(player) * float(rng.uniform(0.95, 1.05))
    elif name == "file format":
        suffixes = [".flac", ".wav", ".mp3", ".ogg", ".flac", ".wav", ".mp3"]
        corpus.suffix = lambda player: suffixes[corpus.order[player]]
    else:
        raise ValueError(name)


def low_pass(wave: np.ndarray, hz: float) -> np.ndarray:
    """Cut off as steeply as a codec does."""
    from scipy.signal import butter, sosfilt

    return sosfilt(butter(10, hz, fs=SAMPLE_RATE, output="sos"), wave).astype(
        np.float32
    )


def planted(seed: int) -> dict[str, tuple[TrainingData, str]]:
    """List the corpora with one fault each, and the kind of finding that names it."""
    made: dict[str, tuple[TrainingData, str]] = {}

    def plant(name: str, kind: str, **shape: Any) -> TrainingData:
        corpus = TrainingData(seed * 1000 + len(made), **shape)
        made[name] = corpus, kind
        return corpus

    for disguise in (
        "mp3 64 kbit/s",
        "gain 12 dB",
        "trimmed",
        "speed 3 %",
        "50 cents",
        "room",
        "noise",
    ):
        plant(f"duplicate, {disguise}", "duplicates").then = partial(
            copy_take, disguise
        )
    plant("one take, two names", "duplicate labels").then = partial(
        copy_take, "mp3, trimmed, gain", to="other"
    )
    plant("duplicate across the split", "leak").then = copy_across
    plant("album across the split", "leak").then = torn_album
    plant("clips split at random", "leak", n_albums=3).then = cut_clips
    shared_channel(plant("one channel a class", "shared channel"))
    plant("one album a class", "one album", n_albums=1, n_takes=8)
    plant("swapped labels", "labels").then = swap_labels
    plant("take of somebody else", "labels", n_albums=3, n_takes=8).then = misfile
    plant("two spellings", "names").then = misspell
    for clue in (
        "tuning",
        "level",
        "bandwidth",
        "noise floor",
        "duration",
        "file format",
    ):
        shortcut(clue, plant(f"{clue} tells the class", "shortcut"))
    return made


def clean(seed: int) -> dict[str, TrainingData]:
    """List corpora with nothing wrong: of all shapes, one channel an album, a recording, or for all."""
    rng = np.random.default_rng([seed, 3])
    made = {}
    channels = ["album"] * 14 + ["recording"] * 4 + ["one"] * 2
    for n, channel in enumerate(channels):
        shape = (
            int(rng.integers(3, 8)),
            int(rng.integers(3, 6)),
            int(rng.integers(2, 8)),
        )
        corpus = TrainingData(seed * 1000 + 500 + n, *shape, channel=channel)
        if n % 3 == 0:  # formats and splits differ, too, and tell nothing
            corpus.suffix = partial(
                lambda c, player: str(c.rng.choice([".flac", ".mp3", ".wav"])), corpus
            )
        if n % 2 == 0:
            corpus.then = lambda root, rows, rng: split_albums(rows, rng)
        made[f"clean {n + 1}, {' × '.join(map(str, shape))}, {channel}"] = corpus
    return made


def found(table: pd.DataFrame) -> Rows:
    """Audit a corpus and give what it was found to have, worst first."""
    report = cqt2img.audit(table, group_by="album", verbose=False)
    return [
        {"kind": f.kind, "severity": f.severity, "title": f.title, "clue": f.clue}
        for f in report.findings
    ]


def judge(name: str, kind: str | None, findings: Rows) -> dict[str, Any]:
    """Say whether the fault was named, or nothing was where there is none, and what else was said."""
    serious = [
        f
        for f in findings
        if f["severity"] in ("fault", "warning") and f["kind"] not in EVERYWHERE
    ]
    if kind is None:
        return {
            "name": name,
            "right": not serious,
            "also": "; ".join(f["title"] for f in serious),
        }
    named = [f for f in serious if f["kind"] == kind]
    if kind == "shortcut":
        named = [f for f in named if f["clue"] and name.startswith(f["clue"])]
    others = [f for f in serious if f not in named]
    return {
        "name": name,
        "right": bool(named),
        "also": "; ".join(f["title"] for f in others),
    }


def one_of_each(work: Path, seed: int, name: str, make: bool) -> dict[str, Any] | None:
    """Make and audit one corpus."""
    corpora: dict[str, tuple[TrainingData, str | None]] = {
        **planted(seed),
        **{n: (c, None) for n, c in clean(seed).items()},
    }
    corpus, kind = corpora[name]
    root = (
        work
        / str(seed)
        / name.split(" ×")[0].replace("/", " per ").replace(",", "").replace(" ", "-")
    )
    table = corpus.write(root)
    if make:
        return None
    start = time.process_time()
    findings = found(table)
    row = judge(name, kind, findings)
    return {
        **row,
        "kind": kind,
        "findings": findings,
        "seconds": time.process_time() - start,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--only", nargs="+", help="parts of names")
    parser.add_argument("--make", action="store_true", help="make the corpora and stop")
    parser.add_argument("--jobs", type=int, default=2)
    a = parser.parse_args()
    names = [
        n
        for n in [*planted(a.seed), *clean(a.seed)]
        if a.only is None or any(o in n for o in a.only)
    ]
    jobs = Parallel(a.jobs, return_as="generator")(
        delayed(one_of_each)(a.work, a.seed, n, a.make) for n in names
    )
    rows = []
    for row in jobs:
        if row is not None:
            rows.append(row)
            print(
                f"{'ok  ' if row['right'] else 'MISS' if row['kind'] else 'FALSE'} {row['name']:34}"
                f"{row['seconds']:6.1f} s  {row['also']}",
                flush=True,
            )
    if rows:
        (a.work / f"planted-{a.seed}.json").write_text(json.dumps(rows, indent=1))
        for said, mine in (
            ("found and rightly named", True),
            ("clean and left alone", False),
        ):
            right = [row["right"] for row in rows if (row["kind"] is not None) == mine]
            print(f"{said}: {sum(right)} of {len(right)}")


if __name__ == "__main__":
    main()
