"""Measure the speed, the error and the memory of rendering, beside other ways.

    OMP_NUM_THREADS=1 python benchmarks/rendering.py WORK [PART ...]

PART is one or more of speed, short, parallel, again, memory; by default all.

WORK is a folder for the recordings, which are made here, and for the tiles. A recording
of ten minutes in it with the name `speed.mp3` replaces the synthetic one. `speed` needs
`pip install nnAudio`. All ways run in one thread, one after the other; run them on an
idle machine. Figures are seconds of audio per second (real time = 1) and ratios. The
error is the largest difference in dB, above -60 dB, from librosa.vqt with whole kernels
(`sparsity=0`) in double precision.
"""

import argparse
import functools
import json
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import librosa
import librosa.display
import numpy as np
import soundfile
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from cqt2img import TileSpec, render
from cqt2img.audio.decode import load_wave
from cqt2img.tiles.cqt_kernels import transform

Wave: TypeAlias = NDArray[np.float32]
Way: TypeAlias = Callable[[Path, TileSpec, Path], None]

ROOT = Path(__file__).parents[1]
SAMPLE_RATE = 44_100
N_MINUTES = 10
N_ROUNDS = 3
N_NOTES_PER_SECOND = 4
C1_HZ = 32.703195662574829
SPECS = {
    84: TileSpec(
        n_bins=84,
        bins_per_octave=12,
        f_min=C1_HZ,
        gamma=0.0,
        height=96,
        width=216,
    ),
    252: TileSpec(
        n_bins=252,
        bins_per_octave=36,
        f_min=C1_HZ,
        gamma=0.0,
        height=256,
        width=216,
    ),
}


# recordings


