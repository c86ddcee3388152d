"""Who looks on while a network is trained: a progress bar, a table, TensorBoard."""

import csv
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from cqt2img._utils.files import disk_full_error, write_atomic
from cqt2img._utils.progress import make_bar

log = logging.getLogger(__name__)
_FLUSH_SECONDS = 10  # a kill costs the curves no more, and two minutes by default


class Callback:
    """Gets told how training goes. This one does not listen; others derive from it."""

    def begin(
        self,
        n_epochs: int,
        n_steps: int,
        done: int,
        history: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Hear how long it takes.

        Parameters
        ----------
        n_epochs : int
            Epochs in all.
        n_steps : int
            Steps of an epoch.
        done : int
            Steps that were taken in an earlier run.
        history : sequence of dict
            What is known of the epochs of an earlier run.
        """

    def step(self, loss: float) -> None:
        """Hear of a step.

        Parameters
        ----------
        loss : float
            Of its batch.
        """

    def epoch(self, entry: dict[str, Any]) -> None:
        """Hear of an epoch.

        Parameters
        ----------
        entry : dict
            What the history says of it.
        """


class _CallbackList(Callback):
    """Several who look on.

    Parameters
    ----------
    watches : sequence of Callback
        Who.
    """

    def __init__(self, watches: Sequence[Callback]) -> None:
        self.watches = watches

    def begin(
        self,
        n_epochs: int,
        n_steps: int,
        done: int,
        history: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Tell all; the words are those of `Callback`."""
        for watch in self.watches:
            watch.begin(n_epochs, n_steps, done, history)

    def step(self, loss: float) -> None:
        """Tell all."""
        for watch in self.watches:
            watch.step(loss)

    def epoch(self, entry: dict[str, Any]) -> None:
        """Tell all."""
        for watch in self.watches:
            watch.epoch(entry)


class _Bar(Callback):
    """A progress bar of steps, with the loss, the validation accuracy and the time left.

    Parameters
    ----------
    stack : ExitStack
        Closes the bar at its end.
    visible : bool
        Whether to show anything.
    """

    def __init__(self, stack: ExitStack, visible: bool) -> None:
        self.stack, self.visible = stack, visible
        self.shown: dict[str, str] = {}
        self.loss: float | None = None
        self.n_epochs = 0

    def begin(
        self,
        n_epochs: int,
        n_steps: int,
        done: int,
        history: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Open the bar."""
        options = {} if self.visible else {"disable": True}
        self.n_epochs = n_epochs
        self.bar = self.stack.enter_context(
            make_bar(n_epochs * n_steps, "fitting", initial=done, **options)
        )

    def step(self, loss: float) -> None:
        """Go on by one."""
        self.loss = loss if self.loss is None else 0.95 * self.loss + 0.05 * loss
        self.bar.set_postfix({"loss": f"{self.loss:.3f}", **self.shown}, refresh=False)
        self.bar.update()

    def epoch(self, entry: dict[str, Any]) -> None:
        """Show how the validation recordings were told apart."""
        self.shown = {"epoch": f"{entry['epoch']}/{self.n_epochs}"}
        if entry["valid_accuracy"] is not None:
            self.shown["validation accuracy"] = f"{entry['valid_accuracy']:.3f}"


class _CsvLog(Callback):
    """The history as a table, one row an epoch, that grows while training runs.

    Parameters
    ----------
    path : Path
        The file; it is written anew, whole, and never read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []

    def begin(
        self,
        n_epochs: int,
        n_steps: int,
        done: int,
        history: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Begin with the rows of an earlier run."""
        self.rows = list(history)

    def epoch(self, entry: dict[str, Any]) -> None:
        """Add a row."""
        self.rows.append(entry)
        with disk_full_error("fit", self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path, self._write)

    def _write(self, part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, list(self.rows[0]))
            table.writeheader()
            table.writerows(self.rows)


class _BoardLog(Callback):
    """The loss of every step and the history of every epoch, as curves in TensorBoard.

    Steps and epochs are two runs, each with its own count, in the folders `step` and `epoch`: one
    count for both could not say whether the epoch that ends with the last step of a checkpoint is done.

    Parameters
    ----------
    stack : ExitStack
        Closes the files at its end.
    folder : Path
        Where the runs go; points of an earlier run that come again, or later, are hidden.
    """

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.stack, self.folder = stack, folder
        self.writer: Any = None
        self.runs: dict[str, Any] = {}
        self.n = 0

    def begin(
        self,
        n_epochs: int,
        n_steps: int,
        done: int,
        history: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Go on from the last step, if TensorBoard is there."""
        self.n = done
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as err:
            log.info(
                "fit: history.csv is the only log, for TensorBoard is missing (%s). "
                "Get it with pip install 'cqt2img[tensorboard]'.",
                err,
            )
        else:
            self.writer = SummaryWriter

    def step(self, loss: float) -> None:
        """Add a point to the loss."""
        self.n += 1
        self._add("step", {"loss": loss}, self.n)

    def epoch(self, entry: dict[str, Any]) -> None:
        """Add a point to every curve of the history."""
        self._add(
            "epoch",
            {k: v for k, v in entry.items() if k != "epoch" and v is not None},
            entry["epoch"],
        )

    def _add(self, run: str, values: dict[str, float], n: int) -> None:
        if self.writer is None:
            return
        with disk_full_error("fit", self.folder):
            if run not in self.runs:
                self.runs[run] = self.writer(
                    str(self.folder / run), purge_step=n, flush_secs=_FLUSH_SECONDS
                )
                self.stack.callback(self._close, run)
            for name, value in values.items():
                self.runs[run].add_scalar(f"{run}/{name}", value, n)

    def _close(self, run: str) -> None:
        with disk_full_error("fit", self.folder):
            self.runs[run].close()


@contextmanager
def default_callbacks(visible: bool, folder: Path | None = None) -> Iterator[Callback]:
    """Set up who looks on.

    Parameters
    ----------
    visible : bool
        Whether to show a progress bar, where somebody can see it.
    folder : Path, optional
        Where to keep `history.csv` and, below `tensorboard`, what TensorBoard shows. Where TensorBoard
        is not installed, an info line of the log says how to get it, and there is the table alone.

    Yields
    ------
    Callback
        All of them.
    """
    with ExitStack() as stack:
        watches: list[Callback] = [_Bar(stack, visible)]
        if folder is not None:
            watches += [
                _CsvLog(folder / "history.csv"),
                _BoardLog(stack, folder / "tensorboard"),
            ]
        yield _CallbackList(watches)
