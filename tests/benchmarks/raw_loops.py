"""The loops that one would write by hand in plain torch, and one in JAX.

Each maker returns a function that takes a given number of steps; making it is not timed.
Letters: N rows, B batch.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR

from src.tour import fizzbuzz
from src.tour.two_layer_net_by_nn import TwoLayerNet, fit, sequential

Loop = Callable[[int], object]
NUMBERS = range(101, 2**fizzbuzz.NUM_DIGITS)
BATCH = 128
STEPS = -(-len(NUMBERS) // BATCH)  # per epoch
LR = 0.05


def tutorial_fizzbuzz(device: str = "cpu") -> Loop:
    """The tutorial's loop exactly, without its print: it reads the loss of all numbers each epoch.

    `tour/fizzbuzz.py` differs: for its tests it also reads the loss of each step.
    """
    X, Y = (part.to(device) for part in fizzbuzz.make_data(NUMBERS))
    model, loss_fn = fizzbuzz.make_model().to(device), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)

    def run(steps: int) -> None:
        for _ in range(steps // STEPS):
            for start in range(0, len(X), BATCH):
                x, y = X[start : start + BATCH], Y[start : start + BATCH]
                loss = loss_fn(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            loss_fn(model(X), Y).item()

    return run


def steps_alone(X: Tensor, Y: Tensor, batch: int) -> Loop:
    """The tutorial's steps on digits X [N, D] and classes Y [N], without reading any loss."""
    model, loss = fizzbuzz.make_model(X.shape[1]), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    batches = list(zip(X.split(batch), Y.split(batch), strict=True))

    def run(steps: int) -> None:
        for _ in range(steps // len(batches)):
            for x, y in batches:
                optimizer.zero_grad()
                loss(model(x), y).backward()
                optimizer.step()

    return run


def recipe(settings: dict[str, Any], rows: int) -> Loop:
    """AdamW and one cycle with the settings of a run, in a new order of the rows each epoch.

    As a careful author would write it: the digits are signed once, no loss is read, and nothing is
    validated.
    """
    X, Y = (part[:rows] for part in fizzbuzz.make_data(NUMBERS))
    X = X * 2 - 1
    options, cycle, batch = (
        settings["optimizer"],
        settings["scheduler"],
        settings["data"]["batch_size"],
    )
    width, smoothing = settings["model"]["hidden_features"], settings["model"]["label_smoothing"]
    model = fizzbuzz.make_model(X.shape[1], width)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        **{name: options[name] for name in ("lr", "betas", "weight_decay", "fused")},
    )
    schedule = OneCycleLR(
        optimizer,
        options["lr"],
        total_steps=10**9,
        cycle_momentum=False,
        **{name: cycle[name] for name in ("pct_start", "div_factor", "final_div_factor")},
    )

    def run(steps: int) -> None:
        for _ in range(steps // -(-len(X) // batch)):
            order = torch.randperm(len(X))
            for x, y in zip(X[order].split(batch), Y[order].split(batch), strict=True):
                loss = F.cross_entropy(model(x), y, label_smoothing=smoothing)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()

    return run


def two_layer_net(optimizer: str) -> Loop:
    """The tutorial's loops on 64 rows of noise: SGD with a module, Adam with nn.Sequential."""
    x, y = torch.randn(64, 1000), torch.randn(64, 10)
    model = TwoLayerNet(1000, 100, 10) if optimizer == "SGD" else sequential(1000, 100, 10)
    made = getattr(torch.optim, optimizer)(model.parameters(), lr=1e-4)
    return lambda steps: fit(model, made, x, y, steps)


def bare_lightning() -> Loop:
    """The tutorial's FizzBuzz in a bare Trainer, its setup included."""
    from tests.benchmarks.bare_lightning import BareFizzBuzz, fit

    module = BareFizzBuzz()
    return lambda steps: fit(module, steps // STEPS)


def jax_scan() -> Loop:
    """The tutorial's FizzBuzz in JAX, a scan over all epochs."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    X, Y = (jnp.asarray(part.numpy()) for part in fizzbuzz.make_data(NUMBERS))
    batches = [(X[i : i + BATCH], Y[i : i + BATCH]) for i in range(0, len(X), BATCH)]
    start = [jnp.asarray(p.detach().numpy()) for p in fizzbuzz.make_model().parameters()]

    def loss(parameters: Any, x: Any, y: Any) -> Any:
        w1, b1, w2, b2 = parameters
        logits = jax.nn.relu(x @ w1.T + b1) @ w2.T + b2
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1).mean()

    def epoch(parameters: Any, _: Any) -> Any:
        for x, y in batches:
            value, gradients = jax.value_and_grad(loss)(parameters, x, y)
            parameters = [p - LR * g for p, g in zip(parameters, gradients, strict=True)]
        return parameters, value

    @jax.jit
    def epochs(parameters: Any, numbers: Any) -> Any:
        return lax.scan(epoch, parameters, numbers)

    return lambda steps: jax.block_until_ready(epochs(start, jnp.arange(steps // STEPS)))
