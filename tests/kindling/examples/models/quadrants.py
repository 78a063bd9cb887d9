"""A classifier of points by the signs of their first two coordinates.

Letters: B batch, D features, C = 4 classes.
"""

from typing import Annotated

from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from src.kindling.model import BaseModule, OptimizerFactory, SchedulerFactory
from tests.kindling.examples.net import TwoLayers


class Quadrants(BaseModule):
    """D -> hidden ReLU -> 4 logits, trained with cross entropy."""

    target = "class"
    out_features = 4

    def __init__(
        self,
        in_features: PositiveInt = 3,
        hidden_features: PositiveInt = 16,
        bias: bool = True,
        label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler)
        self.save_hyperparameters(ignore=["optimizer", "scheduler"], logger=False)
        self.in_features, self.label_smoothing = in_features, label_smoothing
        self.net = TwoLayers(in_features, hidden_features, 4, bias, dropout)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross entropy of logits [B, C] against classes [B]."""
        smoothing = self.label_smoothing if self.training else 0.0
        return F.cross_entropy(outputs, targets, label_smoothing=smoothing)

    def metrics(self) -> dict[str, Metric]:
        """Return the share of points that are classified right."""
        return {"accuracy": MulticlassAccuracy(4, average="micro")}

    def predict_step(self, batch: Tensor, batch_idx: int = 0) -> Tensor:
        """Answer points [B, D] with the most probable classes [B]."""
        return super().predict_step(batch, batch_idx).argmax(dim=1)  # [B, C] -> [B]
