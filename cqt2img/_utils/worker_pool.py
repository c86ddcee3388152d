"""Calls in worker processes, of which a crash or a hang costs one call."""

import functools
import logging
import pickle
import signal
import subprocess
import threading
from collections.abc import Callable
from typing import IO, TypeVar

from cqt2img._utils.python_process import module_command, module_environment
from cqt2img._utils.worker import STARTED, send

log = logging.getLogger(__name__)
Result = TypeVar("Result")
# One process for each core is enough.
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
}


class WorkerError(Exception):
    """Raised when a worker process dies or exceeds the time limit.

    Parameters
    ----------
    reason : str
        "worker_died" or "timeout".
    cause : str
        Name of the signal, the exit code or the time limit.
    has_started : bool
        Whether the worker had started the call.
    """

    def __init__(self, reason: str, cause: str, has_started: bool) -> None:
        super().__init__(reason, cause, has_started)
        self.reason = reason
        self.cause = cause
        self.has_started = has_started


class WorkerPool:
    """Worker processes, started when they are needed.

    Methods may be called from several threads. Pickled to another process, a pool
    becomes the pool of that process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._is_closed = False

    def __reduce__(self) -> "tuple[Callable[[], WorkerPool], tuple[()]]":
        return _pool_of_this_process, ()

    def call(
        self,
        function: Callable[..., Result],
        arguments: tuple[object, ...],
        timeout: float,
    ) -> Result:
        """Call a function in a worker.

        Parameters
        ----------
        function : callable
            The function, which must have a pickle.
        arguments : tuple
            Its arguments.
        timeout : float
            Time limit in seconds, without the start of the worker and the imports.

        Returns
        -------
        object
            The result.

        Raises
        ------
        WorkerError
            If the worker dies or the call exceeds the time limit.
        Exception
            If the function raises; the traceback in the worker is in its notes.
        """
        task = pickle.dumps((function, arguments))
        worker = self._take_worker()
        try:
            answer = worker.run(task, timeout)
        except BaseException:
            worker.close()
            raise
        finally:
            with self._lock:
                self._busy.discard(worker)
        with self._lock:
            self._idle.append(worker)
        is_good, value = pickle.loads(answer)
        if not is_good:
            raise value
        return value

    def _take_worker(self) -> "_Worker":
        with self._lock:
            if self._is_closed:
                raise RuntimeError("the worker pool is closed")
            worker = self._idle.pop() if self._idle else _Worker()
            self._busy.add(worker)
        return worker

    def close(self) -> None:
        """End all workers, also those with a call in progress."""
        with self._lock:
            self._is_closed = True
            workers = [*self._idle, *self._busy]
        for worker in workers:
            worker.close()


@functools.cache
def _pool_of_this_process() -> WorkerPool:
    return WorkerPool()


class _Worker:
    """A worker process; it ends when this process does."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            module_command("cqt2img._utils.worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=module_environment(**_ONE_THREAD),
            # Ctrl-C in a terminal reaches a whole group of processes.
            process_group=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._tasks: IO[bytes] = self._process.stdin
        self._answers: IO[bytes] = self._process.stdout

    def run(self, task: bytes, timeout: float) -> bytes:
        """Run a pickled task, and return the pickled answer."""
        has_started = False
        is_late = threading.Event()
        try:
            send(self._tasks, task)
            answer = pickle.load(self._answers)
            if answer is STARTED:
                has_started = True
                answer = self._wait(timeout, is_late)
        except (EOFError, BrokenPipeError) as err:
            raise self._error(timeout, has_started, is_late) from err
        except pickle.UnpicklingError as err:
            # It died while it answered, or a library wrote into its answers; in the
            # latter case it is still alive.
            self._process.kill()
            raise self._error(timeout, has_started, is_late) from err
        assert isinstance(answer, bytes)
        return answer

    def _wait(self, timeout: float, is_late: threading.Event) -> object:
        """Read the answer, or kill the process after the time limit."""

        def kill() -> None:
            is_late.set()
            self._process.kill()

        timer = threading.Timer(timeout, kill)
        timer.daemon = True
        timer.start()
        try:
            return pickle.load(self._answers)
        finally:
            timer.cancel()

    def _error(
        self, timeout: float, has_started: bool, is_late: threading.Event
    ) -> WorkerError:
        code = self._process.wait()
        if is_late.is_set():
            return WorkerError("timeout", f"{timeout:g} s", has_started)
        cause = f"exit code {code}"
        if -code in set(signal.Signals):
            cause = signal.Signals(-code).name
        return WorkerError("worker_died", cause, has_started)

    def close(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()
        self._answers.close()
        try:
            self._tasks.close()
        except BrokenPipeError:
            log.debug("a worker was closed before it had read its task")
