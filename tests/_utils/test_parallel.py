"""Jobs in processes. The functions at the top are what the workers call."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from cqt2img._utils.files import disk_full_error, folder_lock, write_atomic
from cqt2img._utils.parallel import progress_bar, run_parallel
from cqt2img.errors import AudioError, InputError

DIED = "run_parallel: a recording must leave its process alive, got '{}', which ended it twice ({}). "
DIED += "Convert it to FLAC, take fewer processes if memory is short, or leave it out."
LATE = "run_parallel: a recording must be done within {} s, got '{}', which was not. Raise timeout, or leave it out."


class _OddError(Exception):
    """One that cannot be made again from what pickle keeps of it."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def work(item, what=""):
    """Give the item back, or do the worst."""
    if isinstance(item, AudioError):
        return item.reason, item.message
    if what == "SIGSEGV":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif what == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "exit code 5":
        os._exit(5)
    elif what == "sleep":
        time.sleep(1000)
    elif what == "sleep and let nobody else":
        ctypes.PyDLL(None).sleep(1000)  # holds the lock of the interpreter
    elif what == "full":
        raise OSError(28, "No space left on device", "x.png")
    elif what == "odd":
        raise _OddError(1, 2)
    elif what == "print":
        print("hello", flush=True)
        os.write(1, b"from below")
    elif what == "read":
        return sys.stdin.read()
    elif what == "slow":
        time.sleep(0.1)
    elif what == "process":
        return os.getpid()
    elif isinstance(what, Path) and not what.exists():
        what.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item


@contextmanager
def raises_exactly(
    kind, message
):  # the one of conftest would make the workers import torch
    with pytest.raises(kind) as caught:
        yield
    assert str(caught.value) == message


def run(jobs, n_jobs=2, **options):
    return list(run_parallel(work, iter(jobs), len(jobs), n_jobs, None, "", **options))


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("n_jobs", [1, 2, -1])
def test_the_order_stays(n_jobs):
    assert run([(n, "slow" if n % 3 == 0 else "") for n in range(9)], n_jobs) == list(
        range(9)
    )
    assert run([], n_jobs) == []


def test_one_job_at_a_time_runs_here():
    assert run([(0, "process")], 1) == [os.getpid()]
    there = run([(n, "process") for n in range(9)], 2)
    assert os.getpid() not in there
    assert len(set(there)) <= 2
    assert not any(map(is_alive, there))


@pytest.mark.parametrize("how", ["SIGSEGV", "SIGKILL", "exit code 5"])
def test_a_crash_costs_one_job(how):
    done = run([(f"{n}.wav", how if n in (2, 3, 6) else "") for n in range(7)])
    bad = {n: ("worker_died", DIED.format(f"{n}.wav", how)) for n in (2, 3, 6)}
    assert done == [bad.get(n, f"{n}.wav") for n in range(7)]


def test_a_worker_that_was_killed_from_outside_costs_nothing(tmp_path):
    assert run([(n, tmp_path / "once" if n == 2 else "") for n in range(5)]) == list(
        range(5)
    )
    assert (tmp_path / "once").exists()


@pytest.mark.parametrize("how", ["sleep", "sleep and let nobody else"])
def test_what_hangs_costs_one_job(how):
    start = time.monotonic()
    done = run([(f"{n}.wav", how if n == 1 else "slow") for n in range(9)], timeout=2)
    assert time.monotonic() - start < 30
    assert done == [
        "0.wav",
        ("timeout", LATE.format(2, "1.wav")),
        *(f"{n}.wav" for n in range(2, 9)),
    ]


def test_an_exception_is_raised_here():
    with pytest.raises(OSError, match=r"No space left on device: 'x\.png'") as caught:
        run([(n, "full" if n == 3 else "slow") for n in range(99)])
    assert caught.value.errno == 28
    assert "in work\n" in caught.value.__notes__[0]
    with pytest.raises(RuntimeError, match="_OddError: 1 and 2"):
        run([(0, "odd"), (1, "")])


def test_what_jobs_print_and_read_is_their_own_affair():
    assert run([(0, "print"), (1, "read"), (2, "")]) == [0, "", 2]


