import io

import numpy as np
import pytest
from matplotlib.figure import Figure

from cqt2img.tiles.display import plot_tile, plot_tiles
from cqt2img.tiles.png import colour_tiles
from cqt2img.tiles.spec import TileSpec

SPEC = TileSpec.preset("fast")
BLACK_PITCH_CLASSES = {1, 3, 6, 8, 10}


def random_tiles(n, spec=SPEC):
    return np.random.default_rng(0).integers(0, 256, (n, *spec.size), dtype=np.uint8)


def plot_one(spec=SPEC, **options):
    """Return a tile, its axes and the axes of its keyboard."""
    (tile,) = random_tiles(1, spec)
    axes = Figure().add_subplot()
    plot_tile(axes, tile, spec, **options)
    (keys,) = axes.child_axes
    return tile, axes, keys


def tick_positions(axis):
    labels = [label.get_text() for label in axis.get_ticklabels()]
    return dict(zip(labels, axis.get_ticklocs(), strict=True))


def test_tile_is_plotted_with_note_names_and_seconds():
    tile, axes, keys = plot_one(title="$Evans_", start_seconds=1.5)
    np.testing.assert_array_equal(axes.images[0].get_array(), colour_tiles(tile, SPEC))
    notes = tick_positions(keys.yaxis)
    assert notes == {f"C{n}": SPEC.row_of_note(12 + 12 * n) for n in range(1, 9)}
    seconds = tick_positions(axes.xaxis)
    assert seconds["2"] == pytest.approx(0.5 / SPEC.frame_seconds)
    assert axes.get_title() == "$Evans_"  # no formula


@pytest.mark.parametrize("name", ["piano", "orchestra", "fast"])
def test_black_keys_are_at_the_rows_of_their_notes(name):
    spec = TileSpec.preset(name)
    _, axes, keys = plot_one(spec)
    assert keys.get_ylim() == axes.get_ylim()
    rows = [key.get_y() + key.get_height() / 2 for key in keys.patches]
    black_notes = [n for n in range(21, 117) if n % 12 in BLACK_PITCH_CLASSES]
    expected = [spec.row_of_note(midi) for midi in black_notes]
    assert sorted(rows) == pytest.approx(sorted(expected))


def test_tile_without_a_note_has_an_empty_keyboard():
    between_notes = TileSpec(f_min=28.3, n_bins=1, height=4)
    _, _, keys = plot_one(between_notes)
    assert not keys.patches
    assert tick_positions(keys.yaxis) == {}


@pytest.mark.parametrize(("n", "n_columns"), [(1, 3), (4, 3), (4, 2)])
def test_tiles_are_plotted_in_rows_with_one_colour_bar(n, n_columns):
    titles = [f"tile {index}" for index in range(n)]
    figure = plot_tiles(random_tiles(n), SPEC, titles, n_columns=n_columns)
    *plots, bar = figure.axes
    assert [axes.get_title() for axes in plots] == titles
    n_labelled = sum(axes.get_xlabel() == "seconds" for axes in plots)
    assert n_labelled == min(n, n_columns)
    assert bar.get_ylabel().startswith("dB")
    assert bar.get_ylim() == (SPEC.min_db, SPEC.max_db)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    assert png.getvalue().startswith(b"\x89PNG")


def test_none_leaves_a_cell_empty():
    one, two = random_tiles(2)
    titles = ["one", "", "two"]
    starts = [0.0, 0.0, 6.0]
    tiles = [one, None, two]
    figure = plot_tiles(tiles, SPEC, titles, n_columns=2, start_seconds=starts)
    *plots, _ = figure.axes
    assert [axes.get_title() for axes in plots] == ["one", "two"]
    assert min(tick_positions(plots[1].xaxis), key=int) == "6"
