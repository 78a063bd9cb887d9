"""Linear regression over many seeds: each ends at least squares, which errs as theory says."""

from collections.abc import Callable

import numpy as np
import pytest

from src.data.linear_regression import LinearRegressionData
from src.experiment import Experiment
from tests.models.test_linear_regression import least_squares, relative_distance

Build = Callable[..., Experiment]


def test_a_hundred_seeds_end_within_a_millionth_of_least_squares(build: Build) -> None:
    distances = []
    for seed in range(100):
        experiment = build(
            "model=linear_regression", f"seed={seed}", "logger=none", "callbacks=none",
            "trainer.limit_val_batches=0",
        )  # fmt: skip
        experiment.trainer.fit(experiment.model, datamodule=experiment.data)
        solution = least_squares(*experiment.data.split("train"))
        distances.append(relative_distance(experiment.model.net.weight, solution))
    assert max(distances) < 1e-6


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
