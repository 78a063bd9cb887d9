"""Linear regression against ordinary least squares, which is what it must end at."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from src.data.linear_regression import LinearRegressionData
from src.kindling.build import Experiment
from src.models.linear_regression import LinearRegression
from tests.conftest import Command

Build = Callable[..., Experiment]


def least_squares(x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    return np.linalg.lstsq(x.double().numpy(), y.double().numpy(), rcond=None)[0]


def relative_distance(weights: torch.Tensor, solution: np.ndarray) -> float:
    found = weights.detach().double().numpy().T
    return float(np.linalg.norm(found - solution) / np.linalg.norm(solution))


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("checkpoint", ["best.ckpt", "last.ckpt"])
def test_the_default_recipe_ends_at_ordinary_least_squares(
    seed: int, checkpoint: str, build: Build, tmp_path
) -> None:
    experiment = build("model=linear_regression", f"seed={seed}", "logger=none")
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    solution = least_squares(*experiment.data.split("train"))
    content = torch.load(tmp_path / "checkpoints" / checkpoint, weights_only=True)
    assert relative_distance(content["state_dict"]["net.weight"], solution) < 1e-6


def test_the_recipe_needs_no_double_precision_for_one_in_ten_thousand(build: Build) -> None:
    experiment = build("model=linear_regression", "trainer.precision=32-true", "logger=none")
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    solution = least_squares(*experiment.data.split("train"))
    assert relative_distance(experiment.model.net.weight, solution) < 1e-4


def test_loss_and_gradient_are_the_mean_squared_residual_and_its_derivative() -> None:
    x, y = LinearRegressionData(rows=50).split("train")
    model = LinearRegression()
    model.training_loss((x, y)).backward()
    X, Y, beta = (
        x.double().numpy(),
        y.double().numpy(),
        model.net.weight.detach().double().numpy().T,
    )
    residual = Y - X @ beta
    assert model.training_loss((x, y)).item() == pytest.approx(
        float((residual**2).mean()), rel=1e-5
    )
    gradient = -2 / len(X) * X.T @ residual
    np.testing.assert_allclose(model.net.weight.grad.numpy().T, gradient, rtol=1e-4)


def test_with_a_bias_it_ends_at_least_squares_with_an_intercept(build: Build) -> None:
    experiment = build("model=linear_regression", "model.bias=true", "logger=none")
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    x, y = experiment.data.split("train")
    solution = least_squares(torch.cat([x, torch.ones(len(x), 1)], dim=1), y)
    found = torch.cat([experiment.model.net.weight, experiment.model.net.bias[:, None]], dim=1)
    assert relative_distance(found, solution) < 1e-4


def test_coefficient_error_is_the_distance_from_the_true_coefficients() -> None:
    model = LinearRegression(true_coefficients=[3.0, -4.0])
    torch.nn.init.zeros_(model.net.weight)
    assert float(model.parameter_metrics()["coefficient_error"]) == 5.0


def test_unknown_true_coefficients_give_no_coefficient_error() -> None:
    assert LinearRegression().parameter_metrics() == {}


def test_true_coefficients_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="3 numbers for 2 features"):
        LinearRegression(true_coefficients=[1.0, 2.0, 3.0])


def test_it_answers_with_its_coefficients(command: Command, tmp_path: Path) -> None:
    command("train", "model=linear_regression", "trainer.accelerator=cpu")
    (tmp_path / "ask.csv").write_text("x1,x2\n1,0\n0,1\n")
    command.here("predict", f"file={tmp_path}/ask.csv", f"output={tmp_path}/answers.json")
    answers = [row["y1"] for row in json.loads((tmp_path / "answers.json").read_text())]
    assert answers == pytest.approx([-1, 2], abs=0.1)
    said = command.here("predict", "features=[1,1]")
    assert f"{sum(answers):.4f}" in said
