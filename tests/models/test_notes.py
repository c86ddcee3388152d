import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from cqt2img import Classifier, TrainingConfig, load
from cqt2img.data.synthetic import SAMPLE_RATE
from cqt2img.errors import InputError
from cqt2img.models.factory import build_network
from cqt2img.models.notes import (
    NOTES,
    NoteTranscriber,
    _load_transcriber_weights,
    can_read_notes,
    check_note_spec,
    decode_notes,
    make_note_classifier,
)
from cqt2img.tiles.cqt import compute_cqt
from cqt2img.tiles.png import cut_tiles
from cqt2img.tiles.spec import TileSpec
from tests.conftest import raises_with

SPEC = TileSpec.preset(NOTES)
N_ROWS = 96
ROW_OF_C4 = 95 - (60 - 21)
TO_COLUMNS = [SPEC.frame_seconds, 1, SPEC.frame_seconds]


def make_tone(midi, seconds=1.0, decay=0.6):
    """A plucked tone of eight partials."""
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    hz = 440 * 2 ** ((midi - 69) / 12)
    wave = np.zeros(len(t))
    for n in range(1, 9):
        wave += np.sin(2 * np.pi * hz * n * t) * np.exp(-t * n / decay) / n
    attack = np.minimum(1, t / 0.004)
    return (wave * attack).astype(np.float32)


def make_music(notes, seconds=6.0):
    """Tones from pairs of onset and MIDI number, with a little noise."""
    wave = np.zeros(int(seconds * SAMPLE_RATE), np.float32)
    for onset, midi in notes:
        tone = make_tone(midi)
        start = int(onset * SAMPLE_RATE)
        wave[start : start + len(tone)] += tone[: len(wave) - start]
    noise = np.random.default_rng(0).standard_normal(len(wave))
    return wave + 1e-4 * noise.astype(np.float32)


def tilt_spectrum(wave, db_per_octave):
    hz = np.maximum(np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE), 20)
    gain_db = db_per_octave * np.log2(hz / 500)
    spectrum = np.fft.rfft(wave) * 10 ** (gain_db / 20)
    return np.fft.irfft(spectrum, len(wave)).astype(np.float32)


@pytest.fixture(scope="module")
def network():
    return build_network(NOTES, 2, SPEC).eval()


def transcribe(network, wave):
    tiles = cut_tiles(compute_cqt(wave, SPEC, 0.0), SPEC)
    return transcribe_tile(network, tiles[:1])


def transcribe_tile(network, tile):
    with torch.inference_mode():
        images = network._make_input(torch.from_numpy(tile))
        proba = torch.sigmoid(network.backbone.reader(images))
    return decode_notes(*proba[0].numpy())


def test_a_melody_is_transcribed(network):
    pitches = [60, 64, 67, 72, 69, 65, 62, 59]
    melody = [(0.5 + 0.5 * n, pitch) for n, pitch in enumerate(pitches)]
    notes = transcribe(network, make_music(melody))
    assert len(notes) <= 11
    n_found = 0
    for onset, pitch, end in notes:
        nearest = round(onset * 2) / 2
        if (nearest, pitch) in melody:
            n_found += 1
            assert abs(onset - nearest) < 0.04
            assert end > onset
    assert n_found >= 7


def test_equaliser_and_level_hardly_change_the_notes(network):
    pitches = [60, 64, 67, 72, 69, 65, 62, 67, 71, 74]
    wave = make_music([(0.5 + 0.4 * n, pitch) for n, pitch in enumerate(pitches)])
    changed = 0.1 * tilt_spectrum(wave, db_per_octave=1.5)
    first, second = (
        {(round(onset / 0.1), pitch) for onset, pitch, _ in transcribe(network, w)}
        for w in (wave, changed)
    )
    assert len(first & second) >= 0.8 * len(first | second)


def test_silence_has_no_notes_and_zero_features(network):
    silence = np.zeros((1, *SPEC.size), np.uint8)
    assert len(transcribe_tile(network, silence)) == 0
    with torch.inference_mode():
        assert not network.embed(torch.from_numpy(silence)).any()


@pytest.fixture
def proba():
    """Onsets of C4 in columns 5 and 20; it sounds from column 5 to 30 of 40."""
    onset_proba, frame_proba = np.zeros((2, N_ROWS, 40), np.float32)
    onset_proba[ROW_OF_C4, [5, 20]] = 0.9
    frame_proba[ROW_OF_C4, 5:30] = 0.9
    return onset_proba, frame_proba


