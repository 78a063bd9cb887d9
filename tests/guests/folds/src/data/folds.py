"""Sixty rows in k folds: one is validated and tested on, the others are trained on."""

from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset


class FoldsData(pl.LightningDataModule):
    """Rows [2] and a noisy sum of them.

    Args:
        folds: k.
        fold: the one that is held out, from 0.
    """

    def __init__(self, folds: int = 3, fold: int = 0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.folds, self.fold = folds, fold
        generator = torch.Generator().manual_seed(1)
        x, noise = (torch.randn(60, n, generator=generator) for n in (2, 1))
        self.rows = TensorDataset(x, x.sum(1, keepdim=True) + 0.1 * noise)

    def part(self, held_out: bool) -> Any:
        """Return the rows of this fold, or of the others."""
        indices = [i for i in range(60) if (i % self.folds == self.fold) == held_out]
        return Subset(self.rows, indices)

    def train_dataloader(self) -> Any:
        """Yield the rows of the other folds, shuffled."""
        return DataLoader(self.part(False), 10, shuffle=True)

    def val_dataloader(self) -> Any:
        """Yield the rows of this fold."""
        return DataLoader(self.part(True), 10)

    test_dataloader = val_dataloader
