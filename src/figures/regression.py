"""Pictures of any regression: predicted against true, and what is left.

Letters: N rows, C outputs.
"""

from typing import Any

import numpy as np

from src.figures.picture import Picture, View, ceiling
from src.figures.sheet import (
    BLUE,
    DASHED,
    GREY,
    VERMILION,
    WHITE,
    Array,
    Panel,
    Sheet,
    rgba,
    shades,
    ticks,
    widest,
)

DOTS = 2000  # more values than that are counted in squares
SQUARES = 60  # along each axis
DARKER = ("#FFEA46", "#BCAE6C", "#7C7B78", "#424D6C", "#00204C")  # cividis: read without red, green


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
    size = (460, 460)

    def paint(self, sheet: Sheet, view: View) -> str:
        """Draw the values, one by one or counted in squares, over the range of what is true."""
        true, predicted = view.targets.ravel(), view.outputs.ravel()
        low, high = float(true.min()), float(true.max())
        margin = 0.05 * (high - low) or 1.0
        ends = low - margin, high + margin
        places = ticks(*ends)
        panel = Panel(sheet, (max(70, 36 + widest(places)), 72, 445, 400), ends, ends)
        inside = np.clip(predicted, *ends)  # what is further out lies on the edge
        if len(true) > DOTS:
            panel.image(_density(inside, true, ends))
            sheet.write(440, 388, "darker: more values", GREY, align=1)
        panel.line(ends, ends, GREY, dashes=DASHED, width=1.4)
        if len(true) <= DOTS:
            panel.dots(true, inside, BLUE, radius=1.9, alpha=0.6)
        panel.rule(places, places, "true value (units of y)", "predicted value (units of y)")
        return f"Predicted against true: R2 {r2(view):.3f}"


def _density(upwards: Array, across: Array, ends: tuple[float, float]) -> Array:
    """Return the colours of squares [SQUARES, SQUARES, 4], the darker the more values are there."""
    row, column = (
        np.minimum((values - ends[0]) * (SQUARES / (ends[1] - ends[0])), SQUARES - 1).astype(int)
        for values in (upwards, across)
    )
    counts = np.bincount(row * SQUARES + column, minlength=SQUARES**2).reshape(SQUARES, SQUARES)
    counts = np.log1p(counts[::-1])  # the lowest below
    colours = shades(counts / counts.max(), DARKER)
    colours[counts == 0] = rgba(WHITE)
    return colours


class Residuals(Picture):
    """How far off the predictions are, and whether they are so more often to one side."""

    name = "residuals"

    def paint(self, sheet: Sheet, view: View) -> str:
        """Draw a bar for each part of the range, and the mean."""
        residuals = (view.outputs - view.targets).ravel()
        width = ceiling(float(np.quantile(np.abs(residuals), 0.995)))
        panel = Panel(sheet, (70, 72, 465, 360), (-width, width), (0, 1.04))
        counts, edges = np.histogram(np.clip(residuals, -width, width), 40, (-width, width))
        panel.bars(edges[:-1], edges[1:], 0, counts / max(counts.max(), 1), "#338EC1")
        panel.line(0, [0, 1.04], GREY, dashes=DASHED)
        mean = residuals.mean()
        panel.line(mean, [0, 1.04], VERMILION, width=2.8)
        panel.rule(
            ticks(-width, width),
            ticks(0, 1, 2),
            "predicted - true (units of y)",
            "rows, of the fullest bar",
        )
        error = np.sqrt(np.square(residuals).mean())
        return f"Residuals: root mean square {error:.3g}, mean {mean:+.2g}"


def errors(view: View) -> Array:
    """Return the root mean squared error of each output, [C]."""
    squares: Array = np.square(view.outputs - view.targets).mean(axis=0)
    return np.sqrt(squares)
