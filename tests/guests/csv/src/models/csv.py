"""Prices of houses, standardized by what the training rows are like.

Letters: B batch, D features.
"""

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from src.kindling.model import BaseModule, OptimizerFactory, SchedulerFactory


class CSVModel(BaseModule):
    """A network with a hidden layer on standardized features; a missing one is the mean.

    Args:
        hidden_features: units of the hidden layer.
        optimizer: makes the optimizer from the parameters.
        scheduler: makes the learning-rate schedule.
    """

    in_features = 5
    out_features = 1
    target = "value"
    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        hidden_features: PositiveInt = 8,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler)
        self.save_hyperparameters(ignore=["optimizer", "scheduler"], logger=False)
        self.net = nn.Sequential(
            nn.Linear(5, hidden_features), nn.ReLU(), nn.Linear(hidden_features, 1)
        )
        # Buffers: a checkpoint carries them to new files.
        self.register_buffer("mean", torch.zeros(6))  # of the features, and of the price
        self.register_buffer("deviation", torch.ones(6))

    def on_fit_start(self) -> None:
        """Measure the training rows, unless a checkpoint has said what they are like."""
        if self.mean.any():
            return
        inputs, targets = self.trainer.datamodule.split("train")  # type: ignore[attr-defined]
        columns = torch.cat([inputs, targets], dim=1).T.to(self.mean)
        known = [column[~column.isnan()] for column in columns]
        self.mean.copy_(torch.stack([column.mean() for column in known]))
        self.deviation.copy_(torch.stack([column.std() for column in known]))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map features [B, D], some of them NaN, to prices [B, 1]."""
        standard = (inputs - self.mean[:-1]) / self.deviation[:-1]
        prices: Tensor = self.net(standard.nan_to_num(0.0))
        return prices * self.deviation[-1] + self.mean[-1]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean squared error in units of the training prices' deviation."""
        return F.mse_loss(outputs / self.deviation[-1], targets / self.deviation[-1])