def make_music(seconds: float, seed: int = 0) -> Wave:
    """Return stereo music like that of a piano: struck notes over a little noise."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(int(seconds * SAMPLE_RATE), 2))
    sound = 1e-4 * noise.astype(np.float32)
    for _ in range(int(N_NOTES_PER_SECOND * seconds)):
        start = int(rng.uniform(0, seconds - 2.1) * SAMPLE_RATE)
        hz = 440 * 2 ** ((rng.integers(28, 90) - 69) / 12)
        note = 10 ** rng.uniform(-2, -0.7) * make_note(hz)
        balance = rng.uniform(0.5, 1, 2).astype(np.float32)
        sound[start : start + len(note)] += note[:, np.newaxis] * balance
    return np.clip(sound, -1, 1)


def make_note(hz: float) -> Wave:
    """Return two seconds of a note with up to six partials."""
    seconds = np.arange(2 * SAMPLE_RATE, dtype=np.float32) / SAMPLE_RATE
    note = np.zeros_like(seconds)
    for n in range(1, 7):
        if n * hz < 16_000:
            note += np.sin(2 * np.pi * n * hz * seconds) / n**1.5
    return note * np.exp(-2.5 * seconds)


def make_recording(work: Path, seconds: float, name: str, seed: int = 0) -> Path:
    path = work / f"{name}.mp3"
    if not path.is_file():
        soundfile.write(path, make_music(seconds, seed), SAMPLE_RATE)
    return path


def measure_seconds(action: Callable[[], object], n_rounds: int = N_ROUNDS) -> float:
    """Return the shortest of several times of the processor."""
    times = []
    for _ in range(n_rounds):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return min(times)


# ways to render


def render_by_decoding_only(path: Path, spec: TileSpec, out: Path) -> None:
    with soundfile.SoundFile(path) as file:
        while len(file.read(65_536, dtype="float32", always_2d=True)):
            pass


def render_by_cqt2img(path: Path, spec: TileSpec, out: Path) -> None:
    tiles = render([path], out / "tiles", spec)
    assert tiles.recordings["status"].tolist() == ["ok"]


def render_by_librosa(path: Path, spec: TileSpec, out: Path) -> None:
    """One transform of the whole recording, saved as RGB by Pillow."""
    wave, _ = librosa.load(path, sr=spec.sample_rate)
    magnitudes = np.abs(compute_librosa_cqt(wave, spec))
    save_rgb(librosa.amplitude_to_db(magnitudes, ref=np.max), spec, out)


def render_by_nnaudio(path: Path, spec: TileSpec, out: Path) -> None:
    wave, _ = librosa.load(path, sr=spec.sample_rate)
    magnitudes = compute_nnaudio_cqt(wave, spec)
    save_rgb(librosa.amplitude_to_db(magnitudes, ref=np.max), spec, out)


def render_by_specshow(
    path: Path, spec: TileSpec, out: Path, *, with_axes: bool
) -> None:
    """One transform and one figure of matplotlib per tile."""
    import matplotlib

    matplotlib.use("agg")
    wave, _ = librosa.load(path, sr=spec.sample_rate)
    n_samples = spec.width * spec.hop_length
    starts = range(0, len(wave) - n_samples + 1, n_samples)
    for n, start in enumerate(starts):
        magnitudes = compute_librosa_cqt(wave[start : start + n_samples], spec)
        decibels = librosa.amplitude_to_db(np.abs(magnitudes), ref=np.max)
        plot = plot_with_axes if with_axes else plot_without_axes
        plot(decibels, spec, out / f"{n:05d}.png")


def plot_with_axes(decibels: Wave, spec: TileSpec, path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    image = librosa.display.specshow(
        decibels,
        sr=spec.sample_rate,
        x_axis="time",
        y_axis="cqt_hz",
        ax=axes,
        bins_per_octave=spec.bins_per_octave,
    )
    figure.colorbar(image, ax=axes, format="%+2.0f dB")
    figure.savefig(path)
    plt.close(figure)


def plot_without_axes(decibels: Wave, spec: TileSpec, path: Path) -> None:
    import matplotlib.pyplot as plt

    size = (spec.width / 100, spec.n_bins / 100)
    figure = plt.figure(figsize=size, dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    librosa.display.specshow(decibels, ax=axes)
    figure.savefig(path)
    plt.close(figure)


def save_rgb(decibels: Wave, spec: TileSpec, out: Path) -> None:
    """Save a transform as usual: a colour map, RGB, and the defaults of Pillow."""
    colours = colormaps["magma"](np.arange(256))[:, :3] * 255
    table = colours.astype(np.uint8)
    levels = np.clip((decibels + 80) / 80 * 255, 0, 255).astype(np.uint8)[::-1]
    starts = range(0, levels.shape[1] - spec.width + 1, spec.width)
    for n, start in enumerate(starts):
        tile = table[levels[:, start : start + spec.width]]
        Image.fromarray(tile).save(out / f"{n:05d}.png")


def compute_librosa_cqt(
    wave: NDArray[np.floating], spec: TileSpec, **options: object
) -> NDArray[np.complexfloating]:
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


def compute_nnaudio_cqt(wave: Wave, spec: TileSpec) -> Wave:
    """Return magnitudes by CQT2010v2, the fastest of nnAudio, a minute at a time."""
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
    n_samples = 12 * spec.width * spec.hop_length
    parts = []
    with torch.inference_mode():
        for start in range(0, len(wave), n_samples):
            part = torch.from_numpy(wave[start : start + n_samples])
            parts.append(layer(part[np.newaxis])[0])
    return torch.cat(parts, dim=1).numpy()


WAYS: dict[str, Way] = {
    "figure per tile (specshow, axes, savefig)": functools.partial(
        render_by_specshow, with_axes=True
    ),
    "specshow without axes": functools.partial(render_by_specshow, with_axes=False),
    "careful script (librosa, RGB by Pillow)": render_by_librosa,
    "nnAudio, same tail": render_by_nnaudio,
    "cqt2img": render_by_cqt2img,
    "decoding alone": render_by_decoding_only,
}


# parts


def measure_errors(path: Path, spec: TileSpec) -> dict[str, float]:
    """Return the largest difference from librosa with whole kernels, in dB."""
    wave = load_wave(path, spec.sample_rate)[: 60 * spec.sample_rate]
    reference = np.abs(compute_librosa_cqt(wave.astype(float), spec, sparsity=0))
    exact = 20 * np.log10(reference + 1e-20)
    is_loud = exact > np.percentile(exact, 99.9) - 60

    def measure(magnitudes: Wave) -> float:
        difference = 20 * np.log10(magnitudes + 1e-20) - exact
        gain = np.median(difference[is_loud])  # nnAudio has a gain of its own
        return float(np.abs(difference - gain)[is_loud].max())

    power = np.concatenate(list(transform(wave, spec, 0.0)))
    nnaudio = compute_nnaudio_cqt(wave, spec)[:, : exact.shape[1]]
    return {
        "cqt2img": measure(np.sqrt(power.T)),
        "careful script (librosa, RGB by Pillow)": measure(
            np.abs(compute_librosa_cqt(wave, spec))
        ),
        "nnAudio, same tail": measure(nnaudio),
    }


def measure_speed(work: Path) -> None:
    """Compare the ways on one recording of ten minutes."""
    path = next(work.glob("speed.*"), None)
    if path is None:
        path = make_recording(work, 60 * N_MINUTES, "ten-minutes")
    for n_bins, spec in SPECS.items():
        errors = measure_errors(path, spec)
        seconds = {}
        for name, way in WAYS.items():
            n_rounds = 1 if "specshow" in name else N_ROUNDS
            run = functools.partial(run_in_empty_folder, way, path, spec, work / "out")
            seconds[name] = measure_seconds(run, n_rounds)
        print_speed(n_bins, seconds, errors)


def run_in_empty_folder(way: Way, path: Path, spec: TileSpec, out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    way(path, spec, out)


def print_speed(
    n_bins: int, seconds: dict[str, float], errors: dict[str, float]
) -> None:
    ours = seconds["cqt2img"]
    print(f"\n| {n_bins} bins | times real time | times cqt2img's time | error, dB |")
    print("|---|---|---|---|")
    for name, value in seconds.items():
        speed = 60 * N_MINUTES / value
        error = errors.get(name, float("nan"))
        print(f"| {name} | {speed:.0f} | {value / ours:.2f} | {error:.2f} |")
    decoding = seconds["decoding alone"]
    print(f"cqt2img / decoding alone: {ours / decoding:.2f}", flush=True)


def measure_short_files(work: Path) -> None:
    """Compare twenty files of half a minute with one of ten minutes."""
    long = make_recording(work, 60 * N_MINUTES, "ten-minutes")
    short = [make_recording(work, 30, f"half-minute-{n}", seed=n) for n in range(20)]
    for n_bins, spec in SPECS.items():
        render_one = functools.partial(render_anew, [long], work, spec)
        render_many = functools.partial(render_anew, short, work, spec)
        one = measure_seconds(render_one, 5)
        many = measure_seconds(render_many, 5)
        print(
            f"{n_bins} bins: 20 x 30 s take {many / one:.2f} times as long as 600 s in "
            "one file",
            flush=True,
        )


def render_anew(paths: list[Path], work: Path, spec: TileSpec, n_jobs: int = 1) -> None:
    shutil.rmtree(work / "out", ignore_errors=True)
    render(paths, work / "out", spec, n_jobs=n_jobs)


def measure_processes(work: Path) -> None:
    """Compare two processes with one."""
    long = make_recording(work, 60 * N_MINUTES, "ten-minutes")
    files = [work / f"copy-{n}.mp3" for n in range(16)]
    for path in files:
        shutil.copy(long, path)
    for n_bins, spec in SPECS.items():
        seconds = {}
        for n_jobs in (1, 2):
            start = time.perf_counter()
            render_anew(files, work, spec, n_jobs)
            seconds[n_jobs] = time.perf_counter() - start
        ratio = seconds[1] / seconds[2]
        print(
            f"{n_bins} bins: two processes are {ratio:.2f} times as fast as one",
            seconds,
            flush=True,
        )


def measure_finished_work(work: Path) -> None:
    """Render 2000 short files that are finished already."""
    sound = make_music(2.2)[: SAMPLE_RATE // 2, 0]
    folder = work / "many"
    folder.mkdir(exist_ok=True)
    for n in range(2000):
        path = folder / f"{n}.wav"
        if not path.is_file():
            soundfile.write(path, sound, SAMPLE_RATE)
    out = work / "many-tiles"
    render(folder, out, "fast")
    seconds = measure_seconds(lambda: render(folder, out, "fast"))
    print(f"again on finished work: {1000 * seconds / 2000:.2f} ms a file", flush=True)


def measure_memory(work: Path) -> None:
    """Print the peak memory of a process above what it has after its imports."""
    ten_minutes = make_music(600)
    for preset in ("piano", "orchestra"):
        for hours in (1, 3, 4):
            path = work / f"{hours}-hours.flac"
            if not path.is_file():
                with soundfile.SoundFile(path, "w", SAMPLE_RATE, 2) as file:
                    for _ in range(6 * hours):
                        file.write(ten_minutes)
            shutil.rmtree(work / "out", ignore_errors=True)
            megabytes, seconds = run_memory_program(path, work / "out", preset)
            print(
                f"{preset}, {hours} h: {megabytes:.0f} MB above import, "
                f"{seconds / hours:.1f} s an hour",
                flush=True,
            )


def run_memory_program(path: Path, out: Path, preset: str) -> tuple[float, float]:
    command = [sys.executable, "-m", "tests.programs.measure_memory"]
    done = subprocess.run(
        [*command, str(path.resolve()), str(out.resolve()), preset],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return tuple(json.loads(done.stdout))


PARTS = {
    "speed": measure_speed,
    "short": measure_short_files,
    "parallel": measure_processes,
    "again": measure_finished_work,
    "memory": measure_memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("parts", nargs="*", default=list(PARTS), metavar="part")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore")
    for name in arguments.parts:
        PARTS[name](arguments.work)


if __name__ == "__main__":
    main()
