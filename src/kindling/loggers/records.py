"""Build TensorBoard's records: hyperparameters, texts, pictures, graphs and scalars."""

import contextlib
import copy
import io
import json
import struct
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from tensorboard.backend.event_processing.event_file_loader import (  # type: ignore[import-untyped]
    LegacyEventFileLoader,
)
from tensorboard.compat.proto import event_pb2  # type: ignore[import-untyped]
from tensorboard.compat.proto.graph_pb2 import GraphDef  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import (  # type: ignore[import-untyped]
    Summary,
    SummaryMetadata,
)
from tensorboard.plugins.hparams import api_pb2, metadata  # type: ignore[import-untyped]
from tensorboard.plugins.hparams.plugin_data_pb2 import (  # type: ignore[import-untyped]
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)
from tensorboard.summary.writer.record_writer import (  # type: ignore[import-untyped]
    RecordWriter,
)
from torch import Tensor, nn
from torch.utils.tensorboard import _pytorch_graph

from src.kindling.files.atomic_write import write_atomically
from src.kindling.layout import flat

# The Custom Scalars tab: category -> chart -> the tags of its lines, as regular expressions.
LAYOUT = {
    "Is it learning?": {
        "loss of training and validation": ["Multiline", ["train/loss", "val/loss"]],
        "validation metrics": ["Multiline", ["val/(?!loss$)"]],
    },
    "Is it fast?": {
        "samples per second": ["Multiline", ["train/samples_per_second"]],
        "memory (MB)": ["Multiline", ["train/memory_mb"]],
    },
    "Is it healthy?": {
        "gradient norm": ["Multiline", ["train/gradient_norm"]],
        "update size relative to the weights": ["Multiline", ["train/update_to_weight"]],
        "learning rate": ["Multiline", ["train/lr"]],
        "momentum": ["Multiline", ["train/momentum"]],
    },
}


def session_start(name: str, hyperparameters: dict[str, Any]) -> Any:
    """Return the record of a run's hyperparameters: its row in the HPARAMS tab.

    TensorBoard fills the metric columns with the last scalars of the runs, also for runs of several
    models, as long as no run declares its metrics.

    Args:
        name: name of the row; a run that is found twice (through a link) remains one row.
        hyperparameters: numbers, strings and booleans by name.
    """
    info = SessionStartInfo(group_name=name, start_time_secs=time.time())
    for key, value in hyperparameters.items():
        if isinstance(value, bool):
            info.hparams[key].bool_value = value
        elif isinstance(value, int | float):
            info.hparams[key].number_value = value
        else:
            info.hparams[key].string_value = str(value)
    return _session(metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=info))


def write_session_start(path: Path, name: str, hyperparameters: dict[str, Any]) -> None:
    """Write that record to an event file of its own, replacing the previous one.

    TensorBoard uses the first record that it finds for a run, so only a replaced file shows the
    current settings of a resumed run. Settings of earlier command lines stay in the row unless
    overridden.
    """
    summary = session_start(name, {**_hyperparameters(path), **hyperparameters})
    events = [
        event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2"),
        event_pb2.Event(wall_time=time.time(), summary=summary),
    ]
    file = io.BytesIO()
    for event in events:
        RecordWriter(file).write(event.SerializeToString())
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, file.getvalue())


def _hyperparameters(path: Path) -> dict[str, Any]:
    """Return the hyperparameters in an event file; empty if it cannot be read."""
    found: dict[str, Any] = {}
    with contextlib.suppress(Exception):  # damaged or missing: it is rewritten
        for event in LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                content = value.metadata.plugin_data.content
                hparams = metadata.parse_session_start_info_plugin_data(content).hparams
                found |= {key: getattr(v, v.WhichOneof("kind")) for key, v in hparams.items()}
    return found


def scalars(points: dict[str, float]) -> Any:
    """Return the record of scalars of one step, by name."""
    values = [Summary.Value(tag=name, simple_value=value) for name, value in points.items()]
    return Summary(value=values)


