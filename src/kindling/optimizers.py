"""Optimizers that PyTorch lacks; the others need only a YAML in conf/optimizer/."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from pydantic import NonNegativeFloat
from torch import nn


class Muon(torch.optim.Optimizer):
    """Muon for weight matrices, AdamW for all other parameters (biases, gains, convolutions).

    `torch.optim.Muon` accepts only matrices, because it orthogonalizes their updates. Here both
    optimizers share the param groups and the state of this one, so that schedules, gradient
    clipping and checkpoints see a single optimizer. Both use the same learning rate: Muon's updates
    are scaled to the size of AdamW's.

    Args:
        params: the parameters; Muon updates those with two dimensions.
        lr: learning rate of both.
        weight_decay: decoupled weight decay of both.
        momentum: Muon's momentum.
        betas: AdamW's averaging of gradient and squared gradient.

    Raises:
        ValueError: there are no parameters, or a value is out of range.

    Source: Jordan et al., "Muon: an optimizer for hidden layers" (2024); the scaling: Liu et al.,
    "Muon is scalable for LLM training" (2025).
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: NonNegativeFloat = 1e-3,
        weight_decay: NonNegativeFloat = 0.1,
        momentum: NonNegativeFloat = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        params = list(params)
        shared: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay}
        self._parts: list[torch.optim.Optimizer] = []
        if matrices := [p for p in params if p.ndim == 2]:
            self._parts.append(
                torch.optim.Muon(
                    matrices, momentum=momentum, adjust_lr_fn="match_rms_adamw", **shared
                )
            )
        if others := [p for p in params if p.ndim != 2]:
            self._parts.append(torch.optim.AdamW(others, betas=betas, **shared))
        super().__init__([group for part in self._parts for group in part.param_groups], shared)
        self._share()

    def _share(self) -> None:
        # Each part updates one of this optimizer's param groups, using this optimizer's state.
        for part, param_group in zip(self._parts, self.param_groups, strict=True):
            part.param_groups = [param_group]
            part.state = self.state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._share()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters once; return the loss of the closure, if given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss
