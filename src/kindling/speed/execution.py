"""Several optimizer steps a call of the Trainer (Keras calls it `steps_per_execution`).

A Trainer costs a fixed time a call, which for a small network is several times the step itself.
With K steps a call that cost is paid once for K. K = 1 is Lightning's automatic optimization and
uses nothing of this file but `total_steps`, unless the step is compiled.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from src.kindling.speed.compiled import CompiledSteps
from src.kindling.speed.steps import EagerSteps, StepBackend, TrainerSteps

# A module here is a BaseModule, which imports this file.


@dataclass
class Execution:
    """How one call of `training_step` becomes K optimizer steps.

    Where an epoch has no more than half as many, the loop makes several calls of an execution, one
    an epoch, with nothing between them: see src/kindling/speed/epochs_per_call.py.

    Args:
        steps: K, optimizer steps a call; the loader then yields lists of K * accumulate batches.
        accumulate: batches whose gradients are averaged into one step.
        clip_val: largest gradient norm (or value); None leaves gradients as they are.
        clip_algorithm: "norm" or "value".
        compile: whether the steps of a call are one compiled function, where they can be.

    Source: Keras, `Model.compile(steps_per_execution=...)`; Lightning, "Manual optimization".
    """

    steps: int = 1
    accumulate: int = 1
    clip_val: float | None = None
    clip_algorithm: str = "norm"
    compile: bool = False
    _stepper: StepBackend | None = field(default=None, init=False, repr=False)

    def run(self, module: Any, batches: Any) -> dict[str, Any]:
        """Take a step for each `accumulate` of the batches, up to `trainer.max_steps`.

        Where one step of one batch is an execution, that batch comes alone.

        Returns:
            `losses` [steps], the loss of each step before it was taken; `loss`, the mean over the
            batches; and `batches`, how many there were.
        """
        if self._stepper is None:
            self._stepper = self._chosen(module)
        trainer, size = module.trainer, self.accumulate
        if self.steps * size == 1:
            batches = [batches]
        groups = [batches[start : start + size] for start in range(0, len(batches), size)]
        if trainer.max_steps != -1:
            groups = groups[: trainer.max_steps - trainer.global_step]
        losses = self._stepper.take(groups)
        # Lightning counts this call as one step of the charts' axis; it was several.
        trainer.fit_loop.epoch_loop._batches_that_stepped += len(groups) - 1
        sizes = [len(group) for group in groups]
        return {"losses": losses, "loss": _mean(losses, sizes), "batches": sum(sizes)}

    @staticmethod
    def joined(epochs: list[dict[str, Any]]) -> dict[str, Any]:
        """Return what `run` returned of several epochs as that of one; `epochs` has each."""
        if len(epochs) == 1:
            return epochs[0]
        counts = [outputs["batches"] for outputs in epochs]
        return {
            "losses": torch.cat([outputs["losses"] for outputs in epochs]),
            "loss": _mean(torch.stack([outputs["loss"] for outputs in epochs]), counts),
            "batches": sum(counts),
            "epochs": epochs,
        }

    def begin(self) -> None:
        """Choose anew who takes the steps: there is a new optimizer, or a new Trainer."""
        self._stepper = None

    def _chosen(self, module: Any) -> StepBackend:
        """Decide, once a fit, who takes the steps of this module."""
        eager = EagerSteps(module) if EagerSteps.suit(module) else TrainerSteps(module)
        return CompiledSteps(module, otherwise=eager) if self.compile else eager

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
                    " src/kindling/loader.py does; set steps_per_execution=1"
                )
            total = trainer.max_steps
            if total == -1 and trainer.max_epochs != -1:
                total = (trainer.max_epochs or 0) * math.ceil(loader.batches / self.accumulate)
        # Both have set up the loader before the checkpoint of a resumed run was read: forgotten
        # here, it is set up again, and takes up its place in the epoch.
        trainer.fit_loop._combined_loader = None
        return None if total == -1 or math.isinf(total) else max(int(total), 1)


def _mean(losses: Tensor, sizes: list[int]) -> Tensor:
    """Return the mean over the batches of losses [S] that are means over groups of these sizes."""
    if len(sizes) == 1:
        return losses[0]
    if min(sizes) == max(sizes):
        return losses.mean()
    weights = losses.new_tensor(sizes)  # [S]
    return (losses * weights).sum() / weights.sum()
