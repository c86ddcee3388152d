from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from cqt2img import Classifier, load
from cqt2img.data.synthetic import SAMPLE_RATE
from cqt2img.errors import InputError
from cqt2img.models.factory import build_network
from cqt2img.models.notes import (
    N_FEATURES,
    NOTES,
    NoteReader,
    _weights,
    check_note_spec,
    describe_phrases,
    find_notes,
    make_note_classifier,
    read_phrases,
    reads,
)
from cqt2img.tiles.cqt import compute_cqt
from cqt2img.tiles.png import cut_tiles
from cqt2img.tiles.spec import TileSpec

SPEC = TileSpec.preset(NOTES)


def strike(midi, seconds=1.0, decay=0.6):
    """A plucked tone of eight partials."""
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    hz = 440 * 2 ** ((midi - 69) / 12)
    partials = sum(
        np.sin(2 * np.pi * hz * n * t) * np.exp(-t * n / decay) / n for n in range(1, 9)
    )
    return (partials * np.minimum(1, t / 0.004)).astype(np.float32)


def play(notes, seconds=6.0):
    wave = np.zeros(int(seconds * SAMPLE_RATE), np.float32)
    for start, midi in notes:
        tone, at = strike(midi), int(start * SAMPLE_RATE)
        wave[at : at + len(tone)] += tone[: len(wave) - at]
    return wave + 1e-4 * np.random.default_rng(0).standard_normal(len(wave)).astype(
        np.float32
    )


def read(wave):
    network = build_network(NOTES, 2, SPEC).eval()
    tiles = cut_tiles(compute_cqt(wave, SPEC, 0.0), SPEC)
    with torch.inference_mode():
        logits = network.backbone.reader(network._paint(torch.from_numpy(tiles[:1])))
    return find_notes(*torch.sigmoid(logits)[0].numpy())


def test_a_melody_is_read():
    tune = [
        (0.5, 60),
        (1.0, 64),
        (1.5, 67),
        (2.0, 72),
        (2.5, 69),
        (3.0, 65),
        (3.5, 62),
        (4.0, 59),
    ]
    found = read(play(tune))
    heard = {(round(start * 2) / 2, int(pitch)) for start, pitch, _ in found}
    assert len(heard & set(tune)) >= 7, found
    assert len(found) <= 11, "and little else"
    for start, pitch, end in found:
        if (round(start * 2) / 2, int(pitch)) in tune:
            assert abs(start - round(start * 2) / 2) < 0.04
            assert end > start


def test_notes_are_the_same_through_another_equaliser_and_level():
    tune = [
        (0.5 + 0.4 * n, p)
        for n, p in enumerate([60, 64, 67, 72, 69, 65, 62, 67, 71, 74])
    ]
    wave = play(tune)
    spectrum = np.fft.rfft(wave)
    hz = np.maximum(np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE), 20)
    other = 0.1 * np.fft.irfft(
        spectrum * 10 ** (1.5 * np.log2(hz / 500) / 20), len(wave)
    ).astype(np.float32)
    first, second = (
        {(round(s / 0.1), p) for s, p, _ in read(w)} for w in (wave, other)
    )
    assert len(first & second) >= 0.8 * len(first | second)


def test_silence_has_no_notes():
    network = build_network(NOTES, 2, SPEC).eval()
    silence = torch.zeros((1, *SPEC.size), dtype=torch.uint8)
    with torch.inference_mode():
        logits = network.backbone.reader(network._paint(silence))
        assert not network.embed(silence).any()
    assert len(find_notes(*torch.sigmoid(logits)[0].numpy())) == 0


def test_find_notes_follows_a_note_until_it_is_silent_or_struck_again():
    begins, sounds = np.zeros((2, 96, 40), np.float32)
    row = 95 - (60 - 21)
    begins[row, [5, 20]] = 0.9
    sounds[row, 5:30] = 0.9
    found = find_notes(begins, sounds)
    np.testing.assert_allclose(
        found / [SPEC.frame_seconds, 1, SPEC.frame_seconds], [[5, 60, 20], [20, 60, 30]]
    )
    begins[row, 4], begins[row, 6] = 0.3, 0.6
    nudged = find_notes(begins, sounds)[0, 0] / SPEC.frame_seconds
    assert 5 < nudged < 5.5, "between the columns, towards the likelier side"
    sounds[row, 30:] = 0.9
    assert find_notes(begins, sounds)[1, 2] == pytest.approx(40 * SPEC.frame_seconds), (
        "to the end of the tile"
    )
    assert find_notes(np.zeros((96, 9), "f4"), np.zeros((96, 9), "f4")).shape == (0, 3)


