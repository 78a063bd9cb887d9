"""Models whose optimizers a user has written, in the ways that Lightning allows."""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import BaseFinetuning
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, Optimizer
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric


class Rows(pl.LightningDataModule):
    """Forty rows of three features, and their sums."""

    def train_dataloader(self, shuffle: bool = True) -> Any:
        rows = torch.rand(40, 3, generator=torch.Generator().manual_seed(0))
        return DataLoader(TensorDataset(rows, rows.sum(1, keepdim=True)), 10, shuffle=shuffle)

    def val_dataloader(self) -> Any:
        return self.train_dataloader(shuffle=False)


class Body(pl.LightningModule):
    """A backbone with BatchNorm, and a head."""

    def __init__(self, width: int = 8, groups: int = 2) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.groups = groups
        self.backbone = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.ReLU())
        self.head = nn.Linear(width, 1)

    def error(self, batch: list[Tensor]) -> Tensor:
        return F.mse_loss(self.head(self.backbone(batch[0])), batch[1])

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.error(batch)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val/loss", self.error(batch))


class Groups(Body):
    """Weight decay on matrices alone, and a schedule over all steps of the run."""

    def configure_optimizers(self) -> Any:
        matrices = [p for p in self.parameters() if p.dim() > 1]
        vectors = [p for p in self.parameters() if p.dim() < 2]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors}]
        one = [{"params": [*matrices, *vectors]}]
        optimizer = Adam(groups if self.groups == 2 else one, 0.01, weight_decay=0.0)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


class Two(Body):
    """An optimizer for the backbone, another for the head, by manual optimization."""

    def __init__(self, width: int = 8, groups: int = 2) -> None:
        super().__init__(width, groups)
        self.automatic_optimization = False

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        optimizers: Any = self.optimizers(use_pl_optimizer=True)
        for optimizer in optimizers if isinstance(optimizers, list) else [optimizers]:
            optimizer.zero_grad()
            self.manual_backward(self.error(batch))
            optimizer.step()

    def configure_optimizers(self) -> Any:
        if self.groups == 1:
            return Adam(self.parameters(), 0.01)
        return [Adam(self.backbone.parameters(), 0.01), SGD(self.head.parameters(), 0.1, 0.9)]


class Gan(Two):
    """A generator of rows and a critic, which take turns within a step; `toggle_optimizer`."""

    def __init__(self, width: int = 8, groups: int = 2) -> None:
        super().__init__(width, groups)
        self.generator = nn.Linear(2, 3)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        critic, generator = self.optimizers()  # type: ignore[misc]
        made = self.generator(torch.randn(len(batch[0]), 2))
        for optimizer, sign in ((critic, 1.0), (generator, -1.0)):
            self.toggle_optimizer(optimizer)
            optimizer.zero_grad()
            real, fake = (self.head(self.backbone(rows)).mean() for rows in (batch[0], made))
            self.manual_backward(sign * (fake - real))
            optimizer.step()
            self.untoggle_optimizer(optimizer)
            made = self.generator(torch.randn(len(batch[0]), 2))

    def configure_optimizers(self) -> Any:
        critic = [*self.backbone.parameters(), *self.head.parameters()]
        both = [Adam(critic, 0.01), Adam(self.generator.parameters(), 0.01)]
        return (both, []) if self.groups == 2 else both[0]


class Tuned(Body):
    """Starts with the head alone; `Unfreeze` adds the backbone."""

    def configure_optimizers(self) -> Any:
        return Adam((p for p in self.parameters() if p.requires_grad), 0.01)


class Unfreeze(BaseFinetuning):
    """Trains the backbone from an epoch on."""

    def __init__(self, epoch: int = 2) -> None:
        super().__init__()
        self.epoch = epoch

    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.backbone, train_bn=False)

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Optimizer) -> None:
        if epoch == self.epoch:
            self.unfreeze_and_add_param_group(pl_module.backbone, optimizer, initial_denom_lr=2.0)


class Averaged(Body):
    """A head whose average follows each batch, in the module's last hook; a plateau per epoch."""

    def __init__(self, width: int = 8, groups: int = 2) -> None:
        super().__init__(width, groups)
        self.average = nn.Linear(width, 1).requires_grad_(False)
        self.seen = MeanMetric()

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = self.error(batch)
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        self.seen(batch[0])
        self.log("seen", self.seen, on_step=False, on_epoch=True)
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        for mean, weight in zip(self.average.parameters(), self.head.parameters(), strict=True):
            mean.data.lerp_(weight.data, 0.1)

    def configure_optimizers(self) -> Any:
        optimizer = SGD(self.parameters(), 0.01)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=1.0)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "monitor": "val/loss"},
        }


class Accumulating(Two):
    """Steps after every third batch, by manual optimization; gradients wait across epochs."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        self.manual_backward(self.error(batch))
        self.batches = getattr(self, "batches", self.trainer.fit_loop.total_batch_idx) + 1
        if self.batches % 3 == 0:
            optimizer.step()
            optimizer.zero_grad()

    def configure_optimizers(self) -> Any:
        return Adam(self.parameters(), 0.01)
