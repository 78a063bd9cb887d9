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
        rows: PositiveInt = 20,
        batch_size: PositiveInt = 20,
        shuffle: bool = False,
        seed: NonNegativeInt = 0,
    ) -> None:
        super().__init__(batch_size, shuffle, seed)
        self.save_hyperparameters(logger=False)
        self.in_features, self.noise, self.rows = in_features, noise, rows

    def splits(self) -> dict[str, Split]:
        """Draw as many rows for each split."""
        generator = torch.Generator().manual_seed(self.seed)
        slopes = torch.arange(1.0, self.in_features + 1)[:, None]  # [D, 1]
        found = {}
        for stage in ("train", "val", "test"):
            features = torch.randn(self.rows, self.in_features, generator=generator)
            noise = self.noise * torch.randn(self.rows, 1, generator=generator)
            found[stage] = features, features @ slopes + noise
        return found
