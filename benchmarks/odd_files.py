"""Read broken and odd files with three libraries.

    python benchmarks/odd_files.py

Prints for each file whether `cqt2img.load_wave`, `soundfile.read` and `librosa.load`
return the right length, the right error, or something else. Every file is made here,
and read in a process of limited time and memory.
"""

import argparse
import importlib
import os
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import soundfile
from limited_process import call_all
from odd_audio import RATE, Case, make_odd_files

OUTCOMES = (
    "right",
    "right error",
    "wrong error",
    "wrong length",
    "nothing",
    "needless error",
    "crash",
    "hang",
    "unchecked",
)
# Only cqt2img raises for these; other readers may return such audio.
_OWN_REASONS = (
    "bad_sample_rate",
    "bad_channels",
    "non_finite",
    "too_short",
    "too_long",
    "silent",
)


def read_ours(item: dict[str, Any] | None) -> dict[str, Any]:
    """Read a file by cqt2img, which may change after its first block."""
    from cqt2img.audio.decode import read_wave
    from cqt2img.errors import AudioError

    if item is None:
        importlib.import_module("soundfile")
        importlib.import_module("soxr")
        return {}
    path = os.fsencode(item["path"])
    n = 0
    try:
        for block in read_wave(os.fsdecode(path), RATE, 6 * 3600):
            n += len(block)
            if item.get("act") == "shrinks":
                os.truncate(path, os.path.getsize(path) // 2)
            elif item.get("act") == "vanishes":
                os.unlink(path)
            item["act"] = ""
    except AudioError as err:
        return {"reason": err.reason, "message": str(err)}
    except BaseException as err:  # what the benchmark looks for
        return {"escaped": repr(err)[:400]}
    return {"n": n}


def read_soundfile(item: dict[str, Any] | None) -> dict[str, Any]:
    """Read a file by soundfile."""
    return _read_by(lambda path: soundfile.read(path, dtype="float32"), item)


def read_librosa(item: dict[str, Any] | None) -> dict[str, Any]:
    """Read a file by librosa."""
    import librosa

    def load(path: str) -> tuple[Any, int]:
        sound, rate = librosa.load(path, sr=None, mono=False)
        return sound.T, int(rate)

    return _read_by(load, item)


def _read_by(
    load: Callable[[str], tuple[Any, int]], item: dict[str, Any] | None
) -> dict[str, Any]:
    if item is None:
        return {}
    try:
        sound, rate = load(item["path"])
        return {"n": round(sound.shape[0] * RATE / max(rate, 1))}
    except BaseException as err:  # any
        return {"reason": "error", "message": repr(err)[:200]}


def misbehave(item: str | None) -> dict[str, Any]:
    """Fail in a way that the harness must detect."""
    if item == "crash":
        os.abort()
    elif item == "hang":
        threading.Event().wait()
    elif item == "callback":  # as cffi prints what a callback raises
        text = (
            "From cffi callback:\nTraceback (most recent call last):\nZeroDivisionError"
        )
        print(text, file=sys.stderr, flush=True)
    elif item == "memory":
        try:
            return {"n": len(bytearray(3 << 30))}
        except MemoryError as err:
            return {"escaped": repr(err)}
    return {"n": 0}


def classify(case: Case, answer: dict[str, Any], any_reason: bool = False) -> str:
    """Return one of `OUTCOMES`."""
    if "died" in answer:
        return answer["died"]
    if "escaped" in answer:
        return "crash"
    is_readable = isinstance(case.expected, int)
    if "reason" in answer:
        if is_readable:
            return "needless error"
        is_right = any_reason or answer["reason"] == case.expected
        return "right error" if is_right else "wrong error"
    if is_readable and abs(answer["n"] - case.expected) <= case.slack:
        return "right"
    if any_reason and case.expected in _OWN_REASONS and answer["n"]:
        return "unchecked"
    return "wrong length" if answer["n"] else "nothing"


def request(case: Case) -> dict[str, Any]:
    """Return the item that a reader gets."""
    return {"path": os.fsdecode(case.path), "act": case.act}


def run_reader(reader: str) -> dict[str, tuple[Case, str, str]]:
    """Return for each file its case, the outcome and the answer in short."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        cases = {request(case)["path"]: case for case in make_odd_files(Path(folder))}
        items = [request(case) for case in cases.values()]
        for item, answer in call_all(f"odd_files:read_{reader}", items):
            case = cases[item["path"]]
            outcome = classify(case, answer, reader != "ours")
            short = answer.get("n", answer.get("reason", answer.get("escaped", "")))
            name = os.path.relpath(case.path, os.fsencode(folder))[:40]
            results[repr(name)[2:-1]] = case, outcome, str(short)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    readers = ["ours", "soundfile", "librosa"]
    parser.add_argument("--readers", nargs="+", default=readers)
    readers = parser.parse_args().readers
    results = {reader: run_reader(reader) for reader in readers}
    print("| " + " | ".join(["file", "expected", *readers]) + " |")
    print("|" + "---|" * (2 + len(readers)))
    for name in results[readers[0]]:
        cells = [name, str(results[readers[0]][name][0].expected)]
        for reader in readers:
            _, outcome, short = results[reader][name]
            is_right = outcome.startswith("right")
            cells.append(outcome if is_right else f"{outcome} ({short})")
        print("| " + " | ".join(cells) + " |")
    for reader in readers:
        counts = Counter(outcome for _, outcome, _ in results[reader].values())
        print(reader, counts.total(), {word: counts[word] for word in OUTCOMES})


if __name__ == "__main__":
    main()
