"""Gradient norm and update-to-weight ratio are those of gradient descent written by hand."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from src.kindling.build import Experiment
from tests.kindling.callbacks.test_training_metrics import Kept

Build = Callable[..., Experiment]
RATE = 0.1


def points(build: Build, *overrides: str) -> tuple[Experiment, np.ndarray, dict[int, Any]]:
    """Fit; return the weights at the start [D] and the points of each step."""
    experiment = build("model=line", "logger=none", f"optimizer.lr={RATE}", *overrides)
    kept = Kept()
    experiment.trainer.loggers = [kept]
    start = experiment.model.net.weight.detach().numpy()[0].astype(float)
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    return experiment, start, {s: m for s, m in kept.points if "train/loss" in m}


def descent(
    experiment: Experiment, weights: np.ndarray, steps: int
) -> tuple[list[float], list[np.ndarray]]:
    """Gradient descent on all rows: the gradient norm before each step, the weights around each."""
    X, y = (part.numpy().astype(float) for part in experiment.data.split("train"))
    norms, path = [], [weights]
    for _ in range(steps):
        gradient = 2 * X.T @ (X @ path[-1] - y[:, 0]) / len(X)
        norms.append(float(np.linalg.norm(gradient)))
        path.append(path[-1] - RATE * gradient)
    return norms, path


@pytest.mark.parametrize("every", [1, 3])
def test_each_logged_point_has_the_norms_of_its_own_step(every: int, build: Build) -> None:
    few = ("trainer.max_epochs=8", f"trainer.log_every_n_steps={every}")
    experiment, start, logged = points(build, *few)
    norms, path = descent(experiment, start, 8)
    assert list(logged) == (list(range(8)) if every == 1 else [2, 5, 7])  # 7: the end of training
    for step, point in logged.items():
        moved = np.linalg.norm(path[step + 1] - path[step]) / np.linalg.norm(path[step])
        assert point["train/gradient_norm"] == pytest.approx(norms[step], rel=1e-12)
        assert point["train/update_to_weight"] == pytest.approx(moved, rel=1e-12)


@pytest.mark.parametrize("every", [1, 3, 5])
def test_points_are_the_same_at_any_number_of_steps_per_call(every: int, build: Build) -> None:
    words = ("data.batch_size=10", "trainer.max_epochs=4", f"trainer.log_every_n_steps={every}")
    names = ("train/loss", "train/lr", "train/gradient_norm", "train/update_to_weight")
    kept = []
    for steps in (1, 3, 5, 50):
        _, _, logged = points(build, *words, f"steps_per_execution={steps}")
        kept.append({step: [point[name] for name in names] for step, point in logged.items()})
    assert len(kept[0]) == -(-20 // every)
    assert all(points_of_run == kept[0] for points_of_run in kept)


def test_accumulated_batches_are_one_step(build: Build) -> None:
    halves = ("data.batch_size=25", "trainer.accumulate_grad_batches=2", "trainer.max_epochs=5")
    experiment, start, logged = points(build, *halves, "trainer.log_every_n_steps=1")
    norms, path = descent(experiment, start, 5)
    assert list(logged) == list(range(5))
    for step, point in logged.items():
        moved = np.linalg.norm(path[step + 1] - path[step]) / np.linalg.norm(path[step])
        assert point["train/gradient_norm"] == pytest.approx(norms[step], rel=1e-6)
        assert point["train/update_to_weight"] == pytest.approx(moved, rel=1e-6)


def test_momentum_is_logged_where_the_optimizer_has_one(build: Build) -> None:
    _, _, logged = points(build, "trainer.max_epochs=10", "optimizer=momentum")
    assert logged[9]["train/momentum"] == 0.9
    _, _, logged = points(build, "trainer.max_epochs=10")
    assert "train/momentum" not in logged[9]
    assert 10 < logged[9]["train/memory_mb"] < 100_000
