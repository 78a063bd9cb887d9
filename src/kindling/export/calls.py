"""Record what `forward` is called with when a model answers: the examples of an export."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from src.kindling.errors import InputError, first_line
from src.kindling.training import prediction

MOST = 50  # calls that are recorded
FIXED = "an operation fixes a size (len(x) does, x.shape[0] does not)"
Answers = list[Tensor]


@dataclass(frozen=True)
class Call:
    """One call of `forward`.

    Attributes:
        inputs: its arguments, (args, kwargs).
        answer: its return value.
    """

    inputs: Any
    answer: Any

    @property
    def tensors(self) -> Answers:
        """The tensors among the arguments, in the order of `names`."""
        return tensors(self.inputs)

    @property
    def settings(self) -> str:
        """The arguments that are not tensors, as text."""
        return str(pytree.tree_map_only(Tensor, type, self.inputs))


def tensors(tree: Any) -> Answers:
    """Return the tensors in a nested structure."""
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def record(data: Any, model: Any) -> list[Call]:
    """Have a model answer its question, or else its test rows, and return the calls of `forward`.

    The first call is repeated with one row and with all rows twice, so that another batch size than
    that of the example is compared too.

    Raises:
        InputError: the model has nothing to answer, does so without `forward`, or answers the same
            input differently each time.
    """
    found: list[Any] = []

    def keep(module: Any, args: Any, kwargs: Any) -> None:
        open_dataclasses((args, kwargs))
        if len(found) < MOST and any(tensor.numel() for tensor in tensors((args, kwargs))):
            found.append(pytree.tree_map(_copy, (args, kwargs)))

    hook = model.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        _answer(data, model)
    finally:
        hook.remove()
    if not found:
        raise InputError("model: its predict_step passes no tensor to forward, which is exported")
    batch = rows(tensors(found[0]))
    try:
        double = resized(found[0], batch, lambda tensor: torch.cat([tensor, tensor]))
        first = resized(found[0], batch, lambda tensor: tensor[:1])
        calls = [Call(inputs, answer(model, inputs)) for inputs in [double, first, *found]]
    except Exception as error:  # it answered `found` once
        raise InputError(
            f"model: its forward takes {batch} rows, and neither 1 nor {2 * batch}: "
            f"{first_line(error)}"
        ) from error
    if not tensors(calls[0].answer):
        raise InputError("model: its forward answers no tensor, which is exported")
    again = differences(calls[:1], lambda inputs: tensors(answer(model, inputs)))
    if any(difference > 1e-6 * largest for difference, largest in again):
        raise InputError(
            "model: its forward answers the same input differently each time: it draws random "
            "numbers, or updates its own state"
        )
    return calls


def open_dataclasses(tree: Any) -> None:
    """Make dataclasses in a nested structure part of it, instead of leaves."""
    for leaf in pytree.tree_leaves(tree):
        if is_dataclass(leaf):
            torch.export.register_dataclass(type(leaf))
            open_dataclasses(leaf)


def _copy(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


def _answer(data: Any, model: Any) -> None:
    question = prediction.find("prediction_inputs", data, model)
    if question and all(
        parameter.default is not parameter.empty
        for parameter in inspect.signature(question).parameters.values()
    ):
        prediction.predict(data, model, {})
    else:
        prediction.answers_to_test_rows(data, model.cpu().eval())


def answer(model: Any, inputs: Any) -> Any:
    """Return what `forward` answers, given (args, kwargs)."""
    args, kwargs = pytree.tree_map(_copy, inputs)
    with torch.no_grad():
        return model(*args, **kwargs)


def rows(found: Answers) -> int:
    """Return the batch size: the first dimension of the first tensor that has one."""
    return next((len(tensor) for tensor in found if tensor.dim()), 0)


def resized(inputs: Any, batch: int, change: Callable[[Tensor], Tensor]) -> Any:
    """Return inputs with another batch size; `change` gets each tensor of that many rows."""

    def resize(leaf: Any) -> Any:
        is_batch = isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == batch
        return change(leaf) if is_batch else leaf

    return pytree.tree_map(resize, inputs)


def names(call: Call, forward: Callable[..., Any]) -> tuple[list[str], list[str]]:
    """Return a name for each tensor of a call's inputs and of its answer, each name once."""
    arguments = list(inspect.signature(forward).parameters)
    inputs = _numbered(_names(call.inputs, "inputs", arguments), [])
    return inputs, _numbered(_names(call.answer, "outputs", None), inputs)


def _names(tree: Any, start: str, arguments: list[str] | None) -> list[str]:
    leaves, _ = pytree.tree_flatten_with_path(tree)
    return [_name(path, start, arguments) for path, leaf in leaves if isinstance(leaf, Tensor)]


def _numbered(found: list[str], taken: list[str]) -> list[str]:
    twice = {name for name in found if (found + taken).count(name) > 1}
    return [f"{name}_{i}" if name in twice else name for i, name in enumerate(found)]


def _name(path: Any, start: str, arguments: list[str] | None) -> str:
    keys = list(map(_key, path))
    if arguments is not None:  # (0, i): a positional argument; (1, name): one by keyword
        kind, first, *keys = keys
        first = arguments[first] if kind == 0 and first < len(arguments) else first
        keys = keys or [first]
    words = "_".join(map(str, keys))
    return words if words and not words[0].isdecimal() else f"{start}_{words}".strip("_")


def _key(part: Any) -> Any:
    return next(getattr(part, name) for name in ("key", "idx", "name") if hasattr(part, name))


def several_ways(calls: list[Call]) -> str:
    """Return why a file cannot answer each call, if settings of `forward` differ between them."""
    several = len({call.settings for call in calls}) > 1
    return "forward is called in several ways, and a file holds one" if several else ""


def differences(calls: list[Call], run: Callable[[Any], Answers]) -> Iterator[tuple[float, float]]:
    """Yield, for each call, the largest difference of a file's answers, and the largest answer.

    Args:
        calls: what the checkpoint answered.
        run: the file, as a function of (args, kwargs).

    Raises:
        InputError: the answers have other shapes.
    """
    for call in calls:
        answers, others = tensors(call.answer), run(call.inputs)
        sizes = [[list(tensor.shape) for tensor in found] for found in (answers, others)]
        if sizes[0] != sizes[1]:
            why = several_ways(calls) or FIXED
            line = f"model: its answers are {sizes[0]}, and those of the file {sizes[1]}"
            raise InputError(f"{line}: {why}; nothing was written")
        for expected, found in zip(answers, others, strict=True):
            wide = torch.complex128 if expected.is_complex() else torch.float64
            one, other = expected.to(wide), found.to(wide)
            if one.numel():
                same = (one == other) | (one.isnan() & other.isnan())
                off = torch.where(same, 0.0, (one - other).abs()).nan_to_num(nan=torch.inf)
                yield off.max().item(), one.abs().nan_to_num(0, 0, 0).max().item()
