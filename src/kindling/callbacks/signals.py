"""Stop cleanly on a signal: finish the step, save, and exit with the signal's status."""

import contextlib
import time
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint

from src.kindling.callbacks.loop import call_after_hooks, ignore_signals
from src.kindling.process import signals

LONGEST = 2.0  # seconds that a validation may continue after a signal
APART = 0.1  # seconds between two exchanges of ranks about signals


class StopOnSignal(Checkpoint):
    """Save `checkpoints/last.ckpt` and exit with the status of the signal.

    That is 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP, and 0 for SIGUSR1. The signal is only
    recorded; the current step is finished first, because in the middle of an optimizer's update
    there is no consistent state to save. A second Ctrl-C stops at once. Ranks exchange what they
    have received ten times per second, at steps that all of them know, so that a signal to one
    stops all of them after the same step.

    A validation in progress is finished if that takes no more than two seconds, so that the
    checkpoint has its metrics; a longer one is abandoned without saving, which loses the steps
    since the last checkpoint.

    It is a `Checkpoint` so that it comes after the one that writes the best checkpoint.

    Raises:
        Stopped: with that status, out of `Trainer.fit`.
    """

    def __init__(self) -> None:
        self._stepping = contextlib.ExitStack()
        self._countdown = self._apart = 1  # calls until the next exchange of ranks, and between two
        self._asked = 0.0
        self._seen: float | None = None  # when a validation noticed a signal

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Replace Lightning's handlers, and stop after all hooks."""
        ignore_signals(trainer)
        call_after_hooks(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let a signal wait for the end of the step from now on."""
        self._countdown, self._apart, self._asked = 1, 1, time.monotonic()
        self._stepping.enter_context(signals.defer_signals())

    def after_batch(self, trainer: pl.Trainer) -> None:
        """Stop after a batch."""
        self._stop_if_pending(trainer)

    def after_validation(self, trainer: pl.Trainer, ends: bool) -> None:
        """Stop after a validation in the middle of an epoch."""
        if not ends:
            self._stop_if_pending(trainer)

    def after_epoch(self, trainer: pl.Trainer) -> None:
        """Stop at the end of an epoch."""
        self._stop_if_pending(trainer)

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Abandon a long validation. Only rank 0 decides: ranks have different batches."""
        if not (signals.pending_signal() and trainer.is_global_zero):
            return
        self._seen = self._seen or time.monotonic()
        if time.monotonic() - self._seen > LONGEST:
            how = f"stopped in the validation after step {trainer.global_step}, without saving"
            raise signals.Stopped(signals.pending_signal(), how)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop before the test; everything is saved."""
        self._countdown = 1
        if number := self._pending_on_any(trainer):
            raise signals.Stopped(number, f"stopped after the last step, {trainer.global_step}")

    def teardown(self, *_: Any, stage: str = "") -> None:
        """Let a signal end the process at once from now on."""
        self._stepping.close()

    on_exception = teardown  # type: ignore[assignment]

    def _stop_if_pending(self, trainer: pl.Trainer) -> None:
        if number := self._pending_on_any(trainer):
            trainer.save_checkpoint(f"{trainer.default_root_dir}/checkpoints/last.ckpt")
            raise signals.Stopped(number, f"stopped and saved after step {trainer.global_step}")

    def _pending_on_any(self, trainer: pl.Trainer) -> int:
        """Return the signal that a rank has received, the same on all ranks; 0 for none."""
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
        # As many calls as the slowest rank makes in that time, at most twice as many as before.
        self._apart = max(1, min(int(APART / max(slowest, 1e-6)), 2 * self._apart))
        self._countdown = self._apart
        return int(highest)
