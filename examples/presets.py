"""Make the pictures of docs/: one recording in four presets, and a contact sheet.

    python examples/presets.py [FOLDER]

The music is Beethoven's Für Elise, played by an invented pianist on an invented piano
(`cqt2img.data.synthetic`).
"""

import sys
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import soundfile
from matplotlib.figure import Figure
from PIL import Image

import cqt2img
from cqt2img.data import synthetic as synth
from cqt2img.tiles.display import plot_tile
from cqt2img.tiles.extract import make_tiles


def main() -> None:
    """Write presets.png and contact-sheet.png."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else mkdtemp())
    out.mkdir(parents=True, exist_ok=True)
    elise = next(melody for melody in synth.MELODIES if "Elise" in melody.title)
    album = synth.make_album("docs")
    rng = np.random.default_rng(0)
    notes = synth.perform(elise, synth.PLAYERS[0], rng)
    wave = synth.record(synth.play(notes, album), album, rng)
    soundfile.write(out / "elise.wav", wave, synth.SAMPLE_RATE)
    figure = Figure(figsize=(11, 7), layout="constrained")
    for n, name in enumerate(("piano", "jazz", "orchestra", "fast")):
        spec = cqt2img.TileSpec.preset(name)
        tiles, _ = make_tiles(out / "elise.wav", spec)
        n_rows = spec.bins_per_octave // 12
        rows = "1 row" if n_rows == 1 else f"{n_rows} rows"
        column = f"{1000 * spec.frame_seconds:.0f} ms a column"
        title = f"{name}: {rows} a semitone, {column}, {spec.tile_seconds:.1f} s"
        axes = figure.add_subplot(2, 2, n + 1)
        plot_tile(axes, tiles[0], spec, title=title)
        axes.set_xlabel("time (s)", fontsize=8)
    save(figure, out / "presets.png")
    synth.make_corpus(
        out / "recordings", n_players=3, n_albums=2, n_takes=1, seconds=12
    )
    rendered = cqt2img.render(out / "recordings", out / "tiles", "piano")
    sheet = rendered.show(n_recordings=3, n_tiles=2)
    save(sheet, out / "contact-sheet.png")
    print(f"presets.png and contact-sheet.png are in {out}")


def save(figure: Figure, path: Path) -> None:
    """Save a figure as a small palette PNG."""
    figure.savefig(path, dpi=80)
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(128)
    small.save(path, optimize=True)


if __name__ == "__main__":
    main()
