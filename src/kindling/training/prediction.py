"""Ask a trained model: in the words of its data's or its own question, or for its test rows.

The question is one method, `prediction_inputs`, of the DataModule or of the LightningModule. Its
typed arguments are the keys of the command, and what it returns is the batch for `predict_step`:

    def prediction_inputs(self, prompt: str = "", length: PositiveInt = 100) -> dict[str, Tensor]:

`prediction_rows(inputs, answers)` may turn batch and answers into rows for people, and
`prediction_text(rows)` the rows into what the terminal shows.
"""

import io
from collections.abc import Callable, Iterator
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from src.kindling.config.question import METHOD, check, from_object
from src.kindling.errors import InputError, first_line, printable
from src.kindling.layout import Plain
from src.kindling.restore import attached

SHOWN = 10  # rows on the terminal; a file gets all
HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
LONGEST = 100_000  # characters of a line
Rows = list[dict[str, Any]]


def predict(data: Any, model: Any, asked: Plain) -> Rows:
    """Answer a question on the CPU; without a `prediction_inputs`, answer the test rows.

    Args:
        data: the DataModule.
        model: the LightningModule, with its weights.
        asked: arguments of the question.

    Returns:
        One row per answer.

    Raises:
        InputError: an argument is unknown or does not fit, or there is nothing to answer.
        ValueError: the question itself refuses what was asked.
    """
    question = find(METHOD, data, model)
    check(from_object(question), asked)
    model = model.cpu().eval()
    if question is None:
        return rows_of(answers_to_test_rows(data, model))
    inputs = question(**asked)
    return as_rows(data, model, inputs, ask(model, inputs))


def ask(model: Any, inputs: Any, *place: int) -> Any:
    """Return what `predict_step` answers to a batch on the CPU.

    Args:
        model: the LightningModule.
        inputs: the batch.
        place: its index, and that of its loader where there are several.

    Raises:
        InputError: there is no `predict_step`, and Lightning's cannot pass the batch to `forward`.
    """
    try:
        with torch.inference_mode():
            return model.predict_step(cast(inputs, model), *(place or (0,)))
    except Exception as error:
        if is_overridden("predict_step", model):
            raise
        raise InputError(
            f"{type(model).__name__} defines no predict_step, and Lightning's passes the whole"
            f" batch to forward: {type(error).__name__}: {first_line(error)}"
        ) from error


def as_rows(data: Any, model: Any, inputs: Any, answers: Any) -> Rows:
    """Return the answers to a question as rows."""
    rows = find("prediction_rows", data, model)
    return rows(inputs, answers) if rows else rows_of([answers])


def text(data: Any, model: Any, rows: Rows) -> str:
    """Format rows for a terminal: as the data or the model does, or else the first of them."""
    if formatted := find("prediction_text", data, model):
        lines = str(formatted(rows)).expandtabs().split("\n")
        return "\n".join(printable(line, LONGEST) for line in lines)
    lines = ["  ".join(f"{key}: {_short(value)}" for key, value in row.items()) for row in rows]
    if len(lines) > SHOWN:
        lines[SHOWN:] = [f"{SHOWN} of {len(rows)} rows; output=FILE.csv writes all"]
    return "\n".join(printable(line, LONGEST) for line in lines)


def find(name: str, *owners: Any) -> Callable[..., Any] | None:
    """Return the method of the first owner that defines it."""
    return next((getattr(owner, name) for owner in owners if hasattr(owner, name)), None)


def cast(batch: Any, model: pl.LightningModule) -> Any:
    """Return a batch on the CPU, its floating-point tensors in the precision of the weights."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    batch = move_data_to_device(batch, torch.device("cpu"))

    def precise(tensor: Tensor) -> Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    return apply_to_collection(batch, Tensor, precise)


def answers_to_test_rows(data: Any, model: pl.LightningModule) -> list[Any]:
    """Return what `predict_step` returns for each batch of `predict_dataloader`, or else the test.

    Raises:
        InputError: the data has neither.
    """
    stage = next((s for s in ("predict", "test") if is_overridden(f"{s}_dataloader", data)), None)
    answers: list[Any] = []
    if stage is not None:
        with attached(data, model):
            data.prepare_data()
            data.setup(stage)
            loaders = getattr(data, f"{stage}_dataloader")()
            answers = list(_answers(data, model, getattr(loaders, "flattened", loaders)))
    if not answers:
        raise InputError("this data has no prediction_inputs and no test rows: nothing to answer")
    return answers


def _answers(data: Any, model: Any, loaders: Any) -> Iterator[Any]:
    """Yield the answers to the batches of a loader, or of several in a list or dictionary."""
    several = list(loaders.values()) if isinstance(loaders, dict) else loaders
    several = several if isinstance(several, list | tuple) else [several]
    for number, loader in enumerate(several):
        place = (number,) if len(several) > 1 else ()
        for index, batch in enumerate(loader):
            yield ask(model, _transferred(batch, number, data, model), index, *place)


def _transferred(batch: Any, number: int, data: Any, model: Any) -> Any:
    """Return a batch after the hooks around its transfer to a device, which may normalize it."""
    for hook in HOOKS:
        owners = [owner for owner in (data, model) if is_overridden(hook, owner)]
        device = (torch.device("cpu"),) if hook == "transfer_batch_to_device" else ()
        for owner in owners[:1]:  # Lightning prefers the data's
            batch = getattr(owner, hook)(batch, *device, number)
    return batch


def rows_of(answers: list[Any]) -> Rows:
    """Return answers, one per batch, as rows: one per sample where a batch is a tensor or a list.

    A dictionary of tensors or lists gives a column per key, a tuple numbered ones; a dictionary in
    a list is a row. Anything else is one row per batch.
    """
    return [row for answer in answers for row in _rows(answer)]


def _rows(answer: Any) -> Rows:
    if isinstance(answer, list):
        return [e if isinstance(e, dict) else {"answer": e} for e in map(_plain, answer)]
    if isinstance(answer, tuple):
        answer = {f"answer_{number}": value for number, value in enumerate(answer)}
    columns = answer if isinstance(answer, dict) else {"answer": answer}
    columns = {key: _plain(value) for key, value in columns.items()}
    tensors = answer.values() if isinstance(answer, dict) else [answer]
    sizes = {len(v) if isinstance(v, list) else None for v in columns.values()}
    if len(sizes) > 1 or None in sizes or not any(isinstance(v, Tensor) for v in tensors):
        return [columns]
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def as_tensors(rows: Rows) -> bytes:
    """Return rows as a file for `torch.load(..., weights_only=True)`: a column per key."""
    keys = dict.fromkeys(key for row in rows for key in row)
    columns: dict[str, Any] = {key: [row.get(key) for row in rows] for key in keys}
    for key, values in columns.items():
        try:
            columns[key] = torch.tensor(values)
        except (TypeError, ValueError, RuntimeError):  # text, or lists of different lengths
            continue
    content = io.BytesIO()
    torch.save(columns, content)
    return content.getvalue()


def _plain(value: Any) -> Any:
    return apply_to_collection(value, (Tensor, np.ndarray), lambda array: array.tolist())


def _short(value: Any) -> str:
    shown = f"{value:.4g}" if isinstance(value, float) else str(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
