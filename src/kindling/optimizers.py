"""Optimizers that torch does not offer in one piece; the others stand in conf/optimizer/ alone."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from pydantic import NonNegativeFloat
from torch import nn


class Muon(torch.optim.Optimizer):
    """Muon for the weight matrices, AdamW for everything else (biases, gains, embeddings of 1-D).

    `torch.optim.Muon` takes matrices alone, because it orthogonalises their update. Here both
    optimizers share this one's parameter groups and state, so that a schedule, gradient clipping
    and a checkpoint see a single optimizer. One learning rate serves both: the update of a matrix
    is scaled to the size that AdamW's would have.

    Args:
        params: the parameters; those with two dimensions go to Muon.
        lr: learning rate of both.
        weight_decay: decoupled weight decay of both.
        momentum: Muon's momentum.
        betas: AdamW's averaging of gradient and squared gradient.

    Raises:
        ValueError: no parameter was given, or a value is out of range.

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
        # Each part works on one of this optimizer's groups and on this optimizer's state.
        for part, group in zip(self._parts, self.param_groups, strict=True):
            part.param_groups = [group]
            part.state = self.state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._share()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters once; return the closure's loss, if there is a closure."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss
