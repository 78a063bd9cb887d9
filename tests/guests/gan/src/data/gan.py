"""Points on a line."""

from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, TensorDataset


class GANData(pl.LightningDataModule):
    """Points (x, 2x)."""

    def __init__(self, rows: int = 60) -> None:
        super().__init__()
        self.save_hyperparameters()
        x = torch.randn(rows, 1, generator=torch.Generator().manual_seed(1))
        self.points = TensorDataset(torch.cat([x, 2 * x], dim=1))

    def train_dataloader(self) -> Any:
        """Yield shuffled batches of points."""
        return DataLoader(self.points, 20, shuffle=True)

    def test_dataloader(self) -> Any:
        """Yield all points."""
        return DataLoader(self.points, len(self.points))
