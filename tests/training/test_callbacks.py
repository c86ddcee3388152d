import csv
import errno
import itertools
import logging
import sys
import threading
from types import SimpleNamespace

import pytest

from cqt2img.classifier import Classifier
from cqt2img.errors import InputError
from cqt2img.training.callbacks import default_callbacks
from tests.conftest import raises_exactly


def entry(n, **changes):
    return {
        "epoch": n,
        "loss": 0.5 / n,
        "valid_accuracy": None,
        "valid_loss": None,
        "seconds": 1.0,
        **changes,
    }


def table(folder):
    with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
        return [(row["epoch"], row["loss"]) for row in csv.DictReader(file)]


def test_the_history_grows_in_a_table(tmp_path):
    with default_callbacks(False, tmp_path / "ck") as watch:
        watch.begin(3, 10, 0)
        for n in (1, 2):
            watch.epoch(entry(n))
            assert len(table(tmp_path / "ck")) == n
    with default_callbacks(
        False, tmp_path / "ck"
    ) as watch:  # resumed in the second epoch, which is done again
        watch.begin(3, 10, 15, [entry(1)])
        watch.epoch(entry(2, loss=0.1))
        watch.epoch(entry(3, loss=0.05))
    assert table(tmp_path / "ck") == [("1", "0.5"), ("2", "0.1"), ("3", "0.05")]
    with default_callbacks(
        False, tmp_path / "ck"
    ) as watch:  # a new training begins a new table
        watch.epoch(entry(1, loss=9.0))
    assert table(tmp_path / "ck") == [("1", "9.0")]


# TensorBoard


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on between two runs: TensorBoard reads files in the order of the seconds in their names."""
    writer = pytest.importorskip("tensorboard.summary.writer.event_file_writer")
    monkeypatch.setattr(
        writer, "time", SimpleNamespace(time=itertools.count(1_800_000_000).__next__)
    )


def curves(folder):
    """Points of every curve below a folder, as TensorBoard shows them."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    found = {}
    for run in sorted(path for path in folder.iterdir() if path.is_dir()):
        events = accumulator.EventAccumulator(str(run)).Reload()
        for tag in events.Tags()["scalars"]:
            assert tag not in found
            found[tag] = [(event.step, event.value) for event in events.Scalars(tag)]
    return found


def look(folder, losses, entries, done=0, n_steps=2, history=()):
    """Train as `train` would tell it: `losses` of steps, and an entry whenever an epoch is full."""
    entries = iter(entries)
    with default_callbacks(False, folder) as watch:
        watch.begin(3, n_steps, done, history)
        for n, loss in enumerate(losses, start=done + 1):
            watch.step(loss)
            if n % n_steps == 0:
                watch.epoch(next(entries))


def test_curves_of_tensorboard(tmp_path, clock):
    entries = [
        entry(1, valid_accuracy=0.25, valid_loss=1.5, learning_rate=0.125),
        entry(2, valid_accuracy=0.75, valid_loss=0.5, learning_rate=0.0625),
    ]
    look(tmp_path, [4.0, 3.0, 2.0, 1.0], entries)
    assert curves(tmp_path / "tensorboard") == {
        "step/loss": [(1, 4.0), (2, 3.0), (3, 2.0), (4, 1.0)],
        "epoch/loss": [(1, 0.5), (2, 0.25)],
        "epoch/valid_accuracy": [(1, 0.25), (2, 0.75)],
        "epoch/valid_loss": [(1, 1.5), (2, 0.5)],
        "epoch/learning_rate": [(1, 0.125), (2, 0.0625)],
        "epoch/seconds": [(1, 1.0), (2, 1.0)],
    }
    assert table(tmp_path) == [("1", "0.5"), ("2", "0.25")]


def test_no_curves_of_a_validation_that_is_not_there(tmp_path, clock):
    look(tmp_path, [2.0, 1.0], [entry(1)])
    assert sorted(curves(tmp_path / "tensorboard")) == [
        "epoch/loss",
        "epoch/seconds",
        "step/loss",
    ]


@pytest.mark.parametrize(
    "lost", [0, 5], ids=["stopped", "killed in the middle of a point"]
)
def test_no_point_of_a_resumed_training_comes_twice(tmp_path, clock, lost):
    look(tmp_path, [9.0, 8.0, 7.0, 6.0, 5.0], [entry(1), entry(2)])
    if lost:
        for file in (tmp_path / "tensorboard").rglob("events*"):
            file.write_bytes(file.read_bytes()[:-lost])
    look(
        tmp_path,
        [0.5, 0.25, 0.125],
        [entry(2, loss=0.125), entry(3, loss=0.0625)],
        done=3,
        history=[entry(1)],
    )
    found = curves(tmp_path / "tensorboard")
    assert found["step/loss"] == [
        (1, 9.0),
        (2, 8.0),
        (3, 7.0),
        (4, 0.5),
        (5, 0.25),
        (6, 0.125),
    ]
    assert found["epoch/loss"] == [(1, 0.5), (2, 0.125), (3, 0.0625)]
    assert table(tmp_path) == [("1", "0.5"), ("2", "0.125"), ("3", "0.0625")]


