"""Render ten thousand recordings, some of which are bad, crash or hang.

    nice python benchmarks/ten_thousand.py FOLDER [RECORDINGS]

3 % of the recordings are bad, 7 crash their process and 3 hang. Renders the set twice
with these ten and twice without, alternating, each into an empty folder; checks that
every good recording is rendered and every bad one listed; prints the times. The
recordings last 0.3 s; the preset is fast.
"""

import os
import random
import shutil
import sys
import time
from pathlib import Path

import numpy as np

TIMEOUT = 5.0  # seconds that a hanging recording takes of one of two processes
# runs at the start of Python, before a worker reads a file
SITE_CUSTOMIZE = """
import os, signal, sys, time
def read(event, args):
    if event == "open" and isinstance(args[0], (str, bytes)):
        name = os.path.basename(os.fsdecode(args[0]))
        if name.startswith("crash"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if name.startswith("hang"):
            time.sleep(1000)
if "cqt2img._utils.worker" in sys.orig_argv:
    sys.addaudithook(read)
"""


def make(folder: Path, n: int) -> list[Path]:
    """Write the recordings; a name starts with the kind of the recording."""
    import soundfile

    draw = random.Random(0)
    kinds = ["bad"] * round(0.03 * n) + ["crash"] * 7 + ["hang"] * 3
    kinds += ["good"] * (n - len(kinds))
    draw.shuffle(kinds)
    t = np.arange(round(0.3 * 22_050)) / 22_050
    paths = []
    for k, kind in enumerate(kinds):
        path = folder / f"{k % 100:02d}" / f"{kind} {k}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.3 * np.sin(2 * np.pi * (100 + k % 1000) * t), 22_050)
        if kind == "bad":
            path.write_bytes(draw.choice([b"", b"no sound", path.read_bytes()[:2000]]))
        paths.append(path)
    return paths


def measure(paths: list[Path], out: Path) -> float:
    """Render, check every row, and return the seconds."""
    from cqt2img.data.render import render

    shutil.rmtree(out, ignore_errors=True)
    begin = time.perf_counter()
    table = render(paths, out, "fast", n_jobs=2, timeout=TIMEOUT).recordings
    seconds = time.perf_counter() - begin
    kinds = [path.name.split()[0] for path in paths]
    reasons = {"crash": {"worker_died"}, "hang": {"timeout"}, "good": {""}}
    reasons["bad"] = {"empty_file", "unsupported_or_corrupt", "truncated"}
    assert table["path"].tolist() == [str(path) for path in paths]
    wrong = [
        r.path
        for k, r in zip(kinds, table.itertuples(), strict=True)
        if r.reason not in reasons[k]
    ]
    assert not wrong, wrong
    good = table[table["status"] == "ok"]
    assert all((out / tiles / "00000.png").is_file() for tiles in good["tiles"])
    assert not list(out.rglob(".part*"))
    counts = {
        k or "ok": int(v)
        for k, v in table["reason"].value_counts().sort_index().items()
    }
    print(
        f"{seconds:7.1f} s for {len(paths)} recordings, all as expected: {counts}",
        flush=True,
    )
    return seconds


def main() -> None:
    folder, n = Path(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else 10_000
    site = folder / "site"
    if os.environ.get("PYTHONPATH") != str(site):  # the workers inherit it
        site.mkdir(parents=True, exist_ok=True)
        (site / "sitecustomize.py").write_text(SITE_CUSTOMIZE)
        os.execve(
            sys.executable,
            [sys.executable, *sys.argv],
            {**os.environ, "PYTHONPATH": str(site)},
        )
    paths = make(folder / "takes", n)
    harmless = [path for path in paths if path.name.startswith(("good", "bad"))]
    pairs = [
        (measure(harmless, folder / "harmless"), measure(paths, folder / "all"))
        for _ in range(2)
    ]
    for without, with_ten in pairs:
        print(
            f"{without:.1f} s without the ten, {with_ten:.1f} s with them: "
            f"{with_ten / without - 1:+.1%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
