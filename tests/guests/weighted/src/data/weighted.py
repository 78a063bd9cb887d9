"""Points on the plane, one in ten of them in the corner that is looked for."""

from typing import Any

import lightning.pytorch as pl
import torch
from pydantic import NonNegativeInt, PositiveInt
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler


class WeightedData(pl.LightningDataModule):
    """Points [2] and classes; in training both classes are drawn as often.

    Args:
        batch_size: points per batch.
        seed: of the points.
    """

    def __init__(self, batch_size: PositiveInt = 10, seed: NonNegativeInt = 0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.batch_size, self.seed = batch_size, seed

    def rows(self, number: int) -> TensorDataset:
        """Draw the points of the training (0), validation (1) or test (2) rows."""
        generator = torch.Generator().manual_seed(3 * self.seed + number)
        points, classes = torch.randn(80, 2, generator=generator), torch.arange(80) % 10 == 0
        return TensorDataset(points + 1.5 * classes[:, None], classes.long())

    def train_dataloader(self) -> Any:
        """Yield eighty points, drawn with replacement."""
        rows = self.rows(0)
        classes = rows.tensors[1]
        weights = (1 / classes.bincount())[classes].tolist()
        sampler = WeightedRandomSampler(weights, len(rows))
        return DataLoader(rows, self.batch_size, sampler=sampler)

    def val_dataloader(self) -> Any:
        """Yield eighty points as often as they are."""
        return DataLoader(self.rows(1), self.batch_size)

    def test_dataloader(self) -> Any:
        """Yield eighty points as often as they are."""
        return DataLoader(self.rows(2), self.batch_size)
