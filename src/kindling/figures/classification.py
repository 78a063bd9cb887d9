"""Pictures of any classifier: confusion matrix, calibration, precision and recall.

Letters: N rows, C classes.
"""

from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from src.kindling.colors import BLACK, BLUE, DASHES, GRAY, SERIES
from src.kindling.figures.picture import Array, Picture, View

BINS = 10  # of confidence
CLASSES = 1000  # nothing is drawn for more, such as the tokens of a language
LETTERED = 12  # maximum number of classes for counts in the confusion matrix
LETTERS = 40  # that fit below it
CURVES = 7  # maximum number of curves, for the most frequent classes
PALE = LinearSegmentedColormap.from_list(
    "pale", ["white", "#66AAD1"]
)  # light enough for dark letters


def pictures(model: Any) -> list[Picture]:
    """Return the pictures of a classifier."""
    return [Confusion(), Calibration(), PrecisionRecall()]


def suits(view: View) -> bool:
    """Return whether the targets are classes [N] and the outputs logits [N, C]."""
    if view.outputs is None or view.outputs.ndim != 2 or view.targets.shape != (len(view.outputs),):
        return False
    return len(view.targets) > 0 and 2 <= view.outputs.shape[1] <= CLASSES


class OfClasses(Picture):
    """A picture of logits and classes."""

    def suits(self, view: View) -> bool:
        """Return whether the model predicts classes."""
        return suits(view)


def probabilities(view: View) -> Array:
    """Return the model's probabilities [N, C], the softmax of its logits."""
    logits = view.outputs - view.outputs.max(axis=1, keepdims=True)
    chances: Array = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return chances


def class_names(view: View) -> list[str]:
    """Return the names of the classes: `class_names` of the data, or else numbers."""
    names = getattr(view.data, "class_names", None) or range(view.outputs.shape[1])
    return [str(name) for name in names]


def short(name: str, letters: int) -> str:
    """Return a name, or its beginning where it is longer than that."""
    return name if len(name) <= letters else f"{name[: letters - 1]}…"


