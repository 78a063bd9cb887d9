"""Points, and the quadrant that the signs of their first two coordinates name.

Letters: N rows, D features.
"""

from typing import Annotated

import torch
from pydantic import Field, NonNegativeInt, PositiveInt

from src.kindling.data import BaseData, Split


class QuadrantsData(BaseData):
    """Normal points [N, D] and their classes [N]; as many test rows as rows for training."""

    target = "class"
    out_features = 4
    class_names = ("both", "left", "below", "neither")

    def __init__(
        self,
        in_features: Annotated[int, Field(ge=2)] = 3,
        rows: PositiveInt = 120,
        val_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        batch_size: PositiveInt = 27,
        shuffle: bool = True,
        seed: NonNegativeInt = 0,
    ) -> None:
        super().__init__(batch_size, shuffle, seed)
        self.save_hyperparameters(logger=False)
        self.in_features, self.rows, self.val_fraction = in_features, rows, val_fraction

    def splits(self) -> dict[str, Split]:
        """Draw the rows of each split: points [N, D] and classes [N]."""
        generator = torch.Generator().manual_seed(self.seed)
        points = torch.randn(2 * self.rows, self.in_features, generator=generator)
        classes = (points[:, 0] < 0).long() + 2 * (points[:, 1] < 0).long()
        val = round(self.rows * self.val_fraction)
        ends = {"val": (0, val), "train": (val, self.rows), "test": (self.rows, 2 * self.rows)}
        return {
            stage: (points[start:stop], classes[start:stop])
            for stage, (start, stop) in ends.items()
            if stop > start
        }
