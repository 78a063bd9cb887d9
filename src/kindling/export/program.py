"""Trace a model with torch.export: as a function of tensors alone, for any batch size."""

import contextlib
import io
import logging
import re
import traceback
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from src.kindling.errors import InputError, first_line
from src.kindling.export.calls import Call, rows, tensors

LIBRARIES = ("/torch/", "/lightning/", "/onnxscript/", "/onnxruntime/", "/src/kindling/", "<")


class Flat(nn.Module):
    """A model as a function of tensors: nested inputs and answers are flattened.

    Floating-point inputs and answers are 32-bit ones (64-bit ones if the model's weights are),
    whatever the precision of the weights.

    Args:
        model: the module.
        example: a call; what is not a tensor in its inputs becomes part of the function.
        kept: positions, among the tensors of the inputs, of those that stay inputs.
    """

    def __init__(self, model: nn.Module, example: Call, kept: list[int]) -> None:
        super().__init__()
        self.model, self.kept = model, kept
        leaves, self.structure = pytree.tree_flatten(example.inputs)
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        self.places = [places[i] for i in kept]
        # The inputs are left out: torch.export would take one that it finds here for a constant.
        self.leaves = [None if i in self.places else leaf for i, leaf in enumerate(leaves)]
        weights = [p.dtype for p in model.parameters() if p.is_floating_point()]
        self.dtype = weights[0] if weights else torch.float32
        self.outside = torch.float64 if self.dtype is torch.float64 else torch.float32

    def selected(self, inputs: Any) -> list[Tensor]:
        """Return copies of the tensors that the function takes, from (args, kwargs)."""
        found = tensors(inputs)
        return [self._cast(found[place].clone(), self.outside) for place in self.kept]

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of the answer."""
        leaves = list(self.leaves)
        for place, tensor in zip(self.places, given, strict=True):
            leaves[place] = self._cast(tensor, self.dtype)
        args, kwargs = pytree.tree_unflatten(leaves, self.structure)
        answer = self.model(*args, **kwargs)
        return tuple(self._cast(tensor, self.outside) for tensor in tensors(answer))

    def _cast(self, leaf: Any, dtype: torch.dtype) -> Any:
        floats = isinstance(leaf, Tensor) and leaf.is_floating_point()
        return leaf.to(dtype) if floats else leaf


def trace(model: nn.Module, calls: list[Call]) -> tuple[Flat, ExportedProgram]:
    """Trace the first call; inputs that the model does not use are left out.

    The first dimension of each tensor is the batch size where it equals that of the first tensor;
    a dimension that differs between the calls is left open unless an operation fixes it.
    """
    kept = list(range(len(calls[0].tensors)))
    flat, program = _traced(model, calls, kept)
    if left := unused(program):
        kept = [place for place in kept if place not in left]
        if not kept:
            raise InputError("model: its forward answers the same whatever its inputs are")
        flat, program = _traced(model, calls, kept)
    return flat, program


def _traced(model: nn.Module, calls: list[Call], kept: list[int]) -> tuple[Flat, ExportedProgram]:
    flat = Flat(model, calls[0], kept)
    example = flat.selected(calls[0].inputs)
    shapes = tuple(_open_dimensions(i, tensor, calls, flat) for i, tensor in enumerate(example))
    return flat, torch.export.export(flat, tuple(example), dynamic_shapes=(shapes,), strict=False)


def _open_dimensions(place: int, tensor: Tensor, calls: list[Call], flat: Flat) -> dict[int, Any]:
    """Return the dimensions of an input that are not those of the example."""
    others = [flat.selected(call.inputs)[place].shape for call in calls]
    varies = {i for i in range(tensor.dim()) if len({shape[i] for shape in others}) > 1}
    shapes: dict[int, Any] = dict.fromkeys(varies, Dim.AUTO)
    if tensor.dim() and len(tensor) == rows(calls[0].tensors):
        shapes[0] = Dim("batch")
    return shapes


def unused(program: ExportedProgram) -> list[int]:
    """Return the positions of inputs that no operation reads."""
    nodes = {node.name: node for node in program.graph.nodes}
    names = program.graph_signature.user_inputs
    return [place for place, name in enumerate(names) if _is_dead(nodes[str(name)])]


def _is_dead(node: Any) -> bool:
    """Return whether nothing that is computed from a node is part of the answer."""
    return node.op != "output" and all(map(_is_dead, node.users))


def shapes(program: ExportedProgram) -> list[list[int | str]]:
    """Return the shapes of the inputs; the first open dimension is `batch`, others symbols."""
    nodes = {node.name: node for node in program.graph.nodes}
    found = [nodes[str(name)].meta["val"].shape for name in program.graph_signature.user_inputs]
    first = next((str(s[0]) for s in found if s and not str(s[0]).isdecimal()), "")
    return [[_size(str(size), first) for size in shape] for shape in found]


def _size(size: str, first: str) -> int | str:
    """Return a size, or the name of one that is open; a symbol may be fixed at a number."""
    return int(size) if size.isdecimal() else "batch" if size == first else size


def fits(tensors: list[Tensor], shapes: list[list[int | str]]) -> bool:
    """Return whether a function with these shapes takes these tensors."""
    return all(
        isinstance(open_, str) or open_ == size
        for tensor, shape in zip(tensors, shapes, strict=True)
        for open_, size in zip(shape, tensor.shape, strict=True)
    )


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Run exporters and the runtimes of their files quietly; explain their errors in one line.

    Raises:
        InputError: naming the operation that cannot be exported, and the line of the model.
    """
    logging.disable()  # they log their own progress, and whole graphs, which they also print
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except (InputError, OSError):
        raise
    except Exception as error:
        raise InputError(f"model: cannot be exported: {_reason(error)}") from error
    finally:
        logging.disable(logging.NOTSET)


def _reason(error: Exception) -> str:
    """Return the operation at which an export failed, and where the model calls it."""
    text = str(error)
    if found := re.search(r"No ONNX function found for <OpOverload\(op='([\w.:]+)'", text):
        return f"ONNX has no {found[1]}"
    if found := re.search(r"specialized it to be a constant \((\d+)\)", text):
        return f"an operation fixes the batch size at {found[1]}"
    if found := re.search(r"the generated guard (.+)", text):
        guard = re.sub(r"L\['given'\]\[\d+\]\.size\(\)\[0\]", "batch", found[1])
        return f"an operation depends on the batch size: {guard}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not any(part in frame.filename for part in LIBRARIES)]
    where = f" ({own[-1].filename}:{own[-1].lineno}: {own[-1].line})" if own else ""
    return f"{first_line(error)}{where}"
