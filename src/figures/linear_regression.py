"""Pictures of linear regression: the fit, and the coefficients' path to the least-squares solution.

Letters: N rows, D features.
"""

from typing import Any

import numpy as np

from src.kindling.colors import BLACK, BLUE, GREEN, SKY, VERMILION
from src.kindling.figures.picture import Array, Picture, View, nice_limit

POINTS = 400  # maximum length of the trajectory; a longer one is thinned by powers of two


def pictures(model: Any) -> list[Picture]:
    """Return the fit, and the path of the coefficients if there are at least two."""
    return [Fit(), *([Coefficients()] if model.in_features >= 2 else [])]


def training_rows(view: View) -> tuple[Array, Array]:
    """Return features [N, D] and first values [N] of the training rows."""
    features, values = view.data.split("train")
    return features.numpy().astype(float), values[:, 0].numpy().astype(float)


class Fit(Picture):
    """Values and residuals of the training rows against the fitted values."""

    name = "fit"
    description = (
        "each row's value against the fitted one, and its residual below; green is perfect"
    )
    size = (4.6, 5.4)
    panels = (2, 1)

    def draw(self, axes: Any, view: View) -> None:
        """Draw each row and its residual."""
        upper, lower = axes
        fitted, residuals = predicted(view)
        values = fitted + residuals
        margin = 0.08 * float(np.ptp(values)) or 1.0
        ends = values.min() - margin, values.max() + margin
        upper.plot(ends, ends, color=GREEN, linewidth=1.5)
        lower.axhline(0, color=GREEN, linewidth=1.5)
        upper.vlines(fitted, fitted, values, color=VERMILION, linewidth=1.2)
        lower.vlines(fitted, 0, residuals, color=VERMILION, linewidth=1.2)
        upper.plot(fitted, values, "o", color=BLUE, markersize=4.5)
        lower.plot(fitted, residuals, "o", color=BLUE, markersize=4.5)
        largest = nice_limit(float(np.abs(residuals).max()))
        upper.set(xlim=ends, ylim=ends, ylabel="value y")
        lower.set(xlim=ends, ylim=(-largest, largest), xlabel="fitted value (units of y)",
                  ylabel="residual")  # fmt: skip

    def title(self, view: View) -> str:
        """Return the root mean square of the residuals."""
        _, residuals = predicted(view)
        return f"Fit: residuals of {np.sqrt(np.square(residuals).mean()):.3g} (root mean square)"

    def source(self, view: View) -> str:
        """Return the number of rows."""
        return f"{len(training_rows(view)[1]):,} rows of training"


def predicted(view: View) -> tuple[Array, Array]:
    """Return the fitted values and the residuals of the training rows, [N] each."""
    features, values = view.data.split("train")
    fitted = view.ask(features)[:, 0].astype(float)
    return fitted, values[:, 0].numpy() - fitted


class Coefficients(Picture):
    """The path of the first two coefficients over the loss: an overview and a close-up."""

    name = "coefficients"
    description = (
        "the path of two coefficients over contours of equal loss: an overview and a close-up"
    )
    size = (4.6, 7.4)
    panels = (2, 1)

    def __init__(self) -> None:
        self._points: list[Any] = []  # pairs: tensors [2] on the model's device, or lists
        self._every, self._seen = 1, 0

    def record(self, model: Any) -> None:
        """Record the current coefficients."""
        if self._seen % self._every == 0:
            self._points.append(model.coefficients[0, :2].clone())
        self._seen += 1
        if len(self._points) > POINTS:
            self._points, self._every = self._points[::2], 2 * self._every

    def state(self) -> Any:
        """Return the trajectory so far."""
        points = [_pair(point) for point in self._points]
        return {"way": points, "every": self._every, "seen": self._seen}

    def restore(self, state: Any, model: Any) -> None:
        """Continue a trajectory, or start one."""
        if state is None:
            self.record(model)
        else:
            self._points, self._every, self._seen = (state[k] for k in ("way", "every", "seen"))

    def draw(self, axes: Any, view: View) -> None:
        """Draw the contours of the loss, and the path so far."""
        path, (_, best), true = self.path(view), bowl(view), view.model.true_coefficients
        points = np.vstack([path, best[:2]])
        low, high = np.floor(points.min(0) - 0.25), np.ceil(points.max(0) + 0.25)
        apart = float(np.linalg.norm(np.array(true[:2]) - best[:2])) if true else 0.04
        near = nice_limit(1.5 * apart)
        for panel, ends in zip(
            axes, ((low, high), (best[:2] - near, best[:2] + near)), strict=True
        ):
            contours(panel, view, *ends)
            panel.plot(*path.T, ".-", color=BLUE, markersize=5, linewidth=1.2, label="path")
            panel.plot(*path[0], "o", color=BLACK, markersize=6, fillstyle="none")
            panel.plot(*path[-1], "o", color=BLUE, markersize=8)
            panel.plot(*best[:2], "+", color=VERMILION, ms=15, mew=2.5, label="least squares")
            if true:
                panel.plot(*true[:2], "s", color=GREEN, ms=9, mew=2, fillstyle="none",
                           label="made the data")  # fmt: skip
        axes[0].legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False,
                       columnspacing=1, fontsize=9)  # fmt: skip

    def title(self, view: View) -> str:
        """Return the distance to the least-squares solution."""
        _, best = bowl(view)
        left = np.linalg.norm(self.path(view)[-1] - best[:2])
        return f"Coefficients: {left:.2g} from least squares"

    def source(self, view: View) -> str:
        """Return the meaning of the contours."""
        return "contours: equal training loss"

    def path(self, view: View) -> Array:
        """Return the trajectory up to this moment, [points, 2]."""
        return np.array([_pair(p) for p in (*self._points, view.model.coefficients[0, :2])])


def contours(axes: Any, view: View, low: Array, high: Array) -> None:
    """Draw contours of equal loss between two corners."""
    curvature, best = bowl(view)
    (x0, y0), (x1, y1) = low, high
    grid = np.stack(np.meshgrid(np.linspace(x0, x1, 60), np.linspace(y0, y1, 60)), axis=-1)
    away = grid - best[:2]
    loss = np.sqrt(np.einsum("...i,ij,...j", away, curvature, away))
    axes.contour(grid[..., 0], grid[..., 1], loss, 9, colors=SKY, linewidths=0.8, alpha=0.8)
    axes.set(xlim=(x0, x1), ylim=(y0, y1), xlabel="coefficient 1", ylabel="coefficient 2")


def _pair(point: Any) -> list[float]:
    pair: list[float] = point.tolist() if hasattr(point, "tolist") else point
    return pair


def bowl(view: View) -> tuple[Array, Array]:
    """Return the curvature of the loss in the first two coefficients [2, 2], and its minimum [D].

    The other coefficients and the intercept are optimized for each value of these two.
    """
    features, values = training_rows(view)
    if view.model.net.bias is not None:
        features, values = features - features.mean(axis=0), values - values.mean()
    best = np.linalg.lstsq(features, values)[0]
    first, others = features[:, :2], features[:, 2:]
    if others.shape[1]:
        first = first - others @ np.linalg.lstsq(others, first)[0]
    return first.T @ first / len(values), best
