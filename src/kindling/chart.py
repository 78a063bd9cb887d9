"""A chart on a page: a figure of matplotlib as SVG, with a description in words.

SVG rather than a script: a chart takes a few kilobytes where Plotly takes four megabytes, can be
printed, and shows in any browser.
"""

import functools
import io
import warnings
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Chart:
    """A figure and its words.

    Attributes:
        title: what is drawn.
        figure: the picture.
        text: a text alternative, for readers who cannot see it.
    """

    title: str
    figure: Figure
    text: str

    @property
    def is_wide(self) -> bool:
        """Whether it needs a row of its own."""
        return bool(self.figure.get_figwidth() > 6)

    @functools.cached_property
    def svg(self) -> bytes:
        """The figure as SVG."""
        file = io.BytesIO()
        # Text stays text, sharp at any size. With the salt, equal curves give equal bytes.
        options: Any = {"svg.fonttype": "none", "svg.hashsalt": "kindling"}
        with matplotlib.rc_context(options), warnings.catch_warnings():
            # The browser has letters that matplotlib's own font lacks.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            self.figure.savefig(file, format="svg", metadata={"Date": None})
        return file.getvalue()


def new_axes(size: tuple[float, float] = (4.6, 3.1), **labels: str) -> tuple[Figure, Axes]:
    """Return a figure of this size, in inches, with empty axes."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set(**labels)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def set_scale(axes: Axes, values: list[float]) -> None:
    """Scale the vertical axis logarithmically if the values span two orders of magnitude."""
    if 0 < 100 * min(values) < max(values):
        axes.set_yscale("log")


def set_legend(figure: Figure, columns: int) -> None:
    """Name the lines below the axes."""
    figure.legend(loc="outside lower center", fontsize=8, frameon=False, ncols=columns)
