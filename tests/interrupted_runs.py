"""Kill renderings at random points and resume them.

python -m tests.interrupted_runs N_POINTS N_RECORDINGS [FOLDER]

`tests/test_kill.py` runs the same with few points and recordings.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).parents[1]
SAMPLE_RATE = 22_050
UNFINISHED = re.compile(r"^\.[^/]*\.part$|^tiles/\.part-|^\.run-\w+\.lock$")


def write_takes(folder, n_takes, seconds=0.3):
    """Write short tones of four players."""
    time_axis = np.arange(round(SAMPLE_RATE * seconds)) / SAMPLE_RATE
    for n in range(n_takes):
        path = folder / f"player {n % 4}" / f"take {n}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        tone = 0.3 * np.sin(2 * np.pi * (200 + 10 * n) * time_axis)
        soundfile.write(path, tone, SAMPLE_RATE)
    return folder


def start_render(takes, out, n_jobs=2, **options):
    """Start `cqt2img render` as a process."""
    command = [sys.executable, "-m", "tests.programs.run_cli", "render"]
    arguments = [str(takes), "-o", str(out), "--preset", "fast", "-j", str(n_jobs)]
    return subprocess.Popen(
        [*command, *arguments, "-q"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def wait_for(process):
    """Return the exit code and the output of a process."""
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def contents(folder):
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


def is_unfinished(name):
    """Check whether a file has the name of an unfinished one, or is a lock."""
    return UNFINISHED.search(name) is not None


def find_broken(folder, clean):
    """Return files that differ from an uninterrupted run, or lack in a finished folder.

    Unfinished files under temporary names are allowed.
    """
    found = {}
    for name, data in contents(folder).items():
        if not is_unfinished(name):
            found[name] = data
    differing = {name for name, data in found.items() if clean.get(name) != data}
    begun = {os.path.dirname(name) for name in found if name.startswith("tiles/")}
    expected = {name for name in clean if os.path.dirname(name) in begun}
    return sorted(differing | (expected - set(found)))


def list_children(process):
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


def kill_after(process, seconds, with_workers):
    """Kill a process, and optionally its workers before it."""
    time.sleep(seconds)
    if with_workers and process.poll() is None:
        for pid in list_children(process):
            os.kill(pid, signal.SIGKILL)
    process.kill()
    process.communicate()


def kill_and_resume(folder, n_points, n_takes):
    """Kill runs at random points, with and without their workers, and resume them.

    Returns how many recordings each run had finished when it was killed.
    """
    takes = write_takes(folder / "takes", n_takes)
    rng = random.Random(0)
    begin = time.monotonic()
    code, _, _ = wait_for(start_render(takes, folder / "clean"))
    seconds = time.monotonic() - begin
    assert code == 0
    clean = contents(folder / "clean")
    assert not any(map(is_unfinished, clean))
    n_finished = []
    for point in range(n_points):
        out = folder / f"out {point}"
        process = start_render(takes, out)
        kill_after(process, rng.uniform(0, seconds), with_workers=point % 2 == 1)
        n_finished.append(len(list(out.glob("tiles/*/*"))))
        if out.exists():
            assert find_broken(out, clean) == []
        code, _, err = wait_for(start_render(takes, out))
        assert (code, err) == (0, "")
        assert contents(out) == clean, f"point {point}"
        shutil.rmtree(out)
    return n_finished


def main():
    n_points, n_takes = map(int, sys.argv[1:3])
    folder = sys.argv[3] if len(sys.argv) > 3 else None
    with tempfile.TemporaryDirectory(dir=folder) as work:
        n_finished = kill_and_resume(Path(work), n_points, n_takes)
    print(f"{n_points} kills, after {n_finished} finished recordings")
    print("no broken file, and every resumed folder is identical")


if __name__ == "__main__":
    main()
