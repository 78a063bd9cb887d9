"""How every chapter puts text on the screen and pictures in a folder, so that all look alike."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # matplotlib is imported only by a run that draws
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def show(sentence: str, *values: object) -> None:
    """Print one sentence of explanation, then each value indented beneath it."""
    print(sentence)
    for value in values:
        print(indent(str(value), "    "))


def blank_figure(panels: int = 1) -> tuple[Figure, list[Axes]]:
    """Give a figure with `panels` axes side by side, free of pyplot's global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * panels, 4.8), dpi=120, layout="constrained")
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save(figure: Figure, path: Path) -> None:
    """Write the figure as PNG and print where; raises OSError where nothing can be written."""
    figure.savefig(path, format="png")
    print(f"plot: {path}")