def test_a_note_ends_at_the_next_onset_or_when_it_is_silent(proba):
    notes = decode_notes(*proba) / TO_COLUMNS
    np.testing.assert_allclose(notes, [[5, 60, 20], [20, 60, 30]])


def test_a_note_ends_with_the_tile(proba):
    onset_proba, frame_proba = proba
    frame_proba[ROW_OF_C4, 30:] = 0.9
    _, last = decode_notes(onset_proba, frame_proba) / TO_COLUMNS
    assert last[2] == pytest.approx(40)


def test_a_note_ends_after_220_columns():
    onset_proba, frame_proba = np.zeros((2, N_ROWS, 400), np.float32)
    onset_proba[ROW_OF_C4, 5] = 0.9
    frame_proba[ROW_OF_C4] = 0.9
    ((start, _, end),) = decode_notes(onset_proba, frame_proba) / TO_COLUMNS
    assert end - start == pytest.approx(220)


def test_onsets_are_interpolated_between_columns(proba):
    """The parabola through .3, .9 and .6 has its maximum at 1/6."""
    onset_proba, frame_proba = proba
    onset_proba[ROW_OF_C4, [4, 6]] = [0.3, 0.6]
    first, _ = decode_notes(onset_proba, frame_proba) / TO_COLUMNS
    assert first[0] == pytest.approx(5 + 1 / 6)


def test_no_onset_gives_an_empty_array():
    empty = np.zeros((N_ROWS, 9), np.float32)
    assert decode_notes(empty, empty).shape == (0, 3)


@pytest.mark.parametrize("preset", ["notes", "piano"])
def test_fine_tiles_of_any_width_can_be_transcribed(preset):
    spec = TileSpec.preset(preset)
    changed = replace(spec, width=100, colour_map="inferno", min_fill=0.5)
    for each in (spec, changed):
        assert can_read_notes(each)
        check_note_spec(each)


@pytest.mark.parametrize("preset", ["jazz", "fast", "orchestra"])
def test_other_tiles_are_an_input_error(preset):
    spec = TileSpec.preset(preset)
    assert not can_read_notes(spec)
    with raises_with(InputError, "fit: backbone 'notes'", spec.key):
        build_network(NOTES, 2, spec)


@pytest.mark.parametrize("weights", ["imagenet", None, "none"])
def test_the_transcriber_has_weights_of_its_own(network, weights):
    again = build_network(NOTES, 2, SPEC, weights)
    expected = network.backbone.reader.state_dict()
    for name, value in again.backbone.reader.state_dict().items():
        assert torch.equal(value, expected[name])


