"""Batches straight from tensors in memory: a block of rows is gathered, then cut into batches.

`DataLoader(TensorDataset(...))` collates sample by sample, which for small rows costs far more than
the training step. Here the order is a function of (seed, epoch) alone, so a resumed run sees the
batches that it would have seen. A small data set is one block, gathered once an epoch; of a large
one no more than two blocks are ever in memory beside the data.

Letters: N rows, B batch.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from src.kindling.resumable import ResumableLoader

# Of a block. Whole epochs of a million rows took a third longer, in fresh memory each time; from
# 1 to 16 MB there is nothing between the sizes.
BLOCK_BYTES = 8 * 2**20


class EpochSampler:
    """The order of the rows in an epoch, and this rank's share of it.

    Works in a `DataLoader(sampler=...)` as well. Lightning calls `set_epoch` at each epoch's start.

    Args:
        rows: N.
        shuffle: whether each epoch has an order of its own.
        seed: the order depends on (seed, epoch) and on nothing else.
        rank: this process's number among `world_size` processes.
        world_size: processes that share the rows; rank r takes rows r, r + world_size, ...
        pad: repeat rows from the start until all ranks have equally many, as training with a
            gradient exchange needs; without it each row is seen exactly once.
    """

    def __init__(
        self,
        rows: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        pad: bool = False,
    ) -> None:
        self.rows, self.shuffle, self.seed = rows, shuffle, seed
        self.rank, self.world_size, self.pad = rank, world_size, pad
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch (from 0) the next order is for."""
        self.epoch = epoch

    @property
    def in_order(self) -> bool:
        """Whether this rank takes all rows as they come."""
        return not self.shuffle and self.world_size == 1

    def order(self) -> Tensor:
        """Return this rank's row numbers of this epoch, [N / world_size] of int64."""
        if self.shuffle:
            # NumPy's generator, which mixes both numbers: torch's takes 32 bits of one.
            random = np.random.default_rng([self.seed, self.epoch])
            order = torch.from_numpy(random.permutation(self.rows))
        else:
            order = torch.arange(self.rows)
        if self.pad and (missing := -self.rows % self.world_size):
            order = torch.cat([order, order.repeat(self.world_size)[:missing]])
        return order[self.rank :: self.world_size]

    def __iter__(self) -> Iterator[int]:
        return iter(self.order().tolist())

    def __len__(self) -> int:
        total = self.rows + (-self.rows % self.world_size if self.pad else 0)
        return len(range(self.rank, total, self.world_size))


