"""What a training step costs, beside a hand-written loop: `make bench`, or `ARGS="-k step"`.

pytest-benchmark prints for each group the time of a call, and in brackets its ratio to the fastest.
All rows of a group do the same work on one thread.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from src.data.loader import EpochSampler, TensorLoader
from src.tour import fizzbuzz

EPOCHS = 100  # of eight steps each
ROWS, FEATURES, BATCH = 100_000, 20, 1000


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.benchmark(group=f"step: {8 * EPOCHS} steps of the tutorial's FizzBuzz")
def bench_step_raw_loop(benchmark: Any) -> None:
    X, Y = fizzbuzz.make_data(range(101, 1024))
    benchmark.pedantic(
        lambda: fizzbuzz.train(fizzbuzz.make_model(), X, Y, EPOCHS), rounds=5, warmup_rounds=1
    )


@pytest.mark.benchmark(group=f"step: {8 * EPOCHS} steps of the tutorial's FizzBuzz")
@pytest.mark.parametrize("steps_per_execution", [1, 8])
@pytest.mark.parametrize("logger", ["none", "[tensorboard,csv]"])
def bench_step_trainer(
    benchmark: Any, build: Callable[..., Any], steps_per_execution: int, logger: str
) -> None:
    def fresh() -> tuple[tuple[Any], dict[str, Any]]:
        overrides = ("experiment=tutorial_fizzbuzz", f"trainer.max_epochs={EPOCHS}")
        steps = f"steps_per_execution={steps_per_execution}"
        return (build(*overrides, f"logger={logger}", steps),), {}

    def fit(experiment: Any) -> None:
        experiment.trainer.fit(experiment.model, datamodule=experiment.data)

    benchmark.pedantic(fit, setup=fresh, rounds=5, warmup_rounds=1)


def loaders() -> Iterator[Any]:
    tensors = torch.randn(ROWS, FEATURES), torch.randn(ROWS, 1)
    yield pytest.param(
        TensorLoader(tensors, BATCH, sampler=EpochSampler(ROWS, shuffle=True)), id="TensorLoader"
    )
    yield pytest.param(DataLoader(TensorDataset(*tensors), BATCH, shuffle=True), id="DataLoader")


@pytest.mark.benchmark(group=f"loader: an epoch of {ROWS:,} rows of {FEATURES}, shuffled")
@pytest.mark.parametrize("loader", list(loaders()))
def bench_loader(benchmark: Any, loader: Any) -> None:
    def epoch() -> int:
        return sum(len(x) for x, _ in loader)

    assert benchmark.pedantic(epoch, rounds=5, warmup_rounds=1) == ROWS
