import dataclasses
import json

import pytest

from cqt2img.errors import InputError
from cqt2img.tiles.spec import PRESETS, RENDERER, TileSpec

FIELDS = ", ".join(field.name for field in dataclasses.fields(TileSpec))


def refuse(message, call, *args, **options):
    with pytest.raises(InputError) as caught:
        call(*args, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", PRESETS)
def test_preset_fits_its_tile(name):
    spec = TileSpec.preset(name)
    assert spec.size == (spec.height, spec.width)
    assert spec.bins_per_octave % 12 == 0
    assert spec.frame_seconds == spec.hop_length / spec.sample_rate
    assert spec.tile_seconds == pytest.approx(
        spec.width * spec.hop_length / spec.sample_rate
    )
    assert spec.min_db + 255 * spec.step_db == pytest.approx(spec.max_db)


def test_presets_are_named_and_differ():
    assert set(PRESETS) == {"notes", "piano", "jazz", "orchestra", "fast"}
    assert len({TileSpec.preset(name).key for name in PRESETS}) == 5
    assert TileSpec.preset("orchestra").tuning == "keep"
    assert TileSpec() == TileSpec.preset("piano")


@pytest.mark.parametrize("name", PRESETS)
def test_octave_is_bins_per_octave_rows(name):
    spec = TileSpec.preset(name)
    assert spec.row_of_note(57) - spec.row_of_note(69) == spec.bins_per_octave
    assert spec.row_of_note(68) - spec.row_of_note(69) == spec.bins_per_octave // 12
    lowest = 21 if spec.f_min == 27.5 else 24
    assert spec.row_of_note(lowest) == spec.height - 1
    assert all(0 <= spec.row_of_note(midi) < spec.height for midi in range(lowest, 109))


def test_row_counts_from_the_top_of_a_padded_tile():
    assert TileSpec(n_bins=180, height=200).row_of_note(21) == 199


@pytest.mark.parametrize("midi", [20, 117])
def test_row_of_note_outside(midi):
    message = f"TileSpec.row_of_note: midi must lie within the 192 bins, got {midi}. Use another spec."
    refuse(message, TileSpec().row_of_note, midi)


def test_json_gives_the_same_spec(tmp_path):
    spec = TileSpec(hop_length=256, gamma=0.5, colour_map="viridis")
    path = tmp_path / "spéc.json"
    path.write_text(spec.to_json(), encoding="utf-8")
    for name in (path, str(path)):
        assert TileSpec.preset(name) == spec
        assert TileSpec.preset(name).key == spec.key
    assert TileSpec.from_dict({"hop_length": 256}) == TileSpec(hop_length=256)


def test_key_names_every_pixel(monkeypatch):
    other = {
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
    assert ", ".join(other) == FIELDS
    keys = {
        TileSpec().key,
        *(TileSpec(**{name: value}).key for name, value in other.items()),
    }
    assert len(keys) == 1 + len(other)
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
def test_preset_unknown(name):
    message = (
        f"TileSpec.preset: name must be one of notes, piano, jazz, orchestra, fast or a JSON file, got {name!r}. "
        "Choose one, or write the file with TileSpec.to_json."
    )
    refuse(message, TileSpec.preset, name)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (
            b"{",
            "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
        (
            b"\xff",
            "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
        ),
    ],
)
def test_preset_of_a_damaged_file(tmp_path, data, fault):
    path = tmp_path / "x.json"
    path.write_bytes(data)
    message = f"TileSpec.preset: name must be a JSON file, got {str(path)!r}: {fault}. Write it with TileSpec.to_json."
    refuse(message, TileSpec.preset, path)


@pytest.mark.parametrize(
    ("values", "strange"), [({"hops": 1}, "hops"), ([1], "[1]"), (None, "None")]
)
def test_from_dict_of_what_is_no_field(tmp_path, values, strange):
    message = f"TileSpec.from_dict: values must be fields of a spec, got {strange}. Use {FIELDS}."
    refuse(message, TileSpec.from_dict, values)
    (tmp_path / "x.json").write_text(json.dumps(values), encoding="utf-8")
    refuse(message, TileSpec.preset, tmp_path / "x.json")


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("sample_rate", 3999, "be a whole number from 4000 to 192000"),
        ("sample_rate", 22050.0, "be a whole number from 4000 to 192000"),
        ("hop_length", 0, "be a whole number from 1 to 1000000"),
        ("hop_length", True, "be a whole number from 1 to 1000000"),
        ("f_min", 0.5, "be a number from 1.0 to 20000.0"),
        ("n_bins", 0, "be a whole number from 1 to 10000"),
        ("n_bins", 193, "be at most the height of 192"),
        ("bins_per_octave", 0, "be a whole number from 12 to 1200"),
        ("bins_per_octave", 30, "be a multiple of 12"),
        ("gamma", -1, "be a number from 0.0 to 1000.0"),
        ("gamma", float("nan"), "be a number from 0.0 to 1000.0"),
        ("height", "192", "be a whole number from 1 to 10000"),
        ("width", 100_001, "be a whole number from 1 to 100000"),
        ("min_db", 1.0, "be a number from -200.0 to 0.0"),
        ("max_db", -60.0, "be above min_db of -60.0"),
        ("max_db", 101, "be a number from -100.0 to 100.0"),
        ("reference_percentile", 49, "be a number from 50.0 to 100.0"),
        ("min_fill", 1.01, "be a number from 0.0 to 1.0"),
        ("min_fill", None, "be a number from 0.0 to 1.0"),
        ("tuning", "drop", "be 'remove' or 'keep'"),
    ],
)
def test_numbers_out_of_range(name, value, rule):
    message = f"TileSpec: {name} must {rule}, got {value!r}. Choose another value."
    refuse(message, TileSpec, **{name: value})


@pytest.mark.parametrize("n_bins", [300, 207])
def test_bins_end_below_half_the_sample_rate(n_bins):
    # 207 bins end at 10.9 kHz, and above 11 kHz where a piano is tuned a quarter tone sharp
    message = f"TileSpec: n_bins must end below half the sample rate, 11025 Hz, got {n_bins}. Choose another value."
    refuse(message, TileSpec, n_bins=n_bins, height=n_bins)
