"""Plant faults in synthetic collections, and count which of them the audit finds.

    python benchmarks/planted.py WORK [--seed 100] [--only NAME ...] [--make] [--jobs 2]

Makes collections of synthetic pianists with one fault each, and clean ones of all
shapes, in WORK (kept for the next run), audits each, and prints what was found. A fault
is found if there is a finding of its kind, of severity "fault" or "warning". In a clean
collection each such finding is a false alarm, except for "album effect", which every
collection of albums has, and "small sample", which these are. Thresholds were chosen
with --seed 0.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
from joblib import Parallel, delayed
from numpy.random import Generator

import cqt2img
from cqt2img.audio.effects import EFFECTS
from cqt2img.auditing.findings import Finding
from cqt2img.data.synthetic import SAMPLE_RATE, Album, make_album, play, record
from cqt2img.data.synthetic_players import MELODIES, PLAYERS, perform

EXPECTED_KINDS = {"album effect", "small sample"}
SHARED_SOUND = ("rt60_seconds", "wet", "eq_tilt_db", "lowpass_hz", "hiss_db", "peaks")
Row = dict[str, str]
Rows = list[Row]


class Collection:
    """Recordings to be made: their sound, their format, and changes to their list.

    The sound of the albums, the lengths and the formats do not depend on the player,
    unless a fault changes one of the functions.
    """

    def __init__(
        self,
        seed: int,
        n_players: int = 5,
        n_albums: int = 4,
        n_takes: int = 3,
        channel: str = "album",
    ) -> None:
        self.seed = seed
        self.n_players = n_players
        self.n_albums = n_albums
        self.n_takes = n_takes
        self.channel = channel
        self.rng = np.random.default_rng(seed)
        self.order = self.rng.permutation(n_players)  # of planted values among players
        self.change_sound: Callable[[Album, int], Album] = lambda album, player: album
        self.draw_seconds: Callable[[int], float] = self._draw_seconds
        self.choose_suffix: Callable[[int], str] = lambda player: ".flac"
        self.finish: Callable[[np.ndarray, int], np.ndarray] = lambda wave, player: wave
        self.change_list: Callable[[Path, Rows, Generator], Rows] = (
            lambda root, rows, rng: rows
        )

    def write(self, root: Path) -> pd.DataFrame:
        """Write the recordings and their list, unless they exist; return the list."""
        table = root / "recordings.csv"
        if not table.is_file():
            rows = self.change_list(root, self._write_takes(root), self.rng)
            pd.DataFrame(rows).to_csv(table, index=False)
        listed = pd.read_csv(table)
        return listed.assign(path=[str(root / path) for path in listed["path"]])

    def _draw_seconds(self, player: int) -> float:
        return float(self.rng.uniform(9, 15))

    def _write_takes(self, root: Path) -> Rows:
        rows = []
        for player in range(self.n_players):
            name = PLAYERS[player].name
            for album in range(self.n_albums):
                suffix = self.choose_suffix(player)
                folder = Path(name, f"{name} {album + 1}")
                for take in range(self.n_takes):
                    path = folder / f"take {take + 1}{suffix}"
                    seconds = self.draw_seconds(player)
                    save(root / path, self._play(player, album, take, seconds))
                    rows.append(
                        {"path": str(path), "label": name, "album": folder.name}
                    )
        return rows

    def _play(self, player: int, album: int, take: int, seconds: float) -> np.ndarray:
        keys: dict[str, tuple[int, ...]] = {
            "album": (player, album),
            "recording": (player, album, take),
            "one": (),
        }
        sound = make_album("planted", self.seed, *keys[self.channel])
        sound = self.change_sound(sound, player)
        rng = np.random.default_rng([self.seed, player, album, take])
        melody = MELODIES[rng.integers(len(MELODIES))]
        notes = perform(melody, PLAYERS[player], rng, seconds)
        wave = record(play(notes, sound, seconds), sound, rng)
        return self.finish(wave, player)


@dataclass(frozen=True)
class Result:
    """Whether an audit was right about one collection.

    Parameters
    ----------
    name : str
        The collection.
    kind : str or None
        Kind of finding that names the fault; None for a clean collection.
    is_right : bool
        Whether the fault was found, or nothing in a clean collection.
    other_titles : list of str
        Titles of all other faults and warnings.
    findings : list of Finding
        All findings.
    cpu_seconds : float
        Time of the audit.
    """

    name: str
    kind: str | None
    is_right: bool
    other_titles: list[str]
    findings: list[Finding]
    cpu_seconds: float

    def describe(self) -> str:
        """Return one line for the terminal."""
        verdict = "ok"
        if not self.is_right:
            verdict = "FALSE" if self.kind is None else "MISS"
        titles = "; ".join(self.other_titles)
        return f"{verdict:5} {self.name:34}{self.cpu_seconds:6.1f} s  {titles}"


def save(path: Path, wave: np.ndarray) -> None:
    """Write a wave in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.clip(wave, -1, 1), SAMPLE_RATE)


