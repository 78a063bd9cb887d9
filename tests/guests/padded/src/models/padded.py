"""The sum and the length of sequences of different lengths.

Letters: B batch, T numbers.
"""

from typing import Any

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from src.kindling.model import BaseModule, OptimizerFactory, SchedulerFactory


class Padded(BaseModule):
    """Two heads over the masked mean of what each number becomes.

    Args:
        hidden_features: features per number.
        optimizer: makes the optimizer from the parameters.
        scheduler: makes the learning-rate schedule.
    """

    def __init__(
        self,
        hidden_features: PositiveInt = 8,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler)
        self.save_hyperparameters(ignore=["optimizer", "scheduler"], logger=False)
        self.features = nn.Linear(1, hidden_features)
        self.heads = nn.Linear(hidden_features, 2)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Map numbers and mask [B, T] to two values [B, 2]."""
        features = self.features(inputs["numbers"][..., None]).relu()  # [B, T, D]
        outputs: Tensor = self.heads((features * inputs["mask"][..., None]).sum(1))
        return outputs

    def training_loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the sum of both losses, and log each."""
        sums, lengths = self(batch).unbind(1)
        losses = {
            "sum": F.mse_loss(sums, batch["sum"]),
            "length": F.mse_loss(lengths, batch["mask"].sum(1)),
        }
        stage = "train" if self.training else "val" if self.trainer.validating else "test"
        self.log_dict({f"{stage}/{n}": v for n, v in losses.items()}, batch_size=len(sums))
        return losses["sum"] + losses["length"]

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the loss."""
        self.log("val/loss", self.training_loss(batch), batch_size=len(batch["sum"]))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Log the loss."""
        self.log("test/loss", self.training_loss(batch), batch_size=len(batch["sum"]))

    def predict_step(self, batch: Any, batch_idx: int = 0) -> Any:
        """Return both values of each sequence."""
        sums, lengths = self(batch).unbind(1)
        return {"sum": sums, "length": lengths}
