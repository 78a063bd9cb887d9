"""Who takes the optimizer steps of an execution: one class a way, all with the same results.

`Execution` asks for a way once a fit, and hands it the batches of each call.
"""

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

# A module here is a BaseModule, whose Execution imports this file.


class Stepper(Protocol):
    """A way of taking several optimizer steps."""

    def take(self, groups: list[list[Any]]) -> Tensor:
        """Take one step for each group of batches: gradients averaged, clipped, applied.

        Each step is counted (`count_steps`) and followed by its schedule's. Afterwards the
        parameters hold the gradient of the last step.

        Returns:
            Losses [S], each the mean over its group before the step, detached, on the device.
        """


class EagerSteps:
    """Steps by way of Lightning, with all that its strategies, precisions and hooks do around one.

    Args:
        module: the BaseModule, attached to its Trainer.
    """

    def __init__(self, module: Any) -> None:
        self.module, self.accumulate = module, module.execution.accumulate
        schedulers = module.lr_schedulers() or []
        schedulers = schedulers if isinstance(schedulers, list) else [schedulers]
        self.schedulers = [s for s in schedulers if not isinstance(s, ReduceLROnPlateau)]

    def take(self, groups: list[list[Any]]) -> Tensor:
        """Take one step for each group; see `Stepper`."""
        return torch.stack([self._step(group) for group in groups])

    def _step(self, group: list[Any]) -> Tensor:
        """Take one step; return the loss before it."""
        optimizer: Any = self.module.optimizers()  # counts its steps by itself
        losses: list[Tensor] = []  # LBFGS asks again; the first answers are those of this step

        def closure() -> Tensor:
            optimizer.zero_grad()
            total = torch.zeros((), device=self.module.device)
            for batch in group:
                # Divided by `accumulate` in a shorter last group too, as Lightning does.
                loss = self.module.training_loss(batch) / self.accumulate
                self.module.manual_backward(loss)
                total += loss.detach()
            losses.append(total)
            return total

        optimizer.step(closure)
        for scheduler in self.schedulers:
            scheduler.step()
        mean: Tensor = losses[0] * (self.accumulate / len(group))
        return mean


def count_steps(trainer: Any, steps: int) -> None:
    """Move `trainer.global_step` on by steps that no Lightning optimizer has counted."""
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    for counts in (progress.total, progress.current):
        counts.ready += steps
        counts.completed += steps
