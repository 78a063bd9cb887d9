"""Random numbers and small numbers while it trains: the one callback that each run has."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from src.kindling.build import Experiment
from src.kindling.process.seeding import Seeding

Build = Callable[..., Experiment]


class Small(Callback):
    """Note what becomes of a number below float32's normal ones."""

    found = torch.nan

    def on_train_batch_end(self, *arguments: Any) -> None:
        self.found = (torch.tensor(1e-39) * 1).item()

    def steps_until_next(self, trainer: Any) -> float:
        return torch.inf


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("fails", [False, True])
def test_numbers_too_small_to_matter_are_zeros_while_it_trains(
    fails: bool, steps: int, build: Build
) -> None:
    experiment = build(
        "model.hidden_features=8", f"steps_per_execution={steps}", "trainer.fast_dev_run=1"
    )
    experiment.trainer.callbacks.append(small := Small())
    if fails:
        experiment.model.on_train_end = lambda: 1 / 0
        with pytest.raises(ZeroDivisionError):
            experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    else:
        experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    assert small.found == 0
    assert (torch.tensor(1e-39) * 1).item() > 0


def test_each_run_has_it_once_and_lightnings_own_loops(build: Build) -> None:
    experiment = build("model.hidden_features=8", "steps_per_execution=1", "logger=none")
    trainer: Any = experiment.trainer
    assert sum(isinstance(callback, Seeding) for callback in trainer.callbacks) == 1
    for loop in (
        trainer.fit_loop,
        trainer.fit_loop.epoch_loop,
        trainer.fit_loop.epoch_loop.val_loop,
    ):
        assert type(loop).__module__.startswith("lightning.")


def test_each_test_of_a_checkpoint_draws_the_same_numbers(build: Build) -> None:
    experiment = build("model.hidden_features=8", "logger=none")
    drawn = []
    experiment.model.on_test_epoch_end = lambda: drawn.append(torch.rand(()).item())
    for _ in range(2):
        experiment.trainer.test(experiment.model, datamodule=experiment.data, verbose=False)
        torch.rand(3)
    assert drawn[0] == drawn[1]
