import importlib
import os
import pickle
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from cqt2img._utils.worker_pool import WorkerError, WorkerPool
from tests._utils.tasks import loaded_modules, search_path, work

LONG = 600  # seconds; no test takes as long


@pytest.fixture
def pool():
    pool = WorkerPool()
    yield pool
    pool.close()


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def raises_worker_error(reason, cause):
    with pytest.raises(WorkerError) as caught:
        yield
    assert (caught.value.reason, caught.value.cause) == (reason, cause)
    assert caught.value.has_started


def test_a_call_runs_in_another_process_that_is_used_again(pool):
    first = pool.call(work, (0, "process"), LONG)
    assert first != os.getpid()
    assert pool.call(work, (0, "process"), LONG) == first


def test_arrays_survive_the_way_to_the_worker_and_back(pool):
    array = np.arange(1 << 20, dtype=np.float32)
    np.testing.assert_array_equal(pool.call(work, (array,), LONG), array)


@pytest.mark.parametrize("cause", ["SIGSEGV", "SIGKILL", "exit code 5"])
def test_a_crash_is_an_error_with_its_cause(pool, cause):
    with raises_worker_error("worker_died", cause):
        pool.call(work, (0, cause), LONG)
    assert pool.call(work, (1,), LONG) == 1


@pytest.mark.parametrize("action", ["hang", "hang with the lock of the interpreter"])
def test_a_call_is_stopped_after_the_time_limit(pool, action):
    with raises_worker_error("timeout", "0.1 s"):
        pool.call(work, (0, action), 0.1)
    assert pool.call(work, (1,), LONG) == 1


def test_an_exception_is_raised_with_the_traceback_of_the_worker(pool):
    with pytest.raises(OSError, match=r"No space left on device: 'x\.png'") as caught:
        pool.call(work, (0, "disk full"), LONG)
    assert caught.value.errno == 28
    assert "in work\n" in caught.value.__notes__[0]


def test_an_exception_without_a_pickle_becomes_a_runtime_error(pool):
    with pytest.raises(RuntimeError, match="UnpicklableError: 1 and 2"):
        pool.call(work, (0, "unpicklable error"), LONG)


def test_what_a_function_prints_and_reads_is_not_mistaken_for_messages(pool):
    assert pool.call(work, (0, "print"), LONG) == 0
    assert pool.call(work, (1, "read"), LONG) == ""
    assert pool.call(work, (2,), LONG) == 2


def test_a_worker_that_cannot_start_has_not_started_the_call(pool, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(WorkerError) as caught:
        pool.call(work, (0,), LONG)
    assert caught.value.cause == "exit code 1"
    assert not caught.value.has_started


def test_closing_ends_all_workers(pool):
    process = pool.call(work, (0, "process"), LONG)
    pool.close()
    assert not is_alive(process)
    with pytest.raises(RuntimeError, match="closed"):
        pool.call(work, (0,), LONG)


def test_a_worker_ends_with_the_process_that_started_it():
    command = [sys.executable, "-m", "tests._utils.abandon_pool"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    output = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=env).stdout
    while is_alive(int(output)):  # otherwise this test never ends
        time.sleep(0.01)


def test_a_pickled_pool_is_the_pool_of_the_process(pool):
    there = pickle.loads(pickle.dumps(pool))
    assert there is not pool
    assert there is pickle.loads(pickle.dumps(WorkerPool()))


def test_a_worker_imports_nothing_heavy_of_its_own(pool):
    loaded = pool.call(loaded_modules, (), LONG)
    assert "cqt2img._utils" in loaded
    heavy = {"numpy", "torch", "pandas", "scipy", "joblib", "logging", "subprocess"}
    assert heavy.isdisjoint(loaded)


@pytest.mark.parametrize("name", ["json", "numpy", "pickle", "cqt2img"])
def test_files_in_the_current_folder_are_not_executed(
    pool, tmp_path, monkeypatch, name
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{name}.py").write_text("raise SystemExit(7)")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    importlib.import_module(name)
    assert pool.call(work, (np.float32(1),), LONG) == 1


def test_workers_import_from_the_folders_of_the_parent(pool, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "my_module.py").write_text("def answer():\n    return 42\n")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", ["", *sys.path])  # as in a notebook
    module = importlib.import_module("my_module")
    assert pool.call(module.answer, (), LONG) == 42
    path = pool.call(search_path, (), LONG)
    # an editable installation adds a hook, which is not a folder, at any place
    folders = [entry for entry in dict.fromkeys(sys.path) if Path(entry).is_dir()]
    common = [entry for entry in folders if entry in path]
    assert len(common) > 2
    assert [entry for entry in path if entry in common] == common
