"""Least squares, where calculus, autograd and linear algebra must agree on one answer.

The exercise is from the University of Washington's CSE446, section 9, autumn 2019.
Letters: B examples (batch), D features; X [B, D], y [B, 1], beta [D, 1].
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from src.kindling.colors import SERIES
from src.tour.page import blank_figure, save, show

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRUE_BETA = ((-1.0,), (2.0,))  # [D, 1]
START_BETA = ((1.0,), (0.0,))  # [D, 1]


class Step(NamedTuple):
    """One step of the descent: loss and gradient before the update, beta after it."""

    loss: float
    gradient: Tensor  # [D, 1]
    beta: Tensor  # [D, 1]


def make_data(
    examples: int = 50, noise: float = 0.1, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Draw X [B, 2] from N(0, 1) and y = X (-1, 2)' + N(0, noise^2) [B, 1]."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(examples, 2, generator=generator, dtype=dtype)
    error = noise * torch.randn(examples, 1, generator=generator, dtype=dtype)
    return X, X @ torch.tensor(TRUE_BETA, dtype=dtype) + error


def mean_squared_error(X: Tensor, y: Tensor, beta: Tensor) -> Tensor:
    """Mean over the B examples of (y - X beta)^2, a scalar; the tutorial calls it `rss`."""
    return (y - X @ beta).square().mean()


def analytic_gradient(X: Tensor, y: Tensor, beta: Tensor) -> Tensor:
    """Gradient [D, 1] of the mean squared error, by calculus: -2/B X' (y - X beta)."""
    return -2 / len(X) * X.T @ (y - X @ beta)


def autograd_gradient(X: Tensor, y: Tensor, beta: Tensor) -> Tensor:
    """Gradient [D, 1] of the mean squared error, by torch.autograd."""
    beta = beta.detach().clone().requires_grad_()
    return torch.autograd.grad(mean_squared_error(X, y, beta), beta)[0]


def gradient_descent(X: Tensor, y: Tensor, beta: Tensor, lr: float, steps: int) -> list[Step]:
    """Take `steps` full-batch steps from beta [D, 1], which is left as it was."""
    history = []
    for _ in range(steps):
        loss = mean_squared_error(X, y, beta).item()
        gradient = autograd_gradient(X, y, beta)
        beta = beta - lr * gradient
        history.append(Step(loss, gradient, beta))
    return history


def closed_form(X: Tensor, y: Tensor) -> Tensor:
    """The minimum itself [D, 1], by least squares: what descent would reach in the end."""
    solution: Tensor = torch.linalg.lstsq(X, y).solution
    return solution


def predicted_beta(X: Tensor, y: Tensor, beta: Tensor, lr: float, steps: int) -> Tensor:
    """Where `steps` steps lead, without taking them: beta* + (I - lr H)^steps (beta - beta*).

    H = 2/B X'X is the Hessian, so each of its eigenvectors shrinks by 1 - lr * eigenvalue per step.
    """
    best = closed_form(X, y)
    eigenvalues, Q = torch.linalg.eigh(2 / len(X) * X.T @ X)  # [D], [D, D]
    shrink = (1 - lr * eigenvalues) ** steps  # [D]
    away: Tensor = Q @ (shrink[:, None] * (Q.T @ (beta - best)))  # [D, 1]
    return best + away


def row(beta: Tensor) -> str:
    """A column [2, 1] as text of fixed width."""
    return "[" + " ".join(f"{value:9.6f}" for value in beta.flatten().tolist()) + "]"


def draw_fit(axis: Axes, y: Tensor, predicted: Tensor) -> None:
    """Draw prediction against target, [B, 1] each: the closer to the line, the better."""
    axis.axline((0, 0), slope=1, color="black", linewidth=1, label="prediction = target")
    axis.scatter(y.numpy(), predicted.numpy(), color=SERIES[0], s=18, label=f"{len(y)} examples")
    axis.set(title="The fit after 20 steps", xlabel="target y", ylabel="prediction X beta")
    axis.legend()


def draw_path(axis: Axes, X: Tensor, y: Tensor, betas: Tensor) -> None:
    """Draw betas [steps + 1, D, 1] on the contours of the loss."""
    ranges = torch.linspace(-2, 1.5, 80), torch.linspace(-0.5, 2.75, 80)
    grid = torch.stack(torch.meshgrid(*ranges, indexing="xy"))  # [D, 80, 80]
    loss = (y - X @ grid.flatten(1)).square().mean(0).view(80, 80)
    lines = axis.contour(*grid.numpy(), loss.numpy(), levels=[0.1, 0.5, 1, 2, 4], colors="0.5")
    axis.clabel(lines, fontsize=8)
    axis.plot(*betas.flatten(1).T.numpy(), "o-", color=SERIES[1], markersize=4, label="descent")
    axis.plot(-1, 2, "*", color="black", markersize=11, label="true beta (-1, 2)")
    axis.set(title="The descent on the loss's contours", xlabel="beta[0]", ylabel="beta[1]")
    axis.legend(loc="lower left")


def draw(X: Tensor, y: Tensor, history: list[Step], output: Path) -> None:
    """Draw the fit and the path to it."""
    figure, (fit, path) = blank_figure(panels=2)
    draw_fit(fit, y, X @ history[-1].beta)
    draw_path(path, X, y, torch.stack([torch.tensor(START_BETA), *(step.beta for step in history)]))
    save(figure, output / "linear_regression.png")


def main(output: Path | None = None) -> None:
    """Print the chapter; with `output`, also write its plots there."""
    X, y = make_data()
    beta = torch.tensor(START_BETA)
    show("50 examples of 2 features, y = X beta + noise:", X.shape, y.shape, beta.shape)
    show("First gradient, by autograd:", autograd_gradient(X, y, beta).view(2).numpy())
    analytic = analytic_gradient(X, y, beta).view(2).numpy()
    show("First gradient, by calculus, -2/n X'(y - X beta):", analytic)
    history = gradient_descent(X, y, beta, lr=0.1, steps=20)
    print("A row is a step: loss and gradient where it starts, beta where it ends.")
    print("iter  loss      gradient              beta")
    for i, (loss, gradient, end) in enumerate(history):
        print(f"{i:4}  {loss:.6f}  {row(gradient)}  {row(end)}")
    show("Least squares solves it in one go; the steps are on their way.", row(closed_form(X, y)))
    predicted = predicted_beta(X, y, beta, lr=0.1, steps=20)
    show("The Hessian's eigenvalues foretell the last row's beta.", row(predicted))
    if output:
        draw(X, y, history, output)
