"""Train on one batch as Lightning's automatic optimization does, everything looked up once."""

import inspect
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loops.optimization.automatic import Closure, ClosureResult
from lightning.pytorch.plugins import Precision
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor
from torch.autograd import graph
from torch.optim import optimizer

from src.kindling.speed.hooks import Hooks, overrides


class CallOutputs(dict[str, Any]):
    """The `outputs` of `on_train_batch_end` after a call of several steps: those of the last batch.

    Args:
        outputs: what Lightning passes for the last batch.
        losses: of each batch of the call, as `outputs["loss"]` has it.
        steps: the optimizer step of each of these losses, from 0.
        batches: the batches of the call.
    """

    def __init__(
        self, outputs: dict[str, Any], losses: list[Tensor], steps: list[int], batches: list[Any]
    ) -> None:
        super().__init__(outputs)
        self.losses, self.steps, self.batches = losses, steps, batches


class EagerSteps:
    """Batch by batch: the same arithmetic, hooks and counts as in Lightning's own loop.

    Args:
        trainer: the Trainer in its fit, for which `honored.obstacle` found none.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.module = trainer, trainer.lightning_module
        self.progress = trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer
        self.scheduled = trainer.fit_loop.epoch_loop.scheduler_progress
        self.hooks = Hooks(
            trainer,
            "on_before_zero_grad",
            "on_before_backward",
            "on_after_backward",
            "on_before_optimizer_step",
        )
        precision = trainer.precision_plugin
        changed = type(precision).forward_context is not Precision.forward_context
        self.context: Any = precision.train_step_context if changed else nullcontext
        self.takes_index = is_param_in_hook_signature(
            self.module.training_step, "batch_idx", min_args=2
        )
        self.clips = overrides(self.module, "configure_gradient_clipping", pl.LightningModule)
        self.backward: Callable[..., Any] = partial(
            self.hooks.call, "backward", self.module.backward
        )
        if not overrides(self.module, "backward", pl.LightningModule):
            self.backward = _run_backward
        self.refresh()

    def refresh(self) -> None:
        """Look up, before a call, what a callback may have changed since the last one."""
        trainer = self.trainer
        self.optimizer, self.accumulate = trainer.optimizers[0], trainer.accumulate_grad_batches
        self.update = _step_of(self.optimizer)
        self.parameters = [p for g in self.optimizer.param_groups for p in g["params"]]
        self.schedules = [
            (config.scheduler, config.frequency)
            for config in trainer.lr_scheduler_configs
            if config.interval == "step" and not config.reduce_on_plateau
        ]

    def take(self, batch: Any, index: int, steps: bool) -> dict[str, Any]:
        """Train on a batch.

        Args:
            batch: the batch, on the device.
            index: its number in the epoch.
            steps: whether it is the last of those whose gradients make one optimizer step.

        Returns:
            What Lightning passes to `on_train_batch_end`.
        """
        self._arguments = (batch, index) if self.takes_index else (batch,)
        self._zeroes, self._steps = index % self.accumulate == 0, steps
        if steps:
            count = self.progress.step
            count.increment_ready()
            with torch.no_grad():
                self.update(self._closure)
            count.increment_completed()
            for scheduler, frequency in self.schedules:
                if (index + 1) % frequency == 0:
                    self.scheduled.increment_ready()
                    scheduler.step()
                    self.scheduled.increment_completed()
        else:
            self._closure()
        return self._outputs

    def _closure(self) -> Tensor | None:
        """Compute the gradients; Lightning's order of hooks."""
        if not torch.is_grad_enabled():
            with torch.enable_grad():
                return self._closure()
        loss = self._training_step()
        if self._zeroes:
            self._zero_grad()
        if loss is not None:
            self.hooks("on_before_backward", loss)
            self.backward(loss)
            self.hooks("on_after_backward")
        if self._steps:
            self.hooks("on_before_optimizer_step", self.optimizer)
            self._clip()
        return None if loss is None else loss.detach()

    def _training_step(self) -> Tensor | None:
        attributes = vars(self.module)
        attributes["_current_fx_name"] = "training_step"  # for `self.log`: see hooks.py
        with self.context():
            output = self.module.training_step(*self._arguments)
        attributes["_current_fx_name"] = None
        extra: Mapping[str, Any] = {}
        if type(output) is not Tensor:
            result = ClosureResult.from_training_step_output(output, self.accumulate)
            output, extra = result.closure_loss, result.extra
        elif self.accumulate != 1:
            output = output / self.accumulate
        if output is None:
            Closure.warning_cache.warn(
                "`training_step` returned `None`. If this was on purpose, ignore this warning..."
            )
        self._outputs = {} if output is None else {"loss": output.detach(), **extra}
        loss: Tensor | None = output
        return loss

    def _zero_grad(self) -> None:
        count = self.progress.zero_grad
        count.increment_ready()
        self.hooks("on_before_zero_grad", self.optimizer)
        count.increment_started()
        for parameter in self.parameters:
            parameter.grad = None
        count.increment_completed()

    def _clip(self) -> None:
        value, algorithm = self.trainer.gradient_clip_val, self.trainer.gradient_clip_algorithm
        if value is not None or self.clips:
            name = "configure_gradient_clipping"
            values = {"gradient_clip_val": value, "gradient_clip_algorithm": algorithm}
            self.hooks.call(name, getattr(self.module, name), self.optimizer, **values)


def _step_of(made: Any) -> Callable[[Callable[[], Any]], Any]:
    """Return the step of an optimizer, without the wrapping for hooks if it has none.

    The wrapping takes 65 us next to a network that fills the processor's cache.
    """
    own = made._optimizer_step_pre_hooks, made._optimizer_step_post_hooks
    shared = optimizer._global_optimizer_pre_hooks, optimizer._global_optimizer_post_hooks
    if any(map(bool, (*own, *shared))) or not type(made).__module__.startswith("torch.optim"):
        step: Callable[[Callable[[], Any]], Any] = made.step
        return step
    made._opt_called = True  # else a schedule warns that its step came first
    return partial(inspect.unwrap(type(made).step), made)


def _run_backward(loss: Tensor) -> None:
    """Add the gradients of a loss, as `loss.backward()` does.

    Skips the Python-side checks of its arguments (40 us), which a scalar tensor does not need.
    """
    if type(loss) is Tensor and loss.dim() == 0 and loss.requires_grad:
        gradient = (torch.ones_like(loss),)
        graph._engine_run_backward(
            (loss,), gradient, False, False, (), allow_unreachable=True, accumulate_grad=True
        )
    else:
        loss.backward()  # type: ignore[no-untyped-call]
