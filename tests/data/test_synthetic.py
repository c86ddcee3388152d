import itertools

import numpy as np
import pytest
import soundfile

from cqt2img.data import synthetic as synth
from cqt2img.errors import InputError

ALBUM = synth.make_album("test")


def spectrum(wave):
    """Return the frequencies in Hz and the power of a wave in 4 s windows."""
    power = (
        np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 4 * synth.SAMPLE_RATE)) ** 2
    )
    return np.fft.rfftfreq(4 * synth.SAMPLE_RATE, 1 / synth.SAMPLE_RATE), power


def octave_levels(wave):
    """Return the share of each octave from 55 Hz in dB."""
    hz, power = spectrum(wave)
    levels = [
        np.sum(power[(hz >= low) & (hz < 2 * low)]) for low in 55 * 2 ** np.arange(7)
    ]
    return 10 * np.log10(np.array(levels) / np.sum(levels))


def contents(files):
    return {
        file.relative_to(file.parents[2]).as_posix(): file.read_bytes()
        for file in files
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return synth.make_corpus(
        tmp_path_factory.mktemp("corpus"), n_players=3, n_albums=2, n_takes=2, seconds=3
    )


def test_note_names():
    assert [synth._midi(name) for name in ("C4", "A4", "F#5", "G3")] == [60, 69, 78, 55]


@pytest.mark.parametrize("melody", synth.MELODIES, ids=lambda melody: melody.title)
def test_melody_is_as_long_as_its_chords(melody):
    last = max(
        synth._lead(melody, synth.PLAYERS[1], np.random.default_rng(0)),
        key=lambda note: note[0],
    )
    rests = sum(token[0] == "r" for token in melody.notes.split())
    assert rests == ("Für Elise" in melody.title) * 2
    assert last[0] + last[1] == len(melody.chords.split()) * int(melody.chord_beats)


def test_themes_are_public_domain():
    years = [int(melody.title.split(",")[0].split()[1]) for melody in synth.MELODIES]
    assert len(years) >= 6
    assert max(years) < 1830  # every composer named died before 1830


def test_players_and_albums_differ():
    styles = [player[1:] for player in synth.PLAYERS]
    assert len(set(styles)) == len({player.name for player in synth.PLAYERS}) == 7
    assert {player.pattern for player in synth.PLAYERS} == set(synth.PATTERNS)
    assert (
        len(
            {
                synth.make_album(0, player.name, n)
                for player in synth.PLAYERS
                for n in range(9)
            }
        )
        == 63
    )


@pytest.mark.parametrize("cents", [0.0, 8.0, -20.0])
def test_a4_sounds_at_its_frequency(cents):
    wave = synth.play(
        np.array([[0, 3.5, 69, 0.5]]), ALBUM._replace(cents=cents, hammer=0), 4
    )
    hz, power = spectrum(wave)
    assert hz[np.argmax(power)] == pytest.approx(440 * 2 ** (cents / 1200), abs=0.3)


def test_second_partial_is_stretched_by_the_stiffness_of_the_string():
    wave = synth.play(
        np.array([[0, 3.5, 60, 0.5]]),
        ALBUM._replace(cents=0, hammer=0, inharmonicity=1e-3),
        4,
    )
    hz, power = spectrum(wave)
    second = (hz > 500) & (hz < 550)
    expected = 2 * 261.63 * np.sqrt((1 + 4e-3) / (1 + 1e-3))
    assert hz[second][np.argmax(power[second])] == pytest.approx(expected, abs=0.3)


def test_a_note_starts_and_ends_on_time():
    wave = synth.play(np.array([[1.0, 0.5, 60, 0.5]]), ALBUM, 3)
    assert wave.dtype == np.float32
    sounding = (
        np.flatnonzero(np.abs(wave) > 1e-3 * np.abs(wave).max()) / synth.SAMPLE_RATE
    )
    assert sounding[0] == pytest.approx(1.0, abs=0.005)
    assert 1.5 < sounding[-1] < 1.76


def test_loud_notes_are_brighter():
    soft, loud = (
        spectrum(synth.play(np.array([[0, 2, 60, v]]), ALBUM._replace(hammer=0), 2))
        for v in (0.2, 0.9)
    )
    high = [np.sum(power[hz > 1000]) / np.sum(power) for hz, power in (soft, loud)]
    assert high[1] > 4 * high[0]


def test_chords_add_up_and_late_notes_are_cut():
    one, two = np.array([[0, 1, 60, 0.5]]), np.array([[1.9, 1, 64, 0.5]])
    both = synth.play(np.vstack([one, two]), ALBUM, 2)
    np.testing.assert_allclose(
        both, synth.play(one, ALBUM, 2) + synth.play(two, ALBUM, 2), atol=1e-6
    )
    assert both.shape == (2 * synth.SAMPLE_RATE,)


@pytest.mark.parametrize("player", synth.PLAYERS, ids=lambda player: player.name)
def test_a_performance_fills_its_time(player):
    for melody in synth.MELODIES:
        onset, duration, pitch, velocity = synth.perform(
            melody, player, np.random.default_rng(1), 8
        ).T
        assert np.all(np.diff(onset) >= 0)
        assert onset[0] < 1.5
        assert 6 < onset[-1] < 8
        assert np.all(duration >= 0.05)
        assert np.all((velocity >= 0.05) & (velocity <= 1))
        assert pitch.min() > 21
        assert pitch.max() < 108


def test_staccato_is_shorter_than_legato():
    held = [
        np.median(
            [
                np.median(
                    synth.perform(
                        m, p._replace(pattern="block"), np.random.default_rng(0)
                    )[:, 1]
                )
                for m in M
            ]
        )
        for p, M in itertools.product(synth.PLAYERS[:2], [synth.MELODIES])
    ]
    assert held[1] < 0.8 * held[0]


def test_an_ornament_adds_the_upper_neighbour():
    player = synth.PLAYERS[0]._replace(ornament=1, octave=0)
    twinkle = next(melody for melody in synth.MELODIES if "maman" in melody.title)
    assert [note[2] for note in synth._lead(twinkle, player, np.random.default_rng(0))][
        :3
    ] == [72, 74, 72]


def test_record_keeps_length_and_sets_the_level():
    wave = synth.play(np.array([[0, 1, 60, 0.5]]), ALBUM, 2)
    before = wave.copy()
    out = synth.record(
        wave, ALBUM._replace(level_db=-6, hiss_db=-90), np.random.default_rng(0)
    )
    assert out.shape == wave.shape
    assert out.dtype == np.float32
    assert np.abs(out).max() == pytest.approx(10 ** (-6 / 20), abs=0.001)
    np.testing.assert_array_equal(wave, before)


def test_record_equalises_by_the_peak():
    flat = ALBUM._replace(wet=0, eq_tilt_db=0, lowpass_hz=1e6, hiss_db=-140, peaks=())
    noise = (
        np.random.default_rng(0)
        .normal(0, 0.1, 4 * synth.SAMPLE_RATE)
        .astype(np.float32)
    )
    levels = [
        octave_levels(synth.record(noise, album, np.random.default_rng(0)))
        for album in (flat, ALBUM)
    ]
    hz, power = spectrum(
        synth.record(noise, flat._replace(peaks=((1000, 9),)), np.random.default_rng(0))
    )
    near, far = ((hz > low) & (hz < 1.05 * low) for low in (975, 5000))
    assert 10 * np.log10(np.mean(power[near]) / np.mean(power[far])) == pytest.approx(
        9, abs=1.5
    )
    assert np.ptp(levels[1] - levels[0]) > 6


def test_record_of_silence_is_hiss():
    out = synth.record(
        np.zeros(22050, np.float32),
        ALBUM._replace(hiss_db=-50),
        np.random.default_rng(0),
    )
    assert 20 * np.log10(np.std(out)) == pytest.approx(-50, abs=0.2)


def test_layout(corpus):
    names = list(contents(corpus))
    assert len(names) == 12
    assert names == sorted(names)
    assert names[0] == "ada-legato/ada-legato-1/take-1.flac"
    assert names[-1] == "clara-rubato/clara-rubato-2/take-2.flac"
    assert (
        sorted(corpus[0].parents[2].rglob("*.*")) == corpus
    )  # and nothing temporary is left


def test_files_are_mono_16_bit_flac_of_the_length_asked_for(corpus):
    for file in corpus:
        info = soundfile.info(file)
        assert (info.format, info.subtype, info.samplerate, info.channels) == (
            "FLAC",
            "PCM_16",
            22050,
            1,
        )
        assert info.frames == 3 * 22050
        assert 0.1 < np.abs(soundfile.read(file)[0]).max() < 1


def test_the_same_state_gives_the_same_bytes_in_a_larger_corpus(corpus, tmp_path):
    small = contents(
        synth.make_corpus(tmp_path, n_players=2, n_albums=2, n_takes=1, seconds=3)
    )
    full = contents(corpus)
    assert len(small) == 4
    assert all(full[name] == data for name, data in small.items())
    assert len(set(full.values())) == 12


def test_another_state_gives_other_bytes(corpus, tmp_path):
    other = contents(
        synth.make_corpus(
            tmp_path, n_players=2, n_albums=2, n_takes=1, seconds=3, random_state=1
        )
    )
    assert all(contents(corpus)[name] != data for name, data in other.items())


def test_two_albums_of_a_player_differ_in_their_spectrum():
    notes = synth.perform(
        synth.MELODIES[0], synth.PLAYERS[0], np.random.default_rng(0), 6
    )
    albums = [synth.make_album(0, "ada-legato", n) for n in (1, 2, 3)]
    levels = [
        octave_levels(
            synth.record(synth.play(notes, a, 6), a, np.random.default_rng(0))
        )
        for a in albums
    ]
    for one, two in itertools.combinations(levels, 2):
        assert np.std(one - two) > 3  # dB


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
def test_numbers_out_of_range_are_named(tmp_path, argument, value, low, high):
    with pytest.raises(InputError) as caught:
        synth.make_corpus(tmp_path, **{argument: value})
    message = f"make_corpus: {argument} must be from {low} to {high}, got {value}. Choose within the range."
    assert str(caught.value) == message
    assert not list(tmp_path.iterdir())
    assert isinstance(caught.value, ValueError)
