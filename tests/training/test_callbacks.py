import csv
import errno
import itertools
import logging
import sys
import threading
from types import SimpleNamespace

import pytest

from cqt2img.errors import InputError
from cqt2img.training.callbacks import Callback, CallbackList, default_callbacks
from tests.conftest import raises_with
from tests.training.conftest import Recorder, fit


def make_entry(epoch, **changes):
    return {
        "epoch": epoch,
        "loss": 0.5 / epoch,
        "valid_accuracy": None,
        "valid_loss": None,
        "learning_rate": 0.125,
        "seconds": 1.0,
        **changes,
    }


def read_csv(folder):
    with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
        return [(row["epoch"], row["loss"]) for row in csv.DictReader(file)]


def train(folder, losses, entries, n_done=0, n_steps=2, history=()):
    """Call the hooks as training does, with an entry whenever an epoch is complete."""
    entries = iter(entries)
    with default_callbacks(False, folder) as callback:
        callback.on_train_begin(3, n_steps, n_done, history)
        for n, loss in enumerate(losses, start=n_done + 1):
            callback.on_step_end(loss)
            if n % n_steps == 0:
                callback.on_epoch_end(next(entries))


def test_the_base_class_has_every_hook_as_a_no_op():
    callback = Callback()
    assert callback.on_train_begin(2, 3, 0, []) is None
    assert callback.on_step_end(0.5) is None
    assert callback.on_epoch_end(make_entry(1)) is None


def test_a_list_calls_all_callbacks_in_order():
    callbacks = [Recorder(), Recorder()]
    together = CallbackList(callbacks)
    together.on_train_begin(2, 3, 1, [make_entry(1)])
    together.on_step_end(0.5)
    together.on_epoch_end(make_entry(2))
    for callback in callbacks:
        assert callback.begun == (2, 3, 1, [make_entry(1)])
        assert callback.losses == [0.5]
        assert callback.entries == [make_entry(2)]


@pytest.mark.parametrize("visible", [True, False])
def test_the_progress_bar_is_hidden_without_a_terminal(visible, capsys):
    with default_callbacks(visible) as callback:
        callback.on_train_begin(2, 1, 0, [])
        for epoch, accuracy in enumerate((0.5, None), start=1):
            callback.on_step_end(0.5)
            callback.on_epoch_end(make_entry(epoch, valid_accuracy=accuracy))
    assert capsys.readouterr() == ("", "")


# csv


def test_the_csv_file_grows_by_a_row_per_epoch(tmp_path):
    folder = tmp_path / "checkpoint"
    with default_callbacks(False, folder) as callback:
        callback.on_train_begin(3, 10, 0, [])
        for epoch in (1, 2):
            callback.on_epoch_end(make_entry(epoch))
            assert len(read_csv(folder)) == epoch
    # resumed in the second epoch, which is trained again
    with default_callbacks(False, folder) as callback:
        callback.on_train_begin(3, 10, 15, [make_entry(1)])
        callback.on_epoch_end(make_entry(2, loss=0.1))
        callback.on_epoch_end(make_entry(3, loss=0.05))
    assert read_csv(folder) == [("1", "0.5"), ("2", "0.1"), ("3", "0.05")]
    # a new run starts a new file; a linear probe has epochs without a beginning
    with default_callbacks(False, folder) as callback:
        callback.on_epoch_end(make_entry(1, loss=9.0))
    assert read_csv(folder) == [("1", "9.0")]


def test_callbacks_that_are_not_called_write_nothing(tmp_path):
    """Of several processes that train together, only the first calls them."""
    with default_callbacks(False, tmp_path / "checkpoint"):
        pass
    assert list(tmp_path.iterdir()) == []


# TensorBoard


@pytest.fixture
def clock(monkeypatch):
    """A clock that advances between two runs.

    TensorBoard reads files in the order of the seconds in their names.
    """
    writer = pytest.importorskip("tensorboard.summary.writer.event_file_writer")
    seconds = itertools.count(1_800_000_000)
    monkeypatch.setattr(writer, "time", SimpleNamespace(time=seconds.__next__))


