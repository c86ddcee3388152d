"""Training callbacks: a progress bar, a csv log and TensorBoard."""

import csv
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from cqt2img._utils.files import disk_full_error, write_atomic
from cqt2img._utils.progress import make_bar

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)
_FLUSH_SECONDS = 10  # a killed process loses no more of the curves; the default is 120
_LOSS_MEMORY = 0.95  # of the running mean that the progress bar shows


class EpochMetrics(TypedDict):
    """The metrics of one epoch, one row of the history.

    Attributes
    ----------
    epoch : int
        Number of the epoch, from 1.
    loss : float
        Mean training loss over the steps, in nats.
    valid_accuracy : float or None
        Part of the validation recordings that are predicted right, 0 to 1; None
        without validation recordings.
    valid_loss : float or None
        Log-loss of the validation recordings in nats.
    learning_rate : float
        Highest learning rate of any layer in the last step; 0 for a linear probe.
    seconds : float
        Wall time, with validation.
    """

    epoch: int
    loss: float
    valid_accuracy: float | None
    valid_loss: float | None
    learning_rate: float
    seconds: float


class Callback:
    """Base class for training callbacks; all hooks are no-ops.

    Where several processes train together, only the main process calls them.
    """

    def on_train_begin(
        self, n_epochs: int, n_steps: int, n_done: int, history: Sequence[EpochMetrics]
    ) -> None:
        """Handle the start of training; a linear probe, which has no steps, skips it.

        Parameters
        ----------
        n_epochs : int
            Number of epochs in all.
        n_steps : int
            Number of steps in an epoch.
        n_done : int
            Number of steps that an interrupted run has already taken.
        history : sequence of EpochMetrics
            The epochs that an interrupted run has completed.
        """

    def on_step_end(self, loss: float) -> None:
        """Handle the end of a training step.

        Parameters
        ----------
        loss : float
            Mean loss of the batch, in nats.
        """

    def on_epoch_end(self, entry: EpochMetrics) -> None:
        """Handle the end of an epoch, after its validation.

        Parameters
        ----------
        entry : EpochMetrics
            The metrics of the epoch.
        """


class CallbackList(Callback):
    """Call several callbacks in order.

    Parameters
    ----------
    callbacks : sequence of Callback
        The callbacks.
    """

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self.callbacks = callbacks

    def on_train_begin(
        self, n_epochs: int, n_steps: int, n_done: int, history: Sequence[EpochMetrics]
    ) -> None:
        """Call `on_train_begin` of every callback.

        Parameters
        ----------
        n_epochs, n_steps, n_done, history
            As for `Callback`.
        """
        for callback in self.callbacks:
            callback.on_train_begin(n_epochs, n_steps, n_done, history)

    def on_step_end(self, loss: float) -> None:
        """Call `on_step_end` of every callback.

        Parameters
        ----------
        loss : float
            Mean loss of the batch, in nats.
        """
        for callback in self.callbacks:
            callback.on_step_end(loss)

    def on_epoch_end(self, entry: EpochMetrics) -> None:
        """Call `on_epoch_end` of every callback.

        Parameters
        ----------
        entry : EpochMetrics
            The metrics of the epoch.
        """
        for callback in self.callbacks:
            callback.on_epoch_end(entry)


class _ProgressBar(Callback):
    """A progress bar over all steps, with the loss and the validation accuracy.

    Parameters
    ----------
    stack : ExitStack
        Closes the bar.
    visible : bool
        Whether to show the bar where the output is a terminal.
    """

    def __init__(self, stack: ExitStack, visible: bool) -> None:
        self._stack = stack
        self._visible = visible
        self._n_epochs = 0
        self._loss: float | None = None
        self._shown: dict[str, str] = {}

    def on_train_begin(
        self, n_epochs: int, n_steps: int, n_done: int, history: Sequence[EpochMetrics]
    ) -> None:
        """Open the bar."""
        self._n_epochs = n_epochs
        options = {} if self._visible else {"disable": True}
        bar = make_bar(n_epochs * n_steps, "fitting", initial=n_done, **options)
        self._bar = self._stack.enter_context(bar)

    def on_step_end(self, loss: float) -> None:
        """Advance by one step."""
        if self._loss is None:
            self._loss = loss
        self._loss = _LOSS_MEMORY * self._loss + (1 - _LOSS_MEMORY) * loss
        texts = {"loss": f"{self._loss:.3f}", **self._shown}
        self._bar.set_postfix(texts, refresh=False)
        self._bar.update()

    def on_epoch_end(self, entry: EpochMetrics) -> None:
        """Show the epoch and its validation accuracy."""
        self._shown = {"epoch": f"{entry['epoch']}/{self._n_epochs}"}
        accuracy = entry["valid_accuracy"]
        if accuracy is not None:
            self._shown["validation accuracy"] = f"{accuracy:.3f}"


