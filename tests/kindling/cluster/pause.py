"""A callback that makes a run last: time limits of SLURM are minutes."""

import time

import lightning.pytorch as pl


class Pause(pl.Callback):
    """Sleep after each epoch.

    Args:
        seconds: for how long.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sleep."""
        time.sleep(self.seconds)
