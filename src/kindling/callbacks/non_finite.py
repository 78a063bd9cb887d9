"""Stop a run at a NaN or infinite loss or gradient, before it has changed the weights."""

import math
from collections.abc import Iterator
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

LARGE = 2**14  # gradients with at least this many values are summed separately, not copied
STEPS = 32  # between two checks of what a GPU has computed: each check waits for it


class NonFinite(Callback):
    """Check the loss and gradient of each step before the optimizer uses them.

    On the CPU the step is stopped before the weights change. A GPU is not waited for: there the run
    ends some steps later, or when a checkpoint is about to be written; no unchecked weights are
    saved. The message names the step either way. The steps of `compile=true` are checked after each
    call.

    Args:
        action: "stop" ends the run with exit status 1; "skip" leaves weights and optimizer
            unchanged, continues, and counts (`train/skipped_steps`). A skipped step is a step of
            the schedule, and its loss is not part of `train/loss`. On a GPU, skip waits for each
            step.

    Raises:
        FloatingPointError: out of `Trainer.fit`, naming step, metric and the likely setting.
    """

    def __init__(self, action: Literal["stop", "skip"] = "stop") -> None:
        self.action = action
        self.accepts_compiled_steps = action == "stop"  # a compiled function cannot leave one out
        self.skipped = 0
        self._unlogged: list[int] = []  # skipped steps that are not in the history yet
        self._batch: Any = None
        self._losses: list[Tensor] = []  # of the batches of this step
        self._unchecked: list[tuple[int, Tensor, Tensor]] = []  # step, loss, total

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look up, once per fit, what is checked."""
        self._waits = pl_module.device.type == "cpu" or self.action == "skip"
        # float16 on a GPU: infinite gradients are part of its search for a scale, which skips them.
        self._scaled = getattr(trainer.precision_plugin, "scaler", None) is not None

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, *_: Any) -> None:
        """Keep the batch, to tell whether the data is the cause."""
        self._batch = batch

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        """Keep the loss; reading it on a GPU would wait for it."""
        self._losses.append(loss.detach())

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any
    ) -> None:
        """Check the loss and the gradient of a step."""
        losses, self._losses = self._losses, []
        total = _total([*losses, *([] if self._scaled else _gradients(optimizer))])
        if not self._waits:
            loss = torch.stack(losses).sum() if losses else total
            self._unchecked.append((trainer.global_step, loss, total))
            return
        # A total that overflowed names nothing.
        named = None if math.isfinite(total.item()) else next(_named(losses, pl_module), None)
        if self._any_rank(trainer, named is not None):
            self._end_step(trainer, optimizer, named or "not finite on another process")

    def _any_rank(self, trainer: Any, bad: bool) -> bool:
        """Let all ranks do what one must: each skips, or each stops."""
        if trainer.world_size == 1:
            return bad
        return bool(trainer.strategy.reduce_boolean_decision(bad, all=False))

    def _end_step(self, trainer: Any, optimizer: Any, named: str) -> None:
        """Stop here, or remove the gradients, so that the optimizer has nothing to do."""
        if self.action == "stop":
            raise self._error(trainer, named, trainer.global_step)
        self.skipped += 1
        self._unlogged.append(trainer.global_step)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Check what has not been checked; log what was skipped."""
        self._batch = getattr(outputs, "batches", batch)
        if len(self._unchecked) >= STEPS:
            self._check_back(trainer)
        losses = getattr(outputs, "losses", None)
        if losses and self._waits and self.action == "stop":  # some may be of compiled steps
            self._check_call(trainer, pl_module, losses, outputs.steps)
        if self._unlogged:
            _leave_out(outputs)
            self._log_skipped(trainer, pl_module)

    def _log_skipped(self, trainer: Any, pl_module: pl.LightningModule) -> None:
        steps, self._unlogged = self._unlogged, []
        pl_module.log("train/skipped_steps", float(self.skipped), logger=False, batch_size=1)
        for count, step in enumerate(steps, start=self.skipped - len(steps) + 1):
            for logger in trainer.loggers:
                logger.log_metrics({"train/skipped_steps": float(count)}, step)

    def steps_until_next(self, trainer: Any) -> float:
        """Need no call between steps: each is checked in `on_before_optimizer_step`."""
        return math.inf

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check before validating possibly non-finite weights."""
        self._check_back(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Check before anything is written: the last good checkpoint stays."""
        self._check_back(trainer)
        for name, parameter in pl_module.named_parameters():
            # A finite sum needs no check of each value; one that is not may have overflowed.
            weights = parameter.detach()
            if not math.isfinite(weights.sum().item()) and not weights.isfinite().all():
                raise self._error(
                    trainer, f"the weights of {name} are not finite", trainer.global_step - 1
                )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the last steps; say how many were skipped."""
        self._check_back(trainer)
        if self.skipped and trainer.is_global_zero:
            print(f"{self.skipped} of {trainer.global_step} steps were skipped: not finite")

    def state_dict(self) -> dict[str, Any]:
        """Return how many steps were skipped so far."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the count."""
        self.skipped = state_dict["skipped"]

    def _check_back(self, trainer: Any) -> None:
        """Check the steps that a GPU took in the meantime; this waits for it, once."""
        steps, self._unchecked = self._unchecked, []
        if not steps:
            return
        numbers, losses, totals = zip(*steps, strict=True)
        pairs = torch.stack([*losses, *totals]).tolist()  # one wait
        for step, loss, total in zip(numbers, pairs, pairs[len(steps) :], strict=False):
            if not math.isfinite(loss):
                raise self._error(trainer, f"train/loss is {loss}", step)
            if not math.isfinite(total):
                raise self._error(trainer, "a gradient is not finite", step)

    def _check_call(
        self, trainer: Any, pl_module: Any, losses: list[Tensor], steps: list[int]
    ) -> None:
        """Check the losses of a call, and the gradient of its last step."""
        values = torch.stack(losses).tolist()
        for step, loss in zip(steps, values, strict=True):
            if not math.isfinite(loss):
                raise self._error(trainer, f"train/loss is {loss}", step)
        if not math.isfinite(_total(_gradients(trainer.optimizers[0])).item()):
            for named in _named([], pl_module):
                raise self._error(trainer, named, trainer.global_step - 1)

    def _error(self, trainer: Any, what: str, step: int) -> FloatingPointError:
        """Return what to raise for a step, counted from 0."""
        return FloatingPointError(f"step {step + 1}: {what}: {self._likely(trainer, step)}")

    def _likely(self, trainer: Any, step: int) -> str:
        """Return the likely cause."""
        batch = getattr(trainer.fit_loop.epoch_loop, "batch", None)  # inside a call of several
        if not all(tensor.isfinite().all() for tensor in _tensors([self._batch, batch])):
            return "the batch contains non-finite values too: check the data"
        precision = str(trainer.precision)
        if precision.startswith(("16", "bf16")):
            return f"trainer.precision={precision} may be too coarse: try 32-true"
        if step == 0:
            return "check the loss and the data; debug=anomaly finds the operation"
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        return (
            f"the learning rate ({float(rate):g} here) is probably too large: lower optimizer.lr,"
            " or set trainer.gradient_clip_val"
        )


