"""Order and noise of a plain DataLoader, held against lists that are made by hand."""

import itertools
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    IterableDataset,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)

from src.kindling.process.randomness import splitmix64
from src.kindling.repeatable import make_resumable
from src.kindling.resumable import ResumableLoader
from tests.kindling.noisy import ROWS, Keeping, Noisy, replace_generator

Epoch = list[list[Any]]


def by_hand(seed: int, epoch: int, index: int) -> tuple[int, float, float, float]:
    """Draw a sample's noise from generators of its own, seeded by (seed, epoch, index)."""
    stream = splitmix64(splitmix64(splitmix64(seed) + epoch))
    number = splitmix64(stream + index) >> 32
    drawn = torch.rand((), generator=torch.Generator().manual_seed(number)).item()
    return index, drawn, np.random.RandomState(number).rand(), random.Random(number).random()


def read(loader: Any, epoch: int = 0) -> Epoch:
    """Return the rows of an epoch batch by batch; the epoch is set as late as Lightning does."""
    batches = iter(loader)
    loader.sampler.set_epoch(epoch)
    return as_rows(batches)


def as_rows(batches: Any) -> Epoch:
    return [list(zip(*map(torch.Tensor.tolist, batch), strict=True)) for batch in batches]


def loader(seed: int = 3, dataset: Any = None, **options: Any) -> ResumableLoader:
    options = {"batch_size": 4, "shuffle": True, **options}
    shared = {key: options.pop(key) for key in ("rank", "world_size", "in_order") if key in options}
    return ResumableLoader(DataLoader(dataset or Noisy(), **options), seed=seed, **shared)


def rows(epoch: Epoch) -> list[Any]:
    return [row for batch in epoch for row in batch]


# Noise --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"num_workers": 2}, {"num_workers": 1, "persistent_workers": True}]
)
def test_noise_is_that_of_seed_epoch_and_index(options: dict[str, Any]) -> None:
    resumable = loader(**options)
    for epoch in (0, 1, 5):
        found = sorted(rows(read(resumable, epoch)))
        assert found == [by_hand(3, epoch, index) for index in range(ROWS)]


def test_noise_is_the_same_in_workers_that_are_spawned() -> None:
    spawned = loader(num_workers=1, multiprocessing_context="spawn")
    assert read(spawned, 2) == read(loader(), 2)


@pytest.mark.parametrize(
    "options",
    [
        {"num_workers": 2},
        {"num_workers": 1, "persistent_workers": True, "worker_init_fn": replace_generator},
    ],
)
def test_noise_of_generators_that_a_data_set_keeps_follows_too(options: dict[str, Any]) -> None:
    expected = [sorted(rows(read(loader(dataset=Keeping()), epoch))) for epoch in (0, 1)]
    found = loader(dataset=Keeping(), **options)
    assert [sorted(rows(read(found, epoch))) for epoch in (0, 1)] == expected
    numbers = [number for epoch in expected for row in epoch for number in row[1:]]
    assert len(numbers) == len(set(numbers)) == 2 * 4 * ROWS


def test_another_seed_gives_another_order_and_other_noise() -> None:
    one, other = rows(read(loader(seed=0))), rows(read(loader(seed=1)))
    assert [row[0] for row in one] != [row[0] for row in other]
    assert not {row[1:] for row in one} & {row[1:] for row in other}


def test_the_generators_of_this_process_go_on_as_if_nothing_had_been_read() -> None:
    def after(read_before: bool) -> tuple[float, ...]:
        torch.manual_seed(1), np.random.seed(1), random.seed(1)
        if read_before:
            read(loader())
        return torch.rand(()).item(), np.random.rand(), random.random()

    assert after(True) == after(False)


class AtOnce(Noisy):
    """Reads a batch in one call."""

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self[index] for index in indices]


def test_a_data_set_that_reads_a_batch_at_once_does_so() -> None:
    first, again, other = (read(loader(dataset=AtOnce()), epoch) for epoch in (0, 0, 1))
    assert first == again != other
    assert first[0][0] == by_hand(3, 0, first[0][0][0])
    subset = Subset(Noisy(), [3, 5])
    assert {row[0] for row in rows(read(loader(dataset=subset)))} == {3, 5}


