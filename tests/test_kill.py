"""Rendering that is killed, interrupted, out of disk space, or run twice at once."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interrupted_runs import (
    ROOT,
    contents,
    find_broken,
    is_unfinished,
    kill_and_resume,
    start_render,
    wait_for,
    write_takes,
)

PROGRAMS = ROOT / "tests" / "programs"


def run_module(name, *arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", f"tests.programs.{name}", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        **options,
    )


def use_site(name):
    """Return an environment in which Python runs a sitecustomize module."""
    path = os.pathsep.join([str(PROGRAMS / name), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path}


@pytest.fixture(scope="module")
def takes(tmp_path_factory):
    return write_takes(tmp_path_factory.mktemp("takes"), 40)


@pytest.fixture(scope="module")
def clean(takes, tmp_path_factory):
    """Contents of the tile folder of an uninterrupted run."""
    out = tmp_path_factory.mktemp("clean") / "out"
    code, _, err = wait_for(start_render(takes, out))
    assert code == 0, err
    return contents(out)


@pytest.mark.slow
def test_killed_runs_are_resumed(tmp_path):
    n_finished = kill_and_resume(tmp_path, 10, 40)
    assert any(0 < n < 40 for n in n_finished)  # some were killed in between


@pytest.mark.parametrize("damage", ["delete", "cut"])
def test_damaged_files_are_found(clean, tmp_path, damage):
    """The check of the tests below can fail."""
    for name, data in clean.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert find_broken(tmp_path, clean) == []
    tile = next(tmp_path.glob("tiles/*/*/00000.png"))
    if damage == "delete":
        tile.unlink()
    else:
        tile.write_bytes(b"half")
    assert find_broken(tmp_path, clean) == [tile.relative_to(tmp_path).as_posix()]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_ctrl_c_finishes_the_running_recordings(takes, clean, tmp_path, n_jobs):
    out = tmp_path / "out"
    environment = {
        **use_site("interrupting"),
        "INTERRUPT_MARKER": str(tmp_path / "interrupted"),
    }
    process = start_render(takes, out, n_jobs, env=environment)
    code, stdout, stderr = wait_for(process)
    assert (code, stdout) == (130, ""), stderr
    assert "Ctrl-C" in stderr.splitlines()[0]
    assert stderr.splitlines()[-1].startswith("cqt2img: ")
    found = contents(out)
    assert 1 < len(found) < len(clean)
    assert not any(map(is_unfinished, found))
    assert find_broken(out, clean) == []
    code, _, _ = wait_for(start_render(takes, out, n_jobs))
    assert code == 0
    assert contents(out) == clean


def test_two_runs_may_write_to_one_folder(takes, clean, tmp_path):
    for n in range(2):
        out = tmp_path / f"out {n}"
        runs = [start_render(takes, out) for _ in range(2)]
        for run in runs:
            code, stdout, stderr = wait_for(run)
            assert (code, stderr) == (0, "")
            assert stdout == f"40 tiles of 40 recordings in {out}\n"
        assert contents(out) == clean


def test_files_that_crash_or_hang_affect_only_themselves(takes, clean, tmp_path):
    player = shutil.copytree(takes / "player 0", tmp_path / "takes" / "player 0")
    for name in ("take 1 crash.wav", "take 2 hang.wav"):
        shutil.copy(player / "take 0.wav", player / name)
    done = run_module(
        "render_with_timeout",
        tmp_path / "takes",
        tmp_path / "out",
        env=use_site("hostile"),
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert len(rows) == 12
    failed = {row["reason"]: row for row in rows if row["status"] != "ok"}
    assert set(failed) == {"worker_died", "timeout"}
    for reason, word in (("worker_died", "crash"), ("timeout", "hang")):
        assert word in Path(failed[reason]["path"]).name
        assert repr(failed[reason]["path"]) in failed[reason]["message"]
        assert failed[reason]["n_tiles"] == 0
    found = contents(tmp_path / "out")
    assert not any(map(is_unfinished, found))
    tiles = {name for name in found if name.endswith(".png")}
    expected = {name for name in clean if name.startswith("tiles/player 0")}
    assert tiles == {name for name in expected if name.endswith(".png")}


def test_a_full_disk_at_any_write_is_survived(tmp_path):
    takes = write_takes(tmp_path / "takes", 6)
    done = run_module("render_on_full_disk", takes, tmp_path)
    assert done.returncode == 0, done.stderr
    assert 30 <= int(done.stdout) < 50  # the later runs need fewer writes
