"""Render ten thousand recordings, of which some are bad, crash their process or hang.

    nice python benchmarks/ten_thousand.py FOLDER [N_RECORDINGS]

3 % of the recordings are bad, 7 crash their process and 3 hang. Prints what became of
them and the time, twice with these ten and twice without, in turn, each into an empty
folder. The recordings have 0.3 s; the preset is fast.
"""

import os
import random
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import soundfile

from cqt2img.data.render import render

HOSTILE_SITE = Path(__file__).parents[1] / "tests" / "programs" / "hostile"
SAMPLE_RATE = 22_050
TIMEOUT = 5.0  # seconds that a hanging file takes from one of two processes
REASONS = {
    "good": {""},
    "bad": {"empty_file", "unsupported_or_corrupt", "truncated"},
    "crash": {"worker_died"},
    "hang": {"timeout"},
}


def write_recordings(folder: Path, n: int) -> list[Path]:
    """Write the recordings; the first word of each name is its kind."""
    rng = random.Random(0)
    kinds = ["bad"] * round(0.03 * n) + ["crash"] * 7 + ["hang"] * 3
    kinds += ["good"] * (n - len(kinds))
    rng.shuffle(kinds)
    seconds = np.arange(round(0.3 * SAMPLE_RATE)) / SAMPLE_RATE
    paths = []
    for index, kind in enumerate(kinds):
        path = folder / f"{index % 100:02d}" / f"{kind} {index}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        tone = 0.3 * np.sin(2 * np.pi * (100 + index % 1000) * seconds)
        soundfile.write(path, tone, SAMPLE_RATE)
        if kind == "bad":
            damaged = [b"", b"no sound", path.read_bytes()[:2000]]
            path.write_bytes(rng.choice(damaged))
        paths.append(path)
    return paths


def kind_of(path: str | Path) -> str:
    return Path(path).name.split()[0]


def measure(paths: list[Path], out: Path) -> float:
    """Render the recordings, check every row, and return the seconds."""
    shutil.rmtree(out, ignore_errors=True)
    begin = time.perf_counter()
    tiles = render(paths, out, "fast", n_jobs=2, timeout=TIMEOUT)
    seconds = time.perf_counter() - begin
    table = tiles.recordings
    assert table["path"].tolist() == [str(path) for path in paths]
    for path, reason in zip(table["path"], table["reason"], strict=True):
        assert reason in REASONS[kind_of(path)], (path, reason)
    rendered = table["tiles"][table["status"] == "ok"]
    for folder in rendered:
        assert (out / folder / "00000.png").is_file(), folder
    assert not list(out.rglob(".part*"))
    counts = table["reason"].replace("", "ok").value_counts().sort_index()
    print(
        f"{seconds:7.1f} s for {len(paths)} recordings, all as expected: "
        f"{counts.to_dict()}",
        flush=True,
    )
    return seconds


def restart_with_hostile_files() -> None:
    """Restart this program so that workers crash and hang; they inherit the path."""
    environment = {**os.environ, "PYTHONPATH": str(HOSTILE_SITE)}
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def main() -> None:
    if os.environ.get("PYTHONPATH") != str(HOSTILE_SITE):
        restart_with_hostile_files()
    folder = Path(sys.argv[1])
    n = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    paths = write_recordings(folder / "takes", n)
    harmless = [path for path in paths if kind_of(path) in ("good", "bad")]
    for _ in range(2):
        without = measure(harmless, folder / "harmless")
        with_ten = measure(paths, folder / "all")
        print(
            f"{without:.1f} s without the ten, {with_ten:.1f} s with them: "
            f"{with_ten / without - 1:+.1%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