def test_only_fine_tiles_can_be_read():
    assert reads(SPEC)
    assert reads(TileSpec.preset("piano"))
    assert reads(replace(SPEC, width=100, colour_map="inferno", min_fill=0.5))
    for preset in ("jazz", "fast", "orchestra"):
        assert not reads(TileSpec.preset(preset))
    fast = TileSpec.preset("fast")
    with pytest.raises(InputError) as caught:
        check_note_spec(fast)
    assert str(caught.value) == (
        f"Classifier: spec must be like the preset 'notes' to read notes from, got spec {fast.key}. "
        "Leave spec out (or --preset), or choose a backbone that sees pictures, such as 'resnet18'."
    )
    with pytest.raises(InputError, match="like the preset 'notes'"):
        build_network(NOTES, 2, fast)


def test_it_brings_its_own_weights_and_takes_no_others(tmp_path):
    for weights in ("imagenet", None, "none"):
        first, second = (
            build_network(NOTES, 2, SPEC, weights).backbone.reader.state_dict()
            for _ in range(2)
        )
        assert all(torch.equal(first[name], second[name]) for name in first)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as caught:
        build_network(NOTES, 2, SPEC, tmp_path / "file")
    assert str(caught.value) == (
        f"Classifier: weights must be left out for 'notes', which brings its own, got {str(tmp_path / 'file')!r}. "
        "Leave it out, or name the backbone that they are of."
    )


def test_fused_norms_change_nothing():
    fused = make_note_classifier(2).eval().reader
    plain = NoteReader().eval()
    plain.load_state_dict(_weights())
    tiles = (
        torch.rand((2, 1, *SPEC.size), generator=torch.Generator().manual_seed(0)) * 2
        - 1
    )
    assert not any(
        isinstance(module, torch.nn.BatchNorm2d) for module in fused.modules()
    )
    with torch.inference_mode():
        torch.testing.assert_close(fused(tiles), plain(tiles), atol=1e-3, rtol=1e-4)


def test_a_tile_is_read_alike_in_any_company():
    tiles = np.random.default_rng(0).integers(0, 256, (3, *SPEC.size), dtype=np.uint8)
    network = build_network(NOTES, 2, SPEC).train()
    with torch.inference_mode():
        together = network.embed(torch.from_numpy(tiles))
        alone = network.embed(torch.from_numpy(tiles[1:2]))
    assert torch.equal(together[1:2], alone)
    assert not any(p.requires_grad for p in network.backbone.reader.parameters())
    assert make_note_classifier(4).get_classifier().out_features == 4


@pytest.fixture
def players():
    """Two players who play the same scale: one in thirds, the other in running notes."""
    rng = np.random.default_rng(0)
    X, y, groups = [], [], []
    for album in range(3):
        tilt = rng.normal(0, 2)
        for name in ("runs", "thirds"):
            for _ in range(2):
                key = int(rng.integers(-3, 4))
                scale = [60 + key + s for s in (0, 2, 4, 5, 7, 9, 11, 12)]
                order = rng.permutation(scale).tolist()
                if name == "runs":
                    notes = [(0.3 + 0.15 * n, p) for n, p in enumerate(order * 4)]
                else:
                    notes = [
                        (0.3 + 0.6 * n, p + third)
                        for n, p in enumerate(order)
                        for third in (0, 4)
                    ]
                wave = play(notes)
                hz = np.maximum(np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE), 20)
                wave = np.fft.irfft(
                    np.fft.rfft(wave) * 10 ** (tilt * np.log2(hz / 500) / 20), len(wave)
                )
                X.append(compute_cqt(wave.astype(np.float32), SPEC, 0.0))
                y.append(name)
                groups.append(f"{name} {album}")
    return X, np.array(y), np.array(groups)


def test_it_is_the_default_and_names_players_on_albums_never_met(players, tmp_path):
    X, y, groups = players
    new = np.array([group.endswith("2") for group in groups])
    model = Classifier(spec=NOTES, verbose=False, validation_fraction=0)
    model.fit([X[n] for n in np.flatnonzero(~new)], y[~new], groups[~new])
    assert model.architecture_["backbone"] == NOTES
    unseen = [X[n] for n in np.flatnonzero(new)]
    assert model.predict(unseen).tolist() == y[new].tolist()
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.backbone is None
    assert np.array_equal(again.predict_proba(unseen), model.predict_proba(unseen))


