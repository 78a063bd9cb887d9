"""A run in numbers and words: its metrics, its hyperparameters, its device."""

from typing import Any

import lightning.pytorch as pl
import torch

from src.config import Plain


def metrics(trainer: pl.Trainer) -> dict[str, float]:
    """Return the trainer's latest metrics as plain numbers."""
    return {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}


def hyperparameters(settings: Plain) -> dict[str, Any]:
    """Return the settings that make a run what it is, flat: {"optimizer.lr": 0.01, ...}."""
    groups = ("model", "data", "optimizer", "scheduler")
    chosen = {name: settings[name] for name in groups}
    trainer = ("max_epochs", "precision", "accumulate_grad_batches", "gradient_clip_val")
    chosen["trainer"] = {name: settings["trainer"][name] for name in trainer}
    flat = {
        f"{group}.{key}": value if isinstance(value, int | float | str) else str(value)
        for group, values in chosen.items()
        for key, value in values.items()
        if value is not None and not key.startswith("_")
    }
    for group in ("optimizer", "scheduler"):
        flat[group] = settings[group]["_target_"].rpartition(".")[2]
    return {"seed": settings["seed"], **flat}


def device_name(trainer: pl.Trainer) -> str:
    """Return what the trainer runs on, for run.json: "cpu", "cuda: NVIDIA H100", ..."""
    device = trainer.strategy.root_device
    name = f"{device.type}: {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return f"{name or device.type}, {trainer.world_size} process(es)"


def table(values: dict[str, float]) -> str:
    """Return metrics as lines of name and value."""
    width = max((len(name) for name in values), default=0)
    return "\n".join(f"  {name:<{width}}  {value:.6g}" for name, value in values.items())
