"""A data set that does not fit in memory brings DataLoaders of its own, and all else works."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from src.kindling.build import Experiment
from src.kindling.data import BaseData
from src.kindling.loader import EpochSampler, OrderedLoader
from src.kindling.repeatable import make_resumable
from src.kindling.training.stages import has_stage
from tests.kindling.examples.data.quadrants import draw
from tests.kindling.process.test_randomness import StopAt, StoppedError

Build = Callable[..., Experiment]


class Streamed(BaseData):
    """Points through torch's own DataLoader; no `splits`."""

    in_features, out_features, target = 3, 4, "class"

    def __init__(self) -> None:
        super().__init__(batch_size=100, shuffle=True, seed=0)

    def loader(self, numbers: range, shuffle: bool = False) -> Any:
        rows = TensorDataset(*(part[numbers.start :] for part in draw(numbers.stop)))
        return DataLoader(rows, 100, sampler=EpochSampler(len(rows), shuffle=shuffle))

    def train_dataloader(self) -> Any:
        return self.loader(range(101, 1024), shuffle=True)

    def val_dataloader(self) -> Any:
        return self.loader(range(1, 101))

    test_dataloader = val_dataloader


def test_own_loaders_train_validate_and_test(build: Build) -> None:
    experiment = build("trainer.max_epochs=3", "steps_per_execution=1", "logger=none")
    data = Streamed()
    assert has_stage(experiment.model, data, "val")
    assert has_stage(experiment.model, data, "test")
    experiment.trainer.fit(experiment.model, datamodule=data)
    assert experiment.trainer.global_step == 3 * 10
    [metrics] = experiment.trainer.test(experiment.model, datamodule=data, verbose=False)
    assert round(metrics["test/accuracy"] * 100, 3).is_integer()


def test_own_loaders_train_the_same_with_several_steps_per_call(build: Build) -> None:
    weights = []
    for steps in (1, 4, 100):
        words = ("trainer.max_epochs=3", f"steps_per_execution={steps}", "logger=none")
        experiment = build(*words)
        experiment.trainer.fit(experiment.model, datamodule=Streamed())
        weights.append([p.detach() for p in experiment.model.parameters()])
    for several in weights[1:]:
        assert all(torch.equal(a, b) for a, b in zip(weights[0], several, strict=True))


class Augmented(TensorDataset):
    """Points with noise from all three generators, as an augmentation would draw it."""

    def __getitem__(self, index: Any) -> Any:
        point, answer = super().__getitem__(index)
        noise = torch.rand(()) + np.random.rand() + random.random()
        return point + 0.1 * noise, answer


class AugmentedData(Streamed):
    """The DataLoader that a user writes: shuffled, with workers, and nothing of ours."""

    workers = 0

    def loader(self, numbers: range, shuffle: bool = False) -> Any:
        rows = Augmented(*(part[numbers.start :] for part in draw(numbers.stop)))
        return DataLoader(rows, 100, shuffle=shuffle, num_workers=self.workers)

    def val_dataloader(self) -> Any:
        return []


@pytest.mark.parametrize(("workers", "workers_after"), [(0, 0), (2, 1)])
def test_a_run_with_augmentation_resumes_mid_epoch_to_the_same_bits(
    workers: int, workers_after: int, build: Build, tmp_path: Path
) -> None:
    def fit(seed: int, workers: int, *callbacks: Callback, **options: Any) -> Tensor:
        quick = ("trainer.max_epochs=3", "steps_per_execution=1", "logger=none")
        experiment = build("model.hidden_features=16", f"seed={seed}", *quick)
        experiment.trainer.callbacks[:0] = callbacks
        data = AugmentedData()
        data.workers = workers
        make_resumable(data, seed)
        options |= {"datamodule": data, "weights_only": True}
        experiment.trainer.fit(experiment.model, **options)
        return torch.cat([p.detach().flatten() for p in experiment.model.parameters()])

    whole = fit(0, workers)
    with pytest.raises(StoppedError):
        fit(0, workers, StopAt(14, tmp_path / "inside.ckpt"))
    resumed = fit(0, workers_after, ckpt_path=tmp_path / "inside.ckpt")
    assert torch.equal(whole, resumed)


class Counted(TensorDataset):
    """The numbers 0 to 20, and how many were read."""

    def __init__(self) -> None:
        super().__init__(torch.arange(21))
        self.read = 0

    def __getitem__(self, index: Any) -> Any:
        self.read += 1
        return super().__getitem__(index)


def ordered(workers: int = 0) -> OrderedLoader:
    sampler = EpochSampler(21, shuffle=True, seed=3)
    return OrderedLoader(Counted(), 4, sampler=sampler, num_workers=workers)


def epoch_of(loader: OrderedLoader, epoch: int) -> list[list[int]]:
    batches = iter(loader)
    loader.sampler.set_epoch(epoch)  # as late as Lightning does
    return [batch.tolist() for (batch,) in batches]


@pytest.mark.parametrize(("taken", "workers"), [(0, 0), (1, 0), (5, 0), (6, 0), (2, 2)])
def test_an_ordered_loader_resumes_where_it_was(taken: int, workers: int) -> None:
    expected = EpochSampler(21, shuffle=True, seed=3).order().split(4)
    interrupted, resumed = ordered(), ordered(workers)
    for _ in zip(range(taken), interrupted, strict=False):
        pass
    resumed.load_state_dict(interrupted.state_dict())
    left = expected[taken:] if taken < 6 else expected  # a full epoch counts as nothing
    assert epoch_of(resumed, 0) == [batch.tolist() for batch in left]
    if not workers:
        assert resumed.loader.dataset.read == sum(map(len, left))  # what came before is not read
    assert epoch_of(resumed, 1) == epoch_of(ordered(), 1) != epoch_of(ordered(), 0)


def test_a_loader_that_cannot_go_back_says_so_when_a_run_starts_and_when_it_is_resumed(
    build: Build, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for epochs, said in (
        (2, "if this run is interrupted, it will differ"),
        (4, "this run differs"),
    ):
        quick = ("steps_per_execution=1", "logger=none", "~callbacks.figures")
        experiment = build(f"trainer.max_epochs={epochs}", *quick)
        last = tmp_path / "checkpoints" / "last.ckpt"
        path = last if last.exists() else None
        experiment.trainer.fit(experiment.model, datamodule=Streamed(), ckpt_path=path)
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("warning: the training loader cannot resume at its position")
        assert line.endswith(f": {said} from one that was never interrupted")
