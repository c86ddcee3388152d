import re

import pytest

from cqt2img.cli.demo import run_demo
from cqt2img.errors import InputError


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings/letter.txt").write_text("mine")
    with pytest.raises(InputError) as caught:
        run_demo(tmp_path, 0, print, False)
    assert str(caught.value) == (
        f"demo: out must be new or an earlier demo, got {str(tmp_path)!r}. Choose another folder."
    )
    assert [p.name for p in tmp_path.rglob("*")] == ["recordings", "letter.txt"]


@pytest.mark.slow
def test_the_story_is_told(tmp_path):
    lines = []
    scores = run_demo(tmp_path / "demo", 3, lines.append, False)
    assert "synthetic" in lines[0]
    assert scores["loose"].accuracy > scores["strict"].accuracy + 0.15, (
        "the album effect"
    )
    assert scores["library"].accuracy > scores["strict"].accuracy, (
        "what the library does about it"
    )
    assert not scores["library"].known_groups
    page = (tmp_path / "demo/index.html").read_text(encoding="utf-8")
    assert "synthetic" in page
    assert page.count("data:image/png") == 3
    assert page.count("<audio") == 5
    assert not re.search(r"(src|href)=.https?:", page), (
        "the page asks the network for nothing"
    )
    assert len((tmp_path / "demo/predictions.csv").read_text().splitlines()) == 51
