"""Ask a trained model: in the words of its data's or its own question, or for its test rows.

The question is one method, `prediction_inputs`, of the DataModule or of the LightningModule. Its
typed arguments are the keys of the command, and what it returns is the batch for `predict_step`:

    def prediction_inputs(self, prompt: str = "", length: PositiveInt = 100) -> dict[str, Tensor]:

`prediction_rows(inputs, answers)` may turn batch and answers into rows for people, and
`prediction_text(rows)` the rows into what the terminal shows.
"""

import io
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from src.kindling.config.question import METHOD, check, from_object
from src.kindling.errors import InputError, printable
from src.kindling.layout import Plain

SHOWN = 10  # rows on the terminal; a file gets all
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


def ask(model: Any, inputs: Any) -> Any:
    """Return what `predict_step` answers to a batch on the CPU."""
    with torch.inference_mode():
        return model.predict_step(cast(inputs, model), 0)


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
    """Return what `predict_step` returns for each batch of the test rows.

    Raises:
        InputError: the data has no test rows.
    """
    data.prepare_data()
    data.setup("test")
    loaders = data.test_dataloader() if hasattr(data, "test_dataloader") else []
    with torch.inference_mode():
        answers = [model.predict_step(cast(b, model), i) for i, b in enumerate(loaders)]
    if not answers:
        raise InputError("this data has no prediction_inputs and no test rows: nothing to answer")
    return answers


def rows_of(answers: list[Any]) -> Rows:
    """Return answers, one per batch, as rows: one per sample where a batch is a tensor.

    A dictionary of tensors gives a column per key; anything else is one row per batch.
    """
    rows: Rows = []
    for answer in answers:
        columns = answer if isinstance(answer, dict) else {"answer": answer}
        if all(isinstance(value, Tensor) and value.dim() for value in columns.values()):
            lists = [value.tolist() for value in columns.values()]
            rows += [dict(zip(columns, values, strict=True)) for values in zip(*lists, strict=True)]
        else:
            rows.append({key: _plain(value) for key, value in columns.items()})
    return rows


def as_tensors(rows: Rows) -> bytes:
    """Return rows as a file for `torch.load(..., weights_only=True)`: a column per key."""
    columns: dict[str, Any] = {key: [row[key] for row in rows] for key in rows[0]} if rows else {}
    for key, values in columns.items():
        try:
            columns[key] = torch.tensor(values)
        except (TypeError, ValueError):  # text, or lists of different lengths
            continue
    content = io.BytesIO()
    torch.save(columns, content)
    return content.getvalue()


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor) else value


def _short(value: Any) -> str:
    shown = f"{value:.4g}" if isinstance(value, float) else str(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
