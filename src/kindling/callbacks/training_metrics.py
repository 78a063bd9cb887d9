"""Log how training goes: is it learning, is it fast, is it healthy? Every few optimizer steps.

Points are logged across epochs, not within each: a small data set has epochs of a few steps, and
one point per epoch would cost more than the steps.
"""

import math
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from src.kindling.callbacks.loop import epochs_left, is_last_epoch
from src.kindling.callbacks.magnitudes import GradientNorms
from src.kindling.schedulers import step_plateaus

NAMES = (
    *("train/loss", "train/lr", "train/momentum", "train/gradient_norm", "train/update_to_weight"),
    *("train/samples_per_second", "train/memory_mb"),
)
MOST = 1000  # losses that are kept until they are added up: a GPU is then waited for


class TrainingMetrics(Callback):
    """Log a point every `trainer.log_every_n_steps` optimizer steps and at the end of training.

    - `train/loss`: the mean over the batches since the last point, if their steps return a loss.
    - `train/lr`, `train/momentum`: of the first param group, after the step; Adam's beta1.
    - `train/gradient_norm`, `train/update_to_weight`: of the last step; see magnitudes.py.
    - `train/samples_per_second`: the samples of all ranks over the time spent in training steps and
      loaders, without validation.
    - `train/memory_mb`: megabytes; on CUDA the peak of allocated tensors, elsewhere the resident
      memory of this process.

    The sums since the last point are saved in each checkpoint, so that the next point of a resumed
    run is that of a run that was never stopped.
    """

    def __init__(self) -> None:
        self._sum = 0.0  # of the loss, over batches
        self._losses: list[Tensor] = []  # not in it yet: on a GPU, reading one would wait for it
        self._weights: list[int] = []  # the batches per step of each, by which Lightning divides
        self._batches = self._samples = 0
        self._last_step = 0
        self._seconds = 0.0
        self._started = 0.0
        self._norms = GradientNorms()
        self._measured: dict[str, float] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Copy the weights if a point is due after the step that this batch belongs to."""
        if self._steps_to_point(trainer) <= 1:
            self._norms.snapshot(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Count the batch, or the batches of a call; log when enough steps have passed."""
        losses = losses_of(outputs)
        self._losses += losses
        self._weights += [trainer.accumulate_grad_batches] * len(losses)
        self._batches += len(losses)
        self._samples += sum(map(_samples, getattr(outputs, "batches", [batch])))
        if len(self._losses) >= MOST:
            self._add_up()
        self._measured = self._norms.measure(trainer, pl_module) or self._measured
        if trainer.global_step - self._last_step >= trainer.log_every_n_steps:
            self._log(trainer, pl_module)

    def _add_up(self) -> float:
        """Return the running sum, added sequentially wherever the run is cut.

        A run that was resumed, or takes several steps per call, logs the same bits.
        """
        if self._losses:
            losses = torch.stack(self._losses).tolist()
            for loss, weight in zip(losses, self._weights, strict=True):
                self._sum += loss * weight
            self._losses, self._weights = [], []
        return self._sum

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock."""
        self._seconds += time.perf_counter() - self._started

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock again."""
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the rest at the end of the last epoch."""
        if self._batches and is_last_epoch(trainer):
            self._log(trainer, pl_module)

    def steps_until_next(self, trainer: Any) -> float:
        """Return the steps up to the next point, whose step is a call of its own.

        The weights are copied before that step: `train/update_to_weight` is the same at any number
        of steps per call.
        """
        return max(self._steps_to_point(trainer) - 1.0, 1.0)

    def epochs_until_next(self, trainer: Any, steps: int) -> float:
        """Return the number of epochs up to the last one."""
        return epochs_left(trainer)

    def _steps_to_point(self, trainer: Any) -> float:
        """Return the steps up to the next point, or to the end of training."""
        step = trainer.global_step
        left = [self._last_step + trainer.log_every_n_steps - step]
        if trainer.max_steps >= 0:
            left.append(trainer.max_steps - step)
        batches, accumulate = trainer.num_training_batches, trainer.accumulate_grad_batches
        epochs = epochs_left(trainer)
        if not math.isinf(batches + epochs):  # the length of a stream is not known
            done = trainer.fit_loop.epoch_loop.batch_progress.current.completed // accumulate
            left.append(math.ceil(batches / accumulate) * epochs - done)
        return float(min(left))

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the sums since the last point."""
        losses = [self._add_up()]  # one per rank
        if trainer.world_size > 1:
            gathered: Any = pl_module.all_gather(_exactly(losses[0], pl_module))
            losses = gathered.reshape(-1).tolist()
        seconds = self._seconds
        if trainer.training:  # the clock is stopped during a validation
            seconds += time.perf_counter() - self._started
        checkpoint["callbacks"][self.state_key] = {
            "losses": losses,
            "batches": self._batches,
            "samples": self._samples,
            "last_step": self._last_step,
            "measured": self._measured,
            "seconds": seconds,
        }

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore the sums of the run that is resumed."""
        state = checkpoint["callbacks"].get(self.state_key)
        if not state:
            return
        losses = state["losses"] or [0.0]
        self._sum = float(losses[trainer.global_rank % len(losses)])
        self._batches, self._samples = state["batches"], state["samples"]
        self._last_step, self._seconds = state["last_step"], state["seconds"]
        self._measured = state["measured"]

    def _log(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        now = time.perf_counter()
        seconds = self._seconds + now - self._started
        # A point whose steps were all skipped is NaN; manual optimization may return no loss.
        total, batches = self._add_up(), self._batches
        loss: Any = total / batches if batches else math.nan
        if trainer.world_size > 1:
            loss = trainer.strategy.reduce(_exactly(loss, pl_module), reduce_op="mean")
        optimizer: Any = trainer.optimizers[0]
        metrics = {
            **({"train/loss": float(loss)} if batches or pl_module.automatic_optimization else {}),
            "train/lr": float(optimizer.param_groups[0]["lr"]),
            **_momentum(optimizer.param_groups[0]),
            **self._measured,
            "train/samples_per_second": self._samples * trainer.world_size / max(seconds, 1e-9),
            **_memory(pl_module.device),
        }
        # For monitors (checkpoints, early stopping, plateau) and for each logger: Lightning itself
        # would log only where its own count of batches is a multiple of its interval, and its
        # `log_dict`, made to reduce values over batches, takes 3 ms for these numbers.
        trainer.callback_metrics.update({name: torch.tensor(metrics[name]) for name in metrics})
        step_plateaus(trainer, "train/loss")
        for logger in trainer.loggers:
            logger.log_metrics({**metrics, "epoch": trainer.current_epoch}, trainer.global_step - 1)
        self._sum, self._batches, self._samples, self._measured = 0.0, 0, 0, {}
        self._last_step = trainer.global_step
        self._seconds, self._started = 0.0, now


def losses_of(outputs: Any) -> list[Tensor]:
    """Return the losses of the batches that `on_train_batch_end` is called for.

    Args:
        outputs: what `training_step` returned, as Lightning has it: a mapping, a tensor or None;
            after a call of several steps, with the `losses` of its batches.
    """
    if (losses := getattr(outputs, "losses", None)) is not None:
        return [loss.detach() for loss in losses]
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
    return [loss.detach()] if isinstance(loss, Tensor) and loss.numel() == 1 else []


def _exactly(number: float, module: pl.LightningModule) -> Tensor:
    """Return a number as a tensor that ranks can exchange; MPS has no float64."""
    kind = torch.float32 if module.device.type == "mps" else torch.float64
    return torch.tensor(number, dtype=kind, device=module.device)


def _momentum(group: dict[str, Any]) -> dict[str, float]:
    momentum = group["betas"][0] if "betas" in group else group.get("momentum", 0)
    return {"train/momentum": float(momentum)} if momentum else {}


def _memory(device: torch.device) -> dict[str, float]:
    """Return the memory in use by name; empty if the system does not report it."""
    if device.type == "cuda":
        used = torch.cuda.max_memory_allocated(device)
    elif sys.platform == "linux":
        with open("/proc/self/statm", "rb", buffering=0) as file:
            used = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    elif sys.platform == "darwin":
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    else:
        return {}
    return {"train/memory_mb": used / 1e6}


def _samples(batch: Any) -> int:
    """Return the rows of a batch: the length of its first tensor."""
    if isinstance(batch, torch.Tensor):
        return batch.shape[0] if batch.ndim else 1
    if isinstance(batch, dict):
        batch = list(batch.values())
    return _samples(batch[0]) if isinstance(batch, list | tuple) and batch else 1
