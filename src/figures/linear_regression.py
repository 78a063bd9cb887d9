"""Pictures of linear regression: the fit, and the way of the coefficients to least squares.

Letters: N rows, D features.
"""

from typing import Any

import numpy as np

from src.figures.picture import Picture, View, ceiling
from src.figures.sheet import BLACK, BLUE, GREEN, SKY, VERMILION, Array, Panel, Sheet, ticks, widest

STATIONS = 400  # of the way that are kept; of a longer one, every second, fourth, ...
DRAWN = 2000  # rows that are drawn; more would hide each other
RINGS = 9  # of equal loss, between its least and its most


def pictures(model: Any) -> list[Picture]:
    """Return the fit, and the way of the coefficients where there are two to draw."""
    return [Fit(), *([Coefficients()] if model.in_features >= 2 else [])]


def training_rows(view: View) -> tuple[Array, Array]:
    """Return features [N, D] and first values [N] of the training rows."""
    features, values = view.data.split("train")
    return features.numpy().astype(float), values[:, 0].numpy().astype(float)


class Fit(Picture):
    """The predicted values against the true ones, and below them the residual of each row."""

    name = "fit"
    size = (460, 520)

    def paint(self, sheet: Sheet, view: View) -> str:
        """Draw each row, and the way from the line to it."""
        features, values = view.data.split("train")
        fitted = view.ask(features)[:, 0].astype(float)
        values = values[:, 0].numpy().astype(float)
        residuals = values - fitted
        margin = 0.08 * float(np.ptp(values)) or 1.0
        ends = values.min() - margin, values.max() + margin
        largest, places = ceiling(float(np.abs(residuals).max())), ticks(*ends)
        around = {value: f"{value:g}" for value in (-largest, 0.0, largest)}
        edge = max(70, 36 + widest(places), 36 + widest(around))
        upper = Panel(sheet, (edge, 72, 445, 285), ends, ends)
        lower = Panel(sheet, (edge, 320, 445, 460), ends, (-largest, largest))
        upper.rule(dict.fromkeys(places, ""), places, ylabel="value y")
        lower.rule(places, around, "fitted value (units of y)", "residual")
        upper.line(ends, ends, GREEN, width=2)
        lower.line(ends, 0, GREEN, width=2)
        x, y, left = fitted[:DRAWN], values[:DRAWN], residuals[:DRAWN]
        upper.strokes(x, x, x, y, VERMILION, width=1.7)
        lower.strokes(x, 0, x, left, VERMILION, width=1.7)
        upper.dots(x, y, BLUE, radius=3.6)
        lower.dots(x, left, BLUE, radius=3.6)
        error = np.sqrt(np.square(residuals).mean())
        return f"Fit: residuals of {error:.3g} (root mean square)"

    def rows(self, view: View) -> str:
        """Say which rows."""
        count = len(view.data.split("train")[1])
        return f"{count:,} rows of training" if count <= DRAWN else f"{DRAWN:,} of {count:,} rows"


class Coefficients(Picture):
    """The first two coefficients on their way down the loss, from afar and near the end."""

    name = "coefficients"
    size = (460, 740)

    def __init__(self) -> None:
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

    def paint(self, sheet: Sheet, view: View) -> str:
        """Draw the way on the loss's rings, what made the data, and the end, where it is least."""
        (curvature, best), true = bowl(view), view.model.true_coefficients
        way = self.stations(view)
        points = np.vstack([way, best[:2]])
        (left, low), (right, high) = np.floor(points.min(0) - 0.25), np.ceil(points.max(0) + 0.25)
        apart = np.linalg.norm(np.array(true[:2]) - best[:2]) if true else 0.04
        (x, y), near = best[:2], ceiling(1.5 * float(apart))
        places = (95, 345), (420, 680)
        limits = ((left, right), (low, high)), ((x - near, x + near), (y - near, y + near))
        for (top, bottom), (across, upwards) in zip(places, limits, strict=True):
            values = ticks(*upwards, 5)
            edge = max(70, 36 + widest(values))
            panel = Panel(sheet, (edge, top, 445, bottom), across, upwards)
            panel.rule(ticks(*across), values, "coefficient 1", "coefficient 2")
            around = rings(curvature, best[:2], across, upwards)
            panel.line(around[..., 0], around[..., 1], SKY, width=1.1, alpha=0.8)
            panel.line(way[:, 0], way[:, 1], BLUE, width=1.7)
            panel.dots(way[:, 0], way[:, 1], BLUE, radius=2)
            panel.dots(way[0, 0], way[0, 1], BLACK, radius=4.2, hollow=1.4)
            panel.dots(way[-1, 0], way[-1, 1], BLUE, radius=5.5)
            plus(sheet, *panel.points(x, y))
            if true:
                square(sheet, *panel.points(*true[:2]))
        legend(sheet, bool(true))
        return f"Coefficients: {np.linalg.norm(way[-1] - best[:2]):.2g} from least squares"

    def rows(self, view: View) -> str:
        """Say what the lines are."""
        return "rings: equal loss of training"

    def stations(self, view: View) -> Array:
        """Return the way, from its start to where the model is."""
        return np.array([_pair(s) for s in (*self._way, view.model.coefficients[0, :2])])


def _pair(station: Any) -> list[float]:
    pair: list[float] = station.tolist() if hasattr(station, "tolist") else station
    return pair


def plus(sheet: Sheet, x: float, y: float) -> None:
    """Mark the least loss on a sheet."""
    strokes = [[(x - 10, y), (x + 10, y)], [(x, y - 10), (x, y + 10)]]
    sheet.lines(np.array(strokes), VERMILION, width=3.5)


def square(sheet: Sheet, x: float, y: float) -> None:
    """Mark what made the data on a sheet."""
    corners = [(x - 6, y - 6), (x + 6, y - 6), (x + 6, y + 6), (x - 6, y + 6), (x - 6, y - 7)]
    sheet.lines(np.array(corners), GREEN, width=2.8)


def legend(sheet: Sheet, has_true: bool) -> None:
    """Say what the marks mean."""
    sheet.lines(np.array([(58, 71), (88, 71)]), BLUE, width=1.7)
    sheet.dots(np.array([(73, 71)]), BLUE, radius=4.2)
    sheet.write(95, 71, "way", align=0)
    plus(sheet, 153, 71)
    sheet.write(174, 71, "least squares", align=0)
    if has_true:
        square(sheet, 305, 71)
        sheet.write(325, 71, "made the data", align=0)


def rings(curvature: Array, least: Array, x: tuple[float, float], y: tuple[float, float]) -> Array:
    """Return the lines of equal loss between the edges of x and y: ellipses [RINGS, K, 2]."""
    steepness, axes = np.linalg.eigh(curvature)
    steepness = np.maximum(steepness, 1e-8 * steepness.max())  # of a valley without end
    corners = np.array([(a, b) for a in x for b in y]) - least
    highest = np.sqrt(np.square(corners @ axes) @ steepness).max()
    turn = np.linspace(0, 2 * np.pi, 121)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=-1)
    outline = circle / np.sqrt(steepness) @ axes.T  # where the loss is 1 above its least
    radii = np.arange(1, RINGS + 1) * highest / (RINGS + 1)
    ellipses: Array = least + radii[:, None, None] * outline
    return ellipses


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
