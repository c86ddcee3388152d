"""Many jobs in many processes: what crashes or hangs costs one job, and Ctrl-C costs none."""

import functools
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

from cqt2img.errors import AudioError, InputError

log = logging.getLogger(__name__)
Progress = Callable[[Iterator[Any], int, str], Iterator[Any]]
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_SERVE = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from cqt2img._utils.parallel import _serve; _serve()"


def run_parallel(
    function: Callable[..., Any],
    jobs: Iterator[Any],
    n: int,
    n_jobs: int,
    progress: Progress | None,
    title: str,
    timeout: float = 600.0,
) -> Iterator[Any]:
    """Call a function on every job, in order, in as many processes as asked.

    Parameters
    ----------
    function : callable
        Called with the words of each job. Where its process died, it is called once more, and gets
        an `AudioError` that says so in place of the first word.
    jobs : iterator of tuple
        The words; the first is the recording.
    n : int
        How many jobs there are.
    n_jobs : int
        Processes, as joblib counts them. With 1 the jobs run in this process, which nothing guards,
        unless joblib has another backend.
    progress : callable or None
        Shows how far it is.
    title : str
        What is being done.
    timeout : float
        Seconds that one job may take, above 0.

    Returns
    -------
    iterator
        What the calls gave, in the order of the jobs, each as soon as it is there.

    Raises
    ------
    InputError
        If `n_jobs` is no whole number or 0, or `timeout` is not above 0.
    KeyboardInterrupt
        After Ctrl-C, when the jobs in hand are finished; after a second one, at once.

    Notes
    -----
    joblib hands the jobs to threads, or to whatever its active backend has, and every one of these
    gives them to a process of its own. If that dies twice over one job (the first time may have been
    somebody else's doing), the error has the reason `worker_died`; if it is not done in time, it is
    killed, and the reason is `timeout`. No other job notices.

    Examples
    --------
    >>> list(run_parallel(pow, iter([(2, 3), (3, 2)]), 2, 1, None, "raising"))
    [8, 9]
    """
    if (
        isinstance(n_jobs, bool)
        or not isinstance(n_jobs, (int, np.integer))
        or n_jobs == 0
    ):
        raise InputError(
            f"run_parallel: n_jobs must be a whole number but 0, got {n_jobs!r}. Take 1, or -1 for every core."
        )
    if not timeout > 0:
        raise InputError(
            f"run_parallel: timeout must be above 0 s, got {timeout!r}. Take 600."
        )
    done = _results(function, jobs, int(n_jobs), timeout)
    return done if progress is None else progress(done, n, title)


def _results(
    function: Callable[..., Any], jobs: Iterator[Any], n_jobs: int, timeout: float
) -> Iterator[Any]:
    from joblib import Parallel, delayed
    from joblib.parallel import get_active_backend

    crew, stop = WorkerPool(), threading.Event()
    call = functools.partial(_guard, crew, function, timeout)
    backend = type(get_active_backend()[0]).__module__
    if (
        n_jobs == 1 and backend == "joblib._parallel_backends"
    ):  # and not dask's, whose cores are all meant
        call = functools.partial(_call, function)
    calls = (delayed(call)(job) for job in _until(stop, jobs))
    # threads only wait for their processes; what is dispatched beyond n_jobs could not be taken back after Ctrl-C
    parallel = Parallel(
        n_jobs=n_jobs,
        prefer="threads",
        return_as="generator",
        pre_dispatch="n_jobs",
        batch_size=1,
    )
    with _patience(stop):
        done = parallel(calls)
    try:
        while True:
            with _patience(stop):
                result = next(done, stop)
            if result is stop:
                break
            yield result
    finally:
        crew.dismiss()
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message=".* tasks which were still being processed"
            )  # as they should
            done.close()
    if stop.is_set():
        raise KeyboardInterrupt


def _until(stop: threading.Event, jobs: Iterator[Any]) -> Iterator[Any]:
    for job in jobs:
        if stop.is_set():
            return
        yield job


@contextmanager
def _patience(stop: threading.Event) -> Iterator[None]:
    """Take the first Ctrl-C for a wish to stop soon; the second stops at once, as always."""
    usual = signal.default_int_handler
    here = threading.current_thread() is threading.main_thread()
    if stop.is_set() or not here or signal.getsignal(signal.SIGINT) is not usual:
        yield
        return

    def wait(*_: Any) -> None:
        signal.signal(signal.SIGINT, usual)
        stop.set()
        log.warning(
            "finishing the recordings in hand; press Ctrl-C again to stop at once"
        )

    signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def _call(function: Callable[..., Any], job: Any) -> Any:
    return function(*job)


def _guard(
    crew: "WorkerPool", function: Callable[..., Any], timeout: float, job: Any
) -> Any:
    """Do a job in a process of its own, or with the reason why that died."""
    try:
        try:
            return crew.do(function, job, timeout)
        except _DeathError as death:
            if death.reason == "timeout":
                raise
            return crew.do(
                function, job, timeout
            )  # a fresh process, with whom nobody has meddled
    except _DeathError as death:
        if not death.begun:
            raise RuntimeError(
                f"run_parallel: a worker must start, got {death.how}. See what it said."
            ) from death
        what = "an array" if isinstance(job[0], np.ndarray) else repr(str(job[0]))
        message = f"run_parallel: a recording must {death.rule}, got {what}{death.got}. {death.way_out}"
        return function(AudioError(death.reason, message), *job[1:])


