"""Export a checkpoint: trace it, write it, run the file, compare, and only then keep it."""

import copy
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch.utils import _pytree as pytree

from src.kindling import build, restore
from src.kindling.config.values import check_options
from src.kindling.errors import InputError
from src.kindling.export import formats
from src.kindling.export.calls import (
    Answers,
    Call,
    answer,
    differences,
    names,
    record,
    several_ways,
    tensors,
)
from src.kindling.export.program import explained, fits, shapes, trace
from src.kindling.files.output import write_output
from src.kindling.layout import Plain, install_extra
from src.kindling.training import prediction, summary
from src.kindling.training.stages import has_stage

PACKAGES = {
    "onnx": ["onnx", "onnxscript", "onnxruntime"],
    "pt2": [],
    "safetensors": ["safetensors"],
}
PRECISIONS: dict[Any, torch.dtype] = {32: torch.float32, 16: torch.float16, "bf16": torch.bfloat16}
TOLERANCES = {torch.float16: 1e-2, torch.bfloat16: 5e-2}  # times the largest answer; else 1e-4
OPTIONS = {
    "format": Literal["onnx", "pt2", "safetensors"],
    "precision": Literal[32, 16, "bf16"] | None,
    "quantize": Literal["int8"] | None,
    "opset": int | None,
    "tolerance": float | None,
}


@dataclass(frozen=True)
class Written:
    """A file that was written.

    Attributes:
        run: its answers to (args, kwargs).
        calls: those of the checkpoint's calls that the file takes.
        lines: a description of its inputs and outputs.
    """

    run: Callable[[Any], Answers]
    calls: list[Call]
    lines: list[str]


def check(options: Plain) -> None:
    """Validate the options of an export before anything is read.

    Raises:
        InputError: naming the key and its choices.
    """
    check_options(options, OPTIONS)
    kind = options["format"]
    for key in ("opset", "quantize"):
        if options[key] is not None and kind != "onnx":
            raise InputError(f"{key}={options[key]}: only format=onnx takes it")
    if missing := [name for name in PACKAGES[kind] if importlib.util.find_spec(name) is None]:
        raise InputError(f"format={kind}: needs {missing[0]}; {install_extra('export')}")


def export(checkpoint: Path, output: Path, options: Plain) -> list[str]:
    """Export a checkpoint to a file, and describe it.

    The file is written in a temporary folder, run there, and moved once its answers are those of
    the checkpoint.

    Raises:
        InputError: the model cannot be exported, or the answers differ by more than allowed.
    """
    settings, data, model = restore.load(checkpoint)
    calls = record(data, model)
    changes = options["precision"] is not None or options["quantize"] is not None
    with TemporaryDirectory() as folder:
        path = Path(folder) / output.name
        exported = model
        if options["precision"] is not None:  # a copy: the metrics keep the precision of training
            exported = copy.deepcopy(model).to(PRECISIONS[options["precision"]])
        before = _metrics(settings, data, model, path.parent) if changes else {}
        with explained():
            written = _write(settings, data, exported, calls, path, options)
            lines = [*written.lines, _compare(written, _tolerance(options, model, exported))]
        model.forward = _in_place_of_forward(calls[0], written.run)
        after = _metrics(settings, data, model, path.parent) if changes else {}
        lines += [f"{name}: {before[name]:.6g} -> {value:.6g}" for name, value in after.items()]
        write_output(output, path.read_bytes())
    return lines