def test_a_worker_that_cannot_start(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(
        RuntimeError,
        match=r"^run_parallel: a worker must start, got exit code 1\. See what it said\.$",
    ):
        run([(0, ""), (1, "")])


def test_who_wants_no_more_waits_for_nothing():
    start = time.monotonic()
    steps = run_parallel(
        work, ((n, "slow" if n < 3 else "sleep") for n in range(9)), 9, 2, None, ""
    )
    assert next(steps) == 0
    steps.close()
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("bad", [0, 1.5, None, True])
def test_processes_are_a_whole_number_but_0(bad):
    message = f"run_parallel: n_jobs must be a whole number but 0, got {bad!r}. Take 1, or -1 for every core."
    with raises_exactly(InputError, message):
        run([], bad)


@pytest.mark.parametrize("bad", [0, -1, float("nan")])
def test_time_is_above_0(bad):
    with raises_exactly(
        InputError, f"run_parallel: timeout must be above 0 s, got {bad!r}. Take 600."
    ):
        run([], timeout=bad)


STOP = """
import signal, sys, time
sys.path[:0] = {path!r}
from pathlib import Path
import stopping
from cqt2img._utils.parallel import run_parallel
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell takes it from what runs in the background
try:
    for n in run_parallel(stopping.work, ((n, {seconds}) for n in range(100)), 100, {n_jobs}, None, ""):
        print(n, flush=True)
except KeyboardInterrupt:
    print("stopped", flush=True)
"""
WORK = """
import time
from pathlib import Path
def work(n, seconds):
    Path(__file__).with_name(f"{n}.begun").touch()
    time.sleep(seconds)
    Path(__file__).with_name(f"{n}.done").touch()
    return n
"""


def interrupt(folder, n_jobs, seconds, times):
    """Press Ctrl-C `times` times when the third job has begun, as a terminal does: the whole group hears it."""
    (folder / "stopping.py").write_text(WORK)
    script = STOP.format(path=[str(folder)], seconds=seconds, n_jobs=n_jobs)
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as process:
        while not (folder / "2.begun").exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        time.sleep(
            0.15
        )  # the script may still be printing what the first two gave; Ctrl-C there is its own affair
        for _ in range(times):
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.3)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    begun, done = (
        {int(path.stem) for path in folder.glob(f"*.{what}")}
        for what in ("begun", "done")
    )
    return out.split(), err, begun, done


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_ctrl_c_finishes_what_is_in_hand(tmp_path, n_jobs):
    out, err, begun, done = interrupt(tmp_path, n_jobs, 0.5, times=1)
    assert (
        err == "finishing the recordings in hand; press Ctrl-C again to stop at once\n"
    )
    assert begun == done
    assert len(done) <= 4
    assert out == [*map(str, sorted(done)), "stopped"]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_ctrl_c_twice_stops_at_once(tmp_path, n_jobs):
    start = time.monotonic()
    out, _, begun, done = interrupt(tmp_path, n_jobs, 4, times=2)
    assert out[-1] == "stopped"
    assert begun > done
    assert time.monotonic() - start < 15  # the second and the third job take 4 s each


DASK = """
import os, signal, sys, threading, time
sys.path[:0] = {path!r}
import joblib
from dask.distributed import Client, LocalCluster
from cqt2img._utils.parallel import run_parallel
from tests._utils.test_parallel import work

if __name__ == "__main__":
    signal.alarm(100)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
        with joblib.parallel_config(backend="dask"):
            what = ["slow"] * 40
            what[3], what[5], what[7] = "SIGSEGV", "sleep", "process"
            steps = run_parallel(work, ((n, what[n]) for n in range(40)), 40, 1, None, "", timeout=2)
            done = []
            for n, result in enumerate(steps):
                done.append(result)
                if n in (9, 19):  # of the cluster's own processes, with what they have in hand
                    os.kill(list(cluster.workers.values())[n % 2].pid, signal.SIGKILL)
        assert done[3][0] == "worker_died", done
        assert done[5][0] == "timeout", done
        assert done[7] != os.getpid()
        del done[7], done[5], done[3]
        assert done == [n for n in range(40) if n not in (3, 5, 7)], done
    print("good")
"""


def test_dask_does_the_same_and_may_lose_workers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(DASK.format(path=[str(Path(__file__).parents[2])]))
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "good\n", done.stderr


# files


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_progress_bar():
    assert list(progress_bar(iter("abc"), 3, "title")) == ["a", "b", "c"]


def test_write_whole(tmp_path):
    path = tmp_path / "x.txt"
    write_atomic(path, lambda part: part.write_text("one"))

    def fail(part):
        part.write_text("tw")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_atomic(path, fail)
    assert contents(tmp_path) == {"x.txt": b"one"}


def test_a_full_disk_is_one_sentence():
    message = "render: the disk must have room, got a full one at '{}'. "
    message += "Free some space and run again; what is finished stays."
    for place, error in (
        ("out", OSError(28, "full")),
        ("x.png", OSError(28, "full", "x.png")),
    ):
        with (
            raises_exactly(InputError, message.format(place)),
            disk_full_error("render", Path("out")),
        ):
            raise error
    with pytest.raises(PermissionError), disk_full_error("render", Path("out")):
        raise PermissionError(13, "no")


LEFT = {
    ".spec.json.123.part",
    ".recordings.csv.5.part",
    "tiles/.part-abcd_123/0.png",
    "tiles/.part-abcdefgh/a.json",
}
KEPT = {
    "spec.json",
    "tiles/.part-abcdef.wav/0.png",
    "tiles/x.1.part/0.png",
    ".part",
    "tiles/a/.part-abcdefgh/0.png",
}


def fill(folder):
    for name in LEFT | KEPT:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_what_killed_runs_left_is_cleared_away(tmp_path):
    fill(tmp_path)
    with folder_lock(tmp_path):
        assert set(contents(tmp_path)) == KEPT
        fill(tmp_path)
        with folder_lock(tmp_path):  # the parts of a living run stay
            assert set(contents(tmp_path)) == LEFT | KEPT
        assert set(contents(tmp_path)) == LEFT | KEPT
    assert set(contents(tmp_path)) == KEPT
