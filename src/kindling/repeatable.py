"""Let any data module split the same rows in each process, and its loaders resume exactly."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import lightning.pytorch as pl
import numpy as np
from torch.utils.data import DataLoader, IterableDataset

from src.kindling.process.randomness import (
    generators_of,
    isolated,
    seed_all,
    set_state,
    splitmix64,
    state_of,
)
from src.kindling.resumable import ResumableLoader


def make_repeatable(data: pl.LightningDataModule, seed: int) -> None:
    """Let each call of `setup` and `splits` draw the same random numbers, on each rank.

    A `random_split` is then one split for training, testing, resuming and evaluating, also with a
    generator that the module keeps.
    """
    own = [(generator, state_of(generator)) for generator in generators_of(data)]
    for name in ("setup", "splits"):
        if hasattr(data, name):
            setattr(data, name, _seeded_method(getattr(data, name), splitmix64(seed) >> 32, own))


def _seeded_method(
    method: Callable[..., Any], seed: int, own: list[tuple[Any, Any]]
) -> Callable[..., Any]:
    @wraps(method)
    def seeded(*arguments: Any, **named: Any) -> Any:
        with isolated(np.random.MT19937(0)):
            seed_all(seed)
            for generator, state in own:
                set_state(generator, state)
            return method(*arguments, **named)

    return seeded


def make_resumable(data: pl.LightningDataModule, seed: int, shares: bool = True) -> None:
    """Make the DataLoaders of a data module resume exactly, without changing its code.

    Those of training resume at their place. A validation reads what follows from (seed, epoch), and
    a test what follows from the seed, in `train` as in `evaluate`.

    Left unchanged: streams (IterableDataset), samplers without a length, loaders with an `__iter__`
    of their own (which may define a `state_dict`), and the in-memory loader.

    Args:
        data: any LightningDataModule.
        seed: seed of the run.
        shares: whether to split the samples among ranks, as with `use_distributed_sampler`.
    """
    for stage in ("train", "val", "test"):
        name, options = f"{stage}_dataloader", {"seed": seed, "epochs": stage != "test"}
        setattr(data, name, _resumable(getattr(data, name), data, options, shares))


def _resumable(
    original: Callable[..., Any], data: Any, options: dict[str, Any], shares: bool
) -> Callable[..., Any]:
    @wraps(original)
    def dataloader(*arguments: Any, **named: Any) -> Any:  # the module may call it itself
        trainer, more = data.trainer, dict(options)
        if trainer is not None:
            more["in_order"] = options["epochs"] and bool(getattr(trainer, "overfit_batches", 0))
            if shares:
                more |= {"rank": trainer.global_rank, "world_size": trainer.world_size}
        return _wrapped(original(*arguments, **named), more)

    return dataloader


def _wrapped(loaders: Any, options: dict[str, Any]) -> Any:
    """Wrap a loader, or those in a list, dictionary or CombinedLoader, where possible."""
    if hasattr(loaders, "flattened"):  # Lightning's CombinedLoader
        loaders.flattened = [_wrapped(loader, options) for loader in loaders.flattened]
        return loaders
    if isinstance(loaders, list | tuple):
        return type(loaders)(_wrapped(loader, options) for loader in loaders)
    if isinstance(loaders, dict):
        return {name: _wrapped(loader, options) for name, loader in loaders.items()}
    return ResumableLoader(loaders, **options) if _can_be_wrapped(loaders) else loaders


def _can_be_wrapped(loader: Any) -> bool:
    if not isinstance(loader, DataLoader) or type(loader).__iter__ is not DataLoader.__iter__:
        return False
    try:
        len(loader)
    except (TypeError, NotImplementedError):
        return False
    return not isinstance(loader.dataset, IterableDataset)
