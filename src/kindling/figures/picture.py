"""What all pictures share: their look, and how one is drawn with matplotlib and saved as PNG."""

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
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same bytes on every machine
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
    """A picture of one thing, drawn again as the model learns.

    A subclass sets `name` and `description`, and defines `title` and `draw`. One that shows a
    trajectory instead of a moment also defines `record`, `state` and `restore`.
    """

    name: str  # of its file
    description: str  # what it shows, also for readers who cannot see it
    size = (4.8, 4.4)  # inches
    panels = (1, 1)  # rows and columns of axes; more than one reach `draw` as an array of them

    def title(self, view: View) -> str:
        """Return the headline: the one number to take away."""
        raise NotImplementedError(f"{type(self).__name__} defines no title")

    def draw(self, axes: Any, view: View) -> None:
        """Draw on matplotlib's axes, which are empty."""
        raise NotImplementedError(f"{type(self).__name__} defines no draw")

    def suits(self, view: View) -> bool:
        """Say whether there is something to draw; False leaves the picture out, silently."""
        return True

    def source(self, view: View) -> str:
        """Return what the picture is drawn from."""
        return f"{len(view.targets):,} rows of {view.stage}"

    def record(self, model: Any) -> None:
        """Take a point of the trajectory, after an epoch of training."""

    def state(self) -> Any:
        """Return the trajectory so far, as plain data for a checkpoint."""
        return None

    def restore(self, state: Any, model: Any) -> None:
        """Continue the trajectory of the run that is resumed; None at the start of a run."""

    def png(self, view: View) -> bytes:
        """Return the picture of this moment as a PNG file that says in words what it shows."""
        with matplotlib.rc_context(STYLE):  # whatever a user's own matplotlibrc says
            (width, height), figure = self.size, Figure(self.size, DPI)
            # Fixed margins: matplotlib's own layouts draw everything three times to find them.
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
    """Return the least of 1, 1.5, 2, 3, 5, 7, 10, ... (and tenths of them) not below `value`."""
    if not math.isfinite(value) or value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    enough = value * (1 - 1e-9)
    return float(next(m * power for m in (1, 1.5, 2, 3, 5, 7, 10) if m * power >= enough))
