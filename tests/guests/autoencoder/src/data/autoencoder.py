"""Eight numbers that two numbers explain."""

from typing import Any

import torch
from torch.utils.data import DataLoader

from src.kindling.data import BaseData


class AutoencoderData(BaseData):
    """Products of two normal numbers and a fixed matrix.

    Args:
        batch_size: rows per batch.
        seed: of the rows.
    """

    def __init__(self, batch_size: int = 10, seed: int = 0) -> None:
        super().__init__(batch_size, True, seed)
        self.save_hyperparameters(logger=False)
        generator = torch.Generator().manual_seed(seed)
        hidden, mixing = torch.randn(60, 2, generator=generator), torch.eye(2, 8)
        self.rows: Any = list(hidden @ mixing)

    def train_dataloader(self) -> Any:
        """Yield forty rows, shuffled."""
        return DataLoader(self.rows[:40], self.batch_size, shuffle=True)

    def val_dataloader(self) -> Any:
        """Yield ten rows."""
        return DataLoader(self.rows[40:50], self.batch_size)

    def test_dataloader(self) -> Any:
        """Yield ten rows."""
        return DataLoader(self.rows[50:], self.batch_size)
