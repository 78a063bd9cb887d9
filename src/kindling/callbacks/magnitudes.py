"""How large are the gradients, and how far does a step move the weights?

Both say early whether training is healthy: a gradient norm that grows without end, or updates of
more than a hundredth of the weights, come before a loss that is not a number.
"""

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn
from torch.nn.utils import get_total_norm


class GradientNorms:
    """Gradient norm and update-to-weight ratio of one call of the Trainer.

    The gradient is that of the call's last step, as the step took it: after clipping. The update is
    how far the call moved the weights, over their norm before it and over the steps of the call: of
    several steps (`steps_per_execution`) it is the mean one, without what they undo of each other.
    """

    def __init__(self) -> None:
        self._weights: list[nn.Parameter] = []  # looked up once a point: it takes 50 us
        self._before: list[Tensor] = []
        self._step = -1

    def remember(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Copy the weights, before a call that ends at a logging point."""
        if self._step != trainer.global_step:  # once where several batches make a step
            self._weights = [p for p in module.parameters() if p.requires_grad]
            self._before = [p.detach().clone() for p in self._weights]
            self._step = trainer.global_step

    def measured(self, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, float]:
        """Return the two by name, after the call; without what is not known."""
        if not self._before or (steps := trainer.global_step - self._step) < 1:
            return {}
        gradients = [_dense(p.grad) for p in self._weights if p.grad is not None]
        sizes = [get_total_norm(gradients), get_total_norm(self._before)]
        for old, new in zip(self._before, self._weights, strict=True):
            old -= new.detach()  # in place: large weights are copied once
        sizes.append(get_total_norm(self._before))
        norms = torch.stack([size.float().to(module.device) for size in sizes])  # one wait
        if isinstance(trainer.strategy, FSDPStrategy):  # each rank has its share of the weights
            norms = trainer.strategy.reduce(norms.square(), reduce_op="sum").sqrt()
        self._weights, self._before = [], []
        gradient, weight, update = norms.tolist()
        found = {"train/gradient_norm": gradient} if gradients else {}
        return found | ({"train/update_to_weight": update / weight / steps} if weight > 0 else {})


def _dense(gradient: Tensor) -> Tensor:
    return gradient.coalesce().values() if gradient.is_sparse else gradient
