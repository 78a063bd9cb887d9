"""A neuron sums its weighted inputs and squashes the sum; neurons stacked make a network.

The exercise is from Udacity's introduction to deep learning with PyTorch.
Letters: D features, H hidden, C outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from src.tour.page import show


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + e^-x), element by element: any number into (0, 1)."""
    return 1 / (1 + torch.exp(-x))


def draw_neuron(seed: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    """Draw features [1, 5], weights [1, 5] and bias [1, 1] from N(0, 1)."""
    generator = torch.Generator().manual_seed(seed)
    features, weights = torch.randn(2, 1, 5, generator=generator)
    return features, weights, torch.randn(1, 1, generator=generator)


def neuron_by_sum(features: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """The output [1, 1] for features and weights [1, D]: multiply, then sum."""
    return sigmoid((features * weights).sum() + bias)


def neuron_by_product(features: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """The same by one matrix product, [1, D] by [D, 1]."""
    return sigmoid(features.mm(weights.view(-1, 1)) + bias)


def draw_network(seed: int = 7) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Draw features [1, 3], W1 [3, 2], W2 [2, 1], B1 [1, 2] and B2 [1, 1] from N(0, 1)."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (1, 3), (3, 2), (2, 1), (1, 2), (1, 1)
    features, W1, W2, B1, B2 = (torch.randn(shape, generator=generator) for shape in shapes)
    return features, W1, W2, B1, B2


def network(features: Tensor, W1: Tensor, W2: Tensor, B1: Tensor, B2: Tensor) -> Tensor:
    """Two layers, one's output the next one's input: [1, D] -> [1, H] -> [1, C]."""
    return sigmoid(sigmoid(features.mm(W1) + B1).mm(W2) + B2)


def refusal(attempt: Callable[[], object]) -> str:
    """What torch says when the attempt meets a wrong shape, on one line; '' if it succeeds."""
    try:
        attempt()
    except RuntimeError as error:
        return "RuntimeError: " + str(error).splitlines()[0]
    return ""


def shares_memory(a: Tensor, b: Tensor) -> bool:
    """Whether the two read the same storage, so that a write to one shows in the other."""
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def show_reshaping() -> None:
    """Print what view, reshape and resize_ share, copy, refuse and hide."""
    row = torch.arange(6.0).view(1, 6)
    turned = row.view(2, 3).t()  # [3, 2], whose rows do not lie side by side in memory
    candidates = {
        "row.view(6, 1)": row.view(6, 1),
        "row.reshape(6, 1)": row.reshape(6, 1),
        "turned.reshape(6, 1)": turned.reshape(6, 1),
        "row.clone()": row.clone(),
    }
    lines = [f"{name:21} {shares_memory(row, other)}" for name, other in candidates.items()]
    show("Do these share the row's memory? reshape does where it can, and copies else.", *lines)
    show(
        "view never copies; where it would have to, it refuses.", refusal(lambda: turned.view(6, 1))
    )
    same = row.resize_(2, 2) is row
    show("resize_ changes the tensor itself; fewer elements hide the rest.", same, row)
    show("Hidden ones come back; more than there were would be uninitialized.", row.resize_(2, 3))


def main(output: Path | None = None) -> None:
    """Print the chapter; with `output`, also write its plots there."""
    features, weights, bias = draw_neuron()
    show("Five features and their weights, drawn with seed 7:", features.shape, weights.shape)
    show("One neuron, by multiplying and summing:", neuron_by_sum(features, weights, bias))
    misfit = refusal(lambda: features.mm(weights))
    show("A matrix product wants the left one's columns to match the right one's rows.", misfit)
    show("With the weights as a column it fits:", neuron_by_product(features, weights, bias))
    show_reshaping()
    features, W1, W2, B1, B2 = draw_network()
    show("A network of 3 inputs, 2 hidden and 1 output:", features.shape, W1.shape, B1.shape)
    show("Its output, layer upon layer:", network(features, W1, W2, B1, B2))
