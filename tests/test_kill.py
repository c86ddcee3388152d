"""Rendering, disturbed in every way: killed, interrupted, out of disk, two at once, files that crash or hang.

By hand, for as many points and files as wanted: python tests/test_kill.py POINTS FILES [FOLDER]
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
import pytest
import soundfile

SCRIPT = """
import signal, sys
from cqt2img.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell takes it from what runs in the background
main()
"""
NASTY = """
import os, signal, sys, time
def read(event, args):
    if event == "open" and isinstance(args[0], (str, bytes)):
        name = os.path.basename(os.fsdecode(args[0]))
        if "crash" in name:
            os.kill(os.getpid(), signal.SIGSEGV)
        if "hang" in name:
            time.sleep(1000)
if "cqt2img._utils.worker" in sys.orig_argv:
    sys.addaudithook(read)
"""


def record(folder, n, seconds=0.3):
    """Write `n` little tones."""
    t = np.arange(round(22_050 * seconds)) / 22_050
    for k in range(n):
        path = folder / f"player {k % 4}" / f"take {k}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.3 * np.sin(2 * np.pi * (200 + 10 * k) * t), 22_050)
    return folder


def start(takes, out, n_jobs=2, **options):
    words = [str(takes), "-o", str(out), "--preset", "fast", "-j", str(n_jobs), "-q"]
    call = [sys.executable, "-c", SCRIPT, "render"]
    return subprocess.Popen(
        [*call, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(process):
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def is_part(name):
    return re.search(r"^\.[^/]*\.part$|^tiles/\.part-", name) is not None


def finals(folder):
    """What lies under its final name."""
    return {name: data for name, data in contents(folder).items() if not is_part(name)}


def broken(folder, clean):
    """Final names that hold something else than an undisturbed run writes, or lack a part of their recording."""
    found = finals(folder)
    begun = {name.rsplit("/", 1)[0] for name in found if name.startswith("tiles/")}
    due = {name for name in clean if name.rsplit("/", 1)[0] in begun}
    return sorted(
        {name for name, data in found.items() if clean.get(name) != data}
        | (due - set(found))
    )


def children(pid):
    return [
        int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ]


def kill_and_resume(folder, n_points, n_files):
    """Kill a run at random points, with and without its workers, and go on: how many files were done by then."""
    takes, draw = record(folder / "takes", n_files), random.Random(0)
    begin = time.monotonic()
    assert finish(start(takes, folder / "clean"))[0] == 0
    seconds, clean, reached = time.monotonic() - begin, contents(folder / "clean"), []
    assert not [name for name in clean if is_part(name)]
    for point in range(n_points):
        out = folder / f"out {point}"
        process = start(takes, out)
        time.sleep(draw.uniform(0, seconds))
        for pid in (
            children(process.pid) if process.poll() is None and point % 2 else []
        ):
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.communicate()
        reached.append(len(list(out.glob("tiles/*/*"))))
        assert broken(out, clean) == [] if out.exists() else True
        code, _, err = finish(start(takes, out))
        assert (code, err) == (0, "")
        assert contents(out) == clean, f"point {point}"
        shutil.rmtree(out)
    return reached


@pytest.fixture(scope="module")
def takes(tmp_path_factory):
    return record(tmp_path_factory.mktemp("takes"), 40)


@pytest.fixture(scope="module")
def clean(takes, tmp_path_factory):
    out = tmp_path_factory.mktemp("clean") / "out"
    assert finish(start(takes, out))[0] == 0
    return contents(out)


@pytest.mark.slow
def test_killed_at_any_point(tmp_path):
    reached = kill_and_resume(tmp_path, 10, 40)
    assert any(0 < n < 40 for n in reached), (
        "some were killed in the middle of the work"
    )


def test_what_was_killed_is_seen_as_broken(takes, clean, tmp_path):
    """The guard of the test above."""
    for n, damage in enumerate((Path.unlink, lambda path: path.write_bytes(b"half"))):
        shutil.copytree(takes, tmp_path / "takes", dirs_exist_ok=True)
        for name, data in clean.items():
            (tmp_path / f"out {n}" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / f"out {n}" / name).write_bytes(data)
        assert broken(tmp_path / f"out {n}", clean) == []
        tile = next((tmp_path / f"out {n}").glob("tiles/*/*/00000.png"))
        damage(tile)
        assert broken(tmp_path / f"out {n}", clean) == [
            tile.relative_to(tmp_path / f"out {n}").as_posix()
        ]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_ctrl_c(takes, clean, tmp_path, n_jobs):
    out = tmp_path / "out"
    process = start(takes, out, n_jobs, process_group=0)
    while not list(out.glob("tiles/*/*")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGINT)
    code, said, err = finish(process)
    assert (code, said) == (130, "")
    assert err.splitlines() == [
        "finishing the running recordings; press Ctrl-C again to stop now",
        "cqt2img: interrupted. Run the same command again to continue.",
    ]
    found = contents(out)
    assert 1 < len(found) < len(clean)
    assert not [name for name in found if is_part(name)]
    assert broken(out, clean) == []
    assert finish(start(takes, out, n_jobs))[0] == 0
    assert contents(out) == clean


def test_two_runs_at_once(takes, clean, tmp_path):
    for n in range(3):
        runs = [start(takes, tmp_path / f"out {n}") for _ in range(2)]
        assert [finish(run) for run in runs] == [
            (0, f"40 tiles of 40 recordings in {tmp_path}/out {n}\n", "")
        ] * 2
        assert contents(tmp_path / f"out {n}") == clean


NASTY_RENDER = """
import sys
from cqt2img.data.render import render
made = render(sys.argv[1], sys.argv[2], "fast", n_jobs=2, timeout=4)
for row in made.recordings.itertuples():
    print(row.status, row.reason, row.message, row.n_tiles, sep="|")