class _DeathError(Exception):
    """A worker that is no more: why, and the words of the message."""

    def __init__(self, code: int, late: float, begun: bool) -> None:
        self.reason, self.begun = "timeout" if late else "worker_died", begun
        if late:
            self.rule, self.got = f"be done within {late:g} s", ", which was not"
            self.way_out = "Raise timeout, or leave it out."
            return
        self.how = (
            signal.Signals(-code).name
            if -code in set(signal.Signals)
            else f"exit code {code}"
        )
        self.rule, self.got = (
            "leave its process alive",
            f", which ended it twice ({self.how})",
        )
        self.way_out = "Convert it to FLAC, take fewer processes if memory is short, or leave it out."


class WorkerPool:
    """The workers of one run, as many as are needed at once."""

    def __init__(self) -> None:
        self.lock, self.idle, self.busy, self.gone = (
            threading.Lock(),
            list[_Worker](),
            set[_Worker](),
            False,
        )

    def __reduce__(self) -> Any:
        return _this_pool, ()  # sent to another process, it is the crew of that one

    def do(self, function: Callable[..., Any], job: Any, timeout: float) -> Any:
        with self.lock:
            if self.gone:
                raise RuntimeError("run_parallel: it was stopped.")
            worker = self.idle.pop() if self.idle else _Worker()
            self.busy.add(worker)
        try:
            answer = worker.ask(pickle.dumps((function, job)), timeout)
        except BaseException:
            worker.end()
            raise
        finally:
            with self.lock:
                self.busy.discard(worker)
        with self.lock:
            self.idle.append(worker)
        good, value = pickle.loads(answer)
        if not good:
            raise value
        return value

    def dismiss(self) -> None:
        with self.lock:
            self.gone = True
            workers = [*self.idle, *self.busy]
        for worker in workers:
            worker.end()


@functools.cache
def _this_pool() -> WorkerPool:
    return WorkerPool()


class _Worker:
    """A process that does one job after the other, and ends when nobody can ask it any more."""

    def __init__(self) -> None:
        few = dict.fromkeys(_THREADS, "1")  # one process per core is enough
        # Ctrl-C in a terminal goes to one group of processes, and must not cut off the jobs in hand
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**few, **os.environ},
            process_group=0,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.asks: IO[bytes] = self.process.stdin
        self.answers: IO[bytes] = self.process.stdout
        self.late = 0.0

    def ask(self, task: bytes, timeout: float) -> bytes:
        """Give the pickled answer."""
        begun = False
        try:
            _send(self.asks, task)
            answer = pickle.load(self.answers)
            if answer is None:
                begun = True
                watch = threading.Timer(timeout, self._stop, [timeout])
                watch.daemon = True
                watch.start()
                try:
                    answer = pickle.load(self.answers)
                finally:
                    watch.cancel()
        except (
            EOFError,
            BrokenPipeError,
            pickle.UnpicklingError,
        ) as err:  # the last: it died while it answered
            if isinstance(err, pickle.UnpicklingError):
                self.process.kill()  # or something wrote into its answers, and it would be waited for in vain
            raise _DeathError(self.process.wait(), self.late, begun) from err
        assert isinstance(answer, bytes)
        return answer

    def _stop(self, timeout: float) -> None:
        self.late = timeout
        self.process.kill()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.answers.close()
        try:
            self.asks.close()
        except BrokenPipeError:  # part of a task was on its way
            log.debug("a worker ended before it had read its task")


def _send(stream: IO[bytes], value: Any) -> None:
    pickle.dump(value, stream)
    stream.flush()


def _serve() -> None:
    """Do what a `_Worker` asks for."""
    asks, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)  # what a library prints is no answer
    while True:
        try:
            task = pickle.load(asks)
        except EOFError:
            return
        try:
            function, job = pickle.loads(task)
            _send(answers, None)  # the time of the job starts after the imports
            answer = pickle.dumps((True, function(*job)))
        except Exception as err:
            answer = _pack(err)
        _send(answers, answer)


def _pack(err: Exception) -> bytes:
    """Pickle an exception with the place where it was raised, in plain words if it cannot be sent as it is."""
    text = "".join(traceback.format_exception(err))
    err.add_note(f"in a worker process:\n{text}")
    try:
        data = pickle.dumps((False, err))
        pickle.loads(data)
    except Exception:
        return pickle.dumps((False, RuntimeError(text)))
    return data


def progress_bar(steps: Iterator[Any], n: int, title: str) -> Iterator[Any]:
    """Show how far long work is, where somebody can see it.

    Parameters
    ----------
    steps : iterator
        The work.
    n : int
        How many steps it has.
    title : str
        What is being done.

    Returns
    -------
    iterator
        The same steps.
    """
    return make_bar(n, title, iterable=steps, leave=False)


def import_tqdm() -> Any:
    """Import tqdm without its complaint that widgets are missing in a notebook; timm brings it, too.

    Returns
    -------
    type
        tqdm for where it runs.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="IProgress not found"
        )  # without ipywidgets it is a line of text
        from tqdm.auto import tqdm
    return tqdm


def make_bar(n: int, title: str, **options: Any) -> Any:
    """Make a progress bar that shows in a terminal and in a notebook, and nowhere else.

    Parameters
    ----------
    n : int
        How many steps there are.
    title : str
        What is being done.
    **options : Any
        What else tqdm takes.

    Returns
    -------
    tqdm
        The bar.
    """
    tqdm = import_tqdm()
    hidden = (
        False if "ipykernel" in sys.modules else None
    )  # None: hidden where nobody sees it
    return tqdm(total=n, desc=title, **{"disable": hidden, **options})
