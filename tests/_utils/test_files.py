import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from cqt2img._utils.files import (
    check_folder,
    disk_full_error,
    folder_lock,
    write_atomic,
)
from cqt2img.errors import InputError
from tests.conftest import raises_with

DISK_FULL = OSError(errno.ENOSPC, "No space left on device")


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_file_keeps_its_contents_if_writing_fails(tmp_path):
    path = tmp_path / "table.csv"
    write_atomic(path, lambda part: part.write_text("complete"))

    def write(part):
        part.write_text("hal")
        raise DISK_FULL

    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, write)
    assert contents(tmp_path) == {"table.csv": "complete"}


def test_a_folder_need_not_exist_but_must_be_below_a_folder(tmp_path):
    (tmp_path / "file").touch()
    check_folder(tmp_path)
    check_folder(tmp_path / "new" / "newer")
    check_folder(Path("new"))
    for path in ("file", "file/new", "a" * 300, "a\0b"):
        with raises_with(InputError, repr(str(tmp_path / path)), "can be written"):
            check_folder(tmp_path / path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_must_be_writable(tmp_path):
    tmp_path.chmod(0o500)
    with raises_with(InputError, str(tmp_path)):
        check_folder(tmp_path / "new")


@pytest.mark.parametrize(
    "error",
    [
        DISK_FULL,
        SafetensorError("I/O error: No space left on device (os error 28)"),
        RuntimeError("inline_container.cc:671] . unexpected pos 128 vs 22"),
    ],
)
def test_a_full_disk_is_an_input_error_that_names_the_folder(tmp_path, error):
    parts = ("fit: the disk is full", repr(str(tmp_path)))
    with raises_with(InputError, *parts), disk_full_error("fit", tmp_path):
        raise error


def test_a_full_disk_is_reported_with_the_name_of_the_file_if_known():
    error = OSError(errno.ENOSPC, "No space left on device", "x.png")
    parts = ("render: the disk is full", "'x.png'")
    with raises_with(InputError, *parts), disk_full_error("render", Path("out")):
        raise error


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "bad disk"), RuntimeError("shapes"), ValueError("no")]
)
def test_other_errors_pass_unchanged(tmp_path, error):
    with pytest.raises(type(error)) as caught, disk_full_error("fit", tmp_path):
        raise error
    assert caught.value is error


LEFTOVERS = {
    ".spec.json.123.part",
    ".recordings.csv.5.part",
    "tiles/.part-abcd_123/0.png",
    "tiles/.part-abcdefgh/a.json",
}
OTHERS = {
    "spec.json",
    "tiles/.part-abcdef.wav/0.png",
    "tiles/x.1.part/0.png",
    ".part",
    "tiles/a/.part-abcdefgh/0.png",
}


def fill(folder):
    for name in LEFTOVERS | OTHERS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def visible_contents(folder):
    return {name for name in contents(folder) if not name.endswith(".lock")}


def test_leftovers_are_removed_before_and_after(tmp_path):
    fill(tmp_path)
    with folder_lock(tmp_path):
        assert visible_contents(tmp_path) == OTHERS
        fill(tmp_path)
    assert set(contents(tmp_path)) == OTHERS


def test_leftovers_stay_while_another_run_holds_the_folder(tmp_path):
    with folder_lock(tmp_path):
        fill(tmp_path)
        with folder_lock(tmp_path):
            assert visible_contents(tmp_path) == LEFTOVERS | OTHERS
        assert visible_contents(tmp_path) == LEFTOVERS | OTHERS
    assert set(contents(tmp_path)) == OTHERS


def hold_folder(folder):
    """Hold a folder in another process until its standard input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests._utils.hold_folder", folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout.readline() == b"held\n"
    return process


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_folder_is_held_until_the_other_process_ends(tmp_path, is_killed):
    with hold_folder(tmp_path) as process:
        fill(tmp_path)
        with folder_lock(tmp_path):
            assert visible_contents(tmp_path) == LEFTOVERS | OTHERS
        if is_killed:
            process.kill()
        process.communicate()
        # a process that ends removes what it finds; a killed one also leaves its lock
        left = LEFTOVERS | OTHERS if is_killed else OTHERS
        assert visible_contents(tmp_path) == left
        assert (contents(tmp_path).keys() > visible_contents(tmp_path)) == is_killed
    with folder_lock(tmp_path):
        assert visible_contents(tmp_path) == OTHERS
    assert set(contents(tmp_path)) == OTHERS


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EINVAL, errno.ENOTSUP])
def test_without_locks_a_run_goes_on_and_leftovers_stay(tmp_path, monkeypatch, error):
    def fail(*_):
        raise OSError(error, os.strerror(error))

    fill(tmp_path)
    monkeypatch.setattr("fcntl.flock", fail)
    with folder_lock(tmp_path):
        (tmp_path / "new").touch()
    assert visible_contents(tmp_path) == LEFTOVERS | OTHERS | {"new"}
