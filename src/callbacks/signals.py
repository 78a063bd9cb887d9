"""Stop cleanly on Ctrl-C and SIGTERM: finish the step, save, and say so with the exit status."""

import signal
import threading
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback


class StopOnSignal(Callback):
    """Save `checkpoints/last.ckpt` and leave with 130 (SIGINT) or 143 (SIGTERM).

    The handler only takes a note; the step that is under way is finished first, because in the
    middle of an optimizer's update there is no consistent state to save. A second Ctrl-C stops at
    once. The signal that came to one rank stops all ranks after the same step.

    Raises:
        SystemExit: with 128 + the signal's number, out of `Trainer.fit`, after saving.
    """

    def __init__(self) -> None:
        self._signal = 0
        self._previous: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over both signals; Lightning has set its own handlers just before."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)

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

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop at the end of an epoch."""
        self._stop_if_noted(trainer)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the signals back."""
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._signal = number

    def _stop_if_noted(self, trainer: pl.Trainer) -> None:
        number = self._signal
        if trainer.world_size > 1:  # all ranks must save together
            noted = trainer.strategy.reduce_boolean_decision(bool(number), all=False)
            number = number or (signal.SIGTERM if noted else 0)
        if number:
            trainer.save_checkpoint(f"{trainer.default_root_dir}/checkpoints/last.ckpt")
            raise SystemExit(128 + number)