class _CsvLog(Callback):
    """The history as a csv file with one row per epoch, written after every epoch.

    Parameters
    ----------
    path : Path
        The file. It is replaced as a whole and never read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[EpochMetrics] = []

    def on_train_begin(
        self, n_epochs: int, n_steps: int, n_done: int, history: Sequence[EpochMetrics]
    ) -> None:
        """Start with the rows of an interrupted run."""
        self._rows = list(history)

    def on_epoch_end(self, entry: EpochMetrics) -> None:
        """Add a row."""
        self._rows.append(entry)
        folder = self._path.parent
        with disk_full_error("fit", folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(self._path, self._write)

    def _write(self, part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, list(self._rows[0]))
            table.writeheader()
            table.writerows(self._rows)


class _TensorBoardLog(Callback):
    """The loss of every step and the metrics of every epoch as curves in TensorBoard.

    Steps and epochs are two runs with counts of their own, in the folders `step` and
    `epoch`. With one count for both, a resumed run could not decide whether the
    epoch that ends with the last step of the checkpoint was already logged.

    Parameters
    ----------
    stack : ExitStack
        Closes the files.
    folder : Path
        Folder of the two runs. Points of an interrupted run that are logged again,
        or lie later, are hidden.

    Notes
    -----
    The trackers of Accelerate are not used: `Accelerator.log` has one count for all
    values, and its other trackers would start a new run whenever one is resumed.
    """

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._writer_class: type[SummaryWriter] | None = None
        self._writers: dict[str, SummaryWriter] = {}
        self._n_steps = 0

    def on_train_begin(
        self, n_epochs: int, n_steps: int, n_done: int, history: Sequence[EpochMetrics]
    ) -> None:
        """Import TensorBoard, if it is installed."""
        self._n_steps = n_done
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as err:
            log.info(
                "fit: TensorBoard is not installed (%s), so history.csv is the only "
                "log. Install it with pip install 'cqt2img[tensorboard]'.",
                err,
            )
        else:
            self._writer_class = SummaryWriter

    def on_step_end(self, loss: float) -> None:
        """Add a point to the loss."""
        self._n_steps += 1
        self._add("step", {"loss": loss}, self._n_steps)

    def on_epoch_end(self, entry: EpochMetrics) -> None:
        """Add a point to the curve of every metric."""
        values = {
            "loss": entry["loss"],
            "valid_accuracy": entry["valid_accuracy"],
            "valid_loss": entry["valid_loss"],
            "learning_rate": entry["learning_rate"],
            "seconds": entry["seconds"],
        }
        self._add("epoch", values, entry["epoch"])

    def _add(self, run: str, values: Mapping[str, float | None], n: int) -> None:
        if self._writer_class is None:
            return
        with disk_full_error("fit", self._folder):
            if run not in self._writers:
                self._writers[run] = self._writer_class(
                    str(self._folder / run), purge_step=n, flush_secs=_FLUSH_SECONDS
                )
                self._stack.callback(self._close, run)
            for name, value in values.items():
                if value is not None:
                    self._writers[run].add_scalar(f"{run}/{name}", value, n)

    def _close(self, run: str) -> None:
        with disk_full_error("fit", self._folder):
            self._writers[run].close()


@contextmanager
def default_callbacks(visible: bool, folder: Path | None = None) -> Iterator[Callback]:
    """Create the callbacks of `Classifier.fit`, and close them at the end.

    Parameters
    ----------
    visible : bool
        Whether to show a progress bar where the output is a terminal.
    folder : Path, optional
        Folder for `history.csv` and for the TensorBoard runs in `tensorboard`. Where
        TensorBoard is not installed, an info message says how to install it, and
        only the csv file is written.

    Yields
    ------
    Callback
        All callbacks.
    """
    with ExitStack() as stack:
        callbacks: list[Callback] = [_ProgressBar(stack, visible)]
        if folder is not None:
            callbacks.append(_CsvLog(folder / "history.csv"))
            callbacks.append(_TensorBoardLog(stack, folder / "tensorboard"))
        yield CallbackList(callbacks)
