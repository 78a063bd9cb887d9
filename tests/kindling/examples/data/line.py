"""Rows of a linear function with a little noise.

Letters: N rows, D features.
"""

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from src.kindling.data import BaseData, Split


class LineData(BaseData):
    """Normal features [N, D], and values [N, 1] of a fixed linear function of them."""

    target = "value"
    out_features = 1

    def __init__(
        self,
        in_features: PositiveInt = 2,
        noise: NonNegativeFloat = 0.1,
        rows: PositiveInt = 50,
        val_rows: PositiveInt = 50,
        test_rows: PositiveInt = 50,
        batch_size: PositiveInt = 50,
        shuffle: bool = False,
        seed: NonNegativeInt = 0,
    ) -> None:
        super().__init__(batch_size, shuffle, seed)
        self.in_features, self.noise = in_features, noise
        self.rows = {"train": rows, "val": val_rows, "test": test_rows}

    def splits(self) -> dict[str, Split]:
        """Draw the rows of each split."""
        generator = torch.Generator().manual_seed(self.seed)
        slopes = torch.arange(1.0, self.in_features + 1)[:, None]  # [D, 1]
        found = {}
        for stage, rows in self.rows.items():
            features = torch.randn(rows, self.in_features, generator=generator)
            noise = self.noise * torch.randn(rows, 1, generator=generator)
            found[stage] = features, features @ slopes + noise
        return found
