"""Refuse a metric that nothing logs, where a callback or a schedule waits for it."""

import contextlib
import inspect
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from src.kindling.callbacks.checkpointing import Checkpointing
from src.kindling.callbacks.training_metrics import NAMES, TrainingMetrics
from src.kindling.errors import InputError, nearest
from src.kindling.schedulers import NEVER

# What these packages log is known.
LIBRARIES = ("src.kindling.", "lightning.", "torch.", "builtins", "abc")
Monitor = tuple[str, str, Any]  # key of the configuration, metric, the callback that waits for it


class Monitors(Callback):
    """Check, once per fit, that each metric that is waited for is logged; installed in every run.

    A wrong name would otherwise be ignored, or end the run much later. Validation metrics are
    checked at the first validation, the sanity check included; others at the end of its epoch.

    Args:
        callbacks: the callbacks of the configuration by their names in it.

    Raises:
        InputError: out of `Trainer.fit`, naming the key and the nearest metric.
    """

    def __init__(self, callbacks: Mapping[str, Callback]) -> None:
        self.keys = {id(c): f"callbacks.{name}.monitor" for name, c in callbacks.items()}
        self._validated = self._checked = False

    def on_train_start(self, trainer: Any, pl_module: pl.LightningModule) -> None:
        """Count the validation batches: whether there are any decides what is saved after an epoch.

        Lightning counts them at the first validation, which a resumed run may reach much later.
        """
        if trainer.enable_validation:
            trainer.fit_loop.epoch_loop.val_loop.setup_data()

    def on_validation_end(self, trainer: Any, pl_module: pl.LightningModule) -> None:
        """Check the metrics of validation, and those that are needed now."""
        if trainer.state.fn == TrainerFn.FITTING and not self._checked:
            self._validated = not trainer.sanity_checking
            monitors = self.monitored(trainer, pl_module, trainer.lr_scheduler_configs)
            _check(trainer, [m for m in monitors if _is_due(trainer, m[1], m[2])])

    def on_train_epoch_end(self, trainer: Any, pl_module: pl.LightningModule) -> None:
        """Check all metrics after the first epoch with a validation, or for one."""
        waits = trainer.enable_validation and not self._validated
        if self._checked or (waits and _epochs_to_validation(trainer) > 1):
            return
        self._checked = True
        _check(trainer, self.monitored(trainer, pl_module, trainer.lr_scheduler_configs))
        logged = list(map(str, trainer.callback_metrics))
        ranking = [c for c in trainer.callbacks if isinstance(c, Checkpointing)]
        by = [c.metric(pl_module, self._validated) for c in ranking]
        if by == ["val/loss"] and "val/loss" not in logged and trainer.is_global_zero:
            print(
                "warning: no val/loss is logged, so the last checkpoint counts as the best;"
                f" callbacks.checkpointing.monitor= names a metric{nearest('val/loss', logged)}",
                file=sys.stderr,
            )

    def epochs_until_next(self, trainer: Any, steps: int) -> float:
        """Return the number of epochs up to the check."""
        return math.inf if self._checked else _epochs_to_validation(trainer)

    def monitored(self, trainer: Any, model: Any, schedules: Iterable[Any]) -> Iterator[Monitor]:
        """Yield the metrics that callbacks and schedules wait for."""
        for callback in trainer.callbacks:
            key = self.keys.get(id(callback), f"{type(callback).__name__}.monitor")
            metric = getattr(callback, "monitor", None)
            if isinstance(callback, Checkpointing) and metric is None:
                key, metric = f"{type(model).__name__}.monitor", getattr(model, "monitor", None)
            if isinstance(metric, str) and getattr(callback, "strict", True):
                yield key, metric, callback
        for config in schedules:
            if config.reduce_on_plateau and config.strict:
                key = "scheduler=plateau" if config.frequency == NEVER else "lr_scheduler.monitor"
                yield key, str(config.monitor), None

    def check_known(self, trainer: Any, model: Any, validates: bool) -> None:
        """Refuse, before training, a metric that is known not to be logged."""
        logged = _known(trainer, model, validates)
        for key, metric, _ in [] if logged is None else self.monitored(trainer, model, []):
            _refuse_unless_in(logged or [], key, metric)


