import numpy as np
import pytest
import soundfile
from matplotlib.figure import Figure

from cqt2img.data.render import render
from cqt2img.errors import InputError
from cqt2img.evaluation.report import to_png
from cqt2img.tiles.display import plot_tile, plot_tiles
from cqt2img.tiles.png import colour_tiles, read_tile
from cqt2img.tiles.spec import TileSpec
from tests.conftest import raises_exactly

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


def test_a_contact_sheet_has_a_row_for_a_recording_of_every_label_in_turn(tmp_path):
    time = np.arange(22_050 * 14) / 22_050
    for n, name in enumerate(
        ("Monk/x/1.wav", "Monk/x/2.wav", "Evans/y/3.wav", "Evans/y/4.wav")
    ):
        path = tmp_path / "recordings" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(
            path,
            0.3 * np.sin(2 * np.pi * 220 * (n + 1) * time[: 22_050 * (14 if n else 5)]),
            22_050,
        )
    tiles = render(tmp_path / "recordings", tmp_path / "tiles", "fast")
    figure = tiles.show(n_recordings=3, n_tiles=2)
    titles = [axes.get_title() for axes in figure.axes[:-1]]
    expected = ["Evans · y · 3.wav", "", "Monk · x · 1.wav", "Evans · y · 4.wav", ""]
    assert titles == expected  # a short one leaves a place empty
    starts = [axes.get_xticklabels()[0].get_text() for axes in figure.axes[:-1]]
    assert starts == ["0", "6", "0", "0", "6"]
    first = colour_tiles(
        read_tile(tiles.path / "tiles/Evans/y/3.wav/00000.png")[0], tiles.spec
    )
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), first)


def test_a_contact_sheet_of_nothing(tmp_path):
    tiles = render([np.zeros((96, 5))], tmp_path / "tiles", "fast")
    with raises_exactly(
        InputError,
        "TileSet.show: it must hold tiles, got none. See the reasons in recordings['message'].",
    ):
        tiles.show()


def test_a_contact_sheet_of_no_recordings(tmp_path):
    tiles = render(
        [np.random.default_rng(0).random((96, 130))], tmp_path / "tiles", "fast"
    )
    message = (
        "TileSet.show: n_recordings and n_tiles must be 1 or more, got 0 and 3. "
        "Leave them out for a sheet of 4 recordings."
    )
    with raises_exactly(InputError, message):
        tiles.show(n_recordings=0)
    assert len(tiles.show(1, 1).axes) == 2
