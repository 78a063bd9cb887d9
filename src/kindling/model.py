"""What every model here shares: one step for train, validation and test, and its optimizer.

A model adds a network (`self.net`), a loss and metrics; see fizzbuzz.py for all three in a page.
Letters: B batch, D input features, C outputs.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.model_helpers import _restricted_classmethod
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torchmetrics import MeanMetric, Metric, MetricCollection

from src.kindling.files.checkpoint import check_size, read_with_hparams
from src.kindling.process.randomness import Randomness
from src.kindling.speed.execution import Execution

Batch = tuple[Tensor, Tensor]  # inputs [B, D] and targets, [B, C] or class numbers [B]
OptimizerFactory = Callable[..., Optimizer]  # parameters -> optimizer
SchedulerFactory = Callable[..., LRScheduler | None]  # (optimizer, total_steps) -> scheduler
NEVER = 2**62  # optimizer steps


class BaseModule(pl.LightningModule):
    """The LightningModule that the models extend.

    A subclass calls `super().__init__(optimizer, scheduler)`, then `self.save_hyperparameters(...)`
    leaving those two out, sets `self.net`, and defines `loss` and `metrics`. It also says which
    data it takes: `in_features`, `out_features` and `target` ("value" or "class"), which are
    compared with the DataModule's before training starts.

    Args:
        optimizer: makes the optimizer from the parameters; None for a model that only predicts.
        scheduler: makes the learning-rate schedule from (optimizer, total_steps); None for none.
    """

    net: nn.Module
    stage_metrics: Any  # nn.ModuleDict of a MetricCollection a stage
    in_features: int
    out_features: int
    target: str
    monitor: str | None = None  # the metric that says which checkpoint is best; None: val/loss

    def __init__(
        self, optimizer: OptimizerFactory | None = None, scheduler: SchedulerFactory | None = None
    ) -> None:
        super().__init__()
        self.optimizer_factory = optimizer
        self.scheduler_factory = scheduler
        self.execution = Execution()
        self.total_steps: int | None = None  # optimizer steps of the run; None where it has no end
        self.seed: int | None = None  # set by the builder; None leaves torch's generators alone
        self.randomness: Randomness | None = None

    # What a model defines -------------------------------------------------------------------

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the scalar that training minimises, from outputs [B, C] and targets."""
        raise NotImplementedError(f"{type(self).__name__} defines no loss")

    def metrics(self) -> dict[str, Metric]:
        """Return the metrics of validation and test by name; `loss` is there already."""
        return {}

    def loss_metric(self) -> Metric:
        """Return how the loss of several batches becomes one number: the mean over samples."""
        return MeanMetric(nan_strategy=math.nan)  # which is passed on, not left out

    def parameter_metrics(self) -> dict[str, Tensor]:
        """Return metrics of the weights themselves, which need no batch."""
        return {}

    # In a notebook ----------------------------------------------------------------------------

    @_restricted_classmethod  # as Lightning's: on a model that is there it would change nothing
    def load_from_checkpoint(  # type: ignore[override] # none of the options that trust the file
        cls,  # noqa: N805 - a class, which the decorator hides
        checkpoint_path: str | Path,
        map_location: Any = "cpu",
        **changes: Any,
    ) -> Self:
        """Rebuild a model, with its weights, from a local checkpoint alone.

        Args:
            checkpoint_path: the file; it is read as plain data, whoever wrote it.
            map_location: where the weights go.
            changes: constructor's arguments to be other than the checkpoint says; an optimizer.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no checkpoint of this class, or no local file.
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
        """Make the metrics of validation and test, now that the subclass is whole."""
        if hasattr(self, "stage_metrics"):
            return
        self.stage_metrics = nn.ModuleDict(
            {
                stage: MetricCollection(
                    {"loss": self.loss_metric(), **self.metrics()},
                    prefix=f"{stage}/",
                    compute_groups=False,  # the loss is updated with other arguments
                )
                for stage in ("val", "test")
            }
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the precision that the weights were trained in, so that none of it is lost."""
        for value in checkpoint["state_dict"].values():
            if isinstance(value, Tensor) and value.is_floating_point():
                self.to(value.dtype)
                return

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs [B, D] to outputs [B, C]."""
        outputs: Tensor = self.net(inputs)
        return outputs

    def training_loss(self, batch: Batch) -> Tensor:
        """Return the loss of one batch; the same for one or several steps an execution."""
        inputs, targets = batch
        return self.loss(self(inputs), targets)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """Return the loss (Lightning then steps), or take several steps at once."""
        if not self.automatic_optimization:
            return self.execution.run(self, batch)
        if self.randomness is not None:
            part = batch_idx % self.trainer.accumulate_grad_batches
            self.randomness.start_batch(self.trainer.global_step, part)
        return self.training_loss(batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the validation metrics with one batch."""
        self._evaluation_step("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
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

    def _evaluation_step(self, stage: str, batch: Batch) -> None:
        inputs, targets = batch
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
        if not values:
            return
        trainer = self.trainer
        fits = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if fits and all(_is_number(value) for value in values.values()):
            self._log_point(values)
        else:
            self.log_dict(values, sync_dist=False, batch_size=1)

    def _log_point(self, values: dict[str, Tensor]) -> None:
        """Tell callbacks and loggers, as Lightning does with what `log_dict` is given.

        It takes a millisecond for two values: made to reduce them over batches, it makes a Metric
        for each, and moves all of its parts to the device.
        """
        trainer: Any = self.trainer
        trainer.callback_metrics.update(values)
        trainer.logged_metrics.update(values)
        point = {name: float(value) for name, value in values.items()}
        step = trainer.fit_loop.epoch_loop._batches_that_stepped  # the axis of Lightning's charts
        for logger in trainer.loggers:
            logger.log_metrics({**point, "epoch": trainer.current_epoch}, step)
            logger.save()

    # Optimisation -----------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """Make the optimizer and its schedule from the factories that the configuration gave.

        Schedules advance once an optimizer step, but for plateau, which looks at `val/loss`
        (`train/loss` when nothing is validated) after each validation.
        """
        if self.optimizer_factory is None:
            raise ValueError("this model was made to predict: give it an optimizer to train it")
        optimizer = self.optimizer_factory(self.parameters())
        self.execution.begin()
        if self.seed is not None:
            trainer = self.trainer
            device = trainer.strategy.root_device
            self.randomness = Randomness(self.seed, trainer.global_rank, device)
        self.total_steps = self.execution.total_steps(self.trainer)
        if self.scheduler_factory is None:
            return optimizer
        scheduler = self.scheduler_factory(optimizer, self.total_steps)
        if scheduler is None:
            return optimizer
        config: dict[str, Any] = {"scheduler": scheduler, "interval": "step", "frequency": 1}
        if isinstance(scheduler, ReduceLROnPlateau):
            self._plateau_monitor = "val/loss" if self._validates() else "train/loss"
            config["frequency"] = NEVER  # Lightning's forgets one look when a run is resumed
            if self.automatic_optimization:  # only then Lightning wants to be told, and must be
                config["monitor"] = self._plateau_monitor
        return {"optimizer": optimizer, "lr_scheduler": config}

    def _validates(self) -> bool:
        validation = self.trainer.fit_loop.epoch_loop.val_loop
        validation.setup_data()  # the batches are not counted before
        return sum(validation.max_batches) > 0

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip here when this module steps by itself: after unscaling, before the step."""
        if not self.automatic_optimization:
            self.execution.clip(self, optimizer)

    def quiet_epochs(self, trainer: Any, steps: int) -> int:
        """Return how many epochs there are to a plateau schedule's next look."""
        configs = trainer.lr_scheduler_configs
        if not any(isinstance(config.scheduler, ReduceLROnPlateau) for config in configs):
            return NEVER
        every = trainer.check_val_every_n_epoch or 1
        return every - int(trainer.current_epoch) % every

    def on_train_epoch_end(self) -> None:
        """Show a plateau schedule its metric, before the epoch's checkpoint is written."""
        trainer = self.trainer
        if (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1):
            return
        for config in trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, ReduceLROnPlateau):
                metric = trainer.callback_metrics.get(self._plateau_monitor)
                if metric is not None:
                    config.scheduler.step(float(metric))


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.dim() == 0
        and value.dtype in (torch.float32, torch.float64)
    )
