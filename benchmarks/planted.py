"""Test the audit on synthetic data sets with and without planted faults.

    python benchmarks/planted.py WORK [--seed 100] [--only NAME ...] [--make] [--jobs 2]

Generates data sets of synthetic pianists, with one planted fault each and as many
without, in WORK (existing ones are reused), audits each, and prints the findings. A
fault counts as found if there is a finding of the right kind with severity "fault" or
"warning". On a clean data set each such finding is a false alarm, except for "album
effect", which any data set with albums has, and "small sample", since these are small.
Thresholds were chosen with --seed 0.
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

EXPECTED = {"album effect", "small sample"}  # kinds that are no false alarm
Rows = list[dict[str, Any]]


class SyntheticSet:
    """Describes how a data set is generated, stored and modified.

    Channels of albums, durations and formats are drawn independently of the player,
    unless a fault changes that.
    """

    def __init__(
        self,
        seed: int,
        n_players: int = 5,
        n_albums: int = 4,
        n_takes: int = 3,
        channel: str = "album",
    ):
        self.seed = seed
        self.n_players = n_players
        self.n_albums = n_albums
        self.n_takes = n_takes
        self.rng = np.random.default_rng(seed)
        self.channel = channel
        # index of the planted value of each class
        self.order = self.rng.permutation(n_players)
        self.sound: Callable[[Album, int], Album] = lambda album, player: album
        self.seconds: Callable[[int], float] = lambda player: float(
            self.rng.uniform(9, 15)
        )
        self.suffix: Callable[[int], str] = lambda player: ".flac"
        self.finish: Callable[[np.ndarray, int], np.ndarray] = lambda wave, player: wave
        self.modify: Callable[[Path, Rows, np.random.Generator], Rows] = (
            lambda root, rows, rng: rows
        )

    def take(self, player: int, album: int, take: int, seconds: float) -> np.ndarray:
        """Synthesise one take."""
        own = {"album": (album,), "recording": (album, take), "one": ()}[self.channel]
        who = () if self.channel == "one" else (player,)
        sound = self.sound(make_album("planted", self.seed, *who, *own), player)
        rng = np.random.default_rng([self.seed, player, album, take])
        notes = perform(
            MELODIES[rng.integers(len(MELODIES))], PLAYERS[player], rng, seconds
        )
        return self.finish(record(play(notes, sound, seconds), sound, rng), player)

    def write(self, root: Path) -> pd.DataFrame:
        """Write the recordings and their table, unless they exist."""
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
            rows = self.modify(root, rows, self.rng)
            pd.DataFrame(rows).to_csv(table, index=False)
        return pd.read_csv(table).assign(
            path=lambda t: [str(root / p) for p in t["path"]]
        )


def save(path: Path, wave: np.ndarray) -> None:
    """Write a wave in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.clip(wave, -1, 1), SAMPLE_RATE)


def copy_take(
    disguise: str, root: Path, rows: Rows, rng: np.random.Generator, to: str = "label"
) -> Rows:
    """Copy a take, disguised, into another album of the same or another player."""
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
    """Copy a training take, disguised, into a test album."""
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


def split_album(root: Path, rows: Rows, rng: np.random.Generator) -> Rows:
    """Hold out whole albums except for one take."""
    rows = split_albums(rows, rng)
    row = next(row for row in rows if row["split"] == "test")
    return [{**r, "split": "train"} if r is row else r for r in rows]


def cut_clips(root: Path, rows: Rows, rng: np.random.Generator) -> Rows:
    """Cut every recording into clips of 4 seconds and split these at random."""
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
    """Exchange the labels of two pairs of recordings, but not their albums."""
    for _ in range(2):
        one, two = rng.choice(len(rows), 2, replace=False)
        while rows[one]["label"] == rows[two]["label"]:
            two = rng.integers(len(rows))
        rows[one]["label"], rows[two]["label"] = rows[two]["label"], rows[one]["label"]
    return rows


