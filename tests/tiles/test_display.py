import numpy as np
import pytest
from matplotlib.figure import Figure

from cqt2img.evaluation.report import to_png
from cqt2img.tiles.display import plot_tile, plot_tiles
from cqt2img.tiles.png import colour_tiles
from cqt2img.tiles.spec import TileSpec

SPEC = TileSpec.preset("fast")


def random_tiles(n, spec=SPEC):
    return np.random.default_rng(0).integers(0, 256, (n, *spec.size), dtype=np.uint8)


def test_tile_is_drawn_with_notes_and_seconds():
    (tile,) = random_tiles(1)
    axes = Figure().add_subplot()
    plot_tile(axes, tile, SPEC, "$Evans_", start_seconds=1.5)
    np.testing.assert_array_equal(axes.images[0].get_array(), colour_tiles(tile, SPEC))
    (keys,) = axes.child_axes
    marks = dict(
        zip(
            [t.get_text() for t in keys.get_yticklabels()],
            keys.get_yticks(),
            strict=True,
        )
    )
    assert marks["C4"] == SPEC.row_of_note(60)
    assert list(marks) == ["C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8"]
    times = {
        t.get_text(): x
        for t, x in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True)
    }
    assert times["2"] == pytest.approx(0.5 / SPEC.frame_seconds)
    assert axes.get_title() == "$Evans_"


@pytest.mark.parametrize("name", ["piano", "orchestra", "fast"])
def test_the_black_keys_lie_at_their_rows(name):
    spec = TileSpec.preset(name)
    axes = Figure().add_subplot()
    plot_tile(axes, random_tiles(1, spec)[0], spec)
    (keys,) = axes.child_axes
    assert keys.get_ylim() == axes.get_ylim()
    middles = {bar.get_y() + bar.get_height() / 2 for bar in keys.patches}
    black = [
        midi for midi in range(24, 107) if midi % 12 in (1, 3, 6, 8, 10) and midi >= 33
    ]
    assert {float(spec.row_of_note(midi)) for midi in black} <= {
        round(m, 6) for m in middles
    }
    assert not {float(spec.row_of_note(60)), float(spec.row_of_note(64))} & {
        round(m, 6) for m in middles
    }


@pytest.mark.parametrize(("n", "n_columns"), [(1, 3), (4, 3), (4, 2)])
def test_plot_tiles(n, n_columns):
    figure = plot_tiles(
        random_tiles(n), SPEC, [f"tile {k}" for k in range(n)], n_columns
    )
    *pictures, bar = figure.axes
    assert [axes.get_title() for axes in pictures] == [f"tile {k}" for k in range(n)]
    assert sum(axes.get_xlabel() == "seconds" for axes in pictures) == min(n, n_columns)
    assert bar.get_ylabel().startswith("dB")
    assert bar.get_ylim() == (SPEC.min_db, SPEC.max_db)
    assert to_png(figure).startswith(b"\x89PNG")
