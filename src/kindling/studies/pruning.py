"""Report each validation of a trial to its study, and stop the trial if that prunes it."""

import math
from typing import Any

import lightning.pytorch as pl
import optuna
from lightning.pytorch.trainer.states import TrainerFn

from src.kindling.callbacks.loop import is_last_epoch


class PrunedError(optuna.TrialPruned):
    """The study has stopped this trial; its checkpoints are saved."""

    run_status = "pruned"  # for run.json


class Pruning(pl.Callback):
    """Report the metric after each validation (after each epoch, where nothing is validated).

    A pruned trial ends as a finished one does, with its checkpoints, but is not tested. The report
    comes before the checkpoint: a trial that is resumed from it repeats at most the latest report,
    which Optuna then leaves as it is.

    Args:
        trial: what to report to.
        metric: the metric; None reports nothing, as where several are optimized.

    Raises:
        PrunedError: out of `Trainer.fit`, after the last checkpoint.
    """

    def __init__(self, trial: optuna.Trial, metric: str | None) -> None:
        self.trial, self.metric = trial, metric
        self.pruned_at: int | None = None
        self.metrics: dict[str, float] = {}  # the latest of a pruned trial

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report; a validation in the middle of an epoch ends a pruned trial there."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        self._report(trainer)
        if (
            self.pruned_at is not None
            and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        ):
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End a pruned trial; one that ends anyway is complete."""
        if not sum(trainer.num_val_batches):
            self._report(trainer)
        if self.pruned_at is None:
            return
        if is_last_epoch(trainer) and not trainer.should_stop:
            self.pruned_at = None
        else:
            trainer.should_stop = True

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave a pruned trial, now that its checkpoints are written."""
        if self.pruned_at is not None:
            self.metrics = {k: float(v) for k, v in sorted(trainer.callback_metrics.items())}
            raise PrunedError(f"pruned after epoch {self.pruned_at}")

    def epochs_until_next(self, trainer: Any, steps: int) -> int:
        """Return the number of epochs up to the next report."""
        every = trainer.check_val_every_n_epoch or 1
        return int(every - trainer.current_epoch % every) if sum(trainer.num_val_batches) else 1

    def _report(self, trainer: pl.Trainer) -> None:
        value = trainer.callback_metrics.get(self.metric) if self.metric else None
        if value is None:
            return
        self.trial.report(float(value), _epochs(trainer))
        if self.pruned_at is None and self.trial.should_prune():
            self.pruned_at = trainer.current_epoch + 1


def _epochs(trainer: pl.Trainer) -> int:
    """Return the epochs done; of several validations per epoch, how many of those."""
    if math.isinf(trainer.num_training_batches):  # a stream, whose length is not known
        return trainer.current_epoch + 1
    batches = int(trainer.num_training_batches)
    per_epoch = max(
        1, batches // max(1, int(getattr(trainer, "val_check_batch", batches) or batches))
    )
    progress = trainer.fit_loop.epoch_loop.batch_progress
    if progress.is_last_batch or per_epoch == 1:
        return (trainer.current_epoch + 1) * per_epoch
    done = progress.current.ready * per_epoch // batches
    return trainer.current_epoch * per_epoch + done
