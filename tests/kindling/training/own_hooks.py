"""A module and callbacks that change their state in each hook, and log in some of them."""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import MaxMetric, SumMetric

from tests.kindling.noisy import Noisy
from tests.kindling.training.own_optimizers import Body, Rows

HOOKS = [
    f"on_{name}"
    for name in (
        *("train_epoch_start", "train_epoch_end", "train_batch_start", "train_batch_end"),
        *("validation_epoch_start", "validation_epoch_end", "validation_start", "validation_end"),
        *("validation_batch_start", "validation_batch_end", "before_zero_grad"),
        *("before_backward", "after_backward", "before_optimizer_step"),
    )
]
OF_MODULES = [f"on_validation_model_{name}" for name in ("eval", "train", "zero_grad")]


class Early(Callback):
    """Counts in each hook, the later the more; called before the module."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(HOOKS, 0)

    def state_dict(self) -> dict[str, Any]:
        return dict(self.counts)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.counts = dict(state_dict)

    def count(self, hook: str, trainer: Any, *_: Any) -> None:
        self.counts[hook] += trainer.global_step + 1


class Late(Early, Checkpoint):
    """Lightning calls this one after the module at an epoch's end, and after the engine's own."""


class Hooked(Body):
    """Counts in each hook; logs a value once per epoch, and metrics that nothing ever resets."""

    def __init__(self, width: int = 8, groups: int = 2) -> None:
        super().__init__(width, groups)
        for hook in [*HOOKS, *OF_MODULES]:
            self.register_buffer(hook.removeprefix("on_"), torch.zeros(()))
        self.rows, self.largest = SumMetric(), MaxMetric()

    def count(self, hook: str, *_: Any) -> None:
        self.get_buffer(hook.removeprefix("on_")).add_(self.global_step + 1)
        if hook == "on_train_epoch_start":
            self.log("start", float(self.global_step), on_step=False, on_epoch=True)
        if hook == "on_train_epoch_end":
            self.log("rows", self.rows.compute())

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.rows.update(len(batch[0]))
        if batch_idx == 0:
            self.log("first", batch[0].sum(), on_step=True, on_epoch=True)
            self.log("most", batch[0].max(), on_step=False, on_epoch=True, reduce_fx="max")
            self.largest(batch[0])
            self.log("largest", self.largest, on_step=False, on_epoch=True)
        return self.error(batch)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 0.01)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=1.0)
        config = {"scheduler": plateau, "monitor": "val/loss", "interval": "step", "frequency": 2}
        return {"optimizer": optimizer, "lr_scheduler": config | {"strict": False}}

    def configure_callbacks(self) -> list[Callback]:
        return [Late(), Early()]


class Drawn(Rows):
    """Validates on the shuffled training rows, in another order each time, and on noise."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def val_dataloader(self) -> Any:
        own = DataLoader(Noisy(), 4, shuffle=True, generator=self.generator)
        noisy = DataLoader(Noisy(), 4)
        return [self.train_dataloader(), own, noisy]


class Ordered(Body):
    """Validates with values that depend on the order of the rows, and on their noise."""

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        value = sum(part.double().mean() for part in batch)
        self.log("order", value * (batch_idx + 1), add_dataloader_idx=True)
        if dataloader_idx == 0:
            self.log("val/loss", self.error(batch), add_dataloader_idx=False)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.01)


def counting(hook: str, base: type) -> Callable[..., None]:
    def called(self: Any, *arguments: Any) -> None:
        getattr(base, hook)(self, *arguments)
        self.count(hook, *arguments)

    return called


for name in HOOKS:
    setattr(Early, name, counting(name, Callback))
for name in [*HOOKS, *OF_MODULES]:
    setattr(Hooked, name, counting(name, pl.LightningModule))
