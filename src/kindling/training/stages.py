"""Find out which stages a run has: validation and test need a step and rows."""

import lightning.pytorch as pl
from lightning.pytorch.utilities.model_helpers import is_overridden

from src.kindling.data import BaseData


def has_stage(model: pl.LightningModule, data: pl.LightningDataModule, stage: str) -> bool:
    """Return whether any module and data have a step and rows for "val" or "test"."""
    step = "validation_step" if stage == "val" else "test_step"
    if not is_overridden(step, model) or not is_overridden(f"{stage}_dataloader", data):
        return False
    return not _is_ours(data, stage) or data.split(stage) is not None  # type: ignore[attr-defined]


def repeats_rows(trainer: pl.Trainer, data: pl.LightningDataModule) -> bool:
    """Return whether Lightning repeats test rows, to give each of several processes as many."""
    return trainer.world_size > 1 and not _is_ours(data, "test")


def _is_ours(data: pl.LightningDataModule, stage: str) -> bool:
    return isinstance(data, BaseData) and data.loads_from_splits(stage)
