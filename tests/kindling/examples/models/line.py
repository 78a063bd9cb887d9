"""A linear regression, which one optimizer step per epoch brings to least squares.

Letters: B batch, D features, C outputs.
"""

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from src.kindling.model import BaseModule, OptimizerFactory, SchedulerFactory


class Line(BaseModule):
    """D -> C, linear, trained with the mean squared error."""

    target = "value"

    def __init__(
        self,
        in_features: PositiveInt = 2,
        out_features: PositiveInt = 1,
        bias: bool = False,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler)
        self.save_hyperparameters(ignore=["optimizer", "scheduler"], logger=False)
        self.in_features, self.out_features = in_features, out_features
        self.net = nn.Linear(in_features, out_features, bias=bias)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean squared error of outputs [B, C]."""
        return F.mse_loss(outputs, targets)

    def parameter_metrics(self) -> dict[str, Tensor]:
        """Return the norm of the weights, a metric that needs no batch."""
        return {"norm": self.net.weight.norm()}
