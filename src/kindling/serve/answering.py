"""A checkpoint that answers questions, several in one batch where that changes no answer."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from src.kindling import restore
from src.kindling.config import question
from src.kindling.errors import InputError, first_line
from src.kindling.layout import Plain
from src.kindling.training import prediction

LOCAL = "file"  # an argument that names a file of this machine


class Served:
    """A checkpoint in memory.

    Args:
        checkpoint: the file.
        max_rows: rows per question.

    Raises:
        InputError: it cannot be loaded, or is asked nothing.
    """

    def __init__(self, checkpoint: Path, max_rows: int) -> None:
        self.checkpoint, self.max_rows, self.stamp = checkpoint, max_rows, stamp(checkpoint)
        _, self.data, model = restore.load(checkpoint)
        self.model = model.cpu().eval()
        found = prediction.find(question.METHOD, self.data, self.model)
        if found is None:
            raise InputError("run: neither its data nor its model defines prediction_inputs")
        self.question, self.arguments = found, question.from_object(found)
        self.joins = self._joins()

    def answer(self, questions: list[Plain]) -> list[prediction.Rows | Exception]:
        """Answer questions, or say why not: an InputError for a wrong one."""
        inputs = [self._inputs(asked) for asked in questions]
        right = [one for one in inputs if not isinstance(one, Exception)]
        answers = iter(self._answers(right))
        return [one if isinstance(one, Exception) else next(answers) for one in inputs]

    def _inputs(self, asked: Plain) -> Any:
        try:
            if LOCAL in asked:
                raise InputError(f"{LOCAL}: files of this machine are not read over HTTP")
            question.check(self.arguments, asked)
            inputs = self.question(**asked)
            if (found := rows(inputs)) and found > self.max_rows:
                raise InputError(f"{found} rows are too many; up to {self.max_rows} are answered")
            return inputs
        except ValueError as error:
            return InputError(first_line(error))
        except Exception as error:
            return error

    def _answers(self, inputs: list[Any]) -> list[prediction.Rows | Exception]:
        if self.joins and len(inputs) > 1 and (whole := joined(inputs)) is not None:
            try:
                outputs = prediction.ask(self.model, whole)
                parts = split(outputs, [rows(one) or 0 for one in inputs])
            except Exception:  # one of them: each by itself then
                parts = None
            if parts is not None:
                return [self._rows(one, part) for one, part in zip(inputs, parts, strict=True)]
        return [self._rows(one) for one in inputs]

    def _rows(self, inputs: Any, outputs: Any = None) -> prediction.Rows | Exception:
        try:
            outputs = prediction.ask(self.model, inputs) if outputs is None else outputs
            return prediction.as_rows(self.data, self.model, inputs, outputs)
        except Exception as error:
            return error

    def _joins(self) -> bool:
        """Return whether two questions in one batch get the answers that they get alone."""
        try:
            inputs = self.question()
            whole = joined([inputs, inputs])
            alone = prediction.ask(self.model, inputs)
            parts = split(prediction.ask(self.model, whole), [rows(inputs) or 0] * 2)
        except Exception:  # a question without defaults, or a model that takes no such batch
            return False
        return parts is not None and all(_same(alone, part) for part in parts)


def stamp(path: Path) -> tuple[int, int, int]:
    """Return what changes when a file is replaced."""
    found = os.stat(path)
    return found.st_ino, found.st_mtime_ns, found.st_size


def rows(batch: Any) -> int | None:
    """Return the length that all tensors of a batch share; None if they share none."""
    leaves = pytree.tree_leaves(batch)
    lengths = {len(x) if x.dim() else -1 for x in leaves if isinstance(x, Tensor)}
    return lengths.pop() if len(lengths) == 1 and -1 not in lengths else None


def joined(batches: list[Any]) -> Any:
    """Return batches as one; None if they differ in more than their rows."""
    flat = [pytree.tree_flatten(batch) for batch in batches]
    if any(rows(batch) is None for batch in batches) or len({str(s) for _, s in flat}) > 1:
        return None
    leaves = []
    for column in zip(*(leaves for leaves, _ in flat), strict=True):
        first = column[0]
        if isinstance(first, Tensor):
            if len({(x.shape[1:], x.dtype) for x in column}) > 1:
                return None
            leaves.append(torch.cat(column))
        elif all(type(x) is type(first) and x == first for x in column):
            leaves.append(first)
        else:
            return None
    return pytree.tree_unflatten(leaves, flat[0][1])


def split(outputs: Any, sizes: list[int]) -> list[Any] | None:
    """Return the answers of each batch; None if the outputs are not one per row."""
    leaves, structure = pytree.tree_flatten(outputs)
    if not all(isinstance(x, Tensor) and x.dim() and len(x) == sum(sizes) for x in leaves):
        return None
    columns = zip(*(leaf.split(sizes) for leaf in leaves), strict=True)
    return [pytree.tree_unflatten(list(column), structure) for column in columns]


def _same(one: Any, other: Any) -> bool:
    pairs = zip(pytree.tree_leaves(one), pytree.tree_leaves(other), strict=True)
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True) for a, b in pairs)
