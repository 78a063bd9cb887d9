"""Who takes the optimizer steps of an execution: one class a way, all with the same results.

`Execution` asks for a way once a fit, and hands it the batches of each call.
"""

from typing import Any, Protocol

import lightning.pytorch as pl
import torch
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.autograd import graph
from torch.optim import Optimizer, optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from src.kindling.speed.fused import update_of
from src.kindling.speed.hooks import Hooks, is_written

# A module here is a BaseModule, whose Execution imports this file.


class StepBackend(Protocol):
    """A way of taking several optimizer steps."""

    def take(self, groups: list[list[Any]]) -> Tensor:
        """Take one step for each group of batches: gradients averaged, clipped, applied.

        Each step is counted (`count_steps`) and followed by its schedule's. Afterwards the
        parameters hold the gradient of the last step.

        Returns:
            Losses [S], each the mean over its group before the step, detached, on the device.
        """


class TrainerSteps:
    """Steps by way of Lightning, with all that its strategies, precisions and hooks do around one.

    Args:
        module: the BaseModule, attached to its Trainer.
    """

    def __init__(self, module: Any) -> None:
        self.module, self.accumulate = module, module.execution.accumulate
        self.schedulers = step_schedulers(module)

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
            for part, batch in enumerate(group):
                start_batch(self.module, part)
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


class EagerSteps:
    """Steps as a hand-written loop takes them: the same arithmetic, everything looked up once.

    Args:
        module: the BaseModule, attached to its Trainer, which they `suit`.
    """

    def __init__(self, module: Any) -> None:
        self.module, self.trainer = module, module.trainer
        self.accumulate, self.randomness = module.execution.accumulate, module.randomness
        self.optimizer = self.trainer.optimizers[0]
        self.parameters = [p for g in self.optimizer.param_groups for p in g["params"]]
        self.update = update_of(self.optimizer)
        self.optimizer._opt_called = True  # else a schedule warns that its step came first
        self.schedulers = step_schedulers(module)
        self.hooks = Hooks(
            self.trainer, "on_before_backward", "on_after_backward", "on_before_optimizer_step"
        )

    @staticmethod
    def suit(module: Any) -> bool:
        """Say whether Lightning and torch would do nothing around a step of this module."""
        trainer = module.trainer
        return (
            type(trainer.strategy) is SingleDeviceStrategy
            and trainer.scaler is None
            and isinstance(trainer.profiler, PassThroughProfiler)
            and len(trainer.optimizers) == 1
            and not _has_hooks(trainer.optimizers[0])
            and not is_written(module, "backward", pl.LightningModule)
            and not is_written(module, "manual_backward", pl.LightningModule)
        )

    def take(self, groups: list[list[Any]]) -> Tensor:
        """Take one step for each group; see `Stepper`."""
        first = self.trainer.global_step  # asked once: Lightning looks it up in its loops
        with torch.no_grad():
            steps = enumerate(groups, start=first)
            losses = [self._step(step, group) for step, group in steps]
            return torch.stack(losses) if len(losses) > 1 else losses[0][None]  # a view: no kernel

    def _step(self, step: int, group: list[Any]) -> Tensor:
        """Take one step, counted from 0; return the loss before it."""
        losses: list[Tensor] = []  # LBFGS asks again; the first answers are those of this step

        def closure() -> Tensor:
            for parameter in self.parameters:
                parameter.grad = None
            total = self._backward(group[0], step, 0)
            for part, batch in enumerate(group[1:], start=1):
                total = total + self._backward(batch, step, part)
            losses.append(total)
            self.hooks("on_before_optimizer_step", self.optimizer)
            return total

        self.update(closure)
        count_steps(self.trainer, 1)
        for scheduler in self.schedulers:
            scheduler.step()
        mean = losses[0]
        return mean if self.accumulate == 1 else mean * (self.accumulate / len(group))

    def _backward(self, batch: Any, step: int, part: int) -> Tensor:
        """Add the gradient of one batch; return its share of the loss."""
        if self.randomness is not None:
            self.randomness.start_batch(step, part)
        loss: Tensor = self.module.training_loss(batch)
        if self.accumulate != 1:
            loss = loss / self.accumulate
        self.hooks("on_before_backward", loss)
        _run_backward(loss)
        self.hooks("on_after_backward")
        return loss.detach()


def start_batch(module: Any, part: int) -> None:
    """Start the random numbers of one batch of the step that comes next."""
    if module.randomness is not None:
        module.randomness.start_batch(module.trainer.global_step, part)


def step_schedulers(module: Any) -> list[Any]:
    """Return the module's schedules that advance once an optimizer step."""
    schedulers = module.lr_schedulers() or []
    schedulers = schedulers if isinstance(schedulers, list) else [schedulers]
    return [s for s in schedulers if not isinstance(s, ReduceLROnPlateau)]


def count_steps(trainer: Any, steps: int) -> None:
    """Move `trainer.global_step` on by steps that no Lightning optimizer has counted."""
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    for counts in (progress.total, progress.current):
        counts.ready += steps
        counts.completed += steps


def _run_backward(loss: Tensor) -> None:
    """Add the gradients of a loss, as `loss.backward()` does.

    Whose checks of what it was given, in Python, take 40 us beside a network that fills the
    processor's cache; a loss that is one number of torch's own kind needs none of them.
    """
    if type(loss) is Tensor and loss.dim() == 0 and loss.requires_grad:
        slopes = (torch.ones_like(loss),)
        graph._engine_run_backward(
            (loss,), slopes, False, False, (), allow_unreachable=True, accumulate_grad=True
        )
    else:
        loss.backward()  # type: ignore[no-untyped-call]


def _has_hooks(chosen: Optimizer) -> bool:
    # There is no public way to ask.
    own = (chosen._optimizer_step_pre_hooks, chosen._optimizer_step_post_hooks)
    shared = (optimizer._global_optimizer_pre_hooks, optimizer._global_optimizer_post_hooks)
    return any(map(bool, (*own, *shared)))
