"""Read damaged files: seeded mutations of small files of each format.

    python benchmarks/fuzz_audio.py [--formats wav flac ...] [--n 25000] [--first 0]

Counts crashes, hangs, exceptions other than `AudioError`, and results whose length
differs from the undamaged file by more than 0.1 s without an error. A shorter copy with
a smaller promise, or another sample rate where nothing else in the file has it (AIFF,
AU, CAF), cannot be distinguished from a complete file; these remain in the last count.
"""

import argparse
import functools
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from limited_process import call_all
from odd_audio import encode, ffmpeg, mp3_frames, tone

RATE = 16000
OUTCOMES = ("right", "error", "wrong length", "escaped", "crash", "hang")
FORMATS = {
    "wav": lambda: encode("WAV", "PCM_16", tone(0.4, RATE), RATE),
    "rf64": lambda: encode("RF64", "PCM_24", tone(0.4, RATE), RATE),
    "w64": lambda: encode("W64", "PCM_16", tone(0.4, RATE), RATE),
    "aiff": lambda: encode("AIFF", "PCM_16", tone(0.4, RATE), RATE),
    "au": lambda: encode("AU", "PCM_16", tone(0.4, RATE), RATE),
    "caf": lambda: encode("CAF", "PCM_16", tone(0.4, RATE), RATE),
    "flac": lambda: encode("FLAC", "PCM_16", tone(0.4, RATE), RATE),
    "ogg": lambda: encode("OGG", "VORBIS", tone(0.4, RATE), RATE),
    "opus": lambda: encode("OGG", "OPUS", tone(0.4, RATE), RATE),
    "mp3": lambda: encode(
        "MP3", "MPEG_LAYER_III", tone(0.5, RATE), RATE, bitrate_mode="VARIABLE"
    ),
    "mp3_bare": lambda: b"".join(
        mp3_frames(encode("MP3", "MPEG_LAYER_III", tone(0.5, RATE), RATE))[1:]
    ),
    "m4a": lambda: ffmpeg("x.m4a", sound=tone(0.5, RATE), rate=RATE),
    "wma": lambda: ffmpeg("x.wma", sound=tone(0.5, RATE), rate=RATE),
    "mka": lambda: ffmpeg("x.mka", sound=tone(0.5, RATE), rate=RATE),
    "aac": lambda: ffmpeg("x.aac", sound=tone(0.5, RATE), rate=RATE),
}
FFMPEG_FORMATS = ("m4a", "wma", "mka", "aac")
_HEADER_BYTES = 128
_EXTREMES = [
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff\xff",
    b"\0\0\0\0",
    b"\xff" * 4,
    b"\x80\0\0\0",
    b"\x7f" + b"\xff" * 3,
    b"\1\0\0\0",
    b"\0\0\0\1",
    b"\xff" * 8,
    bytes(8),
]


@functools.cache
def _good_file(form: str) -> tuple[bytes, int]:
    """Return the undamaged file and its length in samples."""
    from cqt2img.audio.decode import load_wave

    data = FORMATS[form]()
    path = _path()
    path.write_bytes(data)
    return data, len(load_wave(path, RATE))


@functools.cache
def _path() -> Path:
    memory = Path("/dev/shm")
    folder = memory if memory.is_dir() else Path(tempfile.gettempdir())
    return folder / f"cqt2img_fuzz_{os.getppid()}_{os.getpid()}"


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file: one to three times, in one of five ways."""
    changes = (_flip_bits, _replace, _cut, _insert_or_remove, _set_field)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        start = 0
        if data:
            # half of all damage is in the first bytes, where the header is
            limit = len(data)
            if rng.random() < 0.5:
                limit = min(limit, _HEADER_BYTES)
            start = int(rng.integers(0, limit))
        change = changes[rng.integers(0, len(changes))]
        data = change(data, start, rng)
    return data


def _flip_bits(data: bytes, start: int, rng: np.random.Generator) -> bytes:
    """Flip one to eight bits near an offset."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 9) if data else 0):
        offset = min(len(data) - 1, start + int(rng.integers(0, 64)))
        changed[offset] ^= 1 << int(rng.integers(0, 8))
    return bytes(changed)


