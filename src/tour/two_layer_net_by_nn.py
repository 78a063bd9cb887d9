"""The two-layer net with layers, losses and optimizers from torch.nn and torch.optim.

Letters: B examples (batch), D features, H hidden, C outputs; x [B, D], y [B, C], w1 [D, H],
w2 [H, C]. Each way leaves its arguments as they were.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from src.tour.two_layer_net_by_hand import Training, update


def start_from(model: nn.Module, w1: Tensor, w2: Tensor) -> nn.Module:
    """Put the weights into a model without biases, transposed as nn.Linear keeps them."""
    model = model.to(w1)  # same dtype, same device
    with torch.no_grad():
        for parameter, weight in zip(model.parameters(), (w1, w2), strict=True):
            parameter.copy_(weight.t())
    return model


def weights(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Give w1 [D, H] and w2 [H, C] back out of a model without biases."""
    w1, w2 = (parameter.detach().t() for parameter in model.parameters())
    return w1, w2


def sequential(D: int, H: int, C: int, bias: bool = True) -> nn.Sequential:
    """Chain ready-made layers into the network; its input is [B, D], its output [B, C]."""
    return nn.Sequential(nn.Linear(D, H, bias=bias), nn.ReLU(), nn.Linear(H, C, bias=bias))


class TwoLayerNet(nn.Module):
    """The network as a class of its own, for a forward pass that no chain can express."""

    def __init__(self, D: int, H: int, C: int, bias: bool = True) -> None:
        super().__init__()
        self.linear1 = nn.Linear(D, H, bias=bias)
        self.linear2 = nn.Linear(H, C, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [B, D] to predictions [B, C]."""
        hidden = self.linear1(x).clamp(min=0)  # [B, D] -> [B, H]
        prediction: Tensor = self.linear2(hidden)  # [B, H] -> [B, C]
        return prediction


def fit(
    model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, steps: int
) -> list[float]:
    """Train in place on the summed squared error; give the loss before each step."""
    criterion = nn.MSELoss(reduction="sum")
    losses = []
    for _ in range(steps):
        loss = criterion(model(x), y)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


def nn_way(x: Tensor, y: Tensor, w1: Tensor, w2: Tensor, lr: float, steps: int) -> Training:
    """nn: ready-made layers and loss hold the weights; the update is a loop over them."""
    model = start_from(sequential(len(w1), len(w2), w2.shape[1], bias=False), w1, w2)
    criterion = nn.MSELoss(reduction="sum")
    losses = []
    for _ in range(steps):
        loss = criterion(model(x), y)
        losses.append(loss.item())
        model.zero_grad()
        loss.backward()
        update(model.parameters(), lr)
    return Training(losses, *weights(model))


def optim_way(
    x: Tensor, y: Tensor, w1: Tensor, w2: Tensor, lr: float, steps: int,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
) -> Training:  # fmt: skip
    """optim: an optimizer zeroes and updates; `optimizer` may be torch.optim.Adam."""
    model = start_from(sequential(len(w1), len(w2), w2.shape[1], bias=False), w1, w2)
    losses = fit(model, optimizer(model.parameters(), lr=lr), x, y, steps)
    return Training(losses, *weights(model))


def module_way(x: Tensor, y: Tensor, w1: Tensor, w2: Tensor, lr: float, steps: int) -> Training:
    """Module: a class of one's own, trained by SGD."""
    model = start_from(TwoLayerNet(len(w1), len(w2), w2.shape[1], bias=False), w1, w2)
    losses = fit(model, torch.optim.SGD(model.parameters(), lr=lr), x, y, steps)
    return Training(losses, *weights(model))