class TensorLoader:
    """Iterate over batches of rows of one or more tensors.

    Args:
        tensors: each [N, ...]; a batch is a tuple of [B, ...].
        batch_size: B; the last batch of an epoch may be smaller.
        sampler: the order of the rows; by default as they come.
        group: batches a group; above 1, the loader yields lists of that many batches.
        limit: batches of an epoch, from its start, or a share of them; None for all.
        device: where the batches are wanted, if not where the tensors are; a block is moved at
            once, not each batch by itself.

    Raises:
        ValueError: the tensors differ in their number of rows.
    """

    batch_sampler = None  # Lightning asks for it in whatever has a sampler

    def __init__(
        self,
        tensors: Sequence[Tensor],
        batch_size: int,
        *,
        sampler: EpochSampler | None = None,
        group: int = 1,
        limit: float | None = None,
        device: torch.device | None = None,
    ) -> None:
        if len({len(tensor) for tensor in tensors}) != 1:
            raise ValueError(f"rows differ: {[len(tensor) for tensor in tensors]}")
        self.tensors = tuple(tensors)
        self.batch_size, self.group = batch_size, group
        self.sampler = EpochSampler(len(tensors[0])) if sampler is None else sampler
        self.device = tensors[0].device if device is None else device
        batches = -(-len(self.sampler) // self.batch_size)
        if limit is not None:
            batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        self.batches = batches  # an epoch, whatever the group
        self._row_bytes = sum(t.element_size() * math.prod(t.shape[1:]) for t in self.tensors)
        self._given = 0  # items of this epoch that were handed out
        self._skip = 0  # items that a resumed epoch had already had

    @property
    def ahead(self) -> int:
        """How many epochs may be fetched at once: nothing is drawn at random, and they fit a block.

        No more than 32, so that the first are still in the processor's cache. A class that extends
        this one may draw: an epoch then is fetched when its random numbers have been started.
        """
        if type(self) is not TensorLoader:
            return 1
        rows = min(self.batches * self.batch_size, len(self.sampler))
        return min(max(1, BLOCK_BYTES // max(rows * self._row_bytes, 1)), 32)

    def __len__(self) -> int:
        return -(-self.batches // self.group)

    def __iter__(self) -> Iterator[Any]:
        # A generator starts at its first next(): after Lightning has set the epoch, not before.
        skip, self._skip = self._skip, 0
        self._given = skip
        for item in self._items(skip):
            self._given += 1
            yield item

    def _items(self, skip: int) -> Iterator[Any]:
        """Yield the batches, or the groups of batches, of this epoch, but for the first `skip`."""
        item = self.group * self.batch_size  # rows
        block = item * max(1, BLOCK_BYTES // max(item * self._row_bytes, 1))
        rows = min(self.batches * self.batch_size, len(self.sampler))
        order = None if self.sampler.in_order else self.sampler.order().to(self.tensors[0].device)
        # A resumed epoch starts with the block in which it was left: its batches then lie as far
        # into their memory as they did, where the kernels may round otherwise.
        for start in range(skip * item // block * block, rows, block):
            batches = self._batches(order, slice(start, min(start + block, rows)))
            items = batches if self.group == 1 else _lists(batches, self.group)
            yield from islice(items, max(skip - start // item, 0), None)

    def _batches(self, order: Tensor | None, rows: slice) -> Iterator[tuple[Tensor, ...]]:
        """Gather a block: these rows of the order."""
        if order is None:
            tensors = [tensor[rows] for tensor in self.tensors]
        else:
            tensors = [_gathered(tensor, order[rows]) for tensor in self.tensors]
        # `split` itself takes six times as long, for views that autograd could follow.
        parts = (torch.unsafe_split(tensor.to(self.device), self.batch_size) for tensor in tensors)
        return zip(*parts, strict=True)

    def state_dict(self) -> dict[str, int]:
        """Return how many items of the epoch were handed out; Lightning puts it in checkpoints."""
        return {"given": self._given, "group": min(self.group, self.batches)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Start the next epoch after what was handed out; a full epoch counts as nothing.

        Raises:
            ValueError: the epoch was left in its middle, with another number of batches an item.
        """
        if state["group"] == min(self.group, self.batches):
            self._skip = state["given"] % max(len(self), 1)
        elif state["given"] % max(-(-self.batches // state["group"]), 1):
            raise ValueError(
                f"the run was left amid an epoch with {state['group']} batches an execution (now"
                f" {self.group}): steps_per_execution can change at an epoch's end alone"
            )


def _gathered(tensor: Tensor, rows: Tensor) -> Tensor:
    if tensor.ndim == 2 and tensor.shape[1] == 1:  # torch gathers from a vector in half the time
        return tensor[:, 0].index_select(0, rows)[:, None]
    return tensor.index_select(0, rows)


def _lists(batches: Iterator[Any], length: int) -> Iterator[list[Any]]:
    while group := list(islice(batches, length)):
        yield group


class OrderedLoader(ResumableLoader):
    """A DataLoader over samples that do not fit in memory, in the order of an EpochSampler.

    A DataLoader that a data module returns from `train_dataloader` is made resumable by the engine.
    This class is for a loader of your own loop, and for a sampler that shares out the samples in
    its own way.

    Args:
        dataset: N samples.
        batch_size: B; the last batch of an epoch may be smaller.
        sampler: the order of the samples, and this rank's share; its seed is that of the noise.
        options: of the DataLoader: `num_workers`, `collate_fn`, `pin_memory`, ...
    """

    def __init__(
        self, dataset: Any, batch_size: int, *, sampler: EpochSampler, **options: Any
    ) -> None:
        loader: Any = DataLoader(dataset, batch_size, sampler=sampler, **options)
        super().__init__(loader, seed=sampler.seed)
