"""Decide, in one place, whether calls of several steps can honor what the user wrote.

`obstacle` returns the first thing that a call of several steps could not do as Lightning does. The
run then takes one step per call, in Lightning's own loop, and one line says why. Weights, logs,
averages and files are the same either way.

A callback or module that overrides a hook of `BATCH` wants to be called after each step, and one
that overrides a hook of `EPOCH` in each epoch, unless the same class declares when it next has
something to do:

    def steps_until_next(self, trainer) -> float:
        '''Return the number of optimizer steps up to the next one that BATCH hooks must see.'''

    def epochs_until_next(self, trainer, steps) -> float:
        '''Return the number of epochs, of `steps` steps each, up to the next one whose start or
        end the EPOCH hooks must see; the current epoch counts.'''
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    LearningRateFinder,
    ModelCheckpoint,
    ModelPruning,
    StochasticWeightAveraging,
    Timer,
)
from lightning.pytorch.loops.fetchers import _DataLoaderIterDataFetcher
from lightning.pytorch.plugins import DoublePrecision, HalfPrecision, MixedPrecision, Precision
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import SingleDeviceStrategy

from src.kindling.speed.hooks import overrides

# Hooks of Lightning's that are called around a call, and around an epoch, where the class declares
# what it wants to see; and those that replace a part of the step, which is then Lightning's alone.
# The rest are called at each step, inside a call too, or by Lightning around calls.
BATCH = ("on_train_batch_start", "on_train_batch_end")
EPOCH = ("on_train_epoch_start", "on_train_epoch_end")
REPLACED = ("optimizer_step", "optimizer_zero_grad", "lr_scheduler_step")

# These change the loops or the parameters themselves.
UNSUITABLE = (
    StochasticWeightAveraging,
    ModelPruning,
    LearningRateFinder,
    BatchSizeFinder,
)
PRECISIONS = (Precision, MixedPrecision, DoublePrecision, HalfPrecision)
EVERY = math.inf  # nothing to see between any two steps

Until = Callable[..., float]


def obstacle(trainer: Any) -> str | None:
    """Return the first thing that a call of several steps cannot honor; None for none."""
    module = trainer.lightning_module
    for part, base in _parts(trainer):
        if isinstance(part, UNSUITABLE):
            return f"{type(part).__name__} changes the training loop"
        for replaced in REPLACED if base is pl.LightningModule else ():
            if overrides(part, replaced, base):
                return f"{type(part).__name__}.{replaced} replaces a part of the step"
        if hook := _undeclared(part, base, BATCH, "steps_until_next"):
            return f"{type(part).__name__}.{hook} sees each step"
    if not module.automatic_optimization:
        return f"{type(module).__name__} optimizes manually"
    return _unlike_single_device(trainer) or _unlike_one_loader(trainer)


def _unlike_single_device(trainer: Any) -> str | None:
    if type(trainer.strategy) is not SingleDeviceStrategy:
        return f"{type(trainer.strategy).__name__} has work of its own around each step"
    if type(trainer.precision_plugin) not in PRECISIONS or _scales(trainer):
        return f"precision={trainer.precision} has work of its own around each step"
    if not isinstance(trainer.profiler, PassThroughProfiler):
        return "the profiler measures each step"
    if len(trainer.optimizers) != 1:
        return f"there are {len(trainer.optimizers)} optimizers"
    if any(c.reduce_on_plateau and c.interval == "step" for c in trainer.lr_scheduler_configs):
        return "a plateau schedule reads its metric after each step"
    return None


def _scales(trainer: Any) -> bool:
    return getattr(trainer.precision_plugin, "scaler", None) is not None


def _unlike_one_loader(trainer: Any) -> str | None:
    loop = trainer.fit_loop
    loaders = loop._combined_loader.flattened
    if len(loaders) != 1 or loop._combined_loader.iterables is not loaders[0]:
        return "train_dataloader returns several loaders"
    if math.isinf(loop.max_batches):
        return "the training loader does not tell its length"
    if trainer.reload_dataloaders_every_n_epochs:
        return "reload_dataloaders_every_n_epochs replaces the loader"
    if isinstance(loop._data_fetcher, _DataLoaderIterDataFetcher):
        return "training_step takes a dataloader_iter"
    return None


def _parts(trainer: Any) -> list[tuple[Any, type]]:
    callbacks: list[tuple[Any, type]] = [(c, pl.Callback) for c in trainer.callbacks]
    return [*callbacks, (trainer.lightning_module, pl.LightningModule)]


def limits(trainer: Any, hooks: tuple[str, ...], name: str) -> list[Until] | None:
    """Return when the parts that override some hooks want to be called; None: always."""
    found: list[Until] = []
    for part, base in _parts(trainer):
        if not any(overrides(part, hook, base) for hook in hooks):
            continue
        until = _until(part, hooks, name)
        if until is None:
            return None
        found.append(until)
    return found


def _undeclared(part: Any, base: type, hooks: tuple[str, ...], name: str) -> str | None:
    """Return the first hook that a part overrides without saying when it wants to be called."""
    written = [hook for hook in hooks if overrides(part, hook, base)]
    return written[0] if written and _until(part, hooks, name) is None else None


def _until(part: Any, hooks: tuple[str, ...], name: str) -> Until | None:
    """Return a part's own declaration, or the one of a callback of Lightning's."""
    if name in LIGHTNINGS.get(type(part), {}):
        return partial(LIGHTNINGS[type(part)][name], part)
    # A declaration speaks for the hooks of its own class and of those that it extends.
    declares = all(_depth(part, name) <= _depth(part, hook) for hook in hooks)
    return getattr(part, name) if declares and hasattr(part, name) else None


def _depth(part: Any, name: str) -> int:
    """Return how far from a part a name is defined: 0 for itself, then its classes."""
    places = [vars(part), *map(vars, type(part).__mro__)]
    return next((depth for depth, place in enumerate(places) if name in place), len(places))


def _until_saving(callback: Any, trainer: Any) -> float:
    """Return the steps up to the next checkpoint of a ModelCheckpoint; the clock may be late."""
    every = callback._every_n_train_steps
    return every - trainer.global_step % every if every > 0 else EVERY


def _never(callback: Any, *_: Any) -> float:
    return EVERY


LIGHTNINGS: dict[type, dict[str, Until]] = {
    ModelCheckpoint: {"steps_until_next": _until_saving},
    Timer: {"steps_until_next": _never, "epochs_until_next": _never},  # it reads the clock
}
