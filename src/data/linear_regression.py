"""Data for linear regression: y = X beta + noise.

Letters: N rows, D features.
"""

from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor

from src.data.regression import RegressionData
from src.kindling.data import Split


class LinearRegressionData(RegressionData):
    """Gaussian features, known coefficients and Gaussian noise.

    Args:
        in_features: D, features per row.
        coefficients: beta, one number per feature.
        noise: standard deviation of the noise, in units of y.
        rows: training rows.
        val_rows: validation rows, drawn independently of the training rows.
        test_rows: test rows, drawn independently of both.
        batch_size: rows per batch.
        shuffle: whether to shuffle the training rows each epoch.
        seed: determines all rows and their order.
        folds: number of folds for cross-validation over the training and validation rows.
        fold: the fold to validate on, from 0.

    Raises:
        ValueError: the length of `coefficients` is not `in_features`.

    Source: University of Washington, CSE 446, section 9: beta = (-1, 2), noise 0.1, 50 rows.
    """

    out_features = 1

    def __init__(
        self,
        in_features: PositiveInt = 2,
        coefficients: list[float] = [-1.0, 2.0],  # noqa: B006 - never mutated; documents the default
        noise: NonNegativeFloat = 0.1,
        rows: PositiveInt = 50,
        val_rows: PositiveInt = 50,
        test_rows: PositiveInt = 50,
        batch_size: PositiveInt = 50,
        shuffle: bool = True,
        seed: NonNegativeInt = 0,
        folds: Annotated[int, Field(ge=2)] | None = None,
        fold: NonNegativeInt = 0,
    ) -> None:
        super().__init__(batch_size, shuffle, seed, folds, fold)
        if len(coefficients) != in_features:
            raise ValueError(
                f"coefficients={coefficients}: must be in_features={in_features} numbers"
            )
        self._check_memory(rows + val_rows + test_rows, in_features + 1)
        self.beta = torch.tensor(coefficients, dtype=torch.float32)[:, None]  # [D, 1]
        self.noise = noise
        self.rows = {"train": rows, "val": val_rows, "test": test_rows}
        self.in_features = in_features

    def splits(self) -> dict[str, Split]:
        """Draw the rows of each split: features [N, D] and values [N, 1]."""
        generator = torch.Generator().manual_seed(self.seed)
        return {stage: self._draw(rows, generator) for stage, rows in self.rows.items()}

    def _draw(self, rows: int, generator: torch.Generator) -> Split:
        features: Tensor = torch.randn(rows, self.in_features, generator=generator)
        noise = self.noise * torch.randn(rows, 1, generator=generator)
        return features, features @ self.beta + noise
