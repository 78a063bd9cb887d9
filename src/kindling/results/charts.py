"""Draw the curves of one or several runs as SVG, each with a description in words.

SVG from matplotlib rather than a script: a chart takes some kilobytes where Plotly takes four
megabytes, can be printed, and shows in any browser.
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
from src.kindling.results.history import Points
from src.kindling.results.tables import shown

POINTS = 1000  # per line; more would not be visible on a screen
FEW = 12  # lines with at most this many points get markers
LINES = 24  # per chart; more could not be told apart


@dataclass(frozen=True)
class Chart:
    """A chart of curves.

    Attributes:
        title: what is drawn.
        svg: the picture.
        text: a text alternative, for readers who cannot see it.
    """

    title: str
    svg: bytes
    text: str


def charts(histories: dict[int, dict[str, Points]]) -> list[Chart]:
    """Draw what runs logged, one chart per metric; the loss first.

    Args:
        histories: for each run, by its number, the points of each metric.
    """
    drawn: dict[str, dict[str, tuple[int, Points]]] = {}
    for run, history in histories.items():
        for metric, points in history.items():
            stage, _, name = metric.rpartition("/")
            if stage == "test":  # a single point, which is in the table
                continue
            # With one run, its stages share a chart; with several, the runs do.
            title, line, style = metric, f"run {run}", run - 1
            if len(histories) == 1:
                title, line, style = name, stage or name, int(stage == "val")
            finite = _finite(points)
            if finite[0]:
                drawn.setdefault(title, {})[line] = style, finite
    order = sorted(drawn, key=lambda title: (title.rpartition("/")[2] != "loss", title))
    return [_chart(title, drawn[title]) for title in order]


def _finite(points: Points) -> Points:
    kept = [(s, v) for s, v in zip(*points, strict=True) if math.isfinite(v) and abs(v) < 1e300]
    return [s for s, _ in kept], [v for _, v in kept]


def _chart(title: str, lines: dict[str, tuple[int, Points]]) -> Chart:
    drawn = list(lines.items())[:LINES]
    figure = Figure(figsize=(4.6, 3.1), layout="constrained")
    axes = figure.add_subplot()
    for name, (style, points) in drawn:
        _draw(axes, style, printable(name, 60), points)
    low = min(min(values) for _, (_, (_, values)) in drawn)
    high = max(max(values) for _, (_, (_, values)) in drawn)
    if 0 < 100 * low < high:
        axes.set_yscale("log")
    axes.set(xlabel="optimizer step", ylabel=_literal(printable(title, 60)))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if len(drawn) > 1:
        figure.legend(loc="outside lower center", fontsize=8, frameon=False, ncols=5)
    return Chart(printable(title, 60), svg(figure), " ".join(_description(title, lines)))


def _draw(axes: Axes, style: int, name: str, points: Points) -> None:
    steps, values = points
    every = math.ceil(len(steps) / POINTS)
    steps, values = steps[:-1:every] + steps[-1:], values[:-1:every] + values[-1:]
    axes.plot(
        steps,
        values,
        color=THIN[style % len(THIN)],
        linestyle=DASHES[style % len(DASHES)],
        marker="o" if len(steps) <= FEW else "",
        markersize=3.5,
        linewidth=1.5,
        label=_literal(name),
    )


def _literal(text: str) -> str:
    """Escape text for matplotlib: not a formula, and not hidden from the legend."""
    return text.replace("$", r"\$").lstrip("_") or "?"


def svg(figure: Figure) -> bytes:
    """Return a figure as SVG."""
    file = io.BytesIO()
    # Text stays text, sharp at any size. With the salt, equal curves give equal bytes.
    options: Any = {"svg.fonttype": "none", "svg.hashsalt": "kindling"}
    with matplotlib.rc_context(options), warnings.catch_warnings():
        # The browser has letters that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _description(title: str, lines: dict[str, tuple[int, Points]]) -> Iterator[str]:
    """Describe the first, last, lowest and highest value of each line."""
    yield f"{printable(title, 60)} by optimizer step."
    for name, (_, (steps, values)) in lines.items():
        least, most = min(values), max(values)
        yield (
            f"{printable(name, 60)}: {shown(values[0])} at step {steps[0]:.0f},"
            f" {shown(values[-1])} at step {steps[-1]:.0f},"
            f" between {shown(least)} and {shown(most)}."
        )
    if len(lines) > LINES:
        yield f"Only the first {LINES} are drawn."
