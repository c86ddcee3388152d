"""What damaged files do to the reader: mutations of small files of each format, seeded, in child processes.

    python benchmarks/fuzz_audio.py [--formats wav flac ...] [--n 25000] [--first 0]

Counts crashes, hangs, exceptions that are no `AudioError`, and results of another length than the undamaged file by
more than 0.1 s without an error. A shorter copy with a smaller promise, or another sample rate where nothing else in
the file tells it (AIFF, AU, CAF), cannot be told from a whole file: these are what is left of the last count.
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
from odd_files import ask_all, encode, ffmpeg, mp3_frames, tone

RATE = 16000
WORDS = ("right", "refused", "wrong length", "escaped", "crash", "hang")
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
OF_FFMPEG = ("m4a", "wma", "mka", "aac")
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
]
_EXTREMES += [b"\1\0\0\0", b"\0\0\0\1", b"\xff" * 8, bytes(8)]


@functools.cache
def _good(form: str) -> tuple[bytes, int]:
    """Give the undamaged file and its length in samples."""
    from cqt2img.audio.decode import load_wave

    data = FORMATS[form]()
    path = _path()
    path.write_bytes(data)
    return data, len(load_wave(path, RATE))


@functools.cache
def _path() -> Path:
    room = (
        Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())
    )
    return room / f"cqt2img_fuzz_{os.getppid()}_{os.getpid()}"


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file: one to three times, in one of five ways."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        size = len(data)
        # half of all damage lies in the first bytes, where the header is
        at = (
            int(rng.integers(0, min(size, 128) if rng.random() < 0.5 else size))
            if size
            else 0
        )
        match rng.integers(0, 5):
            case 0:  # one to eight bits
                changed = bytearray(data)
                for _ in range(rng.integers(1, 9) if size else 0):
                    changed[min(size - 1, at + int(rng.integers(0, 64)))] ^= 1 << int(
                        rng.integers(0, 8)
                    )
                data = bytes(changed)
            case 1:  # a run of bytes
                n = int(rng.integers(1, 1 + min(2000, size - at))) if size > at else 0
                data = (
                    data[:at]
                    + (bytes(n) if rng.random() < 0.3 else rng.bytes(n))
                    + data[at + n :]
                )
            case 2:  # the end is lost
                data = data[: int(rng.integers(0, size + 1))]
            case 3:  # bytes come in between, or are lost
                n = int(rng.integers(1, 2000))
                if rng.random() < 0.5:
                    data = (
                        data[:at]
                        + (rng.bytes(n) if rng.random() < 0.5 else data[at : at + n])
                        + data[at:]
                    )
                else:
                    data = data[:at] + data[at + n :]
            case _:  # a field of the header says the most, the least or nothing
                at = int(rng.integers(0, min(size, 128))) if size else 0
                value = _EXTREMES[rng.integers(0, len(_EXTREMES))]
                data = data[:at] + value + data[at + len(value) :]
    return data


def try_extract(item: dict[str, Any] | None) -> dict[str, Any]:
    """Read one damaged file in a child process."""
    from cqt2img.audio.decode import load_wave
    from cqt2img.errors import AudioError

    if item is None:
        _good("wav")
        return {}
    data, n_good = _good(item["form"])
    damaged = mutate(
        data, np.random.default_rng([item["seed"], *item["form"].encode()])
    )
    path = _path()
    path.write_bytes(damaged)
    try:
        n = len(load_wave(path, RATE))
    except AudioError as err:
        return {"word": "refused", "reason": err.reason}
    except BaseException as err:  # this is what is looked for
        return {"word": "escaped", "escaped": repr(err)[:400]}
    return {
        "word": "right" if abs(n - n_good) <= RATE / 10 else "wrong length",
        "n": n,
        "n_good": n_good,
    }


def fuzz(
    form: str, n: int, first: int = 0, n_children: int = 2
) -> tuple[Counter, list[dict]]:
    """Count the words of `n` seeds, and list what is neither right nor refused."""
    counts, odd = Counter(), []
    items = [{"form": form, "seed": seed} for seed in range(first, first + n)]
    try:
        for item, answer in ask_all("fuzz_audio:attempt", items, n_children):
            word = answer.get("died") or (
                "escaped" if "escaped" in answer else answer["word"]
            )
            counts[word] += 1
            if word not in ("right", "refused"):
                odd.append({**item, **answer, "word": word})
    finally:
        for left in _path().parent.glob(f"cqt2img_fuzz_{os.getpid()}_*"):
            left.unlink()
    return counts, odd


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    has_ffmpeg = shutil.which("ffmpeg") is not None
    parser.add_argument(
        "--formats",
        nargs="+",
        default=[f for f in FORMATS if has_ffmpeg or f not in OF_FFMPEG],
    )
    parser.add_argument("--n", type=int, default=25_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--children", type=int, default=2)
    parser.add_argument(
        "--odd", type=Path, help="write what is neither right nor refused to this file"
    )
    a = parser.parse_args()
    print(
        "| format | inputs | "
        + " | ".join(WORDS)
        + " | wrong length, % | ms each |\n|"
        + "---|" * (len(WORDS) + 4)
    )
    for form in a.formats:
        start = time.perf_counter()
        counts, odd = fuzz(form, a.n, a.first, a.children)
        took = (time.perf_counter() - start) * 1000 / a.n
        row = [
            form,
            a.n,
            *(counts[word] for word in WORDS),
            f"{100 * counts['wrong length'] / a.n:.2f}",
            f"{took:.1f}",
        ]
        print("| " + " | ".join(map(str, row)) + " |", flush=True)
        if a.odd:
            with a.odd.open("a") as file:
                file.writelines(json.dumps(entry) + "\n" for entry in odd)


if __name__ == "__main__":
    main()
