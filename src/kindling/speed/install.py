"""Let a run take several steps per call, or compile them: the one way into this package."""

import sys
from typing import Any

from src.kindling.errors import InputError
from src.kindling.layout import Plain


def can_compile(options: Plain, data: Any) -> bool:
    """Say whether a step's batches will come together; in one line, if they will not."""
    own_loaders = type(data).train_dataloader.__module__ != "src.kindling.data"
    if own_loaders and options["accumulate_grad_batches"] > 1:
        print(
            "warning: compile=true: accumulate_grad_batches is not compiled: this data's own loader"
            " yields one batch at a time; these steps run eagerly",
            file=sys.stderr,
        )
        return False
    return True


def take_over_steps(steps: int, options: Plain, model: Any, data: Any) -> None:
    """Give the model what Lightning does around a step, and the data what it counts in batches.

    Raises:
        InputError: a validation is to start amid an execution.
    """
    model.automatic_optimization = False
    execution = model.execution
    execution.steps = steps
    execution.accumulate = options.pop("accumulate_grad_batches")
    execution.clip_val = options.pop("gradient_clip_val")
    execution.clip_algorithm = options.pop("gradient_clip_algorithm")
    if execution.clip_algorithm not in ("norm", "value"):
        raise InputError(
            f"trainer.gradient_clip_algorithm={execution.clip_algorithm}: must be norm or value"
        )
    data.group = steps * execution.accumulate
    data.limit_train_batches = options.pop("limit_train_batches")
    if options["overfit_batches"]:
        data.limit_train_batches = options["overfit_batches"]
    if isinstance(interval := options["val_check_interval"], int):
        batches = batches_per_call(data)
        if interval % batches:
            raise InputError(
                f"trainer.val_check_interval={interval} is no multiple of the {batches} batches"
                f" of an execution (steps_per_execution={steps})"
            )
        options["val_check_interval"] = interval // batches


def batches_per_call(data: Any) -> int:
    """Return how many batches come together: no more than an epoch has, between validations."""
    if type(data).train_dataloader.__module__ != "src.kindling.data":
        return int(data.group)
    return min(int(data.group), int(data.train_dataloader().batches))
