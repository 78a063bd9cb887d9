"""What pictures look at: some rows of the data, and what the model says of them.

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
ROWS = 2000  # the first ones
COMPILER = "torch._dynamo"  # imported once something is compiled
VALUES = 2**22  # of the inputs, at most: fewer rows of large images


@dataclass
class View:
    """What a picture may look at.

    Args:
        model: the LightningModule.
        data: its LightningDataModule.
        stage: where the rows come from: "validation", or "training" where nothing is held out.
        batch: the rows as the loader gives them, whatever their form.
        targets: the true values [N, C] or classes [N]; None where a batch is not a pair of tensors.
        outputs: what the model predicts for them: values or logits [N, C]; None likewise.
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
    """Let the model predict for a batch.

    Raises:
        ValueError: the predictions are not finite.
        Exception: whatever `model.forward` raises.
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
    """Return stage and rows of validation, or else of training; None of data with loaders alone."""
    with suppress(NotImplementedError, AttributeError):
        for stage in STAGES:
            if (split := data.split(stage)) is not None:
                return stage, split
    return None


def first_batch(loaders: Any) -> Any:
    """Return the first batch of a loader, or of the first of several.

    Read again for each drawing: one kept from a validation would be gone after a resume.
    """
    loader = loaders[0] if isinstance(loaders, list | tuple) else loaders
    with isolate_rng():  # a DataLoader draws a seed for its workers
        return next(iter(loader))


def rows_of(batch: Any) -> tuple[Tensor, Tensor] | None:
    """Return inputs and targets of a batch, or of the first of several; None of another form."""
    while isinstance(batch, list) and batch and not isinstance(batch[0], Tensor):
        batch = batch[0]
    pair = isinstance(batch, tuple | list) and len(batch) == 2
    if not pair or not all(isinstance(part, Tensor) and part.dim() for part in batch):
        return None
    inputs, targets = batch
    rows = max(1, min(ROWS, VALUES // max(1, inputs[:1].numel())))
    return inputs[:rows], targets[:rows]


def ask(module: Any, inputs: Tensor) -> Tensor:
    """Return the model's outputs for inputs, on the CPU, and leave no trace in it."""
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
    """Keep a compiled network from being compiled again, for this number of rows."""
    # Not asked for before something is compiled: it imports torch's compiler, which takes a second.
    return torch.compiler.set_stance("force_eager") if COMPILER in sys.modules else nullcontext()
