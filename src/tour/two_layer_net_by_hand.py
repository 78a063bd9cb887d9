"""The two-layer net with no layer from the library: NumPy, tensors, autograd.

The ways follow "Learning PyTorch with Examples" (Justin Johnson, in the PyTorch tutorials).
Letters: B examples (batch), D features, H hidden, C outputs; x [B, D], y [B, C], w1 [D, H],
w2 [H, C]. Each way leaves its arguments as they were.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Training(NamedTuple):
    """What each way returns: the summed squared error before each step, and the last weights."""

    losses: list[float]
    w1: Tensor  # [D, H]
    w2: Tensor  # [H, C]


def make_data(
    sizes: tuple[int, int, int, int] = (64, 1000, 100, 10), seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw x, y, w1, w2 from N(0, 1) in float64, for sizes (B, D, H, C)."""
    B, D, H, C = sizes
    generator = torch.Generator().manual_seed(seed)
    shapes = (B, D), (B, C), (D, H), (H, C)
    x, y, w1, w2 = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    return x, y, w1, w2


def numpy_way(x: Tensor, y: Tensor, w1: Tensor, w2: Tensor, lr: float, steps: int) -> Training:
    """NumPy alone: forward and backward passes by hand."""
    X, Y, W1, W2 = x.numpy(), y.numpy(), w1.numpy(), w2.numpy()
    losses = []
    for _ in range(steps):
        h = X @ W1  # [B, H]
        a = np.maximum(h, 0)  # [B, H]
        error = a @ W2 - Y  # [B, C]
        losses.append(float(np.square(error).sum()))
        grad_h = 2 * error @ W2.T * (h > 0)  # [B, H]
        W1, W2 = W1 - lr * X.T @ grad_h, W2 - lr * a.T @ (2 * error)
    return Training(losses, torch.from_numpy(W1.copy()), torch.from_numpy(W2.copy()))


def gradients(x: Tensor, y: Tensor, w1: Tensor, w2: Tensor) -> tuple[float, Tensor, Tensor]:
    """The loss and its gradients [D, H] and [H, C], by the chain rule written out."""
    h = x.mm(w1)  # [B, H]
    a = h.clamp(min=0)  # [B, H]
    error = a.mm(w2) - y  # [B, C]
    grad_h = (2 * error).mm(w2.t()) * (h > 0)  # [B, H]
    return error.square().sum().item(), x.t().mm(grad_h), a.t().mm(2 * error)


def tensors_way(x: Tensor, y: Tensor, w1: Tensor, w2: Tensor, lr: float, steps: int) -> Training:
    """Tensors: the same arithmetic, on whatever device they live."""
    losses = []
    for _ in range(steps):
        loss, grad_w1, grad_w2 = gradients(x, y, w1, w2)
        losses.append(loss)
        w1, w2 = w1 - lr * grad_w1, w2 - lr * grad_w2
    return Training(losses, w1, w2)


def autograd_way(x: Tensor, y: Tensor, w1: Tensor, w2: Tensor, lr: float, steps: int) -> Training:
    """Autograd: the backward pass is one call; zeroing and updating stay by hand."""
    w1, w2 = w1.clone().requires_grad_(), w2.clone().requires_grad_()
    losses = []
    for _ in range(steps):
        loss = (x.mm(w1).clamp(min=0).mm(w2) - y).pow(2).sum()
        losses.append(loss.item())
        w1.grad = w2.grad = None
        loss.backward()
        update((w1, w2), lr)
    return Training(losses, w1.detach(), w2.detach())


@torch.no_grad()
def update(parameters: Iterable[Tensor], lr: float) -> None:
    """Move each parameter against its gradient, in place and out of autograd's sight."""
    for parameter in parameters:
        assert parameter.grad is not None
        parameter -= lr * parameter.grad
