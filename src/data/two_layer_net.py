"""Data for the two-layer net: targets of pure noise, or computed by a teacher network.

Letters: N rows, D features, H hidden units, C outputs.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor

from src.data.regression import RegressionData
from src.kindling.data import Split


class TwoLayerNetData(RegressionData):
    """Gaussian features; targets are random, or computed by a fixed random two-layer network.

    Args:
        targets: "random" draws features and targets independently, as the tutorials do; there is
            nothing to generalize, so there are only training rows. "teacher" computes the targets
            with a random two-layer ReLU network, adds noise, and has validation and test rows.
        in_features: D, features per row.
        out_features: C, targets per row.
        teacher_features: H, hidden units of the teacher.
        noise: standard deviation of the noise on the teacher's targets; theirs is about 1.
        rows: training rows; None means 10,000 for "teacher", enough for a student with 1000 inputs
            to learn it, and the tutorials' 64 for "random".
        val_rows: validation rows, for "teacher".
        test_rows: test rows, for "teacher".
        batch_size: rows per batch.
        shuffle: whether to shuffle the training rows each epoch.
        seed: determines all rows, their order, and the teacher.
        folds: number of folds for cross-validation over the training and validation rows.
        fold: the fold to validate on, from 0.

    Source: the PyTorch tutorial "Learning PyTorch with Examples" (random targets);
    Saad and Solla, "On-line learning in soft committee machines" (1995) (a teacher network).
    """

    def __init__(
        self,
        targets: Literal["random", "teacher"] = "teacher",
        in_features: PositiveInt = 1000,
        out_features: PositiveInt = 10,
        teacher_features: PositiveInt = 10,
        noise: NonNegativeFloat = 0.1,
        rows: PositiveInt | None = None,
        val_rows: PositiveInt = 1000,
        test_rows: PositiveInt = 1000,
        batch_size: PositiveInt = 64,
        shuffle: bool = True,
        seed: NonNegativeInt = 0,
        folds: Annotated[int, Field(ge=2)] | None = None,
        fold: NonNegativeInt = 0,
    ) -> None:
        super().__init__(batch_size, shuffle, seed, folds, fold)
        self.targets, self.noise = targets, noise
        self.in_features, self.out_features = in_features, out_features
        self.teacher_features = teacher_features
        rows = rows or (64 if targets == "random" else 10_000)
        self._check_memory(
            rows + val_rows + test_rows, in_features + out_features + teacher_features
        )
        self.rows = {"train": rows, "val": val_rows, "test": test_rows}

    def splits(self) -> dict[str, Split]:
        """Draw the rows of each split: features [N, D] and targets [N, C]."""
        generator = torch.Generator().manual_seed(self.seed)
        if self.targets == "random":
            rows = self.rows["train"]
            features = torch.randn(rows, self.in_features, generator=generator)
            return {"train": (features, torch.randn(rows, self.out_features, generator=generator))}
        teacher = self._teacher(generator)
        return {stage: self._draw(rows, teacher, generator) for stage, rows in self.rows.items()}

    def _teacher(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        # Scaled so that hidden units and outputs have a variance near 1.
        hidden = torch.randn(self.in_features, self.teacher_features, generator=generator)
        output = torch.randn(self.teacher_features, self.out_features, generator=generator)
        return hidden / self.in_features**0.5, output / (0.34 * self.teacher_features) ** 0.5

    def _draw(self, rows: int, teacher: tuple[Tensor, Tensor], generator: torch.Generator) -> Split:
        features = torch.randn(rows, self.in_features, generator=generator)  # [N, D]
        hidden = (features @ teacher[0]).relu()  # [N, H]
        noise = self.noise * torch.randn(rows, self.out_features, generator=generator)
        return features, hidden @ teacher[1] + noise  # [N, C]
