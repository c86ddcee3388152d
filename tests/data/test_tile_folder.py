import numpy as np
import pytest
import soundfile

from cqt2img.data.recordings import list_recordings
from cqt2img.data.render import render
from cqt2img.data.specs import as_spec, resolve_spec
from cqt2img.data.tile_folder import open_tiles
from cqt2img.errors import InputError
from cqt2img.tiles.display import colour_tiles
from cqt2img.tiles.png import read_tile
from cqt2img.tiles.spec import TileSpec
from tests.conftest import make_cqt, raises_with

FAST = TileSpec.preset("fast")


# open_tiles


def test_a_folder_that_is_no_tile_folder_is_an_error(tmp_path):
    for name in ("spec.json", "recordings.csv", "tiles.csv"):
        with raises_with(InputError, "open_tiles: ", str(tmp_path), name):
            open_tiles(tmp_path)
        (tmp_path / name).touch()


# select


def test_recordings_are_selected_with_their_tiles(tile_folder):
    tiles = open_tiles(tile_folder)
    part = tiles.select(tiles.recordings["label"] != "High")
    assert set(part.tiles["label"]) == {"Low", "Middle"}
    assert len(part.recordings) == 12
    few = tiles.select([3, 1])
    paths = tiles.recordings["path"]
    assert few.recordings["path"].tolist() == [paths[3], paths[1]]
    assert all(recording.tiles for recording in list_recordings(few))
    assert len(tiles.select([]).recordings) == 0
    late = tiles.select(tiles.recordings["label"] == "Middle")
    again = late.select(late.recordings["label"] == "Middle")
    assert again.recordings.equals(late.recordings)


def test_rows_of_other_tables_are_an_error(tile_folder):
    tiles = open_tiles(tile_folder)
    is_low = tiles.tiles["label"] == "Low"
    for rows, parts in (
        (is_low, ("mask", "18 recordings", f"{len(is_low)} entries")),
        (is_low.to_numpy()[:3], ("mask", "18 recordings", "3 entries")),
        (is_low[:18].astype(int), ("twice",)),
        ([1, 1], ("twice",)),
        ([0, 99], ("got 99",)),
        (["Monk"], ("got 'Monk'",)),
        ("Monk", ("got str",)),
        (0, ("got int",)),
        (np.ones((18, 2), bool), ("got ndarray",)),
    ):
        with raises_with(InputError, "TileSet.select: rows", *parts):
            tiles.select(rows)
    late = tiles.select(tiles.recordings["label"] == "Middle")
    with raises_with(InputError, "TileSet.select: rows", "got 0"):
        late.select([0])


# show


def test_a_contact_sheet_takes_recordings_from_each_label_in_turn(tmp_path):
    names = ("Monk/x/1.wav", "Monk/x/2.wav", "Evans/y/3.wav", "Evans/y/4.wav")
    seconds = (5, 14, 14, 14)
    for n, name in enumerate(names):
        path = tmp_path / "recordings" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        time = np.arange(22_050 * seconds[n]) / 22_050
        tone = 0.3 * np.sin(2 * np.pi * 220 * (n + 1) * time)
        soundfile.write(path, tone, 22_050)
    tiles = render(tmp_path / "recordings", tmp_path / "tiles", "fast")
    figure = tiles.show(n_recordings=3, n_tiles=2)
    *pictures, _ = figure.axes  # the last is the colour bar
    titles = [axes.get_title() for axes in pictures]
    # the short recording leaves a cell empty
    short = "Monk · x · 1.wav"
    assert titles == ["Evans · y · 3.wav", "", short, "Evans · y · 4.wav", ""]
    starts = [axes.get_xticklabels()[0].get_text() for axes in pictures]
    assert starts == ["0", "6", "0", "0", "6"]
    first, _ = read_tile(tiles.path / "tiles/Evans/y/3.wav/00000.png")
    shown = pictures[0].images[0].get_array()
    np.testing.assert_array_equal(shown, colour_tiles(first, FAST))


def test_a_contact_sheet_needs_tiles(tmp_path):
    tiles = render([np.zeros((96, 5))], tmp_path / "tiles", FAST)
    with raises_with(InputError, "TileSet.show: ", "none of the recordings"):
        tiles.show()


@pytest.mark.parametrize("argument", ["n_recordings", "n_tiles"])
def test_a_contact_sheet_has_a_row_and_a_column(tmp_path, argument):
    cqt = np.random.default_rng(0).random((96, 130))
    tiles = render([cqt], tmp_path / "tiles", FAST)
    with raises_with(InputError, f"TileSet.show: {argument}", "0"):
        tiles.show(**{argument: 0})
    assert len(tiles.show(1, 1).axes) == 2  # one tile and the colour bar


# specs


def test_specs_are_objects_names_or_files(tmp_path):
    assert as_spec(FAST) is FAST
    assert as_spec("fast") == FAST
    path = tmp_path / "x.json"
    path.write_text(FAST.to_json())
    assert as_spec(path) == as_spec(str(path)) == FAST


def test_the_spec_of_tiles_is_that_of_their_folder(small, tmp_path):
    tiles = render([make_cqt(5)], tmp_path / "out", small)
    manifest = tiles.path / "recordings.csv"
    recordings = list_recordings(tiles)
    frame = recordings.to_frame()
    for X in (tiles, tiles.path, str(tiles.path), manifest, recordings, frame):
        assert resolve_spec(None, X, "fit") == small
        assert resolve_spec(small, X, "fit") == small
        with raises_with(InputError, "fit: X", small.key, FAST.key, str(tiles.path)):
            resolve_spec("fast", X, "fit")


def test_the_spec_of_recordings_is_the_default(tmp_path):
    for X in (tmp_path, [np.ones(3)], ["x.wav"], list_recordings(["x.wav"])):
        assert resolve_spec(None, X, "fit") == TileSpec()
        assert resolve_spec(None, X, "fit", default="fast") == FAST
        assert resolve_spec("fast", X, "fit") == FAST
