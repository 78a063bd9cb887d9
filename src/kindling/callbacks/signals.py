"""Stop cleanly on Ctrl-C, SIGTERM and SIGUSR1: finish the step, save, and exit with its status."""

import contextlib
import sys
import time
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from src.kindling.process import signals

LONGEST = 2.0  # seconds that a validation may go on after a signal
APART = 0.1  # seconds between two questions of ranks whether one of them has had a signal


class StopOnSignal(Checkpoint):
    """Save `checkpoints/last.ckpt` and leave with 130 (SIGINT), 143 (SIGTERM) or 0 (SIGUSR1).

    The signal is only noted; the step that is under way is finished first, because in the middle of
    an optimizer's update there is no consistent state to save. A second Ctrl-C stops at once. Ranks
    ask each other ten times a second, at steps that all of them know, so that the signal that came
    to one stops all of them after the same step.

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
        self._countdown = self._apart = 1  # calls until ranks ask each other, and between that
        self._asked = 0.0
        self._seen: float | None = None  # when a validation found that a signal had come

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Keep Lightning's own handlers out."""
        # There is no public way. They save in the middle of a step (its SLURM requeue), wait for
        # other ranks from within the handler, and make SIGTERM an exit status of 0.
        connector: Any = trainer._signal_connector
        connector.register_signal_handlers = lambda: None
        loop: Any = trainer.fit_loop.epoch_loop
        loop._broadcast_sigterm_tensor = lambda: None  # at each step, about a signal it cannot see

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on a signal waits for the end of the step."""
        self._countdown, self._apart, self._asked = 1, 1, time.monotonic()
        self._stepping.enter_context(signals.defer_signals())

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Stop here, unless the epoch is about to end or a validation to begin: then after that.

        A run that is resumed from before a validation would leave it out.
        """
        loop: Any = trainer.fit_loop.epoch_loop
        last = loop.batch_progress.is_last_batch
        # Lightning says nowhere else whether a validation follows.
        if not last and not loop._should_check_val_fx(trainer.fit_loop._data_fetcher):
            self._stop_if_noted(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop after a validation amid an epoch."""
        loop: Any = trainer.fit_loop.epoch_loop
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if fitting and not loop.batch_progress.is_last_batch:
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
        if not (signals.pending_signal() and trainer.is_global_zero):
            return
        self._seen = self._seen or time.monotonic()
        if time.monotonic() - self._seen > LONGEST:
            how = f"stopped in the validation after step {trainer.global_step}, without saving"
            raise signals.Stopped(signals.pending_signal(), how)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop at the end of an epoch."""
        self._stop_if_noted(trainer)

    def quiet_epochs(self, trainer: pl.Trainer, steps: int) -> int:
        """Return that no epoch's end is awaited: an execution ends with the epoch of a signal."""
        return sys.maxsize

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop before the test; all is saved."""
        self._countdown = 1
        if number := self._noted_by_any(trainer):
            raise signals.Stopped(number, f"stopped after the last step, {trainer.global_step}")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """From here on a signal ends the process at once."""
        self._stepping.close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """From here on a signal ends the process at once."""
        self._stepping.close()

    def _stop_if_noted(self, trainer: pl.Trainer) -> None:
        if number := self._noted_by_any(trainer):
            trainer.save_checkpoint(f"{trainer.default_root_dir}/checkpoints/last.ckpt")
            raise signals.Stopped(number, f"stopped and saved after step {trainer.global_step}")

    def _noted_by_any(self, trainer: pl.Trainer) -> int:
        """Return the signal that a rank has had, the same number on all ranks; 0 for none."""
        number = signals.pending_signal()
        if trainer.world_size == 1:
            return number
        self._countdown -= 1
        if self._countdown:
            return 0
        now = time.monotonic()
        pace, self._asked = (now - self._asked) / self._apart, now
        mine = torch.tensor([number, pace], device=trainer.strategy.root_device)
        highest, slowest = trainer.strategy.reduce(mine, reduce_op="max").tolist()
        # As many calls as the slowest rank makes in that time; it may have been a hasty one.
        self._apart = max(1, min(int(APART / max(slowest, 1e-6)), 2 * self._apart))
        self._countdown = self._apart
        return int(highest)
