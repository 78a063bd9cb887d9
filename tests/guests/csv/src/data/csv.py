"""Prices of houses from a table with missing areas.

Letters: N rows.
"""

import csv
import io
import random
from typing import Annotated

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from src.kindling.data import BaseData, Split

TOWNS = ("north", "south", "west")


def table(rows: int) -> str:
    """Return a CSV file of N houses; every seventh area is missing."""
    draw, lines = random.Random(0), ["area,rooms,town,price"]
    for row in range(rows):
        area, rooms, town = draw.uniform(40, 200), draw.randint(1, 6), draw.choice(TOWNS)
        price = 2 * area + 10 * rooms + 50 * TOWNS.index(town)
        lines.append(f"{'' if row % 7 == 0 else area:.5},{rooms},{town},{price:.1f}")
    return "\n".join(lines)


def encode(area: str, rooms: str, town: str) -> list[float]:
    """Return the features of a house: a missing area is NaN, the town is one-hot."""
    return [float(area or "nan"), float(rooms), *(float(town == name) for name in TOWNS)]


class CSVData(BaseData):
    """Houses to prices.

    Args:
        rows: N.
        batch_size: rows per batch.
        shuffle: whether training rows are shuffled each epoch.
        seed: the split and the orders follow from it.
        folds: for cross-validation, the number of parts of the training and validation rows.
        fold: the part (from 0) that is validated on.
    """

    in_features = 2 + len(TOWNS)
    out_features = 1
    target = "value"

    def __init__(
        self,
        rows: PositiveInt = 90,
        batch_size: PositiveInt = 15,
        shuffle: bool = True,
        seed: NonNegativeInt = 0,
        folds: Annotated[int, Field(ge=2)] | None = None,
        fold: NonNegativeInt = 0,
    ) -> None:
        super().__init__(batch_size, shuffle, seed, folds, fold)
        self.save_hyperparameters(logger=False)
        self.rows = rows

    def splits(self) -> dict[str, Split]:
        """Return features [N, 5] and prices [N, 1], two thirds of them for training."""
        houses = list(csv.DictReader(io.StringIO(table(self.rows))))
        inputs = torch.tensor([encode(h["area"], h["rooms"], h["town"]) for h in houses])
        targets = torch.tensor([[float(h["price"])] for h in houses])
        order = torch.randperm(self.rows, generator=torch.Generator().manual_seed(self.seed))
        parts = order.tensor_split((self.rows * 4 // 6, self.rows * 5 // 6))
        return {
            stage: (inputs[part], targets[part])
            for stage, part in zip(("train", "val", "test"), parts, strict=True)
        }

    def prediction_inputs(
        self, rooms: PositiveInt = 3, town: str = "north", area: float | None = None
    ) -> Tensor:
        """Return the features [1, 5] of one house; the area may be unknown."""
        if town not in TOWNS:
            raise ValueError(f"town={town}: choose from {', '.join(TOWNS)}")
        return torch.tensor([encode("" if area is None else str(area), str(rooms), town)])