def _replace(data: bytes, start: int, rng: np.random.Generator) -> bytes:
    """Replace a run of bytes by zeros or noise."""
    rest = len(data) - start
    n = int(rng.integers(1, 1 + min(2000, rest))) if rest > 0 else 0
    new = bytes(n) if rng.random() < 0.3 else rng.bytes(n)
    return data[:start] + new + data[start + n :]


def _cut(data: bytes, start: int, rng: np.random.Generator) -> bytes:
    """Remove the end."""
    return data[: int(rng.integers(0, len(data) + 1))]


def _insert_or_remove(data: bytes, start: int, rng: np.random.Generator) -> bytes:
    """Insert or remove a run of bytes."""
    n = int(rng.integers(1, 2000))
    if rng.random() < 0.5:
        new = rng.bytes(n) if rng.random() < 0.5 else data[start : start + n]
        return data[:start] + new + data[start:]
    return data[:start] + data[start + n :]


def _set_field(data: bytes, start: int, rng: np.random.Generator) -> bytes:
    """Write an extreme value into the header."""
    start = int(rng.integers(0, min(len(data), _HEADER_BYTES))) if data else 0
    value = _EXTREMES[rng.integers(0, len(_EXTREMES))]
    return data[:start] + value + data[start + len(value) :]


def read_damaged(item: dict[str, Any] | None) -> dict[str, Any]:
    """Read one damaged file in a process of its own."""
    from cqt2img.audio.decode import load_wave
    from cqt2img.errors import AudioError

    if item is None:
        _good_file("wav")
        return {}
    data, n_good = _good_file(item["form"])
    rng = np.random.default_rng([item["seed"], *item["form"].encode()])
    path = _path()
    path.write_bytes(mutate(data, rng))
    try:
        n = len(load_wave(path, RATE))
    except AudioError as err:
        return {"outcome": "error", "reason": err.reason}
    except BaseException as err:  # what the benchmark looks for
        return {"outcome": "escaped", "escaped": repr(err)[:400]}
    is_right = abs(n - n_good) <= RATE / 10
    outcome = "right" if is_right else "wrong length"
    return {"outcome": outcome, "n": n, "n_good": n_good}


def fuzz(
    form: str, n: int, first: int = 0, n_processes: int = 2
) -> tuple[Counter[str], list[dict[str, Any]]]:
    """Count the outcomes of `n` seeds; list those neither right nor an AudioError."""
    counts: Counter[str] = Counter()
    odd = []
    items = [{"form": form, "seed": seed} for seed in range(first, first + n)]
    try:
        for item, answer in call_all("fuzz_audio:read_damaged", items, n_processes):
            outcome = _outcome(answer)
            counts[outcome] += 1
            if outcome not in ("right", "error"):
                odd.append({**item, **answer, "outcome": outcome})
    finally:
        for left in _path().parent.glob(f"cqt2img_fuzz_{os.getpid()}_*"):
            left.unlink()
    return counts, odd


def _outcome(answer: dict[str, Any]) -> str:
    if "died" in answer:
        return answer["died"]
    return "escaped" if "escaped" in answer else answer["outcome"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    has_ffmpeg = shutil.which("ffmpeg") is not None
    formats = [form for form in FORMATS if has_ffmpeg or form not in FFMPEG_FORMATS]
    parser.add_argument("--formats", nargs="+", default=formats)
    parser.add_argument("--n", type=int, default=25_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=2)
    help_odd = "append all that is neither right nor an AudioError to this file"
    parser.add_argument("--odd", type=Path, help=help_odd)
    a = parser.parse_args()
    columns = ["format", "inputs", *OUTCOMES, "wrong length, %", "ms each"]
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for form in a.formats:
        start = time.perf_counter()
        counts, odd = fuzz(form, a.n, a.first, a.processes)
        milliseconds = (time.perf_counter() - start) * 1000 / a.n
        percent = 100 * counts["wrong length"] / a.n
        numbers = [counts[outcome] for outcome in OUTCOMES]
        cells = [form, a.n, *numbers, f"{percent:.2f}", f"{milliseconds:.1f}"]
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
        if a.odd:
            with a.odd.open("a") as file:
                file.writelines(json.dumps(entry) + "\n" for entry in odd)


if __name__ == "__main__":
    main()
