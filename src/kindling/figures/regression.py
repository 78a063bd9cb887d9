"""Pictures of any regression: predicted against true, and what is left.

Letters: N rows, C outputs.
"""

from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from src.kindling.figures.picture import (
    BLUE,
    GREY,
    VERMILION,
    Array,
    Picture,
    View,
    ceiling,
    panel,
    rule,
    ticks,
)

DOTS = 2000  # more values than that are counted in squares
SQUARES = 60  # along each axis


def pictures(model: Any) -> list[Picture]:
    """Return the pictures of a regression."""
    return [PredictedAgainstTrue(), Residuals()]


def r2(view: View) -> float:
    """Return the share of the variance that is explained, the mean over the outputs."""
    residual = np.square(view.targets - view.outputs).sum(axis=0)
    total = np.square(view.targets - view.targets.mean(axis=0)).sum(axis=0)
    return float(np.mean(1 - residual / np.maximum(total, 1e-300)))


class PredictedAgainstTrue(Picture):
    """Each value beside what is true of it; a perfect model's lie on the diagonal."""

    name = "predicted_against_true"
    size = (4.6, 4.6)

    def frame(self, figure: Figure, view: View) -> None:
        """Draw the diagonal over the range of what is true."""
        low, high = float(view.targets.min()), float(view.targets.max())
        margin = 0.05 * (high - low) or 1.0
        self._range = low - margin, high + margin
        axes = panel(figure)
        axes.set(xlim=self._range, ylim=self._range)
        places = ticks(*self._range)
        rule(axes, places, places, "true value (units of y)", "predicted value (units of y)")
        axes.plot(self._range, self._range, color=GREY, linestyle="--", linewidth=1)
        if view.targets.size > DOTS:
            note: dict[str, Any] = {"ha": "right", "color": GREY, "transform": axes.transAxes}
            axes.text(0.99, 0.02, "darker: more values", **note)

    def content(self, view: View) -> list[Artist]:
        """Draw the values, one by one or counted in squares."""
        [axes] = self.axes
        true, predicted = view.targets.ravel(), view.outputs.ravel()
        inside = np.clip(predicted, *self._range)  # what is further out lies on the edge
        if len(true) <= DOTS:
            return list(axes.plot(true, inside, ".", color=BLUE, markersize=5, alpha=0.6))
        counts, _, _ = np.histogram2d(inside, true, SQUARES, [self._range, self._range])
        shown = np.ma.masked_equal(np.log1p(counts), 0)
        edges = (*self._range, *self._range)
        return [
            axes.imshow(
                shown,
                extent=edges,
                origin="lower",
                aspect="auto",
                interpolation="nearest",
                cmap="cividis_r",
            )
        ]

    def title(self, view: View) -> str:
        """Say how much is explained."""
        return f"Predicted against true: R2 {r2(view):.3f}"


class Residuals(Picture):
    """How far off the predictions are, and whether they are so more often to one side."""

    name = "residuals"

    def scale(self, view: View) -> float:
        """Return the widest residual that is shown."""
        spread = float(np.quantile(np.abs(view.outputs - view.targets), 0.995))
        return ceiling(spread)

    def frame(self, figure: Figure, view: View) -> None:
        """Draw the axes around zero."""
        self._width = self.scale(view)
        axes = panel(figure)
        axes.set(xlim=(-self._width, self._width), ylim=(0, 1.04))
        places = ticks(-self._width, self._width)
        rule(
            axes,
            places,
            ticks(0, 1, 2),
            "predicted - true (units of y)",
            "rows, of the fullest bar",
        )
        axes.axvline(0, color=GREY, linestyle="--", linewidth=1)

    def content(self, view: View) -> list[Artist]:
        """Draw a bar for each part of the range, and the mean."""
        [axes] = self.axes
        residuals = (view.outputs - view.targets).ravel()
        inside = np.clip(residuals, -self._width, self._width)
        counts, edges = np.histogram(inside, 40, (-self._width, self._width))
        steps = axes.stairs(counts / max(counts.max(), 1), edges, color=BLUE, fill=True, alpha=0.8)
        mean = axes.axvline(residuals.mean(), color=VERMILION, linewidth=2)
        return [steps, mean]

    def title(self, view: View) -> str:
        """Say how far off they are."""
        residuals = view.outputs - view.targets
        error = np.sqrt(np.square(residuals).mean())
        return f"Residuals: root mean square {error:.3g}, mean {residuals.mean():+.2g}"


def errors(view: View) -> Array:
    """Return the root mean squared error of each output, [C]."""
    squares: Array = np.square(view.outputs - view.targets).mean(axis=0)
    return np.sqrt(squares)
