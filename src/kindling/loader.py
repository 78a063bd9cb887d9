"""Load batches from tensors in memory: gather a block of rows, then split it into batches.

`DataLoader(TensorDataset(...))` collates sample by sample, which for small rows costs far more than
the training step. Here the order depends only on (seed, epoch), so a resumed run sees the batches
that it would have seen. A small data set is one block, gathered once per epoch; a large one needs
memory for at most two blocks in addition to the data.

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

# Size of a block. Gathering entire epochs of a million rows took a third longer, because it
# allocates fresh memory each time; between 1 and 16 MB the size makes no difference.
BLOCK_BYTES = 8 * 2**20


class EpochSampler:
    """The order of the rows in an epoch, and this rank's share of it.

    Also works in a `DataLoader(sampler=...)`. Lightning calls `set_epoch` when an epoch starts.

    Args:
        rows: N.
        shuffle: whether to shuffle the rows each epoch.
        seed: the order depends only on (seed, epoch).
        rank: index of this process among `world_size` processes.
        world_size: processes that share the rows; rank r takes rows r, r + world_size, ...
        pad: repeat rows from the start until all ranks have the same number, as training with
            synchronized gradients requires; without it, each row is seen exactly once.
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
        """Set the epoch (from 0) of the next order."""
        self.epoch = epoch

    @property
    def in_order(self) -> bool:
        """Whether this rank takes all rows in their original order."""
        return not self.shuffle and self.world_size == 1

    def order(self) -> Tensor:
        """Return this rank's row indices for this epoch, [N / world_size] of int64."""
        if self.shuffle:
            # NumPy's generator mixes both numbers; torch's uses 32 bits of a single one.
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
        sampler: the order of the rows; by default the original order.
        device: device of the batches, by default that of the tensors; an entire block is moved at
            once.

    Raises:
        ValueError: the tensors differ in their number of rows.
    """

    batch_sampler = None  # Lightning reads it from any loader with a sampler

    def __init__(
        self,
        tensors: Sequence[Tensor],
        batch_size: int,
        *,
        sampler: EpochSampler | None = None,
        device: torch.device | None = None,
    ) -> None:
        if len({len(tensor) for tensor in tensors}) != 1:
            raise ValueError(f"rows differ: {[len(tensor) for tensor in tensors]}")
        self.tensors = tuple(tensors)
        self.batch_size = batch_size
        self.sampler = EpochSampler(len(tensors[0])) if sampler is None else sampler
        self.device = tensors[0].device if device is None else device
        self._row_bytes = sum(t.element_size() * math.prod(t.shape[1:]) for t in self.tensors)
        self._given = 0  # batches yielded in this epoch
        self._skip = 0  # batches that a resumed epoch has already yielded

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        # A generator starts at the first next(), after Lightning has set the epoch.
        skip, self._skip = self._skip, 0
        self._given = skip
        for batch in self._rest(skip):
            self._given += 1
            yield batch

    def _rest(self, skip: int) -> Iterator[tuple[Tensor, ...]]:
        """Yield the batches of this epoch, except the first `skip`."""
        size, rows = self.batch_size, len(self.sampler)
        block = size * max(1, BLOCK_BYTES // max(size * self._row_bytes, 1))
        order = None if self.sampler.in_order else self.sampler.order().to(self.tensors[0].device)
        # A resumed epoch starts at the block in which it was interrupted: its batches then have the
        # same memory alignment as before, on which the rounding of kernels may depend.
        for start in range(skip * size // block * block, rows, block):
            batches = self._batches(order, slice(start, min(start + block, rows)))
            yield from islice(batches, max(skip - start // size, 0), None)

    def _batches(self, order: Tensor | None, rows: slice) -> Iterator[tuple[Tensor, ...]]:
        """Gather a block of rows, and split it into batches."""
        if order is None:
            tensors = [tensor[rows] for tensor in self.tensors]
        else:
            tensors = [_gathered(tensor, order[rows]) for tensor in self.tensors]
        # `split` takes six times as long, because autograd tracks its views.
        parts = (torch.unsafe_split(tensor.to(self.device), self.batch_size) for tensor in tensors)
        return zip(*parts, strict=True)

    def state_dict(self) -> dict[str, int]:
        """Return how many batches of the epoch were yielded; Lightning saves it in checkpoints."""
        return {"given": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume after the batches that were yielded; after a complete epoch, at its start."""
        given = state["given"] * state.get("group", 1)  # older versions counted groups of batches
        self._skip = given if given < len(self) else 0


def _gathered(tensor: Tensor, rows: Tensor) -> Tensor:
    if tensor.ndim == 2 and tensor.shape[1] == 1:  # gathering from a vector takes half the time
        return tensor[:, 0].index_select(0, rows)[:, None]
    return tensor.index_select(0, rows)


class OrderedLoader(ResumableLoader):
    """A DataLoader over samples that do not fit in memory, in the order of an EpochSampler.

    The engine makes the DataLoaders that `train_dataloader` returns resumable by itself. Use this
    class in your own training loop, or with a sampler that distributes samples differently.

    Args:
        dataset: N samples.
        batch_size: B; the last batch of an epoch may be smaller.
        sampler: the order of the samples, and this rank's share; its seed also seeds their noise.
        options: arguments of the DataLoader: `num_workers`, `collate_fn`, `pin_memory`, ...
    """

    def __init__(
        self, dataset: Any, batch_size: int, *, sampler: EpochSampler, **options: Any
    ) -> None:
        loader: Any = DataLoader(dataset, batch_size, sampler=sampler, **options)
        super().__init__(loader, seed=sampler.seed)
