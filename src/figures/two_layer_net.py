"""Pictures of the two-layer net: those of a regression, each output's error, the first layer.

Letters: D features, H hidden units, C outputs.
"""

from typing import Any

import numpy as np

from src.figures.picture import Picture, View, ceiling
from src.figures.regression import PredictedAgainstTrue, errors
from src.figures.sheet import BLUE, GREY, WHITE, Array, Panel, Sheet, shades, ticks, widest

OUTPUTS = 40  # bars that fit
SIGNED = ("#7F3B08", "#E08214", "#F7F7F7", "#8073AC", "#2D004B")  # ColorBrewer's PuOr


def pictures(model: Any) -> list[Picture]:
    """Return the pictures of a two-layer net."""
    return [PredictedAgainstTrue(), ErrorByOutput(), FirstLayer()]


class ErrorByOutput(Picture):
    """Which outputs are predicted well, and which no better than by their mean."""

    name = "error_by_output"

    def paint(self, sheet: Sheet, view: View) -> str:
        """Draw a bar for each output, and the error of who always says its mean."""
        each, spread = errors(view), view.targets.std(axis=0)
        highest = ceiling(max(each.max(), spread.max()))
        outputs = min(len(each), OUTPUTS)
        heights = ticks(0, highest)
        edge = max(70, 36 + widest(heights))
        panel = Panel(sheet, (edge, 92, 465, 360), (-0.6, outputs - 0.4), (0, highest))
        places = np.arange(outputs)
        panel.bars(places - 0.31, places + 0.31, 0, each[:outputs], BLUE)
        means = spread[:outputs]
        panel.strokes(places - 0.4, means, places + 0.4, means, GREY, width=2.8)
        sheet.write(465, 79, "grey line: error of the mean", GREY, align=1)
        numbers = {float(i): str(i) for i in range(0, outputs, -(-outputs // 10))}
        panel.rule(numbers, heights, "output", "root mean squared error (of y)")
        return f"Error by output: {each.mean():.3g} on average, worst {each.max():.3g}"


class FirstLayer(Picture):
    """The weights of each hidden unit, the longest rows on top: which units have a part in it."""

    name = "first_layer"
    size = (520, 440)

    def paint(self, sheet: Sheet, view: View) -> str:
        """Draw the weights, the length of each row, and what the colours mean."""
        weights = first_weights(view)
        units, features = weights.shape
        lengths = np.linalg.norm(weights, axis=1)
        order = np.argsort(-lengths)
        strongest = ceiling(float(np.quantile(np.abs(weights), 0.995)))
        upwards = units - 0.5, -0.5
        left = Panel(sheet, (70, 72, 330, 380), (-0.5, features - 0.5), upwards)
        shown = thinned(thinned(weights[order], 308).T, 260).T
        left.image(shades(shown / strongest / 2 + 0.5, SIGNED))
        left.rule(ticks(0, features - 1, 5, 1), ticks(0, units - 1, 8, 1), "feature",
                  "hidden unit, by length")  # fmt: skip
        longest = ceiling(lengths.max())
        right = Panel(sheet, (342, 72, 412, 380), (0, longest), upwards)
        reached = np.linspace(0, longest, 70) < lengths[order, None]  # [H, 70]: by each unit
        right.image(shades(reached, (WHITE, BLUE)))
        right.rule({longest: f"{longest:g}"}, {}, "length")
        scale = Panel(sheet, (442, 72, 454, 380), (0, 1), (-strongest, strongest))
        scale.image(shades(np.linspace(1, 0, 308)[:, None], SIGNED))
        for value in (-strongest, 0.0, strongest):
            scale.write(1.4, value, f"{value:g}", align=0)
        sheet.write(448, 413, "weight")
        return f"First layer: {units:,} hidden units of {features:,} features"

    def rows(self, view: View) -> str:
        """Say when."""
        return "weights of the network"


def thinned(values: Array, most: int) -> Array:
    """Return at most so many rows: where there are more, the means of neighbours."""
    if len(values) <= most:
        return values
    starts = np.arange(most) * len(values) // most
    sums: Array = np.add.reduceat(values, starts, axis=0)
    return sums / np.diff(np.append(starts, len(values)))[:, None]


def first_weights(view: View) -> Array:
    """Return the first layer's weights, [H, D]."""
    weights: Array = view.model.net.hidden.weight.detach().float().cpu().numpy()
    return weights
