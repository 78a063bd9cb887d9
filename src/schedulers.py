"""Learning-rate schedules over a whole run: each takes (optimizer, total_steps) and its settings.

They advance once an optimizer step (plateau once a validation), and they end where the run ends, so
a YAML needs no step count. All are torch's own, told how long the run is.
"""

from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)

Share = Annotated[float, Field(gt=0, lt=1)]


def constant(optimizer: Optimizer, total_steps: int) -> LRScheduler:
    """Leave the optimizer's learning rate as it is."""
    return LambdaLR(optimizer, _one)


def _one(step: int) -> float:
    return 1.0


def step(
    optimizer: Optimizer, total_steps: int, every: Share = 0.25, gamma: Share = 0.5
) -> LRScheduler:
    """Multiply the learning rate by `gamma` after each `every` share of the run."""
    return StepLR(optimizer, step_size=max(1, round(total_steps * every)), gamma=gamma)


def cosine(optimizer: Optimizer, total_steps: int, eta_min: NonNegativeFloat = 0.0) -> LRScheduler:
    """Fall from the optimizer's learning rate to `eta_min` along half a cosine.

    Source: Loshchilov and Hutter, "SGDR" (2017).
    """
    return CosineAnnealingLR(optimizer, T_max=total_steps, eta_min=eta_min)


def one_cycle(
    optimizer: Optimizer,
    total_steps: int,
    pct_start: Share = 0.3,
    div_factor: PositiveFloat = 25.0,
    final_div_factor: PositiveFloat = 1e4,
) -> LRScheduler:
    """Rise to the optimizer's learning rate over `pct_start` of the run, then fall to almost none.

    The optimizer's learning rate is the peak. The momentum is left alone, so that the schedule goes
    with every optimizer.

    Source: Smith and Topin, "Super-convergence" (2018).
    """
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=max(total_steps, 2),  # torch divides by the steps of each phase
        pct_start=pct_start,
        div_factor=div_factor,
        final_div_factor=final_div_factor,
        cycle_momentum=False,
    )


def plateau(
    optimizer: Optimizer, total_steps: int, factor: Share = 0.1, patience: NonNegativeInt = 10
) -> ReduceLROnPlateau:
    """Multiply by `factor` when the validation loss has not fallen for `patience` validations."""
    return ReduceLROnPlateau(optimizer, factor=factor, patience=patience)
