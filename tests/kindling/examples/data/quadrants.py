"""Points, and the quadrant that the signs of their first two coordinates name.

Letters: N rows, D features.
"""

from typing import Annotated

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from src.kindling.data import BaseData, Split


def quadrant(points: Tensor) -> Tensor:
    """Return the class of each point [N, D]: 1 left of the origin, 2 below it, 3 both; [N]."""
    return (points[:, 0] < 0).long() + 2 * (points[:, 1] < 0).long()


def draw(rows: int, in_features: int = 3, seed: int = 0) -> Split:
    """Draw normal points [N, D] and their classes [N]."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(rows, in_features, generator=generator)
    return points, quadrant(points)


class QuadrantsData(BaseData):
    """Normal points [N, D] and their classes [N]; 100 of them to test."""

    target = "class"
    out_features = 4
    class_names = ("neither", "left", "below", "both")

    def __init__(
        self,
        in_features: Annotated[int, Field(ge=2, le=24)] = 3,
        rows: PositiveInt = 923,
        val_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.05,
        batch_size: PositiveInt = 220,
        shuffle: bool = True,
        seed: NonNegativeInt = 0,
    ) -> None:
        super().__init__(batch_size, shuffle, seed)
        if round(rows * val_fraction) == rows:
            raise ValueError(f"val_fraction={val_fraction}: leaves no row to train on")
        self.in_features, self.rows, self.val_fraction = in_features, rows, val_fraction

    def splits(self) -> dict[str, Split]:
        """Draw the rows of each split: points [N, D] and classes [N]."""
        points, classes = draw(self.rows + 100, self.in_features, self.seed)
        val = round(self.rows * self.val_fraction)
        ends = {"val": (0, val), "train": (val, self.rows), "test": (self.rows, len(points))}
        return {
            stage: (points[start:stop], classes[start:stop])
            for stage, (start, stop) in ends.items()
            if stop > start
        }