def copy_take(
    effect: str, root: Path, rows: Rows, rng: Generator, *, same_label: bool = True
) -> Rows:
    """Copy a take to another album, of the same or another player, with an effect."""
    source = draw(rows, rng)
    targets = [
        row
        for row in rows
        if row["album"] != source["album"]
        and (row["label"] == source["label"]) == same_label
    ]
    return [*rows, write_copy(root, source, draw(targets, rng), effect, rng)]


def copy_across(root: Path, rows: Rows, rng: Generator) -> Rows:
    """Copy a training take into a test album."""
    rows = hold_out_albums(rows)
    source = next(row for row in rows if row["split"] == "train")
    target = next(
        row
        for row in rows
        if row["split"] == "test" and row["label"] == source["label"]
    )
    return [*rows, write_copy(root, source, target, "mp3, trimmed, gain", rng)]


def write_copy(
    root: Path, source: Row, target: Row, effect: str, rng: Generator
) -> Row:
    """Write a changed copy of a take beside another one, and return its row."""
    wave, rate = soundfile.read(root / source["path"], dtype="float32")
    path = Path(target["path"]).with_name("another take.flac")
    save(root / path, EFFECTS[effect](wave, rate, rng))
    return {**target, "path": str(path)}


def draw(rows: Rows, rng: Generator) -> Row:
    """Draw a row."""
    return rows[int(rng.integers(len(rows)))]


def hold_out_albums(rows: Rows) -> Rows:
    """Hold out the last album of every player."""
    last_album = {row["label"]: row["album"] for row in rows}
    split = []
    for row in rows:
        is_test = last_album[row["label"]] == row["album"]
        split.append({**row, "split": "test" if is_test else "train"})
    return split


def split_album(root: Path, rows: Rows, rng: Generator) -> Rows:
    """Hold out whole albums, except for one take."""
    rows = hold_out_albums(rows)
    moved = next(row for row in rows if row["split"] == "test")
    return [{**row, "split": "train"} if row is moved else row for row in rows]


def cut_clips(root: Path, rows: Rows, rng: Generator) -> Rows:
    """Cut every recording into clips of 4 s, and split these at random."""
    clips = []
    for row in rows:
        source = root / row["path"]
        wave, rate = soundfile.read(source, dtype="float32")
        for n, start in enumerate(range(0, len(wave) - 2 * rate, 4 * rate)):
            path = Path(row["path"]).with_suffix("") / f"{n:04d}.flac"
            save(root / path, wave[start : start + 4 * rate])
            split = "test" if rng.random() < 0.25 else "train"
            clips.append({**row, "path": str(path), "split": split})
        source.unlink()
    return clips


def swap_labels(root: Path, rows: Rows, rng: Generator) -> Rows:
    """Exchange the labels of two pairs of recordings; albums stay."""
    for _ in range(2):
        one, other = rng.choice(len(rows), 2, replace=False)
        while rows[one]["label"] == rows[other]["label"]:
            other = rng.integers(len(rows))
        first = rows[one]["label"]
        rows[one]["label"] = rows[other]["label"]
        rows[other]["label"] = first
    return rows


def misfile(root: Path, rows: Rows, rng: Generator) -> Rows:
    """Move a take to an album of another player: label, album and folder are wrong."""
    moved = draw(rows, rng)
    others = [row for row in rows if row["label"] != moved["label"]]
    target = draw(others, rng)
    path = Path(target["path"]).with_name("bonus take.flac")
    (root / moved["path"]).rename(root / path)
    return [{**target, "path": str(path)} if row is moved else row for row in rows]


