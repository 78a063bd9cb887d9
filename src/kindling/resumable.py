"""Make a DataLoader resume exactly: derive order and noise from the seed.

By default, torch restarts an interrupted epoch, and workers fetch batches before they know which
epoch it is. Random draws of a data set in a worker depend on how many batches that worker has read.
Here the order is a function of (seed, epoch), and the noise of a sample of (seed, epoch, index), no
matter which process reads it or how that process was started.
"""

import zlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    SequentialSampler,
    Subset,
)

from src.kindling.process.randomness import (
    generators_of,
    isolated,
    seed_all,
    seed_each,
    splitmix64,
)

# Arguments of a DataLoader, except the data set and the sampler.
OPTIONS = (
    "num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn",
    "multiprocessing_context", "prefetch_factor", "persistent_workers",
)  # fmt: skip


class ResumableLoader:
    """Iterate over the batches of a DataLoader with a map-style data set.

    Samplers, collation and workers are those of the DataLoader. The sampler uses generators seeded
    from (seed, epoch); each sample is read with the generators of torch, NumPy and Python, and with
    those that the data set or its transforms keep, seeded from (seed, epoch, index). A resumed
    epoch continues with the next batch; earlier samples are not read. Other attributes are those of
    the DataLoader.

    Args:
        loader: torch's DataLoader.
        seed: determines order and noise.
        rank: index of this process among `world_size` processes.
        world_size: processes that share the samples; a sampler that distributes them itself
            (DistributedSampler, EpochSampler) is left unchanged.
        in_order: ignore the sampler and keep the original order, for `overfit_batches`.
        epochs: whether order and noise depend on the epoch; otherwise all are as in epoch 0.
    """

    batch_sampler = None  # Lightning reads it from any loader with a sampler

    def __init__(
        self,
        loader: Any,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        in_order: bool = False,
        epochs: bool = True,
    ) -> None:
        self.loader = loader
        self.sampler = _EpochOrder(loader, seed, rank, world_size, in_order, epochs)
        self._generator = torch.Generator()  # for the workers' base seed, not for training
        self._numpy = np.random.MT19937(0)  # seeded for each sample that this process reads
        batched = loader.batch_sampler is not None
        order = {"batch_sampler": self.sampler} if batched else {"sampler": self.sampler}
        self._seeded: Any = DataLoader(
            _seeded(loader.dataset),
            **order if batched else {"batch_size": None, **order},
            generator=self._generator,
            **{name: getattr(loader, name) for name in OPTIONS},
        )
        self._given = 0  # batches yielded in this pass
        self._skip = 0  # batches that a resumed pass has already yielded

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Any]:
        # A generator starts at the first next(), after Lightning has set the epoch.
        self._given, self._skip = self._skip, 0
        self.sampler.skip = self._given
        self._generator.manual_seed(self.sampler.start_pass() >> 1)
        batches = iter(self._seeded)
        while True:
            with isolated(self._numpy) if self._seeded.num_workers == 0 else nullcontext():
                batch = next(batches, batches)
            if batch is batches:
                return
            self._given += 1
            yield batch

    def __getattr__(self, name: str) -> Any:
        if name == "loader":  # not set yet while being copied
            raise AttributeError(name)
        return getattr(self.loader, name)

    def state_dict(self) -> dict[str, int]:
        """Return the epoch, the pass, and how many of its batches were yielded."""
        return {"epoch": self.sampler.epoch, "pass": self.sampler.passes, "given": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume after the batches that were yielded; after a complete pass, at the next one.

        States of older versions contain only `given`.
        """
        self._skip = state["given"] % max(len(self), 1)
        self.sampler.epoch, self.sampler.restored = state.get("epoch", 0), True
        self.sampler.passes = max(state.get("pass", 1) - bool(self._skip), 0)


class _EpochOrder(SequentialSampler):
    """Yield the batches of an epoch as lists of (stream, index), or single pairs without batching.

    `stream` is the number from which the seeds of samples are derived. Lightning treats this as a
    SequentialSampler, so that it does not replace it under `overfit_batches`.
    """

    def __init__(
        self, loader: Any, seed: int, rank: int, world_size: int, in_order: bool, epochs: bool
    ) -> None:
        super().__init__(loader.dataset)
        self._epochs = epochs
        self.epoch = self.passes = self.skip = 0
        self.restored = False  # from a state whose pass the next `set_epoch` keeps
        self._seed, self._rank, self._world_size = splitmix64(seed), rank, world_size
        self._batches = loader.batch_sampler
        self._source = loader.sampler if self._batches is None else self._batches
        # torch's own batches can be distributed sample by sample, others only as entire batches.
        self._cuts = type(self._batches) is BatchSampler
        if self._cuts:
            self._source = self._batches.sampler
        if in_order:
            self._source = range(len(loader.dataset))
        own = isinstance(self._source, DistributedSampler) or hasattr(self._source, "world_size")
        self._world_size = 1 if own else world_size
        self._generators = [torch.default_generator, *generators_of(self._source, self._batches)]

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch (from 0) whose first pass is next, also in the user's sampler."""
        epoch *= self._epochs
        if epoch != self.epoch or not self.restored:
            self.passes = 0
        self.epoch, self.restored = epoch, False
        for sampler in {id(s): s for s in (self._source, self._batches)}.values():
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(epoch)

    def start_pass(self) -> int:
        """Start the next pass and return its stream; a short loader makes several per epoch."""
        self._stream = splitmix64(splitmix64(self._seed + self.epoch) + self.passes)
        self.passes += 1
        return self._stream

    def __iter__(self) -> Iterator[Any]:
        for item in self._items()[self.skip :]:
            tagged = [(self._stream, i) for i in item] if self._batches is not None else None
            yield (self._stream, item) if tagged is None else tagged

    def __len__(self) -> int:
        share = -(-len(self._source) // self._world_size)
        if not self._cuts:
            return share
        size = int(self._batches.batch_size)
        return share // size if self._batches.drop_last else -(-share // size)

    def _items(self) -> list[Any]:
        """Return this rank's share of the epoch: batches of indices, or indices."""
        with isolated(np.random.MT19937(0)):
            seed_all(self._stream >> 32)
            seed_each(self._generators, self._stream)
            items = list(self._source)
        if missing := -len(items) % self._world_size:  # pad to equal shares, as Lightning does
            items += (items * self._world_size)[:missing]
        items = items[self._rank % self._world_size :: self._world_size]
        if not self._cuts:
            return items
        size = self._batches.batch_size
        batches = [items[start : start + size] for start in range(0, len(items), size)]
        return batches[: len(self)]


class _SeededSamples(Dataset[Any]):
    """Seed the generators of this process and of the data set before reading each sample."""

    _own: list[Any]
    _pass: int | None

    def __init__(self, dataset: Any) -> None:
        self.dataset, self._own, self._pass = dataset, [], None

    def __getitem__(self, tagged: tuple[int, Any]) -> Any:
        return self._read(tagged, self.dataset.__getitem__, tagged[1])

    def __len__(self) -> int:
        return len(self.dataset)

    def _read(self, tagged: tuple[int, Any], read: Callable[[Any], Any], which: Any) -> Any:
        first, self._pass = self._pass != tagged[0], tagged[0]
        if first:  # in this process and pass
            self._own = generators_of(self.dataset)
        self._seed(*tagged)
        sample = read(which)
        if first and len(found := generators_of(self.dataset)) > len(self._own):  # made just now
            self._own = found
            self._seed(*tagged)
            sample = read(which)
        return sample

    def _seed(self, stream: int, index: Any) -> None:
        number = index if isinstance(index, int) else zlib.crc32(repr(index).encode())
        number = splitmix64(stream + number)
        seed_all(number >> 32)
        seed_each(self._own, number)

    # In a worker_init_fn this is the worker's data set.

    def __getattr__(self, name: str) -> Any:
        if name == "dataset" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        ours = name in ("dataset", "_own", "_pass")
        object.__setattr__(self, name, value) if ours else setattr(self.dataset, name, value)


class _SeededBatches(_SeededSamples):
    """Seed the generators once per batch, for a data set that reads entire batches."""

    def __getitems__(self, tagged: list[tuple[int, Any]]) -> Any:
        return self._read(tagged[0], self.dataset.__getitems__, [index for _, index in tagged])


def _seeded(dataset: Any) -> _SeededSamples:
    at_once = hasattr(dataset, "__getitems__") and not isinstance(dataset, Subset)
    return _SeededBatches(dataset) if at_once else _SeededSamples(dataset)
