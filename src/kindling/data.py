"""BaseData: a LightningDataModule with its splits in memory, loaders and cross-validation.

Letters: N rows, D input features, C outputs.
"""

import inspect
from pathlib import Path
from typing import Any, Self

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from src.kindling.errors import InputError
from src.kindling.files.checkpoint import read_with_hparams
from src.kindling.loader import EpochSampler, TensorLoader

OWN = ("batch_size", "shuffle", "seed", "folds", "fold")  # arguments of BaseData
Split = tuple[Tensor, Tensor]  # inputs [N, D] and targets, [N, C] or class numbers [N]


class BaseData(pl.LightningDataModule):
    """Base class for data sets that fit in memory.

    A subclass defines `splits`. If it declares `in_features`, `out_features` or `target` ("value"
    or "class"), they are compared with the model's before training starts. For data that does not
    fit in memory, override the three `*_dataloader` methods to return your own `DataLoader`s. The
    arguments of the constructor, a subclass's too, are saved as hyperparameters.

    Args:
        batch_size: rows per batch.
        shuffle: whether to shuffle the training rows each epoch.
        seed: determines all rows, orders and folds.
        folds: number of folds for cross-validation over the training and validation rows; None
            keeps the original split.
        fold: the fold to validate on, from 0; the others are used for training.

    Raises:
        ValueError: `fold` is not below `folds`.
    """

    in_features: int
    out_features: int
    target: str

    def __init__(
        self,
        batch_size: int,
        shuffle: bool,
        seed: int,
        folds: int | None = None,
        fold: int = 0,
    ) -> None:
        super().__init__()
        # The arguments of the subclass, which may set some of these itself, or pass on **options.
        taken = inspect.signature(type(self)).parameters
        passes_on = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in taken.values())
        set_by_subclass = [name for name in OWN if not passes_on and name not in taken]
        self.save_hyperparameters(ignore=set_by_subclass, logger=False)
        if fold and fold >= (folds or 1):
            raise ValueError(f"fold={fold}: must be below folds={folds} (counted from 0)")
        self.folds, self.fold = folds, fold
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self._splits: dict[str, Split] | None = None
        self._moved: dict[str, Split] = {}  # to the accelerator

    # To be defined by a data set --------------------------------------------------------------

    def splits(self) -> dict[str, Split]:
        """Return the rows of "train", and of "val" and "test" if they exist."""
        raise NotImplementedError(f"{type(self).__name__} defines no splits")

    # From a file ------------------------------------------------------------------------------

    @classmethod
    def load_from_checkpoint(  # type: ignore[override] # without the options that trust the file
        cls, checkpoint_path: str | Path, **changes: Any
    ) -> Self:
        """Rebuild the data that a model was trained on from its local checkpoint.

        Args:
            checkpoint_path: a local file; only plain data is read from it, so it may come from
                anyone.
            changes: constructor arguments that replace those in the checkpoint.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: the file is not a checkpoint with this data, or is not local.
        """
        content, arguments = read_with_hparams(cls, checkpoint_path)
        data = cls(**arguments | changes)
        if cls.__qualname__ in content:  # the result of its `state_dict`, if it defines one
            data.load_state_dict(content[cls.__qualname__])
        return data

    # Called by Lightning ----------------------------------------------------------------------

    def split(self, stage: str) -> Split | None:
        """Return the rows of "train", "val" or "test"; None if this data has none."""
        if self._splits is None:
            own_loaders = type(self).splits is BaseData.splits and not self.loads_from_splits(
                "train"
            )
            self._splits = {} if own_loaders else self._folded(self.splits())
        return self._splits.get(stage)

    def _folded(self, splits: dict[str, Split]) -> dict[str, Split]:
        """Split the training and validation rows into this fold and the others; keep the test."""
        if self.folds is None:
            return splits
        parts = [splits[stage] for stage in ("train", "val") if stage in splits]
        inputs, targets = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        if len(inputs) < self.folds:
            raise InputError(f"data.folds={self.folds}: must not exceed the {len(inputs)} rows")
        order = np.random.default_rng([self.seed, self.folds]).permutation(len(inputs))
        held_out = torch.zeros(len(inputs), dtype=torch.bool)
        held_out[torch.from_numpy(order[self.fold :: self.folds])] = True
        return splits | {
            "train": (inputs[~held_out], targets[~held_out]),
            "val": (inputs[held_out], targets[held_out]),
        }

    def loads_from_splits(self, stage: str) -> bool:
        """Return whether the batches of a stage come from `splits`, not an overridden loader."""
        name = f"{stage}_dataloader"
        return getattr(type(self), name) is getattr(BaseData, name)

    def train_dataloader(self) -> Any:
        """Return a loader of training batches, shuffled by (seed, epoch), as many on each rank."""
        overfits = self.trainer is not None and getattr(self.trainer, "overfit_batches", 0) > 0
        shuffle = self.shuffle and not overfits  # repeat the same few batches
        return self._loader("train", shuffle=shuffle, pad=True)

    def val_dataloader(self) -> Any:
        """Return a loader of validation batches, each row once over all ranks; [] without rows."""
        return self._loader("val")

    def test_dataloader(self) -> Any:
        """Return a loader of test batches, each row once over all ranks; [] without rows."""
        return self._loader("test")

    def _loader(self, stage: str, *, shuffle: bool = False, pad: bool = False) -> Any:
        split = self.split(stage)
        if split is None:
            return []
        sampler = EpochSampler(
            len(split[0]),
            shuffle=shuffle,
            seed=self.seed,
            rank=self.trainer.global_rank if self.trainer else 0,
            world_size=self.trainer.world_size if self.trainer else 1,
            pad=pad,
        )
        device = self.trainer.strategy.root_device if self.trainer else split[0].device
        return TensorLoader(
            self._near(device, stage, split),
            self.batch_size,
            sampler=sampler,
            device=device,
        )

    def _near(self, device: torch.device, stage: str, split: Split) -> Split:
        """Move the rows to the device once, if they fit in half of its free memory.

        Batches are then gathered on the device. Larger data stays in main memory, and the loader
        moves it one block at a time.
        """
        if split[0].device == device:
            return split
        moved = self._moved.get(stage)
        if moved is None or moved[0].device != device:
            if 2 * sum(tensor.nbytes for tensor in split) > free_memory(device):
                return split
            inputs, targets = split
            self._moved[stage] = moved = inputs.to(device), targets.to(device)
        return moved


def free_memory(device: torch.device) -> int:
    """Return the free memory of an accelerator in bytes; 0 if torch does not report it."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return 0