def misfile(root: Path, rows: Rows, rng: np.random.Generator) -> Rows:
    """Move a take to another player: label, album and folder are wrong."""
    row = rows[int(rng.integers(len(rows)))]
    others = [other for other in rows if other["label"] != row["label"]]
    target = others[int(rng.integers(len(others)))]
    path = Path(target["path"]).with_name("bonus take.flac")
    (root / row["path"]).rename(root / path)
    return [{**target, "path": str(path)} if r is row else r for r in rows]


def misspell(root: Path, rows: Rows, rng: np.random.Generator) -> Rows:
    """Write the name of one player differently on one album."""
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


def spread(data_set: SyntheticSet, low: float, high: float) -> Callable[[int], float]:
    """Return a function from each class to a value of its own."""
    values = np.linspace(low, high, data_set.n_players)
    return lambda player: float(values[data_set.order[player]])


def shared_channel(data_set: SyntheticSet) -> None:
    """Share room, equaliser and hiss among all albums of a class."""

    def sound(album: Album, player: int) -> Album:
        one = make_album("shared", data_set.seed, player)
        kept = ("rt60_seconds", "wet", "eq_tilt_db", "lowpass_hz", "hiss_db", "peaks")
        return album._replace(**{name: getattr(one, name) for name in kept})

    data_set.sound = sound


def shortcut(name: str, data_set: SyntheticSet) -> None:
    """Let a confound, with a little variation, depend on the class."""
    rng = np.random.default_rng([data_set.seed, 1])
    if name == "tuning":
        cents = spread(data_set, -30, 30)
        data_set.sound = lambda album, player: album._replace(
            cents=cents(player) + 0.15 * album.cents
        )
    elif name == "level":
        level = spread(data_set, -22, -2)
        data_set.sound = lambda album, player: album._replace(
            level_db=level(player) + 0.1 * (album.level_db + 6)
        )
    elif name == "bandwidth":
        octaves = spread(data_set, 0, 1.8)
        data_set.finish = lambda wave, player: low_pass(
            wave, 2800 * 2 ** octaves(player)
        )
    elif name == "noise floor":
        hiss = spread(data_set, -75, -35)
        data_set.sound = lambda album, player: album._replace(
            hiss_db=hiss(player) + 0.1 * (album.hiss_db + 55)
        )
    elif name == "duration":
        length = spread(data_set, 7, 19)
        data_set.seconds = lambda player: (
            length(player) * float(rng.uniform(0.95, 1.05))
        )
    elif name == "file format":
        suffixes = [".flac", ".wav", ".mp3", ".ogg", ".flac", ".wav", ".mp3"]
        data_set.suffix = lambda player: suffixes[data_set.order[player]]
    else:
        raise ValueError(name)


def low_pass(wave: np.ndarray, hz: float) -> np.ndarray:
    """Apply a low-pass filter as steep as that of a codec."""
    from scipy.signal import butter, sosfilt

    return sosfilt(butter(10, hz, fs=SAMPLE_RATE, output="sos"), wave).astype(
        np.float32
    )


def planted(seed: int) -> dict[str, tuple[SyntheticSet, str]]:
    """Return data sets with one fault each, and the kind of finding expected."""
    made: dict[str, tuple[SyntheticSet, str]] = {}

    def plant(name: str, kind: str, **shape: Any) -> SyntheticSet:
        data_set = SyntheticSet(seed * 1000 + len(made), **shape)
        made[name] = data_set, kind
        return data_set

    for disguise in (
        "mp3 64 kbit/s",
        "gain 12 dB",
        "trimmed",
        "speed 3 %",
        "50 cents",
        "room",
        "noise",
    ):
        plant(f"duplicate, {disguise}", "duplicates").modify = partial(
            copy_take, disguise
        )
    plant("one take, two names", "conflicting labels").modify = partial(
        copy_take, "mp3, trimmed, gain", to="other"
    )
    plant("duplicate across the split", "leakage").modify = copy_across
    plant("album across the split", "leakage").modify = split_album
    plant("clips split at random", "leakage", n_albums=3).modify = cut_clips
    shared_channel(plant("one channel per class", "shared channel"))
    plant("one album per class", "single group", n_albums=1, n_takes=8)
    plant("swapped labels", "label errors").modify = swap_labels
    plant(
        "take of another player", "label errors", n_albums=3, n_takes=8
    ).modify = misfile
    plant("two spellings", "similar names").modify = misspell
    for confound in (
        "tuning",
        "level",
        "bandwidth",
        "noise floor",
        "duration",
        "file format",
    ):
        shortcut(confound, plant(f"{confound} predicts the class", "shortcut"))
    return made


