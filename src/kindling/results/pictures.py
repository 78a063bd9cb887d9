"""The pictures on a page: charts of what runs logged, and the figures that they drew."""

import base64
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.kindling.errors import printable

if TYPE_CHECKING:
    from src.kindling.chart import Chart

PNG = b"\x89PNG\r\n\x1a\n"
LARGEST, MOST = 2**23, 50  # bytes per figure, figures per run


@dataclass(frozen=True)
class Picture:
    """A picture on the page.

    Attributes:
        title: its caption.
        text: a text alternative, for readers who cannot see it.
        address: the image itself, as a data: URL.
        wide: whether it takes a row of its own.
    """

    title: str
    text: str
    address: str
    wide: bool = False


def curves(histories: dict[int, dict[str, Any]]) -> list[Picture]:
    """Return charts of what runs logged."""
    from src.kindling.results import charts  # imports matplotlib: after all checks

    return [of_chart(chart) for chart in charts.charts(histories)]


def of_chart(chart: "Chart") -> Picture:
    """Return a chart as a picture."""
    address = _address("image/svg+xml", chart.svg)
    return Picture(chart.title, chart.text, address, chart.is_wide)


def figures(run: Path) -> tuple[list[Picture], list[str]]:
    """Return the pictures in a run's figures/, and the names of files that are left out."""
    files = sorted((run / "figures").glob("*.png"))
    pictures, left_out = [], [printable(file.name) for file in files[MOST:]]
    for file in files[:MOST]:
        title = printable(file.stem.replace("_", " "), 100)
        content = b""
        if file.is_file() and file.stat().st_size <= LARGEST:
            content = file.read_bytes()
        if content.startswith(PNG):
            text = description(content) or f"figure of the run: {title}"
            pictures.append(Picture(title, text, _address("image/png", content)))
        else:
            left_out.append(printable(file.name))
    return pictures, left_out


def description(png: bytes) -> str | None:
    """Return the text chunk `Description` of a PNG, its text alternative.

    Source: the PNG specification, sections 5.3 and 11.3.3.
    """
    place = len(PNG)
    while place + 8 <= len(png):
        length, kind = struct.unpack(">I4s", png[place : place + 8])
        keyword, _, text = png[place + 8 : place + 8 + length].partition(b"\0")
        if kind == b"tEXt" and keyword == b"Description":
            return printable(text.decode("latin-1"))
        place += length + 12
    return None


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
