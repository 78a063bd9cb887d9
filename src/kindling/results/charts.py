"""Curves of a run, or of several, as SVG pictures with a text that says what they show.

SVG from matplotlib rather than a script that draws: a chart has some kilobytes where Plotly has
four megabytes, prints, and shows on anything that has a browser.
"""

import io
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src.kindling.colors import DASHES, THIN
from src.kindling.errors import printable
from src.kindling.results.tables import shown

POINTS = 1000  # of a line; more would be no finer on a screen
FEW = 12  # points that are marked each
LINES = 24  # of a chart; more could not be told apart
Points = tuple[list[float], list[float]]  # steps and values


@dataclass(frozen=True)
class Chart:
    """A picture of curves.

    Attributes:
        title: what is drawn.
        svg: the picture.
        text: what it shows, in words.
    """

    title: str
    svg: bytes
    text: str


def charts(histories: dict[int, dict[str, Points]]) -> list[Chart]:
    """Draw what runs logged, a chart a metric; the loss first.

    Args:
        histories: the points of each metric, for each run; several are named by their number.
    """
    drawn: dict[str, dict[str, tuple[int, Points]]] = {}
    for run, history in histories.items():
        for metric, points in history.items():
            stage, _, name = metric.rpartition("/")
            if stage == "test":  # a single point: it stands in the table
                continue
            # Stages share a chart where there is one run; runs share one where there are several.
            title, line, look = metric, f"run {run}", run - 1
            if len(histories) == 1:
                title, line, look = name, stage or name, int(stage == "val")
            finite = _finite(points)
            if finite[0]:
                drawn.setdefault(title, {})[line] = look, finite
    order = sorted(drawn, key=lambda title: (title.rpartition("/")[2] != "loss", title))
    return [_chart(title, drawn[title]) for title in order]


def _finite(points: Points) -> Points:
    kept = [(s, v) for s, v in zip(*points, strict=True) if math.isfinite(v) and abs(v) < 1e300]
    return [s for s, _ in kept], [v for _, v in kept]


def _chart(title: str, lines: dict[str, tuple[int, Points]]) -> Chart:
    drawn = list(lines.items())[:LINES]
    figure = Figure(figsize=(4.6, 3.1), layout="constrained")
    axes = figure.add_subplot()
    for name, (look, points) in drawn:
        _draw(axes, look, printable(name, 60), points)
    low = min(min(values) for _, (_, (_, values)) in drawn)
    high = max(max(values) for _, (_, (_, values)) in drawn)
    if 0 < 100 * low < high:
        axes.set_yscale("log")
    axes.set(xlabel="optimizer step", ylabel=_plain(printable(title, 60)))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if len(drawn) > 1:
        figure.legend(loc="outside lower center", fontsize=8, frameon=False, ncols=5)
    return Chart(printable(title, 60), _svg(figure), " ".join(_said(title, lines)))


def _draw(axes: Axes, look: int, name: str, points: Points) -> None:
    steps, values = points
    every = math.ceil(len(steps) / POINTS)
    steps, values = steps[:-1:every] + steps[-1:], values[:-1:every] + values[-1:]
    axes.plot(
        steps,
        values,
        color=THIN[look % len(THIN)],
        linestyle=DASHES[look % len(DASHES)],
        marker="o" if len(steps) <= FEW else "",
        markersize=3.5,
        linewidth=1.5,
        label=_plain(name),
    )


def _plain(text: str) -> str:
    """Return text that matplotlib takes for text: no formula, and not hidden from the legend."""
    return text.replace("$", r"\$").lstrip("_") or "?"


def _svg(figure: Figure) -> bytes:
    file = io.BytesIO()
    # Text stays text: sharp at any size. The salt makes the same curves the same bytes.
    options: Any = {"svg.fonttype": "none", "svg.hashsalt": "kindling"}
    with matplotlib.rc_context(options), warnings.catch_warnings():
        # A letter that matplotlib's own font lacks is the browser's business.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _said(title: str, lines: dict[str, tuple[int, Points]]) -> Iterator[str]:
    """Say in words where each line begins and ends, and its least and largest values."""
    yield f"{printable(title, 60)} by optimizer step."
    for name, (_, (steps, values)) in lines.items():
        least, most = min(values), max(values)
        yield (
            f"{printable(name, 60)}: {shown(values[0])} at step {steps[0]:.0f},"
            f" {shown(values[-1])} at step {steps[-1]:.0f},"
            f" between {shown(least)} and {shown(most)}."
        )
    if len(lines) > LINES:
        yield f"The first {LINES} of these are drawn."
