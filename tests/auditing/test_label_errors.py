from typing import NamedTuple

import numpy as np
import pytest

from cqt2img.auditing.label_errors import find_label_errors
from cqt2img.errors import InputError
from tests.conftest import raises_with

PLAYERS = ("Ada", "Bill", "Clara")


class Collection(NamedTuple):
    """Statistics, labels, groups, paths and albums of recordings."""

    statistics: list[np.ndarray]
    labels: np.ndarray
    groups: np.ndarray
    paths: list[str]
    albums: list[str] | None

    def find(self):
        return find_label_errors(*self)

    def replace_take(self, index, source):
        """Return the collection with the sound of one take replaced by another's."""
        statistics = list(self.statistics)
        statistics[index] = statistics[source] + np.float32(0.1)
        return self._replace(statistics=statistics)

    def relabel(self, **labels):
        """Return the collection with other labels, such as `take_3="Bill"`."""
        changed = self.labels.copy()
        for name, label in labels.items():
            changed[int(name.removeprefix("take_"))] = label
        return self._replace(labels=changed)


def make_collection(n_albums=3, n_takes=8, seed=0, album_db=4.0, n_tiles=3):
    """Make three players whose albums have a sound of their own."""
    rng = np.random.default_rng(seed)
    statistics = []
    labels = []
    groups = []
    paths = []
    albums = []
    for player in PLAYERS:
        for album in range(n_albums):
            sound = album_db * np.repeat(rng.standard_normal(8), 3)
            folder = f"{player}/{player} {album}"
            for take in range(n_takes):
                noise = rng.standard_normal((n_tiles, 24))
                statistics.append((sound + noise).astype(np.float32))
                labels.append(player)
                groups.append(folder)
                paths.append(f"{folder}/{take}.flac")
                albums.append(f"{player} {album}")
    return Collection(statistics, np.array(labels), np.array(groups), paths, albums)


def summarise(errors):
    return [(error.recording_index, error.likely_label) for error in errors]


@pytest.mark.parametrize("seed", range(2))
def test_right_labels_are_not_doubted(seed):
    assert make_collection(seed=seed).find() == []


@pytest.mark.parametrize("seed", range(2))
def test_a_take_in_a_wrong_album_is_found_by_its_sound(seed):
    """Label, album and folder are wrong; the sound is that of an album of Bill."""
    errors = make_collection(seed=seed).replace_take(3, 3 * 8 + 1).find()
    assert summarise(errors) == [(3, "Bill")]
    (error,) = errors
    assert (error.path, error.label) == ("Ada/Ada 0/3.flac", "Ada")
    assert not error.by_group
    assert error.by_sound >= 1


def test_a_wrong_label_is_found_by_the_rest_of_its_album():
    collection = make_collection(n_takes=3).relabel(take_1="Clara", take_12="Ada")
    errors = collection.find()
    assert summarise(errors) == [(1, "Ada"), (12, "Bill")]
    assert all(error.by_group for error in errors)
    assert all(np.isnan(error.by_sound) for error in errors)  # three takes are too few


def test_folder_and_album_are_used_where_the_group_depends_on_the_label():
    collection = make_collection(n_takes=3).relabel(take_1="Clara", take_12="Ada")
    names = zip(collection.labels, collection.albums, strict=True)
    groups = np.array([f"{label}/{album}" for label, album in names])
    flat_paths = [f"{index}.flac" for index in range(27)]
    by_label = collection._replace(groups=groups)
    expected = [(1, "Ada"), (12, "Bill")]
    assert summarise(by_label.find()) == expected
    assert summarise(by_label._replace(paths=flat_paths).find()) == expected
    assert by_label._replace(paths=flat_paths, albums=None).find() == []


def test_errors_that_sound_and_album_agree_on_come_first():
    collection = make_collection().replace_take(3, 25).relabel(take_70="Bill")
    errors = collection.find()
    assert summarise(errors) == [(70, "Clara"), (3, "Bill")]
    assert [error.by_group for error in errors] == [True, False]
    assert all(error.by_sound >= 1 for error in errors)


def test_albums_of_several_players_say_nothing_about_labels():
    """At a festival, every group contains everybody."""
    collection = make_collection(n_takes=3)
    everybody = ["Ada"] * 5 + ["Bill", "Clara", "Dora", "Eve"]
    festival = collection._replace(
        labels=np.array(everybody * 3),
        groups=np.repeat(["1", "2", "3"], 9),
        paths=[f"{index}.flac" for index in range(27)],
        albums=None,
    )
    assert festival.find() == []


def test_albums_that_sound_alike_say_nothing_about_labels():
    assert make_collection(album_db=0).find() == []


def test_classes_are_compared_where_there_are_no_albums():
    collection = make_collection(n_albums=1, n_takes=30)
    no_albums = collection._replace(groups=np.array(collection.paths), albums=None)
    assert no_albums.find() == []
    assert summarise(no_albums.replace_take(3, 31).find()) == [(3, "Bill")]


def test_classes_of_few_recordings_are_not_compared():
    collection = make_collection(n_albums=1, n_takes=15)
    no_albums = collection._replace(groups=np.array(collection.paths), albums=None)
    assert no_albums.replace_take(3, 16).find() == []


def test_fewer_tiles_than_features_are_not_compared():
    """With more features than tiles, any recording looks like an error."""
    collection = make_collection(n_takes=12).replace_take(3, 37)
    single_tiles = [rows[:1] for rows in collection.statistics]
    assert len(collection._replace(statistics=single_tiles).find()) == 1
    wide = [np.pad(rows, ((0, 0), (0, 630))) for rows in single_tiles]
    assert collection._replace(statistics=wide).find() == []


def test_one_recording_per_class_can_be_checked():
    assert make_collection(n_albums=1, n_takes=1).find() == []


def test_statistics_must_have_one_entry_per_recording():
    collection = make_collection(n_albums=1)
    short = collection._replace(statistics=collection.statistics[1:])
    with raises_with(InputError, "statistics", 23, 24):
        short.find()
