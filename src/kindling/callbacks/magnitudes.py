"""Measure the size of the gradients, and how far a step moves the weights.

Both show early whether training is healthy: a gradient norm that keeps growing, or updates of more
than a hundredth of the weights, precede a loss that is NaN.
"""

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn
from torch.nn.utils import get_total_norm


class GradientNorms:
    """Gradient norm and update-to-weight ratio of one optimizer step.

    The gradient is the one that the step used: after clipping. The update is the norm of the change
    of the weights, divided by their norm before the step.
    """

    def __init__(self) -> None:
        self._weights: list[nn.Parameter] = []  # looked up once per point: it takes 50 us
        self._before: list[Tensor] = []
        self._step = -1

    def snapshot(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Copy the weights before a step that is logged."""
        if self._step != trainer.global_step:  # once per step, not once per microbatch
            self._weights = [p for p in module.parameters() if p.requires_grad]
            self._before = [p.detach().clone() for p in self._weights]
            self._step = trainer.global_step

    def measure(self, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, float]:
        """Return the two by name, after the step; empty if no step was taken."""
        if not self._before or trainer.global_step == self._step:
            return {}
        gradients = [_dense(p.grad) for p in self._weights if p.grad is not None]
        sizes = [get_total_norm(gradients), get_total_norm(self._before)]
        for old, new in zip(self._before, self._weights, strict=True):
            old -= new.detach()  # in place: large weights are copied once
        sizes.append(get_total_norm(self._before))
        exact = torch.promote_types(sizes[0].dtype, torch.float32)
        norms = torch.stack([size.to(module.device, exact) for size in sizes])  # one wait
        if isinstance(trainer.strategy, FSDPStrategy):  # each rank has its share of the weights
            norms = trainer.strategy.reduce(norms.square(), reduce_op="sum").sqrt()
        self._weights, self._before = [], []
        gradient, weight, update = norms.tolist()
        found = {"train/gradient_norm": gradient} if gradients else {}
        return found | ({"train/update_to_weight": update / weight} if weight > 0 else {})


def _dense(gradient: Tensor) -> Tensor:
    return gradient.coalesce().values() if gradient.is_sparse else gradient
