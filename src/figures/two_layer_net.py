"""Pictures of the two-layer net: those of a regression, each output's error, the first layer.

Letters: D features, H hidden units, C outputs.
"""

from typing import Any

import numpy as np

from src.kindling.colors import BLUE, GRAY
from src.kindling.figures.picture import Array, Picture, View, nice_limit
from src.kindling.figures.regression import OfValues, PredictedAgainstTrue, errors

OUTPUTS = 40  # maximum number of bars


def pictures(model: Any) -> list[Picture]:
    """Return the pictures of a two-layer net."""
    return [PredictedAgainstTrue(), ErrorByOutput(), FirstLayer()]


class ErrorByOutput(OfValues):
    """Error of each output, compared with always predicting its mean."""

    name = "error_by_output"
    description = "one bar per output; the gray line is the error of always predicting the mean"

    def draw(self, axes: Any, view: View) -> None:
        """Draw a bar for each output, and the error of always predicting its mean."""
        heights = errors(view)[:OUTPUTS]
        places = np.arange(len(heights))
        spread = view.targets.std(axis=0)[:OUTPUTS]
        axes.bar(places, heights, width=0.62, color=BLUE)
        axes.hlines(spread, places - 0.4, places + 0.4, color=GRAY, linewidth=2)
        axes.set_title("gray line: error of the mean", loc="right", size=9, color=GRAY)
        top = nice_limit(float(max(heights.max(), spread.max())))
        axes.set(ylim=(0, top), xlabel="output", ylabel="root mean squared error (of y)")
        axes.set_xticks(places[:: -(-len(heights) // 10)])

    def title(self, view: View) -> str:
        """Return the mean and the largest error."""
        by_output = errors(view)
        return f"Error by output: {by_output.mean():.3g} on average, worst {by_output.max():.3g}"


class FirstLayer(Picture):
    """The weights of the hidden units, sorted by norm: which units contribute?"""

    name = "first_layer"
    description = "weights by hidden unit and feature, with the norm of each unit at the right"
    size = (5.4, 4.6)
    panels = (1, 2)

    def draw(self, axes: Any, view: View) -> None:
        """Draw the weights, their color scale, and the norm of each row."""
        weights = first_weights(view)  # [H, D]
        norms = np.linalg.norm(weights, axis=1)
        order, edges = np.argsort(-norms), np.arange(len(norms) + 1) - 0.5
        strongest = nice_limit(float(np.quantile(np.abs(weights), 0.995)))
        left, right = axes
        left.get_gridspec().set_width_ratios([5, 1])
        left.figure.subplots_adjust(wspace=0.15)
        image = left.imshow(weights[order], cmap="PuOr", vmin=-strongest, vmax=strongest,
                            aspect="auto", interpolation="nearest")  # fmt: skip
        scale = left.figure.colorbar(image, ax=left, ticks=[-strongest, 0, strongest])
        scale.ax.set_title("weight", size=9)
        left.set(xlabel="feature", ylabel="hidden unit, by norm")
        right.stairs(norms[order], edges, orientation="horizontal", color=BLUE, fill=True)
        right.set(xlim=(0, nice_limit(float(norms.max()))), ylim=left.get_ylim(), yticks=[],
                  xlabel="norm")  # fmt: skip

    def title(self, view: View) -> str:
        """Return the size of the layer."""
        units, features = first_weights(view).shape
        return f"First layer: {units:,} hidden units of {features:,} features"

    def source(self, view: View) -> str:
        """Return the source: the weights, not any rows."""
        return "weights of the network"


def first_weights(view: View) -> Array:
    """Return the first layer's weights, [H, D]."""
    weights: Array = view.model.net.hidden.weight.detach().float().cpu().numpy()
    return weights
