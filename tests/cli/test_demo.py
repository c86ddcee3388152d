"""The demo of the album effect."""

import re

import pytest

from cqt2img.cli.demo import run_demo
from cqt2img.errors import InputError
from tests.conftest import raises_with


def test_a_folder_that_is_not_a_demo_is_left_unchanged(tmp_path):
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings/letter.txt").write_text("mine")
    with raises_with(InputError, "demo", repr(str(tmp_path))):
        run_demo(tmp_path, 0, print, progress=False)
    assert [p.name for p in tmp_path.rglob("*")] == ["recordings", "letter.txt"]


@pytest.mark.slow
def test_the_demo_shows_the_album_effect_and_writes_its_page(tmp_path):
    lines = []
    scores = run_demo(tmp_path / "demo", 3, lines.append, progress=False)
    text = "\n".join(lines)
    assert "synthetic" in text
    strict = scores.held_out_albums.accuracy
    assert scores.random_tiles.accuracy > strict + 0.15
    assert scores.default_classifier.accuracy > strict
    assert not scores.default_classifier.known_groups
    n_recordings = [one.n_recordings for one in scores.named().values()]
    assert n_recordings[1:] == [50, 50]
    assert 50 < n_recordings[0] < 150  # those with a tile in the test
    page = (tmp_path / "demo/index.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") == 3
    assert page.count("<audio") == 5
    assert not re.search(r"(src|href)=.https?:", page), "the page needs no network"
    predictions = (tmp_path / "demo/predictions.csv").read_text()
    assert len(predictions.splitlines()) == 51
