"""Log how training goes: loss, learning rate and throughput, every few optimizer steps.

Logged across epochs, not within each: a small data set has epochs of a few steps, and a point for
each would cost more than the steps.
"""

import time
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from src.callbacks.checkpointing import is_last_epoch


class TrainingMetrics(Callback):
    """Log a point every `trainer.log_every_n_steps` optimizer steps and at the end of training.

    `train/loss` is the mean over the batches since the last point; `train/lr` the learning rate of
    the step (of the first parameter group); `train/samples_per_second` counts all ranks' samples
    over the time spent in training steps and loaders, without validation.
    """

    def __init__(self) -> None:
        self._loss: Any = None  # sum over batches, on the device: reading it would wait for it
        self._batches = self._samples = 0
        self._last_step = 0
        self._seconds = 0.0
        self._started = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._last_step = trainer.global_step
        self._started = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: Any,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count the batch; log when enough steps have passed."""
        batches = outputs.get("batches", 1)  # more when an execution takes several steps
        # Lightning divides the loss of a batch by the batches that are accumulated.
        loss = outputs["loss"] * trainer.accumulate_grad_batches * batches
        self._loss = loss if self._loss is None else self._loss + loss
        self._batches += batches
        self._samples += _samples(batch)
        if trainer.global_step - self._last_step >= trainer.log_every_n_steps:
            self._log(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock."""
        self._seconds += time.perf_counter() - self._started

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock again."""
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log what is left when this was the last epoch."""
        if self._batches and is_last_epoch(trainer):
            self._log(trainer, pl_module)

    def _log(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        now = time.perf_counter()
        seconds = self._seconds + now - self._started
        loss = trainer.strategy.reduce(self._loss / self._batches, reduce_op="mean")
        optimizer: Any = trainer.optimizers[0]
        metrics = {
            "train/loss": float(loss),
            "train/lr": float(optimizer.param_groups[0]["lr"]),
            "train/samples_per_second": self._samples * trainer.world_size / max(seconds, 1e-9),
        }
        # Known to monitors (checkpoints, early stopping, plateau), and written to each logger here:
        # Lightning itself would write only where its own count of batches falls on its interval.
        pl_module.log_dict(metrics, logger=False, batch_size=1)
        for logger in trainer.loggers:
            logger.log_metrics({**metrics, "epoch": trainer.current_epoch}, trainer.global_step - 1)
        self._loss, self._batches, self._samples = None, 0, 0
        self._last_step = trainer.global_step
        self._seconds, self._started = 0.0, now


def _samples(batch: Any) -> int:
    """Count the rows of a batch: the length of its first tensor; of a list of batches, all."""
    if isinstance(batch, torch.Tensor):
        return len(batch)
    if isinstance(batch, list) and batch and not isinstance(batch[0], torch.Tensor):
        return sum(_samples(part) for part in batch)
    if isinstance(batch, dict):
        batch = list(batch.values())
    return _samples(batch[0]) if isinstance(batch, list | tuple) and batch else 1
