"""Pictures of linear regression: the fit, and the way of the coefficients to least squares.

Letters: N rows, D features.
"""

from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from src.kindling.figures.picture import (
    BLACK,
    BLUE,
    GREEN,
    SKY,
    VERMILION,
    Array,
    Picture,
    View,
    ceiling,
    panel,
    rule,
    ticks,
)

STATIONS = 400  # of the way that are kept; of a longer one, every second, fourth, ...


def pictures(model: Any) -> list[Picture]:
    """Return the fit, and the way of the coefficients where there are two to draw."""
    return [Fit(), *([Coefficients()] if model.in_features >= 2 else [])]


def training_rows(view: View) -> tuple[Array, Array]:
    """Return features [N, D] and first values [N] of the training rows."""
    features, values = view.data.split("train")
    return features.numpy().astype(float), values[:, 0].numpy().astype(float)


class Fit(Picture):
    """The line (of one feature) or the predicted values, with the residual of each row."""

    name = "fit"
    size = (4.6, 5.2)

    def scale(self, view: View) -> float:
        """Return the largest residual that is shown."""
        _, residuals = self._predicted(view)
        return ceiling(float(np.abs(residuals).max()))

    def frame(self, figure: Figure, view: View) -> None:
        """Draw the axes: values above, residuals below."""
        _, values = training_rows(view)
        margin = 0.08 * float(np.ptp(values)) or 1.0
        self._range = values.min() - margin, values.max() + margin
        upper = panel(figure, bottom=2.35)
        lower = panel(figure, top=3.2)
        largest, places = self.scale(view), ticks(*self._range)
        upper.set(xlim=self._range, ylim=self._range)
        lower.set(xlim=self._range, ylim=(-largest, largest))
        rule(upper, dict.fromkeys(places, ""), places, ylabel="value y")
        around = {value: f"{value:g}" for value in (-largest, 0.0, largest)}
        rule(lower, places, around, "fitted value (units of y)", "residual")
        upper.plot(self._range, self._range, color=GREEN, linewidth=1.5)
        lower.axhline(0, color=GREEN, linewidth=1.5)

    def content(self, view: View) -> list[Artist]:
        """Draw each row, and the way from the line to it."""
        upper, lower = self.axes
        fitted, residuals = self._predicted(view)
        ways = [
            upper.vlines(fitted, fitted, fitted + residuals, color=VERMILION, linewidth=1.2),
            lower.vlines(fitted, 0, residuals, color=VERMILION, linewidth=1.2),
        ]
        dots: dict[str, Any] = {"color": BLUE, "marker": "o", "markersize": 4.5, "linestyle": ""}
        above = upper.plot(fitted, fitted + residuals, **dots)
        return [*ways, *above, *lower.plot(fitted, residuals, **dots)]

    def title(self, view: View) -> str:
        """Say how far off the rows are."""
        _, residuals = self._predicted(view)
        return f"Fit: residuals of {np.sqrt(np.square(residuals).mean()):.3g} (root mean square)"

    def rows(self, view: View) -> str:
        """Say which rows."""
        return f"{len(training_rows(view)[1]):,} rows of training"

    @staticmethod
    def _predicted(view: View) -> tuple[Array, Array]:
        features, values = view.data.split("train")
        fitted = view.ask(features)[:, 0].astype(float)
        return fitted, values[:, 0].numpy() - fitted


