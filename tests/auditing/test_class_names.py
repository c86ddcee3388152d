import pytest

from cqt2img.auditing.class_names import find_similar_names


@pytest.mark.parametrize(
    ("first", "second", "difference"),
    [
        ("Bill Evans", "bill evans", "spelling"),
        ("Bill Evans", "Evans, Bill", "spelling"),
        ("Bill Evans", "Bill_Evans", "spelling"),
        ("Bill Evans", "BillEvans", "spelling"),
        ("Béla Bartók", "Bela Bartok", "spelling"),
        ("Béla Bartók", "Be\u0301la Barto\u0301k", "spelling"),
        ("Béla Bartók", "Bartok, Bela", "spelling"),
        ("Weißenberg", "Weissenberg", "spelling"),
        ("Bill Evans", "Bil Evans", "one letter"),
        ("Bill Evans", "Bill Evens", "one letter"),
        ("Bill Evans", "Bill Evnas", "one letter"),
        ("Bill Evans", "Bill Evanss", "one letter"),
        ("Müller", "Mueller", "one letter"),
    ],
)
def test_names_that_may_mean_one_player_are_found(first, second, difference):
    pairs = find_similar_names([first] * 4 + [second] * 2)
    assert pairs == [(first, second, difference)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Bill Evans", "Gil Evans"),
        ("Actor 01", "Actor 02"),
        ("Player 1", "Player 11"),
        ("Monk", "Mona"),
        ("Bach", "J. S. Bach"),
        ("??", "!!"),
        ("+", "-"),
    ],
)
def test_names_of_different_players_are_not_found(first, second):
    assert find_similar_names([first] * 4 + [second] * 2) == []


def test_two_large_classes_may_differ_in_one_letter_but_not_in_spelling():
    assert find_similar_names(["Anna Berg"] * 6 + ["Anne Berg"] * 4) == []
    assert len(find_similar_names(["Anna Berg"] * 6 + ["anna berg"] * 6)) == 1


@pytest.mark.parametrize("labels", [[1, 1, 2, 11], ["Monk"] * 3, []])
def test_numbers_and_single_names_are_not_similar(labels):
    assert find_similar_names(labels) == []
