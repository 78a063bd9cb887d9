"""Let any data module split the same rows in each process, and its loaders resume exactly."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import lightning.pytorch as pl
import numpy as np
from torch.utils.data import DataLoader, IterableDataset

from src.kindling.process.randomness import seed_all, splitmix64
from src.kindling.resumable import ResumableLoader, isolated


def make_repeatable(data: pl.LightningDataModule, seed: int) -> None:
    """Let each call of `setup` and `splits` draw the same random numbers, on each rank.

    A `random_split` is then one split for training, testing, resuming and evaluating.
    """
    for name in ("setup", "splits"):
        if hasattr(data, name):
            setattr(data, name, _seeded_method(getattr(data, name), splitmix64(seed) >> 32))


def _seeded_method(method: Callable[..., Any], seed: int) -> Callable[..., Any]:
    @wraps(method)
    def seeded(*arguments: Any, **named: Any) -> Any:
        with isolated(np.random.MT19937(0)):
            seed_all(seed)
            return method(*arguments, **named)

    return seeded


def make_resumable(data: pl.LightningDataModule, seed: int, shares: bool = True) -> None:
    """Make the DataLoaders of a data module resume exactly, without changing its code.

    Those of training resume at their place. Validation and test read the same in each run, however
    often it was resumed: they count no passes, and keep no generator from one to the next.

    Left unchanged: streams (IterableDataset), samplers without a length, loaders with an `__iter__`
    of their own (which may define a `state_dict`), and the in-memory loader.

    Args:
        data: any LightningDataModule.
        seed: seed of the run.
        shares: whether to split the samples among ranks, as with `use_distributed_sampler`.
    """
    for stage in ("train", "val", "test"):
        name, fits = f"{stage}_dataloader", stage != "test"
        setattr(data, name, _resumable(getattr(data, name), data, seed, shares, fits))


def _resumable(
    original: Callable[..., Any], data: Any, seed: int, shares: bool, fits: bool
) -> Callable[..., Any]:
    @wraps(original)
    def dataloader(*arguments: Any, **named: Any) -> Any:  # the module may call it itself
        trainer, options = data.trainer, {"seed": seed}
        if trainer is not None:
            options["in_order"] = fits and bool(getattr(trainer, "overfit_batches", 0))
            if shares:
                options |= {"rank": trainer.global_rank, "world_size": trainer.world_size}
        return _wrapped(original(*arguments, **named), options)

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