def session_end(succeeded: bool) -> Any:
    """Return the record of the end of a run, with its success or failure."""
    status = api_pb2.Status.Value("STATUS_SUCCESS" if succeeded else "STATUS_FAILURE")
    info = SessionEndInfo(status=status, end_time_secs=time.time())
    return _session(metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=info))


def _session(tag: str, content: Any) -> Any:
    summary = metadata.create_summary_metadata(content)
    return Summary(value=[Summary.Value(tag=tag, metadata=summary, tensor=metadata.NULL_TENSOR)])


def texts(run: Path) -> dict[str, str]:
    """Return the configuration and the record of a run as Markdown, by tag."""
    found = {}
    if (run / "config.yaml").is_file():
        lines = (run / "config.yaml").read_text(encoding="utf-8").splitlines()
        found["configuration"] = "\n".join(f"    {line}" for line in lines)
    if (run / "run.json").is_file():
        facts = flat(json.loads((run / "run.json").read_text(encoding="utf-8")))
        rows = [f"| {key} | {_cell(value)} |" for key, value in facts.items() if value is not None]
        found["run"] = "\n".join(["| key | value |", "|---|---|", *rows])
    return found


def _cell(value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def picture(tag: str, png: bytes, description: str) -> Any:
    """Return the record of a picture.

    Args:
        tag: its name in the Images tab.
        png: content of a PNG file.
        description: one sentence that TensorBoard displays next to the name.
    """
    width, height = struct.unpack(">II", png[16:24])  # in the header
    image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=png)
    caption = SummaryMetadata(display_name=tag, summary_description=description)
    return Summary(value=[Summary.Value(tag=tag, image=image, metadata=caption)])


def graph(net: nn.Module, inputs: Any) -> Any:
    """Return the record of a network's graph, traced with example inputs; its modes stay.

    Raises:
        Exception: anything that the network or the tracer raises.
    """
    modes = [(module, module.training) for module in net.modules()]
    with warnings.catch_warnings():  # torch's tracer warns that it is deprecated
        warnings.simplefilter("ignore")
        try:
            # Trace an uncompiled copy that shares the weights. torch keeps each trace until the
            # process ends, and `check_trace` would add several.
            traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                copy.copy(net).eval(), inputs, check_trace=False
            )
        finally:
            for module, training in modes:
                module.training = training
    nodes = _pytorch_graph.parse(traced.inlined_graph, traced)  # type: ignore[no-untyped-call]
    return event_pb2.Event(graph_def=GraphDef(node=nodes).SerializeToString())


def traceable(model: Any) -> tuple[nn.Module, Any] | None:
    """Return what a graph is traced from: a network and example inputs; None if they are unknown.

    With Lightning's `example_input_array` (a tensor, several, or a dictionary of arguments) that is
    the model's forward, otherwise its `net`.
    """
    weight = next(model.parameters(), torch.empty(0))
    if (inputs := getattr(model, "example_input_array", None)) is not None:
        return _Forward(model), (apply_to_collection(inputs, Tensor, _like, weight),)
    net, width = getattr(model, "net", None), getattr(model, "in_features", None)
    if not isinstance(net, nn.Module) or not isinstance(width, int):
        return None
    return net, _like(torch.zeros(1, width), weight)


def _like(inputs: Tensor, weight: Tensor) -> Tensor:
    """Return inputs on the device of a weight, and numbers in its precision."""
    return inputs.to(weight.device, weight.dtype if inputs.is_floating_point() else None)


class _Forward(nn.Module):
    """A model's forward with its layers alone.

    torch's tracer reads every attribute, which a LightningModule refuses: `trainer`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.models = [model]  # in a list, or it would be a layer itself
        for name, layer in model.named_children():
            if any(True for _ in layer.parameters()):
                self.add_module(name, layer)
        for name, parameter in model.named_parameters(recurse=False):
            self.register_parameter(name, parameter)

    def forward(self, inputs: Any) -> Any:
        """Pass the inputs on as Lightning does."""
        [model] = self.models
        if isinstance(inputs, dict):
            return model(**inputs)
        return model(*inputs) if isinstance(inputs, tuple) else model(inputs)
