"""The LightningModule that the models extend: steps, metrics, optimizer and schedule.

A model adds a network (`self.net`), a loss and metrics; src/models/fizzbuzz.py has all three on a
page. Each method here is one of Lightning's or one that a model defines: override any of them.
Letters: B batch, D input features, C outputs.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import lightning.pytorch as pl
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torchmetrics import MeanMetric, Metric, MetricCollection

from src.kindling.files.checkpoint import check_size, read_with_hparams
from src.kindling.schedulers import NEVER, PlateauSteps

OptimizerFactory = Callable[..., Optimizer]  # parameters -> optimizer
SchedulerFactory = Callable[..., LRScheduler | None]  # (optimizer, total_steps) -> scheduler


class BaseModule(pl.LightningModule):
    """The LightningModule that the models extend.

    A subclass calls `super().__init__(optimizer, scheduler)`, then `self.save_hyperparameters(...)`
    without those two, sets `self.net`, and defines `loss` and `metrics`. It may declare the data
    that it takes: `in_features`, `out_features` and `target` ("value" or "class") are compared with
    the DataModule's before training starts.

    Args:
        optimizer: makes the optimizer from the parameters; None for a model that only predicts.
        scheduler: makes the learning-rate schedule from (optimizer, total_steps); None for a
            constant learning rate.
    """

    net: nn.Module
    stage_metrics: Any  # nn.ModuleDict: one MetricCollection per stage
    in_features: int
    out_features: int
    target: str
    monitor: str | None = None  # the metric that ranks checkpoints; None: val/loss

    def __init__(
        self, optimizer: OptimizerFactory | None = None, scheduler: SchedulerFactory | None = None
    ) -> None:
        super().__init__()
        self.optimizer_factory = optimizer
        self.scheduler_factory = scheduler
        self.total_steps: int | None = None  # optimizer steps of the run; None: without limit

    # What a model defines -------------------------------------------------------------------

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the scalar that training minimizes, from outputs [B, C] and targets."""
        raise NotImplementedError(f"{type(self).__name__} defines no loss")

    def metrics(self) -> dict[str, Metric]:
        """Return the metrics of validation and test by name; `loss` is always included."""
        return {}

    def loss_metric(self) -> Metric:
        """Return the metric that averages the loss over batches, weighted by their samples."""
        return MeanMetric(nan_strategy=math.nan)  # a NaN stays visible in the mean

    def parameter_metrics(self) -> dict[str, Tensor]:
        """Return metrics of the weights, computed without a batch."""
        return {}

    # In a notebook ----------------------------------------------------------------------------

    @classmethod  # called on an instance it returns a new model and leaves the instance unchanged
    def load_from_checkpoint(  # type: ignore[override] # without the options that trust the file
        cls,
        checkpoint_path: str | Path,
        map_location: Any = "cpu",
        **changes: Any,
    ) -> Self:
        """Rebuild a model, with its weights, from a local checkpoint alone.

        Args:
            checkpoint_path: the file; it is read as plain data, whoever wrote it.
            map_location: the device of the weights.
            changes: constructor arguments that replace those of the checkpoint, or an optimizer.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: the file is not a local checkpoint of this class.
        """
        content, arguments = read_with_hparams(cls, checkpoint_path, map_location)
        arguments |= changes
        check_size(lambda: cls(**arguments), Path(checkpoint_path))
        model = cls(**arguments)
        model.on_load_checkpoint(content)
        model.load_state_dict(content["state_dict"])
        return model

    # What Lightning calls -------------------------------------------------------------------

    def configure_model(self) -> None:
        """Create the metrics of validation and test, once the subclass is constructed."""
        if hasattr(self, "stage_metrics"):
            return
        self.stage_metrics = nn.ModuleDict(
            {
                stage: MetricCollection(
                    {"loss": self.loss_metric(), **self.metrics()},
                    prefix=f"{stage}/",
                    compute_groups=False,  # the loss is updated with arguments of its own
                )
                for stage in ("val", "test")
            }
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Convert this module to the precision in which the weights were trained.

        A strategy that shards the module, FSDP, has loaded the weights and taken them out by now.
        """
        for value in checkpoint.get("state_dict", {}).values():
            if isinstance(value, Tensor) and value.is_floating_point():
                self.to(value.dtype)
                return

    def forward(self, inputs: Any) -> Tensor:
        """Map inputs [B, D] to outputs [B, C]."""
        outputs: Tensor = self.net(inputs)
        return outputs

    def training_loss(self, batch: Any) -> Tensor:
        """Return the loss of one batch."""
        inputs, targets = self._pair(batch, "training_loss")
        return self.loss(self(inputs), targets)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """Return the loss of one batch; Lightning takes the optimizer step."""
        return self.training_loss(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Update the validation metrics with one batch."""
        self._evaluation_step("val", batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Update the test metrics with one batch."""
        self._evaluation_step("test", batch)

    def predict_step(self, batch: Any, batch_idx: int = 0) -> Tensor:
        """Answer inputs [B, D] with outputs [B, C]; a classifier answers with classes [B]."""
        inputs = batch[0] if isinstance(batch, tuple | list) else batch
        outputs: Tensor = self(inputs)
        return outputs

    def on_validation_epoch_end(self) -> None:
        """Log `val/...` over all batches and ranks."""
        self._log_stage("val")

    def on_test_epoch_end(self) -> None:
        """Log `test/...` over all batches and ranks."""
        self._log_stage("test")

    def _pair(self, batch: Any, method: str) -> tuple[Any, Any]:
        """Return the inputs and targets of a batch, or name the method that other batches need."""
        if isinstance(batch, tuple | list) and len(batch) == 2:
            return batch[0], batch[1]
        parts = f"a {type(batch).__name__}"
        if isinstance(batch, tuple | list):
            parts += f" of {len(batch)} parts"
        name = type(self).__name__
        raise TypeError(
            f"{name}: a batch is {parts}, not (inputs, targets): define {name}.{method}"
        )

    def _evaluation_step(self, stage: str, batch: Any) -> None:
        inputs, targets = self._pair(batch, "validation_step" if stage == "val" else "test_step")
        outputs = self(inputs)
        loss = self.loss(outputs, targets)
        for name, metric in self.stage_metrics[stage].items(keep_base=True):
            if name != "loss":
                metric.update(outputs, targets)
            elif isinstance(metric, MeanMetric):
                metric.update(loss, weight=len(inputs))  # each sample counts once
            else:
                metric.update(loss)

    def _logs_itself(self, stage: str) -> bool:
        """Return whether the subclass has a step of its own that updates none of our metrics."""
        step = "validation_step" if stage == "val" else "test_step"
        if getattr(type(self), step) is getattr(BaseModule, step):
            return False
        return not any(metric.update_called for metric in self.stage_metrics[stage].values())

    def _log_stage(self, stage: str) -> None:
        # Computed before logging: Lightning would reduce a logged Metric object a second time.
        values = {} if self._logs_itself(stage) else self.stage_metrics[stage].compute()
        values |= {f"{stage}/{name}": value for name, value in self.parameter_metrics().items()}
        self.stage_metrics[stage].reset()
        if values:
            # torchmetrics has made them equal on all ranks: the maximum is each of them, exactly.
            self.log_dict(values, reduce_fx="max", sync_dist=True, batch_size=1)

    # Optimization -----------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """Create the optimizer and its schedule from the factories of the configuration.

        Schedules advance after each optimizer step. Plateau reads each new value of `val/loss`, or
        of `train/loss` if nothing is validated; see `PlateauSteps`.

        Raises:
            ValueError: this model was constructed without an optimizer.
        """
        if self.optimizer_factory is None:
            raise ValueError("this model was made to predict: give it an optimizer to train it")
        optimizer = self.optimizer_factory(self.parameters())
        self.total_steps = self._count_steps()
        if self.scheduler_factory is None:
            return optimizer
        scheduler = self.scheduler_factory(optimizer, self.total_steps)
        if scheduler is None:
            return optimizer
        config: dict[str, Any] = {"scheduler": scheduler, "interval": "step", "frequency": 1}
        if isinstance(scheduler, ReduceLROnPlateau):
            # Lightning reads a plateau's metric once per epoch, new or not, and not after a resume.
            monitor = "val/loss" if self._validates() else "train/loss"
            config |= {"interval": "epoch", "frequency": NEVER, "monitor": monitor}
        return {"optimizer": optimizer, "lr_scheduler": config}

    def _count_steps(self) -> int | None:
        """Return the optimizer steps of the whole run; None if only the clock ends it."""
        total = self.trainer.estimated_stepping_batches
        return None if total == -1 or math.isinf(total) else max(int(total), 1)

    def _validates(self) -> bool:
        validation = self.trainer.fit_loop.epoch_loop.val_loop
        validation.setup_data()  # its batches are not counted before
        return sum(validation.max_batches) > 0

    def configure_callbacks(self) -> list[pl.Callback]:
        """Have a plateau schedule read its metric after each validation."""
        return [PlateauSteps()]
