"""The input of pictures: some rows of the data, and the model's predictions for them.

Letters: N rows, C outputs or classes, T tokens of a row.
"""

import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]
STAGES = {"val": "validation", "train": "training"}
ROWS = 2000  # maximum number of rows
COMPILER = "torch._dynamo"  # is imported when something is compiled
VALUES = 2**22  # maximum number of input values, which limits the rows of large images


@dataclass
class View:
    """The input of a picture.

    Args:
        model: the LightningModule.
        data: its LightningDataModule.
        stage: origin of the rows: "validation", or "training" without validation rows.
        batch: the rows as the loader yields them, in any form.
        targets: true values [N, C] or classes [N]; None if the batch is not a pair of tensors.
        outputs: the model's predictions for them: values or logits [N, C]; None likewise.
        step: optimizer steps so far.
        ask: maps other inputs to outputs.
    """

    model: Any
    data: Any
    stage: str
    batch: Any
    targets: Any
    outputs: Any
    step: int
    ask: Callable[[Tensor], Array]


def view_of(model: Any, data: Any, stage: str, batch: Any, step: int) -> View:
    """Run the model on a batch.

    Raises:
        ValueError: the predictions are not finite.
        Exception: anything that `model.forward` raises.
    """
    view = View(
        model, data, STAGES[stage], batch, None, None, step, lambda x: ask(model, x).numpy()
    )
    if (pair := rows_of(batch)) is not None:
        outputs, targets = ask(model, pair[0]), pair[1].cpu()
        if not outputs.isfinite().all():
            raise ValueError(f"the model's outputs are NaN or infinite at step {step}")
        if outputs.shape[:-1] == targets.shape and targets.dim() > 1:  # [N, T, C]: tokens are rows
            outputs, targets = outputs.flatten(0, -2), targets.flatten()
        if outputs.dim() == 2 and targets.dim() == 1 and not targets.is_floating_point():
            outputs, targets = outputs[targets >= 0], targets[targets >= 0]  # -100: padding
        view.outputs, view.targets = outputs.numpy(), targets.numpy()
    return view


def held_out(data: Any) -> tuple[str, Any] | None:
    """Return stage and rows of validation, or else training; None for data with only loaders."""
    with suppress(NotImplementedError, AttributeError):
        for stage in STAGES:
            if (split := data.split(stage)) is not None:
                return stage, split
    return None


def first_batch(loaders: Any) -> Any:
    """Return the first batch of a loader, or of the first of several.

    It is read again for each drawing, because a stored batch would be lost on resuming.
    """
    loader = loaders[0] if isinstance(loaders, list | tuple) else loaders
    with isolate_rng():  # a DataLoader draws a seed for its workers
        return next(iter(loader))


def rows_of(batch: Any) -> tuple[Tensor, Tensor] | None:
    """Return inputs and targets of a batch, or of the first of several; None for other forms."""
    while isinstance(batch, list) and batch and not isinstance(batch[0], Tensor):
        batch = batch[0]
    pair = isinstance(batch, tuple | list) and len(batch) == 2
    if not pair or not all(isinstance(part, Tensor) and part.dim() for part in batch):
        return None
    inputs, targets = batch
    rows = max(1, min(ROWS, VALUES // max(1, inputs[:1].numel())))
    return inputs[:rows], targets[:rows]


def ask(module: Any, inputs: Tensor) -> Tensor:
    """Return the model's outputs on the CPU, without changing the model or the generators."""
    weight = next(module.parameters(), torch.empty(0))
    inputs = inputs.to(weight.device)
    if inputs.is_floating_point():
        inputs = inputs.to(weight.dtype)
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad(), isolate_rng(), _eager():
            outputs: Tensor = module(inputs)
    finally:
        for part, training in modes:
            part.training = training
    return outputs.cpu().double()


def _eager() -> Any:
    """Keep a compiled network from being recompiled for this number of rows."""
    # Only if something has been compiled, because importing torch's compiler takes a second.
    return torch.compiler.set_stance("force_eager") if COMPILER in sys.modules else nullcontext()
