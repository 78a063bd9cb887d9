"""A new head on a pretrained backbone, whose layers are unfrozen later.

Letters: B batch, F = 16 features.
"""

from typing import Any

import torch
from lightning.pytorch.callbacks import BaseFinetuning
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from src.kindling.model import BaseModule, OptimizerFactory, SchedulerFactory


def pretrained() -> nn.Module:
    """Return a backbone, [B, 8] -> [B, F], with the weights that a library would download."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU())


class Finetuned(BaseModule):
    """The backbone and a linear head with a row per class."""

    target = "class"

    def __init__(
        self,
        classes: PositiveInt = 3,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler)
        self.save_hyperparameters(ignore=["optimizer", "scheduler"], logger=False)
        self.classes, self.backbone, self.head = classes, pretrained(), nn.Linear(16, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs [B, 8] to logits [B, classes]."""
        logits: Tensor = self.head(self.backbone(inputs))
        return logits

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross entropy of logits [B, classes] against classes [B]."""
        return F.cross_entropy(outputs, targets)

    def metrics(self) -> dict[str, Metric]:
        """Return the share of rows that are classified right."""
        return {"accuracy": MulticlassAccuracy(self.classes, average="micro")}

    def configure_optimizers(self) -> Any:
        """Train what is not frozen: the head, and later the backbone too."""
        assert self.optimizer_factory is not None
        return self.optimizer_factory([p for p in self.parameters() if p.requires_grad])


class Unfreezing(BaseFinetuning):
    """Freeze the backbone before training, and train it from an epoch on.

    Args:
        epoch: the first in which the backbone is trained.
        lr: its learning rate.
    """

    def __init__(self, epoch: NonNegativeInt = 2, lr: PositiveFloat = 0.001) -> None:
        super().__init__()
        self.epoch, self.lr = epoch, lr

    def freeze_before_training(self, pl_module: Any) -> None:
        """Freeze the backbone, but not the statistics of its BatchNorm."""
        self.freeze(pl_module.backbone, train_bn=False)

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        """Add the backbone's parameters to the optimizer."""
        if epoch == self.epoch:
            self.unfreeze_and_add_param_group(pl_module.backbone, optimizer, lr=self.lr)