def clean(seed: int) -> dict[str, SyntheticSet]:
    """Return data sets without faults, of several shapes and kinds of channels."""
    rng = np.random.default_rng([seed, 3])
    made = {}
    channels = ["album"] * 14 + ["recording"] * 4 + ["one"] * 2
    for n, channel in enumerate(channels):
        shape = (
            int(rng.integers(3, 8)),
            int(rng.integers(3, 6)),
            int(rng.integers(2, 8)),
        )
        data_set = SyntheticSet(seed * 1000 + 500 + n, *shape, channel=channel)
        if n % 3 == 0:  # formats and splits vary independently of the class
            data_set.suffix = partial(
                lambda c, player: str(c.rng.choice([".flac", ".mp3", ".wav"])), data_set
            )
        if n % 2 == 0:
            data_set.modify = lambda root, rows, rng: split_albums(rows, rng)
        made[f"clean {n + 1}, {' × '.join(map(str, shape))}, {channel}"] = data_set
    return made


def found(table: pd.DataFrame) -> Rows:
    """Audit a data set and return the findings, worst first."""
    report = cqt2img.audit(table, group_by="album", verbose=False)
    return [
        {
            "kind": f.kind,
            "severity": f.severity,
            "title": f.title,
            "confound": f.confound,
        }
        for f in report.findings
    ]


def check(name: str, kind: str | None, findings: Rows) -> dict[str, Any]:
    """Check that the fault, or nothing, was found; return all other findings, too."""
    serious = [
        f
        for f in findings
        if f["severity"] in ("fault", "warning") and f["kind"] not in EXPECTED
    ]
    if kind is None:
        return {
            "name": name,
            "right": not serious,
            "also": "; ".join(f["title"] for f in serious),
        }
    named = [f for f in serious if f["kind"] == kind]
    if kind == "shortcut":
        named = [f for f in named if f["confound"] and name.startswith(f["confound"])]
    others = [f for f in serious if f not in named]
    return {
        "name": name,
        "right": bool(named),
        "also": "; ".join(f["title"] for f in others),
    }


def one_of_each(work: Path, seed: int, name: str, make: bool) -> dict[str, Any] | None:
    """Generate and audit one data set."""
    data_sets: dict[str, tuple[SyntheticSet, str | None]] = {
        **planted(seed),
        **{n: (c, None) for n, c in clean(seed).items()},
    }
    data_set, kind = data_sets[name]
    root = (
        work
        / str(seed)
        / name.split(" ×")[0].replace("/", " per ").replace(",", "").replace(" ", "-")
    )
    table = data_set.write(root)
    if make:
        return None
    start = time.process_time()
    findings = found(table)
    row = check(name, kind, findings)
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
    parser.add_argument(
        "--make", action="store_true", help="generate the data sets and stop"
    )
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
            error = "MISS" if row["kind"] else "FALSE"
            verdict = "ok" if row["right"] else error
            print(
                f"{verdict:5} {row['name']:34}{row['seconds']:6.1f} s  {row['also']}",
                flush=True,
            )
    if rows:
        (a.work / f"planted-{a.seed}.json").write_text(json.dumps(rows, indent=1))
        for title, has_fault in (
            ("found, with the right kind", True),
            ("clean, without a finding", False),
        ):
            right = [
                row["right"] for row in rows if (row["kind"] is not None) == has_fault
            ]
            print(f"{title}: {sum(right)} of {len(right)}")


if __name__ == "__main__":
    main()