# Order --------------------------------------------------------------------------------------------


def indices(epoch: Epoch) -> list[int]:
    return [row[0] for row in rows(epoch)]


def weighted(generator: torch.Generator | None = None) -> Any:
    return WeightedRandomSampler([1.0] * ROWS, ROWS, generator=generator)


class Drawing(torch.utils.data.Sampler[int]):
    """An order that NumPy draws, with a generator that the sampler keeps."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(4)

    def __iter__(self) -> Any:
        return iter(self.rng.permutation(ROWS).tolist())

    def __len__(self) -> int:
        return ROWS


@pytest.mark.parametrize(
    "options",
    [
        lambda: {"shuffle": True},
        lambda: {"shuffle": True, "generator": torch.Generator().manual_seed(4)},
        lambda: {"shuffle": False, "sampler": weighted()},
        lambda: {"shuffle": False, "sampler": weighted(torch.Generator().manual_seed(4))},
        lambda: {"shuffle": False, "sampler": Drawing()},
    ],
)
def test_the_order_is_a_function_of_seed_and_epoch(options: Callable[[], Any]) -> None:
    whole = loader(**options())
    epochs = [indices(read(whole, epoch)) for epoch in range(4)]
    torch.manual_seed(77)  # whatever the training has drawn
    assert indices(read(loader(**options()), 3)) == epochs[3]
    assert len({tuple(order) for order in epochs}) == 4


def test_without_shuffling_the_samples_come_as_they_are() -> None:
    assert indices(read(loader(shuffle=False), 2)) == list(range(ROWS))
    assert indices(read(loader(in_order=True), 2)) == list(range(ROWS))


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_the_samples_as_with_a_distributed_sampler(
    world_size: int, drop_last: bool
) -> None:
    found, whole = [], indices(read(loader(), 1))
    for rank in range(world_size):
        mine = loader(rank=rank, world_size=world_size, drop_last=drop_last)
        batches = read(mine, 1)
        assert len(batches) == len(mine)
        own = DistributedSampler(range(ROWS), world_size, rank, shuffle=False)
        expected = [whole[place] for place in own]
        size = len(expected) // 4 * 4 if drop_last else len(expected)
        assert indices(batches) == expected[:size]
        found += expected
    assert set(found) == set(range(ROWS))


def test_a_sampler_that_shares_out_by_itself_is_left_to_it() -> None:
    def own() -> Any:
        return DistributedSampler(range(ROWS), 2, 1, seed=5)

    mine = loader(shuffle=False, sampler=own(), rank=1, world_size=2)
    expected = own()
    expected.set_epoch(3)
    assert indices(read(mine, 3)) == list(expected)


class Pairs(torch.utils.data.Sampler[list[int]]):
    """Batches that are not cut from an order of samples."""

    def __iter__(self) -> Any:
        return iter([[0, 1], [2, 3], [4]])

    def __len__(self) -> int:
        return 3


def test_batches_of_the_users_own_are_shared_out_as_they_are() -> None:
    def share(rank: int, world_size: int) -> list[list[int]]:
        data = DataLoader(Noisy(), batch_sampler=Pairs())
        mine = ResumableLoader(data, rank=rank, world_size=world_size)
        return [[row[0] for row in batch] for batch in read(mine)]

    assert share(0, 1) == [[0, 1], [2, 3], [4]]
    assert (share(0, 2), share(1, 2)) == ([[0, 1], [4]], [[2, 3], [0, 1]])


def test_samples_without_batches_come_one_by_one() -> None:
    single = ResumableLoader(DataLoader(Noisy(), batch_size=None), seed=3)
    assert [tuple(row) for row in single] == [by_hand(3, 0, index) for index in range(ROWS)]
    assert len(single) == ROWS


# Resuming -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("taken", [0, 1, 2, 3])
def test_resumes_with_exactly_the_batches_that_remain(taken: int, workers: int) -> None:
    whole = [read(loader(), epoch) for epoch in range(4)]
    interrupted, resumed = loader(num_workers=workers), loader(num_workers=workers)
    interrupted.sampler.set_epoch(2)
    for _ in zip(range(taken), interrupted, strict=False):
        pass
    resumed.load_state_dict(interrupted.state_dict())
    if taken < 3:
        assert read(resumed, 2) == whole[2][taken:]
    assert read(resumed, 3) == whole[3]


def test_a_second_interruption_counts_from_the_start_of_the_epoch() -> None:
    first, second, third = loader(), loader(), loader()
    next(iter(first))
    second.load_state_dict(first.state_dict())
    next(iter(second))
    third.load_state_dict(second.state_dict())
    assert read(third) == read(loader())[2:]


def test_a_short_loader_that_is_cycled_has_another_order_in_each_pass() -> None:
    cycled, resumed = loader(), loader()
    passes = [read(cycled, 1), as_rows(cycled)]
    assert sorted(indices(passes[0])) == sorted(indices(passes[1]))
    assert passes[0] != passes[1]
    assert read(cycled, 1) == passes[0]  # from its first pass, as in a second validation
    again = loader()
    again.sampler.set_epoch(1)
    for _ in itertools.islice(itertools.chain(again, again), 4):
        pass  # one batch into the second pass
    resumed.load_state_dict(again.state_dict())
    assert read(resumed, 1) == passes[1][1:]


def test_its_state_is_plain_data() -> None:
    assert {type(value) for value in loader().state_dict().values()} == {int}


# A user's data module -----------------------------------------------------------------------------


class Streamed(IterableDataset[int]):
    def __iter__(self) -> Any:
        return iter(range(3))


class Endless(torch.utils.data.Sampler[int]):
    def __iter__(self) -> Any:
        return itertools.count()


def wrapped(returned: Any, stage: str = "train", **trainer: Any) -> Any:
    class Data(pl.LightningDataModule):
        def train_dataloader(self) -> Any:
            return returned

        test_dataloader = train_dataloader

    data = Data()
    make_resumable(data, seed=3)
    if trainer:
        data.trainer = SimpleNamespace(**trainer)  # type: ignore[assignment]
    return getattr(data, f"{stage}_dataloader")()


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated")  # Lightning's, of torch
def test_a_users_loaders_are_wrapped_wherever_they_are() -> None:
    plain = DataLoader(Noisy(), 4, shuffle=True)
    assert read(wrapped(plain), 1) == read(loader(), 1)
    assert [type(each) for each in wrapped([plain, 5])] == [ResumableLoader, int]
    assert type(wrapped({"a": plain})["a"]) is ResumableLoader
    assert wrapped(plain).dataset is plain.dataset
    combined = wrapped(CombinedLoader({"a": plain, "b": [plain, 5]}, "min_size"))
    assert [type(each) for each in combined.flattened] == [ResumableLoader, ResumableLoader, int]


def test_what_the_trainer_says_of_ranks_and_overfitting_reaches_the_loader() -> None:
    plain = DataLoader(Noisy(), 4, shuffle=True)
    second = wrapped(plain, overfit_batches=0.0, global_rank=1, world_size=2)
    assert read(second) == read(loader(rank=1, world_size=2))
    overfit = wrapped(plain, overfit_batches=2, global_rank=0, world_size=1)
    assert indices(read(overfit)) == list(range(ROWS))
    tested = wrapped(plain, "test", overfit_batches=2, global_rank=0, world_size=1)
    assert indices(read(tested)) == indices(read(loader()))  # as `evaluate` does


def test_what_cannot_be_wrapped_is_left_alone() -> None:
    class Own(DataLoader[Any]):
        def __iter__(self) -> Any:
            return iter([])

    for left in (
        DataLoader(Streamed()),
        DataLoader(Noisy(), sampler=Endless()),
        Own(TensorDataset(torch.zeros(3))),
        [],
    ):
        assert wrapped(left) is left or wrapped(left) == []
