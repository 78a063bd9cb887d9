"""The two-layer net of the tutorials, trained with a squared-error loss.

Letters: B batch, D features, H hidden units, C outputs.
"""

import math
from typing import Annotated, Literal

from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric, R2Score, SumMetric

from src.kindling.model import BaseModule, OptimizerFactory, SchedulerFactory
from src.nets import TwoLayerNet as Net


class TwoLayerNet(BaseModule):
    """D -> H ReLU -> C with a squared-error loss.

    Args:
        in_features: D, features per row.
        hidden_features: H, hidden units.
        out_features: C, values to predict per row.
        bias: whether the layers have a bias.
        reduction: "sum" adds up all squared errors of a batch, as the tutorials do; a larger batch
            then needs a lower learning rate. "mean" averages them.
        dropout: probability of dropping a hidden unit during training.
        optimizer: factory of the optimizer, called with the parameters.
        scheduler: factory of the learning-rate schedule.

    Source: the PyTorch tutorial "Learning PyTorch with Examples".
    """

    target = "value"

    def __init__(
        self,
        in_features: PositiveInt = 1000,
        hidden_features: PositiveInt = 100,
        out_features: PositiveInt = 10,
        bias: bool = True,
        reduction: Literal["sum", "mean"] = "sum",
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler)
        self.save_hyperparameters(ignore=["optimizer", "scheduler"], logger=False)
        self.in_features, self.out_features = in_features, out_features
        self.reduction = reduction
        self.net = Net(in_features, hidden_features, out_features, bias=bias, dropout=dropout)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the squared errors of outputs [B, C], summed or averaged."""
        return F.mse_loss(outputs, targets, reduction=self.reduction)

    def loss_metric(self) -> Metric:
        """Return a metric that sums a summed loss, so that it does not depend on the batch size."""
        return (
            SumMetric(nan_strategy=math.nan) if self.reduction == "sum" else super().loss_metric()
        )

    def metrics(self) -> dict[str, Metric]:
        """Return R2, averaged over the outputs."""
        return {"r2": R2Score()}
