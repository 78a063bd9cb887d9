"""Draw the curves of one or several runs, each with a description in words."""

import math
from collections.abc import Iterator

from matplotlib.axes import Axes

from src.kindling.chart import Chart, new_axes, set_legend, set_scale
from src.kindling.colors import DASHES, THIN
from src.kindling.errors import printable
from src.kindling.results.history import Points
from src.kindling.results.tables import shown

POINTS = 1000  # per line; more would not be visible on a screen
FEW = 12  # lines with at most this many points get markers
LINES = 24  # per chart; more could not be told apart


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
    figure, axes = new_axes(xlabel="optimizer step", ylabel=_literal(printable(title, 60)))
    for name, (style, points) in drawn:
        _draw(axes, style, printable(name, 60), points)
    set_scale(axes, [value for _, (_, (_, values)) in drawn for value in values])
    if len(drawn) > 1:
        set_legend(figure, columns=5)
    return Chart(printable(title, 60), figure, " ".join(_description(title, lines)))


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
