"""Show one progress bar for the run on a terminal, and lines of text anywhere else."""

import sys
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from pydantic import PositiveFloat
from tqdm import tqdm

SHOWN = ("train/loss", "val/loss", "val/accuracy", "val/r2")


class Progress(ProgressBar):
    """Count the optimizer steps of the run, with the latest loss and validation metrics.

    Args:
        seconds_per_line: minimum time between lines if the output is not a terminal.
    """

    def __init__(self, seconds_per_line: PositiveFloat = 5.0) -> None:
        super().__init__()
        self.seconds_per_line = seconds_per_line
        self._enabled = True
        self._bar: Any = None
        self._shown_at = 0.0

    def disable(self) -> None:
        """Stop all output; Lightning calls this on ranks other than 0."""
        self._enabled = False

    def enable(self) -> None:
        """Resume the output."""
        self._enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar at the step that the run starts from."""
        self._total = getattr(pl_module, "total_steps", None)
        self._shown_at = time.monotonic()
        if self._enabled and sys.__stderr__ is not None and sys.__stderr__.isatty():
            # The real stderr, so that the redrawn bar does not fill run.log.
            self._bar = tqdm(
                total=self._total,
                initial=trainer.global_step,
                unit="step",
                file=sys.__stderr__,
                dynamic_ncols=True,
                leave=False,
            )

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Update the bar at most ten times per second, or print a line."""
        now, apart = time.monotonic(), 0.1 if self._bar else self.seconds_per_line
        if not self._enabled or now - self._shown_at < apart:
            return
        self._shown_at = now
        if self._bar is None:
            step = f"step {trainer.global_step}/{self._total or '?'}"
            print(f"{step}  {_latest(trainer)}", flush=True)
        else:
            self._bar.set_postfix_str(_latest(trainer), refresh=False)
            self._bar.update(trainer.global_step - self._bar.n)

    def steps_until_next(self, trainer: Any) -> float:
        """Need no call between steps: the display follows the clock."""
        return float("inf")

    def on_train_end(self, *_: Any) -> None:
        """Close the bar, so that the next message starts on a new line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    on_exception = on_train_end  # type: ignore[assignment]


def _latest(trainer: pl.Trainer) -> str:
    metrics = trainer.callback_metrics
    shown = [f"{name} {float(metrics[name]):.4g}" for name in SHOWN if name in metrics]
    return "  ".join([f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", *shown])