@contextlib.contextmanager
def explained(trainer: Any) -> Iterator[None]:
    """Name the metric that a user's own plateau schedule reads before anything logs it.

    Lightning refuses it then, which may be before the first validation.

    Raises:
        InputError: naming the nearest metric, and when validations are.
    """
    try:
        yield
    except MisconfigurationException as error:
        logged = list(map(str, trainer.callback_metrics))
        plateaus = [c for c in trainer.lr_scheduler_configs if c.reduce_on_plateau and c.strict]
        missing = [c for c in plateaus if c.monitor not in logged]
        if not missing:
            raise
        metric, every = str(missing[0].monitor), trainer.check_val_every_n_epoch
        line = (
            f"lr_scheduler.monitor={metric}: no such metric is logged up to step"
            f" {trainer.global_step}, where the schedule reads it{nearest(metric, logged)}"
        )
        if trainer.enable_validation:
            line += (
                f"; validations are every {every} epochs, and a schedule that waits for them needs"
                f' "interval": "epoch" and "frequency": {every}'
            )
        raise InputError(line) from error


def _epochs_to_validation(trainer: Any) -> float:
    every = trainer.check_val_every_n_epoch  # None: counted in batches, and a call ends there
    return every - trainer.current_epoch % every if every else math.inf


def _check(trainer: Any, monitors: Iterable[Monitor]) -> None:
    logged = list(map(str, trainer.callback_metrics))
    for key, metric, callback in monitors:
        if metric in logged or not _is_of_points(trainer, metric):
            _refuse_unless_in(logged, key, metric)
        elif isinstance(callback, EarlyStopping):
            steps, step = trainer.log_every_n_steps, trainer.global_step
            raise InputError(
                f"{key}={metric}: logged every {steps} steps, and needed after step {step}; set"
                f" trainer.log_every_n_steps to {step} or less"
            )


def _refuse_unless_in(logged: list[str], key: str, metric: str) -> None:
    if metric not in [*logged, "epoch", "step"]:  # the last two are ModelCheckpoint's
        raise InputError(f"{key}={metric}: no such metric is logged{nearest(metric, logged)}")


def _is_due(trainer: Any, metric: str, callback: Any) -> bool:
    """Return whether a metric must be there after a validation, and not only after its epoch."""
    each_epoch = trainer.val_check_interval == 1.0 and trainer.check_val_every_n_epoch == 1
    reads = isinstance(callback, EarlyStopping | ModelCheckpoint) and not each_epoch
    return metric.startswith("val") or (reads and not trainer.sanity_checking)


def _is_of_points(trainer: Any, metric: str) -> bool:
    return metric in NAMES and any(isinstance(c, TrainingMetrics) for c in trainer.callbacks)


def _known(trainer: Any, model: Any, validates: bool) -> list[str] | None:
    """Return the metrics that a fit will log; None if a model or callback may log others."""
    parts = [*type(model).__mro__, *map(type, trainer.callbacks)]
    foreign = [part for part in parts if not part.__module__.startswith(LIBRARIES)]
    if not hasattr(model, "parameter_metrics") or any(map(_may_log, foreign)):
        return None
    own = model.metrics()  # not stage_metrics: Lightning says when to make those, in its precision
    if not all(_has_one_value(metric) for metric in own.values()):
        return None
    metrics = [f"val/{name}" for name in ("loss", *own, *model.parameter_metrics())]
    points = [name for name in NAMES if _is_of_points(trainer, name)]
    return points + (metrics if validates else [])


def _has_one_value(metric: Any) -> bool:
    """Return whether a metric computes a tensor; collections and wrappers compute several."""
    return inspect.signature(type(metric).compute).return_annotation in (Tensor, "Tensor")


def _may_log(part: type) -> bool:
    if "configure_model" in vars(part):  # the layers of `parameter_metrics` may not be there yet
        return True
    try:
        return re.search(r"\blog(_dict)?\(|callback_metrics", inspect.getsource(part)) is not None
    except (OSError, TypeError):  # no source to read
        return True
