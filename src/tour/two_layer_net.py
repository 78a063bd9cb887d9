"""One network written six ways, from bare NumPy to a module, has the same loss at every step.

The ways follow "Learning PyTorch with Examples" (Justin Johnson, in the PyTorch tutorials);
three are in two_layer_net_by_hand.py and three in two_layer_net_by_nn.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from src.kindling.colors import SERIES
from src.tour.page import blank_figure, save
from src.tour.two_layer_net_by_hand import autograd_way, make_data, numpy_way, tensors_way
from src.tour.two_layer_net_by_nn import TwoLayerNet, fit, module_way, nn_way, optim_way, sequential

WAYS = {
    "NumPy": numpy_way,
    "tensors": tensors_way,
    "autograd": autograd_way,
    "nn": nn_way,
    "optim": optim_way,
    "module": module_way,
}


def default_start(steps: int) -> dict[str, list[float]]:
    """Losses from nn.Linear's own float32 start, biases included, by Adam and SGD at lr 1e-4."""
    torch.manual_seed(0)
    x, y = torch.randn(64, 1000), torch.randn(64, 10)
    chain, module = sequential(1000, 100, 10), TwoLayerNet(1000, 100, 10)
    nn.utils.vector_to_parameters(
        nn.utils.parameters_to_vector(chain.parameters()), module.parameters()
    )
    adam = torch.optim.Adam(chain.parameters(), lr=1e-4)
    sgd = torch.optim.SGD(module.parameters(), lr=1e-4)
    return {"Adam": fit(chain, adam, x, y, steps), "SGD": fit(module, sgd, x, y, steps)}


def largest_gap(losses: dict[str, list[float]]) -> float:
    """The largest relative difference from the first way's loss, over all ways and steps."""
    table = np.array(list(losses.values()))  # [ways, steps]
    return float((np.abs(table - table[0]) / table[0]).max())


def show_table(losses: dict[str, list[float]], steps: int) -> None:
    """Print every tenth part of the curves, and their last point."""
    print("step" + "".join(f"{name:>13}" for name in losses))
    for step in sorted({*range(0, steps, max(1, steps // 10)), steps - 1}):
        print(f"{step:4}" + "".join(f"{curve[step]:13.5e}" for curve in losses.values()))


def draw(six: dict[str, list[float]], two: dict[str, list[float]], output: Path) -> None:
    """Draw both sets of loss curves, the six ways with marks that take turns on one line."""
    figure, (left, right) = blank_figure(panels=2)
    gap = max(1, len(six["NumPy"]) // 48)  # steps between one way's mark and the next way's
    for i, ((name, losses), color, mark) in enumerate(
        zip(six.items(), SERIES, "osD^vP", strict=False)
    ):
        turns = (i * gap, len(six) * gap)
        left.semilogy(losses, mark + "-", color=color, markevery=turns, linewidth=1, label=name)
    left.set(title="Six ways, one curve (SGD, lr 1e-6, float64)")
    for (name, losses), color, style in zip(two.items(), SERIES[:2], ("-", "--"), strict=True):
        right.semilogy(losses, style, color=color, label=f"{name}, lr 1e-4")
    right.set(title="From nn.Linear's own start (float32)")
    for axis in (left, right):
        axis.set(xlabel="step", ylabel="summed squared error (no unit)")
        axis.legend()
    save(figure, output / "two_layer_net.png")


def main(output: Path | None = None, steps: int = 500) -> None:
    """Print the chapter; with `output`, also write its plots there."""
    print("One batch of 64 examples, 1000 -> 100 -> 10, drawn from N(0, 1); no biases; float64.")
    data = make_data()
    six = {name: way(*data, 1e-6, steps).losses for name, way in WAYS.items()}
    print("Six ways from the same weights, SGD with lr 1e-6: the loss before each step.")
    show_table(six, steps)
    print(f"Largest relative gap from NumPy, at any step: {largest_gap(six):.1e}")
    print("From nn.Linear's own start, with biases: lr 1e-4, by Adam in a chain, SGD in a module.")
    two = default_start(steps)
    show_table(two, steps)
    if output:
        draw(six, two, output)
