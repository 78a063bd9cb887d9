"""Horizontal or vertical stripes?

Letters: B batch, H height, W width.
"""

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from src.kindling.model import BaseModule, OptimizerFactory, SchedulerFactory


class Images(BaseModule):
    """A convolution with BatchNorm, and a linear layer.

    Args:
        channels: of the convolution.
        optimizer: makes the optimizer from the parameters.
        scheduler: makes the learning-rate schedule.
    """

    def __init__(
        self,
        channels: PositiveInt = 4,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler)
        self.save_hyperparameters(ignore=["optimizer", "scheduler"], logger=False)
        self.net = nn.Sequential(
            nn.Conv2d(1, channels, 3),  # [B, 1, 8, 8] -> [B, channels, 6, 6]
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(channels * 36, 2),
        )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross entropy of logits [B, 2] against classes [B]."""
        return F.cross_entropy(outputs, targets)

    def metrics(self) -> dict[str, Metric]:
        """Return the share of images that are answered right."""
        return {"accuracy": MulticlassAccuracy(2, average="micro")}
