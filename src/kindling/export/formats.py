"""The formats of an export: how a file is written, and run again."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from src.kindling.errors import InputError
from src.kindling.layout import Plain

Run = Callable[[list[Tensor]], list[Tensor]]
ONNX_LIMIT = 2**31  # bytes of a protobuf message


@dataclass(frozen=True)
class Signature:
    """The names of an exported function.

    Attributes:
        inputs: the names of its tensors.
        outputs: the names of its answers.
        metadata: what else the file holds, as text by key.
    """

    inputs: list[str]
    outputs: list[str]
    metadata: dict[str, str]


# ONNX -------------------------------------------------------------------------------------------


def write_onnx(program: ExportedProgram, path: Path, signature: Signature, options: Plain) -> None:
    """Write an ONNX file; `options` are its opset, and int8 or None to quantize.

    Raises:
        InputError: the model is too large, torch lacks that opset, or nothing is quantized.
    """
    import onnx

    size = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    if size > ONNX_LIMIT:
        raise InputError(f"format=onnx: holds 2 GB, the model {size / 2**30:.1f}; use format=pt2")
    exported: Any = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,
        opset_version=options["opset"],
        input_names=signature.inputs,
        output_names=signature.outputs,
    )
    model = exported.model_proto
    version = next(used.version for used in model.opset_import if not used.domain)
    if options["opset"] not in (None, version):  # torch falls back to its own without an error
        raise InputError(
            f"opset={options['opset']}: torch cannot write this model with it; use opset={version}"
        )
    _name_batch(model)
    for key, text in signature.metadata.items():
        model.metadata_props.add(key=key, value=text)
    onnx.save(model, str(path))
    if options["quantize"] is not None:  # the weights of matrix products; inputs as they come
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(str(path), str(path), weight_type=QuantType.QInt8)
        if not any("Quant" in node.op_type for node in onnx.load(str(path)).graph.node):
            raise InputError("quantize=int8: this model has no product of 32-bit matrices")


def _name_batch(model: Any) -> None:
    """Call the first open dimension of the inputs `batch`."""
    shapes = [value.type.tensor_type.shape for value in model.graph.input]
    symbol = next((s.dim[0].dim_param for s in shapes if s.dim and s.dim[0].dim_param), "")
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param and dimension.dim_param == symbol:
                dimension.dim_param = "batch"


def load_onnx(path: Path) -> Run:
    """Return an ONNX file as a function, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(given: list[Tensor]) -> list[Tensor]:
        arrays = [tensor.numpy() for tensor in given]
        return [
            torch.as_tensor(a) for a in session.run(None, dict(zip(names, arrays, strict=True)))
        ]

    return run


# torch.export -----------------------------------------------------------------------------------


def write_pt2(program: ExportedProgram, path: Path, signature: Signature) -> None:
    """Write a file for `torch.export.load`; the names are in its `kindling.json`."""
    names = {"inputs": signature.inputs, "outputs": signature.outputs, **signature.metadata}
    torch.export.save(program, path, extra_files={"kindling.json": json.dumps(names)})


def load_pt2(path: Path) -> Run:
    """Return a file of torch.export as a function."""
    function = torch.export.load(path).module()

    def run(given: list[Tensor]) -> list[Tensor]:
        with torch.no_grad():
            return list(function(*given))

    return run
