"""What TensorBoard shows beside scalars: each function makes the record of one of its tabs."""

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
from tensorboard.backend.event_processing.event_file_loader import (  # type: ignore[import-untyped]
    LegacyEventFileLoader,
)
from tensorboard.compat.proto import event_pb2  # type: ignore[import-untyped]
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
        "samples a second": ["Multiline", ["train/samples_per_second"]],
        "memory (MB)": ["Multiline", ["train/memory_mb"]],
    },
    "Is it healthy?": {
        "gradient norm": ["Multiline", ["train/gradient_norm"]],
        "update of a step, as a share of the weights": ["Multiline", ["train/update_to_weight"]],
        "learning rate": ["Multiline", ["train/lr"]],
        "momentum": ["Multiline", ["train/momentum"]],
    },
}


def session_start(name: str, hyperparameters: dict[str, Any]) -> Any:
    """Return the record of a run's hyperparameters, its row of the HPARAMS tab.

    The columns of metrics are the last scalars of the runs: TensorBoard finds them by itself, over
    runs of several models too, as long as no run says which there are.

    Args:
        name: the row's name; what is found twice under one name (by way of a link) is one row.
        hyperparameters: numbers, texts and truth values by name.
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
    """Write that record into an event file of its own, in place of the one that is there.

    TensorBoard believes the first record that it finds of a run: only so a resumed run, whose
    settings may have changed, has a row with those that it has now. What an earlier command line
    set, and this one does not, stays in the row.
    """
    known = {**_hyperparameters(path), **hyperparameters}
    summary = session_start(name, known)
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
    """Return the hyperparameters that an event file holds; none where it cannot be read."""
    found: dict[str, Any] = {}
    with contextlib.suppress(Exception):  # damaged, or not there: then it is written anew
        for event in LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                content = value.metadata.plugin_data.content
                held = metadata.parse_session_start_info_plugin_data(content).hparams
                found |= {key: getattr(v, v.WhichOneof("kind")) for key, v in held.items()}
    return found


def scalars(points: dict[str, float]) -> Any:
    """Return the record of numbers by name, all of one step."""
    values = [Summary.Value(tag=name, simple_value=value) for name, value in points.items()]
    return Summary(value=values)


def session_end(succeeded: bool) -> Any:
    """Return the record that a run has ended, and whether well."""
    status = api_pb2.Status.Value("STATUS_SUCCESS" if succeeded else "STATUS_FAILURE")
    info = SessionEndInfo(status=status, end_time_secs=time.time())
    return _session(metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=info))


def _session(tag: str, content: Any) -> Any:
    about = metadata.create_summary_metadata(content)
    return Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)])


def texts(run: Path) -> dict[str, str]:
    """Return what a run directory says about its run, as Markdown by tag."""
    found = {}
    if (run / "config.yaml").is_file():
        lines = (run / "config.yaml").read_text(encoding="utf-8").splitlines()
        found["configuration"] = "\n".join(f"    {line}" for line in lines)
    if (run / "run.json").is_file():
        facts = flat(json.loads((run / "run.json").read_text(encoding="utf-8")))
        rows = [f"| {key} | {_cell(value)} |" for key, value in facts.items() if value is not None]
        found["run"] = "\n".join(["| what | value |", "|---|---|", *rows])
    return found


def _cell(value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def picture(tag: str, png: bytes, description: str) -> Any:
    """Return the record of a picture.

    Args:
        tag: its name in the Images tab.
        png: the content of a PNG file.
        description: what it shows, in a sentence; TensorBoard shows it next to the name.
    """
    width, height = struct.unpack(">II", png[16:24])  # of the header, which comes first
    image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=png)
    about = SummaryMetadata(display_name=tag, summary_description=description)
    return Summary(value=[Summary.Value(tag=tag, image=image, metadata=about)])


def graph(net: nn.Module, inputs: Any) -> Any:
    """Return the network's graph, traced with example inputs; its modes stay as they are.

    Raises:
        Exception: whatever the network, or the tracing of it, raises.
    """
    modes = [(module, module.training) for module in net.modules()]
    # A copy that shares its weights and is not compiled; and torch calls its tracer deprecated.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            return _pytorch_graph.graph(copy.copy(net), inputs)  # type: ignore[no-untyped-call]
        finally:
            for module, training in modes:
                module.training = training


def example(model: Any) -> Any:
    """Return inputs that a model's network takes; None where the model does not say."""
    if getattr(model, "example_input_array", None) is not None:
        return model.example_input_array
    if not isinstance(getattr(model, "net", None), nn.Module):
        return None
    weight: Tensor | None = next(model.net.parameters(), None)
    if weight is None or not isinstance(getattr(model, "in_features", None), int):
        return None
    return torch.zeros(1, model.in_features, dtype=weight.dtype, device=weight.device)
