"""Log how training goes: is it learning, is it fast, is it healthy? Every few optimizer steps.

Logged across epochs, not within each: a small data set has epochs of a few steps, and a point for
each would cost more than the steps.
"""

import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from src.callbacks.checkpointing import is_last_epoch
from src.callbacks.magnitudes import Magnitudes


class TrainingMetrics(Callback):
    """Log a point every `trainer.log_every_n_steps` optimizer steps and at the end of training.

    - `train/loss`: the mean over the batches since the last point.
    - `train/lr`, `train/momentum`: of the step, of the first parameter group; Adam's first beta.
    - `train/gradient_norm`, `train/update_to_weight`: see magnitudes.py; of logged points alone.
    - `train/samples_per_second`: all ranks' samples over the time spent in training steps and
      loaders, without validation.
    - `train/memory_mb`: megabytes; on CUDA the most that tensors took so far, elsewhere what this
      process has in memory.

    What has been added up since the last point is in each checkpoint, so that the next point of a
    resumed run is that of a run that was never stopped.
    """

    def __init__(self) -> None:
        self._loss: Any = None  # sum over batches, on the device: reading it would wait for it
        self._batches = self._samples = 0
        self._last_step = 0
        self._seconds = 0.0
        self._started = 0.0
        self._magnitudes = Magnitudes()
        self._measured: dict[str, float] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        if self._loss is not None:  # from the checkpoint
            self._loss = self._loss.to(pl_module.device)
        self._started = time.perf_counter()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Copy the weights if a point is due when this batch, or group of batches, is done."""
        if self._due(trainer, trainer.global_step + _steps(pl_module, batch)):
            self._magnitudes.remember(trainer, pl_module)

    def on_train_batch_end(
        self,
        trainer: Any,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count the batch; log when enough steps have passed."""
        for part in outputs.get("epochs", [outputs]):  # added in one order, however many a call
            self._add(part["loss"], part.get("batches", 1), trainer.accumulate_grad_batches)
        self._samples += _samples(batch)
        self._measured = self._magnitudes.measured(trainer, pl_module) or self._measured
        if trainer.global_step - self._last_step >= trainer.log_every_n_steps:
            self._log(trainer, pl_module)

    def _add(self, loss: torch.Tensor, batches: int, accumulated: int) -> None:
        """Add the mean loss of batches, each divided by Lightning if several make a step."""
        loss = loss * (accumulated * batches)
        self._loss = loss if self._loss is None else self._loss + loss
        self._batches += batches

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

    def quiet_epochs(self, trainer: Any, steps: int) -> int:
        """Return how many epochs there are before the one that ends with a point.

        That one is an execution of its own: the weights are copied before it. So the points are
        the same wherever a run was stopped and resumed.
        """
        left = [self._last_step + trainer.log_every_n_steps - trainer.global_step]
        if trainer.max_steps >= 0:
            left.append(trainer.max_steps - trainer.global_step)
        if trainer.max_epochs >= 0:
            left.append((trainer.max_epochs - trainer.current_epoch) * steps)
        return math.ceil(int(min(left)) / steps) - 1

    def _due(self, trainer: Any, step: int) -> bool:
        """Say whether a point is logged at a step that this call may reach."""
        if step - self._last_step >= trainer.log_every_n_steps or step == trainer.max_steps:
            return True
        last_batch = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        return bool(last_batch and trainer.current_epoch + 1 == trainer.max_epochs)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put what has been added up since the last point into the checkpoint."""
        losses: Any = self._loss
        if losses is not None:  # of each rank its own: [ranks]
            losses = losses.detach()
            if trainer.world_size > 1:
                losses = pl_module.all_gather(losses)
            losses = losses.reshape(-1).cpu()
        seconds = self._seconds
        if trainer.training:  # in a validation the clock stands still
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
        """Go on adding where the run was interrupted."""
        state = checkpoint["callbacks"].get(self.state_key)
        if not state:
            return
        losses = state["losses"]
        if losses is not None:
            losses = losses[trainer.global_rank % len(losses)]
        self._loss, self._batches, self._samples = losses, state["batches"], state["samples"]
        self._last_step, self._seconds = state["last_step"], state["seconds"]
        self._measured = state["measured"]

    def _log(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        now = time.perf_counter()
        seconds = self._seconds + now - self._started
        loss = trainer.strategy.reduce(self._loss / self._batches, reduce_op="mean")
        optimizer: Any = trainer.optimizers[0]
        metrics = {
            "train/loss": float(loss),
            "train/lr": float(optimizer.param_groups[0]["lr"]),
            **_momentum(optimizer.param_groups[0]),
            **self._measured,
            "train/samples_per_second": self._samples * trainer.world_size / max(seconds, 1e-9),
            **_memory(pl_module.device),
        }
        # Known to monitors (checkpoints, early stopping, plateau), and written to each logger here:
        # Lightning itself would write only where its own count of batches falls on its interval,
        # and its `log_dict`, made to reduce values over batches, takes 3 ms for these numbers.
        trainer.callback_metrics.update({name: torch.tensor(metrics[name]) for name in metrics})
        for logger in trainer.loggers:
            logger.log_metrics({**metrics, "epoch": trainer.current_epoch}, trainer.global_step - 1)
        self._loss, self._batches, self._samples, self._measured = None, 0, 0, {}
        self._last_step = trainer.global_step
        self._seconds, self._started = 0.0, now


def _steps(module: Any, batch: Any) -> int:
    """Return how many optimizer steps a call takes; of several epochs, the first."""
    if module.automatic_optimization or not isinstance(batch, list):
        return 1
    return -(-len(batch) // int(module.execution.accumulate))


def _momentum(group: dict[str, Any]) -> dict[str, float]:
    momentum = group["betas"][0] if "betas" in group else group.get("momentum", 0)
    return {"train/momentum": float(momentum)} if momentum else {}


def _memory(device: torch.device) -> dict[str, float]:
    """Return the memory in use by name; nothing where the system does not say."""
    statm = Path("/proc/self/statm")
    if device.type == "cuda":
        used = torch.cuda.max_memory_allocated(device)
    elif statm.exists():
        used = int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    elif sys.platform == "darwin":
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    else:
        return {}
    return {"train/memory_mb": used / 1e6}


def _samples(batch: Any) -> int:
    """Count the rows of a batch: the length of its first tensor; of a list of batches, all."""
    if isinstance(batch, torch.Tensor):
        return len(batch)
    if isinstance(batch, list) and batch and not isinstance(batch[0], torch.Tensor):
        return sum(_samples(part) for part in batch)
    if isinstance(batch, dict):
        batch = list(batch.values())
    return _samples(batch[0]) if isinstance(batch, list | tuple) and batch else 1
