"""Points on the plane, through torch's own DataLoader."""

from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, TensorDataset, random_split


class PlainData(pl.LightningDataModule):
    """Points and whether they lie above the diagonal."""

    def __init__(self, columns: list[str], batch_size: int = 20) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        """Draw the points, and split them."""
        points = torch.randn(120, 2, generator=torch.Generator().manual_seed(1))
        rows = TensorDataset(points, (points[:, 0] > points[:, 1]).long())
        parts = random_split(rows, [80, 20, 20], torch.Generator().manual_seed(2))
        self.train, self.val, self.test = parts

    def train_dataloader(self) -> Any:
        """Yield shuffled batches."""
        return DataLoader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> Any:
        """Yield the validation points."""
        return DataLoader(self.val, self.batch_size)

    def test_dataloader(self) -> Any:
        """Yield the test points."""
        return DataLoader(self.test, self.batch_size)
