"""Pictures of any classifier: what it confuses, whether its confidence is deserved.

Letters: N rows, C classes.
"""

from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from src.kindling.figures.picture import (
    BLACK,
    BLUE,
    DASHES,
    GREY,
    SERIES,
    Array,
    Picture,
    TextPatch,
    View,
    panel,
    rule,
    ticks,
)

BINS = 10  # of confidence
HALVES = {0.0: "0", 0.5: "0.5", 1.0: "1"}
FLOOR = -0.42  # below the shares of what is right: those of the rows
LETTERED = 12  # classes whose counts are written into the confusion matrix
CURVES = 7  # classes that have a curve of their own, the most frequent ones


def pictures(model: Any) -> list[Picture]:
    """Return the pictures of a classifier."""
    return [Confusion(), Calibration(), PrecisionRecall()]


def probabilities(view: View) -> Array:
    """Return the model's probabilities [N, C], the softmax of its logits."""
    logits = view.outputs - view.outputs.max(axis=1, keepdims=True)
    chances: Array = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return chances


def class_names(view: View) -> list[str]:
    """Return the classes' names: the data's `class_names`, or else numbers."""
    names = getattr(view.data, "class_names", None) or range(view.outputs.shape[1])
    return [str(name) for name in names]


class Confusion(Picture):
    """How often each class was answered for each true one."""

    name = "confusion"

    def frame(self, figure: Figure, view: View) -> None:
        """Draw the table's edges, with the names of the classes."""
        names = class_names(view)
        classes = len(names)
        axes = panel(figure, left=1.0)
        axes.set(xlim=(-0.5, classes - 0.5), ylim=(classes - 0.5, -0.5))
        every = -(-classes // LETTERED)  # more names than that would not fit
        shown = {float(i): names[i][:9] for i in range(0, classes, every)}
        rule(axes, shown, shown, "answered", "true")
        between, ends = np.arange(classes) - 0.5, (-0.5, classes - 0.5)
        axes.hlines(between, *ends, color="#DDDDDD", linewidth=1)
        axes.vlines(between + 1, *ends, color="#DDDDDD", linewidth=1)
        self._counts = TextPatch(axes, 12 if classes < 8 else 9)

    def content(self, view: View) -> list[Artist]:
        """Colour each cell by its share of the row, and write its count."""
        counts = confusion(view)  # [C, C]
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        # From white to a blue on which dark letters are read.
        colours = 1 - 0.6 * shares[:, :, None] * (1 - np.array(to_rgb(BLUE)))
        axes, classes = self.axes[0], len(counts)
        if classes > LETTERED:
            edges = (-0.5, classes - 0.5, classes - 0.5, -0.5)
            return [axes.imshow(colours, extent=edges, aspect="auto", interpolation="nearest")]
        cells = [
            axes.add_artist(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colours[y, x]))
            for y, x in np.argwhere(counts)
        ]
        words = [(x, y, str(counts[y, x])) for y in range(classes) for x in range(classes)]
        return [*cells, self._counts.patch(words, BLACK)]

    def title(self, view: View) -> str:
        """Say how many answers are right."""
        counts = confusion(view)
        return f"Confusion matrix: {np.trace(counts):,} of {counts.sum():,} right"


