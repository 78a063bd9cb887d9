"""Pictures of any regression: predicted against true values, and the residuals.

Letters: N rows, C outputs.
"""

from typing import Any

import numpy as np

from src.kindling.colors import BLUE, GRAY, VERMILION
from src.kindling.figures.picture import Array, Picture, View, nice_limit

DOTS = 2000  # maximum number of dots; more values are drawn as a 2-D histogram
SQUARES = 60  # bins along each axis


def pictures(model: Any) -> list[Picture]:
    """Return the pictures of a regression."""
    return [PredictedAgainstTrue(), Residuals()]


class OfValues(Picture):
    """A picture of predicted values [N, C]."""

    def suits(self, view: View) -> bool:
        """Return whether the model predicts values."""
        shape = None if view.outputs is None else view.outputs.shape
        return (
            shape is not None and len(shape) == 2 and view.targets.shape == shape and shape[0] > 0
        )


def r2(view: View) -> float:
    """Return R2, averaged over the outputs."""
    residual = np.square(view.targets - view.outputs).sum(axis=0)
    total = np.square(view.targets - view.targets.mean(axis=0)).sum(axis=0)
    return float(np.mean(1 - residual / np.maximum(total, 1e-300)))


class PredictedAgainstTrue(OfValues):
    """Each predicted value against the true one."""

    name = "predicted_against_true"
    description = "predicted against true values; those of a perfect model lie on the diagonal"
    size = (4.6, 4.8)

    def draw(self, axes: Any, view: View) -> None:
        """Draw the values as dots or as a 2-D histogram, and the diagonal."""
        true = view.targets.ravel()
        low, high = float(true.min()), float(true.max())
        margin = 0.05 * (high - low) or 1.0
        ends = low - margin, high + margin
        predicted = np.clip(view.outputs.ravel(), *ends)  # move outliers to the edge
        axes.plot(ends, ends, color=GRAY, linestyle="--", linewidth=1)
        if len(true) <= DOTS:
            axes.plot(true, predicted, ".", color=BLUE, markersize=5, alpha=0.6)
        else:
            axes.hist2d(true, predicted, bins=SQUARES, range=[ends, ends], cmin=1, norm="log",
                        cmap="cividis_r")  # fmt: skip
            axes.set_title("darker: more values", loc="right", size=9, color=GRAY)
        axes.set(xlim=ends, ylim=ends, xlabel="true value (units of y)",
                 ylabel="predicted value (units of y)")  # fmt: skip

    def title(self, view: View) -> str:
        """Return R2."""
        return f"Predicted against true: R2 {r2(view):.3f}"


class Residuals(OfValues):
    """Histogram of the residuals, with their mean: size and bias of the errors."""

    name = "residuals"
    description = "a histogram of predicted minus true values; a red line at their mean"

    def draw(self, axes: Any, view: View) -> None:
        """Draw the histogram and a line at the mean."""
        residuals = (view.outputs - view.targets).ravel()
        width = nice_limit(float(np.quantile(np.abs(residuals), 0.995)))
        inside = np.clip(residuals, -width, width)
        axes.hist(
            inside, bins=40, range=(-width, width), color=BLUE, alpha=0.8, histtype="stepfilled"
        )
        axes.axvline(0, color=GRAY, linestyle="--", linewidth=1)
        axes.axvline(residuals.mean(), color=VERMILION, linewidth=2)
        axes.set(xlim=(-width, width), xlabel="predicted - true (units of y)", ylabel="values")

    def title(self, view: View) -> str:
        """Return the root mean square and the mean of the residuals."""
        residuals = view.outputs - view.targets
        error = np.sqrt(np.square(residuals).mean())
        return f"Residuals: root mean square {error:.3g}, mean {residuals.mean():+.2g}"


def errors(view: View) -> Array:
    """Return the root mean squared error of each output, [C]."""
    squares: Array = np.square(view.outputs - view.targets).mean(axis=0)
    return np.sqrt(squares)
