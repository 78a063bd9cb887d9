"""Several optimizer steps a call of the Trainer (Keras calls it `steps_per_execution`).

A Trainer costs a fixed time a call, which for a small network is several times the step itself.
With K steps a call that cost is paid once for K. K = 1 is Lightning's automatic optimization and
uses nothing of this file but `total_steps`.
"""

import math
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

# A module here is a BaseModule, which imports this file.


@dataclass
class Execution:
    """How one call of `training_step` becomes K optimizer steps.

    Args:
        steps: K, optimizer steps a call; the loader then yields lists of K * accumulate batches.
        accumulate: batches whose gradients are averaged into one step.
        clip_val: largest gradient norm (or value); None leaves gradients as they are.
        clip_algorithm: "norm" or "value".

    Source: Keras, `Model.compile(steps_per_execution=...)`; Lightning, "Manual optimization".
    """

    steps: int = 1
    accumulate: int = 1
    clip_val: float | None = None
    clip_algorithm: str = "norm"

    def run(self, module: Any, batches: list[Any]) -> dict[str, Any]:
        """Take a step for each `accumulate` of the batches.

        Returns:
            `loss`, the mean over the batches, and `batches`, how many there were.
        """
        total, count = torch.zeros((), device=module.device), 0
        before = module.trainer.global_step
        for start in range(0, len(batches), self.accumulate):
            if module.trainer.global_step == module.trainer.max_steps:
                break
            group = batches[start : start + self.accumulate]
            total += self._step(module, group)
            count += len(group)
        # Lightning counts this call as one step of the charts' axis; it was several.
        axis = module.trainer.fit_loop.epoch_loop
        axis._batches_that_stepped += module.trainer.global_step - before - 1
        return {"loss": total / max(count, 1), "batches": count}

    def _step(self, module: Any, group: list[Any]) -> Tensor:
        """Take one step; return the sum of the losses before it."""
        optimizer: Any = module.optimizers()
        losses: list[Tensor] = []  # LBFGS asks again; the first answers are those of this step

        def closure() -> Tensor:
            optimizer.zero_grad()
            total = torch.zeros((), device=module.device)
            for batch in group:
                # Divided by `accumulate` in a shorter last group too, as Lightning does.
                loss = module.training_loss(batch) / self.accumulate
                module.manual_backward(loss)
                total += loss.detach()
            losses.append(total)
            return total

        optimizer.step(closure)
        for scheduler in self._schedulers(module):
            if not isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step()
        return losses[0] * self.accumulate

    def clip(self, module: Any, optimizer: Optimizer) -> None:
        """Clip the gradients of one step."""
        if self.clip_val:
            module.clip_gradients(
                optimizer,
                gradient_clip_val=self.clip_val,
                gradient_clip_algorithm=self.clip_algorithm,
            )

    def total_steps(self, trainer: pl.Trainer) -> int | None:
        """Return how many optimizer steps the whole run takes; None if only the clock ends it.

        Raises:
            ValueError: several steps an execution, of a loader that does not yield several batches.
        """
        if self.steps == 1:
            total = trainer.estimated_stepping_batches
        else:
            trainer.fit_loop.setup_data()
            loader: Any = trainer.train_dataloader
            if not hasattr(loader, "batches"):
                raise ValueError(
                    "steps_per_execution > 1 needs a loader that yields lists of batches, as"
                    " src/data/loader.py does; set steps_per_execution=1"
                )
            total = trainer.max_steps
            if total == -1 and trainer.max_epochs != -1:
                total = (trainer.max_epochs or 0) * math.ceil(loader.batches / self.accumulate)
        # Both have set up the loader before the checkpoint of a resumed run was read: forgotten
        # here, it is set up again, and takes up its place in the epoch.
        trainer.fit_loop._combined_loader = None
        return None if total == -1 or math.isinf(total) else max(int(total), 1)

    @staticmethod
    def _schedulers(module: Any) -> list[Any]:
        schedulers = module.lr_schedulers()
        if schedulers is None:
            return []
        return schedulers if isinstance(schedulers, list) else [schedulers]
