"""Calls in processes of limited time and memory, which may crash or hang."""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from typing import Any

LIMIT_SECONDS = 60
LIMIT_BYTES = 2 << 30


class LimitedProcess:
    """Calls a function of a module in this folder in a process of its own.

    Parameters
    ----------
    function : str
        "module:function". It is called with None once, then with each item.
    env : dict of str, optional
        Variables of the environment.
    """

    def __init__(self, function: str, env: dict[str, str] | None = None) -> None:
        self._command = [sys.executable, __file__, function]
        self._env = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
        self._process: subprocess.Popen | None = None

    def call(self, item: Any, seconds: float = LIMIT_SECONDS) -> dict[str, Any]:
        """Return the result of the function, or `{"died": "crash"}` or "hang"."""
        if self._process is None:
            self._start()
        is_late = threading.Event()

        def kill() -> None:
            is_late.set()
            self._process.kill()

        timer = threading.Timer(seconds, kill)
        timer.start()
        try:
            self._process.stdin.write(json.dumps(item).encode() + b"\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        finally:
            timer.cancel()
        if answer:
            return json.loads(answer)
        self.close()
        return {"died": "hang" if is_late.is_set() else "crash"}

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._env,
        )
        if not self._process.stdout.readline():  # written after all imports
            raise RuntimeError(self._process.stderr.read().decode())

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            # A process that died may not have read its last item.
            with suppress(BrokenPipeError), self._process as process:
                process.kill()
            self._process = None


def call_all(
    function: str, items: Iterable[Any], n_processes: int = 2, **options: Any
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield pairs of an item and the result of a function, in any order."""
    processes = [LimitedProcess(function, **options) for _ in range(n_processes)]
    idle = list(processes)

    def call(item: Any) -> tuple[Any, dict[str, Any]]:
        process = idle.pop()
        try:
            return item, process.call(item)
        finally:
            idle.append(process)

    try:
        with ThreadPoolExecutor(n_processes) as pool:
            for done in as_completed([pool.submit(call, item) for item in items]):
                yield done.result()
    finally:
        for process in processes:
            process.close()


def serve(function: str) -> None:
    """Call a function with every line of standard input.

    A traceback that a callback of C prints counts as an exception, too.
    """
    import resource

    module, name = function.split(":")
    call = getattr(importlib.import_module(module), name)
    call(None)
    limit = int(os.environ.get("ODD_BYTES", LIMIT_BYTES))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + limit, used + limit))
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        os.dup2(log.fileno(), 1)
        answers.write(b"ready\n")
        for line in sys.stdin.buffer:
            answer = call(json.loads(line))
            log.seek(0)
            printed = log.read()
            if b"Traceback" in printed:
                answer["escaped"] = printed.decode(errors="replace")[-400:]
            log.seek(0)
            log.truncate()
            answers.write(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    serve(sys.argv[1])