def _write(
    settings: Plain, data: Any, model: Any, calls: list[Call], path: Path, options: Plain
) -> Written:
    """Write the file, and make it run."""
    metadata = {"config": json.dumps(settings, default=str)}
    if words := getattr(data, "class_names", None):
        metadata["class_names"] = json.dumps(list(words))
    if options["format"] == "safetensors":
        return _write_weights(settings, model, calls, path, metadata)
    real = not any(t.is_complex() for t in [*calls[0].tensors, *tensors(calls[0].answer)])
    if options["format"] == "onnx" and not real:
        raise InputError(
            "format=onnx: onnxruntime takes and returns no complex numbers; use torch.view_as_real "
            "in forward, or format=pt2"
        )
    flat, program = trace(model, calls)
    every, outputs = names(calls[0], model.forward)
    inputs = [every[i] for i in flat.kept]
    signature = formats.Signature(inputs, outputs, metadata)
    if options["format"] == "onnx":
        formats.write_onnx(program, path, signature, options)
        run = formats.load_onnx(path)
    else:
        formats.write_pt2(program, path, signature)
        run = formats.load_pt2(path)
    opened = shapes(program)
    fitting = [call for call in calls if fits(flat.selected(call.inputs), opened)]
    kinds = [str(t.dtype).removeprefix("torch.") for t in flat.selected(calls[0].inputs)]
    lines = [
        f"input   {name}: {kind} [{', '.join(map(str, shape))}]"
        for name, kind, shape in zip(inputs, kinds, opened, strict=True)
    ]
    lines.append(f"output  {', '.join(outputs)}")
    return Written(lambda given: run(flat.selected(given)), fitting, lines)


def _write_weights(
    settings: Plain, model: Any, calls: list[Call], path: Path, metadata: dict[str, str]
) -> Written:
    """Write the weights alone; a new model with them answers."""
    from safetensors.torch import load_model, save_model

    save_model(model, str(path), metadata)  # a tensor with several names is written once
    fresh = build.build_model(settings)
    fresh.configure_model()
    fresh.to(next(model.parameters()).dtype).eval()
    load_model(fresh, str(path))

    def run(inputs: Any) -> Answers:
        return tensors(answer(fresh, prediction.cast(inputs, fresh)))

    weights = sum(parameter.numel() for parameter in model.parameters())
    return Written(run, calls, [f"{weights} weights, for a model of the same configuration"])


def _tolerance(options: Plain, *models: Any) -> float | None:
    """Return the relative difference that is allowed; None where a quantized model may differ."""
    given: float | None = options["tolerance"]
    if given is not None or options["quantize"] is not None:
        return given
    dtypes = {parameter.dtype for model in models for parameter in model.parameters()}
    return max((TOLERANCES.get(dtype, 1e-4) for dtype in dtypes), default=1e-4)


def _compare(written: Written, tolerance: float | None) -> str:
    """Compare the file's answers with those of the checkpoint.

    Raises:
        InputError: they differ by more than allowed.
    """
    found = list(differences(written.calls, written.run))
    largest, difference = max(size for _, size in found), max(off for off, _ in found)
    line = f"largest difference from the checkpoint: {difference:.3g} (largest answer {largest:.3g}"
    if tolerance is not None and not difference <= tolerance * (largest or 1.0):
        why = several_ways(written.calls) or f"tolerance={tolerance}"
        raise InputError(f"{line}); {why}: nothing was written")
    return f"{line}, {len(written.calls)} calls of forward)"


def _in_place_of_forward(example: Call, run: Callable[[Any], Answers]) -> Callable[..., Any]:
    """Return a `forward` that asks the file."""
    leaves, structure = pytree.tree_flatten(example.answer)

    def forward(*args: Any, **kwargs: Any) -> Any:
        answers = iter(run((args, kwargs)))
        filled = [next(answers) if isinstance(x, torch.Tensor) else x for x in leaves]
        return pytree.tree_unflatten(filled, structure)

    return forward


def _metrics(settings: Plain, data: Any, model: Any, folder: Path) -> dict[str, float]:
    """Return the metrics of the test rows; none without such rows."""
    if not has_stage(model, data, "test"):
        return {}
    trainer = restore.build_tester(settings, "cpu", folder)
    trainer.test(model, datamodule=data, verbose=False)
    return summary.metrics(trainer)
