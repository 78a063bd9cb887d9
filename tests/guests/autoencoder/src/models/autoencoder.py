"""Eight numbers through two, and back.

Letters: B batch.
"""

from typing import Any

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from src.kindling.model import BaseModule, OptimizerFactory, SchedulerFactory


class Autoencoder(BaseModule):
    """A linear encoder and decoder.

    Args:
        code_features: numbers in between.
        optimizer: makes the optimizer from the parameters.
        scheduler: makes the learning-rate schedule.
    """

    def __init__(
        self,
        code_features: PositiveInt = 2,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler)
        self.save_hyperparameters(ignore=["optimizer", "scheduler"], logger=False)
        self.net = nn.Sequential(nn.Linear(8, code_features), nn.Linear(code_features, 8))

    def training_loss(self, batch: Any) -> Tensor:
        """Return the mean squared error of the reconstruction."""
        return F.mse_loss(self(batch), batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the loss."""
        self.log("val/loss", self.training_loss(batch))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Log the loss."""
        self.log("test/loss", self.training_loss(batch))
