"""Stop cleanly on Ctrl-C, SIGTERM and SIGUSR1: finish the step, save, and exit with its status."""

import contextlib
import time
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint

from src import stopping

LONGEST = 3.0  # seconds that a validation may go on after a signal


class StopOnSignal(Checkpoint):
    """Save `checkpoints/last.ckpt` and leave with 130 (SIGINT), 143 (SIGTERM) or 0 (SIGUSR1).

    The signal is only noted; the step that is under way is finished first, because in the middle of
    an optimizer's update there is no consistent state to save. A second Ctrl-C stops at once. The
    signal that came to one rank stops all ranks after the same step.

    A validation that is under way is finished if that takes no more than some seconds, so that what
    is saved has its metrics; a longer one is left without saving, which loses the steps since the
    last checkpoint and no more.

    A `Checkpoint` to Lightning, which then calls it last at an epoch's end: when the schedule has
    moved and the best checkpoint is written.

    Raises:
        Stopped: with that status, out of `Trainer.fit`.
    """

    def __init__(self) -> None:
        self._stepping = contextlib.ExitStack()
        self._seen: float | None = None  # when a validation found that a signal had come

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Keep Lightning's own handlers out."""
        # There is no public way. They save in the middle of a step (its SLURM requeue), wait for
        # other ranks from within the handler, and make SIGTERM an exit status of 0.
        connector: Any = trainer._signal_connector
        connector.register_signal_handlers = lambda: None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on a signal waits for the end of the step."""
        self._stepping.enter_context(stopping.step_by_step())

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Stop here, unless the epoch is about to end: then there."""
        if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._stop_if_noted(trainer)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Leave a validation that takes long. Rank 0 decides alone: ranks differ in batches."""
        if not (stopping.noted() and trainer.is_global_zero):
            return
        self._seen = self._seen or time.monotonic()
        if time.monotonic() - self._seen > LONGEST:
            how = f"stopped in the validation after step {trainer.global_step}, without saving"
            raise stopping.Stopped(stopping.noted(), how)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop at the end of an epoch."""
        self._stop_if_noted(trainer)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """From here on a signal ends the process at once."""
        self._stepping.close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """From here on a signal ends the process at once."""
        self._stepping.close()

    def _stop_if_noted(self, trainer: pl.Trainer) -> None:
        number = stopping.noted()
        if trainer.world_size > 1:  # all ranks must save together
            number = int(trainer.strategy.reduce(torch.tensor(number), reduce_op="max"))
        if number:
            trainer.save_checkpoint(f"{trainer.default_root_dir}/checkpoints/last.ckpt")
            raise stopping.Stopped(number, f"stopped and saved after step {trainer.global_step}")