def test_recordings_without_notes_are_refused():
    steady = [
        np.repeat(np.linspace(-50 + n, -1, 192)[:, None], 100, axis=1) for n in range(4)
    ]
    with pytest.raises(InputError) as caught:
        Classifier(spec=NOTES, verbose=False).fit(steady, ["a", "b"] * 2)
    assert str(caught.value) == (
        "fit: X must hold notes of a piano for the backbone 'notes', got none that can be read. "
        "Choose a backbone that sees pictures, such as 'resnet18'."
    )


@pytest.mark.parametrize(
    ("spec", "name"),
    [("fast", "resnet18"), ("jazz", "resnet18"), ("piano", NOTES), (None, NOTES)],
)
def test_the_default_depends_on_the_tiles(spec, name, monkeypatch):
    asked = []

    def stop(backbone, *_):
        asked.append(backbone)
        raise InputError("enough")

    monkeypatch.setattr("cqt2img.classifier.build_network", stop)
    X = np.random.default_rng(0).random((4, 96 if spec == "fast" else 192, 130))
    with pytest.raises(InputError, match="enough"):
        Classifier(spec=spec, verbose=False).fit(list(X), ["a", "b"] * 2)
    assert asked == [name]


TUNE = np.array([[0.0, 67, 0.38], [0.5, 69, 0.88], [1.0, 71, 1.38], [1.5, 67, 1.88]])


def moved(notes, semitones=0, seconds=0.0):
    return np.add(notes, [seconds, semitones, seconds])


def test_steps_and_phrases_are_counted():
    words = read_phrases(TUNE)
    assert (words["step 2"], words["step -4"]) == (2, 1)
    assert (words["phrase 2 2"], words["phrase 2 -4"], words["phrase 2 2 -4"]) == (
        1,
        1,
        1,
    )
    assert words["voices 1"] == 4
    assert words["held 7"] == 4, "0.38 s is 3.7 octaves above 30 ms, counted in halves"
    assert words["gap 12"] == 3
    assert words["ratio 0"] == 2
    assert words["touch -2"] == 3, "each note ends 120 ms before the next"


def test_a_chord_is_what_begins_within_40_ms():
    chord = np.array(
        [[0.0, 48, 1.0], [0.012, 52, 1.0], [0.03, 55, 1.0], [0.5, 48, 1.0]]
    )
    words = read_phrases(chord)
    assert words["chord 0 4 7"] == 1
    assert (words["interval 4"], words["interval 3"]) == (1, 1)
    assert words["spread 6"] == 1, "30 ms, in fives"
    assert (words["voices 3"], words["voices 1"]) == (1, 1)
    assert words["bass 0"] == 1
    late = chord.copy()
    late[2, 0] = 0.05
    assert read_phrases(late)["chord 0 4 7"] == 0


def test_key_and_time_do_not_matter():
    assert read_phrases(moved(TUNE, 3)) == read_phrases(TUNE)
    assert read_phrases(moved(TUNE, seconds=7.0)) == read_phrases(TUNE)
    assert read_phrases(TUNE[::-1] * [-1, 1, -1]) != read_phrases(TUNE)


def test_density_is_said_often_enough_to_be_heard():
    slow = read_phrases(TUNE * [4, 1, 4])
    assert sum(n for word, n in slow.items() if word.startswith("density")) == 50
    assert {w for w in slow if w.startswith("density")} != {
        w for w in read_phrases(TUNE * [0.1, 1, 0.1]) if w.startswith("density")
    }


@pytest.mark.parametrize("n", [0, 1, 2])
def test_fewer_than_three_notes_say_nothing(n):
    assert read_phrases(TUNE[:n]) == Counter()


def test_vectors_have_length_one_and_do_not_depend_on_the_order_of_words():
    words = read_phrases(TUNE)
    backwards = Counter(dict(reversed(list(words.items()))))
    rows = describe_phrases([words, backwards, Counter(), read_phrases(TUNE[:3])])
    assert rows.shape == (4, N_FEATURES)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), [1, 1, 0, 1], rtol=1e-5)
    assert np.array_equal(rows[0], rows[1])
    assert 0.5 < rows[0] @ rows[3] < 0.99, (
        "the beginning of a tune is much like the tune"
    )