class Confusion(OfClasses):
    """The confusion matrix."""

    name = "confusion"
    description = "rows by true class, columns by predicted class, darker for a larger share"

    def draw(self, axes: Any, view: View) -> None:
        """Color each cell by its share of the row, and label it with its count."""
        counts, names = confusion(view), class_names(view)  # [C, C]
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap=PALE, vmin=0, vmax=1, aspect="auto")
        every = -(-len(names) // LETTERED)  # more names than that would not fit
        shown = range(0, len(names), every)
        axes.set_xticks(shown, [short(names[i], max(4, LETTERS // len(shown))) for i in shown])
        axes.set_yticks(shown, [short(names[i], 11) for i in shown])
        axes.set(xlabel="predicted", ylabel="true")
        axes.figure.subplots_adjust(left=0.24)
        if len(names) <= LETTERED:
            for (y, x), count in np.ndenumerate(counts):
                axes.text(x, y, count, ha="center", va="center", color=BLACK)

    def title(self, view: View) -> str:
        """Return the number of correct predictions."""
        counts = confusion(view)
        return f"Confusion matrix: {np.trace(counts):,} of {counts.sum():,} right"


def confusion(view: View) -> Array:
    """Return the confusion matrix [C, C]: counts by true (row) and predicted class (column)."""
    classes = view.outputs.shape[1]
    pairs = view.targets * classes + view.outputs.argmax(axis=1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


class Calibration(OfClasses):
    """Reliability diagram: are 80% of the predictions with confidence 0.8 correct?"""

    name = "calibration"
    description = (
        "share of correct predictions against confidence, with 95% intervals; the diagonal is well"
        " calibrated; bars below show the share of the rows"
    )
    size = (4.6, 5.2)
    panels = (2, 1)

    def draw(self, axes: Any, view: View) -> None:
        """Draw a point per nonempty bin of confidence, and the number of its rows below."""
        confidence, right, rows = reliability(view)
        low, high = wilson(right * rows, rows)
        upper, lower = axes
        upper.get_gridspec().set_height_ratios([4, 1])
        upper.figure.subplots_adjust(hspace=0.25)
        upper.plot([0, 1], [0, 1], color=GRAY, linestyle="--", linewidth=1)
        upper.text(0.99, 0.04, "too sure", color=GRAY, ha="right")
        upper.text(0.03, 0.92, "not sure enough", color=GRAY)
        upper.vlines(confidence, low, high, color=BLUE, linewidth=2.5, alpha=0.45)
        upper.plot(confidence, right, color=BLUE, marker="o", linewidth=1.2)
        upper.set(xlim=(0, 1.02), ylim=(0, 1.04), ylabel="share right")
        lower.bar(confidence, rows / rows.sum(), width=0.04, color=BLUE)
        lower.set(xlim=(0, 1.02), ylim=(0, 1), ylabel="share", yticks=[0, 1],
                  xlabel="confidence: probability of the prediction")  # fmt: skip

    def title(self, view: View) -> str:
        """Return the expected calibration error."""
        confidence, right, rows = reliability(view)
        error = np.abs(confidence - right) @ rows / rows.sum()
        return f"Calibration: off by {error:.3f} on average"


def reliability(view: View) -> tuple[Array, Array, Array]:
    """Return mean confidence, share of correct predictions, and rows of each nonempty bin.

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
    """Return the bounds of Wilson's interval for a proportion, 95% by default.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """
    share, z2 = successes / trials, z * z
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = z * np.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return middle - half, middle + half


class PrecisionRecall(OfClasses):
    """Precision-recall curves of the classes, over all thresholds of their probability."""

    name = "precision_recall"
    description = "precision against recall, a curve per class with the area below it"

    def draw(self, axes: Any, view: View) -> None:
        """Draw a curve for each class, labeled with the area below it."""
        for place, (name, (true, scores)) in enumerate(curves(view).items()):
            label = f"{short(name, 16)} {average_precision(true, scores):.2f}"
            line = DASHES[place % len(DASHES)]
            axes.step(*curve(true, scores), where="pre", color=SERIES[place], linestyle=line,
                      linewidth=2, label=label)  # fmt: skip
        axes.grid(color="#DDDDDD")
        axes.legend(title="class, area", frameon=False, loc="lower left")
        axes.set(xlim=(0, 1.02), ylim=(0, 1.04), xlabel="recall: share of the class found",
                 ylabel="precision: share right")  # fmt: skip

    def title(self, view: View) -> str:
        """Return the mean average precision of the classes."""
        areas = [average_precision(true, scores) for true, scores in curves(view).values()]
        return f"Precision and recall: mean area {np.mean(areas):.3f}"


def shown_classes(view: View) -> list[int]:
    """Return the most frequent classes, in ascending order."""
    rows = np.bincount(view.targets, minlength=view.outputs.shape[1])
    frequent = np.argsort(-rows, kind="stable")[:CURVES]
    return sorted(int(index) for index in frequent if rows[index])


def curve(true: Array, scores: Array) -> tuple[Array, Array]:
    """Return recall, ascending from 0 to 1, and precision at each threshold."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # equal scores share a threshold
    hits, predicted = np.cumsum(true[order])[last], np.arange(1, len(true) + 1)[last]
    precision = hits / predicted
    return np.append(0, hits / hits[-1]), np.append(precision[0], precision)


def average_precision(true: Array, scores: Array) -> float:
    """Return the area under the precision-recall curve, as a step function."""
    recall, precision = curve(true, scores)
    return float(np.diff(recall) @ precision[1:])


def curves(view: View) -> dict[str, tuple[Array, Array]]:
    """Return, by class name, whether each row [N] is in the class, and its probability [N]."""
    chances, names = probabilities(view), class_names(view)
    return {names[i]: (view.targets == i, chances[:, i]) for i in shown_classes(view)}
