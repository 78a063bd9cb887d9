"""Where does the time of a step go? A few steps, operator by operator, on a time line."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from pydantic import NonNegativeInt, PositiveInt


class Trace(Callback):
    """Write `profile/trace.json` in the run directory: what ran when, on the CPU and on CUDA.

    https://ui.perfetto.dev shows it (nothing is uploaded), and so does Chromium's own
    `chrome://tracing`, without a network; TensorBoard would need a plugin of its own for it.

    Args:
        skip: calls of the Trainer before the trace starts; the first ones are not typical.
        calls: calls that are traced; each may be several steps (`steps_per_execution`).
    """

    def __init__(self, skip: NonNegativeInt = 3, calls: PositiveInt = 3) -> None:
        self.skip, self.calls = skip, calls
        self._seen = 0
        self._profiler: Any = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start, when enough calls have passed."""
        if self._seen == self.skip and trainer.is_global_zero and not self._is_fast(trainer):
            self._profiler = torch.profiler.profile()
            self._profiler.start()
        self._seen += 1

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Stop, when enough were traced."""
        if self._seen == self.skip + self.calls:
            self._write(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what there is of a run that was shorter."""
        self._write(trainer)
        if self._seen <= self.skip and not self._is_fast(trainer):
            print(f"no trace: the run ended after {self._seen} calls, before callbacks.trace.skip")

    def _write(self, trainer: pl.Trainer) -> None:
        if self._profiler is not None:
            self._profiler.stop()
            folder = Path(trainer.default_root_dir, "profile")
            folder.mkdir(exist_ok=True)
            self._profiler.export_chrome_trace(str(folder / "trace.json"))
            self._profiler = None

    @staticmethod
    def _is_fast(trainer: Any) -> bool:
        return bool(trainer.fast_dev_run)
