"""What a validation logs by a short way is what Lightning's `log_dict` makes of it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from src.kindling import model
from src.kindling.build import Experiment
from src.kindling.model import BaseModule
from tests.kindling.callbacks.test_training_metrics import Kept

pytestmark = pytest.mark.usefixtures("own_models")

Build = Callable[..., Experiment]
SMALL = "model.hidden_features=8"


def fitted(build: Build, *overrides: str) -> tuple[list[Any], list[dict[str, Tensor]]]:
    """Fit; return the points of validations, and what callbacks and loggers were last told."""
    words = ("trainer.max_epochs=4", "trainer.check_val_every_n_epoch=2", "logger=none")
    experiment, kept = build(*words, *overrides), Kept()
    experiment.trainer.loggers = [kept]
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    told = (experiment.trainer.callback_metrics, experiment.trainer.logged_metrics)
    return (
        [(step, list(point.items())) for step, point in kept.points if "val/loss" in point],
        [{name: m[name] for name in m if name.startswith("val/")} for m in told],
    )


@pytest.mark.parametrize(
    "overrides",
    [
        (SMALL, "steps_per_execution=2"),
        (SMALL, "steps_per_execution=1", "trainer.val_check_interval=2"),
        ("model=line",),  # in float64, and with a metric of its weights
    ],
    ids=" ".join,
)
def test_a_validation_logs_what_lightning_would(
    build: Build, overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    points, told = fitted(build, *overrides)
    monkeypatch.setattr(model, "_is_number", lambda value: False)
    expected_points, expected = fitted(build, *overrides)
    assert points == expected_points
    assert len(points) > 1
    for mine, theirs in zip(told, expected, strict=True):
        assert list(mine) == list(theirs)
        for name, value in mine.items():
            assert (value.dtype, value.item()) == (theirs[name].dtype, theirs[name].item())


def test_a_metric_that_is_no_number_is_refused_by_name(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = lambda self: {"of_each_class": torch.ones(4)}  # noqa: E731
    monkeypatch.setattr(BaseModule, "parameter_metrics", several)
    with pytest.raises(ValueError, match="val/of_each_class"):
        fitted(build, SMALL)