"""


def test_files_that_crash_or_hang(takes, clean, tmp_path):
    some = shutil.copytree(takes / "player 0", tmp_path / "takes" / "player 0")
    shutil.copy(some / "take 0.wav", some / "take 1 crash.wav")
    shutil.copy(some / "take 0.wav", some / "take 2 hang.wav")
    (tmp_path / "sitecustomize.py").write_text(NASTY)
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    call = [sys.executable, "-c", NASTY_RENDER, tmp_path / "takes", tmp_path / "out"]
    done = subprocess.run(call, env=env, capture_output=True, text=True, timeout=100)
    rows = [line.split("|") for line in done.stdout.splitlines()]
    assert len(rows) == 12, done.stderr
    bad = [row for row in rows if row[0] != "ok"]
    crash, hang = (
        repr(str(some / name)) for name in ("take 1 crash.wav", "take 2 hang.wav")
    )
    assert bad == [
        [
            "error",
            "worker_died",
            f"{crash} ended its process twice (SIGSEGV). Convert it to FLAC, "
            "use fewer processes if memory is short, or leave it out.",
            "0",
        ],
        [
            "error",
            "timeout",
            f"{hang} was not finished within 4 s. Raise timeout, or leave it out.",
            "0",
        ],
    ]
    found = contents(tmp_path / "out")
    assert not [
        name for name in found if is_part(name) or "crash" in name or "hang" in name
    ]
    pictures = {
        name
        for name in clean
        if name.startswith("tiles/player 0") and name.endswith(".png")
    }
    assert {name for name in found if name.endswith(".png")} == pictures


FULL = """
import json, os, sys
from pathlib import Path
from cqt2img.errors import InputError
from cqt2img.data.render import render

takes, folder = Path(sys.argv[1]), Path(sys.argv[2])
sys.path.insert(0, sys.argv[3])
from tests.test_kill import broken, contents
left = None

def refuse(event, args):
    global left
    if left is None:
        return
    new = event in ("os.mkdir", "os.rename") or (event == "open" and (args[2] or 0) & (os.O_WRONLY | os.O_RDWR))
    if new and str(folder) in str(args[0]):
        left -= 1
        if left == 0:
            raise OSError(28, "No space left on device", str(args[0]))

sys.addaudithook(refuse)
render(takes, folder / "clean", "fast")
clean, stopped = contents(folder / "clean"), 0
for n in range(1, 51):
    left, out = n, folder / f"out {n}"
    try:
        render(takes, out, "fast")
    except InputError as err:
        stopped += 1
        text = str(err)
        assert text.startswith("render: the disk is full at "), text
        assert broken(out, clean) == [], (n, broken(out, clean))
    left = None
    render(takes, out, "fast")
    assert contents(out) == clean, n
print(stopped)
"""


def test_a_full_disk_at_any_write(tmp_path):
    takes = record(tmp_path / "takes", 6)
    call = [sys.executable, "-c", FULL, takes, tmp_path, Path(__file__).parents[1]]
    done = subprocess.run(call, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert 30 <= int(done.stdout) < 50  # with so many writes it has enough


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=(sys.argv[3:] or [None])[0]) as room:
        places = kill_and_resume(Path(room), int(sys.argv[1]), int(sys.argv[2]))
    print(
        f"{len(places)} kills, with {places} recordings done by then: nothing broken, every resumed tree the same"
    )
