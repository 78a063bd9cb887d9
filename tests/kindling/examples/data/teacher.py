"""Rows whose values a fixed random network computes, or pure noise without validation rows.

Letters: N rows, D features, C outputs.
"""

from typing import Literal

import torch
from pydantic import NonNegativeInt, PositiveInt

from src.kindling.data import BaseData, Split


class TeacherData(BaseData):
    """Normal features [N, D]; values [N, C] of a teacher, or drawn at random for training alone."""

    target = "value"

    def __init__(
        self,
        targets: Literal["random", "teacher"] = "teacher",
        in_features: PositiveInt = 20,
        out_features: PositiveInt = 3,
        rows: PositiveInt = 640,
        val_rows: PositiveInt = 100,
        batch_size: PositiveInt = 64,
        shuffle: bool = True,
        seed: NonNegativeInt = 0,
    ) -> None:
        super().__init__(batch_size, shuffle, seed)
        self.targets = targets
        self.in_features, self.out_features = in_features, out_features
        self.rows = {"train": rows, "val": val_rows, "test": val_rows}

    def splits(self) -> dict[str, Split]:
        """Draw the rows of each split."""
        generator = torch.Generator().manual_seed(self.seed)
        if self.targets == "random":
            rows = self.rows["train"]
            features = torch.randn(rows, self.in_features, generator=generator)
            return {"train": (features, torch.randn(rows, self.out_features, generator=generator))}
        hidden = torch.randn(self.in_features, 4, generator=generator) / self.in_features**0.5
        output = torch.randn(4, self.out_features, generator=generator)
        found = {}
        for stage, rows in self.rows.items():
            features = torch.randn(rows, self.in_features, generator=generator)
            found[stage] = features, (features @ hidden).relu() @ output  # [N, C]
        return found
