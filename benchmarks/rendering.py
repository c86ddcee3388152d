"""Measure the speed, error and memory of rendering, compared with other libraries.

    OMP_NUM_THREADS=1 python benchmarks/rendering.py WORK [speed] [short] [parallel]
        [again] [memory]

WORK receives generated recordings and the tiles; a recording of ten minutes named
`speed.mp3` in it is used instead of the generated one. `speed` requires `pip install
nnAudio`. Each method goes from an mp3 to tiles on disk in one thread, one after the
other. Speeds are seconds of audio per second (real time = 1) and ratios; run it on an
idle machine. The error is the largest difference in dB, above -60 dB, from librosa.vqt
with whole kernels (`sparsity=0`) in double precision.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from cqt2img import TileSpec, render

RATE, MINUTES, ROUNDS = 44_100, 10, 3
SPECS = {
    84: TileSpec(
        n_bins=84,
        bins_per_octave=12,
        f_min=32.703195662574829,
        gamma=0.0,
        height=96,
        width=216,
    ),
    252: TileSpec(
        n_bins=252,
        bins_per_octave=36,
        f_min=32.703195662574829,
        gamma=0.0,
        height=256,
        width=216,
    ),
}


def music(seconds: float, seed: int = 0) -> np.ndarray:
    """Return stereo piano-like music: notes of six partials, with a little noise."""
    rng = np.random.default_rng(seed)
    sound = 1e-4 * rng.normal(size=(int(seconds * RATE), 2)).astype(np.float32)
    time_ = np.arange(2 * RATE, dtype=np.float32) / RATE
    for _ in range(int(4 * seconds)):
        start, hz = (
            int(rng.uniform(0, seconds - 2.1) * RATE),
            440 * 2 ** ((rng.integers(28, 90) - 69) / 12),
        )
        partials = [
            np.sin(2 * np.pi * n * hz * time_) / n**1.5
            for n in range(1, 7)
            if n * hz < 16_000
        ]
        note = (
            10 ** rng.uniform(-2, -0.7)
            * np.sum(partials, axis=0)
            * np.exp(-2.5 * time_)
        )
        sound[start : start + len(note)] += note[:, np.newaxis] * rng.uniform(
            0.5, 1, 2
        ).astype(np.float32)
    return np.clip(sound, -1, 1)


def recording(
    work: Path, seconds: float, name: str, suffix: str = "mp3", seed: int = 0
) -> Path:
    path = work / f"{name}.{suffix}"
    if not path.is_file():
        soundfile.write(path, music(seconds, seed), RATE)
    return path


def seconds_of(action: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Return the minimum CPU time; every method runs in one thread without waiting."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return min(times)


# methods


def decode(path: Path, spec: TileSpec, out: Path) -> None:
    with soundfile.SoundFile(path) as file:
        while len(file.read(65_536, dtype="float32", always_2d=True)):
            pass


def cqt2img(path: Path, spec: TileSpec, out: Path) -> None:
    made = render([path], out / "tiles", spec)
    assert made.recordings["status"].tolist() == ["ok"]


def librosa_cqt(wave: np.ndarray, spec: TileSpec, **options: object) -> np.ndarray:
    import librosa

    return librosa.vqt(
        wave,
        sr=spec.sample_rate,
        hop_length=spec.hop_length,
        fmin=spec.f_min,
        n_bins=spec.n_bins,
        tuning=0.0,
        bins_per_octave=spec.bins_per_octave,
        gamma=spec.gamma,
        **options,
    )


def save_rgb(decibels: np.ndarray, spec: TileSpec, out: Path) -> None:
    """Cut a CQT in dB into RGB images with a colour map and the defaults of Pillow."""
    from matplotlib import colormaps
    from PIL import Image

    table = (colormaps["magma"](np.arange(256))[:, :3] * 255).astype(np.uint8)
    levels = np.clip((decibels + 80) / 80 * 255, 0, 255).astype(np.uint8)[::-1]
    for n, left in enumerate(range(0, levels.shape[1] - spec.width + 1, spec.width)):
        Image.fromarray(table[levels[:, left : left + spec.width]]).save(
            out / f"{n:05d}.png"
        )


def careful(path: Path, spec: TileSpec, out: Path) -> None:
    import librosa

    wave, _ = librosa.load(path, sr=spec.sample_rate)
    save_rgb(
        librosa.amplitude_to_db(np.abs(librosa_cqt(wave, spec)), ref=np.max), spec, out
    )


def specshow(path: Path, spec: TileSpec, out: Path, axes: bool) -> None:
    import librosa
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    wave, _ = librosa.load(path, sr=spec.sample_rate)
    step = spec.width * spec.hop_length
    for n, start in enumerate(range(0, len(wave) - step + 1, step)):
        cqt = librosa.amplitude_to_db(
            np.abs(librosa_cqt(wave[start : start + step], spec)), ref=np.max
        )
        if axes:
            figure, ax = plt.subplots()
            image = librosa.display.specshow(
                cqt,
                sr=spec.sample_rate,
                x_axis="time",
                y_axis="cqt_hz",
                ax=ax,
                bins_per_octave=spec.bins_per_octave,
            )
            figure.colorbar(image, ax=ax, format="%+2.0f dB")
        else:
            figure = plt.figure(figsize=(spec.width / 100, spec.n_bins / 100), dpi=100)
            ax = figure.add_axes((0, 0, 1, 1))
            ax.axis("off")
            librosa.display.specshow(cqt, ax=ax)
        figure.savefig(out / f"{n:05d}.png")
        plt.close(figure)


def nnaudio(path: Path, spec: TileSpec, out: Path) -> None:
    import librosa
    import torch

    wave, _ = librosa.load(path, sr=spec.sample_rate)
    save_rgb(librosa.amplitude_to_db(nnaudio_cqt(wave, spec), ref=np.max), spec, out)
    torch.set_num_threads(1)


def nnaudio_cqt(wave: np.ndarray, spec: TileSpec) -> np.ndarray:
    """Transform a minute at a time with CQT2010v2, the fastest of nnAudio."""
    import torch
    from nnAudio.features import CQT2010v2

    torch.set_num_threads(1)
    layer = CQT2010v2(
        sr=spec.sample_rate,
        hop_length=spec.hop_length,
        fmin=spec.f_min,
        n_bins=spec.n_bins,
        verbose=False,
        bins_per_octave=spec.bins_per_octave,
    )
    size = 12 * spec.width * spec.hop_length
    with torch.inference_mode():
        parts = [
            layer(torch.from_numpy(wave[i : i + size])[np.newaxis])[0]
            for i in range(0, len(wave), size)
        ]
    return torch.cat(parts, dim=1).numpy()


METHODS: dict[str, Callable[[Path, TileSpec, Path], None]] = {
    "figure per tile (specshow, axes, savefig)": lambda *arguments: specshow(
        *arguments, axes=True
    ),
    "specshow without axes": lambda *arguments: specshow(*arguments, axes=False),
    "careful script (librosa, RGB by Pillow)": careful,
    "nnAudio, same output stage": nnaudio,
    "cqt2img": cqt2img,
    "decoding alone": decode,
}


def errors(path: Path, spec: TileSpec) -> dict[str, float]:
    """Return the largest differences from librosa with whole kernels, in dB."""
    from cqt2img.audio.decode import load_wave
    from cqt2img.tiles.cqt_kernels import transform

    wave = load_wave(path, spec.sample_rate)[: 60 * spec.sample_rate]
    exact = 20 * np.log10(
        np.abs(librosa_cqt(wave.astype(np.float64), spec, sparsity=0)) + 1e-20
    )
    is_loud = exact > np.percentile(exact, 99.9) - 60

    def error(magnitudes: np.ndarray) -> float:
        difference = 20 * np.log10(magnitudes + 1e-20) - exact
        return float(
            np.abs(difference - np.median(difference[is_loud]))[is_loud].max()
        )  # nnAudio has another gain

    return {
        "cqt2img": error(np.sqrt(np.concatenate(list(transform(wave, spec, 0.0))).T)),
        "careful script (librosa, RGB by Pillow)": error(
            np.abs(librosa_cqt(wave, spec))
        ),
        "nnAudio, same output stage": error(
            nnaudio_cqt(wave, spec)[:, : exact.shape[1]]
        ),
    }


def speed(work: Path) -> None:
    path = next(work.glob("speed.*"), None) or recording(
        work, 60 * MINUTES, "ten-minutes"
    )
    for n_bins, spec in SPECS.items():
        error_db, seconds = errors(path, spec), {}
        for name, method in METHODS.items():
            out = work / "out"

            def once(
                method: Callable = method, out: Path = out, spec: TileSpec = spec
            ) -> None:
                shutil.rmtree(out, ignore_errors=True)
                out.mkdir()
                method(path, spec, out)

            seconds[name] = seconds_of(once, 1 if "specshow" in name else ROUNDS)
        ours, alone = seconds["cqt2img"], seconds["decoding alone"]
        print(
            f"\n| {n_bins} bins | times real time | times cqt2img's time | error, dB |"
            "\n|---|---|---|---|"
        )
        for name, value in seconds.items():
            error = error_db.get(name, float("nan"))
            print(
                f"| {name} | {60 * MINUTES / value:.0f} | {value / ours:.2f} "
                f"| {error:.2f} |"
            )
        print(f"cqt2img / decoding alone: {ours / alone:.2f}", flush=True)


def short(work: Path) -> None:
    """Compare twenty files of half a minute with one file of ten minutes."""
    long = recording(work, 60 * MINUTES, "ten-minutes")
    files = [recording(work, 30, f"half-minute-{n}", seed=n) for n in range(20)]
    for n_bins, spec in SPECS.items():

        def all_of(paths: list[Path], spec: TileSpec = spec) -> None:
            shutil.rmtree(work / "out", ignore_errors=True)
            render(paths, work / "out", spec)

        one = seconds_of(lambda: all_of([long]), 5)
        many = seconds_of(lambda: all_of(files), 5)
        print(
            f"{n_bins} bins: 20 x 30 s take {many / one:.2f} times as long as 600 s in "
            "one file",
            flush=True,
        )


def parallel(work: Path) -> None:
    long = recording(work, 60 * MINUTES, "ten-minutes")
    files = [work / f"copy-{n}.mp3" for n in range(16)]
    for path in files:
        shutil.copy(long, path)
    for n_bins, spec in SPECS.items():
        took = {}
        for n_jobs in (1, 2):
            shutil.rmtree(work / "out", ignore_errors=True)
            start = time.perf_counter()
            render(files, work / "out", spec, n_jobs=n_jobs)
            took[n_jobs] = time.perf_counter() - start
        print(
            f"{n_bins} bins: two processes are {took[1] / took[2]:.2f} times as fast "
            "as one",
            took,
            flush=True,
        )


def again(work: Path) -> None:
    """Render 2000 short files that are already rendered."""
    sound = music(2.2)[: RATE // 2, 0]
    folder = work / "many"
    folder.mkdir(exist_ok=True)
    for n in range(2000):
        if not (path := folder / f"{n}.wav").is_file():
            soundfile.write(path, sound, RATE)
    render(folder, work / "many-tiles", "fast")
    took = seconds_of(lambda: render(folder, work / "many-tiles", "fast"))
    print(f"again on finished work: {1000 * took / 2000:.2f} ms per file", flush=True)


_PEAK = r"""
import json, re, sys, time
from cqt2img import render
import cqt2img.data.render, soundfile, soxr, PIL.Image, PIL.PngImagePlugin, pandas, joblib, matplotlib.colors
kib = lambda: int(re.search(r"VmHWM:\s*(\d+)", open("/proc/self/status").read())[1])
before, start = kib(), time.perf_counter()
made = render([sys.argv[1]], sys.argv[2], sys.argv[3])
assert made.recordings["status"].tolist() == ["ok"], made.recordings["message"][0]
print(json.dumps([(kib() - before) / 1024, time.perf_counter() - start]))
"""


def memory(work: Path) -> None:
    """Measure the peak memory of a process above that after its imports."""
    ten = music(600)
    for preset in ("piano", "orchestra"):
        for hours in (1, 3, 4):
            path = work / f"{hours}-hours.flac"
            if not path.is_file():
                with soundfile.SoundFile(path, "w", RATE, 2) as file:
                    for _ in range(6 * hours):
                        file.write(ten)
            shutil.rmtree(work / "out", ignore_errors=True)
            command = [
                sys.executable,
                "-c",
                _PEAK,
                str(path),
                str(work / "out"),
                preset,
            ]
            mib, seconds = json.loads(
                subprocess.run(
                    command, check=True, capture_output=True, text=True
                ).stdout
            )
            print(
                f"{preset}, {hours} h: {mib:.0f} MB above import, "
                f"{seconds / hours:.1f} s per hour",
                flush=True,
            )


def main() -> None:
    parts = {f.__name__: f for f in (speed, short, parallel, again, memory)}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("parts", nargs="*", default=list(parts), metavar="part")
    a = parser.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore")
    for name in a.parts:
        parts[name](a.work)


if __name__ == "__main__":
    main()
