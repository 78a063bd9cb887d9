"""Pictures of any classifier: what it confuses, whether its confidence is deserved.

Letters: N rows, C classes.
"""

from typing import Any

import numpy as np

from src.figures.picture import Picture, View
from src.figures.sheet import (
    BLACK,
    BLUE,
    DASHED,
    DASHES,
    GREY,
    PALE,
    SERIES,
    WHITE,
    Array,
    Panel,
    Sheet,
    fitted,
    shades,
    ticks,
)

BINS = 10  # of confidence
HALVES = {0.0: "0", 0.5: "0.5", 1.0: "1"}
FLOOR = -0.42  # below the shares of what is right: those of the rows
MOST = "#66AAD1"  # a blue on which dark letters are read
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

    def paint(self, sheet: Sheet, view: View) -> str:
        """Colour each cell by its share of the row, and write its count."""
        counts, names = confusion(view), class_names(view)  # [C, C]
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        classes = len(counts)
        ends = -0.5, classes - 0.5
        panel = Panel(sheet, (100, 72, 465, 360), ends, ends[::-1])
        panel.image(shades(shares, (WHITE, MOST), 128))
        if classes <= LETTERED:
            between, size = np.arange(1, classes) - 0.5, 16.5 if classes < 8 else 12.5
            panel.strokes(between, ends[0], between, ends[1], PALE, width=1)
            panel.strokes(ends[0], between, ends[1], between, PALE, width=1)
            for y, x in np.ndindex(*counts.shape):
                panel.write(x, y, str(counts[y, x]), BLACK, size=size)
        every = -(-classes // LETTERED)  # more names than that would not fit
        shown = {float(i): fitted(names[i], 68) for i in range(0, classes, every)}
        panel.rule(shown, shown, "answered", "true")
        return f"Confusion matrix: {np.trace(counts):,} of {counts.sum():,} right"


def confusion(view: View) -> Array:
    """Return how often each class (column) was answered for each true one (row), [C, C]."""
    classes = view.outputs.shape[1]
    pairs = view.targets * classes + view.outputs.argmax(axis=1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


class Calibration(Picture):
    """Whether answers given with a confidence of 0.8, say, are right in 8 of 10 cases."""

    name = "calibration"
    size = (460, 460)

    def paint(self, sheet: Sheet, view: View) -> str:
        """Draw a point for each tenth of confidence that was used, with its 95% interval."""
        confidence, right, rows = reliability(view)
        panel = Panel(sheet, (70, 72, 445, 400), (0, 1.02), (FLOOR, 1.04))
        panel.rule(ticks(0, 1), HALVES, "confidence: probability of the answer", "share right")
        panel.line([0, 1], [0, 1], GREY, dashes=DASHED)
        panel.line([0, 1.02], -0.1, GREY, width=1)
        panel.write(0.99, 0.06, "too sure", GREY, align=1)
        panel.write(0.03, 0.94, "not sure enough", GREY, align=0)
        panel.write(0.015, -0.15, "share of the rows", GREY, align=0)
        low, high = wilson(right * rows, rows)
        panel.strokes(confidence, low, confidence, high, BLUE, width=3.5, alpha=0.45)
        panel.line(confidence, right, BLUE, width=1.7)
        panel.dots(confidence, right, BLUE, radius=4.6)
        tops = FLOOR + rows / rows.sum() * (-0.12 - FLOOR)
        panel.bars(confidence - 0.017, confidence + 0.017, FLOOR, tops, BLUE)
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

    def paint(self, sheet: Sheet, view: View) -> str:
        """Draw a curve for each class, its name and the area below it beside them."""
        panel = Panel(sheet, (70, 72, 320, 360), (0, 1.02), (0, 1.04))
        panel.rule(HALVES, HALVES, "recall: share of the class found", "precision: share right")
        panel.strokes([0, 0], [0.5, 1], [1.02, 1.02], [0.5, 1], PALE, width=1)
        panel.strokes([0.5, 1], [0, 0], [0.5, 1], [1.04, 1.04], PALE, width=1)
        sheet.write(475, 93, "area below", GREY, align=1)
        areas = []
        for place, (name, (true, scores)) in enumerate(curves(view).items()):
            look: dict[str, Any] = {
                "colour": SERIES[place],
                "dashes": DASHES[place % len(DASHES)],
                "width": 2.8,
            }
            recall, precision = curve(true, scores)
            panel.line(np.repeat(recall, 2)[:-1], np.repeat(precision, 2)[1:], **look)
            areas.append(area_below(recall, precision))
            y = 130 + 26 * place
            sheet.lines(np.array([(330, y), (355, y)]), **look)
            sheet.write(362, y, fitted(name, 72), align=0)
            sheet.write(475, y, f"{areas[-1]:.2f}", align=1)
        return f"Precision and recall: mean area {np.mean(areas):.3f}"


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


def area_below(recall: Array, precision: Array) -> float:
    """Return the area below a curve, in steps: its average precision."""
    return float(np.diff(recall) @ precision[1:])


def curves(view: View) -> dict[str, tuple[Array, Array]]:
    """Return, by the class's name, whether each row [N] is of it, and its probability [N]."""
    chances, names = probabilities(view), class_names(view)
    return {names[i]: (view.targets == i, chances[:, i]) for i in shown_classes(view)}
