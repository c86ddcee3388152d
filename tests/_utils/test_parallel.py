import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from cqt2img._utils.parallel import _call_in_worker, run_parallel
from cqt2img._utils.worker_pool import WorkerError
from cqt2img.errors import InputError
from tests._utils.tasks import FOREVER, work
from tests.conftest import raises_with


def run(jobs, n_jobs=2, **options):
    return list(run_parallel(work, iter(jobs), len(jobs), n_jobs=n_jobs, **options))


@pytest.mark.parametrize("n_jobs", [1, 2, -1])
def test_results_are_in_the_order_of_the_jobs(n_jobs):
    jobs = [(n, "slow" if n % 3 == 0 else "") for n in range(9)]
    assert run(jobs, n_jobs) == list(range(9))
    assert run([], n_jobs) == []


def test_one_job_at_a_time_runs_in_this_process():
    assert run([(0, "process")], 1) == [os.getpid()]


def test_two_jobs_at_a_time_run_in_two_other_processes():
    processes = run([(n, "process") for n in range(9)], 2)
    assert os.getpid() not in processes
    assert len(set(processes)) <= 2


def test_a_crash_costs_one_job():
    actions = ["", "", "SIGSEGV", "SIGKILL", "", "", "exit code 5"]
    results = run([(f"{n}.wav", action) for n, action in enumerate(actions)])
    for n, action in enumerate(actions):
        if not action:
            assert results[n] == f"{n}.wav"
            continue
        reason, message = results[n]
        assert reason == "worker_died"
        assert message.startswith(f"'{n}.wav' ")
        assert f"twice ({action})" in message


def test_a_worker_that_is_killed_once_costs_nothing(tmp_path):
    jobs = [(n, tmp_path / "once" if n == 2 else "") for n in range(5)]
    assert run(jobs) == list(range(5))
    assert (tmp_path / "once").exists()


class FailingPool:
    """Stands for a pool whose workers fail."""

    def __init__(self, error):
        self.error = error
        self.n_calls = 0

    def call(self, function, arguments, timeout):
        self.n_calls += 1
        raise self.error


def test_a_call_that_exceeds_the_time_limit_is_not_repeated():
    pool = FailingPool(WorkerError("timeout", "2 s", has_started=True))
    reason, message = _call_in_worker(pool, work, 2, ("1.wav", ""))
    assert reason == "timeout"
    assert message.startswith("'1.wav' was not finished within 2 s.")
    assert pool.n_calls == 1


def test_a_call_that_ends_its_process_is_repeated_once():
    pool = FailingPool(WorkerError("worker_died", "SIGKILL", has_started=True))
    reason, message = _call_in_worker(pool, work, 2, (np.zeros(3), ""))
    assert reason == "worker_died"
    assert message.startswith("an array ended its process twice (SIGKILL).")
    assert pool.n_calls == 2


def test_a_worker_that_cannot_start_ends_the_run():
    pool = FailingPool(WorkerError("worker_died", "exit code 1", has_started=False))
    with pytest.raises(RuntimeError, match="exit code 1 before it started"):
        _call_in_worker(pool, work, 2, (0, ""))


def test_an_exception_ends_the_run():
    with pytest.raises(OSError, match=r"No space left on device: 'x\.png'"):
        run([(n, "disk full" if n == 3 else "slow") for n in range(99)])


def test_closing_the_results_does_not_wait_for_running_jobs():
    start = time.monotonic()
    jobs = ((n, "slow" if n < 3 else "hang") for n in range(9))
    results = run_parallel(work, jobs, 9, n_jobs=2)
    assert next(results) == 0
    results.close()
    assert time.monotonic() - start < FOREVER / 2


def test_progress_gets_the_results_their_number_and_the_title():
    seen = []

    def progress(steps, n, title):
        seen.append((n, title))
        return steps

    assert run([(0,), (1,)], 1, progress=progress, title="reading") == [0, 1]
    assert seen == [(2, "reading")]


@pytest.mark.parametrize("n_jobs", [0, 1.5, None, True])
def test_the_number_of_processes_must_be_a_nonzero_integer(n_jobs):
    with raises_with(InputError, "n_jobs must be an integer", n_jobs):
        run([], n_jobs)


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_the_time_limit_must_be_positive(timeout):
    with raises_with(InputError, "timeout must be above 0", timeout):
        run([], timeout=timeout)


def start_run(folder, n_jobs):
    """Start a program, and wait until it waits for the third of its jobs."""
    program = [sys.executable, "-m", "tests._utils.interrupted_run"]
    process = subprocess.Popen(
        [*program, str(folder), str(n_jobs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    while not (folder / "ready").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    return process


def press_ctrl_c(process):
    """Interrupt all processes of a group, as a terminal does."""
    os.killpg(process.pid, signal.SIGINT)


def jobs_with(folder, mark):
    return sorted(int(path.stem) for path in folder.glob(f"*.{mark}"))


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_ctrl_c_finishes_the_running_jobs(tmp_path, n_jobs):
    with start_run(tmp_path, n_jobs) as process:
        press_ctrl_c(process)
        message = process.stderr.readline()
        (tmp_path / "go").touch()
        output, errors = process.communicate()
    assert message.startswith("finishing the running recordings; press Ctrl-C again")
    assert errors == ""
    assert process.returncode == 0
    done = jobs_with(tmp_path, "done")
    assert jobs_with(tmp_path, "begun") == done
    assert done in ([0, 1, 2], [0, 1, 2, 3])
    assert output.split() == [*map(str, done), "stopped"]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_second_ctrl_c_stops_at_once(tmp_path, n_jobs):
    with start_run(tmp_path, n_jobs) as process:
        press_ctrl_c(process)
        process.stderr.readline()
        press_ctrl_c(process)
        output, _ = process.communicate()  # although the jobs still wait
    assert output.split() == ["0", "1", "stopped"]
    assert 2 in jobs_with(tmp_path, "begun")
    assert jobs_with(tmp_path, "done") == [0, 1]


def test_dask_may_lose_workers(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests._utils.dask_run"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout == "good\n", done.stderr
