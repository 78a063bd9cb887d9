"""Linear regression over many seeds: each ends at least squares, which errs as theory says."""

from collections.abc import Callable

import numpy as np
import pytest

from src.data.linear_regression import LinearRegressionData
from src.kindling.build import Experiment
from tests.conftest import compose
from tests.models.test_linear_regression import least_squares, relative_distance

Build = Callable[..., Experiment]


def trained(build: Build, seed: int) -> Experiment:
    quick = ("logger=none", "callbacks=none", "trainer.limit_val_batches=0")
    experiment = build("model=linear_regression", f"seed={seed}", *quick)
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    return experiment


def test_eight_seeds_end_within_a_millionth_of_least_squares(build: Build) -> None:
    for seed in range(8):  # tests/soak takes a hundred
        experiment = trained(build, seed)
        solution = least_squares(*experiment.data.split("train"))
        assert relative_distance(experiment.model.net.weight, solution) < 1e-6


def test_descent_brings_every_start_that_near_for_a_hundred_seeds() -> None:
    """A step of gradient descent multiplies the distance from least squares by I - 2 lr X'X / N.

    So the recipe's steps shrink it by that matrix's power, whatever the start. Its length is at
    most 1: `nn.Linear` draws D = 2 weights from +-1 / sqrt(D).
    """
    settings = compose("model=linear_regression")
    lr, steps = settings["optimizer"]["lr"], settings["trainer"]["max_epochs"]
    for seed in range(100):
        x, y = LinearRegressionData(seed=seed).split("train")
        X, solution = x.double().numpy(), np.linalg.norm(least_squares(x, y))
        shrunk = np.linalg.matrix_power(np.eye(2) - 2 * lr * X.T @ X / len(X), steps)
        assert np.linalg.norm(shrunk, 2) * (1 + solution) / solution < 1e-6


def test_the_error_of_least_squares_is_that_of_theory() -> None:
    """Its mean square is sigma^2 trace((X'X)^-1), the textbook's variance of the estimator.

    One draw's squared error is far from it: over a hundred seeds the ratio still has a standard
    error of 9%. So it takes 4,000 seeds, for 1.6%, to hold it within 5%.
    """
    found, theory = [], []
    for seed in range(4000):
        data = LinearRegressionData(seed=seed)
        x, y = data.split("train")
        error = least_squares(x, y) - data.beta.numpy()
        found.append(float((error**2).sum()))
        X = x.double().numpy()
        theory.append(data.noise**2 * np.trace(np.linalg.inv(X.T @ X)))
    assert np.mean(found) == pytest.approx(np.mean(theory), rel=0.05)
