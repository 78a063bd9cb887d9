"""How many epochs an execution runs through: those between which nobody has anything to do.

Where an epoch is a step or two of 0.1 ms, its borders cost more than its steps: a call, hooks,
metrics. With `steps_per_execution` above the steps of an epoch, a call therefore takes as many
whole epochs as fit (a span), but never past an epoch that ends with a deed: a validation, the last
epoch or step, and whatever callbacks or the module do in `on_train_epoch_start` or `_end`.

Whoever writes one of these hooks is called in every epoch, unless the same class says when it next
has something to do there:

    def quiet_epochs(self, trainer, steps):
        '''Return how many epochs of `steps` optimizer steps may run, from the one that begins; at
        the end of the last one the hook wants to be called.'''
"""

import math
from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl

from src.kindling.speed.hooks import is_written

HOOKS = ("on_train_epoch_start", "on_train_epoch_end")


class EpochsPerCall:
    """The spans of a fit.

    Args:
        trainer: the Trainer, with its module attached and its callbacks complete.
        loader: its training loader, which yields the batches of an execution at a time.
        validates: whether there is something to validate.
    """

    def __init__(self, trainer: Any, loader: Any, validates: bool) -> None:
        self._trainer, self._validates = trainer, validates
        module, execution = (
            trainer.lightning_module,
            getattr(trainer.lightning_module, "execution", None),
        )
        watchers = [c for c in trainer.callbacks if _has_epoch_hooks(c, pl.Callback)]
        watchers += [module] if _has_epoch_hooks(module, pl.LightningModule) else []
        self._quiet = [w.quiet_epochs for w in watchers if _declares_quiet(w)]
        self._most = 1
        if execution is not None and len(self._quiet) == len(watchers) and len(loader) == 1:
            self._steps = math.ceil(loader.batches / execution.accumulate)
            self._most = execution.steps // self._steps

    def length(self) -> int:
        """Return how many epochs the execution takes that is about to begin."""
        if self._most < 2 or self._trainer.should_stop:
            return 1
        asked = (quiet(self._trainer, self._steps) for quiet in self._quiet)
        return max(1, int(min(self._most, *self._limits(), *asked)))

    def _limits(self) -> Iterator[int]:
        """Yield how many epochs there are until the Trainer has something to do."""
        trainer = self._trainer
        if trainer.max_epochs >= 0:
            yield trainer.max_epochs - trainer.current_epoch
        if trainer.max_steps >= 0:
            yield (trainer.max_steps - trainer.global_step) // self._steps
        if not self._validates:
            return
        if (every := trainer.check_val_every_n_epoch) is not None:
            yield every - trainer.current_epoch % every
        elif isinstance(every := trainer.val_check_batch, int):  # of executions of an epoch each
            yield every - trainer.fit_loop.epoch_loop.batch_progress.total.completed % every


def _has_epoch_hooks(part: Any, base: type) -> bool:
    return any(is_written(part, hook, base) for hook in HOOKS)


def _declares_quiet(part: Any) -> bool:
    """Say whether `quiet_epochs` speaks for both hooks: none is of a more derived class."""
    return all(_depth(part, "quiet_epochs") <= _depth(part, hook) for hook in HOOKS)


def _depth(part: Any, name: str) -> int:
    """Return how far from a part stands what defines a name: 0 for itself, then its classes."""
    places = [vars(part), *map(vars, type(part).__mro__)]
    return next((depth for depth, place in enumerate(places) if name in place), len(places))
