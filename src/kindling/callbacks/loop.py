"""Extend Lightning's training loop where it has no public hook: all of it is in this file.

Checkpoints after a batch, a validation or an epoch are written after its last hook, whoever
defined that. Lightning's own hook for saving comes before those of other callbacks and the module,
the steps of schedules and the means of the epoch: a resumed run would lack these.
"""

import functools
import math
from typing import Any

from lightning.pytorch.callbacks import Callback

HOOKS = [name for name in vars(Callback) if name.startswith("on_") and "checkpoint" not in name]


def ignore_signals(trainer: Any) -> None:
    """Keep Lightning's own signal handlers out.

    They save in the middle of a step (its SLURM requeue), wait for other ranks inside the handler,
    and turn SIGTERM into exit status 0.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None
    # At each step, about a signal that Lightning cannot see.
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None


def call_after_hooks(trainer: Any) -> None:
    """Let a fit call, after all hooks, these methods of the callbacks that define them.

    - `after_batch(trainer)`: unless a validation follows or the epoch ends;
    - `after_validation(trainer, ends)`: `ends` says whether the epoch ends with it;
    - `after_epoch(trainer)`: its schedules have stepped, and its means are logged.
    """
    loop, connector = trainer.fit_loop.epoch_loop, trainer._logger_connector
    validation, progress = loop.val_loop, loop.batch_progress
    validated = False

    @functools.cache
    def acts(name: str) -> list[Any]:
        return [getattr(c, name) for c in trainer.callbacks if hasattr(c, name)]

    def call(name: str, *arguments: Any) -> None:
        for act in acts(name):
            act(trainer, *arguments)

    def on_advance_end(data_fetcher: Any) -> None:
        nonlocal validated
        validated = False
        trainer.fit_loop._restarting = False  # else a resumed epoch ends without plateau schedules
        type(loop).on_advance_end(loop, data_fetcher)
        if not progress.is_last_batch and not validated:
            call("after_batch")

    def on_run_end() -> Any:
        nonlocal validated
        outputs = type(validation).on_run_end(validation)
        if not trainer.sanity_checking:
            validated = True
            call("after_validation", progress.is_last_batch)
        return outputs

    def update_train_epoch_metrics() -> None:
        type(connector).update_train_epoch_metrics(connector)
        loop._batches_that_stepped += 1  # one less for the logs of the epoch
        call("after_epoch")
        loop._batches_that_stepped -= 1

    if type(loop).__module__.startswith("lightning."):  # that of speed/ looks hooks up by itself
        _skip_empty_hooks(trainer)
    loop.on_advance_end, validation.on_run_end = on_advance_end, on_run_end
    connector.update_train_epoch_metrics = update_train_epoch_metrics


def _skip_empty_hooks(trainer: Any) -> None:
    """Replace the hooks that a callback does not define by None, which Lightning does not call.

    Calling them, each inside a context of the profiler, took a tenth of a small step.
    """
    for callback in trainer.callbacks:
        for name in HOOKS:
            if getattr(getattr(callback, name), "__func__", None) is getattr(Callback, name):
                setattr(callback, name, None)


def count_an_ended_epoch_once(trainer: Any) -> None:
    """With max_steps, Lightning counts an epoch again that had ended before its checkpoint."""
    trainer.fit_loop._iteration_based_training = lambda: False


def keep_results(trainer: Any) -> None:
    """Keep the values of `self.log`, which Lightning resets at the first batch that it takes."""
    trainer._logger_connector._first_loop_iter = True


def has_ended(trainer: Any) -> bool:
    """Return whether the epoch's last batch has been trained on."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    return bool(progress.is_last_batch or progress.current.ready == trainer.num_training_batches)


def is_last_epoch(trainer: Any) -> bool:
    """Return, at the end of an epoch, whether training ends with it."""
    # Not `fit_loop.done`, which changes the loop's counters.
    epochs = trainer.fit_loop.epoch_progress.current.processed
    return bool(
        trainer.should_stop
        or -1 < trainer.max_epochs <= epochs
        or -1 < trainer.max_steps <= trainer.global_step
    )


def epochs_left(trainer: Any) -> float:
    """Return the epochs up to the end of training, with this one; infinity without an end."""
    return math.inf if trainer.max_epochs == -1 else trainer.max_epochs - trainer.current_epoch