def confusion(view: View) -> Array:
    """Return how often each class (column) was answered for each true one (row), [C, C]."""
    classes = view.outputs.shape[1]
    pairs = view.targets * classes + view.outputs.argmax(axis=1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


class Calibration(Picture):
    """Whether answers given with a confidence of 0.8, say, are right in 8 of 10 cases."""

    name = "calibration"
    size = (4.6, 4.6)

    def frame(self, figure: Figure, view: View) -> None:
        """Draw the diagonal of the deserved confidence, and below it room for the counts."""
        axes = panel(figure)
        axes.set(xlim=(0, 1.02), ylim=(FLOOR, 1.04))
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
        axes.axhline(-0.1, color=GREY, linewidth=0.8)
        axes.text(0.99, 0.04, "too sure", color=GREY, ha="right")
        axes.text(0.03, 0.92, "not sure enough", color=GREY)
        axes.text(0.01, -0.17, "share of the rows", color=GREY)
        rule(axes, ticks(0, 1), HALVES, "confidence: probability of the answer", "share right")

    def content(self, view: View) -> list[Artist]:
        """Draw a point for each tenth of confidence that was used, with its 95% interval."""
        confidence, right, rows = reliability(view)
        low, high = wilson(right * rows, rows)
        [axes] = self.axes
        bars = axes.vlines(confidence, low, high, color=BLUE, linewidth=2.5, alpha=0.45)
        [points] = axes.plot(confidence, right, color=BLUE, marker="o", linewidth=1.2)
        tops = FLOOR + rows / rows.sum() * (-0.12 - FLOOR)
        counts = axes.vlines(confidence, FLOOR, tops, color=BLUE, linewidth=9)
        return [bars, points, counts]

    def title(self, view: View) -> str:
        """Say how far confidence and share are apart, over all answers."""
        confidence, right, rows = reliability(view)
        error = np.abs(confidence - right) @ rows / rows.sum()
        return f"Calibration: off by {error:.3f} on average"


def reliability(view: View) -> tuple[Array, Array, Array]:
    """Return mean confidence, share that is right, and rows of each bin that has any.

    Source: Guo et al., "On calibration of modern neural networks" (2017).
    """
    chances = probabilities(view)
    confidence, right = chances.max(axis=1), chances.argmax(axis=1) == view.targets
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    rows = np.bincount(bins, minlength=BINS)
    used = rows > 0
    sums = [
        np.bincount(bins, weights=values, minlength=BINS)[used] for values in (confidence, right)
    ]
    return sums[0] / rows[used], sums[1] / rows[used], rows[used]


def wilson(successes: Array, trials: Array, z: float = 1.96) -> tuple[Array, Array]:
    """Return the ends of the interval for a share, 95% by default.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """
    share, z2 = successes / trials, z * z
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = z * np.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return middle - half, middle + half


class PrecisionRecall(Picture):
    """For each class: of the rows said to be of it, how many are; of those that are, how many
    were found; as the probability from which it is said goes from 1 to 0.
    """

    name = "precision_recall"

    def frame(self, figure: Figure, view: View) -> None:
        """Draw the axes, and the classes' names with their lines."""
        axes = panel(figure, right=1.6)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.04))
        rule(axes, HALVES, HALVES, "recall: share of the class found", "precision: share right")
        axes.hlines([0.5, 1], 0, 1.02, color="#DDDDDD", linewidth=0.8)
        axes.vlines([0.5, 1], 0, 1.04, color="#DDDDDD", linewidth=0.8)
        names = class_names(view)
        self._classes = shown_classes(view)
        for place, index in enumerate(self._classes):
            y = 0.8 - 0.09 * place
            axes.plot([1.04, 1.14], [y, y], **_line(place), transform=axes.transAxes, clip_on=False)
            axes.text(1.17, y, names[index][:10], transform=axes.transAxes, va="center")
        axes.text(1.62, 0.91, "area below", transform=axes.transAxes, color=GREY, ha="right")

    def content(self, view: View) -> list[Artist]:
        """Draw a curve for each class, and write the area below it."""
        [axes] = self.axes
        drawn: list[Artist] = []
        for place, (true, scores) in enumerate(curves(view).values()):
            recall, precision = curve(true, scores)
            drawn += axes.step(recall, precision, where="pre", **_line(place))
            y, area = 0.8 - 0.09 * place, f"{average_precision(true, scores):.2f}"
            drawn.append(
                axes.text(1.62, y, area, transform=axes.transAxes, va="center", ha="right")
            )
        return drawn

    def title(self, view: View) -> str:
        """Say how good the mean class is."""
        areas = [average_precision(true, scores) for true, scores in curves(view).values()]
        return f"Precision and recall: mean area {np.mean(areas):.3f}"


def _line(place: int) -> dict[str, Any]:
    return {"color": SERIES[place], "linestyle": DASHES[place % len(DASHES)], "linewidth": 2}


def shown_classes(view: View) -> list[int]:
    """Return the classes that have a curve: the most frequent, in their order."""
    rows = np.bincount(view.targets, minlength=view.outputs.shape[1])
    frequent = np.argsort(-rows, kind="stable")[:CURVES]
    return sorted(int(index) for index in frequent if rows[index])


def curve(true: Array, scores: Array) -> tuple[Array, Array]:
    """Return recall, from 0 to 1, and precision, at each threshold from the highest score on."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # of equal scores: one threshold
    found, said = np.cumsum(true[order])[last], np.arange(1, len(true) + 1)[last]
    precision = found / said
    return np.append(0, found / found[-1]), np.append(precision[0], precision)


def average_precision(true: Array, scores: Array) -> float:
    """Return the area below the curve, in steps."""
    recall, precision = curve(true, scores)
    return float(np.diff(recall) @ precision[1:])


def curves(view: View) -> dict[str, tuple[Array, Array]]:
    """Return, by the class's name, whether each row [N] is of it, and its probability [N]."""
    chances, names = probabilities(view), class_names(view)
    return {names[i]: (view.targets == i, chances[:, i]) for i in shown_classes(view)}
