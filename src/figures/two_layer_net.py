"""Pictures of the two-layer net: those of a regression, each output's error, the first layer.

Letters: D features, H hidden units, C outputs.
"""

from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from src.kindling.figures.picture import (
    BLACK,
    BLUE,
    GREY,
    Array,
    Picture,
    TextPatch,
    View,
    ceiling,
    panel,
    rule,
    ticks,
)
from src.kindling.figures.regression import PredictedAgainstTrue, errors

OUTPUTS = 40  # bars that fit


def pictures(model: Any) -> list[Picture]:
    """Return the pictures of a two-layer net."""
    return [PredictedAgainstTrue(), ErrorByOutput(), FirstLayer()]


class ErrorByOutput(Picture):
    """Which outputs are predicted well, and which no better than by their mean."""

    name = "error_by_output"

    def scale(self, view: View) -> float:
        """Return the largest error that is shown."""
        return ceiling(max(errors(view).max(), view.targets.std(axis=0).max()))

    def frame(self, figure: Figure, view: View) -> None:
        """Draw the axes, and for each output the error of who always says its mean."""
        outputs = min(view.targets.shape[1], OUTPUTS)
        axes = panel(figure)
        axes.set(xlim=(-0.6, outputs - 0.4), ylim=(0, self.scale(view)))
        numbers = {float(i): str(i) for i in range(0, outputs, -(-outputs // 10))}
        rule(axes, numbers, ticks(0, self.scale(view)), "output", "root mean squared error (of y)")
        spread = view.targets.std(axis=0)[:outputs]
        places = np.arange(outputs)
        axes.hlines(spread, places - 0.4, places + 0.4, color=GREY, linewidth=2)
        axes.text(0.995, 1.0, "grey line: error of the mean", transform=axes.transAxes, ha="right",
                  va="top", color=GREY)  # fmt: skip

    def content(self, view: View) -> list[Artist]:
        """Draw a bar for each output."""
        [axes] = self.axes
        heights = errors(view)[:OUTPUTS]
        bars = axes.bar(range(len(heights)), heights, width=0.62, color=BLUE)
        return list(bars)

    def title(self, view: View) -> str:
        """Say which is worst."""
        each = errors(view)
        return f"Error by output: {each.mean():.3g} on average, worst {each.max():.3g}"


class FirstLayer(Picture):
    """The weights of each hidden unit, the longest rows on top: which units have a part in it."""

    name = "first_layer"
    size = (5.2, 4.4)

    def scale(self, view: View) -> tuple[float, float]:
        """Return the weight with the full colour, and the longest row."""
        weights = first_weights(view)
        norms = np.linalg.norm(weights, axis=1)
        return ceiling(float(np.quantile(np.abs(weights), 0.995))), ceiling(norms.max())

    def frame(self, figure: Figure, view: View) -> None:
        """Draw the axes and what the colours mean."""
        units, features = first_weights(view).shape
        strongest, longest = self._ends = self.scale(view)
        left = panel(figure, right=1.9)
        left.set(xlim=(-0.5, features - 0.5), ylim=(units - 0.5, -0.5))
        rule(left, ticks(0, features - 1), ticks(0, units - 1), "feature", "hidden unit, by length")
        right = panel(figure, left=3.42, right=1.08)
        right.set(xlim=(0, longest), ylim=(units - 0.5, -0.5))
        rule(right, {longest: f"{longest:g}"}, {}, "length")
        scale = panel(figure, left=4.42, right=0.66)
        ramp = np.linspace(1, -1, 256)[:, None]
        scale.imshow(ramp, cmap="PuOr", vmin=-1, vmax=1, aspect="auto",
                     extent=(0, 1, -strongest, strongest))  # fmt: skip
        rule(scale, {}, {}, "weight")
        letters = TextPatch(scale, 10)
        ends = [(1.3, value, f"{value:g}") for value in (-strongest, 0.0, strongest)]
        letters.patch(ends, BLACK, align=0).set_clip_on(False)

    def content(self, view: View) -> list[Artist]:
        """Draw the weights, and the length of each row."""
        left, right, _ = self.axes
        strongest, _ = self._ends
        weights = first_weights(view)
        norms = np.linalg.norm(weights, axis=1)
        order = np.argsort(-norms)
        units, features = weights.shape
        image = left.imshow(
            weights[order],
            cmap="PuOr",
            vmin=-strongest,
            vmax=strongest,
            aspect="auto",
            extent=(-0.5, features - 0.5, units - 0.5, -0.5),
        )
        edges = np.arange(units + 1) - 0.5
        bars = right.stairs(norms[order], edges, orientation="horizontal", color=BLUE, fill=True)
        return [image, bars]

    def title(self, view: View) -> str:
        """Say how large the layer is."""
        units, features = first_weights(view).shape
        return f"First layer: {units:,} hidden units of {features:,} features"

    def rows(self, view: View) -> str:
        """Say when."""
        return "weights of the network"


def first_weights(view: View) -> Array:
    """Return the first layer's weights, [H, D]."""
    weights: Array = view.model.net.hidden.weight.detach().float().cpu().numpy()
    return weights
