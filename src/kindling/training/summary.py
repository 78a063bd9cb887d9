"""Summarize a run: its metrics, hyperparameters and device."""

import itertools
import shlex
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from src.kindling import layout
from src.kindling.callbacks.training_metrics import NAMES
from src.kindling.errors import printable
from src.kindling.layout import Plain, flat

GROUPS = ("model", "optimizer", "scheduler")  # known by their name
USUAL = (
    "seed",
    "optimizer.lr",
    "optimizer.weight_decay",
    "data.batch_size",
    "trainer.max_epochs",
    "trainer.precision",
)
HEALTH = {*NAMES} - {"train/loss"}  # in metrics.json and the charts, not in the final table
UNIMPORTANT = ("log_dir", "resume", "logger")  # where a run is kept, and who keeps its history


def metrics(trainer: pl.Trainer) -> dict[str, float]:
    """Return the trainer's latest metrics as plain numbers."""
    return {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}


def hyperparameters(settings: Plain, overrides: list[str]) -> dict[str, Any]:
    """Return the settings that runs are compared by, flat: {"optimizer.lr": 0.01, ...}.

    These are the common ones, those of the model, and everything that the command line set.

    Args:
        settings: the resolved configuration.
        overrides: what the command line set: ["optimizer=muon", "data.noise=0.5", ...].
    """
    model, optimizer, scheduler = (settings[g]["_target_"] for g in GROUPS)
    chosen = {
        "model": model.split(".")[-2],
        "optimizer": optimizer.rpartition(".")[2],
        "scheduler": scheduler.rpartition(".")[2],
    }
    values = {key: value for key, value in flat(settings).items() if "._" not in key}
    own = [k for k, v in values.items() if k.startswith("model.") and isinstance(v, int | float)]
    given = [override.lstrip("+~").partition("=") for override in overrides]
    for key in [*USUAL, *own, *(key for key, _, _ in given if key not in UNIMPORTANT)]:
        if (value := values.get(key)) is not None:
            chosen[key] = str(value) if isinstance(value, list) else value
    # A group's option has no value in the configuration: its name stands for it.
    options = {key: value for key, _, value in given if "." not in key and key not in values}
    return {key: v for key, v in options.items() if key not in UNIMPORTANT} | chosen


def device_name(trainer: pl.Trainer) -> str:
    """Return what the trainer runs on, for run.json: "cpu", "cuda: NVIDIA H100", ..."""
    device = trainer.strategy.root_device
    name = f"{device.type}: {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return f"{name or device.type}, {trainer.world_size} process(es)"


def table(values: dict[str, float]) -> str:
    """Return final metrics as a table: a column per stage, test first, each with its loss on top.

    How the training went (learning rate, memory, ...) stays in metrics.json.
    """
    stages: dict[str, dict[str, float]] = {"test": {}, "val": {}, "train": {}}
    for name in sorted(values, key=lambda name: (not name.endswith("/loss"), name)):
        if name not in HEALTH:
            stages.setdefault(name.partition("/")[0], {})[name] = values[name]
    columns = [_column(metrics) for metrics in stages.values() if metrics]
    widths = [len(column[0]) for column in columns]
    rows = itertools.zip_longest(*columns, fillvalue="")
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _column(values: dict[str, float]) -> list[str]:
    name, number = max(map(len, values)), max(len(f"{value:.6g}") for value in values.values())
    return [f"  {printable(key):<{name}}  {value:>{number}.6g}" for key, value in values.items()]


def next_steps(run: Path, longer: dict[str, str]) -> list[str]:
    """Return useful commands on a run that has ended.

    Args:
        run: the run directory.
        longer: the overrides with which `resume=` makes it longer; none if nothing does.
    """
    lines = []
    saved = any((run / "checkpoints" / name).is_file() for name in (layout.BEST, layout.LAST))
    if saved:
        lines.append(layout.command_line("predict", run=str(run)))
    if (layout.CONF.parent / "src" / "report.py").is_file():  # it may be deleted
        lines.append(layout.command_line("report", run=str(run)))
    if saved and longer:
        lines.append(layout.command_line("train", resume=str(run), **longer))
    if (run / "tensorboard").is_dir():
        lines.append(f"tensorboard --logdir {shlex.quote(str(run.parent.parent))}")
    return lines
