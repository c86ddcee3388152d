import dataclasses
import json

import pytest

from cqt2img.errors import InputError
from cqt2img.tiles.spec import PRESETS, RENDERER, TileSpec
from tests.conftest import raises_with

FIELDS = [field.name for field in dataclasses.fields(TileSpec)]


@pytest.mark.parametrize("name", PRESETS)
def test_units_of_a_preset_agree(name):
    spec = TileSpec.preset(name)
    assert spec.size == (spec.height, spec.width)
    assert spec.frame_seconds == spec.hop_length / spec.sample_rate
    assert spec.tile_seconds == pytest.approx(spec.width * spec.frame_seconds)
    assert spec.min_db + 255 * spec.step_db == pytest.approx(spec.max_db)


def test_presets_differ_and_piano_is_the_default():
    assert len({TileSpec.preset(name).key for name in PRESETS}) == len(PRESETS) >= 5
    assert TileSpec.preset("orchestra").tuning == "keep"
    assert TileSpec() == TileSpec.preset("piano")


def test_keys_of_presets_are_those_of_rendered_tile_folders():
    # A changed key makes all tile folders and saved models unusable.
    keys = {name: TileSpec.preset(name).key for name in PRESETS}
    assert keys == {
        "notes": "7058200e38a6",
        "piano": "54194cf4a4b9",
        "jazz": "821f9c9e87c7",
        "orchestra": "4e0453bb5903",
        "fast": "2c61a45f8859",
    }


@pytest.mark.parametrize("name", PRESETS)
def test_semitones_and_octaves_are_whole_numbers_of_rows(name):
    spec = TileSpec.preset(name)
    assert spec.row_of_note(57) - spec.row_of_note(69) == spec.bins_per_octave
    assert spec.row_of_note(68) - spec.row_of_note(69) == spec.bins_per_octave // 12
    assert spec.row_of_note(21) == spec.height - 1  # the lowest note of a piano
    assert all(0 <= spec.row_of_note(midi) < spec.height for midi in range(21, 109))


def test_padding_rows_are_above_the_bins():
    assert TileSpec(n_bins=180, height=200).row_of_note(21) == 199


@pytest.mark.parametrize("midi", [20, 117])
def test_row_of_a_note_outside_the_bins_is_an_error(midi):
    with raises_with(InputError, "TileSpec.row_of_note", "midi", midi):
        TileSpec().row_of_note(midi)


def test_json_round_trip_preserves_the_spec(tmp_path):
    spec = TileSpec(hop_length=256, gamma=0.5, colour_map="viridis")
    path = tmp_path / "spéc.json"
    path.write_text(spec.to_json(), encoding="utf-8")
    for name in (path, str(path)):
        assert TileSpec.preset(name) == spec
        assert TileSpec.preset(name).key == spec.key
    assert TileSpec.from_dict({"hop_length": 256}) == TileSpec(hop_length=256)


def test_key_depends_on_every_field_and_on_the_renderer(monkeypatch):
    changed = {
        "sample_rate": 44100,
        "hop_length": 511,
        "f_min": 28.0,
        "n_bins": 191,
        "bins_per_octave": 36,
        "gamma": 5.0,
        "height": 193,
        "width": 257,
        "min_db": -61.0,
        "max_db": 5.0,
        "reference_percentile": 99.0,
        "tuning": "keep",
        "min_fill": 0.3,
        "colour_map": "viridis",
    }
    assert list(changed) == FIELDS
    specs = [TileSpec(), *(TileSpec(**{k: v}) for k, v in changed.items())]
    keys = {spec.key for spec in specs}
    assert len(keys) == len(specs)
    assert all(len(key) == 12 and int(key, 16) >= 0 for key in keys)
    monkeypatch.setattr("cqt2img.tiles.spec.RENDERER", RENDERER + 1)
    assert TileSpec().key not in keys


def test_equal_specs_have_equal_keys():
    assert TileSpec(gamma=4) == TileSpec(gamma=4.0)
    assert TileSpec(gamma=4).key == TileSpec(gamma=4.0).key != TileSpec().key
    assert TileSpec(gamma=0).key == TileSpec().key


def test_spec_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TileSpec().height = 1


@pytest.mark.parametrize("name", ["violin", "no/such.json"])
def test_unknown_preset_is_an_error_that_lists_the_presets(name):
    with raises_with(InputError, "preset", repr(name), *PRESETS):
        TileSpec.preset(name)


@pytest.mark.parametrize("data", [b"{", b"\xff"])
def test_damaged_json_file_is_an_error(tmp_path, data):
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with raises_with(InputError, "preset", repr(str(path))):
        TileSpec.preset(path)


@pytest.mark.parametrize(
    ("values", "found"), [({"hops": 1}, "'hops'"), ([1], "[1]"), (None, "None")]
)
def test_values_that_are_not_fields_are_an_error(tmp_path, values, found):
    parts = ["TileSpec.from_dict", "values", found, *FIELDS]
    with raises_with(InputError, *parts):
        TileSpec.from_dict(values)
    path = tmp_path / "x.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    with raises_with(InputError, *parts):
        TileSpec.preset(path)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("sample_rate", 3999, "an integer from 4000 to 192000"),
        ("sample_rate", 22050.0, "an integer from 4000 to 192000"),
        ("hop_length", 0, "an integer from 1 to 1000000"),
        ("hop_length", True, "an integer from 1 to 1000000"),
        ("f_min", 0.5, "a number from 1.0 to 20000.0"),
        ("n_bins", 0, "an integer from 1 to 10000"),
        ("n_bins", 193, "at most height = 192"),
        ("bins_per_octave", 0, "an integer from 12 to 1200"),
        ("bins_per_octave", 30, "a multiple of 12"),
        ("gamma", -1, "a number from 0.0 to 1000.0"),
        ("gamma", float("nan"), "a number from 0.0 to 1000.0"),
        ("height", "192", "an integer from 1 to 10000"),
        ("width", 100_001, "an integer from 1 to 100000"),
        ("min_db", 1.0, "a number from -200.0 to 0.0"),
        ("max_db", -60.0, "above min_db = -60.0"),
        ("max_db", 101, "a number from -100.0 to 100.0"),
        ("reference_percentile", 49, "a number from 50.0 to 100.0"),
        ("min_fill", 1.01, "a number from 0.0 to 1.0"),
        ("min_fill", None, "a number from 0.0 to 1.0"),
        ("tuning", "drop", "'remove' or 'keep'"),
    ],
)
def test_value_out_of_range_is_an_error(name, value, rule):
    with raises_with(InputError, f"TileSpec: {name}", rule, f"got {value!r}"):
        TileSpec(**{name: value})


@pytest.mark.parametrize("n_bins", [300, 207])
def test_bins_above_half_the_sample_rate_are_an_error(n_bins):
    # 207 bins end at 10.9 kHz, and above 11 kHz in a recording a quarter tone sharp.
    with raises_with(InputError, "TileSpec: n_bins", "11025 Hz", n_bins):
        TileSpec(n_bins=n_bins, height=n_bins)
