import itertools

import librosa
import numpy as np
import pytest
import soundfile

from cqt2img.data.synthetic import (
    SAMPLE_RATE,
    make_album,
    make_corpus,
    play,
    record,
)
from cqt2img.data.synthetic_players import MELODIES, PLAYERS, perform
from cqt2img.errors import InputError
from tests.conftest import raises_with

ALBUM = make_album("test")


def make_rng(seed=0):
    return np.random.default_rng(seed)


def play_note(onset, duration, pitch, velocity, *, seconds, **changes):
    notes = np.array([[onset, duration, pitch, velocity]])
    return play(notes, ALBUM._replace(**changes), seconds)


def spectrum(wave):
    """Return frequencies in Hz and the power of a wave in a window of 4 s."""
    n_fft = 4 * SAMPLE_RATE
    power = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), n_fft)) ** 2
    return np.fft.rfftfreq(n_fft, 1 / SAMPLE_RATE), power


def octave_levels(wave):
    """Return the part of each octave from 55 Hz in the power, in dB."""
    hz, power = spectrum(wave)
    lows = 55 * 2 ** np.arange(7)
    levels = np.array([np.sum(power[(hz >= low) & (hz < 2 * low)]) for low in lows])
    return 10 * np.log10(levels / np.sum(levels))


def read_contents(files):
    root = files[0].parents[2]
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    return make_corpus(folder, n_players=3, n_albums=2, n_takes=2, seconds=3)


# players


@pytest.mark.parametrize("melody", MELODIES, ids=lambda melody: melody.title)
def test_melody_is_as_long_as_its_chords(melody):
    lengths = {"//": 0.25, "/": 0.5, "": 1, ".": 1.5, "-": 2, "--": 3}
    suffixes = [token.lstrip("ABCDEFGr#0123456789") for token in melody.notes.split()]
    n_beats = sum(lengths[suffix] for suffix in suffixes)
    assert n_beats == len(melody.chords.split()) * melody.chord_beats


def test_melodies_are_in_the_public_domain():
    years = [int(melody.title.split(",")[0].split()[1]) for melody in MELODIES]
    assert len(years) >= 6
    assert max(years) < 1830  # all composers died before 1830


def test_players_and_albums_differ():
    assert len({player.name for player in PLAYERS}) == 7
    assert len({player[1:] for player in PLAYERS}) == 7
    albums = {make_album(0, player.name, n) for player in PLAYERS for n in range(9)}
    assert len(albums) == 7 * 9


@pytest.mark.parametrize("player", PLAYERS, ids=lambda player: player.name)
def test_performance_fills_its_time_within_the_range_of_a_piano(player):
    for melody in MELODIES:
        notes = perform(melody, player, make_rng(1), 8)
        onset, duration, pitch, velocity = notes.T
        assert np.all(np.diff(onset) >= 0)
        assert onset[0] < 1.5
        assert 6 < onset[-1] < 8
        assert np.all(duration >= 0.05)
        assert np.all((velocity >= 0.05) & (velocity <= 1))
        assert pitch.min() > 21
        assert pitch.max() < 108


def play_plainly(melody, player, **changes):
    """Return the notes of a player whose other habits do not vary."""
    habits = {"ornament": 0, "octave": 0, "rubato": 0, "swing": 0, "pedal": 0}
    player = player._replace(**{**habits, "lead_ms": 0, "roll_ms": 0, **changes})
    return perform(melody, player, make_rng(), 12)


def test_performed_pitches_are_those_of_the_melody_and_its_chords():
    melody = next(m for m in MELODIES if "Ode to Joy" in m.title)
    notes = play_plainly(melody, PLAYERS[0])
    names = [token.rstrip("/-.") for token in melody.notes.split()]
    triads = [
        librosa.note_to_midi([f"{c}3" for c in chord]) for chord in ("CEG", "GBD")
    ]
    expected = {*(librosa.note_to_midi(names) % 12), *np.ravel(triads) % 12}
    found = set(notes[:, 2] % 12)
    transposed = [{(pitch + key) % 12 for pitch in expected} for key in range(12)]
    assert found in transposed


def test_staccato_is_shorter_than_legato():
    legato, staccato = (
        np.median(
            [
                np.median(play_plainly(m, player, pattern="block")[:, 1])
                for m in MELODIES
            ]
        )
        for player in PLAYERS[:2]
    )
    assert staccato < 0.8 * legato


def test_mordents_and_octaves_add_notes_to_the_melody():
    melody = next(m for m in MELODIES if "maman" in m.title)
    plain, ornamented, doubled = (
        len(play_plainly(melody, PLAYERS[0], **changes))
        for changes in ({}, {"ornament": 1}, {"octave": 1})
    )
    assert ornamented > 1.5 * plain
    assert doubled > 1.2 * plain


# sound


@pytest.mark.parametrize("cents", [0.0, 8.0, -20.0])
def test_a4_has_the_frequency_of_its_tuning(cents):
    wave = play_note(0, 3.5, 69, 0.5, seconds=4, cents=cents, hammer=0)
    hz, power = spectrum(wave)
    expected = 440 * 2 ** (cents / 1200)
    assert hz[np.argmax(power)] == pytest.approx(expected, abs=0.3)


def test_second_partial_is_stretched_by_inharmonicity():
    changes = {"cents": 0, "hammer": 0, "inharmonicity": 1e-3}
    hz, power = spectrum(play_note(0, 3.5, 60, 0.5, seconds=4, **changes))
    is_second = (hz > 500) & (hz < 550)
    expected = 2 * 261.63 * np.sqrt((1 + 4e-3) / (1 + 1e-3))
    found = hz[is_second][np.argmax(power[is_second])]
    assert found == pytest.approx(expected, abs=0.3)


