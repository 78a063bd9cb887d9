"""Autograd differentiates what a program computes; calculus by hand must give the same.

The functions are those of the four tutorials: the University of Washington's CSE446 section 9,
the PyTorch tutorials and a computational graph in the manner of Stanford's CS231n.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from src.tour.gradient_descent import parabola
from src.tour.page import show


def gradients(function: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    """Autograd's gradient of a scalar function at each input, in that input's shape.

    Raises RuntimeError where the function does not depend on one of them.
    """
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    return torch.autograd.grad(function(*leaves), leaves)


def product_of_sum(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """f = (x + y) z."""
    return (x + y) * z


def line(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """y = w x + b."""
    return w * x + b


def mean_of_product(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """The mean of z * (x y): x [n, k], y [k, m], z [n, m]; * element by element."""
    return (z * (x @ y)).mean()


def mean_of_product_gradients(x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Its gradients by calculus: (z y', x' z, x y) over the number of elements of z."""
    return z @ y.T / z.numel(), x.T @ z / z.numel(), x @ y / z.numel()


def wave(w: Tensor) -> Tensor:
    """g(w) = 2 w1 w2 + w2 cos w1, for w of shape [2]."""
    return 2 * w[0] * w[1] + w[1] * torch.cos(w[0])


def wave_gradient(w1: float, w2: float) -> tuple[float, float]:
    """The gradient of g by calculus: (2 w2 - w2 sin w1, 2 w1 + cos w1)."""
    return 2 * w2 - w2 * math.sin(w1), 2 * w1 + math.cos(w1)


def show_graph() -> None:
    """Print the gradients of f = q z, q = x + y, at every node of its graph."""
    x, y, z = (torch.tensor(value, requires_grad=True) for value in (-3.0, 5.0, -2.0))
    q = x + y
    f = q * z
    for node in (q, f):
        node.retain_grad()  # kept only for leaves otherwise
    f.backward()
    print("f = q z with q = x + y at x = -3, y = 5, z = -2: backward() fills each grad.")
    for name, node, rule in zip("xyzqf", (x, y, z, q, f), ("z", "z", "q", "z", "1"), strict=True):
        print(f"    df/d{name} = {rule} = {node.grad}")


def show_accumulation() -> None:
    """Print that a second backward pass adds its gradient to the first one's."""
    x = torch.tensor([1.0], requires_grad=True)
    parabola(x).backward()
    show("f = (x - 2)^2 at 1 has the slope 2 (x - 2).", x.grad)
    parabola(x).backward()
    show("A second backward() adds to it, so it must be cleared between steps.", x.grad)
    with torch.no_grad():
        show("Under no_grad nothing is recorded: requires_grad is", parabola(x).requires_grad)


def main(output: Path | None = None) -> None:
    """Print the chapter; with `output`, also write its plots there."""
    show_graph()
    found = gradients(line, torch.tensor(1.0), torch.tensor(2.0), torch.tensor(3.0))
    show("y = w x + b at x = 1, w = 2, b = 3: the gradients are w, x and 1.", *found)
    torch.manual_seed(0)
    matrices = torch.rand(3, 2, 2).unbind()
    found = gradients(mean_of_product, *matrices)
    show("The mean of z * (x y), for three random 2 x 2 matrices: gradients at x, y, z.", *found)
    expected = mean_of_product_gradients(*matrices)
    same = all(torch.allclose(a, b) for a, b in zip(found, expected, strict=True))
    show("They are z y' / 4, x' z / 4 and x y / 4, as calculus has it:", same)
    show_accumulation()
    (found_g,) = gradients(wave, torch.tensor([math.pi, 1.0]))
    show("g = 2 w1 w2 + w2 cos w1 at (pi, 1):", found_g)
    first, second = wave_gradient(math.pi, 1)
    show("By calculus, (2 w2 - w2 sin w1, 2 w1 + cos w1):", f"({first:.4f}, {second:.4f})")
    print("The second is 2 pi - 1: the tutorial's text says pi - 1, a slip; its output is right.")
