"""Extend Lightning's training loop where it has no public hook: all of it is in this file.

At the end of an epoch Lightning calls the callbacks, the one that saves last, then steps the
schedules and logs the epoch's means; a checkpoint would lack both.
"""

from collections.abc import Callable
from typing import Any


def ignore_signals(trainer: Any) -> None:
    """Keep Lightning's own signal handlers out.

    They save in the middle of a step (its SLURM requeue), wait for other ranks inside the handler,
    and turn SIGTERM into exit status 0.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None
    # At each step, about a signal that Lightning cannot see.
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None


def after_each_batch(trainer: Any, call: Callable[[bool], None]) -> None:
    """Call back after a batch's last hook, the module's `on_train_batch_end`.

    State that this hook changes (an average, a target network) belongs to a checkpoint.

    Args:
        trainer: before its fit.
        call: is told whether the epoch ends with this batch, or a validation follows.
    """
    loop: Any = trainer.fit_loop.epoch_loop
    ended = type(loop).on_advance_end

    def on_advance_end(data_fetcher: Any) -> None:
        ended(loop, data_fetcher)
        call(loop.batch_progress.is_last_batch or loop._should_check_val_fx(data_fetcher))

    loop.on_advance_end = on_advance_end


def count_an_ended_epoch_once(trainer: Any) -> None:
    """With max_steps, Lightning counts an epoch again that had ended before its checkpoint."""
    trainer.fit_loop._iteration_based_training = lambda: False


def log_epoch(trainer: Any) -> None:
    """Log what `self.log(..., on_epoch=True)` has gathered, so that the checkpoint counts it.

    Lightning does so after the checkpoint: a run that is resumed from there would lack it.
    """
    loop: Any = trainer.fit_loop.epoch_loop
    _ = trainer.callback_metrics  # looking at them keeps them, for monitors
    # The step of the epoch's last batch, as in Lightning's own call.
    loop._batches_that_stepped -= 1
    trainer._logger_connector.update_train_epoch_metrics()  # leaves nothing for that one
    loop._batches_that_stepped += 1


def step_plateaus(trainer: Any) -> None:
    """Step the plateau schedules that read a metric per epoch, so that the checkpoint counts it.

    Lightning does so after the checkpoint: a run that is resumed from there would lack it.
    """
    loop, epoch = trainer.fit_loop.epoch_loop, trainer.current_epoch
    plateaus = [c for c in trainer.lr_scheduler_configs if c.reduce_on_plateau]
    if not any(c.interval == "epoch" for c in plateaus) or not has_ended(trainer):
        return
    update = type(loop).update_lr_schedulers
    update(loop, "epoch", update_plateau_schedulers=True)

    def update_others(interval: str, update_plateau_schedulers: bool) -> None:
        stepped = interval == "epoch" and update_plateau_schedulers
        if not stepped or trainer.current_epoch != epoch:
            update(loop, interval, update_plateau_schedulers)

    loop.update_lr_schedulers = update_others


def has_ended(trainer: Any) -> bool:
    """Return whether the epoch's last batch has been trained on."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    return bool(progress.is_last_batch or progress.current.ready == trainer.num_training_batches)


def is_last_epoch(trainer: Any) -> bool:
    """Return, in `on_train_epoch_end`, whether training ends with this epoch."""
    # Not `fit_loop.done`, which changes the loop's counters.
    progress: Any = trainer.fit_loop.epoch_progress.current
    epochs = progress.processed
    ends = trainer.max_epochs is not None and trainer.max_epochs >= 0
    return bool(
        trainer.should_stop
        or (ends and epochs >= (trainer.max_epochs or 0))
        or (trainer.max_steps >= 0 and trainer.global_step >= trainer.max_steps)
    )
