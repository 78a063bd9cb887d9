"""Learning-rate schedules over a whole run: each takes (optimizer, total_steps) and its settings.

Each is the optimizer's learning rate times a factor that follows from the step and the length of
the run alone. So a YAML needs no step count, a resumed run needs no memory of the schedule, and a
run that is made longer moves to its place in the longer schedule. They advance once an optimizer
step; plateau alone looks at the validation loss instead. A run that only the clock ends has
total_steps None: all but constant and plateau then raise ValueError.
"""

import math
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveFloat
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

Share = Annotated[float, Field(gt=0, lt=1)]


class Schedule(LambdaLR):
    """torch's LambdaLR, whose state it keeps, with a step that only writes the learning rate.

    Args:
        optimizer: whose learning rates are multiplied.
        lr_lambda: the factor, from the number of steps taken.
    """

    def step(self, epoch: int | None = None) -> None:
        """Move on: 1 us, where torch's own checks and context managers take 10."""
        groups = self.optimizer.param_groups
        if self._is_initial or epoch is not None or isinstance(groups[0]["lr"], Tensor):
            return super().step(epoch)
        self.last_epoch += 1
        self._step_count += 1
        for group, base_lr, factor in zip(groups, self.base_lrs, self.lr_lambdas, strict=True):
            group["lr"] = base_lr * factor(self.last_epoch)
        self._last_lr = [group["lr"] for group in groups]
        return None


def none(optimizer: Optimizer, total_steps: int | None) -> None:
    """Return no schedule: callbacks and hooks may then add parameter groups or change the rate."""


def constant(optimizer: Optimizer, total_steps: int | None) -> Schedule:
    """Leave the optimizer's learning rate as it is."""
    return Schedule(optimizer, lambda step: 1.0)


def step(
    optimizer: Optimizer, total_steps: int | None, every: Share = 0.25, gamma: PositiveFloat = 0.5
) -> Schedule:
    """Multiply the learning rate by `gamma` after each `every` share of the run."""
    size = max(1, round(_known(total_steps) * every))
    return Schedule(optimizer, lambda step: gamma ** (step // size))


def cosine(
    optimizer: Optimizer, total_steps: int | None, final: Annotated[float, Field(ge=0, le=1)] = 0.0
) -> Schedule:
    """Fall from the optimizer's learning rate to the share `final` of it along half a cosine.

    Source: Loshchilov and Hutter, "SGDR" (2017); torch's CosineAnnealingLR.
    """
    end = _known(total_steps)
    return Schedule(optimizer, lambda step: _along_cosine(1.0, final, step / end))


def one_cycle(
    optimizer: Optimizer,
    total_steps: int | None,
    pct_start: Share = 0.3,
    div_factor: PositiveFloat = 25.0,
    final_div_factor: PositiveFloat = 1e4,
) -> Schedule:
    """Rise to the optimizer's learning rate over `pct_start` of the run, then fall to almost none.

    The optimizer's learning rate is the peak; the first is `1 / div_factor` of it, and the last
    `1 / final_div_factor` of the first. Momentum is left alone, so that every optimizer will do.

    Source: Smith and Topin, "Super-convergence" (2018); torch's OneCycleLR, whose values these are.
    """
    first, last = 1 / div_factor, 1 / div_factor / final_div_factor
    end = max(_known(total_steps) - 1, 1)
    peak = pct_start * (end + 1) - 1

    def factor(step: int) -> float:
        if step <= peak:
            return _along_cosine(first, 1.0, step / peak if peak > 0 else 1.0)
        return _along_cosine(1.0, last, (step - peak) / (end - peak) if end > peak else 1.0)

    return Schedule(optimizer, factor)


def plateau(
    optimizer: Optimizer,
    total_steps: int | None,
    factor: Share = 0.1,
    patience: NonNegativeInt = 10,
) -> ReduceLROnPlateau:
    """Multiply by `factor` when the validation loss has not fallen for `patience` validations."""
    return ReduceLROnPlateau(optimizer, factor=factor, patience=patience)


def _known(total_steps: int | None) -> int:
    if total_steps is None:
        raise ValueError("this schedule spans the run: set trainer.max_epochs or trainer.max_steps")
    return total_steps


def _along_cosine(start: float, end: float, share: float) -> float:
    """Go from start to end along half a cosine, and stay there."""
    return end + (start - end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2