def misspell(root: Path, rows: Rows, rng: Generator) -> Rows:
    """Write the name of a player in another way on one album."""
    name = rows[0]["label"]
    first, last = name.split()
    spellings = [
        f"{last}, {first}",
        name.lower(),
        f"{first}_{last}",
        name.replace("o", "ó", 1),
        name[:-1] + name[-1] * 2,
    ]
    spelling = spellings[int(rng.integers(len(spellings)))]
    album = rows[0]["album"]
    return [
        {**row, "label": spelling} if row["album"] == album else row for row in rows
    ]


def share_channel(collection: Collection) -> None:
    """Give all albums of a player one room, equaliser and hiss.

    Pianos, tunings and levels still differ from album to album.
    """

    def change_sound(album: Album, player: int) -> Album:
        shared = make_album("shared", collection.seed, player)
        return album._replace(**{name: getattr(shared, name) for name in SHARED_SOUND})

    collection.change_sound = change_sound


def plant_shortcut(confound: str, collection: Collection) -> None:
    """Give every player a tuning, level, bandwidth … of their own, with some spread."""
    rng = np.random.default_rng([collection.seed, 1])

    def value_of(player: int, low: float, high: float) -> float:
        values = np.linspace(low, high, collection.n_players)
        return float(values[collection.order[player]])

    def change_tuning(album: Album, player: int) -> Album:
        return album._replace(cents=value_of(player, -30, 30) + 0.15 * album.cents)

    def change_level(album: Album, player: int) -> Album:
        spread = 0.1 * (album.level_db + 6)
        return album._replace(level_db=value_of(player, -22, -2) + spread)

    def change_hiss(album: Album, player: int) -> Album:
        spread = 0.1 * (album.hiss_db + 55)
        return album._replace(hiss_db=value_of(player, -75, -35) + spread)

    def limit_bandwidth(wave: np.ndarray, player: int) -> np.ndarray:
        return low_pass(wave, 2800 * 2 ** value_of(player, 0, 1.8))

    def draw_seconds(player: int) -> float:
        return value_of(player, 7, 19) * float(rng.uniform(0.95, 1.05))

    def choose_suffix(player: int) -> str:
        suffixes = [".flac", ".wav", ".mp3", ".ogg", ".flac", ".wav", ".mp3"]
        return suffixes[collection.order[player]]

    if confound == "tuning":
        collection.change_sound = change_tuning
    elif confound == "level":
        collection.change_sound = change_level
    elif confound == "noise floor":
        collection.change_sound = change_hiss
    elif confound == "bandwidth":
        collection.finish = limit_bandwidth
    elif confound == "duration":
        collection.draw_seconds = draw_seconds
    elif confound == "file format":
        collection.choose_suffix = choose_suffix
    else:
        raise ValueError(confound)


def low_pass(wave: np.ndarray, hz: float) -> np.ndarray:
    """Remove high frequencies as steeply as a codec does."""
    from scipy.signal import butter, sosfilt

    sections = butter(10, hz, fs=SAMPLE_RATE, output="sos")
    return sosfilt(sections, wave).astype(np.float32)


def faulty_collections(seed: int) -> dict[str, tuple[Collection, str]]:
    """List collections with one fault each, and the kind of finding that names it."""
    planned: dict[str, tuple[Collection, str]] = {}

    def plan(name: str, kind: str, n_albums: int = 4, n_takes: int = 3) -> Collection:
        collection = Collection(
            seed * 1000 + len(planned), n_albums=n_albums, n_takes=n_takes
        )
        planned[name] = collection, kind
        return collection

    for effect in (
        "mp3 64 kbit/s",
        "gain 12 dB",
        "trimmed",
        "speed 3 %",
        "50 cents",
        "room",
        "noise",
    ):
        collection = plan(f"duplicate, {effect}", "duplicates")
        collection.change_list = partial(copy_take, effect)
    collection = plan("one take, two labels", "conflicting labels")
    collection.change_list = partial(copy_take, "mp3, trimmed, gain", same_label=False)
    plan("duplicate across the split", "leakage").change_list = copy_across
    plan("album across the split", "leakage").change_list = split_album
    plan("clips split at random", "leakage", n_albums=3).change_list = cut_clips
    share_channel(plan("one channel per class", "shared channel"))
    plan("one album per class", "single group", n_albums=1, n_takes=8)
    plan("swapped labels", "label errors").change_list = swap_labels
    collection = plan("take of another player", "label errors", n_albums=3, n_takes=8)
    collection.change_list = misfile
    plan("two spellings", "similar names").change_list = misspell
    for confound in (
        "tuning",
        "level",
        "bandwidth",
        "noise floor",
        "duration",
        "file format",
    ):
        plant_shortcut(confound, plan(f"{confound} differs by class", "shortcut"))
    return planned


