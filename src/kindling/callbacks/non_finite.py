"""A loss or gradient that is no number ends a run at once, before it has touched the weights."""

import math
from collections.abc import Iterator
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

STEPS = 32  # between two looks at what a GPU has found: each look waits for it
LARGE = 2**14  # values of a gradient, from which on its sum is cheaper than the check of each


class NonFinite(Callback):
    """Look at each step's loss and gradient before the optimizer does.

    On the CPU the step is stopped before the weights change. A GPU is not waited for: there the run
    ends some steps later, or when a checkpoint is about to be written; no weights are saved that
    were not looked at. The message names the step either way. What steps of `compile=true` leave is
    looked at after each execution.

    Args:
        action: "stop" ends the run with exit status 1; "skip" leaves weights and optimizer as they
            were and goes on, counting (`train/skipped_steps`). A skipped step is a step of the
            schedule. On a GPU, skip waits for each step.

    Raises:
        FloatingPointError: out of `Trainer.fit`, naming step, metric and the likely setting.
    """

    def __init__(self, action: Literal["stop", "skip"] = "stop") -> None:
        self.action = action
        self.wants_each_step = action == "skip"  # steps that are compiled have no place for it
        self.skipped = 0
        self._noted = 0  # how many of them are in the history
        self._batch: Any = None
        self._losses: list[Tensor] = []  # of the batches of this step
        self._steps: list[tuple[int, Tensor, Tensor]] = []  # not looked at: step, loss, gradient

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look up what there is to look at."""
        self._parameters = [p for p in pl_module.parameters() if p.requires_grad]
        device = pl_module.device
        self._waits = device.type == "cpu" or self.action == "skip"
        # float16 on a GPU: infinite gradients are part of its search for a scale, which skips them.
        self._scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        self._found, self._one = torch.zeros(1, device=device), torch.ones(1, device=device)
        self._alone = trainer.world_size == 1
        self._watched = False  # whether each step of this call was looked at

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the batch, to say whether it was the data."""
        self._batch, self._watched = batch, False

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        """Keep the loss; reading it on a GPU would wait for it."""
        self._losses.append(loss)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any
    ) -> None:
        """Look at the loss and the gradient of a step."""
        losses, self._losses = self._losses, []
        self._check(losses)
        if not self._waits:
            self._steps.append((trainer.global_step, _sum(losses), self._found))
            self._found = torch.zeros_like(self._found)
            return
        self._watched = True
        if self._agreed(trainer, self._found.item() != 0):
            self._found.zero_()
            self._end(trainer, pl_module, losses)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Look at what has not been looked at; note what was skipped."""
        if len(self._steps) >= STEPS:
            self._look_back(trainer)
        if self._waits and not self._watched and "losses" in outputs:  # the steps were compiled
            self._look_at(trainer, pl_module, outputs["losses"])
        if self.skipped > self._noted:
            self._noted = self.skipped
            _leave_out(outputs)
            metrics = {"train/skipped_steps": float(self.skipped)}
            pl_module.log_dict(metrics, logger=False, batch_size=1)
            for logger in trainer.loggers:
                logger.log_metrics(metrics, trainer.global_step - 1)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look before weights are tested that may be no numbers."""
        self._look_back(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Look before anything is written: the last good checkpoint stays."""
        self._look_back(trainer)
        for name, parameter in pl_module.named_parameters():
            # A finite sum needs no look at each value; one that is not may have overflowed.
            weights = parameter.detach()
            if not math.isfinite(weights.sum().item()) and not weights.isfinite().all():
                raise self._error(
                    trainer, f"the weights of {name} are not finite", trainer.global_step - 1
                )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the last steps; say how many were skipped."""
        self._look_back(trainer)
        if self.skipped and trainer.is_global_zero:
            print(f"{self.skipped} of {trainer.global_step} steps were skipped: not finite")

    def state_dict(self) -> dict[str, Any]:
        """Return how many steps were skipped so far."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.skipped = self._noted = state_dict["skipped"]

    # Looking ----------------------------------------------------------------------------------

    def _check(self, losses: list[Tensor]) -> None:
        """Put 1 into `_found` if a loss or gradient holds what is not finite; waits for nothing."""
        few = [loss.detach() for loss in losses]
        for parameter in [] if self._scaled else self._parameters:
            if (g := parameter.grad) is not None:
                # A sum is not finite if a value is not; one that overflows is told by `_named`.
                few.append(g if g.numel() < LARGE else g.sum())
        # One kernel for all, of torch's GradScaler: it also multiplies by one, and has no public
        # name. A list of sums would take three times as long for small gradients.
        torch._amp_foreach_non_finite_check_and_unscale_(few, self._found, self._one)

    def _agreed(self, trainer: Any, bad: bool) -> bool:
        """Let all ranks do what one must: each skips, or each stops."""
        if self._alone:
            return bad
        return bool(trainer.strategy.reduce_boolean_decision(bad, all=False))

    def _end(self, trainer: Any, pl_module: Any, losses: list[Tensor]) -> None:
        """Stop here, or take the gradients away, so that the optimizer finds nothing to do."""
        named = next(_named(losses, pl_module), None)
        if named is None and trainer.world_size == 1:
            return  # a sum that overflowed
        if self.action == "stop":
            raise self._error(
                trainer, named or "not finite on another process", trainer.global_step
            )
        self.skipped += 1
        for parameter in self._parameters:
            parameter.grad = None

    def _look_back(self, trainer: Any) -> None:
        """Look at the steps that a GPU took in the meantime; this waits for it, once."""
        steps, self._steps = self._steps, []
        if not steps:
            return
        losses = torch.stack([loss.float() for _, loss, _ in steps])  # [S]
        found = torch.cat([found for _, _, found in steps])  # [S]
        numbers = (step for step, _, _ in steps)
        for step, loss, bad in zip(numbers, losses.tolist(), found.tolist(), strict=True):
            if not math.isfinite(loss):
                raise self._error(trainer, f"train/loss is {loss}", step)
            if bad:
                raise self._error(trainer, "a gradient is not finite", step)

    def _look_at(self, trainer: Any, pl_module: Any, losses: Tensor) -> None:
        """Look at the losses [S] of an execution, and at the gradient of its last step."""
        self._check([losses])
        if not self._found.item():
            return
        for step, loss in enumerate(losses.tolist(), start=trainer.global_step - len(losses)):
            if not math.isfinite(loss):
                raise self._error(trainer, f"train/loss is {loss}", step)
        for named in _named([], pl_module):
            raise self._error(trainer, named, trainer.global_step - 1)
        self._found.zero_()

    def _error(self, trainer: Any, what: str, step: int) -> FloatingPointError:
        """Return what to raise for a step, counted from 0."""
        return FloatingPointError(f"step {step + 1}: {what}: {self._likely(trainer, step)}")

    def _likely(self, trainer: Any, step: int) -> str:
        """Return what is probably the matter."""
        if not all(tensor.isfinite().all() for tensor in _tensors(self._batch)):
            return "so are values of the batch: look at the data"
        precision = str(trainer.precision)
        if precision.startswith(("16", "bf16")):
            return f"trainer.precision={precision} may be too coarse: try 32-true"
        if step == 0:
            return "look at the loss and the data; debug=anomaly finds the operation"
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        return (
            f"the learning rate ({float(rate):g} here) is probably too large: lower optimizer.lr,"
            " or set trainer.gradient_clip_val"
        )


def _sum(losses: list[Tensor]) -> Tensor:
    return torch.stack([loss.detach() for loss in losses]).sum()


def _named(losses: list[Tensor], module: nn.Module) -> Iterator[str]:
    """Yield what is not finite: the loss, and gradients by their parameters' names."""
    for loss in losses:
        if not loss.isfinite():
            yield f"train/loss is {loss.item()}"
    for name, parameter in module.named_parameters():
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            yield f"the gradient of {name} is not finite"


def _leave_out(outputs: Any) -> None:
    """Take the losses that are no numbers out of the mean that is logged, of each epoch too."""
    for epoch in outputs.get("epochs", []):
        _leave_out(epoch)
    losses = outputs.get("losses", outputs["loss"].reshape(1))
    good = losses[losses.isfinite()]
    outputs["batches"] = outputs.get("batches", 1) * len(good) // len(losses)
    outputs["loss"] = good.mean() if len(good) else torch.zeros_like(losses[0])


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, dict | list | tuple):
        for part in batch.values() if isinstance(batch, dict) else batch:
            yield from _tensors(part)
