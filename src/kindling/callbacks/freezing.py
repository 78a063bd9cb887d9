"""Save which parameters and statistics of a model are frozen, and restore it."""

from collections.abc import Iterator
from typing import Any

from torch import nn


def frozen(model: nn.Module) -> list[str]:
    """Return the names of parameters that are not trained, and modules that track no statistics."""
    return [name for name, part, flag in _flags(model) if not getattr(part, flag)]


def freeze_only(model: nn.Module, names: list[str]) -> None:
    """Freeze these parameters and statistics, and unfreeze all others."""
    for name, part, flag in _flags(model):
        setattr(part, flag, name not in names)


def _flags(model: nn.Module) -> Iterator[tuple[str, Any, str]]:
    for name, parameter in model.named_parameters():
        yield name, parameter, "requires_grad"
    for name, module in model.named_modules():
        if hasattr(module, "track_running_stats"):
            yield name, module, "track_running_stats"
