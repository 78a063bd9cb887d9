"""Plan how many steps a call takes: up to the next one at which somebody asked for something.

A call never passes a validation, the last step, or a step or epoch that a callback or the module
wants to see (see honored.py). Between those it takes K steps; if K exceeds the steps of an epoch,
as many whole epochs as fit. Where a call ends inside an epoch depends on the position in the epoch
alone, so that a resumed run makes the same calls.
"""

import math
from collections.abc import Iterator
from typing import Any

from src.kindling.speed.honored import BATCH, EPOCH, limits


class CallPlan:
    """The lengths of the calls of a fit.

    Args:
        trainer: the Trainer, with its module attached and its callbacks complete.
        steps: K, the most optimizer steps per call.
    """

    def __init__(self, trainer: Any, steps: int) -> None:
        self._trainer, self._most = trainer, steps
        self._steps_until = limits(trainer, BATCH, "steps_until_next") or []
        self._epochs_until = limits(trainer, EPOCH, "epochs_until_next")
        self.validates = sum(trainer.num_val_batches) > 0

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        trainer = self._trainer
        return -(-int(trainer.num_training_batches) // int(trainer.accumulate_grad_batches))

    def epochs(self) -> int:
        """Return how many epochs the call that begins may touch, the current one included."""
        steps = self.steps_per_epoch
        whole = self._most // steps
        if whole < 2 or self._epochs_until is None:
            return 1
        trainer, now = self._trainer, self._trainer.current_epoch
        asked = [until(trainer, steps) for until in self._epochs_until]
        if trainer.max_epochs >= 0:
            asked.append(trainer.max_epochs - now)
        # A schedule that Lightning steps between epochs; BaseModule steps its own, and says when.
        configs = trainer.lr_scheduler_configs
        if any(c.reduce_on_plateau and c.frequency <= now + whole for c in configs):
            return 1
        return max(1, int(min(whole, *asked)))

    def steps(self) -> float:
        """Return how many optimizer steps the call that begins may take, in all of its epochs."""
        trainer = self._trainer
        asked = [until(trainer) for until in self._steps_until]
        if trainer.max_steps >= 0:
            asked.append(trainer.max_steps - trainer.global_step)
        return max(1, min(asked, default=math.inf))

    def end(self, index: int, steps: float) -> int:
        """Return where the call ends, or leaves this epoch, as a number of batches of the epoch.

        Args:
            index: batches of this epoch that have been trained on.
            steps: optimizer steps that the call may still take.
        """
        accumulate = self._trainer.accumulate_grad_batches
        done = index // accumulate
        if self._most < self.steps_per_epoch:
            steps = min(steps, self._most - done % self._most)
        batches = int(self._trainer.num_training_batches)
        return int(min(batches, (done + steps) * accumulate, *self._validations(index)))

    def _validations(self, index: int) -> Iterator[int]:
        """Yield where the next validation of this epoch comes, if it comes after some batches."""
        trainer = self._trainer
        every = trainer.val_check_batch
        if not self.validates or not isinstance(every, int):
            return
        done = index
        if trainer.check_val_every_n_epoch is None:  # counted across epochs
            done = trainer.fit_loop.epoch_loop.batch_progress.total.completed
        yield index + every - done % every
