"""Export a checkpoint: trace it, write it, run the file, compare, and only then keep it."""

import copy
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.utils import _pytree as pytree

from src.kindling import build, restore
from src.kindling.errors import InputError, nearest
from src.kindling.export import formats
from src.kindling.export.calls import Answers, Call, differences, names, parameters, record
from src.kindling.export.program import Flat, fits, shapes, trace
from src.kindling.files.output import write_output
from src.kindling.layout import Plain
from src.kindling.training import summary
from src.kindling.training.stages import has_stage

PACKAGES = {
    "onnx": ["onnx", "onnxscript", "onnxruntime"],
    "pt2": [],
    "safetensors": ["safetensors"],
}
PRECISIONS = {"32": torch.float32, "16": torch.float16, "bf16": torch.bfloat16}
TOLERANCES = {"32": 1e-4, "16": 1e-2, "bf16": 5e-2}  # times the largest answer


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
    kind = str(options["format"])
    if kind not in PACKAGES:
        raise InputError(f"format={kind}: not a format{nearest(kind, [*PACKAGES])}")
    for key, choices in (("precision", [*PRECISIONS]), ("quantize", ["int8"])):
        if options[key] is not None and str(options[key]) not in choices:
            raise InputError(f"{key}={options[key]}: choose from {', '.join(choices)}")
    for key in ("opset", "quantize"):
        if options[key] is not None and kind != "onnx":
            raise InputError(f"{key}={options[key]}: only format=onnx takes it")
    if type(options["opset"]) not in (int, type(None)):
        raise InputError(f"opset={options['opset']}: must be an integer")
    if type(options["tolerance"]) not in (int, float, type(None)):
        raise InputError(f"tolerance={options['tolerance']}: must be a number")
    if missing := [name for name in PACKAGES[kind] if importlib.util.find_spec(name) is None]:
        raise InputError(f"format={kind}: needs {missing[0]}; pip install -e '.[export]'")


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
            exported = copy.deepcopy(model).to(PRECISIONS[str(options["precision"])])
        before = _metrics(settings, data, model, path.parent) if changes else {}
        written = _write(settings, data, exported, calls, path, options)
        lines = [*written.lines, _compare(written, options)]
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
    flat, program = trace(model, calls)
    every = names(calls[0].inputs, "inputs", parameters(model))
    inputs, outputs = [every[i] for i in flat.kept], names(calls[0].answer, "outputs")
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
    formats.write_safetensors(model, path, metadata)
    fresh = build.build_model(settings)
    fresh.configure_model()
    fresh.to(next(model.parameters()).dtype).eval()
    formats.load_safetensors(fresh, path)
    flat = Flat(fresh, calls[0], list(range(len(calls[0].tensors))))

    def run(inputs: Any) -> Answers:
        with torch.no_grad():
            return list(flat(*flat.selected(inputs)))

    weights = sum(parameter.numel() for parameter in model.parameters())
    return Written(run, calls, [f"{weights} weights, for a model of the same configuration"])


def _compare(written: Written, options: Plain) -> str:
    """Compare the file's answers with those of the checkpoint.

    Raises:
        InputError: they differ by more than allowed; a quantized model may unless told otherwise.
    """
    found = list(differences(written.calls, written.run))
    largest, difference = max(size for _, size in found), max(off for off, _ in found)
    tolerance = options["tolerance"]
    if tolerance is None and options["quantize"] is None:
        tolerance = TOLERANCES[str(options["precision"] or 32)]
    line = f"largest difference from the checkpoint: {difference:.3g} (largest answer {largest:.3g}"
    if tolerance is not None and not difference <= tolerance * (largest or 1.0):
        raise InputError(f"{line}); tolerance={tolerance}: nothing was written")
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
