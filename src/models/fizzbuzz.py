"""FizzBuzz as classification: which of number, fizz, buzz or fizzbuzz is it?

Letters: B batch, D binary digits, H hidden units, C = 4 classes.
"""

from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from src.kindling.model import BaseModule, OptimizerFactory, SchedulerFactory
from src.nets import TwoLayerNet

CLASSES = 4  # the number itself, fizz, buzz, fizzbuzz


class FizzBuzz(BaseModule):
    """A two-layer net over the binary digits of a number, trained with cross entropy.

    Args:
        num_digits: D, binary digits of a number, least significant first, as 0 and 1.
        hidden_features: H, hidden units.
        signed_digits: feed the digits as -1 and +1, so that a 0 carries as much signal as a 1.
        label_smoothing: fraction of each target that is spread over all classes during training;
            the validation and test losses are not smoothed.
        dropout: probability of dropping a hidden unit during training.
        optimizer: factory of the optimizer, called with the parameters.
        scheduler: factory of the learning-rate schedule.

    Source: Joel Grus, "Fizz Buzz in Tensorflow" (2016), by way of the PyTorch tutorial;
    Szegedy et al., "Rethinking the Inception architecture" (2016) for the label smoothing.
    """

    target = "class"
    out_features = CLASSES
    smooth_targets: Tensor

    def __init__(
        self,
        num_digits: PositiveInt = 10,
        hidden_features: PositiveInt = 100,
        signed_digits: bool = False,
        label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler)
        self.save_hyperparameters(ignore=["optimizer", "scheduler"], logger=False)
        self.in_features = num_digits
        self.signed_digits, self.smooths = signed_digits, label_smoothing > 0
        self.net = TwoLayerNet(num_digits, hidden_features, CLASSES, dropout=dropout)
        smooth = torch.eye(CLASSES) * (1 - label_smoothing) + label_smoothing / CLASSES
        self.register_buffer("smooth_targets", smooth, persistent=False)  # [C, C]

    def forward(self, inputs: Tensor) -> Tensor:
        """Map digits [B, D] of 0 and 1 to logits [B, C]."""
        logits: Tensor = self.net(inputs * 2 - 1 if self.signed_digits else inputs)
        return logits

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross entropy of logits [B, C] against classes [B]."""
        if self.training and self.smooths:
            # The same as cross_entropy's label_smoothing, with half as many kernels.
            targets = self.smooth_targets.index_select(0, targets)  # [B] -> [B, C]
        return F.cross_entropy(outputs, targets)

    def metrics(self) -> dict[str, Metric]:
        """Return the accuracy: the fraction of numbers answered correctly."""
        return {"accuracy": MulticlassAccuracy(CLASSES, average="micro")}

    def predict_step(self, batch: Tensor, batch_idx: int = 0) -> Tensor:
        """Map digits [B, D] to the most probable classes [B]."""
        return super().predict_step(batch, batch_idx).argmax(dim=1)  # [B, C] -> [B]
