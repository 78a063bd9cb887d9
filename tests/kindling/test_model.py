"""The module that models extend behaves as any LightningModule does."""

import copy
import re
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor

from src.kindling.build import Experiment
from src.kindling.model import BaseModule

Build = Callable[..., Experiment]
SMALL = "model.hidden_features=8"


def fitted(build: Build, *overrides: str) -> Experiment:
    words = ("trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1", "logger=none")
    experiment = build(*words, *overrides)
    experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    return experiment


@pytest.mark.parametrize("steps", [1, 4])
def test_a_model_can_be_copied_after_its_fit(steps: int, build: Build) -> None:
    model = fitted(build, SMALL, f"steps_per_execution={steps}").model
    same = copy.deepcopy(model).state_dict()
    assert all(torch.equal(value, same[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("words", [["steps_per_execution=4"], ["compile=true"]])
def test_an_own_training_step_and_configure_optimizers_train(
    words: list[str], build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(self(batch[0]), batch[1])

    def configure_optimizers(self: Any) -> Any:
        groups = [{"params": [p], "lr": 0.1} for p in self.parameters()]
        return [torch.optim.SGD(groups)]

    weights = []
    for override in ([], words):
        experiment = build(
            SMALL, "trainer.max_epochs=2", "logger=none", "steps_per_execution=1", *override
        )
        own = {"training_step": training_step, "configure_optimizers": configure_optimizers}
        kind = type(experiment.model)
        experiment.model.__class__ = type("Own", (kind,), own)
        before = [p.detach().clone() for p in experiment.model.parameters()]
        experiment.trainer.fit(experiment.model, datamodule=experiment.data)
        weights.append([p.detach() for p in experiment.model.parameters()])
        assert not any(map(torch.equal, before, weights[-1]))
    assert all(map(torch.equal, *weights))
    said = [line for line in capsys.readouterr().err.splitlines() if "compile=true" in line]
    assert len(said) == ("compile=true" in words and find_spec("src.kindling.speed") is not None)
    line = (
        "Own.training_step is not compiled: return the loss from training_loss(self, batch) instead"
    )
    assert all(line in warning for warning in said)


@pytest.mark.parametrize(
    ("batch", "what"),
    [
        ([torch.ones(2, 3)] * 3, "a list of 3 parts"),
        ({"x": 1, "y": 2}, "a dict"),
        (torch.ones(2), "a Tensor"),
    ],
)
def test_a_batch_that_is_not_a_pair_names_the_method_to_define(batch: Any, what: str) -> None:
    said = f"BaseModule: a batch is {what}, not (inputs, targets): define BaseModule.{{}}"
    model = BaseModule()
    with pytest.raises(TypeError, match=re.escape(said.format("training_loss"))):
        model.training_step(batch, 0)
    with pytest.raises(TypeError, match=re.escape(said.format("test_step"))):
        model.test_step(batch, 0)


def test_a_metric_that_is_not_a_number_is_refused_by_name(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = lambda self: {"of_each_class": torch.ones(4)}  # noqa: E731
    monkeypatch.setattr(BaseModule, "parameter_metrics", several)
    with pytest.raises(ValueError, match="val/of_each_class"):
        fitted(build, SMALL)
