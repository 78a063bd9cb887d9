"""Let a Trainer take several steps per call, or compile them: the only entrance to this package."""

import lightning.pytorch as pl

from src.kindling.speed.loops import EpochLoop


def install(trainer: pl.Trainer, steps: int, compiles: bool) -> None:
    """Replace the Trainer's loop over batches, before its fit begins.

    Args:
        trainer: the Trainer, with the options that the user wrote.
        steps: K, the most optimizer steps per call.
        compiles: whether the steps of a call become one compiled function where that is possible.
    """
    trainer.fit_loop.epoch_loop = EpochLoop(trainer, trainer.fit_loop.epoch_loop, steps, compiles)
