"""A data set that does not fit in memory brings DataLoaders of its own, and all else works."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from src.data.base import BaseData
from src.data.fizzbuzz import GAME, encode, fizzbuzz
from src.data.loader import EpochSampler
from src.experiment import Experiment

Build = Callable[..., Experiment]


class Streamed(BaseData):
    """FizzBuzz through torch's own DataLoader; no `splits`."""

    in_features, out_features, target = 10, 4, "class"

    def __init__(self) -> None:
        super().__init__(batch_size=100, shuffle=True, seed=0)

    def loader(self, numbers: range, shuffle: bool = False) -> Any:
        n = torch.tensor(numbers)
        rows = TensorDataset(encode(n, 10), fizzbuzz(n))
        return DataLoader(rows, 100, sampler=EpochSampler(len(rows), shuffle=shuffle))

    def train_dataloader(self) -> Any:
        return self.loader(range(101, 1024), shuffle=True)

    def val_dataloader(self) -> Any:
        return self.loader(GAME)

    test_dataloader = val_dataloader


def test_own_loaders_train_validate_and_test(build: Build) -> None:
    experiment = build("trainer.max_epochs=3", "steps_per_execution=1", "logger=none")
    data = Streamed()
    assert data.provides("val")
    assert data.provides("test")
    experiment.trainer.fit(experiment.model, datamodule=data)
    assert experiment.trainer.global_step == 3 * 10
    [metrics] = experiment.trainer.test(experiment.model, datamodule=data, verbose=False)
    assert round(metrics["test/accuracy"] * 100, 3).is_integer()


def test_several_steps_an_execution_say_what_they_need(build: Build) -> None:
    experiment = build("trainer.max_epochs=3", "steps_per_execution=4", "logger=none")
    with pytest.raises(ValueError, match="set steps_per_execution=1"):
        experiment.trainer.fit(experiment.model, datamodule=Streamed())
