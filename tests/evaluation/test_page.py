import base64
import io
import re
from html.parser import HTMLParser

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cqt2img.evaluation.page import Notice, Section, render_page, to_png

HOSTILE = "<script>alert('x')</script> & \"quoted\""
VOID = {"meta", "img", "br"}


class Outline(HTMLParser):
    """Elements and visible text of a page; fails on unbalanced elements."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append(data.strip())

    def find(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture
def figure():
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().plot([1, 2])
    return figure


def render(path, *args, **kwargs):
    render_page(path, *args, **kwargs)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    return Outline(text)


def test_a_figure_becomes_a_png_of_the_requested_resolution(figure):
    with Image.open(io.BytesIO(to_png(figure, dpi=50))) as image:
        assert image.format == "PNG"
        assert image.size == (100, 50)


def test_a_page_embeds_its_figures_and_audio(tmp_path, figure):
    sound = tmp_path / "take 1.flac"
    sound.write_bytes(b"fLaC and more")
    page = render(
        tmp_path / "page.html",
        "Results",
        [
            Section(title="Scores", figure=figure, caption="Ten albums."),
            Section(audio={"Monk": sound}),
        ],
    )
    (image,) = page.find("img")
    (audio,) = page.find("audio")
    assert image["alt"] == "Scores"
    head, data = image["src"].split(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data) == to_png(figure)
    head, data = audio["src"].split(",")
    assert head == "data:audio/flac;base64"
    assert base64.b64decode(data) == sound.read_bytes()
    assert {"Scores", "Ten albums.", "Monk"} <= set(page.texts)


def test_a_page_makes_no_network_requests(tmp_path, figure):
    path = tmp_path / "page.html"
    render(path, "Results", [Section(title="Scores", figure=figure)])
    text = re.sub(r'"data:[^"]*"', "", path.read_text(encoding="utf-8"))
    assert not re.search(r"https?:|//[a-z]|<script|<link|@import|url\(", text)


def test_all_text_is_escaped(tmp_path, figure):
    notice = Notice(severity="fault", title=HOSTILE, advice=HOSTILE, files=[HOSTILE])
    section = Section(
        title=HOSTILE,
        text=HOSTILE,
        notices=[notice],
        figure=figure,
        caption=HOSTILE,
        table=pd.DataFrame({HOSTILE: [HOSTILE]}),
    )
    page = render(tmp_path / "page.html", HOSTILE, [section], summary=HOSTILE)
    assert page.find("script") == []
    # title twice, summary, heading, text, caption, column, cell, three of the notice
    assert page.texts.count(HOSTILE) == 11
    assert page.find("img")[0]["alt"] == HOSTILE


def test_a_table_has_one_row_per_record_and_no_index(tmp_path):
    table = pd.DataFrame({"name": ["a", "b"], "accuracy": ["50 %", "75 %"]}, [7, 8])
    page = render(tmp_path / "page.html", "Results", [Section(table=table)])
    assert len(page.find("tr")) == 3
    start = page.texts.index("name")
    assert page.texts[start:] == ["name", "accuracy", "a", "50 %", "b", "75 %"]


def test_notices_list_their_files_in_the_colour_of_their_severity(tmp_path):
    notices = [
        Notice(severity="fault", title="Two copies.", advice="Drop one.", files="ab"),
        Notice(severity="note", title="Few albums.", advice="Add more."),
    ]
    page = render(tmp_path / "page.html", "Audit", [Section(notices=notices)])
    classes = [attrs["class"] for attrs in page.find("div")]
    assert classes == ["notice fault", "notice note"]
    assert len(page.find("details")) == 1
    assert "2 files" in page.texts
    assert len(page.find("li")) == 2


def test_empty_parts_of_a_section_leave_no_elements(tmp_path):
    page = render(tmp_path / "page.html", "Empty", [Section()])
    tags = [tag for tag, _ in page.tags]
    assert tags[tags.index("body") :] == ["body", "h1", "section"]


def test_a_file_name_that_is_not_unicode_is_written_with_escapes(tmp_path):
    page = render(tmp_path / "page.html", "Audit", [Section(text="old\udce9.wav")])
    assert "old\\udce9.wav" in page.texts


def test_a_page_replaces_an_older_one_and_leaves_no_other_file(tmp_path):
    for title in ("First", "Second"):
        page = render(tmp_path / "page.html", title, [])
    assert page.texts.count("Second") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_rendering_a_figure_changes_no_matplotlib_setting(tmp_path, figure):
    before = dict(mpl.rcParams)
    render(tmp_path / "page.html", "Results", [Section(figure=figure)])
    assert dict(mpl.rcParams) == before
