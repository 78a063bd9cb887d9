"""Sets of one to nine points, in batches of like sizes.

Letters: B sets, M points of all of them, L = 3 labels.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from src.kindling.data import BaseData

Row = tuple[Tensor, Tensor]


@dataclass
class Sets:
    """Points [M, 2], the set of each point [M], and labels [B, L]."""

    points: Tensor
    owners: Tensor
    labels: Tensor


class Rows(Dataset[Row]):
    """Sets and their labels; in training a point is left out now and then."""

    def __init__(self, number: int, seed: int, drops: bool = False) -> None:
        generator = torch.Generator().manual_seed(seed)
        sizes = torch.randint(1, 10, (number,), generator=generator).tolist()
        self.sets = [torch.randn(size, 2, generator=generator) for size in sizes]
        self.drops = drops

    def __getitem__(self, index: int) -> Row:
        points = self.sets[index]
        labels = torch.tensor([points.sum() > 0, points[:, 0].max() > 2, len(points) > 5]).float()
        kept = points[torch.rand(len(points)) > 0.1] if self.drops else points
        return (kept if len(kept) else points), labels

    def __len__(self) -> int:
        return len(self.sets)


class BySize(Sampler[list[int]]):
    """Batches of sets of like sizes, in a new order each epoch, and not the same sets."""

    def __init__(self, rows: Rows, batch_size: int) -> None:
        self.rows, self.batch_size = rows, batch_size

    def __iter__(self) -> Iterator[list[int]]:
        sizes = [(len(points), random.random()) for points in self.rows.sets]
        order = sorted(range(len(sizes)), key=sizes.__getitem__)
        starts = list(range(0, len(order), self.batch_size))
        random.shuffle(starts)
        for start in starts:
            yield order[start : start + self.batch_size]

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)


def collated(rows: list[Row]) -> Sets:
    """Join rows into a batch."""
    owners = [torch.full((len(points),), place) for place, (points, _) in enumerate(rows)]
    points, labels = zip(*rows, strict=True)
    return Sets(torch.cat(points), torch.cat(owners), torch.stack(labels))


class RaggedData(BaseData):
    """Sets of points.

    Args:
        batch_size: sets per batch.
        num_workers: processes that read the training sets.
        seed: all sets and orders follow from it.
    """

    def __init__(
        self,
        batch_size: PositiveInt = 8,
        num_workers: NonNegativeInt = 0,
        seed: NonNegativeInt = 0,
    ) -> None:
        super().__init__(batch_size, True, seed)
        self.save_hyperparameters(logger=False)
        self.num_workers = num_workers

    def rows(self, number: int) -> Rows:
        """Return the training (0), validation (1) or test (2) rows."""
        return Rows((60, 20, 20)[number], 3 * self.seed + number, drops=number == 0)

    def rarity(self) -> Tensor:
        """Return how many sets lack a label for each that has it [L]."""
        share = torch.stack([labels for _, labels in map(self.rows(0).__getitem__, range(60))])
        return (1 - share.mean(0)) / share.mean(0).clamp(min=0.05)

    def train_dataloader(self) -> Any:
        """Yield batches of like sizes."""
        rows = self.rows(0)
        batches = BySize(rows, self.batch_size)
        return DataLoader(
            rows, batch_sampler=batches, collate_fn=collated, num_workers=self.num_workers
        )

    def val_dataloader(self) -> Any:
        """Yield the validation sets."""
        return DataLoader(self.rows(1), self.batch_size, collate_fn=collated)

    def test_dataloader(self) -> Any:
        """Yield the test sets."""
        return DataLoader(self.rows(2), self.batch_size, collate_fn=collated)
