"""Which points are rare? With the recall of each class."""

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.classification import BinaryRecall, BinarySpecificity

from src.kindling.model import BaseModule, OptimizerFactory, SchedulerFactory


class Weighted(BaseModule):
    """Two values -> hidden ReLU -> one logit, trained with binary cross entropy."""

    def __init__(
        self,
        hidden_features: PositiveInt = 8,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler)
        self.save_hyperparameters(ignore=["optimizer", "scheduler"], logger=False)
        self.net = nn.Sequential(
            nn.Linear(2, hidden_features), nn.ReLU(), nn.Linear(hidden_features, 1)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Map points [B, 2] to logits [B]."""
        logits: Tensor = self.net(inputs)[:, 0]
        return logits

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross entropy of logits [B] against classes 0 and 1 [B]."""
        return F.binary_cross_entropy_with_logits(outputs, targets.float())

    def metrics(self) -> dict[str, Metric]:
        """Return the share of rare points that are found, and of others that are left alone."""
        return {"recall": BinaryRecall(), "specificity": BinarySpecificity()}
