"""Check that a checkpoint fits the model and optimizers of a run, before the run changes."""

import copy
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import BaseFinetuning
from torch.optim import Optimizer

from src.kindling.errors import InputError
from src.kindling.model import BaseModule
from src.kindling.restore import makes_layers_in_setup
from src.kindling.training.resume_changes import state_of

ERRORS = (RuntimeError, ValueError, LookupError, TypeError)  # of torch and Lightning for a misfit


def check_fit(
    checkpoint: Path, content: Any, model: pl.LightningModule, trainer: pl.Trainer
) -> None:
    """Load a checkpoint's weights and optimizer states as the fit will, on a copy of its content.

    A `configure_optimizers` that fails here, perhaps because it needs the data, leaves the
    optimizers unchecked: the fit calls it again. Layers that wait for the data in the module's
    `setup` leave all unchecked.

    Raises:
        InputError: naming what does not fit.
    """
    trial = {**content, "state_dict": dict(content["state_dict"])}
    try:
        model.on_load_checkpoint(trial)
        model.configure_model()
        if makes_layers_in_setup(model, trial):
            return
        model.load_state_dict(trial["state_dict"], strict=model.strict_loading)
        _load_optimizers(trial, model, trainer)
    except ERRORS as error:
        line = " ".join(str(error).split())
        raise InputError(f"{checkpoint} does not fit this configuration: {line}") from None


class _DatalessTrainer:
    """A stand-in for the Trainer in `configure_optimizers`, before there are batches to count.

    The number of steps only affects schedules, which are not compared.
    """

    estimated_stepping_batches = 1000

    def __init__(self, trainer: pl.Trainer) -> None:
        self.trainer = trainer
        self.optimizers: list[Optimizer] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.trainer, name)


def _load_optimizers(content: Any, model: pl.LightningModule, trainer: Any) -> None:
    outline: Any = _DatalessTrainer(trainer)
    finetuning = [copy.deepcopy(c) for c in trainer.callbacks if isinstance(c, BaseFinetuning)]
    for callback in finetuning:  # it freezes parameters first, and restores its groups later
        callback.setup(outline, model, "fit")
        if state := state_of(content, callback.state_key):
            callback.load_state_dict(state)
    outline.optimizers = _optimizers(model, outline)
    states = content["optimizer_states"]
    if outline.optimizers and len(states) != len(outline.optimizers):
        raise ValueError(
            f"it holds the state of {len(states)} optimizers, and the model configures"
            f" {len(outline.optimizers)}"
        )
    for callback in finetuning:
        callback.on_fit_start(outline, model)
    for optimizer, state in zip(outline.optimizers, states, strict=False):
        optimizer.load_state_dict(state)


def _optimizers(model: pl.LightningModule, trainer: Any) -> list[Optimizer]:
    """Return the optimizers that a model configures; none where that is not known before the fit.

    BaseModule's own `configure_optimizers` prepares the fit as well: its factory is called instead.
    """
    if type(model).configure_optimizers is BaseModule.configure_optimizers:
        assert isinstance(model, BaseModule)
        factory: Any = model.optimizer_factory
        return [factory(model.parameters())]
    model.trainer = trainer
    try:
        return _listed(model.configure_optimizers())
    except Exception:  # a user's method can fail in any way
        return []
    finally:
        model.trainer = None


def _listed(configured: Any) -> list[Optimizer]:
    """Return the optimizers among what `configure_optimizers` may return in Lightning."""
    if isinstance(configured, dict):
        return [configured["optimizer"]]
    if isinstance(configured, list | tuple):
        if configured and isinstance(configured[0], list | tuple):  # optimizers, and schedules
            return list(configured[0])
        return [optimizer for entry in configured for optimizer in _listed(entry)]
    return [configured] if isinstance(configured, Optimizer) else []
