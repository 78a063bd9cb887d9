"""A line through points, with the squared error on the fold that is held out."""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Folds(pl.LightningModule):
    """Linear regression with SGD."""

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr, self.line = lr, nn.Linear(2, 1)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Return the mean squared error."""
        return F.mse_loss(self.line(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Log the mean squared error."""
        self.log("val/loss", F.mse_loss(self.line(batch[0]), batch[1]))

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Log the mean squared error."""
        self.log("test/loss", F.mse_loss(self.line(batch[0]), batch[1]))

    def predict_step(self, batch: list[Tensor], batch_idx: int = 0) -> Tensor:
        """Return values [B]."""
        values: Tensor = self.line(batch[0])[:, 0]
        return values

    def configure_optimizers(self) -> Any:
        """Return SGD."""
        return torch.optim.SGD(self.parameters(), self.lr)