class Coefficients(Picture):
    """The first two coefficients on their way down the loss, from afar and near the end."""

    name = "coefficients"
    size = (4.6, 7.4)

    def __init__(self) -> None:
        super().__init__()
        self._way: list[Any] = []  # a tensor [2] each, where the model is, or a list
        self._every, self._seen = 1, 0

    def watch(self, model: Any) -> None:
        """Note where the coefficients are."""
        if self._seen % self._every == 0:
            self._way.append(model.coefficients[0, :2].clone())
        self._seen += 1
        if len(self._way) > STATIONS:
            self._way, self._every = self._way[::2], 2 * self._every

    def notes(self) -> Any:
        """Return the way so far."""
        way = [_pair(station) for station in self._way]
        return {"way": way, "every": self._every, "seen": self._seen}

    def take_up(self, notes: Any, model: Any) -> None:
        """Go on with a way, or start one."""
        if notes is None:
            self.watch(model)
        else:
            self._way, self._every, self._seen = (notes[key] for key in ("way", "every", "seen"))

    def scale(self, view: View) -> tuple[tuple[float, ...], float]:
        """Return the edges of what is seen from afar, and how near the end is looked at."""
        _, best = bowl(view)
        points = np.vstack([self._stations(view), best[:2]])
        edges = np.concatenate([np.floor(points.min(0) - 0.25), np.ceil(points.max(0) + 0.25)])
        true = view.model.true_coefficients
        apart = np.linalg.norm(np.array(true[:2]) - best[:2]) if true else 0.04
        return tuple(edges), ceiling(1.5 * float(apart))

    def frame(self, figure: Figure, view: View) -> None:
        """Draw the loss's contours, from afar and near its least."""
        curvature, best = bowl(view)
        (left, low, right, high), near = self.scale(view)
        (x, y), true = best[:2], view.model.true_coefficients
        panels = panel(figure, bottom=3.95, top=0.95), panel(figure, top=4.2)
        limits = ((left, right, low, high), (x - near, x + near, y - near, y + near))
        for axes, (x0, x1, y0, y1) in zip(panels, limits, strict=True):
            grid = np.stack(np.meshgrid(np.linspace(x0, x1, 60), np.linspace(y0, y1, 60)), axis=-1)
            away = grid - best[:2]
            loss = np.sqrt(np.einsum("...i,ij,...j", away, curvature, away))
            axes.contour(grid[..., 0], grid[..., 1], loss, 9, colors=SKY, linewidths=0.8, alpha=0.8)
            axes.set(xlim=(x0, x1), ylim=(y0, y1))
            rule(axes, ticks(x0, x1), ticks(y0, y1, 5), "coefficient 1", "coefficient 2")
        self._legend(figure, bool(true))

    @staticmethod
    def _legend(figure: Figure, has_true: bool) -> None:
        signs = [("-o", BLUE, "way"), ("+", VERMILION, "least squares")]
        signs += [("s", GREEN, "made the data")] if has_true else []
        axes = figure.axes[0]
        lines = [
            axes.plot([], [], sign, color=colour, fillstyle="none", label=name, mew=2)[0]
            for sign, colour, name in signs
        ]
        figure.legend(handles=lines, loc="upper left", ncols=3, frameon=False, columnspacing=1,
                      bbox_to_anchor=(0.1, 0.93), handletextpad=0.4)  # fmt: skip

    def content(self, view: View) -> list[Artist]:
        """Draw the way, from its start to where it is; its end, and what made the data."""
        way, (_, best) = self._stations(view), bowl(view)
        true = view.model.true_coefficients
        drawn: list[Artist] = []
        for axes in self.axes:
            drawn += axes.plot(*way.T, color=BLUE, marker=".", markersize=5, linewidth=1.2)
            drawn += axes.plot(*way[0], "o", color=BLACK, markersize=6, fillstyle="none")
            drawn += axes.plot(*way[-1], "o", color=BLUE, markersize=8)
            drawn += axes.plot(*best[:2], "+", color=VERMILION, markersize=15, mew=2.5)
            if true:
                drawn += axes.plot(*true[:2], "s", color=GREEN, ms=9, fillstyle="none", mew=2)
        return drawn

    def title(self, view: View) -> str:
        """Say how far there is to go."""
        _, best = bowl(view)
        left = np.linalg.norm(self._stations(view)[-1] - best[:2])
        return f"Coefficients: {left:.2g} from least squares"

    def rows(self, view: View) -> str:
        """Say what the lines are."""
        return "rings: equal loss of training"

    def _stations(self, view: View) -> Array:
        return np.array([_pair(s) for s in (*self._way, view.model.coefficients[0, :2])])


def _pair(station: Any) -> list[float]:
    pair: list[float] = station.tolist() if hasattr(station, "tolist") else station
    return pair


def bowl(view: View) -> tuple[Array, Array]:
    """Return how the loss rises from its least in the first two coefficients [2, 2], and the
    coefficients of least squares [D]; the others, and the intercept, are at their best for these.
    """
    features, values = training_rows(view)
    if view.model.net.bias is not None:
        features, values = features - features.mean(axis=0), values - values.mean()
    best = np.linalg.lstsq(features, values)[0]
    first, others = features[:, :2], features[:, 2:]
    if others.shape[1]:
        first = first - others @ np.linalg.lstsq(others, first)[0]
    return first.T @ first / len(values), best
