"""A classifier of points, written for Lightning before it came here."""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Plain(pl.LightningModule):
    """A small network with `self.log` and an optimizer of its own."""

    def __init__(self, width: int = 16, rate: float = 0.05) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.rate = rate
        self.net = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 2))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, 2] of points [B, 2]."""
        logits: Tensor = self.net(x)
        return logits

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Log and return the cross entropy."""
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss, on_epoch=True, on_step=False)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Log the cross entropy."""
        self.log("val/loss", F.cross_entropy(self(batch[0]), batch[1]))

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Log the cross entropy."""
        self.log("test/loss", F.cross_entropy(self(batch[0]), batch[1]))

    def predict_step(self, batch: list[Tensor], batch_idx: int = 0) -> Tensor:
        """Return classes [B]."""
        classes: Tensor = self(batch[0]).argmax(dim=1)
        return classes

    def configure_optimizers(self) -> Any:
        """Return Adam with a schedule that Lightning steps once per epoch."""
        optimizer = torch.optim.Adam(self.parameters(), lr=self.rate)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)]
