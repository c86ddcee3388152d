"""Self-contained HTML pages of text, figures, tables and audio."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from cqt2img._utils.files import write_atomic

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A finding that a page shows in the colour of its severity.

    Parameters
    ----------
    severity : {"fault", "warning", "note"}
        Selects the colour.
    title : str
        The finding in one sentence.
    advice : str
        How to resolve it.
    files : sequence of str
        Files concerned, listed in a fold-out.
    """

    severity: str
    title: str
    advice: str
    files: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Section:
    """One section of a page; empty parts are left out, all text is escaped.

    Parameters
    ----------
    title : str
        Heading, also the alternative text of the figure.
    text : str
        Paragraph below the heading.
    notices : sequence of Notice
        Findings, in order.
    figure : matplotlib Figure, optional
        Embedded as a PNG.
    caption : str
        Paragraph below the figure.
    table : DataFrame, optional
        Column names and values are shown as they are; the index is left out.
    audio : mapping of str to Path
        Caption and file of each audio player; the files are embedded.
    """

    title: str = ""
    text: str = ""
    notices: Sequence[Notice] = ()
    figure: "Figure | None" = None
    caption: str = ""
    table: "pd.DataFrame | None" = None
    audio: Mapping[str, Path] = field(default_factory=dict)


def render_page(
    path: Path, title: str, sections: Sequence[Section], *, summary: str = ""
) -> None:
    """Write one HTML page that embeds its figures and audio and needs no network.

    Parameters
    ----------
    path : Path
        The file; replaced atomically if it exists.
    title : str
        Heading of the page.
    sections : sequence of Section
        Content, from top to bottom.
    summary : str
        Paragraph in bold below the heading.

    Notes
    -----
    Text that is not valid Unicode, such as some file names, is written with
    backslash escapes.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cqt2img.evaluation"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["png_uri"] = _png_uri
    environment.filters["audio_uri"] = _audio_uri
    template = environment.get_template("page.html")
    html = template.render(title=title, summary=summary, sections=sections)
    data = html.encode("utf-8", errors="backslashreplace")
    write_atomic(path, lambda part: part.write_bytes(data))


def to_png(figure: "Figure", dpi: int = 110) -> bytes:
    """Render a figure as a PNG file.

    Parameters
    ----------
    figure : matplotlib Figure
        The figure.
    dpi : int
        Pixels per inch.

    Returns
    -------
    bytes
        Content of the file.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def _png_uri(figure: "Figure") -> str:
    return _data_uri("image/png", to_png(figure))


def _audio_uri(path: Path) -> str:
    return _data_uri(f"audio/{path.suffix[1:].lower()}", path.read_bytes())


def _data_uri(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"