def _total(tensors: list[Tensor]) -> Tensor:
    """Return the sum of all values, which is not finite if one of them is not.

    Few kernels for a small network; torch.nn.utils.get_total_norm takes 60 us more.
    """
    parts = [t.reshape(-1) if t.numel() < LARGE else t.sum().reshape(1) for t in tensors]
    return torch.cat(parts).sum() if parts else torch.zeros(())


def _gradients(optimizer: Any) -> list[Tensor]:
    groups = optimizer.param_groups
    gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
    return [g.coalesce().values() if g.is_sparse else g for g in gradients]


def _named(losses: list[Tensor], module: nn.Module) -> Iterator[str]:
    """Yield what is not finite: the loss, and gradients by the names of their parameters."""
    for loss in losses:
        if not loss.isfinite():
            yield f"train/loss is {loss.item()}"
    for name, parameter in module.named_parameters():
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            yield f"the gradient of {name} is not finite"


def _leave_out(outputs: Any) -> None:
    """Remove the losses that are not finite, so that they are not part of a mean."""
    if hasattr(outputs, "losses"):
        outputs.losses[:] = [loss for loss in outputs.losses if loss.isfinite()]
    if "loss" in outputs and not outputs["loss"].isfinite():
        del outputs["loss"]


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, dict | list | tuple):
        for part in batch.values() if isinstance(batch, dict) else batch:
            yield from _tensors(part)