def read_curves(folder):
    """Points of every curve below a folder, as TensorBoard shows them."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    curves = {}
    for run in sorted(path for path in folder.iterdir() if path.is_dir()):
        events = accumulator.EventAccumulator(str(run)).Reload()
        for tag in events.Tags()["scalars"]:
            assert tag not in curves
            curves[tag] = [(event.step, event.value) for event in events.Scalars(tag)]
    return curves


def test_every_metric_has_a_curve(tmp_path, clock):
    entries = [
        make_entry(1, valid_accuracy=0.25, valid_loss=1.5),
        make_entry(2, valid_accuracy=0.75, valid_loss=0.5, learning_rate=0.0625),
    ]
    train(tmp_path, [4.0, 3.0, 2.0, 1.0], entries)
    assert read_curves(tmp_path / "tensorboard") == {
        "step/loss": [(1, 4.0), (2, 3.0), (3, 2.0), (4, 1.0)],
        "epoch/loss": [(1, 0.5), (2, 0.25)],
        "epoch/valid_accuracy": [(1, 0.25), (2, 0.75)],
        "epoch/valid_loss": [(1, 1.5), (2, 0.5)],
        "epoch/learning_rate": [(1, 0.125), (2, 0.0625)],
        "epoch/seconds": [(1, 1.0), (2, 1.0)],
    }
    assert read_csv(tmp_path) == [("1", "0.5"), ("2", "0.25")]


def test_metrics_that_are_none_have_no_curve(tmp_path, clock):
    train(tmp_path, [2.0, 1.0], [make_entry(1)])
    assert sorted(read_curves(tmp_path / "tensorboard")) == [
        "epoch/learning_rate",
        "epoch/loss",
        "epoch/seconds",
        "step/loss",
    ]


@pytest.mark.parametrize(
    "n_lost_bytes", [0, 5], ids=["stopped", "killed while a point was written"]
)
def test_a_resumed_run_shows_no_point_twice(tmp_path, clock, n_lost_bytes):
    train(tmp_path, [9.0, 8.0, 7.0, 6.0, 5.0], [make_entry(1), make_entry(2)])
    if n_lost_bytes:
        for file in (tmp_path / "tensorboard").rglob("events*"):
            file.write_bytes(file.read_bytes()[:-n_lost_bytes])
    train(
        tmp_path,
        [0.5, 0.25, 0.125],
        [make_entry(2, loss=0.125), make_entry(3, loss=0.0625)],
        n_done=3,
        history=[make_entry(1)],
    )
    curves = read_curves(tmp_path / "tensorboard")
    losses = [9.0, 8.0, 7.0, 0.5, 0.25, 0.125]
    assert curves["step/loss"] == list(enumerate(losses, start=1))
    assert curves["epoch/loss"] == [(1, 0.5), (2, 0.125), (3, 0.0625)]
    assert read_csv(tmp_path) == [("1", "0.5"), ("2", "0.125"), ("3", "0.0625")]


@pytest.mark.parametrize(
    "is_validated", [True, False], ids=["after validation", "before validation"]
)
def test_a_run_is_resumed_at_the_end_of_an_epoch(tmp_path, clock, is_validated):
    """The checkpoint of its last step may be older than its entry, or hold it."""
    train(tmp_path, [4.0, 3.0], [make_entry(1)])
    with default_callbacks(False, tmp_path) as callback:
        callback.on_train_begin(2, 2, 2, [make_entry(1)] if is_validated else [])
        if not is_validated:
            callback.on_epoch_end(make_entry(1, loss=0.75))
        callback.on_step_end(2.0)
        callback.on_step_end(1.0)
        callback.on_epoch_end(make_entry(2))
    curves = read_curves(tmp_path / "tensorboard")
    assert curves["step/loss"] == [(1, 4.0), (2, 3.0), (3, 2.0), (4, 1.0)]
    assert curves["epoch/loss"] == [(1, 0.5 if is_validated else 0.75), (2, 0.25)]


def test_a_new_run_starts_new_curves(tmp_path, clock):
    train(tmp_path, [4.0, 3.0, 2.0, 1.0], [make_entry(1), make_entry(2)])
    train(tmp_path, [0.5, 0.25], [make_entry(1, loss=0.125)])
    curves = read_curves(tmp_path / "tensorboard")
    assert curves["step/loss"] == [(1, 0.5), (2, 0.25)]
    assert curves["epoch/loss"] == [(1, 0.125)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_files_are_closed_after_an_error(tmp_path, clock, error):
    before = set(threading.enumerate())
    n_threads = []

    def stop():
        with default_callbacks(False, tmp_path) as callback:
            callback.on_train_begin(1, 10, 0, [])
            callback.on_step_end(2.0)
            callback.on_epoch_end(make_entry(1))
            n_threads.append(len(set(threading.enumerate()) - before))
            raise error

    with pytest.raises(error):
        stop()
    assert n_threads == [2]  # each file has a thread that writes
    assert set(threading.enumerate()) == before
    assert read_curves(tmp_path / "tensorboard")["step/loss"] == [(1, 2.0)]


def test_the_curves_of_a_training_run_are_its_history(tile_arrays, tmp_path, clock):
    recorder = Recorder()
    with default_callbacks(False, tmp_path) as callback:
        together = CallbackList([callback, recorder])
        _, result = fit(tile_arrays, callback=together, checkpoint=tmp_path)
    curves = read_curves(tmp_path / "tensorboard")
    for name in ("loss", "valid_accuracy", "valid_loss", "learning_rate", "seconds"):
        # curves are float32
        assert curves[f"epoch/{name}"] == [
            (entry["epoch"], pytest.approx(entry[name])) for entry in result.history
        ]
    expected = [(n, pytest.approx(x)) for n, x in enumerate(recorder.losses, start=1)]
    assert curves["step/loss"] == expected
    # a finished run that is resumed has no step left
    with default_callbacks(False, tmp_path) as callback:
        fit(tile_arrays, callback=callback, checkpoint=tmp_path, resume=True)
    assert read_curves(tmp_path / "tensorboard") == curves


def test_a_full_disk_is_an_error_with_its_path(tmp_path, monkeypatch):
    tensorboard = pytest.importorskip("torch.utils.tensorboard")

    def full(folder, **options):
        raise OSError(errno.ENOSPC, "No space left on device", folder)

    monkeypatch.setattr(tensorboard, "SummaryWriter", full)
    path = tmp_path / "tensorboard" / "step"
    with (
        raises_with(InputError, "fit", "disk", repr(str(path))),
        default_callbacks(False, tmp_path) as callback,
    ):
        callback.on_train_begin(1, 10, 0, [])
        callback.on_step_end(2.0)


@pytest.fixture
def no_tensorboard(monkeypatch):
    """As if TensorBoard were not installed."""
    for name in list(sys.modules):
        if name.startswith("torch.utils.tensorboard"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)


def test_without_tensorboard_only_the_csv_file_is_written(
    tmp_path, no_tensorboard, caplog
):
    with caplog.at_level(logging.INFO, "cqt2img"):
        train(tmp_path, [2.0, 1.0], [make_entry(1)])
    (record,) = caplog.records
    assert record.levelname == "INFO"
    for part in ("history.csv", "TensorBoard", "pip install 'cqt2img[tensorboard]'"):
        assert part in record.getMessage()
    assert [path.name for path in tmp_path.iterdir()] == ["history.csv"]
    assert read_csv(tmp_path) == [("1", "0.5")]


def test_without_a_folder_nothing_is_logged(no_tensorboard, caplog):
    with caplog.at_level(logging.DEBUG, "cqt2img"), default_callbacks(False) as one:
        one.on_train_begin(1, 1, 0, [])
        one.on_step_end(1.0)
        one.on_epoch_end(make_entry(1))
    assert caplog.records == []