def clean_collections(seed: int) -> dict[str, Collection]:
    """List collections without faults: one channel per album, per recording, or one."""
    rng = np.random.default_rng([seed, 3])
    planned = {}
    channels = ["album"] * 14 + ["recording"] * 4 + ["one"] * 2
    for n, channel in enumerate(channels):
        n_players = int(rng.integers(3, 8))
        n_albums = int(rng.integers(3, 6))
        n_takes = int(rng.integers(2, 8))
        collection = Collection(
            seed * 1000 + 500 + n, n_players, n_albums, n_takes, channel=channel
        )
        if n % 3 == 0:  # formats differ, whoever plays
            collection.choose_suffix = partial(_draw_suffix, collection)
        if n % 2 == 0:
            collection.change_list = lambda root, rows, rng: hold_out_albums(rows)
        name = f"clean {n + 1}, {n_players} × {n_albums} × {n_takes}, {channel}"
        planned[name] = collection
    return planned


def _draw_suffix(collection: Collection, player: int) -> str:
    return str(collection.rng.choice([".flac", ".mp3", ".wav"]))


def run_one(work: Path, seed: int, name: str, only_make: bool) -> Result | None:
    """Make and audit one collection."""
    planned: dict[str, tuple[Collection, str | None]] = {**faulty_collections(seed)}
    for clean_name, clean in clean_collections(seed).items():
        planned[clean_name] = clean, None
    collection, kind = planned[name]
    folder = name.split(" ×")[0].replace("/", " per ").replace(",", "")
    table = collection.write(work / str(seed) / folder.replace(" ", "-"))
    if only_make:
        return None
    start = time.process_time()
    report = cqt2img.audit(table, group_by="album", verbose=False)
    cpu_seconds = time.process_time() - start
    return compare(name, kind, list(report.findings), cpu_seconds)


def compare(
    name: str, kind: str | None, findings: list[Finding], cpu_seconds: float
) -> Result:
    """Compare the findings of an audit with the planted fault."""
    serious = [
        finding
        for finding in findings
        if finding.severity != "note" and finding.kind not in EXPECTED_KINDS
    ]
    right = [finding for finding in serious if finding.kind == kind]
    if kind == "shortcut":
        right = [finding for finding in right if name.startswith(finding.confound)]
    others = [finding.title for finding in serious if finding not in right]
    is_right = not serious if kind is None else bool(right)
    return Result(name, kind, is_right, others, findings, cpu_seconds)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--only", nargs="+", help="parts of names")
    parser.add_argument("--make", action="store_true", help="make the files and stop")
    parser.add_argument("--jobs", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    seed = options.seed
    names = [*faulty_collections(seed), *clean_collections(seed)]
    if options.only is not None:
        names = [name for name in names if any(part in name for part in options.only)]
    jobs = Parallel(options.jobs, return_as="generator")(
        delayed(run_one)(options.work, seed, name, options.make) for name in names
    )
    results = []
    for result in jobs:
        if result is not None:
            results.append(result)
            print(result.describe(), flush=True)
    if not results:
        return
    rows = [asdict(result) for result in results]
    (options.work / f"planted-{seed}.json").write_text(json.dumps(rows, indent=1))
    faulty = [result.is_right for result in results if result.kind is not None]
    clean = [result.is_right for result in results if result.kind is None]
    print(f"faults found: {sum(faulty)} of {len(faulty)}")
    print(f"clean collections without a finding: {sum(clean)} of {len(clean)}")


if __name__ == "__main__":
    main()
