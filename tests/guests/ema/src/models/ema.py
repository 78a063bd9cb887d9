"""A noisy sine, for weights that are averaged over the last steps."""

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from src.kindling.model import BaseModule, OptimizerFactory, SchedulerFactory


class EMA(BaseModule):
    """One value -> hidden tanh -> one value, trained with the squared error."""

    def __init__(
        self,
        hidden_features: PositiveInt = 8,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler)
        self.save_hyperparameters(ignore=["optimizer", "scheduler"], logger=False)
        self.net = nn.Sequential(
            nn.Linear(1, hidden_features), nn.Tanh(), nn.Linear(hidden_features, 1)
        )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean squared error of values [B, 1]."""
        return F.mse_loss(outputs, targets)
