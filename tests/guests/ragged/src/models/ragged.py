"""Which of three properties does a set of points have?

Letters: B sets, M points of all of them, D features, L = 3 labels.
"""

from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from src.kindling.model import BaseModule, OptimizerFactory, SchedulerFactory


class Ragged(BaseModule):
    """Deep Sets: what each point becomes is added up over its set.

    Args:
        hidden_features: D.
        optimizer: makes the optimizer from the parameters.
        scheduler: makes the learning-rate schedule.
    """

    rarity: Tensor

    def __init__(
        self,
        hidden_features: PositiveInt = 16,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler)
        self.save_hyperparameters(ignore=["optimizer", "scheduler"], logger=False)
        self.point = nn.Linear(2, hidden_features)
        self.head = nn.Linear(hidden_features, 3)
        self.register_buffer("rarity", torch.ones(3))  # weights of the labels [L]

    def on_fit_start(self) -> None:
        """Weight the labels by how rare they are among the training rows."""
        self.rarity.copy_(self.trainer.datamodule.rarity())  # type: ignore[attr-defined]

    def forward(self, sets: Any) -> Tensor:
        """Map sets, a `Sets` of the data, to logits [B, L]."""
        features = self.point(sets.points).relu()  # [M, D]
        sums = features.new_zeros(sets.labels.shape[0], features.shape[1])
        logits: Tensor = self.head(sums.index_add(0, sets.owners, features))
        return logits

    def training_loss(self, batch: Any) -> Tensor:
        """Return the weighted mean cross entropy of logits [B, L] against labels [B, L]."""
        logits = self(batch)
        return F.binary_cross_entropy_with_logits(logits, batch.labels, pos_weight=self.rarity)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the unweighted loss."""
        self.log("val/loss", self.plain_loss(batch), batch_size=len(batch.labels))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Log the unweighted loss."""
        self.log("test/loss", self.plain_loss(batch), batch_size=len(batch.labels))

    def plain_loss(self, batch: Any) -> Tensor:
        """Return the mean cross entropy."""
        return F.binary_cross_entropy_with_logits(self(batch), batch.labels)

    def predict_step(self, batch: Any, batch_idx: int = 0) -> Any:
        """Return whether each label applies [B, L]."""
        return {"labels": self(batch) > 0}
