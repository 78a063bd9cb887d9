"""A network that learns what another network, its teacher, computes.

Letters: B batch, D features, C outputs.
"""

import math
from typing import Annotated, Literal

from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric, R2Score, SumMetric

from src.kindling.model import BaseModule, OptimizerFactory, SchedulerFactory
from tests.kindling.examples.net import TwoLayers


class Teacher(BaseModule):
    """D -> hidden ReLU -> C, trained with the squared error, summed or averaged."""

    target = "value"

    def __init__(
        self,
        in_features: PositiveInt = 20,
        hidden_features: PositiveInt = 16,
        out_features: PositiveInt = 3,
        bias: bool = True,
        reduction: Literal["sum", "mean"] = "sum",
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler)
        self.save_hyperparameters(ignore=["optimizer", "scheduler"], logger=False)
        self.in_features, self.out_features, self.reduction = in_features, out_features, reduction
        self.net = TwoLayers(in_features, hidden_features, out_features, bias, dropout)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the squared errors of outputs [B, C], summed or averaged."""
        return F.mse_loss(outputs, targets, reduction=self.reduction)

    def loss_metric(self) -> Metric:
        """Add up what is a sum, so that the number does not depend on the batch size."""
        return (
            SumMetric(nan_strategy=math.nan) if self.reduction == "sum" else super().loss_metric()
        )

    def metrics(self) -> dict[str, Metric]:
        """Return R2, averaged over the outputs."""
        return {"r2": R2Score()}
