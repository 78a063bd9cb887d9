"""Learning-rate schedules over a whole run: each takes (optimizer, total_steps) and its settings.

Each multiplies the optimizer's learning rate by a factor that depends only on the step and the
length of the run. A YAML therefore needs no step count, and a run that is made longer moves to its
place in the longer schedule. Schedules advance after each optimizer step; plateau alone reads the
validation loss. total_steps is None for a run that only the clock ends: all schedules except
constant and plateau then raise ValueError.
"""

import math
from typing import Annotated, Any

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn
from pydantic import Field, NonNegativeInt, PositiveFloat
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

Share = Annotated[float, Field(gt=0, lt=1)]
NEVER = 2**62  # epochs: the frequency of a plateau schedule that Lightning leaves to PlateauSteps


def constant(optimizer: Optimizer, total_steps: int | None) -> None:
    """Keep the optimizer's learning rate: no schedule, so callbacks may set it or add groups."""


def step(
    optimizer: Optimizer, total_steps: int | None, every: Share = 0.25, gamma: PositiveFloat = 0.5
) -> LambdaLR:
    """Multiply the learning rate by `gamma` after each `every` share of the run."""
    size = max(1, round(_known(total_steps) * every))
    return LambdaLR(optimizer, lambda step: gamma ** (step // size))


def cosine(
    optimizer: Optimizer, total_steps: int | None, final: Annotated[float, Field(ge=0, le=1)] = 0.0
) -> LambdaLR:
    """Decay the optimizer's learning rate to the share `final` of it along half a cosine.

    Source: Loshchilov and Hutter, "SGDR" (2017); torch's CosineAnnealingLR.
    """
    end = _known(total_steps)
    return LambdaLR(optimizer, lambda step: _along_cosine(1.0, final, step / end))


def one_cycle(
    optimizer: Optimizer,
    total_steps: int | None,
    pct_start: Share = 0.3,
    div_factor: PositiveFloat = 25.0,
    final_div_factor: PositiveFloat = 1e4,
) -> LambdaLR:
    """Raise to the optimizer's learning rate over `pct_start` of the run, then decay to near zero.

    The optimizer's learning rate is the peak; the first is `1 / div_factor` of it, and the last
    `1 / final_div_factor` of the first. Momentum is not changed, so any optimizer works.

    Source: Smith and Topin, "Super-convergence" (2018); torch's OneCycleLR, whose values these are.
    """
    first, last = 1 / div_factor, 1 / div_factor / final_div_factor
    end = max(_known(total_steps) - 1, 1)
    peak = pct_start * (end + 1) - 1

    def factor(step: int) -> float:
        if step <= peak:
            return _along_cosine(first, 1.0, step / peak if peak > 0 else 1.0)
        return _along_cosine(1.0, last, (step - peak) / (end - peak) if end > peak else 1.0)

    return LambdaLR(optimizer, factor)


def plateau(
    optimizer: Optimizer,
    total_steps: int | None,
    factor: Share = 0.1,
    patience: NonNegativeInt = 10,
) -> ReduceLROnPlateau:
    """Multiply by `factor` when the validation loss has not fallen for `patience` validations."""
    return ReduceLROnPlateau(optimizer, factor=factor, patience=patience)


class PlateauSteps(pl.Callback):
    """Step plateau schedules after each validation, before its checkpoint is written."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the schedules the new value."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            step_plateaus(trainer, "val/loss")


def step_plateaus(trainer: Any, metric: str) -> None:
    """Give a new value of a metric to the plateau schedules that read it.

    One of a user's own `configure_optimizers` is Lightning's to step.
    """
    for config in trainer.lr_scheduler_configs:
        value = trainer.callback_metrics.get(metric)
        if config.frequency == NEVER and config.monitor == metric and value is not None:
            config.scheduler.step(float(value))


def _known(total_steps: int | None) -> int:
    if total_steps is None:
        raise ValueError("this schedule spans the run: set trainer.max_epochs or trainer.max_steps")
    return total_steps


def _along_cosine(start: float, end: float, share: float) -> float:
    """Interpolate from start to end along half a cosine; constant afterwards."""
    return end + (start - end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2
