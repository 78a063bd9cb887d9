"""Base class of all pictures: their style, and drawing them with matplotlib as PNG."""

import io
import math
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from src.kindling.colors import BLACK, GRAY
from src.kindling.figures.view import Array, View

__all__ = ["Array", "Picture", "View"]

DPI = 100
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so that all machines draw the same
    "font.size": 10,
    "text.usetex": False,
    "axes.edgecolor": GRAY,
    "axes.labelcolor": BLACK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


class Picture:
    """One picture, redrawn as the model learns.

    A subclass sets `name` and `description`, and defines `title` and `draw`. To show a trajectory
    instead of one moment, it also defines `record`, `state` and `restore`.
    """

    name: str  # stem of its file
    description: str  # text alternative, for readers who cannot see it
    size = (4.8, 4.4)  # inches
    panels = (1, 1)  # rows and columns of axes; `draw` gets an array if there are several

    def title(self, view: View) -> str:
        """Return the headline: the one number to take away."""
        raise NotImplementedError(f"{type(self).__name__} defines no title")

    def draw(self, axes: Any, view: View) -> None:
        """Draw on matplotlib's axes, which start empty."""
        raise NotImplementedError(f"{type(self).__name__} defines no draw")

    def suits(self, view: View) -> bool:
        """Return whether there is something to draw; False omits the picture silently."""
        return True

    def source(self, view: View) -> str:
        """Return the source of the picture, for its caption."""
        return f"{len(view.targets):,} rows of {view.stage}"

    def record(self, model: Any) -> None:
        """Record a point of the trajectory after a training epoch."""

    def state(self) -> Any:
        """Return the trajectory so far, as plain data for a checkpoint."""
        return None

    def restore(self, state: Any, model: Any) -> None:
        """Restore the trajectory of a resumed run; `state` is None at the start of a new run."""

    def png(self, view: View) -> bytes:
        """Return the picture of this moment as a PNG file with a text alternative."""
        with matplotlib.rc_context(STYLE):  # regardless of the user's matplotlibrc
            (width, height), figure = self.size, Figure(self.size, DPI)
            # Fixed margins: matplotlib's layout engines draw everything three times.
            figure.subplots_adjust(0.75 / width, 0.8 / height, 1 - 0.2 / width, 1 - 0.65 / height)
            self.draw(figure.subplots(*self.panels), view)
            title, step = self.title(view), f"step {view.step:,}"
            figure.suptitle(title, x=0.02, ha="left", size=11.5, weight="bold")
            figure.supxlabel(f"{self.source(view)}, {step}", x=0.98, ha="right", size=9, color=GRAY)
            metadata = {"Description": f"{title} ({step}): {self.description}", "Software": None}
            file = io.BytesIO()
            figure.savefig(file, format="png", metadata=metadata)
        return file.getvalue()


def nice_limit(value: float) -> float:
    """Round `value` up to 1, 1.5, 2, 3, 5, 7 or 10 times a power of ten."""
    if not math.isfinite(value) or value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    enough = value * (1 - 1e-9)
    return float(next(m * power for m in (1, 1.5, 2, 3, 5, 7, 10) if m * power >= enough))
