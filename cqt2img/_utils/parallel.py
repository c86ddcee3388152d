"""Calls in many processes, that survive crashes, hangs and Ctrl-C."""

import functools
import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

import numpy as np

from cqt2img._utils.progress import Progress
from cqt2img._utils.worker_pool import WorkerError, WorkerPool
from cqt2img.errors import AudioError, InputError

log = logging.getLogger(__name__)
Result = TypeVar("Result")
Job = tuple[object, ...]


def run_parallel(
    function: Callable[..., Result],
    jobs: Iterator[Job],
    n: int,
    *,
    n_jobs: int = 1,
    progress: Progress | None = None,
    title: str = "",
    timeout: float = 600.0,
) -> Iterator[Result]:
    """Call a function on every job in parallel, and return the results in order.

    Parameters
    ----------
    function : callable
        Called with the arguments of each job. If its process dies or exceeds the time
        limit, it is called once more in this process, with an `AudioError` in place
        of the first argument.
    jobs : iterator of tuple
        Arguments of each call; the first is the recording.
    n : int
        Number of jobs.
    n_jobs : int, default 1
        Number of processes, as in joblib; -1 for all cores. With 1 the jobs run in
        this process, without a time limit, unless joblib has a distributed backend.
    progress : callable, optional
        Shows the progress.
    title : str, optional
        Text for the progress bar.
    timeout : float, default 600.0
        Time limit of a job in seconds, above 0.

    Returns
    -------
    iterator
        Results in the order of the jobs, each as soon as it is complete.

    Raises
    ------
    InputError
        If `n_jobs` or `timeout` is invalid.
    KeyboardInterrupt
        After Ctrl-C, when the running jobs are complete; after a second one, at once.

    Notes
    -----
    joblib distributes the jobs to threads, or to the workers of its active backend,
    each of which calls the function in a process of its own. If this process dies, the
    job is tried once more, because something else may have ended it; if it dies again,
    the error has the reason "worker_died". If it exceeds the time limit it is killed,
    and the reason is "timeout". Other jobs are not affected.

    Examples
    --------
    >>> list(run_parallel(pow, iter([(2, 3), (3, 2)]), 2))
    [8, 9]
    """
    is_integer = isinstance(n_jobs, int | np.integer) and not isinstance(n_jobs, bool)
    if not is_integer or n_jobs == 0:
        raise InputError(
            f"n_jobs must be an integer other than 0, got {n_jobs!r}. "
            "Use 1, or -1 for all cores."
        )
    if not timeout > 0:
        raise InputError(f"timeout must be above 0 s, got {timeout!r}. Use 600.")
    results = _run(function, jobs, int(n_jobs), timeout)
    return results if progress is None else progress(results, n, title)


def _run(
    function: Callable[..., Result], jobs: Iterator[Job], n_jobs: int, timeout: float
) -> Iterator[Result]:
    from joblib import Parallel, delayed

    pool = WorkerPool()
    stop = threading.Event()
    call = functools.partial(_call_in_worker, pool, function, timeout)
    if n_jobs == 1 and not _is_distributed():
        call = functools.partial(_call_here, function)
    parallel = Parallel(
        n_jobs=n_jobs,
        prefer="threads",  # they only wait for their processes
        return_as="generator",
        # Further jobs could not be taken back after Ctrl-C.
        pre_dispatch="n_jobs",
        batch_size=1,
    )
    with _defer_interrupt(stop):
        results = parallel(delayed(call)(job) for job in _until(stop, jobs))
    try:
        while True:
            with _defer_interrupt(stop):
                try:
                    result = next(results)
                except StopIteration:
                    break
            yield result
    finally:
        pool.close()
        with warnings.catch_warnings():
            unfinished = ".* tasks which were still being processed"
            warnings.filterwarnings("ignore", message=unfinished)
            results.close()
    if stop.is_set():
        raise KeyboardInterrupt


def _is_distributed() -> bool:
    """Whether joblib has a backend of another package, such as dask."""
    from joblib.parallel import get_active_backend

    backend, _ = get_active_backend()
    return type(backend).__module__ != "joblib._parallel_backends"


def _until(stop: threading.Event, jobs: Iterator[Job]) -> Iterator[Job]:
    for job in jobs:
        if stop.is_set():
            return
        yield job


@contextmanager
def _defer_interrupt(stop: threading.Event) -> Iterator[None]:
    """Set an event at the first Ctrl-C; a second one raises KeyboardInterrupt."""
    default = signal.default_int_handler
    is_main = threading.current_thread() is threading.main_thread()
    if stop.is_set() or not is_main or signal.getsignal(signal.SIGINT) is not default:
        yield
        return

    def request_stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, default)
        stop.set()
        log.warning("finishing the running recordings; press Ctrl-C again to stop now")

    signal.signal(signal.SIGINT, request_stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, default)


def _call_here(function: Callable[..., Result], job: Job) -> Result:
    return function(*job)


def _call_in_worker(
    pool: WorkerPool, function: Callable[..., Result], timeout: float, job: Job
) -> Result:
    """Call a function in a worker, or here with the reason why the worker failed."""
    try:
        return _call_twice(pool, function, timeout, job)
    except WorkerError as err:
        if not err.has_started:
            raise RuntimeError(
                f"a worker process ended with {err.cause} before it started. "
                "See its output."
            ) from err
        return function(_describe(err, job[0]), *job[1:])


def _call_twice(
    pool: WorkerPool, function: Callable[..., Result], timeout: float, job: Job
) -> Result:
    try:
        return pool.call(function, job, timeout)
    except WorkerError as err:
        if err.reason == "timeout":
            raise
        return pool.call(function, job, timeout)  # in a fresh process


def _describe(err: WorkerError, recording: object) -> AudioError:
    is_array = isinstance(recording, np.ndarray)
    name = "an array" if is_array else repr(str(recording))
    if err.reason == "timeout":
        problem = f"was not finished within {err.cause}"
        advice = "Raise timeout, or leave it out."
    else:
        problem = f"ended its process twice ({err.cause})"
        advice = (
            "Convert it to FLAC, use fewer processes if memory is short, "
            "or leave it out."
        )
    return AudioError(err.reason, f"{name} {problem}. {advice}")
