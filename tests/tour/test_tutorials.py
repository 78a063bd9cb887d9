"""The experiments against the tutorials' own loops: the same losses and the same weights."""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from src.kindling.build import Experiment
from src.tour import fizzbuzz, linear_regression, two_layer_net, two_layer_net_by_hand
from src.tour.two_layer_net_by_nn import fit, sequential

Build = Callable[..., Experiment]
STEPS = 200  # as many losses are compared


class Recorded(Callback):
    """Keep the loss of each step, as a plain loop would print it."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.losses += outputs.get("losses", outputs["loss"].reshape(1)).tolist()


def trained(experiment: Experiment) -> list[float]:
    recorded = Recorded()
    experiment.trainer.callbacks.insert(0, recorded)
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    return recorded.losses


def copied(net: nn.Module, target: nn.Module) -> Any:
    """Start one network with the weights of another that has them in the same order."""
    with torch.no_grad():
        for mine, theirs in zip(target.parameters(), net.parameters(), strict=True):
            mine.copy_(theirs)
    return target


def assert_same_weights(net: nn.Module, other: nn.Module) -> None:
    for mine, theirs in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_fizzbuzz_is_the_tutorials_loop(build: Build) -> None:
    experiment = build(
        "experiment=tutorial_fizzbuzz", "trainer.max_epochs=40", "steps_per_execution=1"
    )
    start = copied(experiment.model.net, fizzbuzz.make_model())
    X, Y = fizzbuzz.make_data(range(101, 1024))
    expected = fizzbuzz.train(start, X, Y, epochs=40)
    losses = trained(experiment)
    assert len(losses) == len(expected.batch_losses) == 320
    assert losses[:STEPS] == pytest.approx(expected.batch_losses[:STEPS], rel=1e-5)
    assert_same_weights(experiment.model.net, expected.model)


@pytest.mark.parametrize("name", ["sgd", "adam"])
@pytest.mark.parametrize(("precision", "rel"), [("32-true", 1e-5), ("64-true", 1e-12)])
def test_the_two_layer_net_is_the_tutorials_loop(
    name: str, precision: str, rel: float, build: Build
) -> None:
    experiment = build(
        f"experiment=tutorial_two_layer_{name}",
        f"trainer.max_epochs={STEPS}",
        f"trainer.precision={precision}",
    )
    x, y = experiment.data.split("train")
    start = copied(experiment.model.net, sequential(1000, 100, 10))
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[name]
    # The fused kernel rounds otherwise, which 200 steps in float32 grow to 1.6e-5; in float64 it
    # is held against the plain one.
    fused = precision == "32-true"
    if not fused:
        x, y, start = x.double(), y.double(), start.double()
    expected = fit(start, kind(start.parameters(), lr=1e-4, fused=fused), x, y, STEPS)
    assert trained(experiment) == pytest.approx(expected, rel=rel)
    assert_same_weights(experiment.model.net, start)


@pytest.mark.parametrize(("name", "reached"), [("sgd", 1.5e-5), ("adam", 1e-6)])
def test_the_two_layer_net_ends_where_the_raw_loop_ends(
    name: str, reached: float, build: Build
) -> None:
    experiment = build(f"experiment=tutorial_two_layer_{name}")
    start = copied(experiment.model.net, sequential(1000, 100, 10))
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[name]
    x, y = experiment.data.split("train")
    expected = fit(start, kind(start.parameters(), lr=1e-4), x, y, 500)
    losses = trained(experiment)
    # Late losses are a difference of nearly equal numbers, squared: rounding is what is left.
    assert losses[-1] == pytest.approx(expected[-1], rel=0.05)
    assert losses[-1] < reached


def test_linear_regression_is_the_tutorials_descent(build: Build) -> None:
    experiment = build("experiment=tutorial_linear_regression")
    beta = torch.tensor([[1.0], [0.0]])  # the tutorial's start
    with torch.no_grad():
        experiment.model.net.weight.copy_(beta.T)
    X, y = experiment.data.split("train")
    expected = linear_regression.gradient_descent(X, y, beta, lr=0.1, steps=20)
    assert trained(experiment) == pytest.approx([step.loss for step in expected], rel=1e-5)
    torch.testing.assert_close(experiment.model.coefficients.T, expected[-1].beta)


def test_the_lightning_module_is_the_seventh_way_of_the_two_layer_net(build: Build) -> None:
    sizes = (64, 1000, 100, 10)
    x, y, w1, w2 = two_layer_net_by_hand.make_data(sizes, seed=0)
    experiment = build(
        "experiment=tutorial_two_layer_sgd",
        "model.bias=false",
        "trainer.precision=64-true",
        "optimizer.lr=1e-6",
        f"trainer.max_epochs={STEPS}",
    )
    experiment.model.double()
    with torch.no_grad():
        experiment.model.net.hidden.weight.copy_(w1.T)
        experiment.model.net.output.weight.copy_(w2.T)
    experiment.data._splits = {"train": (x, y)}
    losses = trained(experiment)
    for name, way in two_layer_net.WAYS.items():
        assert losses == pytest.approx(way(x, y, w1, w2, 1e-6, STEPS).losses, rel=1e-9), name


def test_the_closed_form_of_the_tour_is_that_of_numpy() -> None:
    X, y = linear_regression.make_data(dtype=torch.float64)
    found = linear_regression.closed_form(X, y).numpy()
    np.testing.assert_allclose(found, np.linalg.lstsq(X.numpy(), y.numpy(), rcond=None)[0])