@pytest.mark.parametrize(
    "closed", [True, False], ids=["after the epoch", "before its validation"]
)
def test_resumed_at_the_end_of_an_epoch(tmp_path, clock, closed):
    """The checkpoint of its last step may be older than the epoch's entry, or hold it."""
    look(tmp_path, [4.0, 3.0], [entry(1)])
    with default_callbacks(False, tmp_path) as watch:
        watch.begin(2, 2, 2)
        if not closed:
            watch.epoch(entry(1, loss=0.75))
        watch.step(2.0)
        watch.step(1.0)
        watch.epoch(entry(2))
    found = curves(tmp_path / "tensorboard")
    assert found["step/loss"] == [(1, 4.0), (2, 3.0), (3, 2.0), (4, 1.0)]
    assert found["epoch/loss"] == [(1, 0.5 if closed else 0.75), (2, 0.25)]


def test_a_new_training_begins_new_curves(tmp_path, clock):
    look(tmp_path, [4.0, 3.0, 2.0, 1.0], [entry(1), entry(2)])
    look(tmp_path, [0.5, 0.25], [entry(1, loss=0.125)])
    found = curves(tmp_path / "tensorboard")
    assert found["step/loss"] == [(1, 0.5), (2, 0.25)]
    assert found["epoch/loss"] == [(1, 0.125)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_files_are_closed_whatever_happens(tmp_path, clock, error):
    before, counts = set(threading.enumerate()), []

    def stop():
        with default_callbacks(False, tmp_path) as watch:
            watch.begin(1, 10, 0)
            watch.step(2.0)
            watch.epoch(entry(1))
            counts.append(len(set(threading.enumerate()) - before))
            raise error

    with pytest.raises(error):
        stop()
    assert counts == [2]  # each file has a thread that writes
    assert set(threading.enumerate()) == before
    assert curves(tmp_path / "tensorboard")["step/loss"] == [(1, 2.0)]


def test_curves_of_a_fit(tile_folder, options, tmp_path, clock):
    model = Classifier(**options).fit(tile_folder, checkpoint=tmp_path)
    found = curves(tmp_path / "tensorboard")
    for name in ("loss", "valid_accuracy", "valid_loss", "learning_rate", "seconds"):
        expected = [
            (entry["epoch"], pytest.approx(entry[name])) for entry in model.history_
        ]  # curves are float32
        assert found[f"epoch/{name}"] == expected
    n_steps, losses = zip(*found["step/loss"], strict=True)
    assert list(n_steps) == list(range(1, len(losses) + 1))
    firsts = losses[: len(losses) // options["epochs"]]
    assert sum(firsts) / len(firsts) == pytest.approx(model.history_[0]["loss"])
    Classifier(**options).fit(
        tile_folder, checkpoint=tmp_path, resume=True
    )  # which has nothing left to do
    assert curves(tmp_path / "tensorboard") == found


def test_who_is_told_nothing_writes_nothing(tmp_path):
    """Of several processes that train together only the first is told."""
    with default_callbacks(False, tmp_path / "ck"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_in_one_sentence(tmp_path, monkeypatch):
    board = pytest.importorskip("torch.utils.tensorboard")

    def full(folder, **options):
        raise OSError(errno.ENOSPC, "No space left on device", folder)

    monkeypatch.setattr(board, "SummaryWriter", full)
    path = str(tmp_path / "tensorboard" / "step")
    message = (
        f"fit: the disk is full at {path!r}. "
        "Free some space and run again; finished work is kept."
    )
    with (
        raises_exactly(InputError, message),
        default_callbacks(False, tmp_path) as watch,
    ):
        watch.begin(1, 10, 0)
        watch.step(2.0)


def test_without_tensorboard_the_table_is_alone(tmp_path, monkeypatch, caplog):
    for name in [
        name for name in sys.modules if name.startswith("torch.utils.tensorboard")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as if it were not installed
    with caplog.at_level(logging.INFO, "cqt2img"):
        look(tmp_path, [2.0, 1.0], [entry(1)])
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "INFO",
            "fit: history.csv is the only log, for TensorBoard is missing (import of tensorboard halted; None in "
            "sys.modules). Get it with pip install 'cqt2img[tensorboard]'.",
        )
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["history.csv"]
    assert table(tmp_path) == [("1", "0.5")]


def test_without_a_folder_nothing_is_said_of_tensorboard(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with caplog.at_level(logging.DEBUG, "cqt2img"), default_callbacks(False) as watch:
        watch.begin(1, 1, 0)
        watch.step(1.0)
        watch.epoch(entry(1))
    assert caplog.records == []
