"""Layers are matrix products with a name: the same weights give the same output either way.

Letters: B examples (batch), D features, H hidden, C outputs.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.kindling.colors import SERIES
from src.tour.page import blank_figure, save, show

SIZES = (10, 20, 20, 4)  # D, H, H, C


def draw_weights(sizes: tuple[int, ...] = SIZES, seed: int = 1) -> list[Tensor]:
    """Draw each layer's weight [in, out] from U(0, 1)."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(shape, generator=generator) for shape in pairwise(sizes)]


def linear_algebra(x: Tensor, weights: list[Tensor]) -> Tensor:
    """Multiply x [..., D] by one weight after the other; the result is [..., C]."""
    for weight in weights:
        x = torch.matmul(x, weight)
    return x


class Net(nn.Module):
    """The tutorial's network: three linear layers with biases, and nothing between them."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(10, 20)
        self.fc2 = nn.Linear(20, 20)
        self.output = nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [B, 10] to outputs [B, 4]."""
        x = self.fc1(x)  # [..., 10] -> [..., 20]
        x = self.fc2(x)
        outputs: Tensor = self.output(x)  # [..., 20] -> [..., 4]
        return outputs


@torch.no_grad()
def net_with(weights: list[Tensor]) -> Net:
    """A Net that holds these weights [in, out], transposed as nn.Linear does, and no bias."""
    net = Net()
    for layer, weight in zip((net.fc1, net.fc2, net.output), weights, strict=True):
        layer.weight.copy_(weight.T)
        layer.bias.zero_()
    return net


def activations(x: Tensor) -> dict[str, Tensor]:
    """ReLU, Tanh and Sigmoid of each element of x, which must hold floating-point numbers."""
    return {type(layer).__name__: layer(x) for layer in (nn.ReLU(), nn.Tanh(), nn.Sigmoid())}


def draw(output: Path) -> None:
    """Draw the three activations between -4 and 4."""
    figure, (axis,) = blank_figure()
    x = torch.linspace(-4, 4, 200)
    styles = zip(activations(x).items(), SERIES, ("-", "--", "-."), strict=False)
    for (name, value), color, style in styles:
        axis.plot(x.numpy(), value.numpy(), style, color=color, linewidth=2, label=name)
    axis.set(title="Activations", xlabel="input x", ylabel="output", ylim=(-1.2, 2.2))
    axis.legend()
    save(figure, output / "layers.png")


def show_linear() -> None:
    """Print the shapes that nn.Linear takes and gives, and what it computes."""
    layer = nn.Linear(2, 3)
    shapes = tuple(layer.weight.shape), tuple(layer.bias.shape)
    show("nn.Linear(2, 3) draws a weight A, kept as (out, in), and a bias b:", *shapes)
    x = torch.randn(9, 2)
    transformed = layer(x)
    show("It takes (9, 2) to (9, 3). In:", x)
    show("Out, with the step by which autograd will come back:", transformed)
    show("It computes x A' + b:", torch.allclose(transformed, x @ layer.weight.T + layer.bias))
    functional = F.linear(x, layer.weight, layer.bias)
    show("F.linear is the same for weights kept elsewhere:", torch.equal(transformed, functional))


def main(output: Path | None = None) -> None:
    """Print the chapter; with `output`, also write its plots there."""
    torch.manual_seed(0)
    x, weights = torch.rand(10), draw_weights()
    by_hand = linear_algebra(x, weights)
    show("10 inputs, 20 and 20 hidden, 4 outputs, by three matrix products:", by_hand)
    show("The same weights in a module, the same but for rounding:", net_with(weights)(x).detach())
    show("A module draws its own start, small and centered on zero:", Net()(x))
    product = torch.linalg.multi_dot(weights)
    collapsed = torch.allclose(x @ product, by_hand)
    show("Linear layers alone collapse into one matrix; does it give the same?", collapsed)
    points = torch.tensor([-1.0, 1.0, 0.0])
    show(
        "Activations in between prevent that. They are modules: made first, then called on", points
    )
    for name, value in activations(points).items():
        print(f"    {name:7} {value}")
    show_linear()
    if output:
        draw(output)
