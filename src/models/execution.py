"""Several optimizer steps a call of the Trainer (Keras calls it `steps_per_execution`).

A Trainer costs a fixed time a call, which for a small network is several times the step itself.
With K steps a call that cost is paid once for K. K = 1 is Lightning's automatic optimization and
uses nothing of this file but `total_steps`.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

if TYPE_CHECKING:
    from src.models.base import BaseModule, Batch


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

    def run(self, module: "BaseModule", batches: "list[Batch]") -> dict[str, Tensor]:
        """Take a step for each `accumulate` of the batches; return the mean of their losses."""
        losses = []
        for start in range(0, len(batches), self.accumulate):
            if module.trainer.global_step == module.trainer.max_steps:
                break
            losses.append(self._step(module, batches[start : start + self.accumulate]))
        return {"loss": torch.stack(losses).mean()}

    def _step(self, module: "BaseModule", group: "list[Batch]") -> Tensor:
        optimizer: Any = module.optimizers()
        first: list[Tensor] = []  # LBFGS asks again; the first answer is the loss of this step

        def closure() -> Tensor:
            optimizer.zero_grad()
            total = torch.zeros((), device=module.device)
            for batch in group:
                loss = module.training_loss(batch) / self.accumulate
                module.manual_backward(loss)
                total += loss.detach()
            first.append(total)
            return total

        optimizer.step(closure)
        for scheduler in self._schedulers(module):
            if not isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step()
        return first[0]

    def clip(self, module: "BaseModule", optimizer: Optimizer) -> None:
        """Clip the gradients of one step."""
        if self.clip_val:
            module.clip_gradients(
                optimizer,
                gradient_clip_val=self.clip_val,
                gradient_clip_algorithm=self.clip_algorithm,
            )

    def total_steps(self, trainer: pl.Trainer) -> int:
        """Return how many optimizer steps the whole run takes.

        Raises:
            ValueError: the run has no end (neither epochs nor steps are limited).
        """
        if self.steps == 1:
            total = trainer.estimated_stepping_batches
        else:
            trainer.fit_loop.setup_data()
            loader: Any = trainer.train_dataloader
            total = trainer.max_steps
            if total == -1:
                assert trainer.max_epochs is not None
                total = trainer.max_epochs * math.ceil(loader.batches / self.accumulate)
        if math.isinf(total):
            raise ValueError("a schedule needs an end: set trainer.max_epochs or trainer.max_steps")
        return max(int(total), 1)

    @staticmethod
    def _schedulers(module: "BaseModule") -> list[Any]:
        schedulers = module.lr_schedulers()
        if schedulers is None:
            return []
        return schedulers if isinstance(schedulers, list) else [schedulers]