def test_files_of_weights_are_an_input_error(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.touch()
    with raises_with(InputError, f"fit: weights={str(path)!r}", "'notes'"):
        build_network(NOTES, 2, SPEC, path)


def test_fused_norms_do_not_change_the_outputs():
    plain = NoteTranscriber().eval()
    plain.load_state_dict(_load_transcriber_weights())
    fused = make_note_classifier(2).reader
    kinds = {type(module) for module in fused.modules()}
    assert torch.nn.BatchNorm2d not in kinds
    generator = torch.Generator().manual_seed(0)
    tiles = torch.rand((2, 1, *SPEC.size), generator=generator) * 2 - 1
    with torch.inference_mode():
        torch.testing.assert_close(fused(tiles), plain(tiles), atol=1e-3, rtol=1e-4)


def test_features_of_a_tile_do_not_depend_on_its_batch(network):
    rng = np.random.default_rng(0)
    tiles = torch.from_numpy(rng.integers(0, 256, (3, *SPEC.size), dtype=np.uint8))
    with torch.inference_mode():
        assert torch.equal(network.embed(tiles)[1:2], network.embed(tiles[1:2]))


def test_training_mode_does_not_change_the_features(network):
    rng = np.random.default_rng(0)
    tiles = torch.from_numpy(rng.integers(0, 256, (1, *SPEC.size), dtype=np.uint8))
    training = build_network(NOTES, 2, SPEC).train()
    with torch.inference_mode():
        assert torch.equal(training.embed(tiles), network.embed(tiles))


def test_only_the_head_is_trainable(network):
    trainable = [n for n, p in network.named_parameters() if p.requires_grad]
    assert trainable == ["backbone.head.weight", "backbone.head.bias"]


def test_the_head_can_be_replaced():
    backbone = make_note_classifier(4)
    assert backbone.get_classifier().out_features == 4
    backbone.reset_classifier(6)
    assert backbone.get_classifier().out_features == 6


def test_state_has_the_names_of_saved_models(network):
    names = network.state_dict().keys()
    assert {name.split(".")[1] for name in names} == {"reader", "head"}
    assert {name.split(".")[2] for name in names if ".reader." in name} == {
        "stem",
        "mix",
        "blocks",
        "out",
    }
    assert "backbone.reader.blocks.2.look.weight" in names


@pytest.fixture(scope="module")
def two_players():
    """Three albums of two players: one plays runs, the other thirds, of one scale."""
    rng = np.random.default_rng(0)
    X, y, groups = [], [], []
    for album in range(3):
        db_per_octave = rng.normal(0, 2)
        for name, play in (("runs", play_runs), ("thirds", play_thirds)):
            for _ in range(2):
                key = int(rng.integers(-3, 4))
                scale = [60 + key + step for step in (0, 2, 4, 5, 7, 9, 11, 12)]
                pitches = rng.permutation(scale).tolist()
                wave = tilt_spectrum(make_music(play(pitches)), db_per_octave)
                X.append(compute_cqt(wave, SPEC, 0.0))
                y.append(name)
                groups.append(f"{name} {album}")
    return X, np.array(y), np.array(groups)


def play_runs(pitches):
    return [(0.3 + 0.15 * n, pitch) for n, pitch in enumerate(pitches * 4)]


def play_thirds(pitches):
    notes = []
    for n, pitch in enumerate(pitches):
        notes += [(0.3 + 0.6 * n, pitch), (0.3 + 0.6 * n, pitch + 4)]
    return notes


@pytest.fixture(scope="module")
def model(two_players):
    """A model of the first two albums of each player.

    Its head is a logistic regression on features that do not change in training.
    """
    X, y, groups = two_players
    known = np.flatnonzero(~np.char.endswith(groups, "2"))
    config = TrainingConfig(validation_fraction=0)
    model = Classifier(spec=NOTES, verbose=False, config=config)
    return model.fit([X[n] for n in known], y[known], groups[known])


@pytest.fixture(scope="module")
def unseen(two_players):
    """The third album of each player."""
    X, y, groups = two_players
    indices = np.flatnonzero(np.char.endswith(groups, "2"))
    return [X[n] for n in indices], y[indices]


def test_players_are_identified_on_unseen_albums(model, unseen):
    X, y = unseen
    assert model.model_.backbone == NOTES
    assert model.predict(X).tolist() == y.tolist()


def test_a_saved_model_has_the_same_outputs(model, unseen, tmp_path):
    X, _ = unseen
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert np.array_equal(loaded.predict_proba(X), model.predict_proba(X))


def test_a_player_can_be_enrolled(model, unseen):
    X, _ = unseen
    scale = [(0.3 + 0.3 * n, 40 + n) for n in range(18)]
    clip = compute_cqt(make_music(scale), SPEC, 0.0)
    wider = copy.deepcopy(model).enroll("scales", [clip])
    assert wider.classes_.tolist() == ["runs", "scales", "thirds"]
    assert wider.predict_proba(X).shape == (len(X), 3)


def test_recordings_without_notes_are_an_input_error():
    spectra = [np.linspace(-50 + n, -1, 192) for n in range(4)]
    X = [np.repeat(spectrum[:, None], 100, axis=1) for spectrum in spectra]
    with raises_with(InputError, "fit: ", "'notes'"):
        Classifier(spec=NOTES, verbose=False).fit(X, ["a", "b"] * 2)


@pytest.mark.parametrize(
    ("spec", "backbone"),
    [("fast", "resnet18"), ("jazz", "resnet18"), ("piano", NOTES), (None, NOTES)],
)
def test_the_default_backbone_depends_on_the_spec(spec, backbone, monkeypatch):
    built = []

    def build_nothing(name, *_):
        built.append(name)
        raise InputError("stop")

    monkeypatch.setattr("cqt2img.classifier.build_network", build_nothing)
    n_bins = 96 if spec == "fast" else 192
    X = list(np.random.default_rng(0).random((4, n_bins, 130)))
    with raises_with(InputError, "stop"):
        Classifier(spec=spec, verbose=False).fit(X, ["a", "b"] * 2)
    assert built == [backbone]
