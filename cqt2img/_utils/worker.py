"""Process of a worker pool: run tasks from standard input, one after the other.

    python -m cqt2img._utils.worker

A task is a pickle of pickled bytes: a function and its arguments. For each task the
worker writes `STARTED` to standard output when it has imported the function, then a
pickle of pickled bytes: whether the call succeeded, and its result or exception.
"""

import os
import pickle
import traceback
from typing import IO

STARTED = None  # message: the time of the task starts now


def main() -> None:
    """Run tasks until standard input is closed."""
    tasks = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as empty:
        os.dup2(empty.fileno(), 0)
    os.dup2(2, 1)  # what a library prints is not an answer
    while True:
        try:
            task = pickle.load(tasks)
        except EOFError:
            return
        send(answers, _run(task, answers))


def send(stream: IO[bytes], message: bytes | None) -> None:
    """Write a message at once.

    Parameters
    ----------
    stream : binary file
        Where to write.
    message : bytes or None
        A task, an answer or `STARTED`.
    """
    pickle.dump(message, stream)
    stream.flush()


def _run(task: bytes, answers: IO[bytes]) -> bytes:
    try:
        function, arguments = pickle.loads(task)
        send(answers, STARTED)
        result = function(*arguments)
        return pickle.dumps((True, result))
    except Exception as err:
        return _pickle_error(err)


def _pickle_error(err: Exception) -> bytes:
    """Pickle an exception with its traceback; as a RuntimeError if it has no pickle."""
    text = "".join(traceback.format_exception(err))
    err.add_note(f"in a worker process:\n{text}")
    try:
        answer = pickle.dumps((False, err))
        pickle.loads(answer)
    except Exception:
        return pickle.dumps((False, RuntimeError(text)))
    return answer


if __name__ == "__main__":
    main()