def test_note_starts_and_ends_on_time():
    wave = play_note(1.0, 0.5, 60, 0.5, seconds=3)
    assert wave.dtype == np.float32
    is_sounding = np.abs(wave) > 1e-3 * np.abs(wave).max()
    sounding = np.flatnonzero(is_sounding) / SAMPLE_RATE
    assert sounding[0] == pytest.approx(1.0, abs=0.005)
    assert 1.5 < sounding[-1] < 1.76


def test_loud_notes_are_brighter():
    brightness = []
    for velocity in (0.2, 0.9):
        wave = play_note(0, 2, 60, velocity, seconds=2, hammer=0)
        hz, power = spectrum(wave)
        brightness.append(np.sum(power[hz > 1000]) / np.sum(power))
    assert brightness[1] > 4 * brightness[0]


def test_notes_add_up_and_are_cut_at_the_end():
    early, late = np.array([[0, 1, 60, 0.5]]), np.array([[1.9, 1, 64, 0.5]])
    both = play(np.vstack([early, late]), ALBUM, 2)
    expected = play(early, ALBUM, 2) + play(late, ALBUM, 2)
    np.testing.assert_allclose(both, expected, atol=1e-6)
    assert both.shape == (2 * SAMPLE_RATE,)


def test_recording_has_the_length_of_the_wave_and_the_level_of_the_album():
    wave = play_note(0, 1, 60, 0.5, seconds=2)
    before = wave.copy()
    recorded = record(wave, ALBUM._replace(level_db=-6, hiss_db=-90), make_rng())
    assert recorded.shape == wave.shape
    assert recorded.dtype == np.float32
    assert np.abs(recorded).max() == pytest.approx(10 ** (-6 / 20), abs=0.001)
    np.testing.assert_array_equal(wave, before)


FLAT = {"wet": 0, "eq_tilt_db": 0, "lowpass_hz": 1e6, "hiss_db": -140, "peaks": ()}


def record_noise(**changes):
    noise = make_rng().normal(0, 0.1, 4 * SAMPLE_RATE).astype(np.float32)
    return record(noise, ALBUM._replace(**changes), make_rng())


def test_equaliser_peak_has_its_gain():
    hz, power = spectrum(record_noise(**{**FLAT, "peaks": ((1000, 9),)}))
    near, far = (np.mean(power[(hz > low) & (hz < 1.05 * low)]) for low in (975, 5000))
    assert 10 * np.log10(near / far) == pytest.approx(9, abs=1.5)


def test_album_changes_the_spectrum():
    difference = octave_levels(record_noise()) - octave_levels(record_noise(**FLAT))
    assert np.ptp(difference) > 6


def test_recording_of_silence_is_noise_at_the_level_of_the_album():
    silence = np.zeros(SAMPLE_RATE, np.float32)
    recorded = record(silence, ALBUM._replace(hiss_db=-50), make_rng())
    assert 20 * np.log10(np.std(recorded)) == pytest.approx(-50, abs=0.2)


def test_albums_of_one_player_differ_in_their_spectrum():
    notes = perform(MELODIES[0], PLAYERS[0], make_rng(), 6)
    levels = []
    for number in (1, 2, 3):
        album = make_album(0, "ada-legato", number)
        wave = record(play(notes, album, 6), album, make_rng())
        levels.append(octave_levels(wave))
    for one, two in itertools.combinations(levels, 2):
        assert np.std(one - two) > 3  # dB


# files


def test_files_are_sorted_by_player_album_and_take(corpus):
    names = list(read_contents(corpus))
    assert len(names) == 12
    assert names == sorted(names)
    assert names[0] == "ada-legato/ada-legato-1/take-1.flac"
    assert names[-1] == "clara-rubato/clara-rubato-2/take-2.flac"
    files = [path for path in corpus[0].parents[2].rglob("*") if path.is_file()]
    assert sorted(files) == corpus  # and no temporary files


def test_files_are_mono_16_bit_flac_of_the_requested_length(corpus):
    for file in corpus:
        info = soundfile.info(file)
        assert (info.format, info.subtype) == ("FLAC", "PCM_16")
        assert (info.samplerate, info.channels) == (22050, 1)
        assert info.frames == 3 * 22050
        assert 0.1 < np.abs(soundfile.read(file)[0]).max() < 1


def test_fewer_players_and_takes_leave_the_other_files_unchanged(corpus, tmp_path):
    fewer = make_corpus(tmp_path, n_players=2, n_albums=2, n_takes=1, seconds=3)
    contents = read_contents(corpus)
    assert len(fewer) == 4
    assert len(set(contents.values())) == 12
    assert all(contents[name] == data for name, data in read_contents(fewer).items())


def test_files_depend_on_the_seed(corpus, tmp_path):
    sizes = {"n_players": 2, "n_albums": 2, "n_takes": 1, "seconds": 3}
    other = read_contents(make_corpus(tmp_path, **sizes, random_state=1))
    contents = read_contents(corpus)
    assert all(contents[name] != data for name, data in other.items())


@pytest.mark.parametrize(
    ("argument", "value", "low", "high"),
    [
        ("n_players", 1, 2, 7),
        ("n_players", 8, 2, 7),
        ("n_albums", 1, 2, 99),
        ("n_takes", 0, 1, 99),
        ("seconds", 1.5, 2, 600),
        ("seconds", 601, 2, 600),
        ("seconds", float("nan"), 2, 600),
    ],
)
def test_number_out_of_range_is_an_error(tmp_path, argument, value, low, high):
    rule = f"from {low} to {high}"
    with raises_with(InputError, f"make_corpus: {argument}", rule, value):
        make_corpus(tmp_path, **{argument: value})
    assert not list(tmp_path.iterdir())
