"""Log how training goes: is it learning, is it fast, is it healthy? Every few optimizer steps.

Logged across epochs, not within each: a small data set has epochs of a few steps, and a point for
each would cost more than the steps.
"""

import math
import os
import sys
import time
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from src.kindling.callbacks.checkpointing import is_last_epoch
from src.kindling.callbacks.magnitudes import GradientNorms

MOST = 1000  # losses that are kept until they are added up: a GPU is then waited for


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
        self._sum = 0.0  # of the loss, over batches
        self._losses: list[Tensor] = []  # not in it yet: on a GPU, reading one would wait for it
        self._weights: list[int] = []  # for each of these, the batches of which it is the mean
        self._batches = self._samples = 0
        self._last_step = 0
        self._seconds = 0.0
        self._started = 0.0
        self._magnitudes = GradientNorms()
        self._measured: dict[str, float] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
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
            batches = part.get("batches", 1)  # more when an execution takes several steps
            self._losses.append(part["loss"].detach())
            # Lightning divides the loss of a batch by the batches that are accumulated.
            self._weights.append(trainer.accumulate_grad_batches * batches)
            self._batches += batches
        self._samples += _samples(batch)
        if len(self._losses) >= MOST:
            self._add_up()
        self._measured = self._magnitudes.measured(trainer, pl_module) or self._measured
        if trainer.global_step - self._last_step >= trainer.log_every_n_steps:
            self._log(trainer, pl_module)

    def _add_up(self) -> float:
        """Return the sum so far; one after the other, so that it is the same wherever it is cut."""
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
        losses = [self._add_up()]  # of each rank its own
        if trainer.world_size > 1:
            gathered: Any = pl_module.all_gather(_exactly(losses[0], pl_module))
            losses = gathered.reshape(-1).tolist()
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
        losses = state["losses"] or [0.0]
        self._sum = float(losses[trainer.global_rank % len(losses)])
        self._batches, self._samples = state["batches"], state["samples"]
        self._last_step, self._seconds = state["last_step"], state["seconds"]
        self._measured = state["measured"]

    def _log(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        now = time.perf_counter()
        seconds = self._seconds + now - self._started
        # Of a point whose steps were all skipped, there is no loss.
        total, batches = self._add_up(), self._batches
        loss: Any = total / batches if batches else math.nan
        if trainer.world_size > 1:
            loss = trainer.strategy.reduce(_exactly(loss, pl_module), reduce_op="mean")
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
        self._sum, self._batches, self._samples, self._measured = 0.0, 0, 0, {}
        self._last_step = trainer.global_step
        self._seconds, self._started = 0.0, now


def _steps(module: Any, batch: Any) -> int:
    """Return how many optimizer steps a call takes; of several epochs, the first."""
    if module.automatic_optimization or not isinstance(batch, list):
        return 1
    return -(-len(batch) // int(module.execution.accumulate))


def _exactly(number: float, module: pl.LightningModule) -> Tensor:
    """Return a number as a tensor that ranks can exchange; some GPUs have no more than float32."""
    kind = torch.float32 if module.device.type == "mps" else torch.float64
    return torch.tensor(number, dtype=kind, device=module.device)


def _momentum(group: dict[str, Any]) -> dict[str, float]:
    momentum = group["betas"][0] if "betas" in group else group.get("momentum", 0)
    return {"train/momentum": float(momentum)} if momentum else {}


def _memory(device: torch.device) -> dict[str, float]:
    """Return the memory in use by name; nothing where the system does not say."""
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
    """Count the rows of a batch: the length of its first tensor; of a list of batches, all."""
    if isinstance(batch, torch.Tensor):
        return batch.shape[0]
    if isinstance(batch, list) and batch and not isinstance(batch[0], torch.Tensor):
        return sum(_samples(part) for part in batch)
    if isinstance(batch, dict):
        batch = list(batch.values())
    return _samples(batch[0]) if isinstance(batch, list | tuple) and batch else 1
