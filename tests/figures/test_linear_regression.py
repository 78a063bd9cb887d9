"""The path of the coefficients is drawn on the loss that they were trained on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.figures.linear_regression import POINTS, Coefficients, Fit, bowl
from src.kindling.build import Experiment
from src.kindling.callbacks.figures import Figures
from tests.kindling.figures.test_pictures import seen

Build = Callable[..., Experiment]


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("model.bias=true",),
        ("data.in_features=4", "data.coefficients=[1,-2,0.5,3]"),
    ],
)
def test_the_bowl_is_the_loss_with_the_rest_at_its_best(
    overrides: tuple[str, ...], build: Build
) -> None:
    experiment = build("model=linear_regression", "logger=none", *overrides)
    view = seen(experiment, 0)
    curvature, best = bowl(view)
    X, y = (part.numpy().astype(float) for part in experiment.data.split("train"))
    y = y[:, 0]
    more = [np.ones((len(X), 1))] if "model.bias=true" in overrides else []
    whole = np.hstack([X, *more])
    optimum, *_ = np.linalg.lstsq(whole, y)
    assert best == pytest.approx(optimum[: X.shape[1]], rel=1e-6)
    least = np.square(y - whole @ optimum).mean()
    for away in np.array([(0.3, -0.2), (1.0, 2.0)]):
        pair = best[:2] + away
        rest = whole[:, 2:]
        left = y - X[:, :2] @ pair
        if rest.shape[1]:
            left = left - rest @ np.linalg.lstsq(rest, left)[0]
        assert np.square(left).mean() - least == pytest.approx(away @ curvature @ away, rel=1e-6)


def test_a_long_path_is_thinned_and_keeps_its_ends(build: Build) -> None:
    experiment = build("model=linear_regression", "logger=none")
    picture, model = Coefficients(), experiment.model
    picture.restore(None, model)
    weights = model.net.weight.data
    for step in range(1, 3000):
        weights[0, 0] = step
        picture.record(model)
    path = picture.path(seen(experiment, 3000))
    assert len(path) <= POINTS + 1
    assert path[0, 0] < 1
    assert path[-1, 0] == 2999
    assert len(set(np.diff(path[1:-1, 0]))) == 1  # evenly


def test_the_fit_says_how_far_off_it_is(build: Build) -> None:
    experiment = build("model=linear_regression", "logger=none")
    X, y = experiment.data.split("train")
    weights = experiment.model.coefficients.numpy()
    error = np.sqrt(np.square(y.numpy() - X.numpy() @ weights.T).mean())
    assert f"{error:.3g}" in Fit().title(seen(experiment, 0))


def test_a_resumed_run_continues_the_path_of_its_coefficients(build: Build, tmp_path: Path) -> None:
    def path(epochs: int, checkpoint: str | None = None) -> list[Any]:
        experiment = build("model=linear_regression", "logger=none", f"trainer.max_epochs={epochs}")
        figures = Figures(every_n_epochs=100)
        experiment.trainer.callbacks.append(figures)
        experiment.trainer.fit(
            experiment.model, datamodule=experiment.data, ckpt_path=checkpoint, weights_only=True
        )
        notes: list[Any] = figures.state_dict()["notes"]["coefficients"]["way"]
        return notes

    whole = path(6)
    first = path(3)
    assert path(6, str(tmp_path / "checkpoints" / "last.ckpt")) == whole
    assert (len(first), len(whole)) == (4, 7)  # the start, and each epoch
