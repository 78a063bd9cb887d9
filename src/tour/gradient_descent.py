"""Gradient descent walks down (x - 2)^2 to its minimum, and the walk is known in advance.

The exercise is from the University of Washington's CSE446, section 9, autumn 2019.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from src.kindling.colors import SERIES
from src.tour.page import blank_figure, save, show


class Point(NamedTuple):
    """Where one step starts: the position, the function's value and its slope there."""

    x: float
    value: float
    slope: float


def parabola(x: Tensor) -> Tensor:
    """(x - 2)^2, element by element."""
    return (x - 2) ** 2


def descend(
    function: Callable[[Tensor], Tensor], start: float, lr: float, steps: int
) -> list[Point]:
    """Take `steps` steps against autograd's slope: steps + 1 points, the last one the arrival.

    The slope must be cleared before each backward pass, which would add to the last one's.
    """
    x = torch.tensor([start], requires_grad=True)
    points: list[Point] = []
    for _ in range(steps + 1):
        value = function(x)
        value.backward()
        assert x.grad is not None
        points.append(Point(x.item(), value.item(), x.grad.item()))
        with torch.no_grad():
            x -= lr * x.grad
        x.grad = None
    return points


def closed_form(start: float, lr: float, step: int) -> float:
    """Where the descent on (x - 2)^2 stands after `step` steps: 2 + (start - 2) (1 - 2 lr)^step."""
    return 2 + (start - 2) * (1 - 2 * lr) ** step


def draw(points: list[Point], output: Path) -> None:
    """Draw the steps on the curve, and the distance to the minimum against its closed form."""
    figure, (curve, distance) = blank_figure(panels=2)
    grid = torch.linspace(-1.5, 5.5, 200)
    curve.plot(grid.numpy(), parabola(grid).numpy(), color="black", linewidth=1, label="(x - 2)²")
    xs, values = [point.x for point in points], [point.value for point in points]
    curve.plot(xs, values, "o--", color=SERIES[1], label="steps")
    curve.set(title="Descent from x = 5 (lr 0.25)", xlabel="x", ylabel="f(x)")
    expected = [closed_form(xs[0], 0.25, step) - 2 for step in range(len(points))]
    distance.semilogy(expected, color=SERIES[0], label="closed form 3 · 2⁻ᵗ")
    distance.semilogy([x - 2 for x in xs], "o", color=SERIES[1], label="descent")
    distance.set(title="Each step halves the distance", xlabel="step t", ylabel="x - 2")
    curve.legend()
    distance.legend()
    save(figure, output / "gradient_descent.png")


def main(output: Path | None = None) -> None:
    """Print the chapter; with `output`, also write its plots there."""
    *points, arrival = descend(parabola, start=5.0, lr=0.25, steps=15)
    print("From x = 5, each step moves x by -0.25 f'(x); a row is where a step starts.")
    print("iter  x      f(x)   f'(x)")
    for i, (x, value, slope) in enumerate(points):
        print(f"{i:4}  {x:.3f}  {value:.3f}  {slope:.3f}")
    x, value, slope = arrival
    show("After 15 steps x is nearly 2, where f is least.", f"x {x:.4f}  f(x) {value:.4e}")
    closed = closed_form(5, 0.25, 15)
    show("The closed form 2 + 3 (1 - 2 * 0.25)^15 agrees.", f"x {closed:.4f}")
    last = f"f'(x) {slope:.4e}"
    show("The slope there is small, not zero: the tutorial prints it just after clearing it.", last)
    stale = f"f(x) {points[-1].value:.4e}"
    show("The y that the tutorial prints last is from one step earlier.", stale)
    if output:
        draw([*points, arrival], output)
